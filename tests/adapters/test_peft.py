"""PEFT's own merge on the CPU, of what PEFT has saved: bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bridge
from tests.adapters.made import Made, llama, made, quiet
from tests.adapters.ulps import apart

pytestmark = pytest.mark.torch

ATTENTION = ["q_proj", "v_proj", "down_proj"]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@quiet()
def gpt2() -> Any:
    """Its layers store their weights as (in, out); one of them is square."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=16, n_head=2, n_layer=2, vocab_size=32, n_positions=20))


@quiet()
def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=32, max_position_embeddings=20))


@quiet()
def mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4}
    return MixtralForCausalLM(MixtralConfig(**sizes, **heads))


class Convolutions(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = torch.nn.Conv2d(6, 8, 3), torch.nn.Conv1d(8, 4, 5)
        self.c, self.d = torch.nn.Conv2d(16, 24, 1), torch.nn.Conv3d(2, 3, 2)


class Large(torch.nn.Module):
    """Of several tiles each way, none of them whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lin = torch.nn.Linear(2100, 130)


def tied_head() -> Any:
    return llama(attention_bias=True)


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "scales of root ranks, by pattern": (
        llama,
        {
            "target_modules": ATTENTION,
            "lora_alpha": 7,
            "use_rslora": True,
            "rank_pattern": {"q_proj": 2, r"layers.\d+.mlp.down_proj": 3},
            "alpha_pattern": {r"^model.layers.1.self_attn.v_proj": 5},
        },
    ),
    "biases of the factors": (tied_head, {"target_modules": ["q_proj", "k_proj"], "lora_bias": True}),
    "all biases": (tied_head, {"target_modules": ["q_proj"], "bias": "all"}),
    "the biases of its layers": (tied_head, {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "rows of an embedding": (llama, {"target_modules": ["q_proj"], "trainable_token_indices": [3, 1, 7]}),
    "rows of two": (
        llama,
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 1], "lm_head": [2]}},
    ),
    "as torch.save writes it": (llama, {"target_modules": ATTENTION, "safe": False}),
    "a new head": (
        bert,
        {"target_modules": ["query", "dense"], "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"},
    ),
    "large": (Large, {"target_modules": ["lin"], "r": 16}),
}
TWICE = {
    "a Llama": (llama, {"target_modules": ATTENTION}),
    "embeddings, which are rounded twice": (llama, {"target_modules": ["embed_tokens", "lm_head"]}),
    "whole modules": (llama, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "norm"]}),
    "GPT-2": (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "tied": ("lm_head.weight",)}),
    "experts": (
        mixtral,
        {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]},
    ),
    "convolutions": (Convolutions, {"target_modules": ["a", "b", "d"]}),
}
DORA = {
    "a Llama": (llama, {"target_modules": ATTENTION}),
    "GPT-2": (gpt2, {"target_modules": ["c_attn", "c_proj"], "tied": ("lm_head.weight",)}),
    "convolutions": (Convolutions, {"target_modules": ["a", "b", "d"]}),
}


def of(folder: Path, make: Callable[[], Any], config: dict[str, Any], dtype: Any = torch.float32) -> Made:
    return made(folder, make(), dtype=dtype, **{"r": 4, **config})


def differing(case: Made, ulps: int = 0) -> dict[str, int]:
    """The keys that are further apart than so many steps of their dtype, and by how many."""
    loaded = bridge.load(case.base, adapters=[case.adapter])
    assert loaded.keys() == case.merged.keys()
    found = {key: apart(np.asarray(loaded[key]), values) for key, values in case.merged.items()}
    return {key: steps for key, steps in found.items() if steps > ulps}


@pytest.mark.parametrize("name", CASES)
def test_bits_are_those_of_its_merge(name: str, tmp_path: Path) -> None:
    assert differing(of(tmp_path, *CASES[name])) == {}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", TWICE)
def test_in_every_dtype_of_the_base(name: str, dtype: Any, tmp_path: Path) -> None:
    assert differing(of(tmp_path, *TWICE[name], dtype=dtype)) == {}


@pytest.mark.parametrize("name", DORA)
def test_dora_differs_by_three_steps_at_most_before_the_rounding(name: str, tmp_path: Path) -> None:
    make, config = DORA[name]
    assert differing(of(tmp_path, make, {**config, "use_dora": True}), ulps=3) == {}


def test_dora_rounded_once(tmp_path: Path) -> None:
    assert differing(of(tmp_path, llama, {"target_modules": ATTENTION, "use_dora": True}, torch.bfloat16)) == {}


def test_a_kernel_of_one_is_a_product_too(tmp_path: Path) -> None:
    """For matrices of a few elements PyTorch's library adds in an order of its own."""
    case = of(tmp_path, Convolutions, {"target_modules": ["c"]})
    loaded = bridge.load(case.base, adapters=[case.adapter])
    np.testing.assert_allclose(np.asarray(loaded["c.weight"]), case.merged["c.weight"], rtol=0, atol=1e-6)


def test_a_base_whose_names_lack_the_first_segment(tmp_path: Path) -> None:
    case = of(tmp_path, gpt2, {"target_modules": ["c_attn"], "tied": ("lm_head.weight",)})
    with bridge.open(case.base) as ckpt:
        short = {key.removeprefix("transformer."): ckpt[key] for key in ckpt}
    from safetensors.numpy import save_file

    save_file(short, tmp_path / "short.safetensors")
    loaded = bridge.load(tmp_path / "short.safetensors", adapters=[case.adapter])
    for key, values in loaded.items():
        assert np.asarray(values).tobytes() == case.merged[f"transformer.{key}"].tobytes()


def test_one_after_the_other(tmp_path: Path) -> None:
    """Two adapters, one of them by half."""
    from peft import PeftModel

    cases = [
        made(tmp_path / name, llama(), r=4, target_modules=modules, lora_alpha=alpha)
        for name, modules, alpha in (("one", ATTENTION, 8), ("two", ["q_proj", "o_proj"], 2))
    ]
    with quiet():
        model = PeftModel.from_pretrained(llama(), cases[0].adapter, adapter_name="one")
        model.load_adapter(cases[1].adapter, adapter_name="two")
        for module in model.modules():
            if hasattr(module, "set_scale") and "two" in module.lora_A:
                module.set_scale("two", 0.5)
        merged = model.merge_and_unload(adapter_names=["one", "two"]).state_dict()
    loaded = bridge.load(cases[0].base, adapters=[cases[0].adapter, (cases[1].adapter, 0.5)])
    assert {key for key in merged if apart(np.asarray(loaded[key]), merged[key].numpy())} == set()
