"""What reports advise is followed to the letter here, and ends in a right model; and how many lines each kind gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from bridge.planning.shares import shares
from tests.planning.reports import F4, Shapes, plan, report
from tests.save.files import write


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([3, 2, 1, 0], [3, 2, 1, 0]),
        ([1000, 1000, 1000, 1000], [10, 10, 10, 10]),
        ([1000, 5, 0, 0], [35, 5, 0, 0]),
        ([1000, 0, 1000, 1], [20, 0, 19, 1]),
        ([41, 0, 0, 0], [40, 0, 0, 0]),
    ],
)
def test_lines_are_shared_and_none_is_lost(counts: list[int], shown: list[int]):
    assert shares(counts, 40) == shown


def test_no_kind_hides_another():
    keys: Shapes = {f"u{n}.x": (3,) for n in range(60)} | {f"w{n}": (n + 9,) for n in range(60)}
    leaves: Shapes = {f"m{n}.y": (5,) for n in range(60)} | {f"w{n}": (3,) for n in range(60)}
    lines = report(keys, leaves).splitlines()
    counts = {kind: sum(line.startswith(f"  {kind}") for line in lines) for kind in ("missing", "unexp", "mism")}
    assert counts == {"missing": 14, "unexp": 13, "mism": 13}
    assert lines[-1] == (
        "  … and 46 missing, 47 unexpected, 47 mismatched more: plan.missing, plan.unexpected and plan.mismatched have "
        "them all"
    )


def test_a_new_head_is_told_how_to_say_so():
    text = report({"body": (3,)}, {"body": (3,), "head.weight": (2, 3)})
    (name,) = re.findall(r'if it is new: allow_missing=\["(.*)"\]', text)
    assert name == "head.weight"
    made = report({"h.0.w": (3,), "h.1.w": (3,)}, {f"h.{n}.w": (3,) for n in range(4)})
    assert 'if they are new: allow_missing=["h.*.w"]' in made
    assert "allow_missing" not in report({"h.0.w": (3,), "h.2.w": (3,)}, {f"h.{n}.w": (3,) for n in range(3)})
    assert "allow_missing" not in report({"other": (3,)}, {"head.weight": (2, 3)})  # nothing meets at all


def told(folder: Path, tensors: Mapping[str, np.ndarray], like: Any, *rules: str) -> tuple[Path, str]:
    source = write(folder / "x.safetensors", tensors)
    made = bridge.plan(source, like, list(rules))
    assert not made.ok
    return source, str(made)


def test_a_head_of_another_size(tmp_path: Path):
    stored = {"body.w": np.ones(3, F4), "fc.weight": np.ones((5, 2), F4), "fc.bias": np.ones(5, F4)}
    like = {"body": {"w": jnp.zeros(3)}, "fc": {"weight": jnp.zeros((7, 2)), "bias": jnp.zeros(7)}}
    source, text = told(tmp_path, stored, like)
    ((rule, kept),) = re.findall(r'a head of its own: "(.*)" as the first rule, allow_missing=\["(.*)"\]', text)
    made = bridge.load(source, like, [rule], allow_missing=[kept])
    assert (made["body"]["w"] == 1).all()
    assert (made["fc"]["weight"] == 0).all()


def test_a_head_beside_what_does_fit_is_named_alone(tmp_path: Path):
    stored = {"m.w": np.ones(3, F4), "m.out": np.ones((5, 2), F4)}
    like = {"m": {"w": jnp.zeros(3), "out": jnp.zeros((7, 2))}}
    source, text = told(tmp_path, stored, like)
    ((rule, kept),) = re.findall(r'a head of its own: "(.*)" as the first rule, allow_missing=\["(.*)"\]', text)
    assert (rule, kept) == ("m.out -> _", "m.out")
    assert (bridge.load(source, like, [rule], allow_missing=[kept])["m"]["w"] == 1).all()


@pytest.mark.parametrize("rows", [4, 6])
def test_a_vocabulary_of_another_size(tmp_path: Path, rows: int):
    stored = {"emb.weight": np.arange(rows * 2, dtype=F4).reshape(rows, 2)}
    like = {"emb": {"weight": jnp.full((5, 2), -1.0)}}
    source, text = told(tmp_path, stored, like)
    (advice,) = re.findall(r"(?:padding|spare): (.*)", text)
    rules, kept = re.findall(r'"([^"]* -> [^"]*)"', advice), re.findall(r'allow_missing=\["(.*)"\]', advice)
    made = np.asarray(bridge.load(source, like, rules, allow_missing=kept)["emb"]["weight"])
    count = min(rows, 5)
    assert made[:count].tobytes() == stored["emb.weight"][:count].tobytes()
    assert (made[count:] == -1).all()


@pytest.mark.parametrize(("stored", "wanted"), [((3,), (3, 1, 1)), ((1, 3, 1, 2), (3, 2)), ((2, 3), (3, 2))])
def test_axes_of_one_and_in_another_order(tmp_path: Path, stored: tuple[int, ...], wanted: tuple[int, ...]):
    values = np.arange(np.prod(stored), dtype=F4).reshape(stored)
    source, text = told(tmp_path, {"w": values}, {"w": jax.ShapeDtypeStruct(wanted, F4)})
    (rule,) = re.findall(r'"(w .* -> .*)"', text)
    made = np.asarray(bridge.load(source, {"w": jax.ShapeDtypeStruct(wanted, F4)}, rule)["w"])
    assert (made == (values.T if stored == (2, 3) else values.reshape(wanted))).all()


def test_an_equal_number_of_elements_is_no_advice():
    assert "said by" not in report({"w": (2, 6)}, {"w": (3, 4)})


@pytest.mark.parametrize("first", ["rnn.bias_ih_l0", "rnn.b.x"])
@pytest.mark.parametrize("both", [True, False])
def test_two_biases_end_in_their_sum(tmp_path: Path, first: str, both: bool):
    second = {"rnn.bias_ih_l0": "rnn.bias_hh_l0", "rnn.b.x": "rnn.b.h"}[first]
    if not both and first == "rnn.b.x":
        return  # nothing says which other key it is
    named = ["rnn.weight_ih_l0 -> weight_ih", "rnn.weight_hh_l0 -> weight_hh"]
    tensors = {f"rnn.weight_{name}_l0": np.ones((12, 3), F4) for name in ("ih", "hh")}
    tensors |= {key: np.full(12, n, F4) for n, key in enumerate((first, second), 1)}
    like = eqx.nn.LSTMCell(3, 3, key=jax.random.key(0))
    rules = [f"{first} -> bias", f"{second} -> bias"][: 1 + both]
    source, text = told(tmp_path, tensors, like, *named, *rules)
    advice = set(re.findall(r'write "(.*)" in place of', text))
    assert advice == {f"{first} + {second} -> bias"}
    assert (bridge.load(source, like, [*named, *advice]).bias == 3).all()


def test_a_part_that_may_stay_empty_is_told_so():
    made = report({f"h.{n}.w": (3,) for n in range(2)}, {"h.w": (4, 3)})
    assert 'to keep other values there: allow_missing=["h.w"]' in made
    assert "allow_missing" not in report({"h.0.w": (3,), "h.2.w": (3,)}, {"h.w": (3, 3)})


def test_long_ranges_are_spelled_by_their_ends():
    text = report({"x.0.w": (3,)}, {"h.w": (4_000, 3)}, ["x.{l}.w -> h.w"])
    assert "missing     h.w[1:4000]   no key 'x.{1..3999}.w'   float32[3999, 3]" in text
    text = report({"a": (3,)}, {"a": (3,), "h.w": (4_000, 3)}, ["x.{l}.w -> h.w"])
    assert "missing     h.w   no key 'x.{0..3999}.w' (rule 1)   float32[4000, 3]" in text
    many = {f"h.{n}.w": (3,) for n in range(3_000)}
    text = report({"a": (3,)}, {"a": (3,), **many}, ["x.{l}.w -> h.{l}.w"])
    assert "missing     h.{0..2999}.w   no key 'x.{0..2999}.w' (rule 1)   float32[3]" in text


def test_shapes_of_parts_and_dtypes():
    leaves: Any = {"w": (np.dtype("bfloat16"), 4, 4), "v": (2, 2)}
    text = str(plan({"w": (4, 5), "x.0.v": (2,)}, leaves, ["x.{l}.v [a] -> v [a l]"]))
    assert "mismatched  w   the model has (4, 4), 'w' is (4, 5)   bfloat16 from float32" in text
    assert "missing     v[0, 1]   no key 'x.1.v'   float32[]" in text
