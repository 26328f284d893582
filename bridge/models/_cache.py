"""What a decoder remembers of the tokens behind it: keys and values, in slots that are used in turn.

A layer that looks back at no more than `window` tokens needs that many slots and no more: position p lives in slot
p mod slots, and takes the place of what is out of sight.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rows(NamedTuple):
    """Keys and values, shape `(seq or slots, kv_heads, head_dim)`; of a stack of layers, with its axes in front."""

    k: jax.Array
    v: jax.Array

    @property
    def slots(self) -> int:
        """How many tokens there is room for."""
        return self.k.shape[-3]


def held(slots: int, position: jax.Array) -> jax.Array:
    """Which position each slot holds when the next token's is `position`; shape `(slots,)`; negative: none yet."""
    last = position - 1
    return last - (last - jnp.arange(slots)) % slots


def remember(rows: Rows, length: jax.Array, slots: int) -> Rows:
    """A memory of the first `length` of `rows`, as far as there are slots. What follows them is padding."""
    seq = rows.slots
    wanted = jnp.clip(held(slots, length), 0, seq - 1)  # an empty slot may hold anything: nobody looks there
    return Rows(*(jnp.take(x, wanted, axis=-3) for x in rows))


def write(memory: Rows, row: Rows, position: jax.Array) -> Rows:
    """The memory with one more token, whose row has `seq` 1."""
    slot = position % memory.slots
    return Rows(
        *(jax.lax.dynamic_update_slice_in_dim(m, r, slot, axis=m.ndim - 3) for m, r in zip(memory, row, strict=True))
    )
