"""Choices and parts: splits, joins, unequal parts, per head, per group, interleaved; stacked and transposed as well."""

from __future__ import annotations

import numpy as np
import pytest

from tests.mapping.oracle import Case, judge

Q, K, V = range(3)


def heads(w: np.ndarray, h: int) -> np.ndarray:
    """Rows as (heads, 3, head width)."""
    return w.reshape(h, 3, -1, *w.shape[1:])


CASES = [
    Case(
        "split, the last axis",
        {"c": (4, 12)},
        ["c [m (q|k|v)] -> {q|k|v}.w [_ m]"],
        lambda t: {f"{p}.w": t["c"][:, 4 * n : 4 * n + 4].T for n, p in enumerate("qkv")},
    ),
    Case(
        "split a stack, into a list and transposed",
        {f"h.{l}.c": (4, 12) for l in range(2)},
        ["h.{l}.c [m (q|k|v)] -> h.{l}.{q|k|v}.w [_ m]"],
        lambda t: {
            f"h.{l}.{p}.w": t[f"h.{l}.c"][:, 4 * n : 4 * n + 4].T for l in range(2) for n, p in enumerate("qkv")
        },
    ),
    Case(
        "split, stacked by the model",
        {f"h.{l}.c": (4, 12) for l in range(2)},
        ["h.{l}.c [m (q|k|v)] -> h.{l}.{q|k|v}.w [_ m]"],
        lambda t: {
            f"h.{p}.w": np.stack([t[f"h.{l}.c"][:, 4 * n : 4 * n + 4].T for l in range(2)]) for n, p in enumerate("qkv")
        },
    ),
    Case(
        "split of a stacked, transposed, composed tensor in one rule",
        {f"h.{l}.c": (2, 12) for l in range(2)},
        ["h.{l}.c [m (q|k|v)] -> {q|k|v} [m _ l]"],
        lambda t: {
            p: np.stack([t[f"h.{l}.c"][:, 4 * n : 4 * n + 4] for l in range(2)], -1) for n, p in enumerate("qkv")
        },
    ),
    Case(
        "split of one stacked tensor, heads apart",
        {"c": (2, 12, 4)},
        ["c [l ((q|k|v) h d) m] -> h.{l}.{q|k|v} [h m d] ; h=2"],
        lambda t: {
            f"h.{l}.{p}": t["c"][l].reshape(3, 2, 2, 4)[n].transpose(0, 2, 1)
            for l in range(2)
            for n, p in enumerate("qkv")
        },
    ),
    Case(
        "unequal parts, by option",
        {"c": (8, 2)},
        ["c [(q|k|v) m] -> {q|k|v} [m _] ; q=4, k=2, v=2"],
        lambda t: {"q": t["c"][:4].T, "k": t["c"][4:6].T, "v": t["c"][6:].T},
    ),
    Case(
        "unequal parts, by shape",
        {"c": (8, 2)},
        ["c [(q|k|v) m] -> {q|k|v} [m _]"],
        lambda t: {"q": t["c"][:4].T, "k": t["c"][4:6].T, "v": t["c"][6:].T},
    ),
    Case(
        "a bias",
        {"b": (6,)},
        ["b [(q|k|v)] -> {wq|wk|wv}.b [_]"],
        lambda t: {"wq.b": t["b"][:2], "wk.b": t["b"][2:4], "wv.b": t["b"][4:]},
    ),
    Case(
        "an axis tells labels, a name takes their order by position",
        {"c": (6, 2)},
        ["c [(q|k|v) m] -> {k|v|q} [_ m]"],
        lambda t: {"q": t["c"][:2], "k": t["c"][2:4], "v": t["c"][4:]},
    ),
    Case(
        "join",
        {f"a.{p}_proj.w": (2, 2) for p in "qkv"},
        ["a.{q|k|v}_proj.w [_ m] -> qkv.w [(q|k|v) m]"],
        lambda t: {"qkv.w": np.concatenate([t[f"a.{p}_proj.w"] for p in "qkv"])},
    ),
    Case(
        "join of unequal parts, the other order, transposed",
        {"q": (4, 2), "k": (2, 2), "v": (2, 2)},
        ["{q|k|v} [_ m] -> vkq [m (v|k|q)]"],
        lambda t: {"vkq": np.concatenate([t["v"], t["k"], t["q"]]).T},
    ),
    Case(
        "join of a stack",
        {f"h.{l}.{p}": (2, 2) for l in range(2) for p in "qk"},
        ["h.{l}.{q|k} [_ m] -> qk [l m (q|k)]"],
        lambda t: {"qk": np.stack([np.concatenate([t[f"h.{l}.q"], t[f"h.{l}.k"]]).T for l in range(2)])},
    ),
    Case(
        "stack by a name: parts one wide",
        {"mlp.gate": (2, 2), "mlp.up": (2, 2)},
        ["mlp.{gate|up} [f m] -> w [(gate|up) f m]"],
        lambda t: {"w": np.stack([t["mlp.gate"], t["mlp.up"]])},
    ),
    Case(
        "unstack by a name",
        {"w": (2, 2, 2)},
        ["w [f (gate|up) m] -> {gate|up} [m f]"],
        lambda t: {"gate": t["w"][:, 0].T, "up": t["w"][:, 1].T},
    ),
    Case(
        "interleaved",
        {"gate_up": (4, 2)},
        ["gate_up [(f (gate|up)) m] -> {gate|up} [f m]"],
        lambda t: {"gate": t["gate_up"][::2], "up": t["gate_up"][1::2]},
    ),
    Case(
        "interleaving",
        {"gate": (2, 2), "up": (2, 2)},
        ["{gate|up} [f m] -> gate_up [(f (gate|up)) m]"],
        lambda t: {"gate_up": np.stack([t["gate"], t["up"]], 1).reshape(4, 2)},
    ),
    Case(
        "per head",
        {"qkv": (12, 2)},
        ["qkv [(h (q|k|v) d) m] -> {q|k|v} [(h d) m] ; h=2"],
        lambda t: {p: heads(t["qkv"], 2)[:, n].reshape(4, 2) for n, p in enumerate("qkv")},
    ),
    Case(
        "per head, the heads apart and stacked",
        {f"h.{l}.qkv": (12, 2) for l in range(2)},
        ["h.{l}.qkv [(h (q|k|v) d) m] -> {q|k|v} [h l m d] ; h=2"],
        lambda t: {
            p: np.stack([heads(t[f"h.{l}.qkv"], 2)[:, n].swapaxes(1, 2) for l in range(2)], 1)
            for n, p in enumerate("qkv")
        },
    ),
    Case(
        "per group: one k, one v, two q",
        {"qkv": (16, 2)},
        ["qkv [(g (q|k|v) d) m] -> {q|k|v} [(g _ d) m] ; g=2, q=2, k=1, v=1"],
        lambda t: {
            "q": t["qkv"].reshape(2, 4, 2, 2)[:, :2].reshape(8, 2),
            "k": t["qkv"].reshape(2, 4, 2, 2)[:, 2].reshape(4, 2),
            "v": t["qkv"].reshape(2, 4, 2, 2)[:, 3].reshape(4, 2),
        },
    ),
    Case(
        "joined per group",
        {"q": (8, 2), "k": (4, 2), "v": (4, 2)},
        ["{q|k|v} [(g _ d) m] -> qkv [m (g (q|k|v) d)] ; g=2, q=2, k=1, v=1"],
        lambda t: {
            "qkv": np.concatenate([t[p].reshape(2, -1, 2, 2) for p in "qkv"], 1).reshape(16, 2).T,
        },
    ),
    Case(
        "labels of both sides in axes: reordered by label",
        {"w": (6, 2)},
        ["w [(q|k|v) m] -> v [m (v|q|k)] ; q=2, k=2, v=2"],
        lambda t: {"v": np.concatenate([t["w"][4:], t["w"][:2], t["w"][2:4]]).T},
    ),
    Case(
        "reordered, of unequal parts",
        {"w": (7, 2)},
        ["w [(a|b) m] -> v [(b|a) m] ; a=3, b=4"],
        lambda t: {"v": np.concatenate([t["w"][3:], t["w"][:3]])},
    ),
    Case(
        "two choices, one of names and one of parts",
        {f"{a}.qk": (4, 2) for a in "xy"},
        ["{x|y}.qk [(q|k) m] -> {u|w}.{q|k} [_ m]"],
        lambda t: {
            f"{u}.{p}": t[f"{x}.qk"][2 * n : 2 * n + 2]
            for x, u in zip("xy", "uw", strict=True)
            for n, p in enumerate("qk")
        },
    ),
    Case(
        "a split along two axes",
        {"w": (4, 2)},
        ["w [(a (x|y)) (u|v)] -> {x|y}.{u|v} [a]"],
        lambda t: {
            f"{x}.{u}": t["w"].reshape(2, 2, 2)[:, i, j] for i, x in enumerate("xy") for j, u in enumerate("uv")
        },
    ),
    Case(
        "a join with unit axes and the rest",
        {"q": (2, 2, 2), "k": (3, 2, 2)},
        ["{q|k} [_ ...] -> w [1 ... (q|k)]"],
        lambda t: {"w": np.concatenate([t["q"], t["k"]]).transpose(1, 2, 0)[None]},
    ),
    Case(
        "one part is empty",
        {"c": (4, 2)},
        ["c [(a|b) m] -> {a|b} [_ m]"],
        lambda t: {"a": t["c"], "b": t["c"][4:]},
    ),
    Case(
        "parts of names within segments and lists",
        {f"l{n}_{p}": (2, 2) for n in range(2) for p in "io"},
        ["l{n}_{i|o} [_ m] -> cells.{n}.w [m (o|i)]"],
        lambda t: {f"cells.{n}.w": np.concatenate([t[f"l{n}_o"], t[f"l{n}_i"]]).T for n in range(2)},
    ),
    Case(
        "flip with a split",
        {"c": (2, 6)},
        ['c [k (q|v)] -> {q|v} [_ k] ; flip="k"'],
        lambda t: {"q": t["c"][::-1, :3].T, "v": t["c"][::-1, 3:].T},
    ),
    Case(
        "a wildcard beside a split",
        {f"m.{l}.{n}.qkv": (6, 2) for l in range(2) for n in ("self", "cross")},
        ["m.**.qkv [(q|k|v) m] -> **.{q|k|v} [_ m]"],
        lambda t: {
            f"{n}.{p}": np.stack([t[f"m.{l}.{n}.qkv"][2 * i : 2 * i + 2] for l in range(2)])
            for n in ("self", "cross")
            for i, p in enumerate("qkv")
        },
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_choices(case: Case):
    judge(case)
