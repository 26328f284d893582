"""Entries of the report where keys and leaves do not meet: which key was looked for, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

import bridge
from tests.errors.situations import situation
from tests.save.files import write

A = np.ones(3, np.float32)


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)


def _load(name: str, tensors: dict[str, np.ndarray], like: Any, rules: Any = None, **options: Any) -> None:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        write(Path("x.safetensors"), tensors)
        bridge.load("x.safetensors", like() if callable(like) else like, rules, **options)

    situation(f"report: {name}")(provoke)


_load(
    "a rule whose key is not there",
    {"a": A},
    {"a": spec(3), "head": {"w": spec(3)}},
    ["a -> a", "lm_head.** -> head.**"],
)
_load("a rule that finds the first layer alone", {"h.0.up_proj": A}, {"h": {"up": spec(2, 3)}}, "h.{l}.*_proj -> h.*")
_load("a list of which one layer is there", {"h.1.w": A}, {"x": [{"w": spec(3)}] * 2}, "h.{l[1:]}.w -> x.{l}.w")
_load(
    "a part of a join",
    {"q.w": np.ones((2, 3), np.float32)},
    {"qk": spec(4, 3)},
    "{q|k}.w [_ m] -> qk [(q|k) m] ; q=2",
)
_load("rows to spare", {"e": np.ones((3, 2), np.float32)}, {"e": spec(5, 2)}, "e [v d] -> e [v[:3] d]")

BIASES = {f"bias_{name}_l0": np.zeros(12, np.float32) for name in ("ih", "hh")}
BIASES |= {f"weight_{name}": np.zeros((12, 3), np.float32) for name in ("ih", "hh")}


def _cell() -> Any:
    return eqx.nn.LSTMCell(3, 3, key=jax.random.key(0))


_load("a rule for one of two biases", BIASES, _cell, ["bias_ih_l0 -> bias"])
_load("a rule for each of two biases", BIASES, _cell, ["bias_ih_l0 -> bias", "bias_hh_l0 -> bias"])
OWN = {name.replace("bias_ih_l0", "b.x").replace("bias_hh_l0", "b.h"): array for name, array in BIASES.items()}
_load("a rule for each of two biases of other names", OWN, _cell, ["b.x -> bias", "b.h -> bias"])
HEAD = {"fc.weight": np.ones((5, 2), np.float32), "fc.bias": np.ones(5, np.float32)}
_load("a head of another size", HEAD, {"fc": {"weight": spec(7, 2), "bias": spec(7)}})
_load("axes of one", {"w": np.ones((1, 3), np.float32)}, {"w": spec(3, 1, 1)})
_load("more words than the model has", {"emb.w": np.ones((6, 2), np.float32)}, {"emb": {"w": spec(5, 2)}})
_load("fewer words than the model has", {"emb.w": np.ones((4, 2), np.float32)}, {"emb": {"w": spec(5, 2)}})
_load("another dtype and shape", {"w": np.ones((4, 5), np.float16)}, {"w": spec(2, 2)})
