"""`Layout`: what PyTorch calls the parameters of one layer, and how it shapes them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from bridge.rules.rule import Rule


class Layout:
    """One layer, as PyTorch has it. All names are the layer's own, all axes those of one layer, stacked or not.

    - `rules`: from PyTorch's keys to the layer's leaves, in the rule language, with axes. Only those whose leaves the
        layer has, and whose keys a checkpoint has, take part: alternatives stand side by side.
    - `aliases`: other names of leaves that PyTorch shapes as Equinox does.
    - `shown`: the names that leaves go by where keystr's own spelling says nothing: a state's.
    - `fills`: the value of leaves that no key has to fill.
    - `hints`: what to say where a leaf is missing, or a key of this name unexpected.
    """

    __slots__ = ("aliases", "fills", "hints", "rules", "shown")

    def __init__(
        self,
        rules: tuple[str, ...] = (),
        aliases: Mapping[str, str] = MappingProxyType({}),
        shown: Mapping[str, str] = MappingProxyType({}),
        fills: Mapping[str, int] = MappingProxyType({}),
        hints: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.rules, self.aliases, self.shown, self.fills, self.hints = rules, aliases, shown, fills, hints

    def __bool__(self) -> bool:
        """Whether anything differs from what the layer has."""
        return bool(self.rules or self.aliases or self.shown or self.fills or self.hints)


@cache
def parsed(text: str) -> Rule:
    """The rule that `text` spells. Models have many layers of few kinds: each text is read once."""
    return Rule(text)


def spatial(ndim: int) -> str:
    """Names for the spatial axes of a kernel: `k0 k1`."""
    return " ".join(f"k{n}" for n in range(ndim))
