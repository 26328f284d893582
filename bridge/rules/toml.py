"""From TOML: `rules = ["a -> b", { rule = "c -> d", add = 1.0 }, { rule = "e.** -> f.**", rules = […] }]`."""

from __future__ import annotations

import os
import tomllib

from bridge._errors import RuleError
from bridge._text import quote
from bridge.rules.listed import listed
from bridge.rules.nested import DEPTH
from bridge.rules.rule import Rule

_MOST_NBYTES = 10_000_000


def load_rules(path: str | os.PathLike[str]) -> tuple[Rule, ...]:
    """Read the rules of a TOML file, in order.

    **Arguments:**

    - `path`: a TOML file with the entry `rules`. It is a list of texts and tables; a table has `rule`, options as
        further entries, and inner rules as `rules`. Or it is a text of several lines, or a table from keys to leaves.

    **Returns:** a tuple of `Rule`.

    **Raises:** `RuleError` for a file that cannot be read or a wrong rule; it names the file and the rule's number.

    ```python
    Path("rules.toml").write_text('rules = ["bert.** -> **", { rule = "norm.w -> norm.weight", add = 1.0 }]')
    rules = bridge.load_rules("rules.toml")
    assert str(rules[1]) == "norm.w -> norm.weight ; add=1.0"
    ```
    """
    name = quote(os.fspath(path))
    try:
        with open(path, "rb") as file:
            raw = file.read(_MOST_NBYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise RuleError(name, f"cannot be read: {reason or error}", "Check the path") from error
    if len(raw) > _MOST_NBYTES:
        raise RuleError(name, f"has more than the {_MOST_NBYTES:,} bytes that rules may have", "Check the path")
    try:
        document = tomllib.loads(raw.decode())
    except RecursionError as error:
        raise RuleError(
            name,
            f"is nested too deep: at most {DEPTH} rules can be around another",
            "Write its inner rules as rules of their own",
        ) from error
    except ValueError as error:  # no UTF-8, no TOML, or a number of thousands of digits
        raise RuleError(name, f"is not TOML: {error}", 'Write rules = ["a -> b", …]') from error
    entries = document.pop("rules", None)
    if not isinstance(entries, list | str | dict):
        raise RuleError(name, "has no list of rules", 'Write rules = ["a -> b", …]')
    if document:
        raise RuleError(name, f"has {', '.join(map(quote, document))} besides 'rules'", "Leave that out")
    return tuple(listed(entries, source=name))
