"""Recordings that are damaged or none, and checks that ask for what is not there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import pytest

import bridge
from bridge.checking.recording import Recording
from tests.checking.test_recording import GOOD, WRONG, changed, written
from tests.errors.reading import good
from tests.errors.situations import situation
from tests.save.files import write


def _damaged(case: str) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        Recording.read(written(Path(), changed(case)).name)

    return provoke


for _case in WRONG:
    situation(f"recording: {_case}")(_damaged(_case))


@situation("recording: an ordinary checkpoint")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.check(good(), None, None)  # type: ignore[arg-type]


@situation("recording: of a later release")
def _(patch: pytest.MonkeyPatch) -> None:
    Recording.read(written(Path(), GOOD | {"version": 2}).name)


@situation("recording: no JSON")
def _(patch: pytest.MonkeyPatch) -> None:
    Recording.read(written(Path(), "[").name)


class Net(eqx.Module):
    w: eqx.nn.Linear


def _model() -> tuple[Any, bridge.Plan]:
    like = Net(eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0)))
    write(Path("model.safetensors"), {"w.weight": like.w.weight})
    plan = bridge.plan("model.safetensors", like)
    return bridge.load("model.safetensors", like, plan), plan


def _run() -> str:
    return written(Path(), copy.deepcopy(GOOD)).name


@situation("check: no plan")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.check(_run(), _model()[0], ["a -> b"])  # type: ignore[arg-type]


@situation("check: a model without modules")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.check(_run(), {"w": 1}, _model()[1])


@situation("check: another model than the plan's")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.check(_run(), Net(eqx.nn.Linear(3, 2, use_bias=False, key=jax.random.key(0))), _model()[1])


@situation("check: a model without the plan's leaves")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.check(_run(), eqx.nn.Linear(2, 2, key=jax.random.key(0)), _model()[1])


@situation("check: a template for a model")
def _(patch: pytest.MonkeyPatch) -> None:
    model, plan = _model()
    bridge.check(_run(), eqx.filter_eval_shape(lambda: model), plan)


@situation("check: a run of other weights")
def _(patch: pytest.MonkeyPatch) -> None:
    like = [eqx.nn.Linear(2, 2, use_bias=False, key=key) for key in jax.random.split(jax.random.key(0), 3)]
    write(Path("three.safetensors"), {f"{n}.weight": layer.weight for n, layer in enumerate(like)})
    plan = bridge.plan("three.safetensors", like)
    bridge.check(_run(), bridge.load("three.safetensors", like, plan), plan)


@situation("check: a trace that is none")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.check(_run(), *_model(), trace=[1])  # type: ignore[arg-type]


@situation("check: a function for no module")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.check(_run(), *_model(), call={"mlp": print})


@situation("check: a layer to skip that is none")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.check(_run(), *_model(), skip="mlp.**")
