"""Rules that take no key while something else fills their leaves otherwise: a typo, or rules in the wrong order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.arrays import ArrayTable
from bridge.mapping.block import Block
from bridge.mapping.keynames import KeySpeller
from bridge.mapping.landing import ModelNames
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.problem import Conflict
from bridge.mapping.template import Spec, Template
from bridge.planning.prove import prove
from bridge.rules.rule import Rule

Moves = dict[str, set[object]]
"""Of each leaf how tensors come to it: index maps and what changes values, whatever the keys are called."""


def speaks(rule: Rule) -> bool:
    """Whether a rule says more than a name, so that another one in its place would make another model."""
    shapes = rule.leaf is not None and rule.leaf.axes is not None
    return (shapes or rule.scale != 1 or rule.add != 0) and not (rule.tie or rule.alt or rule.copy)


def overruled(idle: Iterable[Rule], blocks: Sequence[Block], model: Template) -> Iterator[Conflict]:
    """The rules without a key whose leaves were filled through other index maps."""
    for rule in idle:
        wanted = _moves(_alone(rule, model))
        found = _moves(block for block in blocks if not block.tie)
        leaf = next((name for name, moves in wanted.items() if name in found and found[name] != moves), None)
        if leaf is not None:
            key = next(
                key
                for block in blocks
                for name, key in zip(block.leaves, block.terms[0].keys, strict=True)
                if name == leaf
            )
            text = (
                f"takes no key, and leaf {quote(leaf)} is filled from {quote(key)} without it: correct its key or its "
                "place in the list, or mark it as another spelling, '; alt=true'"
            )
            yield Conflict(f"rule '{rule}'", text)


def _alone(rule: Rule, model: Template) -> Sequence[Block]:
    """What the rule would do with keys of its own; nothing where the leaves do not tell their shapes."""
    try:
        found = list(KeySpeller(ModelNames(model)).spell(rule))
    except PlanError:
        return ()
    specs: dict[str, Spec] = {key: spelled.spec for spelled in found for key in spelled.keys}
    any_name = NamePatterns.of("**")
    proof = prove(ArrayTable.of(specs), model, [rule], allow_missing=any_name, allow_unexpected=any_name)
    return () if proof.problems.mismatched or proof.problems.conflicts else proof.blocks


def _moves(blocks: Iterable[Block]) -> Moves:
    moves: Moves = {}
    for block in blocks:
        for row, leaf in enumerate(block.leaves):
            maps = tuple([index_map for _, index_map in block.maps(row)])
            moves.setdefault(leaf, set()).add((maps, block.scale, block.add))
    return moves
