"""Functions of models whose calls cannot be seen."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import bridge
from tests.errors.situations import situation


def _trace(name: str, fn: Any, *, abstract: bool = False, plain: bool = False) -> None:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        like = eqx.filter_eval_shape(lambda: {"cell": eqx.nn.Linear(2, 2, key=jax.random.key(0))})
        model = like if abstract else jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), like)
        bridge.trace(fn, {"w": jnp.ones(2)} if plain else model, jnp.ones(2))

    situation(f"tracing: {name}")(provoke)


def _steps(model: Any, x: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + model["cell"](x) + 1, x)


def _solve(model: Any, x: jax.Array) -> jax.Array:
    return jax.lax.custom_linear_solve(lambda x: model["cell"](x), x, lambda call, x: x)


def _split(model: Any, x: jax.Array) -> jax.Array:
    spec = jax.sharding.PartitionSpec()
    return jax.shard_map(
        model["cell"], mesh=jax.sharding.Mesh(jax.devices()[:1], ("x",)), in_specs=spec, out_specs=spec
    )(x)


_trace("a while loop", _steps)
_trace("several devices", _split)
_trace("a primitive that is not known", _solve)
_trace("a model without values", _steps, abstract=True)
_trace("a model without modules", _steps, plain=True)
