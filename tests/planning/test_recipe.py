"""What a plan prints: axes where more than a copy happens, and layouts that a rule with axes switches off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

import bridge
from tests.planning.reports import F4, plan
from tests.save.files import write

BF16 = np.dtype("bfloat16")
KEY = jax.random.key(0)


def rows(text: str) -> list[str]:
    """The lines of a printed plan below the first, without the blanks that align them."""
    return [" ".join(line.split()) for line in text.splitlines()[1:]]


def test_a_transposed_stack_shows_its_axes_and_its_cast():
    leaves: Any = {"layers.up.weight": (BF16, 3, 6, 4)}
    made = plan(
        {f"h.{n}.c_fc.weight": (4, 6) for n in range(3)},
        leaves,
        ["h.{l}.c_fc.weight [i o] -> layers.up.weight [o i]"],
    )
    assert rows(str(made)) == [
        "h.{0..2}.c_fc.weight [i o] float32[4, 6] -> layers.up.weight [l o i] bfloat16[3, 6, 4] (cast from float32)"
    ]


def test_what_is_copied_as_it_is_shows_none():
    made = plan({f"h.{n}.w": (4, 6) for n in range(3)}, {"h.w": (3, 4, 6)}, ["h.{l}.w [a b] -> h.w [l a b]"])
    assert rows(str(made)) == ["h.{0..2}.w float32[4, 6] -> h.w float32[3, 4, 6]"]


def test_the_parts_of_a_split_and_of_a_join():
    split = plan({"qkv": (4, 12)}, dict.fromkeys("qkv", (4, 4)), ["qkv [m (q|k|v)] -> {q|k|v} [m _]"])
    assert rows(str(split)) == [f"qkv [m (q|k|v)] float32[4, 12] -> {n} [m _] float32[4, 4]" for n in "qkv"]
    join = plan({"q": (4, 2), "k": (2, 2), "v": (2, 2)}, {"qkv": (8, 2)}, ["{q|k|v} [_ m] -> qkv [(q|k|v) m]"])
    assert rows(str(join)) == [
        f"{name} [_ m] float32[{n}, 2] -> qkv [(q|k|v) m] float32[8, 2]"
        for name, n in zip("qkv", (4, 2, 2), strict=True)
    ]


def test_extents_that_shapes_do_not_show():
    made = plan({"q": (12, 4)}, {"q": (3, 4, 4)}, ["q [(h d) m] -> q [h d m] ; h=3"])
    assert rows(str(made)) == ["q [(h d) m] float32[12, 4] -> q [h d m] float32[3, 4, 4] (h=3)"]
    made = plan({"q": (12, 4)}, {"q": (4, 12)}, ["q [a b] -> q [b a] ; a=12"])
    assert rows(str(made)) == ["q [a b] float32[12, 4] -> q [b a] float32[4, 12]"]


def test_a_place_of_a_stack_a_part_of_an_axis_and_a_flip():
    made = plan(
        {"a": (4,), "b": (3,), "c": (2,)},
        {"s": (1, 4), "b": (2,), "c": (2,)},
        ["a [...] -> s [n[0] ...]", "b [x[1:]] -> b [x]", "b [x[0]] -> _", "c [n] -> c [n] ; flip='n'"],
    )
    assert rows(str(made))[:3] == [
        "a [...] float32[4] -> s [n[0] ...] float32[1, 4]",
        "b [x[1:]] float32[3] -> b [x] float32[2]",
        "c [n] float32[2] -> c [n] float32[2] (flipped along n)",
    ]


def test_each_rule_of_several_for_one_family_shows_its_own_axes():
    made = plan(
        {f"h.{n}.w": (2, 2) for n in range(4)},
        {f"m.{n}.w": (2, 2) for n in range(4)},
        ["h.{l[0,2]}.w [a b] -> m.{l[0,2]}.w [b a]", "h.{l}.w -> m.{l}.w"],
    )
    assert rows(str(made)) == [
        "h.{0,2}.w [a b] float32[2, 2] -> m.{0,2}.w [b a] float32[2, 2]",
        "h.{1,3}.w float32[2, 2] -> m.{1,3}.w float32[2, 2]",
    ]


def test_added_keys_show_their_own_axes():
    made = plan({"a": (2, 3), "b": (3, 2)}, {"w": (2, 3)}, ["a [x y] + b [y x] -> w [x y]"])
    assert rows(str(made)) == [
        "a [x y] float32[2, 3] -> w [x y] float32[2, 3]",
        "b [y x] float32[3, 2] -> w [x y] float32[2, 3] (added)",
    ]


def printed(folder: Path, shapes: Mapping[str, tuple[int, ...]], like: Any, *rules: str) -> list[str]:
    source = write(folder / "x.safetensors", {key: np.zeros(shape, F4) for key, shape in shapes.items()})
    return rows(str(bridge.plan(source, eqx.filter_eval_shape(lambda: like()), rules)))


def ups() -> Any:
    keys = jax.random.split(KEY, 2)
    return {"ups": eqx.filter_vmap(lambda key: eqx.nn.ConvTranspose2d(3, 3, 3, key=key))(keys)}


def test_a_layout_that_a_rule_with_axes_switches_off(tmp_path: Path):
    keys = {f"u.{n}.weight": (3, 3, 3, 3) for n in range(2)} | {f"u.{n}.bias": (3,) for n in range(2)}
    rules = ["u.{i}.weight [a b h w] -> ups.weight [i a b h w]", "u.{i}.bias -> ups.bias"]
    assert printed(tmp_path, keys, ups, *rules) == [
        "u.{0..1}.weight [a b h w] float32[3, 3, 3, 3] -> ups.weight [i a b h w] float32[2, 3, 3, 3, 3] "
        "(ConvTranspose2d's layout is switched off)",
        "u.{0..1}.bias [o] float32[3] -> ups.bias [i o 1 1] float32[2, 3, 1, 1]",
    ]


def test_a_rule_that_says_what_the_layout_says_switches_nothing_off(tmp_path: Path):
    keys = {f"u.{n}.weight": (3, 3, 3, 3) for n in range(2)} | {f"u.{n}.bias": (3,) for n in range(2)}
    rules = [
        "u.{n}.weight [i o h w] -> ups.weight [n o i h w] ; flip='h w'",
        "u.{i}.bias [o] -> ups.bias [i o 1 1]",
    ]
    assert printed(tmp_path, keys, ups, *rules) == [
        "u.{0..1}.weight [i o h w] float32[3, 3, 3, 3] -> ups.weight [n o i h w] float32[2, 3, 3, 3, 3] "
        "(flipped along h w)",
        "u.{0..1}.bias [o] float32[3] -> ups.bias [i o 1 1] float32[2, 3, 1, 1]",
    ]


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ({"p.in_proj_weight": (24, 8)}, "p.in_proj_weight [(q|k|v) m] -> {query|key|value}_proj.weight [_ m]"),
        ({f"p.{n}": (8, 8) for n in "qkv"}, "p.{q|k|v} [o i] -> {query|key|value}_proj.weight [o i]"),
    ],
)
def test_a_layout_of_several_readings_is_off_only_where_none_of_them_agrees(
    tmp_path: Path, keys: Mapping[str, tuple[int, ...]], rule: str
):
    out = {"output_proj.weight": (8, 8)}
    shown = printed(tmp_path, {**keys, **out}, lambda: eqx.nn.MultiheadAttention(2, 8, key=KEY), rule)
    assert not any("switched off" in row for row in shown)


def test_it_is_printed_in_the_plan_of_its_own_rules_too(tmp_path: Path):
    keys = {f"u.{n}.weight": (3, 3, 3, 3) for n in range(2)} | {f"u.{n}.bias": (3,) for n in range(2)}
    source = write(tmp_path / "x.safetensors", {key: np.zeros(shape, F4) for key, shape in keys.items()})
    like = eqx.filter_eval_shape(ups)
    made = bridge.plan(source, like, ["u.{i}.weight [a b h w] -> ups.weight [i a b h w]", "u.** -> ups.**"])
    assert str(bridge.plan(source, like, made.rules)) == str(made)
    assert str(bridge.Plan.from_json(made.to_json())) == str(made)
