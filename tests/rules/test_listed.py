"""What is a list of rules: texts, dicts, texts of several lines, rules, and these together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge._errors import RuleError
from bridge.rules.rule import Rule, rules_of
from bridge.rules.syntax import literal
from tests.errors.promised import text_of

A, B = Rule("a -> b"), Rule("c [x] -> d [x] ; x=3")

SAME: dict[str, tuple[Any, tuple[Rule, ...]]] = {
    "nothing": (None, ()),
    "no rules": ([], ()),
    "a rule": (A, (A,)),
    "a text": ("a -> b", (A,)),
    "a list": (["a -> b", B], (A, B)),
    "a tuple of two texts": (("a -> b", str(B)), (A, B)),
    "a generator": ((rule for rule in (A, B)), (A, B)),
    "a dict": ({"a": "b", "c [x]": "d [x] ; x=3"}, (A, B)),
    "an empty dict": ({}, ()),
    "lines": ("a -> b\nc [x] -> d [x] ; x=3", (A, B)),
    "lines with comments": (
        "\n  # names\n  a -> b   # this one\n\n\t\n  c [x] -> d [x] ; x=3\n#e -> f\n",
        (A, B),
    ),
    "lines as Windows ends them": ("a -> b\r\n# no\r\nc [x] -> d [x] ; x=3\r\n", (A, B)),
    "only comments": ("# a -> b\n# c -> d", ()),
    "lines in a list": (["a -> b\n\nc [x] -> d [x] ; x=3", "e -> _"], (A, B, Rule("e -> _"))),
    "a dict in a list": ([{"a": "b"}, B], (A, B)),
    "no comment: a name with the sign": ("a#b -> c\nd -> e#f", (Rule("a#b -> c"), Rule("d -> e#f"))),
    "no comment: a backslash before the sign": ("\\#a -> b\nc -> \\#d", (Rule("#a -> b"), Rule("c -> #d"))),
    "no comment: one rule": ("#a -> b", (Rule("#a -> b"),)),
    "no comment: a rule of a list": (["#a -> b"], (Rule("#a -> b"),)),
    "a line's end in a name": (["a\\\nb -> c"], (Rule("a\\\nb -> c"),)),
    "lines with one": ("a\\\nb -> c\nd -> e", (Rule("a\\\nb -> c"), Rule("d -> e"))),
}


@pytest.mark.parametrize("case", SAME)
def test_all_of_these_are_lists_of_rules(case: str):
    given, rules = SAME[case]
    assert rules_of(given) == rules


WRONG: dict[str, Any] = {
    "one text": "a",
    "an empty text": "",
    "one of a list": ["a -> b", "a"],
    "a line": "# one\na -> b\n\n  a # here\n",
    "a line of a list": ["a -> b", "\na"],
    "an entry": {"a": "b", "c": "{d"},
    "an entry of a list": ["a -> b", {"c": "{d"}],
    "a dict of lists": {"a.** -> b.**": ["x -> y"]},
    "a dict with another key": {1: "b"},
    "a number": 3,
    "numbers": [1],
    "bytes": b"a",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_has_its_place(case: str):
    with pytest.raises(RuleError) as caught:
        rules_of(WRONG[case])
    assert str(caught.value) == text_of(f"list of rules: {case}")


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=6), min_size=1, max_size=4))
def test_the_texts_of_rules_read_back_as_a_list(names: list[str]):
    """Whatever stands in a name, a line's end and a `#` too."""
    rules = tuple(Rule(f"{literal(name)} -> x{n}") for n, name in enumerate(names))
    assert rules_of([str(rule) for rule in rules]) == rules
    assert rules_of(rules) == rules
