"""Names folded into families: what a family says of its names, and that names are found and written back as columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge._text import template
from bridge.mapping.arrays import repeats
from bridge.mapping.names import NameIndex, family_text
from bridge.mapping.pattern import MARK, NamePattern, formatted, located
from bridge.rules.parse import parse_pattern
from bridge.rules.syntax import Hole

WORDS = ["a", "b_c", "w1", "0", "1", "7", "10", "007", "-1", "1e3", "", "{}", "{l}", "ß", "\0", "٣", "a\nb", "\ud800"]
SEGMENTS = st.sampled_from([*WORDS, "9" * 18, "9" * 19])
NAMES = st.lists(st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join), unique=True, max_size=60)


@given(NAMES)
def test_families_are_what_templates_say(names: list[str]):
    index = NameIndex(names)
    seen: list[int] = []
    for text, family in index.families.items():
        assert text == family.text
        assert len(family.ids)
        for number, numbers in zip(family.ids.tolist(), family.numbers.tolist(), strict=True):
            parts = family.text.split(MARK)
            assert "".join(a + b for a, b in zip(parts, [*map(str, numbers), ""], strict=True)) == names[number]
            assert tuple(numbers) == template(names[number])[1]
        seen += family.ids.tolist()
    assert sorted(seen) == list(range(len(names)))
    assert len(index.families) == len({template(name)[0] for name in names})


@given(NAMES)
def test_a_single_name_is_its_text(names: list[str]):
    for family in NameIndex(names).families.values():
        shown = [single.text for single in family.singles()]
        assert shown == [names[number] for number in family.ids.tolist()]


PATTERNS = [
    "h.{l}.w",
    "h.{l[1:]}.w",
    "h.{l[::2]}.w",
    "h.3.w",
    "{l}.{m}",
    "h.{(g i)}.w",
    "h.{(g i[:2])}.w",
    "w_l{l}",
    "h.w",
]
KEYS = (
    [f"h.{n}.w" for n in range(7)] + [f"{n}.{m}" for n in range(3) for m in range(2)] + ["w_l0", "w_l12", "h.w", "h.x"]
)


@pytest.mark.parametrize("text", PATTERNS)
def test_names_are_found_and_written_back(text: str):
    name, index, sizes = parse_pattern(text), NameIndex(KEYS), {"i": 3}
    ids, columns = index.match(name, sizes)
    found = [KEYS[number] for number in ids.tolist()]
    assert formatted(name, sizes, columns, len(ids)) == found
    assert len(set(found)) == len(found)
    assert all(NamePattern(name).match(key) is not None for key in found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h.{l}.w", 7),
        ("h.{l[1:]}.w", 6),
        ("h.{l[::2]}.w", 4),
        ("h.3.w", 1),
        ("{l}.{m}", 6),
        ("h.{(g i[:2])}.w", 5),
        ("w_l{l}", 2),
        ("h.w", 1),
        ("h.{l}", 0),
    ],
)
def test_only_what_a_name_spells_is_found(text: str, found: int):
    ids, columns = NameIndex(KEYS).match(parse_pattern(text), {"i": 3})
    assert len(ids) == found
    assert {len(column) for column in columns.values()} <= {found}


def test_a_name_with_an_index_within_a_segment_lies_in_no_one_family():
    assert family_text(parse_pattern("w_l{l}.x")) is None
    assert family_text(parse_pattern("h.{l}.3.x")) == f"h.{MARK}.{MARK}.x"


def test_positions_outside_of_a_selection_have_no_number():
    (hole,) = [piece for piece in parse_pattern("h.{l[2:4]}").pieces() if isinstance(piece, Hole)]
    names = formatted(parse_pattern("h.{l[2:4]}"), {}, {"l": np.array([0, 1, 2])}, 3)
    assert names == ["h.2", "h.3", "h.-1"]
    assert hole.indices[0].name == "l"


ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 10**18 - 1)), unique=True, max_size=20)


@given(ROWS, ROWS)
def test_rows_are_located(rows: list[tuple[int, int]], among: list[tuple[int, int]]):
    columns = [np.array([row[n] for row in rows], np.int64) for n in range(2)]
    table = np.array(among, np.int64).reshape(len(among), 2)
    places = located(columns, table, len(rows)).tolist()
    assert places == [among.index(row) if row in among else -1 for row in rows]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**18 - 1)), max_size=12))
def test_rows_that_stand_twice(rows: list[tuple[int, int]]):
    columns = [np.array([row[n] for row in rows], np.int64) for n in range(2)]
    assert repeats(columns) == (len(set(rows)) < len(rows))
