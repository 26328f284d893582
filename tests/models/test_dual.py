"""Vectors of images and of texts, compared: what is asked of one and of many."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge.models.dual import DualEncoder

IMAGES, TEXTS = (np.random.default_rng(0).standard_normal((n, 5), np.float32) for n in (2, 3))


class Row(eqx.Module):
    """A vector by its number."""

    rows: jax.Array

    def vector(self, number: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        return self.rows[number]


@pytest.mark.parametrize("bias", [None, -2.0])
def test_a_logit_is_a_cosine_scaled(bias: float | None):
    model = DualEncoder(None, Row(jnp.asarray(TEXTS)), Row(jnp.asarray(IMAGES)), np.log(7.0), bias)
    units: list[Any] = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (IMAGES, TEXTS)]
    expected = 7 * units[0] @ units[1].T + (bias or 0)
    assert np.abs(model.logits(jnp.asarray(IMAGES), jnp.asarray(TEXTS)) - expected).max() < 1e-5
    one = model(jnp.asarray(1), jnp.asarray(2))
    assert one.shape == ()
    assert abs(one - expected[1, 2]) < 1e-5
    many = jax.vmap(model, (None, 0))(jnp.asarray(1), jnp.arange(3))
    assert np.abs(many - expected[1]).max() < 1e-5
    assert model.logits(model.image(jnp.asarray(0)), jnp.asarray(TEXTS)).shape == (3,)


def test_in_bfloat16_a_logit_is_rounded_once():
    images, texts = jnp.asarray(IMAGES, jnp.bfloat16), jnp.asarray(TEXTS, jnp.bfloat16)
    wide = DualEncoder(None, None, None, 1.5, 0.5)
    exact = wide.logits(images.astype(jnp.float32), texts.astype(jnp.float32))
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), wide)
    np.testing.assert_array_equal(narrow.logits(images, texts), exact.astype(jnp.bfloat16))
