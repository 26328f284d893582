"""Small models of transformers', with a recorded run and a checkpoint of each."""

from __future__ import annotations

from typing import Any

import torch
import transformers

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
GROUPED = {"num_key_value_heads": 2}
MODELS: dict[str, tuple[type[Any], Any]] = {
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(**SMALL, **GROUPED)),
    "bert": (transformers.BertModel, transformers.BertConfig(**SMALL)),
    "gpt2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=32),
    ),
    "mixtral": (
        transformers.MixtralForCausalLM,
        transformers.MixtralConfig(**SMALL, **GROUPED, num_local_experts=4),
    ),
    "gemma3": (
        transformers.Gemma3ForCausalLM,
        transformers.Gemma3TextConfig(**SMALL, **GROUPED, head_dim=8, query_pre_attn_scalar=8),
    ),
    "vit": (
        transformers.ViTModel,
        transformers.ViTConfig(
            **{name: value for name, value in SMALL.items() if name != "vocab_size"}, image_size=16, patch_size=4
        ),
    ),
}


def torch_model(name: str) -> Any:
    """A model with weights of its own in its norms too, so that no two are equal."""
    cls, config = MODELS[name]
    torch.manual_seed(0)
    model = cls(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, float(parameter.data.mean()), 0.2)
    return model


def inputs(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16)}
    return {"input_ids": torch.randint(0, 64, (2, 12))}
