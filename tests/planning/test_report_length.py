"""Reports stay safe to print, short and quick, however much is wrong."""

from __future__ import annotations

import time

import pytest

from tests.planning.reports import plan, shows


def test_terminal_escapes_are_never_printed_raw():
    keys = {"\x1b[31mred": (3,), "a\nb": (3,)}
    text = str(plan(keys, {"\x1b]0;x\x07": (3,)}))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert 'allow_unexpected=["\\x1b\\\\[31mred"]' in text
    assert plan(keys, {}, allow=["\x1b\\[31mred", "a\\\nb"]).ok


def test_what_matched_nothing_is_listed():
    made = plan({"a": (3,), "b.inv_freq": (3,)}, {"a": (3,)}, ["x.** -> y.**", "**.inv_freq -> _"])
    assert made.ok
    assert made.idle == ("x.** -> y.**",)
    shows(
        str(made),
        """
        'my-model/' (2 keys) -> Llama (1 leaf), 12 B to read
          a float32[3] -> a float32[3]
          dropped: b.inv_freq
          matched nothing: 'x.** -> y.**'
        """,
    )


@pytest.mark.parametrize("kind", ["unexpected", "missing", "mismatched", "twice", "odd", "elements"])
def test_a_hundred_thousand_problems(kind: str):
    many = range(100_000)
    keys: dict[str, tuple[int, ...]] = {}
    leaves: dict[str, tuple[int, ...]] = {"x": (3,)}
    rules: list[str] = []
    if kind == "unexpected":
        keys = {f"h.{n % 317}.x{n // 317}.w": (3,) for n in many}
    elif kind == "missing":
        leaves = {f"h.{n}.w": (n % 7,) for n in many}
    elif kind == "mismatched":
        keys, leaves = {f"h.{n}.w": (n,) for n in many}, {"h.w": (100_000, 3)}
    elif kind == "twice":
        keys = {f"{part}.{n}.w": (3,) for n in many[:50_000] for part in "ab"}
        leaves, rules = {"w": (50_000, 3)}, ["a.{l}.w -> w", "b.{l}.w [x] -> w [l x]"]
    elif kind == "odd":
        keys = {f"h{n}z.w{n}q": (3,) for n in many}
    else:
        keys, leaves = {f"h.{n}.w": (3, 3) for n in many}, {"w": (100_000, 2, 3)}
        rules = ["h.{l}.w [v[:2] m] -> w [l v m]"]
    start = time.process_time()
    made = plan(keys, leaves, rules)
    text = str(made).partition("\n\n")[2]
    assert time.process_time() - start < 30  # a few seconds; what is quadratic takes minutes
    assert not made.ok
    assert len(text.splitlines()) < 170
    assert len(text) < 40_000
