"""Ports with one mistake each: the models of `bridge.models`, held against runs of transformers.

A mistake is planted in the rules, in the model's code or in its config. `names` are the layers of which one has to be
reported first; where a rule is at fault, the rules that are printed, pasted in front of the others, must make the check
pass.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bridge
import bridge.models
from bridge.models._pretrained import architecture

SMALL = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 32,  # as wide as the model: what is exchanged or turned over has the same shape
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = SMALL | {"num_key_value_heads": 4}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ENCODER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
BOTH = {
    "text_config": ENCODER | {"vocab_size": 67, "max_position_embeddings": 16, "eos_token_id": 66},
    "vision_config": ENCODER | {"image_size": 16, "patch_size": 4},
}
STAGES = {"num_channels": 3, "hidden_sizes": [12, 24], "depths": [3, 3]}
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("LlamaForCausalLM", GROUPED),
    "mistral": ("MistralForCausalLM", GROUPED | {"sliding_window": 5}),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", GROUPED | {"head_dim": 8}),
    "gemma3": (
        "Gemma3ForCausalLM",
        GROUPED
        | {"num_hidden_layers": 8, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5}
        | {"sliding_window_pattern": 3},
    ),
    "mixtral": ("MixtralForCausalLM", GROUPED | EXPERTS),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        GROUPED | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 67, "n_embd": 32, "n_inner": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "bert": ("BertModel", SMALL),
    "roberta": ("RobertaModel", SMALL),
    "xlm_roberta": ("XLMRobertaModel", SMALL),
    "distilbert": (
        "DistilBertModel",
        {"vocab_size": 67, "dim": 32, "hidden_dim": 32, "n_layers": 3, "n_heads": 4, "max_position_embeddings": 64},
    ),
    "electra": ("ElectraModel", SMALL | {"embedding_size": 16}),
    "mpnet": ("MPNetModel", SMALL),
    "albert": ("AlbertModel", SMALL | {"embedding_size": 16}),
    "esm": (
        "EsmModel",
        SMALL | {"position_embedding_type": "rotary", "pad_token_id": 1, "mask_token_id": 2, "token_dropout": False},
    ),
    "modernbert": (
        "ModernBertModel",
        SMALL
        | dict.fromkeys(("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id"), 1)
        | {"pad_token_id": 0, "local_attention": 6},
    ),
    "nomic_bert": ("NomicBertModel", SMALL),
    "deberta_v2": (
        "DebertaV2Model",
        SMALL
        | {"relative_attention": True, "position_buckets": 6, "norm_rel_ebd": "layer_norm", "share_att_key": True}
        | {"pos_att_type": "p2c|c2p", "position_biased_input": False},
    ),
    "dinov2": (
        "Dinov2Model",
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_ratio": 1}
        | {"image_size": 16, "patch_size": 4},
    ),
    "dinov2_with_registers": (
        "Dinov2WithRegistersModel",
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_ratio": 1}
        | {"image_size": 16, "patch_size": 4, "num_register_tokens": 2},
    ),
    "deberta": (
        "DebertaModel",
        SMALL | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    ),
    "clip": ("CLIPModel", BOTH | {"projection_dim": 32}),
    "siglip": ("SiglipModel", BOTH),
    "resnet": ("ResNetModel", STAGES | {"embedding_size": 8, "hidden_sizes": [16, 48]}),
    "resnet_basic": ("ResNetModel", STAGES | {"embedding_size": 8, "layer_type": "basic"}),
    "convnext": ("ConvNextModel", STAGES | {"num_stages": 2}),
    "convnextv2": ("ConvNextV2Model", STAGES | {"num_stages": 2}),
    "vit": (
        "ViTModel",
        {name: size for name, size in SMALL.items() if name not in ("vocab_size", "max_position_embeddings")}
        | {"image_size": 16, "patch_size": 4},
    ),
}


@dataclass(frozen=True)
class Port:
    """A recorded model of transformers, and ours of the same files."""

    name: str
    folder: Path
    rules: tuple[str, ...]
    config: Any
    kind: Any
    like: Any
    skip: tuple[str, ...] = ()
    trace: Callable[..., Any] | None = None

    def loaded(self, rules: Sequence[str], like: Any = None) -> tuple[Any, bridge.Plan]:
        """A model by other rules, or of another config, and its plan."""
        like = self.like if like is None else like
        plan = bridge.plan(self.folder, like, list(rules))
        return bridge.load(self.folder, like, plan), plan

    def check(self, model: Any, plan: bridge.Plan) -> Any:
        """What `bridge.check` says."""
        return bridge.check(self.folder / "run.safetensors", model, plan, trace=self.trace, skip=self.skip)


@dataclass(frozen=True)
class Mistake:
    """A port that is wrong.

    - `names`: of the layers that may be named; one of them is at fault.
    - `by_rule`: whether other rules make it right.
    """

    rules: tuple[str, ...]
    names: frozenset[str]
    by_rule: bool = True
    config: Any = None
    code: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    changed: Callable[[Any], Any] = lambda like: like


def port(name: str, folder: Path, record: Callable[..., Any], dtype: str = "float32") -> Port:
    """A random model of transformers, saved and recorded in a folder."""
    import torch
    import transformers

    kind, fields = ARCHITECTURES[name]
    torch.manual_seed(0)
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**fields)
    config._attn_implementation = "eager"
    model = model_class(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.3)
        if key.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.5, 2.0)
    model = model.to(getattr(torch, dtype)).eval()
    model.save_pretrained(folder)
    record(model, _inputs(config, model.dtype), folder / "run.safetensors")
    module, kind, found = architecture(folder)
    like = abstract(kind, found, getattr(jnp, dtype))
    plan = bridge.plan(folder, like, module.rules(found))
    skip = ("contact",) if name == "esm" else ()  # a layer that transformers calls only where it is asked for contacts
    trace = _each_with_each if name in ("clip", "siglip") else None
    return Port(name, folder, tuple(str(rule) for rule in plan.rules), found, kind, like, skip, trace)


def _each_with_each(model: Any, input_ids: jax.Array, pixel_values: jax.Array) -> jax.Array:
    """How each image and each text go together, which is what transformers' model gives."""
    return model.logits(jax.vmap(model.image)(pixel_values), jax.vmap(model.text)(input_ids))


def abstract(kind: Any, config: Any, dtype: Any) -> Any:
    """A model without values, its floats of a dtype."""
    made = eqx.filter_eval_shape(lambda: kind(config, key=jax.random.key(0)))

    def one(leaf: Any) -> Any:
        is_float = isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, dtype) if is_float else leaf

    return jax.tree.map(one, made)


def _inputs(config: Any, dtype: Any) -> dict[str, Any]:
    import torch

    rng = np.random.default_rng(1)
    images, texts = getattr(config, "vision_config", config), getattr(config, "text_config", config)
    found: dict[str, Any] = {}
    if hasattr(texts, "vocab_size"):
        found["input_ids"] = torch.tensor(rng.integers(3, texts.vocab_size, (2, 13)))
    if hasattr(images, "num_channels"):
        side = images.image_size if hasattr(images, "num_attention_heads") else 32  # convolutions take any
        pixels = rng.normal(size=(2, images.num_channels, side, side)).astype(np.float32)
        found["pixel_values"] = torch.tensor(pixels).to(dtype)
    return found


def like_of(port: Port, mistake: Mistake) -> Any:
    if mistake.config is None:
        return port.like
    (dtype,) = {leaf.dtype for leaf in jax.tree.leaves(port.like) if isinstance(leaf, jax.ShapeDtypeStruct)}
    return abstract(port.kind, mistake.config, dtype)


def inner(name: str) -> str:
    """A layer's name without the stack that it is in."""
    name = re.sub(r"^(text_model|vision_model)\.|^stages\.(?:\d+|\{s\})\.(?:rest|first)\.", "", name)
    for stack in ("layers.local", "layers.full", "layers.tail", "layers.first", "layers.rest", "layers"):
        if name == stack:
            return "layers"
        if name.startswith(f"{stack}."):
            return name[len(stack) + 1 :]
    return name
