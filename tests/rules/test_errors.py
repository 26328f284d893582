"""The text of every `RuleError`, verbatim: what is wrong, the rule, and an arrow to the place."""

from __future__ import annotations

import pytest

from bridge._errors import BridgeError, RuleError
from bridge.mapping.pattern import NamePatterns
from bridge.rules.rule import Rule

# The rule with ‸ before the place that the arrow points at.
CASES = {
    # The form of a rule
    "‸": "expected a key",
    "‸-> b": "expected a key",
    "a‸": "a rule is 'key -> leaf': expected '->' here",
    "a ‸b": "a rule is 'key -> leaf': expected '->' here",
    "a ->‸": "expected a leaf after '->' ('_' drops the key)",
    "a -> ‸; tie=true": "expected a leaf after '->' ('_' drops the key)",
    "a + ‸-> b": "expected a key after '+'",
    "a -> b ‸+ c": "a sum stands on the key side only: keys are added, leaves are not",
    "a -> b ‸c": "expected ';' and options, or the end of the rule",
    "a -> b‸]": "expected ';' and options, or the end of the rule",
    # NamePatterns
    "a‸\\": "'\\' takes the next character as it is, but the text ends here",
    "a.‸***.b -> c": "'**' stands for whole segments: write 'a.**.b'; within a segment use one '*'",
    "a.x‸** -> c.*": "'**' stands for whole segments: write 'a.**.b'; within a segment use one '*'",
    "a.‸**x -> c": "'**' stands for whole segments: write 'a.**.b'; within a segment use one '*'",
    "a.‸{l -> b": "this brace is never closed",
    "a.‸{q|k -> b": "this brace is never closed",
    "a.{‸} -> b": "expected an index, as in '{l}', or a choice, as in '{q|k|v}'",
    "a.{‸3} -> b": "expected an index, as in '{l}', or a choice, as in '{q|k|v}'",
    "a.{‸_} -> b": "expected an index, as in '{l}', or a choice, as in '{q|k|v}'",
    "a.{l ‸m} -> b": "expected '}'",
    "a.‸{(g)} -> b": "'{(…)}' composes two or more indices: write '{g}' for one",
    "a.{(g ‸3)} -> b": "expected an index, as in '{(g i)}'",
    "a.‸{q|q} -> b.{q|k}": "a choice is between different texts: this one names a text twice",
    "a.{q|‸*} -> b.{q|k}": "a choice is between plain texts: '*' is none",
    "a.{l}‸{m} -> b": "two indices side by side: nothing says where one number ends and the next begins",
    # Selections
    "a.{l[3‸} -> b": "expected ']': a selection is written '[3:]', '[1::2]', '[0,3,7]' or '[-1]'",
    "a.{l[‸]} -> b": "expected an index here, as in '[0,3,7]'",
    "a.{l[‸0,,3]} -> b": "expected an index here, as in '[0,3,7]'",
    "a.{l[‸0,3,0]} -> b": "this selection names an index twice",
    "a.{l[‸::0]} -> b": "a selection is 'start:stop:step' with a step that is not 0",
    "a.{l[‸1:2:3:4]} -> b": "a selection is 'start:stop:step' with a step that is not 0",
    "a.{l} -> b.{‸l[-2:]}": "'l[-2:]' counts from the end, but on the leaf side nothing is there to be counted",
    "a.{l} -> b.{‸l[::-1]}": "'l[::-1]' counts from the end, but on the leaf side nothing is there to be counted",
    # Axes
    "a [x‸": "expected an axis: a name, '(a b)', '(q|k|v)', '1', '_' or '...'",
    "a [‸2] -> b": "expected an axis: a name, '(a b)', '(q|k|v)', '1', '_' or '...'",
    "a [‸()] -> b []": "'()' is empty: an axis of one is written '1'",
    "a [‸(q|q)] -> b": "parts are two or more different names: '(q|k|v)'",
    "a [(q|‸)] -> b": "expected the name of a part, as in '(q|k|v)'",
    "a [(q|k ‸m)] -> b": "expected '|' or ')': parts are written '(q|k|v)'",
    "a [(‸q[1:]|k)] -> {q|k} [_]": "a part is taken whole: it has no selection",
    "‸a -> b [x]": "axes stand on every side of a rule or on none: this side has none",
    "a [x] -> ‸b": "axes stand on every side of a rule or on none: this side has none",
    "a [x ... y ‸...] -> b [x ... y]": "'...' stands at most once in the axes of one side",
    "a [x ‸...] -> b [x]": "'...' stands on every side or on none",
    # Both sides together
    "a.‸* -> b": "'*' carries over from key to leaf: both sides need equally many of them",
    "a -> b.‸**": "'**' carries over from key to leaf: both sides need equally many of them",
    "a.* + ‸b -> c.*": "the terms of a sum need equally many '*'",
    "a.{l}.{‸l} -> b": "'l' stands twice on this side",
    "a.{l} [‸l x] -> b [l x]": "'l' stands twice on this side",
    "a [x ‸x] -> b [x]": "'x' stands twice on this side",
    "a [‸add] -> b [add]": "'add' is an option's name: call this one otherwise",
    "a [‸q (q|k)] -> {q|k} [q]": "'q' is the name of a part as well: call this one otherwise",
    "a.{(g ‸i)} -> b.{g}.{i}": "how many 'i' there are must be an option: '; i=6'",
    "a -> b.{‸l}": "'l' stands only on the leaf side: the key side must say what it is",
    "a [x] -> b [x ‸y]": "'y' stands only on the leaf side: the key side must say what it is",
    "a [x ‸y] -> b [x]": "axis 'y' stands only on the key side: the leaf side must say where it goes",
    "a.{q|k} -> b.‸{x|y|z}": "this choice has no counterpart of as many parts on the key side",
    "a.‸{q|k} -> b": "this choice has no counterpart of as many parts on the leaf side",
    "a [‸(q|k)] -> b []": "this choice has no counterpart of as many parts on the leaf side",
    "a [x] -> b [x ‸_]": "'_' is the extent of a part, but the other side has no axis of parts such as '(q|k|v)'",
    "{q|k} [x ‸_] -> {q|k} [x]": "'_' is the extent of a part, but the other side has no axis of parts such as '(q|k|v)'",
    "a [(q|k) (u|v)] -> {q|k}.{u|v} [‸_]": "'_' is the extent of a part, but the other side has more than one axis of parts",
    "a [(q|k)] -> {q|k} [_ ‸_]": "'_' stands at most once on a side",
    # Options
    "a -> b ; ‸x": "expected an option: 'h=12', 'add=1.0', 'flip=\"h w\"', 'tie=true'",
    "a -> b ; add=‸one": "expected a number, true, false or a text in quotes",
    "a -> b ; add=1 ‸add=2": "option 'add' stands twice",
    "a -> b ‸; h=2": "option 'h' is no axis, index or part of this rule",
    "a [h] -> b [h] ‸; h=0": "option 'h' is the extent of an axis, a whole number from 1 up, not 0",
    "a [h] -> b [h] ‸; h=1.5": "option 'h' is the extent of an axis, a whole number from 1 up, not 1.5",
    "a [h] -> b [h] ‸; h=true": "option 'h' is the extent of an axis, a whole number from 1 up, not True",
    "a -> b ‸; tie=1": "option 'tie' is true or false, not 1",
    "a -> b ‸; add=true": "option 'add' is a finite number, not True",
    "a -> b ‸; add=1e999": "option 'add' is a finite number, not inf",
    "a -> b ‸; scale='x'": "option 'scale' is a finite number, not 'x'",
    "a -> b ‸; scale=0": "option 'scale' is 0: nothing would be left of the tensor",
    "a [h] -> b [h] ‸; flip=1": "option 'flip' is the names of axes, as in flip=\"h w\", not 1",
    'a [h] -> b [h] ‸; flip=""': "option 'flip' is the names of axes, as in flip=\"h w\", not ''",
    'a [h] -> b [h] ‸; flip="w"': "flip: 'w' is no axis of this rule",
    'a.{l} -> b ‸; flip="l"': "flip: 'l' is no axis of this rule",
    "a + b -> c ‸; tie=true": "a sum can be neither 'tie' nor 'copy'",
    "a + b -> c ‸; copy=true": "a sum can be neither 'tie' nor 'copy'",
    "a -> b ‸; tie=true copy=true": "'tie' is a second key for one leaf, 'copy' a second leaf for one key: a rule is one of them",
    "a -> b ‸; zeros=true": "'zeros' is for a rule that drops its key: 'x -> _ ; zeros=true'",
    "a -> b ‸; alt=true tie=true": "'alt' is another spelling of a key: it is neither 'tie' nor 'copy'",
    "a -> b ‸; alt=true copy=true": "'alt' is another spelling of a key: it is neither 'tie' nor 'copy'",
    "a -> b ‸; tie=true add=1": "a tie compares stored values: it takes neither 'add' nor 'scale'",
    # Drops
    "a + ‸b -> _": "a sum has a leaf to go to: drop keys one by one",
    "a -> _ ‸; add=1": "a rule that drops its key has no use for options, but for 'zeros'",
    "a -> _ ‸; tie=true": "a rule that drops its key has no use for options, but for 'zeros'",
    "a [‸(q|k) x] -> _": "a rule that drops has no parts: select elements, as in 'w [m v[8:]] -> _'",
    "a [‸_ x] -> _": "a rule that drops has no parts: select elements, as in 'w [m v[8:]] -> _'",
}


@pytest.mark.parametrize("marked", CASES)
def test_text(marked: str):
    at, text = marked.index("‸"), marked.replace("‸", "")
    with pytest.raises(RuleError) as caught:
        Rule(text)
    assert str(caught.value) == f"{CASES[marked]}\n  {text}\n  {' ' * at}^"
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, BridgeError)


def test_the_arrow_points_where_the_text_is_seen():
    with pytest.raises(RuleError) as caught:
        Rule("a\x1b[1m -> b")
    assert str(caught.value) == (
        "expected an axis: a name, '(a b)', '(q|k|v)', '1', '_' or '...'\n  a\\x1b[1m -> b\n        ^"
    )


@pytest.mark.parametrize(
    ("given", "kind"), [(123, "int"), (None, "NoneType"), (b"a -> b", "bytes"), (["a -> b"], "list")]
)
def test_what_is_no_text(given: object, kind: str):
    with pytest.raises(RuleError) as caught:
        Rule(given)  # type: ignore[arg-type]
    assert str(caught.value) == f"a rule is a text 'key -> leaf', not {kind}: {given!r}"


def test_an_option_in_the_text_and_as_an_argument():
    with pytest.raises(RuleError) as caught:
        Rule("q [(h d)] -> q [h d] ; h=2", h=2)
    assert str(caught.value) == (
        "option 'h' stands both in the text and as an argument\n  q [(h d)] -> q [h d] ; h=2\n" + " " * 23 + "^"
    )


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("", "expected a name, such as 'head.**'\n  \n  ^"),
        ("a b", "a name pattern is a name and no more\n  a b\n    ^"),
        ("a [x]", "a name pattern is a name and no more\n  a [x]\n   ^"),
        ("a -> b", "a name pattern is a name and no more\n  a -> b\n    ^"),
        (3, "a name pattern is a text such as 'head.**', not int: 3"),
    ],
)
def test_patterns(pattern: str, text: str):
    with pytest.raises(RuleError) as caught:
        NamePatterns.of([pattern])
    assert str(caught.value) == text
