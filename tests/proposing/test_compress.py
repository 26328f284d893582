"""Few rules that say what many do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bridge.proposing.compress import Flat, compressed


def compress(*texts: str, others: Sequence[str] = ()) -> list[str]:
    return compressed(texts, lambda rules: True, others)


def test_what_goes_along_below_a_name() -> None:
    assert compress("a.x.weight -> b.y.weight", "a.x.bias -> b.y.bias") == ["a.x.** -> b.y.**"]
    assert compress("m.a.w -> a.w", "m.b.c.w -> b.c.w") == ["m.** -> **"]
    assert compress("h.{l}.a.w -> l.a.w", "h.{l}.b.w -> l.b.w") == ["h.{l}.** -> l.**"]


def test_keys_that_stay_behind_are_not_swept_along() -> None:
    rules = ["a.x.weight -> b.y.weight", "a.x.bias -> b.y.bias"]
    assert compress(*rules, others=["a.x.mask"]) == ["a.x.{weight|bias} -> b.y.{weight|bias}"]
    assert compress("h.{l}.a.w -> l.a.w", "h.{l}.b.w -> l.b.w", others=["h.{}.c"]) == ["h.{l}.{a|b}.** -> l.{a|b}.**"]


def test_modules_beside_each_other_are_a_choice() -> None:
    rules = [f"h.{{l}}.{name}_proj.weight -> l.{leaf}.weight" for name, leaf in (("q", "query"), ("k", "key"))]
    assert compress(*rules) == ["h.{l}.{q|k}_proj.** -> l.{query|key}.**"]


def test_axes_stay_on_the_rules_that_have_them() -> None:
    rules = [f"h.{{l}}.{name}.weight [o i] -> l.{name} [l i o]" for name in ("up", "down")]
    rules += ["h.{l}.up.bias -> l.up_b", "e.w -> f.w"]
    assert compress(*rules) == [
        "h.{l}.{up|down}.weight [o i] -> l.{up|down} [l i o]",
        "h.{l}.up.bias -> l.up_b",
        "e.** -> f.**",
    ]


def test_a_choice_is_not_put_into_a_choice() -> None:
    rules = ["a.{q|k} [_ m] -> b.x [(q|k) m]", "c.{q|k} [_ m] -> b.y [(q|k) m]"]
    assert compress(*rules) == rules


def test_own_names_need_no_rule() -> None:
    assert compress("a.w -> a.w", "b.w -> c.w") == ["b.** -> c.**"]


def test_selections_are_apart_from_each_other() -> None:
    rules = [
        f"h.{{l{part}}}.{name}.w -> {home}.{name}.w" for part, home in (("[:3]", "a"), ("[3:]", "b")) for name in "xy"
    ]
    assert compress(*rules) == ["h.{l[:3]}.** -> a.**", "h.{l[3:]}.** -> b.**"]


def test_nothing_is_shortened_that_says_something_else() -> None:
    rules = ["a.x.weight -> b.y.weight", "a.x.bias -> b.y.bias"]
    assert compressed(rules, lambda rules: False) == rules


@pytest.mark.parametrize(
    "text",
    [
        "a.b -> c.d",
        "a.{l[3:]}.b [(h d) m] -> c [l h d m] ; h=2",
        "a [m[:3] n] -> _ ; zeros=true",
        "'' -> a",
        "c [m (q|k|v)] -> {q|k|v} [_ m]",
    ],
)
def test_texts_stay_as_they_are(text: str) -> None:
    assert str(Flat.of(text)) == text
