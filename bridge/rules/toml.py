"""Rules from a TOML file: `rules = ["a -> b", { rule = "c -> d", add = 1.0 }]`."""

from __future__ import annotations

import os
import tomllib
from typing import Any, cast

from bridge._errors import RuleError
from bridge._text import quote
from bridge.rules.rule import Rule


def load_rules(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """The rules of a TOML file, in order.

    **Arguments:**

    - `path`: a file with `rules = [...]`: texts, or tables with `rule` and options as further entries.

    **Raises:** `RuleError`, naming the file and the rule's number.

    ```python
    rules = bridge.load_rules("rules.toml")
    ```
    """
    name = quote(os.fspath(path))
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise RuleError(f"{name} cannot be read: {error.strerror or error}. Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RuleError(f'{name} is not TOML: {error}. Rules stand in it as rules = ["a -> b", …].') from error
    entries = document.pop("rules", None)
    if not isinstance(entries, list):
        raise RuleError(f'{name} has no list of rules: write rules = ["a -> b", …].')
    if document:
        raise RuleError(f"{name} has {', '.join(map(quote, document))} besides 'rules': nothing else belongs there.")
    return tuple(_rule(name, number, entry) for number, entry in enumerate(cast("list[Any]", entries)))


def _rule(name: str, number: int, entry: Any) -> Rule:
    try:
        if isinstance(entry, dict):
            options = cast("dict[str, Any]", entry).copy()
            if not isinstance(options.get("rule"), str):
                raise RuleError('a table needs rule = "key -> leaf"')
            return Rule(options.pop("rule"), **options)
        return Rule(entry)
    except RuleError as error:
        raise RuleError(f"{name}, rule {number + 1}: {error}") from error
