"""`Layout`: what PyTorch calls the parameters of one layer, and how it shapes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from bridge.rules.rule import Rule


@dataclass(frozen=True, slots=True)
class Layout:
    """One layer, as PyTorch has it. All names are the layer's own, all axes those of one layer, stacked or not.

    - `rules`: from PyTorch's keys to the layer's leaves, in the rule language, with axes. Only those whose leaves the
        layer has, and whose keys a checkpoint has, take part: alternatives stand side by side.
    - `aliases`: other names of leaves that PyTorch shapes as Equinox does.
    - `shown`: the names that leaves go by where keystr's own spelling says nothing: a state's.
    - `fills`: the value of leaves that no key has to fill.
    - `hints`: what to say where a leaf is missing, or a key of this name unexpected.
    """

    rules: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    shown: Mapping[str, str] = field(default_factory=dict[str, str])
    fills: Mapping[str, int] = field(default_factory=dict[str, int])
    hints: Mapping[str, str] = field(default_factory=dict[str, str])


@cache
def parsed(text: str) -> Rule:
    """The rule that `text` spells. Models have many layers of few kinds: each text is read once."""
    return Rule(text)


def spatial(ndim: int) -> str:
    """Names for the spatial axes of a kernel: `k0 k1`."""
    return " ".join(f"k{n}" for n in range(ndim))
