"""From TOML: `rules = ["a -> b", { rule = "c -> d", add = 1.0 }, { rule = "e.** -> f.**", rules = […] }]`."""

from __future__ import annotations

import os
import tomllib

from bridge._errors import RuleError
from bridge._text import quote
from bridge.rules.listed import listed
from bridge.rules.nested import DEPTH
from bridge.rules.rule import Rule


def load_rules(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """The rules of a TOML file, in order.

    **Arguments:**

    - `path`: a file with `rules = [...]`: texts, or tables with `rule`, options as further entries, and `rules` for
        those within it; or `rules` as a text of several lines, or as a table from keys to leaves.

    **Returns:** a tuple of `Rule`.

    **Raises:** `RuleError`, naming the file and the rule's number.

    ```python
    Path("rules.toml").write_text('rules = ["bert.** -> **", { rule = "norm.w -> norm.weight", add = 1.0 }]')
    rules = bridge.load_rules("rules.toml")
    assert str(rules[1]) == "norm.w -> norm.weight ; add=1.0"
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
    except RecursionError as error:
        raise RuleError(f"{name} is nested too deep: at most {DEPTH} rules stand around another.") from error
    entries = document.pop("rules", None)
    if not isinstance(entries, list | str | dict):
        raise RuleError(f'{name} has no list of rules: write rules = ["a -> b", …].')
    if document:
        raise RuleError(f"{name} has {', '.join(map(quote, document))} besides 'rules': nothing else belongs there.")
    return tuple(listed(entries, source=name))
