"""Mistral (https://arxiv.org/abs/2310.06825): Llama's shape, and layers that may see no further than a window.

A model whose config has `"sliding_window": null` sees everything, as the releases since v0.2 do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from bridge.models.config import DecoderConfig, Fields
from bridge.models.decoder import Decoder, Layer, causal_attention, gated_mlp, rms_norm, stack
from bridge.models.llama import rules as llama_rules


@dataclass(frozen=True, kw_only=True)
class Config(DecoderConfig):
    """What makes one Mistral differ from another.

    - `sliding_window`: how many tokens back a layer sees, itself included; `None`: all of them.
    """

    model_types = ("mistral",)

    defaults: ClassVar[Mapping[str, Any]] = {"num_key_value_heads": 8, "sliding_window": 4096}

    sliding_window: int | None

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        return {"sliding_window": fields.window("sliding_window")} | super().read(fields)

    @property
    def window(self) -> int | None:
        """The same in every layer."""
        return self.sliding_window


class Mistral(Decoder):
    """The decoder. Arguments as for `bridge.models.llama.Llama`."""

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            attention = causal_attention(config, key=keys[0])
            return Layer(attention, gated_mlp(config, key=keys[1]), lambda: rms_norm(config))

        super().__init__(config, stack(layer, config.num_hidden_layers), rms_norm(config), key=key)


def rules(config: Config) -> list[str]:
    """Which key is which leaf: as in a Llama."""
    return llama_rules(config)
