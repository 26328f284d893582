"""`Rule`: one line that says which element of which tensor is which element of which leaf."""

from __future__ import annotations

from dataclasses import dataclass

from bridge._errors import RuleError
from bridge.rules.check import Pairing, check
from bridge.rules.parse import Option, Parser, fail
from bridge.rules.syntax import Side

_FLAGS = ("tie", "copy")
_NUMBERS = ("add", "scale")


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Rule:
    """A checked rule: `keys -> leaf ; options`.

    Frozen; equal rules mean the same text up to blanks. `str(rule)` reads back to an equal rule.

    **Arguments:**

    - `text`: the rule, as `docs/rules.md` describes the language.
    - `options`: the same as after `;` in the text: sizes of axes (`h=12`), `add`, `scale`, `flip`, `tie`, `copy`.

    **Raises:** `RuleError`, pointing at the place in the text.

    ```python
    rule = bridge.Rule("h.{l}.attn.q.weight [(h d) m] -> attn.q [l h d m]", h=12)
    assert str(rule) == "h.{l}.attn.q.weight [(h d) m] -> attn.q [l h d m] ; h=12"
    assert bridge.Rule(str(rule)) == rule
    ```
    """

    keys: tuple[Side, ...]
    """The key sides: one, or the terms of a sum."""
    leaf: Side | None
    """The leaf side; `None` drops the key."""
    sizes: tuple[tuple[str, int], ...]
    """Extents of axes and parts that the options give, sorted by name."""
    scale: float | int
    add: float | int
    flip: tuple[str, ...]
    """Names of axes that run backwards."""
    tie: bool
    copy: bool
    pairing: Pairing
    """How the choices and wildcards of the two sides meet. Follows from the sides."""

    def __init__(self, text: str, **options: Option) -> None:
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RuleError(f"a rule is a text 'key -> leaf', not {type(text).__name__}: {text!r}")
        keys, leaf, written = Parser(text).rule()
        for name in options.keys() & written.keys():
            fail(text, text.index(";"), f"option '{name}' stands both in the text and as an argument")
        sizes, rest = _sorted_options(text, written | options)
        pairing = check(text, keys, leaf, sizes=sizes, **rest)
        values = {"keys": keys, "leaf": leaf, "sizes": tuple(sorted(sizes.items())), "pairing": pairing, **rest}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def options(self) -> dict[str, Option]:
        """The options that differ from their defaults, as `Rule` takes them."""
        options: dict[str, Option] = dict(self.sizes)
        if self.scale != 1:
            options["scale"] = self.scale
        if self.add != 0:
            options["add"] = self.add
        if self.flip:
            options["flip"] = " ".join(self.flip)
        return options | {name: True for name in _FLAGS if getattr(self, name)}

    def __str__(self) -> str:
        text = " + ".join(map(str, self.keys)) + " -> " + ("_" if self.leaf is None else str(self.leaf))
        options = [f"{name}={_spelled(value)}" for name, value in self.options().items()]
        return f"{text} ; {' '.join(options)}" if options else text

    def __repr__(self) -> str:
        return f"Rule({str(self)!r})"


def _spelled(value: Option) -> str:
    """An option's value as it stands in a rule."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _sorted_options(text: str, options: dict[str, Option]) -> tuple[dict[str, int], dict[str, object]]:
    """Sizes, and the options of the closed list with their defaults."""
    at = text.find(";") if ";" in text else len(text)
    sizes: dict[str, int] = {}
    rest: dict[str, object] = {"scale": 1, "add": 0, "flip": (), "tie": False, "copy": False}
    for name, value in options.items():
        if name in _FLAGS:
            if not isinstance(value, bool):
                fail(text, at, f"option '{name}' is true or false, not {value!r}")
            rest[name] = value
        elif name == "flip":
            if not isinstance(value, str) or not value.split():
                fail(text, at, f"option 'flip' is the names of axes, as in flip=\"h w\", not {value!r}")
            rest[name] = tuple(value.replace(",", " ").split())
        elif name in _NUMBERS:
            if isinstance(value, bool | str) or value != value or value in (float("inf"), float("-inf")):
                fail(text, at, f"option '{name}' is a finite number, not {value!r}")
            if name == "scale" and value == 0:
                fail(text, at, "option 'scale' is 0: nothing would be left of the tensor")
            rest[name] = value
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            fail(text, at, f"option '{name}' is the extent of an axis, a whole number from 1 up, not {value!r}")
        else:
            sizes[name] = value
    return sizes, rest
