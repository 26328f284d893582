"""Names as patterns: what matches, what the variables take, and that no pattern makes matching slow."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.mapping.pattern import NamePattern, NamePatterns, decoded, encoded
from bridge.rules.parse import parse_pattern
from bridge.rules.syntax import Hole


@pytest.mark.parametrize(
    ("pattern", "name", "texts"),
    [
        ("a.b", "a.b", ()),
        ("a.b", "a.bc", None),
        ("a.b", "xa.b", None),
        ("h.{l}.w", "h.12.w", ("12",)),
        ("h.{l}.w", "h.0.w", ("0",)),
        ("h.{l}.w", "h.01.w", None),
        ("h.{l}.w", "h.-1.w", None),
        ("h.{l}.w", "h.x.w", None),
        ("h.{l}.w", "h.\u0663.w", None),
        ("h.{l}.w", f"h.{'9' * 19}.w", None),
        ("w_{l}", "w_3", ("3",)),
        ("{l}x{m}", "1x2", ("1", "2")),
        ("*", "a", ("a",)),
        ("*", "", ("",)),
        ("*", "a.b", None),
        ("*_proj", "q_proj", ("q",)),
        ("*_*", "a_b_c", ("a", "b_c")),
        ("*a*b*", "xaybbz", ("x", "y", "bz")),
        ("*{l}", "x12", ("x", "12")),
        ("**", "", (".",)),
        ("**", "a.b", ("a.b.",)),
        ("a.**", "a", ("",)),
        ("a.**", "a.b.c", ("b.c.",)),
        ("a.**", "ab", None),
        ("**.w", "w", ("",)),
        ("**.w", "a.w.w", ("a.w.",)),
        ("**.x.**", "a.x.b.x.c", ("a.", "b.x.c.")),
        ("**.**", "a.b", ("", "a.b.")),
        ("**.x.**.y.**", "x.y.x.y.y", ("", "", "x.y.y.")),
        ("{q|k}.w", "k.w", ("k",)),
        ("{q|qk}.w", "qk.w", ("qk",)),
        ("{a.b|c}.w", "a.b.w", ("a.b",)),
        (".c", ".c", ()),
        ("a..b", "a..b", ()),
        ("''", "", ()),
        ("a\\*", "a*", ()),
        ("a\\*", "ab", None),
        ("a.*", "a.\n", ("\n",)),
    ],
)
def test_match(pattern: str, name: str, texts: tuple[str, ...] | None):
    assert NamePattern(parse_pattern(pattern)).match(name) == texts


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("**.a.**.a.**.c", "a." * 200 + "b"),
        ("**.a.**.a.**.a.**.a.**.a.**.c", "a." * 5000 + "b"),
        ("**.**.**.**.**.c", "a." * 5000 + "b"),
        ("*a*a*a*a*a*b", "a" * 10_000),
        ("**.*a*a*.**.*a*a*.c", ("a" * 100 + ".") * 200),
        ("*{l}*{m}*{n}*x", "1a" * 5000),
        ("**.{l}.**.{m}.**.c", "1." * 5000),
        ("**.{a|aa}*{a|aa}*{a|aa}*.b", "a" * 5000),
    ],
)
def test_no_pattern_takes_long(pattern: str, name: str):
    start = time.process_time()
    assert name not in NamePatterns.of(pattern)
    assert time.process_time() - start < 5


TEXTS = st.lists(st.sampled_from(["a", "b", "ab", ""]), max_size=6).map(".".join)


@given(st.lists(st.sampled_from(["a", "b", "*", "**", "a*", "*b"]), min_size=1, max_size=5).map(".".join), TEXTS)
def test_wildcards_match_what_a_search_of_all_splits_finds(pattern: str, name: str):
    assert (name in NamePatterns.of(pattern)) == _search(pattern.split("."), name.split("."))


def _search(pattern: list[str], name: list[str]) -> bool:
    if not pattern:
        return not name
    first, *rest = pattern
    if first == "**":
        # The empty name is one empty segment; `**` alone stands for it too.
        return any(_search(rest, name[n:]) for n in range(len(name) + 1)) or (name == [""] and _search(rest, []))
    if not name:
        return False
    return _segment(first, name[0]) and _search(rest, name[1:])


def _segment(pattern: str, text: str) -> bool:
    if "*" not in pattern:
        return pattern == text
    before, after = pattern.split("*")
    return len(text) >= len(before) + len(after) and text.startswith(before) and text.endswith(after)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_a_codec_is_one_to_one(sizes: list[int], data: st.DataObject):
    names = "abc"[: len(sizes)]
    shown = [f"{n}[{data.draw(st.sampled_from(['', ':2', '1:', '::2', '0', '1,0']))}]".replace("[]", "") for n in names]
    pattern = parse_pattern("{" + (shown[0] if len(shown) == 1 else f"({' '.join(shown)})") + "}")
    (hole,) = pattern.pieces()
    assert isinstance(hole, Hole)
    counts = dict(zip(names, sizes, strict=True))
    numbers = np.arange(np.prod(sizes))
    inside, positions = decoded(hole, counts, numbers)
    kept = np.ones(len(numbers), bool) if inside is None else inside
    columns = {index.name: column[kept] for index, column in zip(hole.indices, positions, strict=True)}
    assert (encoded(hole, counts, columns, int(kept.sum())) == numbers[kept]).all()
    seen = set(zip(*(column.tolist() for column in columns.values()), strict=True))
    assert len(seen) == kept.sum()
    picks = [
        len([n for n in index.selection.positions(size) if n < size]) if index.selection else size
        for index, size in zip(hole.indices, sizes, strict=True)
    ]
    expected = 1
    for pick in picks:
        expected *= pick
    assert len(seen) == expected
