"""Rotary position embedding (https://arxiv.org/abs/2104.09864), with the scalings that checkpoints ask for.

A head's first half and its second are the two coordinates that are turned (the layout of transformers' weights, which
is not that of Meta's own files). Angles are in float32, and so is turning, unless the model is in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bridge.models._fields import Fields
from bridge.models.layers import accumulation_dtype

__all__ = ["SCALINGS", "Rope", "RotaryAngles"]

SCALINGS = ("default", "linear", "llama3")
"""The scalings that are implemented, as config.json calls them."""


@dataclass(frozen=True)
class Rope:
    """How fast each pair of coordinates turns.

    - `theta`: the base: pair i of n turns by theta^(−i/n) a token.
    - `scaling`: `"default"`, none; `"linear"`, all are slower by `factor`; `"llama3"`, only those are that turn less
        than `low_freq_factor` times in `original_max_position_embeddings` tokens, and between that and
        `high_freq_factor` times there is a smooth passage.
    """

    theta: float
    scaling: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position_embeddings: int = 0

    @classmethod
    def of(cls, fields: Fields, *, theta: float, positions: int) -> Rope:
        """What a config.json says: as `rope_parameters` today, as `rope_theta` and `rope_scaling` before.

        **Arguments:**

        - `fields`: those of the config.
        - `theta`: where the config says none.
        - `positions`: `max_position_embeddings`, which `"llama3"` falls back to.

        **Raises:** `bridge.CheckpointError` that names a field or a value that is not implemented.
        """
        theta = fields.number("rope_theta", default=theta)
        fields.one_of("partial_rotary_factor", [1.0, 1], default=1.0)
        found = fields.either("rope_parameters", "rope_scaling")
        return cls(theta) if found is None else cls.within(found, theta=theta, positions=positions)

    @classmethod
    def within(cls, fields: Fields, *, theta: float, positions: int) -> Rope:
        """What the inner object says, which `of` finds. Arguments as there."""
        theta = fields.number("rope_theta", default=theta)
        fields.one_of("partial_rotary_factor", [1.0, 1], default=1.0)
        scaling = fields.one_of("rope_type", SCALINGS, default=fields.one_of("type", SCALINGS, default="default"))
        factor, low, high, original = 1.0, 1.0, 1.0, 0
        if scaling != "default":
            factor = fields.number("factor")
        if scaling == "llama3":
            low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
            original = fields.count("original_max_position_embeddings", default=positions)
            if high <= low:
                fields.refuse("high_freq_factor", high, f"a number above low_freq_factor, {low}")
        fields.done()
        return cls(theta, scaling, factor, low, high, original)

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Radians a token, f32, shape `(head_dim // 2,)`; rounded where PyTorch's are."""
        one = np.float32(1)
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        fast = one / np.float32(self.theta) ** exponents
        slow = fast / np.float32(self.factor)
        if self.scaling != "llama3":
            return slow
        turns = self.original_max_position_embeddings / (2 * math.pi / fast)
        mixed = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        mixed = np.clip(mixed, 0, 1).astype(np.float32)
        return (one - mixed) * slow + mixed * fast


class RotaryAngles(NamedTuple):
    """The angles by which heads are turned, as cosines and sines: f32, shape `(seq, head_dim // 2)`.

    ```python
    angles = RotaryAngles.at(jnp.arange(7), Rope(theta=10_000.0), head_dim=8)
    turned = angles(jnp.ones((7, 4, 8)))  # heads (seq, heads, head_dim), turned
    ```
    """

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def at(cls, positions: jax.Array, rope: Rope, head_dim: int) -> RotaryAngles:
        """Those of positions `(seq,)`."""
        angles = positions.astype(jnp.float32)[:, None] * rope.frequencies(head_dim)[None, :]
        return cls(jnp.cos(angles), jnp.sin(angles))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Heads `(seq, heads, head_dim)`, turned; in the dtype that they came in."""
        dtype = accumulation_dtype(x.dtype)
        first, second = jnp.split(x.astype(dtype), 2, axis=-1)
        cos, sin = self.cos.astype(dtype)[:, None, :], self.sin.astype(dtype)[:, None, :]
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
