"""Ports of people's own models, whatever their calls look like: loops, masks, dropout, ties, wrappers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import bridge

pytestmark = pytest.mark.torch


class Theirs(nn.Module):
    """One layer three times, on tokens of which some are padding; the embeddings are the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(16, 8), nn.Linear(8, 8)
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(8, 16, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(input_ids)
        for _ in range(3):
            x = self.dropout(torch.tanh(self.layer(x))) + x
        x = torch.where(attention_mask[..., None] == 0, 7.0, x)  # nobody looks at these
        return {"logits": self.head(x)}


class Ours(eqx.Module):
    embed: eqx.nn.Embedding
    layer: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    activation: Callable[[jax.Array], jax.Array] = eqx.field(static=True)

    def __init__(self, activation: Callable[[jax.Array], jax.Array] = jnp.tanh) -> None:
        keys = jax.random.split(jax.random.key(0))
        self.embed, self.layer = eqx.nn.Embedding(16, 8, key=keys[0]), eqx.nn.Linear(8, 8, key=keys[1])
        self.dropout, self.activation = eqx.nn.Dropout(0.5), activation

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.run(tokens, jax.vmap(self.layer))

    def run(self, tokens: jax.Array, layer: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return self.dropout(self.activation(layer(x))) + x, None

        return jax.lax.scan(step, jax.vmap(self.embed)(tokens), None, length=3)[0] @ self.embed.weight.T


class Named(Ours):
    """Called by a method of another name, of a batch that it maps over itself."""

    __call__ = None  # type: ignore[assignment]

    def logits(self, batch: jax.Array) -> jax.Array:
        return jax.vmap(lambda tokens: self.run(tokens, jax.vmap(self.layer)))(batch)


class Wandering(Ours):
    """Nobody knows beforehand how often the layer is called."""

    def __call__(self, tokens: jax.Array) -> jax.Array:
        def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            n, x = state
            return n + 1, self.activation(jax.vmap(self.layer)(x)) + x

        start = jnp.zeros((), jnp.int32), jax.vmap(self.embed)(tokens)
        return jax.lax.while_loop(lambda state: state[0] < 3, step, start)[1] @ self.embed.weight.T


@dataclass(frozen=True)
class Recorded:
    """A folder with a checkpoint and a run."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run.safetensors"

    def check(self, make: Callable[[], Any], rules: list[str] | None = None, **options: Any) -> bridge.Check:
        like = eqx.filter_eval_shape(make)
        plan = bridge.plan(self.folder / "model.safetensors", like, [*(rules or []), "head.weight -> _"])
        return bridge.check(self.run, bridge.load(self.folder / "model.safetensors", like, plan), plan, **options)


@pytest.fixture(scope="module")
def recorded(record: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    model = Theirs().eval()
    save_file({key: value.clone() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    record(model, {"attention_mask": mask, "input_ids": torch.randint(0, 16, (2, 5))}, folder / "run.safetensors")
    return Recorded(folder)


def test_a_right_port_agrees_call_by_call(recorded: Recorded) -> None:
    check = recorded.check(Ours)
    assert check.ok, str(check)
    assert check.ran
    # Of the root its input and output, of the embedding too, and of the layer those of each of three calls.
    assert check.whole == "agrees in 10 inputs and outputs"


def test_what_is_wrong_in_the_loop_shows_where_the_loop_first_goes_round(recorded: Recorded) -> None:
    check = recorded.check(lambda: Ours(jax.nn.relu))
    assert check.first is not None
    assert str(check.first) == "the model"
    assert check.first.reason.startswith("the parent's own code: what it gives to 'layer' is off by ")


def test_where_the_run_was_not_compared_the_first_line_says_so(recorded: Recorded) -> None:
    check = recorded.check(Named)
    assert (check.ok, check.ran) == (True, False)
    assert (
        str(check)
        .splitlines()[0]
        .endswith(
            "each layer agrees alone, but the run as a whole was not compared, and only that shows a wrong name: "
            "give trace=fn, a function of the model and of what PyTorch's took"
        )
    )
    assert "was not compared: the model is not called as jax.vmap(model)(input)" in check.whole


def test_a_function_says_how_the_model_is_run(recorded: Recorded) -> None:
    check = recorded.check(Named, trace=lambda model, input_ids: model.logits(input_ids))
    assert (check.ok, check.ran) == (True, True), str(check)
    rules = ["layer.weight -> layer.weight ; scale=0.5"]
    assert recorded.check(Named, rules, trace=lambda model, input_ids: model.logits(input_ids)).first is not None


def test_a_trace_of_another_input_is_told(recorded: Recorded) -> None:
    like = eqx.filter_eval_shape(Ours)
    plan = bridge.plan(recorded.folder / "model.safetensors", like, ["head.weight -> _"])
    model = eqx.nn.inference_mode(bridge.load(recorded.folder / "model.safetensors", like, plan))
    trace = bridge.trace(lambda model, x: jax.vmap(model)(x), model, jnp.zeros((2, 5), jnp.int32))
    check = bridge.check(recorded.run, model, plan, trace=trace)
    assert check.first is not None
    assert check.first.reason.startswith("it was run on something else than was recorded: off by ")
    with pytest.raises(bridge.PlanError, match="trace= is of type ndarray, expected a trace or a function"):
        bridge.check(recorded.run, model, plan, trace=np.zeros(2))  # type: ignore[arg-type]


class TheirRnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(8, 8), nn.Linear(8, 3)

    def forward(self, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return self.head(self.rnn(pair[0])[0][-1])


class OurRnn(eqx.Module):
    rnn: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(0))
        self.rnn, self.head = eqx.nn.GRUCell(8, 8, key=keys[0]), eqx.nn.Linear(8, 3, key=keys[1])

    def __call__(self, pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        state, _ = jax.lax.scan(lambda state, x: (self.rnn(x, state), None), jnp.zeros(8), pair[0])
        return self.head(state)


def test_time_that_stands_before_the_examples_and_is_as_long(record: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, x = TheirRnn().eval(), torch.randn(4, 4, 8)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    record(theirs, ((x, 2 * x),), tmp_path / "run.safetensors")
    like = eqx.filter_eval_shape(OurRnn)
    plan = bridge.plan(tmp_path / "model.safetensors", like)
    check = bridge.check(tmp_path / "run.safetensors", bridge.load(tmp_path / "model.safetensors", like, plan), plan)
    assert (check.ok, check.ran) == (True, True), str(check)


def test_a_recording_in_float16_of_a_checkpoint_in_float32(
    recorded: Recorded, record: Callable[..., Any], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    theirs = Theirs().half().eval()
    ids = torch.randint(0, 16, (2, 5))
    record(theirs, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, tmp_path / "half")
    like = eqx.filter_eval_shape(Ours)
    plan = bridge.plan(recorded.folder / "model.safetensors", like, ["head.weight -> _"])
    check = bridge.check(tmp_path / "half", bridge.load(recorded.folder / "model.safetensors", like, plan), plan)
    assert (check.ok, check.ran) == (True, True), str(check)


def test_a_model_that_no_trace_sees_through_is_compared_layer_by_layer(recorded: Recorded) -> None:
    check = recorded.check(Wandering)
    assert (check.ok, check.ran) == (True, False)
    assert "'layer' is called within while_loop" in check.whole


class TheirBlock(nn.Module):
    """Two projections that the file has in one tensor; a table that is used as it is; an array beside layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.table = nn.Linear(8, 8), nn.Linear(8, 8), nn.Embedding(1, 8)
        self.gamma = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (torch.tanh(self.a(x)) * self.b(x) + self.table.weight[0]) * self.gamma


class OurBlock(eqx.Module):
    a: eqx.nn.Linear
    b: eqx.nn.Linear
    table: eqx.nn.Embedding
    gamma: jax.Array

    def __init__(self) -> None:
        key = jax.random.key(0)
        self.a, self.b, self.table = (
            eqx.nn.Linear(8, 8, key=key),
            eqx.nn.Linear(8, 8, key=key),
            eqx.nn.Embedding(1, 8, key=key),
        )
        self.gamma = jnp.ones(8)

    def __call__(self, x: jax.Array) -> jax.Array:
        return (jnp.tanh(self.a(x)) * self.b(x) + self.table.weight[0]) * self.gamma


class Blocks(eqx.Module):
    blocks: OurBlock

    def __init__(self) -> None:
        self.blocks = eqx.filter_vmap(lambda _: OurBlock())(jnp.arange(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        arrays, static = eqx.partition(self.blocks, eqx.is_array)
        return jax.lax.scan(lambda x, one: (eqx.combine(one, static)(x), None), x, arrays)[0]


def test_what_memory_has_apart_as_it_is_and_beside_layers(record: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(TheirBlock(), TheirBlock()).eval()
    state = theirs.state_dict()
    for n in range(2):
        for name in ("weight", "bias"):
            state[f"{n}.ab.{name}"] = torch.cat([state.pop(f"{n}.a.{name}"), state.pop(f"{n}.b.{name}")])
    save_file(state, tmp_path / "model.safetensors")
    record(theirs, torch.randn(3, 8), tmp_path / "run.safetensors")
    like = eqx.filter_eval_shape(Blocks)
    rules = [
        "{n}.ab.weight [(a|b) i] -> blocks.{a|b}.weight [n _ i]",
        "{n}.ab.bias [(a|b)] -> blocks.{a|b}.bias [n _]",
        "{n}.** -> blocks.**",
    ]
    plan = bridge.plan(tmp_path / "model.safetensors", like, rules)
    check = bridge.check(tmp_path / "run.safetensors", bridge.load(tmp_path / "model.safetensors", like, plan), plan)
    assert (check.ok, check.ran, check.covered) == (True, True, 1), str(check)
    modules = {str(layer): layer.module for layer in check.layers}
    assert (modules["blocks.b[1]"], modules["blocks[1]"]) == ("1.b", "1")


def test_a_recording_of_more_than_the_usual_eight_megabytes(record: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs, run = nn.Linear(64, 8).eval(), tmp_path / "run.safetensors"
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    record(theirs, torch.randn(40_000, 64), run, limit=32 << 20)
    assert run.stat().st_size > 8 << 20
    like = eqx.filter_eval_shape(lambda: eqx.nn.Linear(64, 8, key=jax.random.key(0)))
    plan = bridge.plan(tmp_path / "model.safetensors", like)
    check = bridge.check(run, bridge.load(tmp_path / "model.safetensors", like, plan), plan)
    assert (check.ok, check.ran, check.covered) == (True, True, 1), str(check)
