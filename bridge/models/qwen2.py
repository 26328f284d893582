"""Qwen2 and Qwen2.5 (https://arxiv.org/abs/2407.10671): Llama's shape, with biases of queries, keys and values.

Some layers may see no further than a window: `layer_types` says which, or, in older files, `max_window_layers`.
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
    """What makes one Qwen2 differ from another.

    - `windows`: for each layer how many tokens back it sees, itself included; `None`: all of them.
    """

    model_types = ("qwen2",)
    defaults: ClassVar[Mapping[str, Any]] = {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}

    windows: tuple[int | None, ...]

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        found = super().read(fields)
        return found | {"windows": read_windows(fields, found["num_hidden_layers"])}

    @property
    def window(self) -> int | tuple[int | None, ...] | None:
        """One for all layers, where all have the same."""
        return self.windows[0] if len(set(self.windows)) == 1 else self.windows


def read_windows(fields: Fields, layers: int) -> tuple[int | None, ...]:
    """How far each layer sees: `sliding_window`, where `use_sliding_window` is set and the layer's type is sliding."""
    fields.one_of("use_mrope", [False], default=False)
    used = fields.flag("use_sliding_window", default=False)
    window = fields.window("sliding_window")
    first = fields.whole("max_window_layers", default=0)
    types = fields.layer_types(layers)
    if types is None:
        types = tuple("sliding_attention" if used and n >= first else "full_attention" for n in range(layers))
    if "sliding_attention" in types and not (used and window):
        fields.refuse("layer_types", list(types), "no sliding layers without 'use_sliding_window' and 'sliding_window'")
    return tuple(window if each == "sliding_attention" else None for each in types)


class Qwen2(Decoder):
    """The decoder. Arguments as for `bridge.models.llama.Llama`."""

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            attention = causal_attention(config, qkv_bias=True, key=keys[0])
            return Layer(attention, gated_mlp(config, key=keys[1]), lambda: rms_norm(config))

        super().__init__(config, stack(layer, config.num_hidden_layers), rms_norm(config), key=key)


def rules(config: Config) -> list[str]:
    """Which key is which leaf: as in a Llama."""
    return llama_rules(config)
