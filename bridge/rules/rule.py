"""`Rule`: one line that maps the elements of tensors to the elements of leaves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TypeAlias, cast

from bridge._errors import RuleError
from bridge.rules.check import Pairing, check
from bridge.rules.options import FLAGS, Option, rule_text, settled
from bridge.rules.parse import read_rule
from bridge.rules.syntax import Side


class Rule:
    """A checked rule: `keys -> leaf ; options`.

    Frozen and hashable. Two rules are equal if their texts are equal except for blanks. `Rule(str(rule)) == rule`.

    **Arguments:**

    - `text`: the rule, in the language of `docs/rules.md`.
    - `options`: the options that may also stand after `;` in the text: sizes of axes (`h=12`), `add`, `scale`, `flip`,
        `tie`, `copy`, `alt`, `zeros`.

    **Raises:** `RuleError` for a wrong text; it points at the place in the text.

    ```python
    rule = bridge.Rule("h.{l}.attn.q.weight [(h d) m] -> attn.q [l h d m]", h=12)
    assert str(rule) == "h.{l}.attn.q.weight [(h d) m] -> attn.q [l h d m] ; h=12"
    assert bridge.Rule(str(rule)) == rule
    ```
    """

    __slots__ = (*("_text", "add", "alt", "copy", "flip", "keys", "leaf", "pairing", "scale", "sizes", "tie", "zeros"),)

    keys: tuple[Side, ...]
    """The key sides: one, or the terms of a sum."""
    leaf: Side | None
    """The leaf side; `None` drops the key."""
    sizes: tuple[tuple[str, int], ...]
    """Extents of axes and parts, and counts of indices, that the options give, sorted by name."""
    scale: float | int
    add: float | int
    flip: tuple[str, ...]
    """Names of axes that run backwards."""
    tie: bool
    copy: bool
    alt: bool
    """Whether this is another spelling of keys that an earlier rule names: read, never written."""
    zeros: bool
    """Of a rule that drops its key: whether the way back writes zeros."""
    pairing: Pairing
    """How the choices of the two sides meet. Follows from the sides."""
    _text: str

    def __init__(self, text: str, /, **options: Option) -> None:
        parsed = read_rule(text, options)
        found = settled(text, parsed.options_at, parsed.options)
        self._set(
            keys=parsed.keys,
            leaf=parsed.leaf,
            sizes=found.sizes,
            scale=found.scale,
            add=found.add,
            flip=found.flip,
            tie=found.tie,
            copy=found.copy,
            alt=found.alt,
            zeros=found.zeros,
            pairing=check(text, parsed, found),
            _text=rule_text(parsed.keys, parsed.leaf, found),
        )

    def options(self) -> dict[str, Option]:
        """The options that differ from their defaults, as `Rule` takes them."""
        options: dict[str, Option] = dict(self.sizes)
        if self.scale != 1:
            options["scale"] = self.scale
        if self.add != 0:
            options["add"] = self.add
        if self.flip:
            options["flip"] = " ".join(self.flip)
        return options | {name: True for name in FLAGS if getattr(self, name)}

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a rule is frozen: '{name}' cannot be set, make another Rule")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a rule is frozen: '{name}' cannot be deleted")

    def __reduce__(self) -> tuple[type[Rule], tuple[str]]:
        return type(self), (self._text,)

    # The text holds all that a rule is, so it decides: comparing and hashing rules costs what it costs for texts.

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Rule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Rule({self._text!r})"


Nested: TypeAlias = "tuple[Rule | str, Sequence[Listed] | Mapping[str, str]]"
"""`(text, [rules])`: rules within a rule."""
Listed: TypeAlias = "Rule | str | Mapping[str, str] | Nested"
"""What a list of rules may hold in Python: a rule, its text, `{old: new}`, a text of several lines, a nested rule."""


def rules_of(rules: Any) -> tuple[Rule, ...]:
    """What a user gives as rules, or a path to TOML (a `Path`, or a text that ends in `.toml`), as rules.

    **Arguments:**

    - `rules`: a list of what `Listed` names, or one of these.

    **Raises:** `RuleError`.
    """
    if rules is None:
        return ()
    if isinstance(rules, os.PathLike) or (isinstance(rules, str) and rules.endswith(".toml")):
        from bridge.rules.toml import load_rules  # most rules stand in programs

        return load_rules(cast("str | os.PathLike[str]", rules))
    items = cast("list[Any]", rules if isinstance(rules, list | tuple) else [rules])
    if all(isinstance(item, Rule) or (isinstance(item, str) and "\n" not in item) for item in items):
        with suppress(RuleError):  # what follows says which of them is wrong
            return tuple(item if isinstance(item, Rule) else Rule(item) for item in items)
    from bridge.rules.listed import listed  # most rules are texts in a list

    return tuple(listed(rules))
