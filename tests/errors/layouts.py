"""Layouts of one's own that are none, or not of the model's layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.errors.reading import A
from tests.errors.situations import situation
from tests.save.files import write


class Dense(eqx.Module):
    """A user's layer."""

    w: jax.Array
    b: jax.Array | None = None
    name: str = eqx.field(static=True, default="dense")


class Fused(eqx.Module):
    """One whose projections are one matrix."""

    qkv: jax.Array


def dense() -> dict[str, Any]:
    return {"net": Dense(jnp.zeros((3, 2)))}


def _plan(name: str, layouts: Any, like: Callable[[], Any] = dense) -> None:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        write(Path("x.safetensors"), {"a": A})
        bridge.plan("x.safetensors", like(), layouts=layouts)

    situation(f"layouts: {name}")(provoke)


_plan("no mapping", [(Dense, "weight -> w")])
_plan("a name in the place of a type", {"Dense": "weight -> w"})
_plan("a number in the place of a type", {3: "weight -> w"})
_plan("a rule that is none", {Dense: ("weight [o i] -> w [i o]", "bias = b")})
_plan("a rule that is no text", {Dense: [("weight", "w")]})
_plan("rules that are no rules", {Dense: 3})
_plan("an index in a name", {Dense: "weights.{l} -> w"})
_plan("a wildcard in a name", {Dense: "** -> inner.**"})
_plan("a tie", {Dense: ("weight -> w", "other -> w ; tie=true")})
_plan("another spelling by an option", {Dense: ("weight -> w", "other -> w ; alt=true")})
_plan("a join with a sum", {Dense: "{q|k} [_ m] + {a|b} [_ m] -> w [(q|k) m]"})
_plan("a leaf that the layer does not have", {Dense: ("weight [o i] -> kernel [i o]", "bias -> b")})
_plan("an attribute that is no array", {Dense: "weight -> name"})
_plan("more axes than the leaf has", {Dense: "weight [o i h w] -> w [h w i o]"})
_plan("a type that no layer is", {Dense: "weight -> w", Fused: "qkv -> qkv"})
_plan("a model of plain containers", {Dense: "weight -> w"}, lambda: {"a": jnp.zeros(3)})
_plan("no model", {Dense: "weight -> w"}, lambda: None)


@situation("layouts: saving by rules a join whose parts nothing tells")
def _(patch: pytest.MonkeyPatch) -> None:
    layouts = {Fused: "{q|k|v}.weight [_ m] -> qkv [(q|k|v) m]"}
    bridge.save(Fused(jnp.zeros((8, 4))), "x.safetensors", "** -> **", layouts=layouts)


@situation("layouts: parts that no rule can spell")
def _(patch: pytest.MonkeyPatch) -> None:
    shapes = {"0.a.x": (4, 4), "0.b.y": (2, 4), "0.c.z": (2, 4), "1.a.x": (2, 4), "1.b.y": (4, 4), "1.c.z": (2, 4)}
    write(Path("x.safetensors"), {key: np.zeros(shape, np.float32) for key, shape in shapes.items()})
    layouts = {Fused: "{q|k|v}.weight [_ m] -> qkv [(q|k|v) m]"}
    rules = [f"{{l}}.{key} -> {{l}}.{part}.weight" for key, part in (("a.x", "q"), ("b.y", "k"), ("c.z", "v"))]
    _ = bridge.plan("x.safetensors", [Fused(jnp.zeros((8, 4)))] * 2, rules, layouts=layouts).rules
