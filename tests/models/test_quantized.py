"""`from_pretrained` on quantised copies: the same rules, and what transformers computes of the values that are meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from tests.models.contract import DecoderContract, compiled
from tests.models.encoder_contract import EncoderContract
from tests.models.test_vit import ImageContract
from tests.quantized.judge import to_numpy, to_torch

pytestmark = pytest.mark.torch

Stored = dict[str, np.ndarray]
SIZES = {
    "vocab_size": 67,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
DECODER = SIZES | {"num_key_value_heads": 2, "head_dim": 32}
MIXTRAL = DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2}
MOE = DECODER | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
VIT = {name: size for name, size in SIZES.items() if name not in ("vocab_size", "max_position_embeddings")}
# A model that config.json names, the class of transformers, and its fields.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", DECODER),
    "mistral": ("MistralForCausalLM", DECODER),
    "mixtral": ("MixtralForCausalLM", MIXTRAL),
    "qwen2": ("Qwen2ForCausalLM", SIZES | {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3ForCausalLM", DECODER),
    "qwen3_moe": ("Qwen3MoeForCausalLM", MOE),
    "gemma3_text": ("Gemma3ForCausalLM", DECODER),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 67, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "bert": ("BertModel", SIZES),
    "roberta": ("RobertaModel", SIZES),
    "vit": ("ViTModel", VIT | {"image_size": 16, "patch_size": 4}),
}
CONTRACTS = {"bert": EncoderContract, "roberta": EncoderContract, "vit": ImageContract}


def fp8(name: str, weight: np.ndarray) -> tuple[Stored, np.ndarray]:
    """Blocks of 32 x 32; what they mean, transformers says."""
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    rows, columns = weight.shape
    blocks = weight.reshape(rows // 32, 32, columns // 32, 32)
    scale = (np.abs(blocks).max((1, 3)) / 448).astype(np.float32)
    codes = (blocks / scale[:, None, :, None]).reshape(weight.shape).astype(ml_dtypes.float8_e4m3fn)
    expected = Fp8Dequantize(None)._dequantize_one(to_torch(codes), to_torch(scale), torch.float32)
    return {f"{name}.weight": codes, f"{name}.weight_scale_inv": scale}, to_numpy(expected)


def int4(name: str, weight: np.ndarray) -> tuple[Stored, np.ndarray]:
    """Groups of 32, by compressed-tensors."""
    from compressed_tensors.compressors.base import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**INT4))
    scale = (np.abs(weight.reshape(len(weight), -1, 32)).max(2) / 7).astype(np.float32)
    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    state = compressor.compress({"weight": to_torch(weight), "weight_scale": to_torch(scale)}, scheme)
    stored = {f"{name}.{key}": to_numpy(value) for key, value in state.items()}
    return stored, to_numpy(compressor.decompress(state, scheme)["weight"])


def nf4(name: str, weight: np.ndarray) -> tuple[Stored, np.ndarray]:
    """Blocks of 64, by bitsandbytes."""
    import torch
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(to_torch(weight), blocksize=64, quant_type="nf4")
    stored = {f"{name}.weight.{key}": to_numpy(value) for key, value in state.as_dict(packed=True).items()}
    value = _dequantize_4bit_compute(packed.reshape(-1), state.absmax, state.code, 64, weight.shape, torch.float32)
    return stored | {f"{name}.weight": to_numpy(packed)}, to_numpy(value)


INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
FORMATS: dict[str, tuple[Callable[[str, np.ndarray], tuple[Stored, np.ndarray]], dict[str, Any]]] = {
    "fp8": (fp8, {"quant_method": "fp8", "weight_block_size": [32, 32]}),
    "int4": (
        int4,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": INT4}},
        },
    ),
    "nf4": (nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
}


def copies(folder: Path, model: str, format: str) -> tuple[Path, Path, int]:
    """A random model quantised, and with the values that this means; of how many weights."""
    import torch
    import transformers

    name, fields = MODELS[model]
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    kind(kind.config_class(**fields)).eval().save_pretrained(folder / "plain")
    quantise, said = FORMATS[format]
    stored: Stored = {}
    values: Stored = {}
    count = 0
    for key, array in load_file(folder / "plain" / "model.safetensors").items():
        dense = array.ndim == 2 and not any(n % 32 for n in array.shape) and "embed" not in key and ".wpe" not in key
        if dense and key.endswith(".weight"):
            parts, values[key] = quantise(key.removesuffix(".weight"), array)
            stored |= parts
            count += 1
        else:
            stored[key] = values[key] = array
    config = json.loads((folder / "plain" / "config.json").read_text())
    for path, tensors, more in (
        (folder / "quantised", stored, {"quantization_config": said}),
        (folder / "dequantised", values, {}),
    ):
        path.mkdir()
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        (path / "config.json").write_text(json.dumps(config | more))
    return folder / "quantised", folder / "dequantised", count


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("model", MODELS)
def test_every_model_loads_its_quantised_copy(model: str, format: str, tmp_path: Path):
    quantised, dequantised, count = copies(tmp_path, model, format)
    assert count >= 8
    ours, plain = (bridge.models.from_pretrained(path) for path in (quantised, dequantised))
    assert eqx.tree_equal(ours, plain)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("model", MODELS)
def test_what_it_computes_is_what_transformers_does(model: str, format: str, tmp_path: Path):
    """Of the values that the format's own package says: every state, and the logits."""
    import torch
    import transformers

    quantised, dequantised, _ = copies(tmp_path, model, format)
    kind, contract = getattr(transformers, MODELS[model][0]), CONTRACTS.get(model, DecoderContract)
    theirs = kind.from_pretrained(dequantised, dtype=torch.float32, attn_implementation="eager").eval()
    example = contract.example(theirs.config)
    expected = contract.judge(theirs, *example)
    found = compiled(contract.run, bridge.models.from_pretrained(quantised), *example)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert np.abs(np.asarray(value) - expected[name]).max() <= 1e-5 * np.abs(expected[name]).max(), name


def test_a_model_is_made_in_the_dtype_of_its_config(tmp_path: Path):
    quantised, _, _ = copies(tmp_path, "llama", "fp8")
    config = json.loads((quantised / "config.json").read_text())
    (quantised / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    for wanted, dtype in ((None, jnp.bfloat16), (jnp.float32, jnp.float32)):
        model = bridge.models.from_pretrained(quantised, dtype=wanted)
        assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))} == {jnp.dtype(dtype)}
