"""Leaves of which keys fill a part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.errors.situations import situation
from tests.save.files import write


def _load(name: str, like: Any, stored: np.ndarray | None = None, **options: Any) -> None:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        write(Path("x.safetensors"), {"a": np.ones(2, np.float32) if stored is None else stored})
        rule = "a [...] -> w [n[1] ...] ; n=2" if like is None else "a [x] -> w [x[:2]]"
        bridge.load("x.safetensors", like, rule, **options)

    situation(f"load in part: {name}")(provoke)


OWN = {"w": jnp.zeros(3)}
_load("not allowed", OWN)
_load("without a template", None, allow_missing="w")
_load("an abstract template", jax.eval_shape(lambda: OWN), allow_missing="w")
_load("values of another kind", OWN, np.ones(2, np.int32), allow_missing="w", dtype="checkpoint")
_load("a value that does not fit", {"w": jnp.full(3, 1e30)}, allow_missing="w", dtype="float16")


@situation("load in part: a template that is spread otherwise")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(type(OWN["w"]), "addressable_shards", property(lambda _: []))
    write(Path("x.safetensors"), {"a": np.ones(2, np.float32)})
    bridge.load("x.safetensors", OWN, "a [x] -> w [x[:2]]", allow_missing="w")


@situation("save: a place of a leaf that no rule names")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.save({"w": np.zeros((3, 2), np.float32)}, "out", "a [...] -> w [n[1] ...]")
