"""What the kits offer beyond what the models here use: held against PyTorch, and against doing it layer by layer."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from bridge.models import encoder
from bridge.models.attention import Attention, AttentionContext, KeyValues, dot_product_attention
from bridge.models.embedding import PatchEmbedding, TextEmbedding
from bridge.models.encoder import Layer, TextEncoder
from bridge.models.layers import MLP, GatedMLP, Linear, stack
from bridge.models.rope import Rope, RotaryAngles

SEQ, D, HEADS, HEAD_DIM = 9, 24, 6, 4
KEY = jax.random.key(0)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


MASK = np.arange(SEQ) < 6
BIAS = noise(HEADS, SEQ, SEQ, seed=4)
DISTANCE = np.abs(np.arange(SEQ)[:, None] - np.arange(SEQ)[None, :])
CONTEXTS = {
    "all": (AttentionContext(), np.ones((SEQ, SEQ), bool), 0),
    "a mask": (AttentionContext(jnp.asarray(MASK)), np.broadcast_to(MASK, (SEQ, SEQ)), 0),
    "a mask for each": (AttentionContext(jnp.tril(jnp.ones((SEQ, SEQ), bool))), np.tri(SEQ, dtype=bool), 0),
    "a window": (AttentionContext(window=2), DISTANCE <= 2, 0),
    "a window and a mask": (AttentionContext(jnp.asarray(MASK), window=jnp.asarray(5)), (DISTANCE <= 5) & MASK, 0),
    "a bias and a mask": (AttentionContext(jnp.asarray(MASK), bias=jnp.asarray(BIAS)), MASK & (DISTANCE >= 0), BIAS),
}


@pytest.mark.torch
@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
@pytest.mark.parametrize("what", CONTEXTS)
def test_attention_equals_pytorchs(what: str, kv_heads: int):
    import torch

    context, seen, bias = CONTEXTS[what]
    q = noise(SEQ, HEADS, HEAD_DIM, seed=1)
    k, v = (noise(SEQ, kv_heads, HEAD_DIM, seed=seed) for seed in (2, 3))
    added = torch.from_numpy(np.where(seen, np.float32(0) + bias, -np.inf).astype(np.float32))
    heads = (torch.from_numpy(x.transpose(1, 0, 2))[None] for x in (q, k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=added, enable_gqa=True)[0]
    found = dot_product_attention(jnp.asarray(q), KeyValues(jnp.asarray(k), jnp.asarray(v)), context, scale=0.5)
    assert np.abs(np.asarray(found) - expected.numpy().transpose(1, 0, 2).reshape(SEQ, -1)).max() < 1e-5


def test_a_token_that_sees_nothing_gives_numbers():
    q = jnp.asarray(noise(SEQ, HEADS, HEAD_DIM))
    found = dot_product_attention(q, KeyValues(q, q), AttentionContext(jnp.zeros(SEQ, bool)), scale=1.0)
    assert jnp.isfinite(found).all()


def layers(count: int) -> Layer:
    def layer(key: jax.Array) -> Layer:
        keys = jax.random.split(key)
        attention = Attention(D, HEADS, kv_heads=2, head_norm=lambda: eqx.nn.RMSNorm(HEAD_DIM), key=keys[0])
        return Layer(attention, GatedMLP(D, 40, "silu", key=keys[1]), lambda: eqx.nn.LayerNorm(D), norm_first=True)

    return stack(layer, count)(KEY)


def test_layers_that_are_told_different_things():
    """Windows and angles by layer, as ModernBERT has them: what each layer gives by itself, one after the other."""
    positions, windows = jnp.arange(SEQ), [1, 8, 2]
    angles = [RotaryAngles.at(positions, Rope(theta), HEAD_DIM) for theta in (1e4, 1e2, 1e3)]
    stacked, x = layers(3), jnp.asarray(noise(SEQ, D))
    each = {"window": jnp.array(windows), "angles": jax.tree.map(lambda *a: jnp.stack(a), *angles)}
    last, states = encoder.scan(stacked, x, AttentionContext(jnp.asarray(MASK)), every=True, each=each)
    assert states is not None
    assert states.shape == (3, SEQ, D)
    for number, (window, turned) in enumerate(zip(windows, angles, strict=True)):
        layer = jax.tree.map(lambda leaf, n=number: leaf[n], stacked)
        x = layer(x, AttentionContext(jnp.asarray(MASK), turned, window))
        assert jnp.abs(states[number] - x).max() < 1e-5
    np.testing.assert_array_equal(last, states[-1])
    assert encoder.scan(stacked, x, AttentionContext(), every=False)[1] is None


class Unplaced(TextEncoder):
    """Without positions, types, norm, pooler and head; what padding is embedded as is nothing."""

    def embedded(self, tokens: jax.Array, mask: jax.Array, token_types: jax.Array) -> jax.Array:
        assert token_types.dtype == jnp.int32
        return jnp.where(mask[:, None], self.embed(tokens), 0)


class Sizes:
    max_tokens = None


def test_an_encoder_of_ones_own():
    model = Unplaced(Sizes(), TextEmbedding(D, tokens=30, key=KEY), layers(2))
    tokens = jnp.arange(SEQ)
    states = model.hidden_states(tokens, jnp.asarray(MASK))
    assert states.shape == (3, SEQ, D)
    assert (states[0][6:] == 0).all()
    np.testing.assert_array_equal(model(tokens, jnp.asarray(MASK)), states[-1])
    changed = model(tokens.at[7].set(3), jnp.asarray(MASK))
    np.testing.assert_array_equal(changed[:6], states[-1][:6])
    for call in (model.pooled, model.logits):
        with pytest.raises(bridge.BridgeError, match="this Unplaced has no"):
            call(states[-1])


def test_patches_without_a_class_token():
    embed = PatchEmbedding(
        D, channels=2, image_size=(6, 9), patch_size=(3, 3), class_token=False, bias=False, key=jax.random.key(1)
    )
    image = jnp.asarray(noise(2, 6, 9))
    assert embed.cls is None
    assert embed.patches.bias is None
    assert embed(image).shape == embed.position.shape == (6, D)
    corner = jnp.einsum("ochw,chw->o", embed.patches.weight, image[:, 3:, :3])
    assert jnp.abs(embed(image)[3] - embed.position[3] - corner).max() < 1e-5


def test_a_stack_of_stacks_and_an_mlp():
    made = stack(lambda key: MLP(4, 6, "relu", bias=False, key=key), 2, 3)(KEY)
    assert made.up.weight.shape == (2, 3, 6, 4)
    assert len(np.unique(np.asarray(made.up.weight))) == 2 * 3 * 6 * 4
    one, x = jax.tree.map(lambda w: w[1, 2], made), jnp.asarray(noise(4))
    assert jnp.abs(one(x) - one.down.weight @ jnp.maximum(one.up.weight @ x, 0)).max() < 1e-6
    assert isinstance(one.up, Linear)
