"""`mark`: a primitive that does nothing to a value, and says in a jaxpr whose it is.

JAX carries it through its transformations: under `vmap` the new axis comes to the front, under `grad` the value before
differentiation stays marked. `interpret` takes the values out again.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


class Token:
    """One call of a module, where the Python code of it ran: whose call, and what belongs to its marks.

    `inputs` and `output` are pytrees with a `Slot` for each array. `peeled` says how many of the axes in front of a
    stacked module's arrays were gone when it was called.
    """

    __slots__ = ("inputs", "kind", "name", "output", "peeled")

    def __init__(self, name: str, kind: str, peeled: int) -> None:
        self.name, self.kind, self.peeled = name, kind, peeled
        self.inputs: Any = None
        self.output: Any = None

    def __repr__(self) -> str:
        return self.name or "model"


class Slot:
    """Stands for an array in the inputs or the output of a call."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


mark_p = Primitive("bridge_mark")
"""Operands: a value, and (perhaps) an array of the module that was called, which is as often mapped over as it is.

Parameters: `token`; `slot`, a number, those of the output behind those of the inputs; `axes`: for each axis that `vmap`
has put in front, whether the module is mapped over with it.
"""


def mark(value: jax.Array, own: tuple[jax.Array, ...], *, token: Token, slot: int) -> jax.Array:
    """The value, marked. `own`: an array of the module, if it has one."""
    return mark_p.bind(value, *own, token=token, slot=slot, axes=())


def _batched(operands: Any, dims: Any, *, axes: tuple[bool, ...], **params: Any) -> tuple[jax.Array, Any]:
    value, *own = operands
    if not isinstance(dims[0], int):  # each release of JAX has its own way to say that nothing is mapped
        return mark_p.bind(value, *own, axes=axes, **params), dims[0]
    stacked = any(isinstance(dim, int) for dim in dims[1:])
    return mark_p.bind(jnp.moveaxis(value, dims[0], 0), *own, axes=(stacked, *axes), **params), 0


def _differentiated(primals: Any, tangents: Any, **params: Any) -> tuple[jax.Array, Any]:
    return mark_p.bind(*primals, **params), tangents[0]


def _transposed(cotangent: Any, value: Any, *own: Any, **params: Any) -> tuple[Any, ...]:
    return (cotangent, *(None for _ in own))


mark_p.def_impl(lambda value, *own, **params: value)
mark_p.def_abstract_eval(lambda value, *own, **params: value)
batching.primitive_batchers[mark_p] = _batched
ad.primitive_jvps[mark_p] = _differentiated
ad.primitive_transposes[mark_p] = _transposed
mlir.register_lowering(mark_p, lambda ctx, value, *own, **params: [value])
