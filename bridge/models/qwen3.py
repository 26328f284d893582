"""Qwen3 (https://arxiv.org/abs/2505.09388): Qwen2 without its biases, with norms over each head of queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from bridge.models import qwen2
from bridge.models.attention import CausalAttention
from bridge.models.config import DecoderConfig, Fields
from bridge.models.decoder import Decoder, Layer, causal_attention, gated_mlp, rms_norm, stack
from bridge.models.llama import rules as llama_rules


@dataclass(frozen=True, kw_only=True)
class Config(qwen2.Config):
    """What makes one Qwen3 differ from another; `windows` as in a Qwen2.

    - `attention_bias`: whether the projections of attention have biases.
    """

    model_types = ("qwen3",)
    defaults: ClassVar[Mapping[str, Any]] = {**qwen2.Config.defaults, "head_dim": 128}

    attention_bias: bool = False

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        return {"attention_bias": fields.flag("attention_bias", default=False)} | super().read(fields)


def normed_attention(config: DecoderConfig, *, bias: bool, key: jax.Array) -> CausalAttention:
    """Attention with norms over each head of queries and keys."""
    options = {"qkv_bias": bias, "out_bias": bias, "head_norm": lambda: rms_norm(config, config.head_dim)}
    return causal_attention(config, **options, key=key)


class Qwen3(Decoder):
    """The decoder. Arguments as for `bridge.models.llama.Llama`."""

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            attention = normed_attention(config, bias=config.attention_bias, key=keys[0])
            return Layer(attention, gated_mlp(config, key=keys[1]), lambda: rms_norm(config))

        super().__init__(config, stack(layer, config.num_hidden_layers), rms_norm(config), key=key)


def rules(config: DecoderConfig) -> list[str]:
    """Which key is which leaf: as in a Llama, and the norms of heads."""
    norms = "model.layers.{l}.self_attn.{q|k}_norm.weight -> layers.attention.{query_norm|key_norm}.weight"
    return [*llama_rules(config), norms]
