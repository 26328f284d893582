"""What a model gives is compared as a whole: tuples, dicts, and what a function of the user's gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bridge

pytestmark = pytest.mark.torch


class Theirs(nn.Module):
    def __init__(self, give: Callable[[torch.Tensor, torch.Tensor], Any]) -> None:
        super().__init__()
        self.a, self.b, self.give = nn.Linear(4, 4), nn.Linear(4, 4), give

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.a(x)
        return self.give(self.b(hidden), torch.sigmoid(hidden))


class Ours(eqx.Module):
    a: eqx.nn.Linear
    b: eqx.nn.Linear
    give: Callable[[jax.Array, jax.Array], Any] = eqx.field(static=True)

    def __init__(self, give: Callable[[jax.Array, jax.Array], Any]) -> None:
        self.a, self.b = (eqx.nn.Linear(4, 4, key=jax.random.key(0)) for _ in range(2))
        self.give = give

    def __call__(self, x: jax.Array) -> Any:
        hidden = self.a(x)
        return self.give(self.b(hidden), jax.nn.sigmoid(hidden))


class Scaled(Theirs):
    def forward(self, x: torch.Tensor, scale: float = 1.0) -> Any:
        return super().forward(x) * scale


class Method(Ours):
    __call__ = None  # type: ignore[assignment]

    def logits(self, x: jax.Array) -> Any:
        return Ours.__call__(self, x)


class Output(eqx.Module):
    logits: jax.Array
    gates: jax.Array


@pytest.fixture
def checked(record: Callable[..., Any], tmp_path: Path) -> Callable[..., bridge.Check]:
    def check(
        theirs: Any, ours: Any, kind: type[Theirs] = Theirs, with_it: dict[str, Any] | None = None, **options: Any
    ) -> bridge.Check:
        torch.manual_seed(0)
        model = kind(theirs).eval()
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        inputs = torch.randn(6, 4)
        record(model, inputs if with_it is None else {"x": inputs, **with_it}, tmp_path / "run.safetensors")
        like = eqx.filter_eval_shape(ours)
        plan = bridge.plan(tmp_path / "model.safetensors", like)
        loaded = bridge.load(tmp_path / "model.safetensors", like, plan)
        return bridge.check(tmp_path / "run.safetensors", loaded, plan, **options)

    return check


def _pair(logits: Any, gates: Any) -> Any:
    return logits, gates


def _named(logits: Any, gates: Any) -> Any:
    return {"logits": logits, "gates": gates}


_RIGHT = {
    "a tuple": (_pair, _pair),
    "the first alone": (_pair, lambda logits, gates: logits),
    "a dict of another order": (_named, lambda logits, gates: {"gates": gates, "logits": logits}),
    "one of a dict": (_named, lambda logits, gates: {"logits": logits}),
    "a module": (_named, lambda logits, gates: Output(logits, gates)),
    "more than PyTorch's": (lambda logits, gates: logits, lambda logits, gates: (gates, logits)),
    "a dict of a tuple": (_pair, lambda logits, gates: {"z": logits, "y": gates}),
}
_WRONG = {
    "the second of a tuple": (_pair, lambda logits, gates: (logits, gates * 2)),
    "fields for a tuple, exchanged": (_pair, lambda logits, gates: Output(gates, logits)),
    "exchanged": (_pair, lambda logits, gates: (gates, logits)),
    "exchanged names": (_named, lambda logits, gates: {"logits": gates, "gates": logits}),
    "one of a dict, wrong": (_named, lambda logits, gates: {"logits": logits, "gates": gates * 2}),
    "fields of a module": (_named, lambda logits, gates: Output(gates, logits)),
}


@pytest.mark.parametrize("name", _RIGHT)
def test_outputs_that_are_paired_rightly_agree(checked: Callable[..., bridge.Check], name: str) -> None:
    theirs, ours = _RIGHT[name]
    check = checked(theirs, lambda: Ours(ours))
    assert (check.ok, check.ran) == (True, True), str(check)


@pytest.mark.parametrize("name", _WRONG)
def test_an_output_besides_the_first_that_is_wrong_departs(checked: Callable[..., bridge.Check], name: str) -> None:
    theirs, ours = _WRONG[name]
    check = checked(theirs, lambda: Ours(ours))
    assert str(check.first) == "the model", str(check)


class HiddenTheirs(Theirs):
    """Gives what one of its layers took besides."""

    def forward(self, x: torch.Tensor) -> Any:
        hidden = self.a(x)
        return self.give(self.b(hidden), hidden)


class HiddenOurs(Ours):
    def __call__(self, x: jax.Array) -> Any:
        hidden = self.a(x)
        return self.give(self.b(hidden), hidden)


def test_a_model_that_gives_what_a_layer_took_does_not_end_elsewhere(checked: Callable[..., bridge.Check]) -> None:
    wrong = lambda logits, hidden: (logits * 2, hidden)  # noqa: E731
    check = checked(_pair, lambda: HiddenOurs(wrong), kind=HiddenTheirs)
    assert str(check.first) == "the model", str(check)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_what_a_function_of_the_users_gives_is_the_models_output(
    checked: Callable[..., bridge.Check], factor: float
) -> None:
    check = checked(
        lambda logits, gates: logits * gates,
        lambda: Method(lambda logits, gates: jnp.multiply(logits, gates) * factor),
        trace=lambda model, x: jax.vmap(model.logits)(x),
    )
    assert check.ok == (factor == 1.0), str(check)
    assert check.ran


@pytest.mark.parametrize("ours", [lambda logits, gates: logits, lambda logits, gates: logits[:2]])
def test_an_output_of_another_shape_is_not_called_right(checked: Callable[..., bridge.Check], ours: Any) -> None:
    check = checked(lambda logits, gates: logits.mean(1, keepdim=True), lambda: Ours(ours))
    assert (check.ok, check.ran) == (True, False), str(check)
    assert str(check).splitlines()[0].endswith("each layer agrees, but what the model gives was not compared")
    assert check.whole.endswith(", PyTorch's [6, 1]")


def test_what_is_no_number_agrees_with_nothing(checked: Callable[..., bridge.Check]) -> None:
    check = checked(lambda logits, gates: logits / (gates - gates), lambda: Ours(lambda logits, gates: logits))
    assert check.whole.startswith("agrees in 5 inputs and outputs; what the model gives was not compared: ")
    assert check.whole.endswith("PyTorch's model gave no finite number")
    assert not check.ran


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_function_may_turn_what_the_model_gives(checked: Callable[..., bridge.Check], factor: float) -> None:
    check = checked(
        lambda logits, gates: torch.stack([logits[:, :, None] * gates[:, None]] * 3, 1),
        lambda: Ours(lambda logits, gates: jnp.stack([logits[:, None] * gates[None] * factor] * 3, 2)),
        trace=lambda model, x: jax.vmap(model)(x).transpose(0, 3, 1, 2),
    )
    assert (check.ok, check.ran) == (factor == 1.0, True), str(check)


class MaskedTheirs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, bias=False, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.attention(x, x, x, attn_mask=mask)[0]


class MaskedOurs(eqx.Module):
    attention: eqx.nn.MultiheadAttention

    def __init__(self) -> None:
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=jax.random.key(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.attention(x, x, x)


def test_attention_without_the_mask_that_pytorchs_had_is_told_so(record: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = MaskedTheirs().eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    record(theirs, torch.randn(2, 5, 4), tmp_path / "run.safetensors")
    like = eqx.filter_eval_shape(MaskedOurs)
    plan = bridge.plan(tmp_path / "model.safetensors", like)
    check = bridge.check(tmp_path / "run.safetensors", bridge.load(tmp_path / "model.safetensors", like, plan), plan)
    assert str(check.first) == "attention", str(check)
    assert check.first is not None
    assert check.first.reason.endswith(": PyTorch's was called with 'attn_mask', look at the model's mask")


def test_a_number_that_only_pytorch_was_called_with_is_named(checked: Callable[..., bridge.Check]) -> None:
    check = checked(lambda b, g: b * g, lambda: Ours(lambda b, g: b * g), Scaled, {"scale": 3.0})
    assert check.whole == "departs at 'the model'; PyTorch's took 'scale' (3.0) too, which it was not called with"
    with_it = checked(
        lambda b, g: b * g,
        lambda: Ours(lambda b, g: b * g),
        Scaled,
        {"scale": 3.0},
        trace=lambda model, x: jax.vmap(model)(x) * 3,
    )
    assert (with_it.ok, with_it.ran) == (True, True), str(with_it)
