"""`generate`: what the memory of keys and values gives is what computing everything anew gives; compiled once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
import bridge.models
from bridge.models._generate import nucleus
from bridge.models.llama import Config, Llama
from tests.models.random_model import random_model

VOCAB = 23
PROMPT = np.array([3, 1, 4, 1, 5, 9, 2, 6], np.int32)


@pytest.fixture(scope="module")
def model() -> Llama:
    config = Config.from_dict(
        {
            "vocab_size": VOCAB,
            "hidden_size": 12,
            "intermediate_size": 20,
            "num_hidden_layers": 2,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
        }
    )
    return random_model(Llama, config)


def greedy(model: Llama, tokens: np.ndarray, new: int) -> np.ndarray:
    """Without any memory."""
    all_ = np.zeros(64, np.int32)
    all_[: len(tokens)] = tokens
    for n in range(len(tokens), len(tokens) + new):
        all_[n] = likeliest(model, jnp.asarray(all_))[n - 1]  # what stands behind changes nothing
    return all_[: len(tokens) + new]


@eqx.filter_jit
def likeliest(model: Llama, tokens: jax.Array) -> jax.Array:
    return jnp.argmax(model(tokens), axis=-1)


def test_it_is_what_computing_everything_anew_gives(model: Llama):
    found = bridge.models.generate(model, jnp.asarray(PROMPT), 20)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, greedy(model, PROMPT, 20))
    assert len(set(np.asarray(found[8:]).tolist())) > 3
    one = bridge.models.generate(model, PROMPT, 1)  # a program without a loop
    np.testing.assert_array_equal(one, found[:9])
    assert one.dtype == jnp.int32


@pytest.mark.parametrize("seq", [1, 16, 40])
def test_prompts_of_any_length(model: Llama, seq: int):
    prompt = np.arange(seq, dtype=np.int32) * 7 % VOCAB
    np.testing.assert_array_equal(bridge.models.generate(model, prompt, 20), greedy(model, prompt, 20))


class Counted(eqx.Module):
    """A model that counts how often Python walks through it, which is how often it is compiled."""

    model: Llama
    seen: Counter[str] = eqx.field(static=True)

    @property
    def config(self) -> Any:
        return self.model.config

    def prefill(self, *args: Any) -> Any:
        self.seen["prefill"] += 1
        return self.model.prefill(*args)

    def step(self, *args: Any) -> Any:
        self.seen["step"] += 1
        return self.model.step(*args)


class Hashable(Counter[str]):
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]


def test_it_is_compiled_once_for_all_tokens_and_for_prompts_of_many_lengths(model: Llama):
    seen = Hashable()
    counted = Counted(model, seen)
    bridge.models.generate(counted, PROMPT, 20)
    assert seen == {"prefill": 1, "step": 1}
    for seq in range(1, 9):
        bridge.models.generate(counted, PROMPT[:seq], 20)
    assert seen == {"prefill": 1, "step": 1}
    for temperature, top_p in ((0.5, 0.9), (1.5, 0.1)):
        bridge.models.generate(counted, PROMPT, 20, temperature=temperature, top_p=top_p, key=jax.random.key(0))
    assert seen == {"prefill": 2, "step": 2}


def test_a_batch_is_a_vmap(model: Llama):
    prompts = jnp.asarray(np.stack([PROMPT, PROMPT[::-1], np.roll(PROMPT, 3)]))
    batch = eqx.filter_jit(lambda model, b: jax.vmap(lambda t: bridge.models.generate(model, t, 20))(b))(model, prompts)
    for row, prompt in zip(batch, prompts, strict=True):
        np.testing.assert_array_equal(row, bridge.models.generate(model, prompt, 20))


def test_it_stops_after_an_end(model: Llama):
    whole = np.asarray(bridge.models.generate(model, PROMPT, 20))
    new = whole[8:]
    end = int(new[6])
    at = 8 + new.tolist().index(end)
    assert at < 27
    never = next(token for token in range(VOCAB) if token not in new)
    found = np.asarray(bridge.models.generate(model, PROMPT, 20, eos_token_id=[never, end]))
    np.testing.assert_array_equal(found[: at + 1], whole[: at + 1])
    assert (found[at:] == end).all()


def test_in_a_batch_each_stops_on_its_own(model: Llama):
    prompts = jnp.asarray(np.stack([PROMPT, PROMPT[::-1]]))
    end = int(bridge.models.generate(model, prompts[0], 3)[-1])
    batch = jax.vmap(lambda tokens: bridge.models.generate(model, tokens, 20, eos_token_id=end))(prompts)
    for row, prompt in zip(batch, prompts, strict=True):
        np.testing.assert_array_equal(row, bridge.models.generate(model, prompt, 20, eos_token_id=end))


def test_drawing_is_reproducible_and_keys_differ(model: Llama):
    def draw(seed: int, **options: Any) -> list[int]:
        return bridge.models.generate(model, PROMPT, 20, key=jax.random.key(seed), **options).tolist()

    assert draw(0, temperature=1.0) == draw(0, temperature=1.0) != draw(1, temperature=1.0)
    likeliest = bridge.models.generate(model, PROMPT, 20).tolist()
    assert draw(0, temperature=0.0) == draw(0) == likeliest
    assert draw(0, temperature=1.0, top_p=1e-6) == draw(0, temperature=1e-4) == likeliest


def test_tokens_are_drawn_as_often_as_they_are_likely(model: Llama):
    logits = np.asarray(model(jnp.asarray(PROMPT))[-1], np.float64)
    shares = np.exp(logits / 2) / np.exp(logits / 2).sum()
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = jax.vmap(lambda key: bridge.models.generate(model, PROMPT, 1, temperature=2.0, key=key)[-1])(keys)
    found = np.bincount(np.asarray(drawn), minlength=VOCAB) / len(keys)
    assert np.abs(found - shares).max() < 4 * np.sqrt(0.25 / len(keys))


@pytest.mark.torch
@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.999, 1.0])
def test_the_nucleus_is_that_of_transformers(top_p: float):
    import torch
    from transformers import TopPLogitsWarper

    logits = np.random.default_rng(0).standard_normal((50, 40)).astype(np.float32) * 3
    expected = torch.isfinite(TopPLogitsWarper(top_p)(None, torch.tensor(logits))).numpy()
    np.testing.assert_array_equal(jax.vmap(lambda x: nucleus(x, jnp.float32(top_p)))(jnp.asarray(logits)), expected)


REFUSED: dict[str, dict[str, Any]] = {
    "tokens of shape (1, 8) and int32 are not the ids of one prompt: integers of shape (seq,), at least one": {
        "tokens": PROMPT[None]
    },
    "tokens of shape (1,) and float32 are not the ids of one prompt: integers of shape (seq,), at least one": {
        "tokens": jnp.ones(1)
    },
    "tokens of shape (0,) and int32 are not the ids of one prompt: integers of shape (seq,), at least one": {
        "tokens": PROMPT[:0]
    },
    "max_new_tokens is 0": {"max_new_tokens": 0},
    "max_new_tokens is 2.5": {"max_new_tokens": 2.5},
    "temperature is -1.0": {"temperature": -1.0},
    "temperature is nan": {"temperature": float("nan")},
    "top_p is 0": {"temperature": 1.0, "top_p": 0},
    "top_p is 1.5": {"temperature": 1.0, "top_p": 1.5},
    "top_p has no effect at temperature 0": {"top_p": 0.5},
    "temperature is 1.0, but drawing tokens needs a random key": {"temperature": 1.0},
}


@pytest.mark.parametrize("text", REFUSED)
def test_arguments_that_make_no_sense_are_refused(model: Llama, text: str):
    arguments: dict[str, Any] = {"tokens": PROMPT, "max_new_tokens": 3} | REFUSED[text]
    with pytest.raises(bridge.BridgeError) as caught:
        bridge.models.generate(model, **arguments)
    assert caught.value.statement == text
