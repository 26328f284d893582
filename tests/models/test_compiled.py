"""bfloat16 models on a CPU: compiled so that no call makes a float32 copy of the stacked weights; the numbers stay."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge.models._compiled import ON_CPU, compiled
from bridge.models.llama import Config, Llama
from tests.models.random_model import random_model

TOKENS = jnp.asarray([3, 1, 4, 1], jnp.int32)


@pytest.fixture(scope="module")
def model() -> Llama:
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 16, "vocab_size": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 16}
    wide = random_model(Llama, Config.from_dict(sizes | heads))
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if eqx.is_inexact_array(leaf) else leaf, wide)


def forward(model: Llama, tokens: jax.Array) -> jax.Array:
    return model(tokens)


def beside_nbytes(model: Llama, **options: dict) -> int:
    """What a call takes beside the weights, as XLA plans it."""
    program = eqx.filter_jit(forward, **options).lower(model, TOKENS).compile()
    return program.compiled.memory_analysis().temp_size_in_bytes


def test_a_call_makes_no_float32_copy_of_the_weights(model: Llama) -> None:
    nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(model.layers) if eqx.is_array(leaf))
    assert beside_nbytes(model) > 2 * nbytes  # what the option is for: if XLA no longer does this, `compiled` can go
    assert beside_nbytes(model, **ON_CPU) < nbytes / 2


def test_the_numbers_are_those_of_filter_jit(model: Llama) -> None:
    ours, usual = compiled(forward)(model, TOKENS), eqx.filter_jit(forward)(model, TOKENS)
    assert np.asarray(ours).tobytes() == np.asarray(usual).tobytes()


def test_what_is_traced_is_compiled_with_the_program_around_it(model: Llama) -> None:
    """Where JAX refuses options of a part."""
    expected, call = forward(model, TOKENS), compiled(forward)
    assert jnp.array_equal(eqx.filter_jit(lambda tokens: call(model, tokens))(TOKENS), expected)
    many = jax.vmap(lambda tokens: call(model, tokens))(TOKENS[None])
    assert jnp.allclose(many[0], expected, atol=0.1)
    with pytest.raises(ValueError, match="compiler_options"):
        eqx.filter_jit(lambda tokens: eqx.filter_jit(forward, **ON_CPU)(model, tokens))(TOKENS)
