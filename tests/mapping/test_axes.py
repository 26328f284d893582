"""Axes: stacks, transposes, composition, selections, unit axes, the rest, drops in part; all on square shapes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mapping.oracle import Case, Shape, judge, tensors

Arrays = dict[str, np.ndarray]


def grid(name: str, *counts: int, shape: Shape = (2, 2)) -> dict[str, Shape]:
    """Keys for every combination of indices in the `%`s of a name."""
    found = {name: shape}
    for count in counts:
        found = {key.replace("%", str(n), 1): shape for key in found for n in range(count)}
    return found


def stacked(t: Arrays, name: str, *counts: int) -> np.ndarray:
    """The keys of `grid`, one new axis for each index."""
    return np.stack([t[key] for key in grid(name, *counts)]).reshape(*counts, *next(iter(t.values())).shape)


def same(t: Arrays) -> Arrays:
    return t


def one(shape: Shape, rule: str, leaf: object) -> Case:
    """One key `w` to one leaf `v`."""
    return Case(f"{rule}  {shape}", {"w": shape}, [rule], lambda t: {"v": leaf(t["w"])})  # type: ignore[operator]


CASES = [
    one((2, 2), "w [a b] -> v [a b]", lambda w: w),
    one((2, 2), "w [a b] -> v [b a]", lambda w: w.T),
    one((2, 2, 2), "w [a b c] -> v [c a b]", lambda w: w.transpose(2, 0, 1)),
    one((), "w [] -> v []", lambda w: w),
    one((), "w [] -> v [1 1]", lambda w: w.reshape(1, 1)),
    one((1, 1), "w [1 1] -> v []", lambda w: w.reshape(())),
    one((4,), "w [o] -> v [o 1 1]", lambda w: w.reshape(4, 1, 1)),
    one((1, 4), "w [1 o] -> v [o 1]", lambda w: w.T),
    one((4, 2), "w [(h d) m] -> v [h d m] ; h=2", lambda w: w.reshape(2, 2, 2)),
    one((4, 2), "w [(h d) m] -> v [d m h] ; d=2", lambda w: w.reshape(2, 2, 2).transpose(1, 2, 0)),
    one(
        (4, 4),
        "w [(a b) (c d)] -> v [(c b) (a d)] ; b=2, c=2",
        lambda w: w.reshape(2, 2, 2, 2).transpose(2, 1, 0, 3).reshape(4, 4),
    ),
    one((4, 4), "w [(a b) m] -> v [(b a) m] ; a=2", lambda w: w.reshape(2, 2, 4).swapaxes(0, 1).reshape(4, 4)),
    one((2, 2, 2), "w [a b c] -> v [(a b c)]", lambda w: w.ravel()),
    one((2, 2, 2), "w [a b c] -> v [(c a) b]", lambda w: w.transpose(2, 0, 1).reshape(4, 2)),
    one((4, 2), "w [(a 1 b) c] -> v [a b (1 c)] ; a=2", lambda w: w.reshape(2, 2, 2)),
    one((2, 2, 2), "w [... k] -> v [k ...]", lambda w: np.moveaxis(w, -1, 0)),
    one((2,), "w [... k] -> v [k ...]", lambda w: w),
    one((2, 2, 2), "w [...] -> v [1 ...]", lambda w: w[None]),
    one((2, 2, 2, 2), "w [a ... b] -> v [b ... a]", lambda w: w.transpose(3, 1, 2, 0)),
    one((4, 2, 2), "w [(h d) ...] -> v [... d h] ; h=2", lambda w: w.reshape(2, 2, 2, 2).transpose(2, 3, 1, 0)),
    one((2, 3), 'w [a b] -> v [a b] ; flip="b"', lambda w: w[:, ::-1]),
    one((2, 3), 'w [a b] -> v [b a] ; flip="a, b"', lambda w: w[::-1, ::-1].T),
    one((4, 3), 'w [(h d) m] -> v [d h m] ; h=2 flip="d"', lambda w: w.reshape(2, 2, 3)[:, ::-1].swapaxes(0, 1)),
    one((0, 3), "w [a b] -> v [b a]", lambda w: w.T),
    one((4, 0), "w [(h d) m] -> v [h d m] ; h=2", lambda w: w.reshape(2, 2, 0)),
    one((4, 2), "w [(h d) m] -> v [h d m] ; h=1", lambda w: w.reshape(1, 4, 2)),
    Case(
        "a stack, axes say where",
        grid("h.%.w", 3),
        ["h.{l}.w [a b] -> v [a l b]"],
        lambda t: {"v": stacked(t, "h.%.w", 3).swapaxes(0, 1)},
    ),
    Case("a stack last", grid("h.%.w", 3), ["h.{l}.w [a b] -> v [b a l]"], lambda t: {"v": stacked(t, "h.%.w", 3).T}),
    Case(
        "layers and experts, transposed",
        grid("h.%.moe.%.w", 2, 2),
        ["h.{l}.moe.{e}.w [f m] -> moe.w [e l m f]"],
        lambda t: {"moe.w": stacked(t, "h.%.moe.%.w", 2, 2).transpose(1, 0, 3, 2)},
    ),
    Case(
        "axes that do not mention an index leave it in front",
        grid("h.%.moe.%.w", 2, 2),
        ["h.{l}.moe.{e}.w [f m] -> moe.w [m e f]"],
        lambda t: {"moe.w": stacked(t, "h.%.moe.%.w", 2, 2).transpose(0, 3, 1, 2)},
    ),
    Case(
        "an index in the name with axes: a list",
        grid("h.%.w", 3),
        ["h.{l}.w [a b] -> n.{l}.v [b a]"],
        lambda t: {f"n.{l}.v": t[f"h.{l}.w"].T for l in range(3)},
    ),
    Case(
        "an index in the name with axes: a stack",
        grid("h.%.w", 3),
        ["h.{l}.w [a b] -> n.{l}.v [b a]"],
        lambda t: {"n.v": stacked(t, "h.%.w", 3).swapaxes(1, 2)},
    ),
    Case(
        "a wildcard's index with axes: a stack in front",
        grid("m.%.w", 3),
        ["m.**.w [a b] -> **.v [b a]"],
        lambda t: {"v": stacked(t, "m.%.w", 3).swapaxes(1, 2)},
    ),
    Case(
        "an index as part of an axis",
        grid("h.%.w", 3),
        ["h.{l}.w [a b] -> v [(l a) b]"],
        lambda t: {"v": stacked(t, "h.%.w", 3).reshape(6, 2)},
    ),
    Case(
        "an index within an axis",
        grid("h.%.w", 2),
        ["h.{l}.w [a b] -> v [(a l) b]"],
        lambda t: {"v": stacked(t, "h.%.w", 2).swapaxes(0, 1).reshape(4, 2)},
    ),
    Case(
        "indices of a schedule as axes",
        grid("h.%.w", 6),
        ["h.{(g i)}.w [a b] -> v [i a g b] ; i=2"],
        lambda t: {"v": stacked(t, "h.%.w", 6).reshape(3, 2, 2, 2).transpose(1, 2, 0, 3)},
    ),
    Case(
        "a selected index as an axis",
        grid("h.%.w", 6),
        ["h.{l[1::2]}.w [a b] -> v [b l a]", "h.{l[::2]}.w -> u.{l}"],
        lambda t: {
            "v": stacked(t, "h.%.w", 6)[1::2].transpose(2, 0, 1),
            **{f"u.{l}": t[f"h.{2 * l}.w"] for l in range(3)},
        },
    ),
    Case(
        "unstacking",
        {"w": (3, 2, 2)},
        ["w [l a b] -> h.{l}.w [a b]"],
        lambda t: {f"h.{l}.w": t["w"][l] for l in range(3)},
    ),
    Case(
        "unstacking, transposed, from within",
        {"w": (2, 3, 2)},
        ["w [a l b] -> h.{l}.w [b a]"],
        lambda t: {f"h.{l}.w": t["w"][:, l].T for l in range(3)},
    ),
    Case(
        "unstacking part of an axis",
        {"w": (6, 2)},
        ["w [(a l) b] -> h.{l}.w [a b] ; l=3"],
        lambda t: {f"h.{l}.w": t["w"].reshape(2, 3, 2)[:, l] for l in range(3)},
    ),
    Case("unstacking one", {"w": (1, 2, 2)}, ["w [l a b] -> h.{l}.w [a b]"], lambda t: {"h.0.w": t["w"][0]}),
    Case(
        "restacking: one index comes, another goes",
        {f"g.{e}.w": (3, 2, 2) for e in range(2)},
        ["g.{e}.w [l a b] -> h.{l}.w [e b a]"],
        lambda t: {f"h.{l}.w": np.stack([t[f"g.{e}.w"][l].T for e in range(2)]) for l in range(3)},
    ),
    Case(
        "elements selected, the others dropped",
        {"emb": (5, 2)},
        ["emb [v[:3] m] -> emb [v m]", "emb [v[3:] m] -> _"],
        lambda t: {"emb": t["emb"][:3]},
        invertible=False,
    ),
    Case(
        "elements to two leaves",
        {"w": (2, 6)},
        ["w [m v[:4]] -> a [v m]", "w [m v[4:]] -> b [m v]"],
        lambda t: {"a": t["w"][:, :4].T, "b": t["w"][:, 4:]},
    ),
    Case(
        "every other element, and backwards",
        {"w": (6, 2)},
        ["w [v[::2] m] -> a [v m]", "w [v[::-2] m] -> b [v m]"],
        lambda t: {"a": t["w"][::2], "b": t["w"][::-2]},
    ),
    Case(
        "the last elements",
        {"w": (6, 2)},
        ["w [v[-2:] m] -> a [v m]", "w [v[:-2] m] -> b [v m]"],
        lambda t: {"a": t["w"][-2:], "b": t["w"][:-2]},
    ),
    Case(
        "elements picked by number",
        {"w": (5, 2)},
        ["w [v[4,2,0] m] -> a [v m]", "w [v[-2] m] -> b [m v]", "w [v[1] m] -> _"],
        lambda t: {"a": t["w"][[4, 2, 0]], "b": t["w"][[3]].T},
        invertible=False,
    ),
    Case(
        "elements within a composed axis",
        {"w": (6, 2)},
        ["w [(h d[:2]) m] -> a [h d m] ; d=3", "w [(h d[2:]) m] -> b [h (d m)] ; d=3"],
        lambda t: {"a": t["w"].reshape(2, 3, 2)[:, :2], "b": t["w"].reshape(2, 3, 2)[:, 2]},
    ),
    Case(
        "elements into elements",
        {"a": (2, 2), "b": (3, 2)},
        ["a [v m] -> w [v[:2] m]", "b [v m] -> w [v[2:] m]"],
        lambda t: {"w": np.concatenate([t["a"], t["b"]])},
    ),
    Case(
        "elements into every other element",
        {"a": (2, 2), "b": (2, 2)},
        ["a [v m] -> w [v[::2] m]", "b [v m] -> w [v[1::2] m]"],
        lambda t: {"w": np.stack([t["a"], t["b"]], 1).reshape(4, 2)},
    ),
    Case("a drop", {"a": (2,), "x.inv_freq": (2,)}, ["x.inv_freq -> _"], lambda t: {"a": t["a"]}, invertible=False),
    Case(
        "drops by pattern",
        {"a": (2,), "h.0.f": (2,), "h.1.f": (2,)},
        ["h.{l}.** -> _"],
        lambda t: {"a": t["a"]},
        invertible=False,
    ),
    Case(
        "a sum",
        {"r.b_ih": (4,), "r.b_hh": (4,)},
        ["r.b_ih + r.b_hh -> b"],
        lambda t: {"b": t["r.b_ih"] + t["r.b_hh"]},
        invertible=False,
    ),
    Case(
        "a sum, stacked and transposed",
        {f"r.{l}.{p}": (2, 2) for l in range(2) for p in "ih"},
        ["r.{l}.i [a b] + r.{l}.h [b a] -> b [a l b]"],
        lambda t: {"b": np.stack([t[f"r.{l}.i"] + t[f"r.{l}.h"].T for l in range(2)], 1)},
        invertible=False,
    ),
    Case(
        "a sum of three along a choice",
        {f"{p}.{n}": (2,) for p in "qk" for n in "abc"},
        ["{q|k}.a + {q|k}.b + {q|k}.c -> {x|y}"],
        lambda t: {x: t[f"{p}.a"] + t[f"{p}.b"] + t[f"{p}.c"] for p, x in zip("qk", "xy", strict=True)},
        invertible=False,
    ),
    Case("scale and add", {"w": (2, 2)}, ["w -> w ; scale=2 add=1"], lambda t: {"w": t["w"] * 2 + 1}, invertible=False),
    Case("a copy", {"w": (2, 2)}, ["w [a b] -> v [b a] ; copy=true"], lambda t: {"v": t["w"].T, "w": t["w"]}),
    Case(
        "two copies and no other leaf",
        {"w": (2, 2)},
        ["w -> a ; copy=true", "w -> b ; copy=true"],
        lambda t: {"a": t["w"], "b": t["w"]},
    ),
    Case(
        "a copy before a rule that takes it",
        grid("h.%.w", 2),
        ["h.{l[0]}.w -> first ; copy=true", "h.{l}.w -> all"],
        lambda t: {"first": t["h.0.w"], "all": stacked(t, "h.%.w", 2)},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_axes(case: Case):
    judge(case)


def test_no_number_stands_twice_in_the_tensors():
    made = tensors({"a": (2, 2), "b": (), "c": (0,), "d": (3,)})
    numbers = [int(n) for array in made.values() for n in array.ravel()]
    assert numbers == list(range(1, 9))
