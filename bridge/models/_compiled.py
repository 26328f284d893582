"""Compiling a model's functions, so that bfloat16 weights stay bfloat16 on a CPU.

On a CPU XLA multiplies bfloat16 as float32. Under `lax.scan` it moves that conversion out of the loop: each call then
makes a float32 copy of all layers. Without that pass of XLA each layer is converted where it is used, and the results
are equal. Other dtypes gain nothing, nor do devices that multiply bfloat16 themselves. docs/models.md has figures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer

P = ParamSpec("P")
R = TypeVar("R")

ON_CPU: dict[str, Any] = {"compiler_options": {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}}
"""What `jax.jit` and `eqx.filter_jit` are told for a bfloat16 model on a CPU."""


def compiled(function: Callable[P, R], *, donate: Literal["none", "all-except-first"] = "none") -> Callable[P, R]:
    """`eqx.filter_jit`, with the options that suit the dtype and the device of the arguments."""
    usual = eqx.filter_jit(function, donate=donate)
    on_cpu = eqx.filter_jit(function, donate=donate, **ON_CPU)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (on_cpu if _bfloat16_on_cpu((args, kwargs)) else usual)(*args, **kwargs)

    return call


def _bfloat16_on_cpu(arguments: object) -> bool:
    """Whether there are bfloat16 arrays on a CPU. Never while a program is traced: options are for a whole program."""
    arrays = [leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array)]
    if any(isinstance(array, Tracer) for array in arrays):
        return False
    return any(d.platform == "cpu" for array in arrays if array.dtype == jnp.bfloat16 for d in array.devices())
