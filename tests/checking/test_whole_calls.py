"""How a model is called on what PyTorch's took, whatever its call looks like."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bridge.checking.kept import Kept
from bridge.checking.whole_calls import given_by, in_inference, ways

X = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
MASK = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0]])
IDS = np.arange(15).reshape(3, 5)


def kept(values: np.ndarray) -> Kept:
    return Kept(values.shape, values.dtype, values, whole=True)


class Model(eqx.Module):
    scale: jax.Array
    dropout: eqx.nn.Dropout

    def __init__(self) -> None:
        self.scale, self.dropout = jnp.full((), 3.0), eqx.nn.Dropout(0.5)

    def out(self, x: jax.Array, key: Any = None) -> jax.Array:
        return self.dropout(x, key=key) * self.scale


class Plain(Model):
    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(x)


class Batched(Model):
    def __call__(self, x: jax.Array) -> jax.Array:
        assert x.ndim == 2
        return self.out(x)


class Keyed(Model):
    def __call__(self, x: jax.Array, key: Any, *, inference: bool) -> jax.Array:
        assert inference
        return self.out(x, key)


class Masked(Model):
    def __call__(self, tokens: jax.Array, segments: jax.Array | None = None, mask: jax.Array | None = None) -> Any:
        assert segments is None
        assert mask is not None
        return self.out(jnp.where(~mask, 0, tokens).astype(jnp.float32))  # of integers, ~ is another thing


class Counted(Model):
    def __call__(self, x: jax.Array, *, attention_mask: jax.Array) -> jax.Array:
        return self.out((x * abs(-attention_mask)).astype(jnp.float32))  # booleans have no minus


class Two(Model):
    def __call__(self, pixels: jax.Array, tokens: jax.Array) -> jax.Array:
        return self.out(pixels) + tokens.astype(jnp.float32)


class Many(Model):
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        return self.out(inputs[0]) + inputs[1].astype(jnp.float32)


S = 3.0
CASES: dict[str, tuple[type[Model], tuple[Any, ...], dict[str, Any], np.ndarray]] = {
    "mapped over examples": (Plain, (X,), {}, X * S),
    "with the batch inside": (Batched, (X,), {}, X * S),
    "a key, and inference": (Keyed, (X,), {}, X * S),
    "an input by its name": (Plain, (), {"attention_mask": MASK, "pixel_values": X}, X * S),
    "a mask of booleans": (Masked, (), {"attention_mask": MASK, "input_ids": IDS}, IDS * MASK * S),
    "a mask of numbers": (Counted, (), {"input_ids": IDS, "attention_mask": MASK}, IDS * MASK * S),
    "two inputs, in another order": (Two, (), {"input_ids": IDS, "pixel_values": X}, X * S + IDS),
    "two inputs, by their places": (Two, (X, IDS), {}, X * S + IDS),
    "any number of inputs": (Many, (X, IDS), {}, X * S + IDS),
}


@pytest.mark.parametrize("case", CASES)
def test_the_first_call_that_can_be_made_gives_what_is_meant(case: str) -> None:
    kind, args, kwargs, expected = CASES[case]
    model = in_inference(kind())
    named = {name: kept(value) for name, value in kwargs.items()} | {"use_cache": False}
    for fn, arrays in ways(model, tuple(map(kept, args)), named):
        try:
            found = fn(model, *arrays)
        except (TypeError, ValueError, AssertionError):
            continue
        break
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class Stateful(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self) -> None:
        self.norm = eqx.nn.BatchNorm(5, "examples", mode="batch")

    def __call__(self, x: jax.Array, state: eqx.nn.State, *, key: Any) -> tuple[jax.Array, eqx.nn.State]:
        return self.norm(x, state)


class Otherwise(Stateful):
    def __call__(self, x: jax.Array, s: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:  # type: ignore[override]
        return self.norm(x, s)


@pytest.mark.parametrize("kind", [Stateful, Otherwise])
def test_a_model_with_a_state_runs_as_at_inference(kind: type[Stateful]) -> None:
    pair = in_inference(eqx.nn.make_with_state(kind)())
    fn, arrays = next(iter(ways(pair, (kept(X),), {})))
    found, _ = fn(pair, *arrays)
    np.testing.assert_allclose(found, X / np.sqrt(1 + pair[0].norm.eps), rtol=1e-5)


def test_inference_is_left_as_it_is_where_nothing_trains() -> None:
    model = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    assert in_inference(model) is model


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (lambda model, x: model(x), (X,), {}),
        (lambda model, x: model(x), (), {"pixel_values": X}),
        (lambda model, pixel_values: model(pixel_values), (), {"attention_mask": MASK, "pixel_values": X}),
        (lambda model, **named: model(named["pixel_values"]), (), {"attention_mask": MASK, "pixel_values": X}),
    ],
)
def test_a_function_of_ones_own_gets_inputs_as_pytorch_did(fn: Any, args: Any, kwargs: Any) -> None:
    model = in_inference(Batched())
    named = {name: kept(value) for name, value in kwargs.items()}
    run, arrays = given_by(fn, model, tuple(map(kept, args)), named)
    np.testing.assert_allclose(run(model, *arrays), X * S, rtol=1e-6)
