"""Keys, a template and rules come in; blocks and every problem come out. This is where a mapping is proven right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from math import prod

import numpy as np

from bridge.format.table import collector_off
from bridge.mapping.arrays import Arrays, ArrayTable, Numbers, repeats
from bridge.mapping.bind import bind_keys
from bridge.mapping.block import Block
from bridge.mapping.blocks import BlockBuilder
from bridge.mapping.bound import BoundRule
from bridge.mapping.desugar import ConcreteRule, Desugar
from bridge.mapping.equation import Leaves
from bridge.mapping.landing import ModelNames
from bridge.mapping.names import NameIndex
from bridge.mapping.pattern import Mask, NamePatterns
from bridge.mapping.problem import Problems, Unexpected
from bridge.mapping.template import Template
from bridge.rules.rule import Rule


class ConcreteRules:
    """Concrete rules by the user's order; spelled when somebody asks, which a load does not."""

    def __init__(self, concrete: Sequence[ConcreteRule]) -> None:
        self.concrete = concrete

    def __reduce__(self) -> tuple[type[ConcreteRules], tuple[tuple[ConcreteRule, ...]]]:
        return type(self), (tuple(ConcreteRule(n, partial(tuple, (text,))) for n, text in enumerate(self.texts)),)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The rules as texts, each once."""
        order = sorted(self.concrete, key=lambda concrete: concrete.number)
        return tuple(dict.fromkeys(text for concrete in order for text in concrete.texts()))


class Proof:
    """What a mapping came to.

    `dropped` are keys that no leaf gets, with the rule that says so; `consumed` those of them that are saved as zeros.
    `kept` are leaves that may be missing and are, `partly` those of which keys fill a part, with the boxes that stay
    empty, `allowed` keys that may be left over, `idle` rules without a key,
    but for those that are another spelling.
    """

    def __init__(
        self, blocks: list[Block], keys: ArrayTable, leaves: Leaves, rules: ConcreteRules, problems: Problems
    ) -> None:
        self.blocks, self.keys, self.leaves, self.rules, self.problems = blocks, keys, leaves, rules, problems
        self.dropped: dict[str, str] = {}
        self.consumed: frozenset[str] = frozenset()
        self.kept: tuple[str, ...] = ()
        self.partly: dict[str, tuple[tuple[range, ...], ...]] = {}
        self.allowed: tuple[str, ...] = ()
        self.idle: tuple[str, ...] = ()


@collector_off(many=True)
def prove(
    table: ArrayTable,
    model: Template | None,
    rules: Sequence[Rule],
    *,
    allow_missing: NamePatterns,
    allow_unexpected: NamePatterns,
) -> Proof:
    """Map every key to the model's leaves, or to leaves of their own where there is no model, and check it all."""
    problems = Problems()
    names = None if model is None else ModelNames(model)
    desugar = Desugar(table, names, problems)
    bindings = bind_keys(rules, NameIndex(table.names), desugar.leaves.number if names is None else names.leaf)
    for one in sorted((*bindings.rules, *bindings.renamed), key=lambda one: one.number):
        if isinstance(one, BoundRule):
            desugar.add(one)
        else:
            desugar.rename(one)
    builder = BlockBuilder(table, desugar.leaves, problems)
    blocks = [block for equation in desugar.equations.values() for block in builder.blocks(equation)]
    proof = Proof(settled_ties(blocks), table, desugar.leaves, ConcreteRules(desugar.concrete), problems)
    consumed: list[str] = []
    for drop in desugar.drops:
        keys = list(Arrays(table, drop.ids))
        proof.dropped |= dict.fromkeys(keys, drop.text())
        consumed += keys if drop.zeros else []
    proof.consumed = frozenset(consumed)
    _report_lost(desugar, proof, allow_unexpected)
    _check_whole(desugar, builder, proof, model, allow_missing)
    idle = [rule for number, rule in enumerate(rules) if number not in bindings.used]
    proof.idle = tuple(str(rule) for rule in idle if not rule.alt)  # another spelling is there, or it is not
    if idle and model is not None and proof.blocks:
        from bridge.planning.overruled import overruled, speaks  # most rules have keys

        problems.conflicts += overruled(filter(speaks, idle), proof.blocks, model)
    return proof


def _check_whole(
    desugar: Desugar, builder: BlockBuilder, proof: Proof, model: Template | None, allow_missing: NamePatterns
) -> None:
    """Look closer at leaves that are not filled whole at first sight, and keys that are not read whole, or not once."""
    unclear = desugar.unclear | builder.solver.failed
    filling = [block for block in proof.blocks if not block.tie]
    names = proof.leaves.table.names
    leaves = [n for n in np.flatnonzero(~_whole(filling, proof.leaves)).tolist() if names[n] not in unclear]
    keys = _read_in_part(proof.blocks, proof.keys)
    for drop in desugar.drops:
        if drop.bound.rule.keys[0].axes:
            keys[drop.ids] = True
    if not leaves and not keys.any():
        return
    from bridge.planning.complete import (  # most leaves are filled whole, or stacks of whole keys
        check_keys,
        check_leaves,
    )

    proof.kept, proof.partly = check_leaves(
        leaves, filling, proof.leaves, model or Template({}), allow_missing, proof.problems, builder.solver.known_holes
    )
    suspects: list[int] = np.flatnonzero(keys).tolist()
    if suspects:
        check_keys(suspects, proof.blocks, desugar.drops, proof.keys, proof.problems, told=builder.reported)


def _report_lost(desugar: Desugar, proof: Proof, allow_unexpected: NamePatterns) -> None:
    """Keys that landed nowhere, and that no other rule used, are unexpected unless they may be."""
    problems = proof.problems
    for number, reason in desugar.lost.items():
        key = desugar.table.names[number]
        if not desugar.arrived[number] and key not in proof.dropped:
            problems.unexpected.append(Unexpected(key, reason))
    if allow_unexpected.texts:
        proof.allowed = tuple(dict.fromkeys(p.key for p in problems.unexpected if p.key in allow_unexpected))
        names = set(proof.allowed)
        problems.unexpected = [problem for problem in problems.unexpected if problem.key not in names]


def settled_ties(blocks: Sequence[Block]) -> list[Block]:
    """The blocks, where a tie whose leaf has no other key is that leaf's key."""
    if not any(block.tie for block in blocks):
        return list(blocks)
    filled = np.zeros(len(blocks[0].leaves.table.names), bool)
    for block in blocks:
        if not block.tie:
            filled[block.leaves.numbers] = True
    found: list[Block] = []
    for block in blocks:
        alone = ~filled[block.leaves.numbers] if block.tie else np.zeros(len(block), bool)
        if alone.any():
            filled[block.leaves.numbers] = True
            filling = block.at(np.flatnonzero(alone))
            filling.tie = False
            found.append(filling)
            block = block.at(np.flatnonzero(~alone))
        if len(block):
            found.append(block)
    return found


def _whole(blocks: Sequence[Block], leaves: Leaves) -> Mask:
    """For each leaf whether one block fills it whole, by boxes that cannot overlap."""
    count = len(leaves.table.names)
    sizes = np.array([prod(leaves.shape(n) or ()) for n in range(count)]) if not leaves.given else _sizes(leaves.table)
    elements, first, last = np.zeros(count, np.int64), np.full(count, len(blocks)), np.full(count, -1)
    odd = np.zeros(count, bool)
    for number, block in enumerate(blocks):
        found, each = block.leaves.numbers, block.terms[0].index_map.count
        np.add.at(elements, found, each)
        np.minimum.at(first, found, number)
        np.maximum.at(last, found, number)
        if each != sizes[found[0]] and not _apart(block):
            odd[found] = True
    return (last >= 0) & (first == last) & ~odd & ((elements == sizes) | (sizes == 0))


def _sizes(table: ArrayTable) -> Numbers:
    return np.array([prod(spec.shape) for spec in table.specs], np.int64)[table.kinds]


def _apart(block: Block) -> bool:
    """Whether no two boxes of a block overlap: each is one index or the whole of every axis, and no two are alike."""
    index_map, starts = block.terms[0].index_map, block.starts
    for axis, extent in enumerate(index_map.leaf_shape):
        steps = [loop.extent for loop in index_map.loops if loop.leaf_axis == axis]
        if steps and not (prod(steps) == extent and (starts[:, axis] == starts[0, axis]).all()):
            return False
    return not repeats([block.leaves.numbers, *starts.T])


def _read_in_part(blocks: Sequence[Block], table: ArrayTable) -> Mask:
    """For each key of the table whether some map does not read it whole, or several read it."""
    found = np.zeros(len(table), bool)
    times = np.zeros(len(table), np.intp)
    for block in blocks:
        for term in block.terms:
            if not term.index_map.whole_key:
                found[term.keys.numbers] = True
            elif not block.copy:
                np.add.at(times, term.keys.numbers, 1)
    return found | (times > 1)
