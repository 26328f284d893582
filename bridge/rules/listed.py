"""Lists of rules as users write them: texts, rules, dicts, texts of several lines, and rules within rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

from bridge._errors import RuleError
from bridge.rules.nested import Outer, explained, inner, outer
from bridge.rules.options import Option
from bridge.rules.rule import Rule

Where = tuple[str, ...]
_PAIR = "Write rules within a rule as a pair (text, [rules])"


class _ListedRule(NamedTuple):
    """One rule: its text, options that stand beside it, and the rules within, `None` where there are none."""

    rule: Any
    options: Mapping[str, Option]
    within: Any = None


def listed(rules: Any, *, source: str = "") -> Iterator[Rule]:
    """The rules of a list, in order; those within another as the flat rules that they are.

    **Arguments:**

    - `rules`: a list of what `bridge.rules.rule.Listed` names, or one of these.
    - `source`: the TOML file that they stand in, where nested rules are tables; for messages.

    **Raises:** `RuleError`, with the number of the rule.
    """
    return _rules(rules, (source,) if source else (), None, tables=bool(source))


def _rules(rules: Any, where: Where, around: Outer | None, *, tables: bool) -> Iterator[Rule]:
    for place, item in _items(rules, where, around, tables=tables):
        at = (*where, place) if place else where
        try:
            entry = _entry(item, tables=tables)
            if entry.within is None:
                yield _made(entry, around)
                continue
            text = _text(entry.rule)
            opened = outer(text, entry.options, around or Outer(text))
        except RuleError as error:
            raise _placed(error, at) from error
        within = list(_rules(entry.within, at, opened, tables=tables))
        if not within:
            raise _placed(
                RuleError(f"rule '{text}'", "has no inner rules", "Say what becomes of what its '**' takes"), at
            )
        yield from within


def _made(entry: _ListedRule, around: Outer | None) -> Rule:
    if around is None:
        return entry.rule if isinstance(entry.rule, Rule) else Rule(entry.rule, **entry.options)
    text = _text(entry.rule)
    flat = inner(text, entry.options, around)
    try:
        return Rule(flat)
    except RuleError as error:
        raise explained(error, text, around) from error


def _text(rule: Any) -> Any:
    return str(rule) if isinstance(rule, Rule) else rule


def _placed(error: RuleError, where: Where) -> RuleError:
    shown = where if len(where) <= 8 else (*where[:4], "…", *where[-2:])
    return error.at(", ".join(shown)) if where else error


# What a list holds


def _items(rules: Any, where: Where, around: Outer | None, *, tables: bool) -> Iterator[tuple[str, Any]]:
    """What a list holds, each with its place for messages; a rule that stands alone needs none."""
    inner = "" if around is None else "inner "
    if isinstance(rules, str | Mapping | Rule) or _is_nested(rules):
        yield from _expanded(rules, f"{inner}rule 1" if inner else "", inner)
    elif isinstance(rules, Iterable):
        for number, item in enumerate(cast("Iterable[Any]", rules), 1):
            place = f"{inner}rule {number}"
            if tables and isinstance(item, Mapping):
                yield place, item
            else:
                yield from _expanded(item, place, f"{place}, ")
    else:
        error = RuleError(
            "rules",
            f"must be a list of texts, got {type(rules).__name__}: {rules!r}",
            "Give a list of texts 'key -> leaf'",
        )
        raise _placed(error, where)


def _expanded(item: Any, place: str, before: str) -> Iterator[tuple[str, Any]]:
    """A rule, or the rules of a dict or of a text of several lines, in which blank ones and comments say nothing."""
    if isinstance(item, Mapping):
        for number, pair in enumerate(cast("Mapping[Any, Any]", item).items(), 1):
            yield f"{before}entry {number}", _NewName(*pair)
    elif isinstance(item, str) and len(lines := _lines(item)) > 1:
        for number, line in enumerate(lines, 1):
            if text := _COMMENT.sub("", line).strip():
                yield f"{before}line {number}", text
    else:
        yield place, item


class _NewName(NamedTuple):
    """What a dict says of one key."""

    old: Any
    new: Any


_TOKEN = re.compile(r"\n|\\.|\\|[^\\\n]+", re.DOTALL)  # a backslash takes a line's end as it is
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*", re.DOTALL)


def _lines(text: str) -> list[str]:
    lines = [""]
    for token in _TOKEN.findall(text):
        if token == "\n":
            lines.append("")
        else:
            lines[-1] += token
    return lines


def _is_nested(rules: Any) -> bool:
    """Whether this is one `(text, [rules])`, and no list of two."""
    pair = cast("tuple[Any, ...]", rules) if isinstance(rules, tuple) else ()
    return len(pair) == 2 and isinstance(pair[1], list | Mapping)


def _entry(item: Any, *, tables: bool) -> _ListedRule:
    """What an entry of a list means. **Raises:** `RuleError`."""
    if isinstance(item, _NewName):
        if not (isinstance(item.old, str) and isinstance(item.new, str)):
            given = f"{item.old!r} to {item.new!r}"
            raise RuleError("a dict of rules", f"has {given}, expected texts, {{'key': 'leaf'}}", _PAIR)
        return _ListedRule(f"{item.old} -> {item.new}", {})
    if isinstance(item, tuple):
        pair = cast("tuple[Any, ...]", item)
        if len(pair) != 2:
            raise RuleError(
                "a rule with inner rules",
                f"must be a pair, got {len(pair)} in parentheses",
                "Write a pair (text, [rules])",
            )
        return _ListedRule(pair[0], {}, pair[1])
    if tables and isinstance(item, Mapping):
        options = dict(cast("Mapping[str, Any]", item))
        if not isinstance(options.get("rule"), str):
            raise RuleError("this table", "has no field 'rule'", 'Write rule = "key -> leaf"')
        return _ListedRule(options.pop("rule"), options, options.pop("rules", None))
    if isinstance(item, list):
        raise RuleError("a list within a list", f"is not a rule: {item!r}", _PAIR)
    return _ListedRule(item, {})
