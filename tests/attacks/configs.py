"""Each field of each config.json, made huge, beside a few bytes of weights: python -m tests.attacks.configs FOLDER.

What is no error of ours is printed, and so is what takes more memory than a GB, or more than some seconds.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import bridge
from bridge.models._architectures import ARCHITECTURES, CLASSES

ENCODER: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
}
SCALING = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}
DECODER: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 20,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
}
SIGLIP_VISION: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "layer_norm_eps": 1e-5,
}
SIGLIP_TEXT = {name: value for name, value in ENCODER.items() if name not in ("type_vocab_size", "pad_token_id")}
SIGLIP_TEXT |= {"projection_size": 24}
CLIP_VISION = SIGLIP_VISION | {"projection_dim": 8}
CLIP_TEXT = SIGLIP_TEXT | {"eos_token_id": 30, "projection_dim": 8}
del CLIP_TEXT["projection_size"]
WINDOW = {"sliding_window": 8}
EXPERTS = {"num_experts_per_tok": 2}
QWEN = WINDOW | {"use_sliding_window": True, "max_window_layers": 1}
CONVNEXT: dict[str, Any] = {"num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 2], "patch_size": 4}
DINOV2: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "mlp_ratio": 2,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "layer_norm_eps": 1e-5,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": ENCODER,
    "roberta": ENCODER,
    "xlm-roberta": ENCODER,
    "mpnet": ENCODER | {"relative_attention_num_buckets": 32},
    "electra": ENCODER | {"embedding_size": 10},
    "albert": ENCODER | {"embedding_size": 10, "num_hidden_groups": 1, "inner_group_num": 1},
    "deberta": ENCODER | {"relative_attention": True, "max_relative_positions": 20, "pos_att_type": "c2p|p2c"},
    "deberta-v2": ENCODER
    | {"relative_attention": True, "max_relative_positions": 20, "position_buckets": 6, "pos_att_type": "c2p|p2c"}
    | {"embedding_size": 10, "conv_kernel_size": 3, "conv_groups": 1, "attention_head_size": 8}
    | {"pooler_hidden_size": 24, "z_steps": 0},
    "esm": ENCODER | {"mask_token_id": 30, "rope_theta": 10_000.0, "eos_token_id": 2},
    "distilbert": {
        "vocab_size": 31,
        "dim": 24,
        "n_layers": 3,
        "n_heads": 3,
        "hidden_dim": 40,
        "max_position_embeddings": 20,
    },
    "modernbert": {
        **{name: ENCODER[name] for name in ENCODER if name not in ("layer_norm_eps", "type_vocab_size")},
        "norm_eps": 1e-5,
        "local_attention": 8,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
    },
    "nomic_bert": {
        "vocab_size": 31,
        "n_positions": 20,
        "max_trained_positions": 20,
        "n_embd": 24,
        "n_layer": 3,
        "n_head": 3,
        "n_inner": 40,
        "type_vocab_size": 2,
        "pad_vocab_size_multiple": 1,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "swiglu",
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_scaling_factor": 2.0,
        **dict.fromkeys(("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias"), False),
    },
    "vit": {
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "image_size": 32,
        "patch_size": 8,
        "num_channels": 3,
        "layer_norm_eps": 1e-5,
        "pooler_output_size": 24,
    },
    "clip": {"text_config": CLIP_TEXT, "vision_config": CLIP_VISION, "projection_dim": 8},
    "clip_text_model": CLIP_TEXT,
    "clip_vision_model": CLIP_VISION,
    "siglip": {"text_config": SIGLIP_TEXT, "vision_config": SIGLIP_VISION},
    "siglip_text_model": SIGLIP_TEXT,
    **{
        name: {"model_type": kind, "architectures": [name], "vision_config": vision, "id2label": {"0": "a", "1": "b"}}
        for name, kind, vision in (
            ("CLIPForImageClassification", "clip", CLIP_VISION),
            ("SiglipForImageClassification", "siglip", SIGLIP_VISION),
        )
    },
    "siglip_vision_model": SIGLIP_VISION,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2 | {"num_register_tokens": 2},
    "convnext": CONVNEXT,
    "convnextv2": CONVNEXT,
    "resnet": {
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 2],
        "layer_type": "basic",
        "num_channels": 3,
    },
    "gpt2": {
        "vocab_size": 31,
        "n_positions": 20,
        "n_embd": 24,
        "n_layer": 3,
        "n_head": 3,
        "n_inner": 40,
        "layer_norm_epsilon": 1e-5,
        "scale_attn_by_inverse_layer_idx": True,
    },
    "llama": DECODER | {"rope_scaling": {"rope_type": "llama3"} | SCALING},
    "mistral": DECODER | WINDOW,
    "mixtral": DECODER | WINDOW | EXPERTS | {"num_local_experts": 4},
    "qwen2": DECODER | QWEN,
    "qwen3": DECODER | QWEN,
    "qwen3_moe": DECODER | EXPERTS | {"num_experts": 4, "moe_intermediate_size": 8},
    "gemma3_text": DECODER | WINDOW | {"query_pre_attn_scalar": 6, "sliding_window_pattern": 2},
    "gemma3": {"text_config": DECODER | WINDOW | {"query_pre_attn_scalar": 6, "sliding_window_pattern": 2}},
}
HUGE = [2**16, 2**31 - 1, 2**31, 2**40, 2**63, 10**400, 1e308, 2.0**40, -1, 0, 0.5, [2**31, 2**31]]
SECONDS = 5.0


def changed(fields: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The fields with one of them huge, those of objects inside too; and with all of them huge."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", huge, fields | {name: other}) for inner, huge, other in changed(value))
        else:
            yield from ((f"{name}={huge!r:.30}", huge, fields | {name: huge}) for huge in HUGE)
    for huge in HUGE:
        yield f"all={huge!r:.30}", huge, {n: huge if type(v) in (int, float) else v for n, v in fields.items()}


def main() -> None:
    folder = Path(sys.argv[1])
    missing = {*ARCHITECTURES, *CLASSES} ^ CONFIGS.keys()
    assert not missing, f"add the sizes of {sorted(missing)} to CONFIGS in tests/attacks/configs.py"
    for name, count in {"few": 2, "some": 2**16}.items():
        (folder / name).mkdir()
        save_file({"k": np.zeros(count, np.float32)}, folder / name / "model.safetensors")
    for kind, fields in CONFIGS.items():
        (folder / "few/config.json").write_text(json.dumps({"model_type": kind} | fields))
        try:
            bridge.models.from_pretrained(folder / "few")
        except bridge.PlanError:
            continue  # as it is, it is understood, and lacks its weights
        raise AssertionError(kind)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + (1 << 30),) * 2)
    for kind, fields in CONFIGS.items():
        for name, huge, config in changed(fields):
            for size in ("few", "some") if huge in (2**16, 2**31 - 1) else ("few",):
                (folder / size / "config.json").write_text(json.dumps({"model_type": kind} | config))
                start = time.process_time()
                try:
                    bridge.models.from_pretrained(folder / size)
                except bridge.BridgeError as error:
                    said = str(error)
                    if len(said) > 20_000:
                        print(kind, size, name, f"says {len(said)} characters")
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
                    print(kind, size, name, f"{type(error).__name__}: {error}"[:200])
                else:
                    print(kind, size, name, "no error")
                if time.process_time() - start > SECONDS:
                    print(kind, size, name, f"{time.process_time() - start:.1f} s")
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - used
    if taken > 1 << 29:
        print(f"{taken >> 20} MiB taken")
    print("done")


if __name__ == "__main__":
    main()
