"""Leaves that are the sum of what PyTorch keeps apart, as the bias of an LSTM cell: the rules that say so."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bridge.mapping.template import Template
from bridge.rules.rule import Rule
from bridge.rules.syntax import Index


class Sums:
    """The leaves of a model whose layouts add keys, and the rules for those keys where all are stored."""

    def __init__(self, model: Template, stored: Collection[str]) -> None:
        self.stored = stored
        self.terms: dict[str, list[list[str]]] = {}
        for layer in model.placed:
            for rule in layer.rules if layer.tied_at is None else ():
                if rule.leaf is not None and len(rule.keys) > 1 and not _in_part(rule):
                    terms = [str(side.name) for side in rule.keys]
                    self.terms.setdefault(layer.leaf(str(rule.leaf.name)), []).append(terms)

    def keys(self, leaf: str, keys: Iterable[str]) -> list[str]:
        """The keys whose sum is the leaf, where one of `keys` is among them."""
        for key in keys if leaf in self.terms else ():
            for terms in self.terms[leaf]:
                for term in terms:
                    if f".{key}".endswith(f".{term}"):
                        found = [f"{key[: -len(term)]}{other}" for other in terms]
                        if all(name in self.stored for name in found):
                            return found
        return []


def sum_rule(leaf: str, keys: Iterable[str]) -> str:
    """The rule that adds keys."""
    return f"{' + '.join(keys)} -> {leaf}"


def _in_part(rule: Rule) -> bool:
    """Whether a rule fills a part of its leaf."""
    assert rule.leaf is not None
    return any(isinstance(factor, Index) and factor.selection is not None for factor in rule.leaf.factors())
