"""Every `RuleError` says what it is promised to say, and has an arrow to the place."""

from __future__ import annotations

import pytest

from bridge._errors import BridgeError, RuleError
from bridge.mapping.pattern import NamePatterns
from bridge.rules.rule import Rule
from tests.errors.promised import text_of

# The rule with ‸ before the place that the arrow points at.
CASES = (
    # The form of a rule
    "‸",
    "‸-> b",
    "a‸",
    "a ‸b",
    "a ->‸",
    "a -> ‸; tie=true",
    "a + ‸-> b",
    "a -> b ‸+ c",
    "a -> b ‸c",
    "a -> b‸]",
    # NamePatterns
    "a‸\\",
    "a.‸***.b -> c",
    "a.x‸** -> c.*",
    "a.‸**x -> c",
    "a.‸{l -> b",
    "a.‸{q|k -> b",
    "a.{‸} -> b",
    "a.{‸3} -> b",
    "a.{‸_} -> b",
    "a.{l ‸m} -> b",
    "a.‸{(g)} -> b",
    "a.{(g ‸3)} -> b",
    "a.‸{q|q} -> b.{q|k}",
    "a.{q|‸*} -> b.{q|k}",
    "a.{l}‸{m} -> b",
    # Selections
    "a.{l[3‸} -> b",
    "a.{l[‸]} -> b",
    "a.{l[‸0,,3]} -> b",
    "a.{l[‸0,3,0]} -> b",
    "a.{l[‸::0]} -> b",
    "a.{l[‸1:2:3:4]} -> b",
    "a.{l} -> b.{‸l[-2:]}",
    "a.{l} -> b.{‸l[::-1]}",
    # Axes
    "a [x‸",
    "a [‸2] -> b",
    "a [‸()] -> b []",
    "a [‸(q|q)] -> b",
    "a [(q|‸)] -> b",
    "a [(q|k ‸m)] -> b",
    "a [(‸q[1:]|k)] -> {q|k} [_]",
    "‸a -> b [x]",
    "a [x] -> ‸b",
    "a [x ... y ‸...] -> b [x ... y]",
    "a [x ‸...] -> b [x]",
    # Both sides together
    "a.‸* -> b",
    "a -> b.‸**",
    "a.* + ‸b -> c.*",
    "a.{l}.{‸l} -> b",
    "a.{l} [‸l x] -> b [l x]",
    "a [x ‸x] -> b [x]",
    "a [‸add] -> b [add]",
    "a [‸q (q|k)] -> {q|k} [q]",
    "a.{(g ‸i)} -> b.{g}.{i}",
    "a -> b.{‸l}",
    "a [x] -> b [x ‸y]",
    "a [x ‸y] -> b [x]",
    "a.{q|k} -> b.‸{x|y|z}",
    "{down|up}s.{q|k} -> ‸{query|key}",
    "{q|k}.{q|k} -> ‸{q|k}",
    "{x|y} [(q|k) m] -> ‸{u|v} [_ m]",
    "{q|k|v} [_ m] -> c [‸(k|q|w) m]",
    "{q|k|v} [_ m] -> c [‸(k|q) m]",
    "a [(q|k) m] -> ‸{q|k|v|w} [_ m]",
    "{a|b}.x + ‸{a|b|c}.y -> z",
    "‸{a|b}.x + y -> z",
    "a [‸(q|k)] -> b []",
    "a [x] -> b [x ‸_]",
    "{q|k} [x ‸_] -> {q|k} [x]",
    "a [(q|k) (u|v)] -> {q|k}.{u|v} [‸_]",
    "a [(q|k)] -> {q|k} [_ ‸_]",
    # Options
    "a -> b ; ‸x",
    "a -> b ; add=‸one",
    "a -> b ; add=1 ‸add=2",
    "a -> b ‸; h=2",
    "a [h] -> b [h] ‸; h=0",
    "a [h] -> b [h] ‸; h=1.5",
    "a [h] -> b [h] ‸; h=true",
    "a -> b ‸; tie=1",
    "a -> b ‸; add=true",
    "a -> b ‸; add=1e999",
    "a -> b ‸; scale='x'",
    "a -> b ‸; scale=0",
    "a [h] -> b [h] ‸; flip=1",
    'a [h] -> b [h] ‸; flip=""',
    'a [h] -> b [h] ‸; flip="w"',
    'a.{l} -> b ‸; flip="l"',
    "a + b -> c ‸; tie=true",
    "a + b -> c ‸; copy=true",
    "a -> b ‸; tie=true copy=true",
    "a -> b ‸; zeros=true",
    "a -> b ‸; alt=true tie=true",
    "a -> b ‸; alt=true copy=true",
    "a -> b ‸; tie=true add=1",
    # Drops
    "a + ‸b -> _",
    "a -> _ ‸; add=1",
    "a -> _ ‸; tie=true",
    "a [‸(q|k) x] -> _",
    "a [‸_ x] -> _",
)


@pytest.mark.parametrize("marked", CASES)
def test_text(marked: str):
    at, text = marked.index("‸"), marked.replace("‸", "")
    with pytest.raises(RuleError) as caught:
        Rule(text)
    assert str(caught.value) == text_of(f"rule: {marked}")
    assert caught.value.excerpt == f"\n  {text}\n  {' ' * at}^"
    assert caught.value.subject == f"rule '{text}'"
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, BridgeError)


def test_the_arrow_points_where_the_text_is_seen():
    with pytest.raises(RuleError) as caught:
        Rule("a\x1b[1m -> b")
    assert caught.value.excerpt == "\n  a\\x1b[1m -> b\n        ^"


@pytest.mark.parametrize(
    ("given", "kind"), [(123, "int"), (None, "NoneType"), (b"a -> b", "bytes"), (["a -> b"], "list")]
)
def test_what_is_no_text(given: object, kind: str):
    with pytest.raises(RuleError) as caught:
        Rule(given)  # type: ignore[arg-type]
    assert str(caught.value) == text_of("rule: no text").replace("int: 3", f"{kind}: {given!r}")


def test_an_option_in_the_text_and_as_an_argument():
    with pytest.raises(RuleError) as caught:
        Rule("q [(h d)] -> q [h d] ; h=2", h=2)
    assert str(caught.value) == text_of("rule: an option in the text and as an argument")


@pytest.mark.parametrize(
    ("pattern", "situation", "at"),
    [
        ("", "empty", 0),
        ("a b", "more than a name", 2),
        ("a [x]", "more than a name", 1),
        ("a -> b", "more than a name", 2),
    ],
)
def test_patterns(pattern: str, situation: str, at: int):
    with pytest.raises(RuleError) as caught:
        NamePatterns.of([pattern])
    assert str(caught.value).startswith(text_of(f"pattern: {situation}").partition("\n")[0])
    assert caught.value.excerpt == f"\n  {pattern}\n  {' ' * at}^"


def test_a_pattern_that_is_no_text():
    with pytest.raises(RuleError) as caught:
        NamePatterns.of([3])  # type: ignore[list-item]
    assert str(caught.value) == text_of("pattern: no text")
