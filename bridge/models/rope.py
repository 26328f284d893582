"""Rotary position embedding (https://arxiv.org/abs/2104.09864), with the scalings that checkpoints ask for.

Coordinate i of a head's first half and coordinate i of its second half are one pair, which is rotated. This is the
layout of transformers' weights, and not that of Meta's own files. Angles are float32. Rotations are computed in
float32, or in float64 for a float64 model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bridge
from bridge.models._fields import Fields
from bridge.models.layers import accumulation_dtype

__all__ = ["SCALINGS", "Rope", "RotaryAngles"]

SCALINGS = ("default", "linear", "dynamic", "yarn", "longrope", "llama3")
"""The scalings that are implemented, by their names in config.json."""


@dataclass(frozen=True)
class Rope:
    """The frequency of each pair of coordinates, and a factor of cosines and sines.

    - `theta`: the base: pair i of n is rotated by theta^(−i/n) radians for each token.
    - `scaling`: one of `SCALINGS`. `"default"`: none. `"linear"`: all frequencies are divided by `factor`. `"llama3"`:
        only those are that make less than `low_freq_factor` turns in `original_max_position_embeddings` tokens, with a
        smooth transition up to `high_freq_factor` turns. `"yarn"` (https://arxiv.org/abs/2309.00071): the same with a
        transition from `beta_slow` to `beta_fast` turns, by the number of the pair. `"dynamic"`: the base grows with
        the length of a text beyond `original_max_position_embeddings` tokens. `"longrope"`
        (https://arxiv.org/abs/2402.13753): each pair has its own factor, from `short_factor`, or from `long_factor`
        for texts longer than `original_max_position_embeddings` tokens.
    - `attention_factor`: the factor of cosines and sines.
    - `truncate`: whether YaRN's transition begins and ends at whole pairs.
    """

    theta: float
    scaling: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position_embeddings: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    @classmethod
    def of(cls, fields: Fields, *, theta: float, positions: int) -> Rope:
        """Read the fields of a config.json: `rope_parameters`, or `rope_theta` and `rope_scaling` in older files.

        **Arguments:**

        - `fields`: the fields of the config.
        - `theta`: the base if the config has none.
        - `positions`: `max_position_embeddings`, the default of a scaling's `original_max_position_embeddings`.

        **Raises:** `bridge.CheckpointError` that names a field or a value that is not implemented.
        """
        theta = fields.number("rope_theta", default=theta)
        fields.one_of("partial_rotary_factor", [1.0, 1], default=1.0)
        outside = fields.whole("original_max_position_embeddings", default=0)  # where Phi-3 says it
        found = fields.either("rope_parameters", "rope_scaling")
        if found is None:
            return cls(theta)
        return cls.within(found, theta=theta, positions=positions, original=outside or None)

    @classmethod
    def within(cls, fields: Fields, *, theta: float, positions: int, original: int | None = None) -> Rope:
        """Read the inner object that `of` finds. Arguments as for `of`; `original`: the number of tokens that the model
        was first made for, if the config has it outside of the inner object.
        """
        theta = fields.number("rope_theta", default=theta)
        fields.one_of("partial_rotary_factor", [1.0, 1], default=1.0)
        scaling = fields.one_of("rope_type", SCALINGS, default=fields.one_of("type", SCALINGS, default="default"))
        rope = cls(theta, scaling)
        if scaling not in ("default", "linear", "dynamic"):
            original = fields.count("original_max_position_embeddings", default=original or positions)
            rope = replace(rope, original_max_position_embeddings=original)
        else:
            fields.whole("original_max_position_embeddings", default=0)  # these do not ask
        match scaling:
            case "linear":
                rope = replace(rope, factor=fields.number("factor"))
            case "dynamic":
                rope = replace(rope, factor=fields.number("factor"), original_max_position_embeddings=positions)
            case "llama3":
                low, high = fields.number("low_freq_factor"), fields.number("high_freq_factor")
                if high <= low:
                    fields.refuse("high_freq_factor", high, f"a number above low_freq_factor, {low}")
                rope = replace(rope, factor=fields.number("factor"), low_freq_factor=low, high_freq_factor=high)
            case "yarn":
                rope = rope._yarn(fields, positions)
            case "longrope":
                rope = rope._longrope(fields, positions)
            case _:
                pass
        fields.done()
        return rope

    def _yarn(self, fields: Fields, positions: int) -> Rope:
        factor = fields.number("factor", default=positions / self.original_max_position_embeddings)
        fields.flag("finetuned", default=True)  # of YaRN's first release, whose code does not ask either
        fast, slow = fields.number("beta_fast", default=32.0), fields.number("beta_slow", default=1.0)
        scales = [fields.number(name, default=0.0) for name in ("mscale", "mscale_all_dim") if fields.has(name)]
        if len(scales) == 2 and all(scales):
            attention = _mscale(factor, scales[0]) / _mscale(factor, scales[1])
        else:
            attention = _mscale(factor)
        return replace(
            self,
            factor=factor,
            beta_fast=fast,
            beta_slow=slow,
            attention_factor=fields.number("attention_factor", default=attention),
            truncate=fields.flag("truncate", default=True),
        )

    def _longrope(self, fields: Fields, positions: int) -> Rope:
        first = self.original_max_position_embeddings
        factor = fields.number("factor", default=positions / first)
        attention = math.sqrt(1 + math.log(factor) / math.log(first)) if factor > 1 else 1.0
        return replace(
            self,
            factor=factor,
            attention_factor=fields.number("attention_factor", default=attention),
            short_factor=fields.numbers("short_factor"),
            long_factor=fields.numbers("long_factor"),
        )

    def frequencies(self, head_dim: int) -> np.ndarray:
        """Radians for each token, float32, shape `(head_dim // 2,)`, for texts of the length that the model was first
        made for. The roundings are those of PyTorch.
        """
        one = np.float32(1)
        powers = np.float32(self.theta) ** _exponents(head_dim)
        if self.scaling == "longrope":
            return one / (self._own(self.short_factor, head_dim) * powers)
        if self.scaling == "dynamic":
            return one / powers
        fast = one / powers
        if self.scaling == "yarn":
            slow, kept = one / (np.float32(self.factor) * powers), one - self._passage(head_dim)
            return slow * (one - kept) + fast * kept
        slow = fast / np.float32(self.factor)
        if self.scaling != "llama3":
            return slow
        turns = self.original_max_position_embeddings / (2 * math.pi / fast)
        mixed = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        mixed = np.clip(mixed, 0, 1).astype(np.float32)
        return (one - mixed) * slow + mixed * fast

    def frequencies_at(self, positions: jax.Array, head_dim: int) -> jax.Array | np.ndarray:
        """The frequencies for tokens at `positions`, `(seq,)`: some scalings depend on the length of the text."""
        if self.scaling not in ("dynamic", "longrope"):
            return self.frequencies(head_dim)
        seq = positions.max() + 1
        if self.scaling == "longrope":
            powers = np.float32(self.theta) ** _exponents(head_dim)
            long = np.float32(1) / (self._own(self.long_factor, head_dim) * powers)
            return jnp.where(seq > self.original_max_position_embeddings, long, self.frequencies(head_dim))
        most = np.float32(self.original_max_position_embeddings)
        longer = jnp.maximum(seq.astype(jnp.float32), most)
        grown = (np.float32(self.factor) * longer / most) - np.float32(self.factor - 1)
        base = np.float32(self.theta) * grown ** np.float32(head_dim / (head_dim - 2))
        return 1 / base ** _exponents(head_dim)

    def _own(self, factors: tuple[float, ...], head_dim: int) -> np.ndarray:
        if len(factors) != head_dim // 2:
            raise bridge.CheckpointError(
                "'config.json'",
                f"has {len(factors)} longrope factors, expected {head_dim // 2}, half the width of a head",
                "Fetch it again",
            )
        return np.array(factors, np.float32)

    def _passage(self, head_dim: int) -> np.ndarray:
        """From 0, for pairs that turn often, to 1."""

        def pair(turns: float) -> float:
            tokens = self.original_max_position_embeddings / (turns * 2 * math.pi)
            return head_dim * math.log(tokens) / (2 * math.log(self.theta))

        low, high = pair(self.beta_fast), pair(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        high = high + 0.001 if low == high else high
        numbers = np.arange(head_dim // 2, dtype=np.float32)
        return np.clip((numbers - np.float32(low)) / np.float32(high - low), 0, 1).astype(np.float32)


def _exponents(head_dim: int) -> np.ndarray:
    return np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)


def _mscale(factor: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0


class RotaryAngles(NamedTuple):
    """The angles by which heads are rotated, as cosines and sines: float32, shape `(seq, head_dim // 2)`.

    ```python
    angles = RotaryAngles.at(jnp.arange(7), Rope(theta=10_000.0), head_dim=8)
    turned = angles(jnp.ones((7, 4, 8)))  # heads (seq, heads, head_dim), turned
    ```
    """

    cos: jax.Array
    sin: jax.Array

    @classmethod
    def at(cls, positions: jax.Array, rope: Rope, head_dim: int) -> RotaryAngles:
        """The angles of positions `(seq,)`."""
        angles = positions.astype(jnp.float32)[:, None] * rope.frequencies_at(positions, head_dim)[None, :]
        if rope.attention_factor == 1:
            return cls(jnp.cos(angles), jnp.sin(angles))
        factor = np.float32(rope.attention_factor)
        return cls(jnp.cos(angles) * factor, jnp.sin(angles) * factor)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Rotate heads `(seq, heads, head_dim)`; the result has their shape and dtype."""
        dtype = accumulation_dtype(x.dtype)
        first, second = jnp.split(x.astype(dtype), 2, axis=-1)
        cos, sin = self.cos.astype(dtype)[:, None, :], self.sin.astype(dtype)[:, None, :]
        return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
