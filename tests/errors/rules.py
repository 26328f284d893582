"""Rules and patterns whose texts are wrong, and TOML files of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.mapping.pattern import NamePatterns
from bridge.rules.rule import rules_of
from tests.errors.situations import situation
from tests.rules.test_errors import CASES
from tests.rules.test_listed import WRONG as NO_LISTS
from tests.rules.test_nested import WRONG as NOT_NESTED


def _rule(text: str) -> Callable[[pytest.MonkeyPatch], Any]:
    return lambda patch: bridge.Rule(text)


for marked in CASES:
    situation(f"rule: {marked}")(_rule(marked.replace("‸", "")))


def _rules(given: Any) -> Callable[[pytest.MonkeyPatch], Any]:
    return lambda patch: rules_of(given)


for case, given in NO_LISTS.items():
    situation(f"list of rules: {case}")(_rules(given))
for case, given in NOT_NESTED.items():
    situation(f"rules within a rule: {case}")(_rules(given))


@situation("rule: no text")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.Rule(3)  # pyright: ignore[reportArgumentType]


@situation("rule: an option in the text and as an argument")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.Rule("q [(h d)] -> q [h d] ; h=2", h=2)


@situation("pattern: more than a name")
def _(patch: pytest.MonkeyPatch) -> None:
    NamePatterns.of(["a -> b"])


@situation("pattern: empty")
def _(patch: pytest.MonkeyPatch) -> None:
    NamePatterns.of([""])


@situation("pattern: no text")
def _(patch: pytest.MonkeyPatch) -> None:
    NamePatterns.of([3])  # pyright: ignore[reportArgumentType]


def _toml(text: str) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        Path("rules.toml").write_text(text)
        bridge.load_rules("rules.toml")

    return provoke


situation("rules.toml: no TOML", until="not TOML:")(_toml("rules = ["))
for name, text in {
    "no list": "rules = 3",
    "more than rules": "rules = []\nother = 1",
    "a number for a rule": "rules = [1]",
    "a bad rule": 'rules = ["a -> b", "a"]',
    "a table without a rule": "rules = [{}]",
    "a bad rule within one": 'rules = [{ rule = "a.** -> b.**", rules = ["x -> y", "x"] }]',
    "a bad line": 'rules = """\na -> b\na\n"""',
    "an option of a wrong type": 'rules = [{ rule = "a -> b", tie = 1 }]',
}.items():
    situation(f"rules.toml: {name}")(_toml(text))


@situation("rules.toml: not there")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.load_rules("rules.toml")


@situation("rules.toml: tables within tables, beyond what Python reads")
def _(patch: pytest.MonkeyPatch) -> None:
    # As for a file of 100,000 brackets: a real RecursionError would end the tracing of places.
    def deep(file: Any) -> Any:
        raise RecursionError

    Path("rules.toml").write_text("rules = []")
    patch.setattr("tomllib.loads", deep)
    bridge.load_rules("rules.toml")
