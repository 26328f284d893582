"""`generate`: text goes on, token by token, from one compiled program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

import bridge
from bridge.models._compiled import compiled

_SHORTEST = 16  # tokens that the shortest prompt is padded to


def generate(
    model: Any,
    tokens: jax.Array,
    max_new_tokens: int,
    *,
    temperature: float | None = None,
    top_p: float | None = None,
    key: jax.Array | None = None,
    eos_token_id: int | Sequence[int] | None = None,
) -> jax.Array:
    """Generate text: the prompt's tokens, followed by new tokens of the model.

    The prompt and all steps are one compiled program. It is compiled once for each `max_new_tokens` and each power of
    two that the prompt's length is padded to. The program holds the memory of keys and values.

    **Arguments:**

    - `model`: a decoder of `bridge.models`, or any module with its `prefill` and `step`.
    - `tokens`: the ids of the prompt, shape `(seq,)`, integer, at least one. Use `jax.vmap` for prompts of one length.
    - `max_new_tokens`: the number of new tokens.
    - `temperature`: divides the logits before a token is drawn. `None` or 0 takes the likeliest token each time.
    - `top_p`: draw only from the smallest set of likeliest tokens with this total probability; above 0, at most 1.
    - `key`: a PRNG key for the draws; required with a temperature.
    - `eos_token_id`: the token, or several, that ends the text. It is repeated up to the full length, and no more steps
        are computed. `None` never ends early.

    **Returns:** int32, shape `(seq + max_new_tokens,)`: the prompt comes first, as in transformers.

    **Raises:** `bridge.BridgeError` for arguments that cannot be used.

    ```python
    model = bridge.models.from_pretrained("meta-llama/Llama-3.2-1B")
    prompt = jnp.array([1, 22, 17, 4])  # ids, from the model's tokenizer
    tokens = bridge.models.generate(model, prompt, 20)  # (seq + 20,)
    ```
    """
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 1 or not tokens.shape[0] or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise bridge.BridgeError(
            f"tokens of shape {tokens.shape} and {tokens.dtype}",
            "are not the ids of one prompt: integers of shape (seq,), at least one",
            "For a batch of prompts use jax.vmap(lambda tokens: generate(model, tokens, 20))(batch)",
        )
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int | np.integer) or max_new_tokens < 1:
        raise bridge.BridgeError("max_new_tokens", f"is {max_new_tokens!r}", "Give a whole number from 1 up")
    sampling = Sampling.of(temperature, top_p, key)
    stops = jnp.asarray([] if eos_token_id is None else eos_token_id, jnp.int32).reshape(-1)
    seq = tokens.shape[0]
    # What is no part of a larger program NumPy does: each operation of JAX would be compiled.
    numpy = jnp if isinstance(tokens, Tracer) else np
    row = numpy.pad(numpy.asarray(tokens, np.int32), (0, padded(model, seq, max_new_tokens) - seq))
    new = _generate(model, jnp.asarray(row), jnp.asarray(seq, jnp.int32), int(max_new_tokens), sampling, stops)
    return jnp.concatenate([tokens.astype(jnp.int32), new])


def padded(model: Any, seq: int, new: int) -> int:
    """To how many tokens a prompt is padded: many lengths share a program. No further than the model has positions."""
    power = max(_SHORTEST, 1 << (seq - 1).bit_length())
    return max(seq, min(power, model.config.max_position_embeddings - new))


class Sampling(NamedTuple):
    """How a token is chosen of its logits. Without a key: the likeliest."""

    temperature: jax.Array | None = None
    top_p: jax.Array | None = None
    key: jax.Array | None = None

    @classmethod
    def of(cls, temperature: float | None, top_p: float | None, key: jax.Array | None) -> Sampling:
        """What the caller asked for. **Raises:** `bridge.BridgeError` for what makes no sense."""
        if temperature is not None and not 0 <= temperature < math.inf:
            raise bridge.BridgeError("temperature", f"is {temperature}", "Give a number from 0 up")
        if top_p is not None and not 0 < top_p <= 1:
            raise bridge.BridgeError("top_p", f"is {top_p}", "Give a number above 0, at most 1")
        if not temperature:
            if top_p is not None:
                raise bridge.BridgeError(
                    "top_p", "has no effect at temperature 0", "Give temperature=1.0 to draw tokens"
                )
            return cls()
        if key is None:
            raise bridge.BridgeError(
                "temperature", f"is {temperature}, but drawing tokens needs a random key", "Give key=jax.random.key(0)"
            )
        return cls(jnp.float32(temperature), None if top_p is None else jnp.float32(top_p), key)

    def __call__(self, logits: jax.Array, number: jax.Array | int) -> jax.Array:
        """A token, int32, of logits `(vocab,)`; the draws of different `number` are independent."""
        if self.temperature is None or self.key is None:
            return jnp.argmax(logits).astype(jnp.int32)
        logits = logits.astype(jnp.float32) / self.temperature
        if self.top_p is not None:
            logits = jnp.where(nucleus(logits, self.top_p), logits, -jnp.inf)
        return jax.random.categorical(jax.random.fold_in(self.key, number), logits).astype(jnp.int32)


def nucleus(logits: jax.Array, top_p: jax.Array) -> jax.Array:
    """Which tokens are in the least set of likeliest ones that has the probability `top_p`; bool, `(vocab,)`.

    Nucleus sampling, https://arxiv.org/abs/1904.09751.
    """
    order = jnp.argsort(logits)
    # Added up from the unlikeliest, so that the small ones are not lost beside the large.
    kept = (jnp.cumsum(jax.nn.softmax(logits[order])) > 1 - top_p).at[-1].set(True)
    return jnp.zeros(logits.shape, bool).at[order].set(kept)


class _State(NamedTuple):
    """Between two steps: how many new tokens there are, the last one, whether it is an end, all of them, the memory."""

    length: jax.Array
    token: jax.Array
    ended: jax.Array
    tokens: jax.Array
    memory: Any


@compiled
def _generate(
    model: Any, tokens: jax.Array, prompt: jax.Array, new: int, sampling: Sampling, stops: jax.Array
) -> jax.Array:
    """The tokens after the first `prompt` of `tokens`, shape `(new,)`."""

    def ended(token: jax.Array) -> jax.Array:
        # Without stops not a value of the example: then a batch's loop is one loop, and its memory is not selected.
        return (token == stops).any() if stops.shape[0] else jnp.asarray(False)

    def more(state: _State) -> jax.Array:
        return (state.length < new) & ~state.ended

    def step(state: _State) -> _State:
        logits, memory = model.step(state.token, prompt + state.length - 1, state.memory)
        token = sampling(logits, state.length)
        return _State(state.length + 1, token, ended(token), state.tokens.at[state.length].set(token), memory)

    logits, memory = model.prefill(tokens, prompt, tokens.shape[0] + new)
    token = sampling(logits, 0)
    if new == 1:  # nothing more to compile
        return token[None]
    first = _State(jnp.asarray(1), token, ended(token), jnp.full(new, token), memory)
    last = jax.lax.while_loop(more, step, first)
    return jnp.where(jnp.arange(new) < last.length, last.tokens, last.token)
