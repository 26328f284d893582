"""A model with random weights, made by numpy: nothing is compiled for it."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


def random_model(kind: Any, config: Any, *, scale: float = 0.3) -> Any:
    """`kind(config, key=…)` with every array drawn anew."""
    rng = np.random.default_rng(0)
    like = eqx.filter_eval_shape(kind, config, key=jax.random.key(0))
    return jax.tree.map(
        lambda x: jnp.asarray(rng.standard_normal(x.shape, np.float32) * np.float32(scale), x.dtype), like
    )
