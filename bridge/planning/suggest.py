"""Families of names in reports, and the rules and patterns that mean just them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bridge._text import fold, plain, plain_pieces, printable, quote, template
from bridge.mapping.indexmap import Shape
from bridge.rules.syntax import Hole, Index, Name, Segment, Side, literal

_LETTERS = "ijklmnop"
_NAMES = 3  # names in one entry


@dataclass(slots=True)
class NameGroup:
    """Names that differ only in indices."""

    text: str
    names: dict[Shape, str] = field(default_factory=dict[Shape, str])

    @property
    def shown(self) -> list[str]:
        """The names, folded."""
        return [name for name, _ in fold(self.names.values())]


def grouped(names: Iterable[str]) -> list[NameGroup]:
    """Names by what is left of them without their indices."""
    groups: dict[str, NameGroup] = {}
    for name in names:
        text, indices = template(name)
        groups.setdefault(text, NameGroup(text)).names[indices] = name
    return list(groups.values())


def rule_for(group: NameGroup, name: str) -> str:
    """The rule that sends the keys of `group` to a leaf, or to a list of them: `h.{i}.w -> layers.w`."""
    return f"{_pattern(group.text)} -> {_pattern(template(name)[0])}"


def _pattern(text: str) -> Side:
    """A template as a side of a rule, its indices called i, j, k …"""
    indices = iter(_LETTERS)
    segments: list[Segment] = []
    for segment in text.split("."):
        name = next(indices, None) if segment == "{}" else None
        segments.append((Hole((Index(name),)),) if name else (plain(segment),) if segment else ())
    return Side(Name(tuple(segments)))


def pattern_for(group: NameGroup, tails: Mapping[str, int]) -> str:
    """A pattern that matches these names and, by `tails`, no other key."""
    if len(group.names) == 1:
        return str(literal(next(iter(group.names.values()))))
    end = tail(group.text)
    if "{}" not in end and tails.get(end) == len(group.names):
        return f"**.{literal(plain(end))}"
    return "*".join(str(literal(piece)) if piece else "" for piece in plain_pieces(group.text))


def tail(text: str) -> str:
    """The last two segments of a name, or what there is."""
    return ".".join(text.rsplit(".", 2)[-2:])


def listed(shown: Iterable[str]) -> str:
    """A few names in quotes."""
    names = [quote(name) for name in shown]
    return " or ".join(names[:_NAMES]) + (" …" if len(names) > _NAMES else "")


def pasted(text: str) -> str:
    """A text as Python writes it, ready to paste."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped)}"'
