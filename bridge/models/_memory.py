"""What a decoder remembers of the tokens behind it: keys and values, in slots that are used in turn.

A layer that looks back at no more than `window` tokens needs that many slots and no more: position p lives in slot
p mod slots, and takes the place of what is out of sight.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class KeyValues(NamedTuple):
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


def remember(new: KeyValues, length: jax.Array, slots: int) -> KeyValues:
    """A memory of the first `length` tokens of `new`, as far as there are slots. What follows them is padding."""
    seq = new.slots
    wanted = jnp.clip(held(slots, length), 0, seq - 1)  # an empty slot may hold anything: nobody looks there
    return KeyValues(*(jnp.take(x, wanted, axis=-3) for x in new))


def write(memory: KeyValues, new: KeyValues, position: jax.Array) -> KeyValues:
    """The memory with one more token: `new` has `seq` 1."""
    slot = position % memory.slots
    return KeyValues(
        *(jax.lax.dynamic_update_slice_in_dim(m, n, slot, axis=m.ndim - 3) for m, n in zip(memory, new, strict=True))
    )
