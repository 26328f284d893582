"""Load, then save: the identity, on random checkpoints and random rules of several shapes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import bridge
from tests.save.files import random, read, struct, write

DTYPES = st.sampled_from(["F32", "BF16", "F16", "I32", "U8", "BOOL", "F8_E4M3"])
SMALL = st.integers(1, 4)


@st.composite
def stacks(draw: st.DrawFn) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], list[str]]:
    """Layers by experts by matrix, any of these axes anywhere in the leaf; the matrix perhaps taken apart."""
    layers, experts, rows, columns, heads = (draw(SMALL) for _ in range(5))
    shapes = {f"h.{n}.e.{e}.w": (heads * rows, columns) for n in range(layers) for e in range(experts)}
    sizes = {"l": layers, "e": experts, "h": heads, "r": rows, "c": columns}
    order = draw(st.permutations(["l", "e", "h", "r", "c"]))
    if draw(st.booleans()):
        leaf = tuple(sizes[axis] for axis in order)
        return shapes, {"w": leaf}, [f"h.{{l}}.e.{{e}}.w [(h r) c] -> w [{' '.join(order)}] ; h={heads}"]
    # Two neighbours of the leaf as one axis.
    at = draw(st.integers(0, 3))
    axes = [*order[:at], f"({order[at]} {order[at + 1]})", *order[at + 2 :]]
    extents = [sizes[axis] for axis in order]
    leaf = (*extents[:at], extents[at] * extents[at + 1], *extents[at + 2 :])
    rest = " ".join(f"{axis}={sizes[axis]}" for axis in sorted({"h", order[at + 1]}))
    return shapes, {"w": leaf}, [f"h.{{l}}.e.{{e}}.w [(h r) c] -> w [{' '.join(axes)}] ; {rest}"]


@st.composite
def splits(draw: st.DrawFn) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], list[str]]:
    """One tensor of unequal parts, stacked or not, whichever side is the joint one, transposed or not."""
    parts = {label: draw(SMALL) for label in "abc"[: draw(st.integers(2, 3))]}
    columns, layers = draw(SMALL), draw(SMALL)
    choice, options = "|".join(parts), " ".join(f"{label}={n}" for label, n in parts.items())
    joint, single = (sum(parts.values()), columns), {label: (n, columns) for label, n in parts.items()}
    stacked = draw(st.booleans())
    key, stack = ("h.{l}.", "l ") if stacked else ("", "")
    turned = draw(st.booleans())

    def leaf(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*((layers,) if stacked else ()), *(reversed(shape) if turned else shape))

    def spelled(rows: str) -> str:
        return f"{stack}m {rows}" if turned else f"{stack}{rows} m"

    prefixes = [f"h.{n}." for n in range(layers)] if stacked else [""]
    if draw(st.booleans()):
        shapes = {f"{prefix}x": joint for prefix in prefixes}
        leaves = {f"y{label}": leaf(shape) for label, shape in single.items()}
        return shapes, leaves, [f"{key}x [({choice}) m] -> y{{{choice}}} [{spelled('_')}] ; {options}"]
    shapes = {f"{prefix}x{label}": shape for prefix in prefixes for label, shape in single.items()}
    return shapes, {"y": leaf(joint)}, [f"{key}x{{{choice}}} [_ m] -> y [{spelled(f'({choice})')}] ; {options}"]


@st.composite
def lists(draw: st.DrawFn) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], list[str]]:
    """A selection of layers here, the others there, each stacked or listed."""
    count = draw(st.integers(2, 13))
    cut = draw(st.integers(1, count - 1))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    leaves: dict[str, tuple[int, ...]] = {}
    for name, extent in (("head", cut), ("tail", count - cut)):
        if draw(st.booleans()):
            leaves[f"{name}.w"] = (extent, *shape)
        else:
            leaves |= {f"{name}.{n}.w": shape for n in range(extent)}
    rules = [f"h.{{l[:{cut}]}}.** -> head.{{l}}.**", f"h.{{l[{cut}:]}}.** -> tail.{{l}}.**"]
    return {f"h.{n}.w": shape for n in range(count)}, leaves, rules


@st.composite
def schedules(draw: st.DrawFn) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], list[str]]:
    """Every so many layers one of another kind."""
    period, groups = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    shapes = {f"h.{n}.w": (2, 3) for n in range(period * groups)}
    leaves = {"local": (groups, period - 1, 2, 3), "full": (groups, 2, 3)}
    rules = [
        f"h.{{(g i[:{period - 1}])}}.w -> local.{{g}}.{{i}} ; i={period}",
        f"h.{{(g i[{period - 1}])}}.w -> full.{{g}} ; i={period}",
    ]
    return shapes, leaves, rules


def nested(leaves: dict[str, tuple[int, ...]], dtype: Any) -> dict[str, Any]:
    """Leaves by dotted name as nested dicts; numbers are keys like any other."""
    tree: dict[str, Any] = {}
    for name, shape in leaves.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = struct(shape, dtype)
    return tree


@settings(max_examples=150)
@given(st.one_of(stacks(), splits(), lists(), schedules()), DTYPES, st.sampled_from(["5GB", 1, 300]), st.booleans())
def test_load_then_save_is_the_identity(
    case: tuple[dict, dict, list[str]], dtype: str, limit: int | str, by_plan: bool
):
    shapes, leaves, rules = case
    tensors = {key: random(shape, dtype, seed=n) for n, (key, shape) in enumerate(shapes.items())}
    like = nested(leaves, next(iter(tensors.values())).dtype)
    with tempfile.TemporaryDirectory() as folder:
        source = write(Path(folder, "model.safetensors"), tensors)
        plan = bridge.plan(source, like, rules)
        assert plan.ok, plan
        assert plan.lossy == ()
        model = bridge.load(source, like, plan)
        report = bridge.save(model, Path(folder, "out"), plan if by_plan else rules, max_shard_size=limit)
        assert read(Path(folder, "out")) == read(source)
        assert report.left_out == ()
        bridge.convert(source, Path(folder, "converted"), like, rules)
        bridge.revert(Path(folder, "converted"), Path(folder, "back"))
        assert Path(folder, "back/model.safetensors").read_bytes() == source.read_bytes()


@settings(max_examples=50)
@given(st.one_of(stacks(), splits(), lists(), schedules()))
def test_save_then_load_is_the_identity(case: tuple[dict, dict, list[str]]):
    """Rules alone say which keys there are."""
    shapes, leaves, rules = case
    dtype = np.dtype(np.float32)
    flat = {name: random(shape, seed=n).view(dtype) for n, (name, shape) in enumerate(leaves.items())}
    model = nested(leaves, dtype)
    for name, value in flat.items():
        *parents, last = name.split(".")
        node = model
        for parent in parents:
            node = node[parent]
        node[last] = value
    with tempfile.TemporaryDirectory() as folder:
        bridge.save(model, folder, rules)
        assert {key: tensor.shape for key, tensor in read(Path(folder)).items()} == shapes
        loaded = bridge.load(folder, nested(leaves, dtype), rules)
        plan = bridge.plan(folder, nested(leaves, dtype), rules)
        again = Path(folder, "again")
        bridge.save(loaded, again, plan)
        assert read(again) == read(Path(folder))
