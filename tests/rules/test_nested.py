"""Rules within a rule are the flat rules that the two come to together, and what is wrong with them has its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge._errors import RuleError
from bridge.mapping.pattern import NamePattern
from bridge.rules.rule import Rule, rules_of
from tests.errors.promised import text_of

FLAT: dict[str, tuple[Any, list[str]]] = {
    "names": (
        ("down_blocks.{b}.** -> down.{b}.**", ["resnets.{r}.** -> res.{r}.**", "conv.weight -> conv.weight"]),
        [
            "down_blocks.{b}.resnets.{r}.** -> down.{b}.res.{r}.**",
            "down_blocks.{b}.conv.weight -> down.{b}.conv.weight",
        ],
    ),
    "three deep": (
        ("a.{l}.** -> x.{l}.**", [("b.{m}.** -> y.{m}.**", [("c.** -> **", ["d -> w"])])]),
        ["a.{l}.b.{m}.c.d -> x.{l}.y.{m}.w"],
    ),
    "an outer rule that only strips": (("bert.** -> **", ["pooler.** -> pool.**"]), ["bert.pooler.** -> pool.**"]),
    "an outer rule that only adds": (("** -> encoder.**", ["h.{l}.w -> w"]), ["h.{l}.w -> encoder.w"]),
    "one that does neither": (("** -> **", ["a -> b"]), ["a -> b"]),
    "all that it took": (("h.{l}.** -> layers.**", ["** -> **"]), ["h.{l}.** -> layers.**"]),
    "where it took nothing": (
        ("h.{l}.** -> layers.**", ["'' -> w", "b -> ''"]),
        ["h.{l} -> layers.w", "h.{l}.b -> layers"],
    ),
    "nothing within nothing": (("** -> **", ["'' -> w", "w -> ''"]), ["'' -> w", "w -> ''"]),
    "axes of the outer's indices": (
        ("h.{l}.** -> layers.**", ["moe.{e}.w [f m] -> moe.w [e l m f]"]),
        ["h.{l}.moe.{e}.w [f m] -> layers.moe.w [e l m f]"],
    ),
    "an outer index in an inner leaf": (("h.{l}.** -> **", ["w -> w.{l}"]), ["h.{l}.w -> w.{l}"]),
    "sizes on the outer rule": (
        ("h.{(g i[:5])}.** -> local.{g}.{i}.** ; i=6", ["q [(h d) m] -> q [h d m] ; h=2", "b -> b"]),
        ["h.{(g i[:5])}.q [(h d) m] -> local.{g}.{i}.q [h d m] ; h=2 i=6", "h.{(g i[:5])}.b -> local.{g}.{i}.b ; i=6"],
    ),
    "the same size twice": (
        ("h.{(g i)}.** -> x.{g}.{i}.** ; i=6", ["b -> b ; i=6"]),
        ["h.{(g i)}.b -> x.{g}.{i}.b ; i=6"],
    ),
    "a size of an index further out": (
        ("h.{(g i)}.** -> x.{g}.{i}.**", [("a.** -> b.** ; i=6", ["w -> v"])]),
        ["h.{(g i)}.a.w -> x.{g}.{i}.b.v ; i=6"],
    ),
    "a drop": (("h.{l}.** -> layers.**", ["rope.inv_freq -> _"]), ["h.{l}.rope.inv_freq -> _"]),
    "a drop that is saved as zeros": (
        ("h.{(g i)}.** -> x.{g}.{i}.** ; i=2", ["n -> _ ; zeros=true"]),
        ["h.{(g i)}.n -> _ ; i=2 zeros=true"],
    ),
    "a sum": (
        ("rnn.{l}.** -> cells.{l}.**", ["bias_ih + bias_hh -> bias"]),
        ["rnn.{l}.bias_ih + rnn.{l}.bias_hh -> cells.{l}.bias"],
    ),
    "tie, copy, alt, values": (
        ("m.** -> **", ["h -> e ; tie=true", "e -> t ; copy=true", "o -> e ; alt=true", "n -> n ; scale=2.0 add=1.0"]),
        ["m.h -> e ; tie=true", "m.e -> t ; copy=true", "m.o -> e ; alt=true", "m.n -> n ; scale=2.0 add=1.0"],
    ),
    "choices of both": (
        ("{down|up}_blocks.{b}.** -> {down|up}.{b}.**", ["{q|k}_proj [x y] -> {q|k} [y x]"]),
        ["{down|up}_blocks.{b}.{q|k}_proj [x y] -> {down|up}.{b}.{q|k} [y x]"],
    ),
    "wildcards of both": (
        ("*_blocks.{b}.** -> *.{b}.**", ["*_proj.** -> **.*"]),
        ["*_blocks.{b}.*_proj.** -> *.{b}.**.*"],
    ),
    "a dict within": (("a.** -> b.**", {"x": "y", "z": "_"}), ["a.x -> b.y", "a.z -> _"]),
    "a text of several lines within": ([("a.** -> b.**", "x -> y\n# and\nz -> _")], ["a.x -> b.y", "a.z -> _"]),
    "rules made before": ((Rule("a.** -> b.**"), [Rule("x [h] -> y [h]", h=3)]), ["a.x [h] -> b.y [h] ; h=3"]),
    "among others": (
        ["u -> v", ("a.** -> b.**", ["x -> y"]), "w -> _"],
        ["u -> v", "a.x -> b.y", "w -> _"],
    ),
    "a backslash": (("a\\ b.** -> c.**", ["x\\+y -> \\_"]), ["a\\ b.x\\+y -> c._"]),
}


@pytest.mark.parametrize("case", FLAT)
def test_a_nested_rule_is_its_flat_rule(case: str):
    given, flat = FLAT[case]
    assert [str(rule) for rule in rules_of(given)] == flat
    assert rules_of(flat) == rules_of(given)


def _deep(depth: int) -> Any:
    rules: Any = ["x -> y"]
    for _ in range(depth):
        rules = [("a.** -> b.**", rules)]
    return rules


# What is given; the message has the place of the rule in front.
WRONG: dict[str, Any] = {
    "an index again": ["u -> v", ("down.{b}.** -> d.{b}.**", ["w -> w", "res.{b}.x -> y"])],
    "an index of an outer rule's again": ("down.{b}.** -> d.{b}.**", [("res.{b[1:]}.** -> r.**", ["x -> y"])]),
    "an axis of a key that is called like an outer index": [("h.{l}.** -> layers.**", ["w [l m] -> w [l m]"])],
    "no wildcard": [("down.{b} -> d.{b}.**", ["x -> y"])],
    "a wildcard that is not last": [("a.** -> **.b", ["x -> y"])],
    "two wildcards": [("**.a.** -> **.b.**", ["x -> y"])],
    "stars that do not meet": [("*.a.** -> b.**", ["x -> *"])],
    "axes on the outer rule": [("a.** [x] -> b.** [x]", ["x -> y"])],
    "an outer drop": [("a.** -> _", ["x -> y"])],
    "an outer sum": [("a.** + b.** -> c.**", ["x -> y"])],
    "an option of the outer rule": [("a.** -> b.** ; tie=true", ["x -> y"])],
    "a size of an axis on the outer rule": [("a.** -> b.** ; h=2", ["x [(h d)] -> y [h d]"])],
    "two sizes of one index": [("h.{(g i)}.** -> x.{g}.{i}.** ; i=6", ["w -> w ; i=5"])],
    "what only the two together show": [("a.{l}.** -> b.{l}.**", ["w -> v", "w [l2 m] -> v [m l2 k]"])],
    "an outer index whose number nobody says": [("h.{(g i)}.** -> x.{g}.{i}.**", ["w -> w"])],
    "choices of both that could meet in two ways": [("{down|up}s.** -> s.**", ["{q|k} -> {query|key}"])],
    "no inner rules": [("a.** -> b.**", [])],
    "comments for inner rules": ("a.** -> b.**", ["# none\n\n"]),
    "an inner rule that is none": [("a.** -> b.**", ["x -> y", ("b.** -> c.**", ["u -> v", "x"])])],
    "an inner rule that is no text": [("a.** -> b.**", [3])],
    "an outer rule that is no text": [(3, ["x -> y"])],
    "no list within": [("a.** -> b.**", 3)],
    "three in parentheses": [("a -> b", "c -> d", "e -> f")],
    "a list within a list": [["a -> b"]],
    "too deep": _deep(65),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_has_its_place(case: str):
    with pytest.raises(RuleError) as caught:
        rules_of(WRONG[case])
    assert str(caught.value) == text_of(f"rules within a rule: {case}")


def test_as_deep_as_may_be():
    assert rules_of(_deep(64)) == (Rule("a." * 64 + "x -> " + "b." * 64 + "y"),)


def test_a_list_that_holds_itself_is_an_error():
    rules: list[Any] = []
    rules.append(("a.** -> b.**", rules))
    with pytest.raises(RuleError, match="this rule is nested too deep"):
        rules_of(rules)


NAMES = st.lists(st.sampled_from(["a", "b", "w", "0", "7"]), max_size=3).map(tuple)


@given(outer=NAMES, inner=NAMES, rest=NAMES)
def test_a_key_matches_where_its_rest_matches_within(
    outer: tuple[str, ...], inner: tuple[str, ...], rest: tuple[str, ...]
):
    """What the outer `**` takes goes through the inner pattern: the flat pattern takes the same keys, and no others."""
    around, within = ".".join((*outer, "**")), ".".join(inner) or "''"
    (flat,) = rules_of((f"{around} -> **", [f"{within} -> x"]))
    key = ".".join((*outer, *rest))
    assert (NamePattern(flat.keys[0].name).match(key) is not None) == (rest == inner)
