"""Keys, a template and rules come in; blocks and every problem come out. This is where a mapping is proven right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cached_property

import numpy as np

from bridge._text import quote
from bridge._values import Record
from bridge.format.table import collector_off
from bridge.mapping.block import Block
from bridge.mapping.blocks import Prover
from bridge.mapping.indexmap import Shape
from bridge.mapping.keys import KeyTable
from bridge.mapping.land import Names, derive, land, spelled
from bridge.mapping.pattern import Names as Patterns
from bridge.mapping.problem import Conflict, Problems, Unexpected
from bridge.mapping.relate import Relations
from bridge.mapping.send import INFERENCE, infer, send
from bridge.mapping.sent import Sent
from bridge.mapping.template import Template
from bridge.planning.complete import check_keys, check_leaves
from bridge.rules.rule import Rule

Spelling = Callable[[], tuple[str, ...]]


class Proof(Record):
    """What a mapping came to: `blocks`, keys dropped on purpose, leaves kept, rules that matched nothing.

    `rules` spells the rules that say just this, in the order in which they hold. `derived` are the shapes of
    leaves where there is no model.
    """

    blocks: list[Block] = field(default_factory=list[Block])
    rules: Spelling = tuple
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    kept: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    derived: dict[str, Shape] = field(default_factory=dict[str, Shape])
    problems: Problems = field(default_factory=Problems)


@collector_off(many=True)
def prove(
    table: KeyTable,
    model: Template | None,
    rules: Sequence[Rule],
    *,
    allow_missing: Patterns,
    allow_unexpected: Patterns,
) -> Proof:
    """Map every key to the model's leaves, or to leaves of their own where there is no model, and check it all."""
    proof = Proof()
    sents, left = send(rules, table)
    delivery = _Delivery(table, model, proof)
    for sent in (*sents, *infer(left, len(rules), table)):
        delivery.deliver(sent)
    prover = Prover(None if model is None else model.leaves, proof.problems)
    for relation in delivery.relations.found.values():
        proof.blocks += prover.blocks(relation)
    prover.finish()
    proof.derived = prover.families.derived
    delivery.settle(allow_unexpected)
    _settle_ties(proof)
    unclear = delivery.unclear | prover.families.failed
    leaves = prover.families.derived if model is None else {name: spec.shape for name, spec in model.leaves.items()}
    leaves = {name: shape for name, shape in leaves.items() if name not in unclear}
    hollow = prover.families.hollow
    proof.kept = check_leaves(proof.blocks, leaves, model or Template({}), allow_missing, proof.problems, hollow)
    drops = [sent for sent in sents if sent.target is None]
    check_keys(proof.blocks, drops, table, proof.problems, told=prover.alone)
    proof.rules = _Spelled(prover, delivery.rules)
    used = {sent.number for sent in sents}
    proof.idle = tuple(str(rule) for number, rule in enumerate(rules) if number not in used)
    return proof


class _Spelled:
    """The rules behind the blocks, and those that use keys up; spelled when somebody asks, which a load does not."""

    def __init__(self, prover: Prover, used: Mapping[str, int]) -> None:
        self.prover, self.used = prover, used

    def __call__(self) -> tuple[str, ...]:
        return self.texts

    @cached_property
    def texts(self) -> tuple[str, ...]:
        numbered = [*self.prover.rules().items(), *self.used.items()]
        return tuple(dict.fromkeys(text for text, _ in sorted(numbered, key=lambda entry: entry[1])))


class _Delivery:
    """Brings what was sent to the relations, and remembers what landed nowhere.

    `rules` are the texts of rules that use keys up, with the number of the user's rule behind each; `unclear` are
    leaves that keys may be meant for, where their names can be read in several ways.
    """

    def __init__(self, table: KeyTable, model: Template | None, proof: Proof) -> None:
        self.proof = proof
        self.names = None if model is None else Names(model)
        self.relations = Relations(self.names)
        self.table = table
        self.arrived = np.zeros(len(table), bool)
        self.unclear: set[str] = set()
        self.lost: dict[int, str] = {}
        self.rules: dict[str, int] = {}

    def deliver(self, sent: Sent) -> None:
        """Land what was sent; what lands nowhere is `lost`, with the rule that sent it."""
        if sent.target is None:
            text = str(sent.rule)
            self.proof.dropped |= dict.fromkeys(sent.keys, text)
            self.rules.setdefault(text, sent.number)
            return
        landing = derive(sent) if self.names is None else land(sent, self.names)
        if landing.readings:
            rules = "\n".join(f'"{spelled(sent, reading)}"' for reading in landing.readings)
            text = f"can be read in {len(landing.readings)} ways, and each fits. Say which by a rule:\n{rules}"
            self.proof.problems.conflicts.append(Conflict(str(sent.key_name), text, tuple(sent.keys)))
            self.arrived[sent.keys.numbers] = True
            self.unclear.update(name for reading in landing.readings for name in reading.names.values())
        for landed in landing.landed:
            spent = len(self.relations.spent)
            self.relations.add(landed)
            self.arrived[landed.keys.numbers] = True
            if len(self.relations.spent) > spent:
                self.rules.setdefault(self.relations.spent[landed.keys[0]], sent.number)
        if len(landing.lost):
            self.lose(sent, landing.lost)

    def lose(self, sent: Sent, lost: Sequence[int]) -> None:
        """Remember keys that were sent to names that the model does not have."""
        reason = "" if sent.rule is INFERENCE else f"sent to {quote(str(sent.leaf_name))} by the rule '{sent.rule}'"
        hints = self.relations.model.hints
        names = sent.names() if hints else []
        for place in lost:
            self.lost.setdefault(int(sent.keys.numbers[place]), hints.get(names[place], reason) if hints else reason)

    def settle(self, allow_unexpected: Patterns) -> None:
        """Keys that landed nowhere, and that no other rule used, are unexpected unless they may be."""
        proof, problems = self.proof, self.proof.problems
        proof.dropped |= self.relations.spent
        for number, reason in self.lost.items():
            key = self.table.names[number]
            if not self.arrived[number] and key not in proof.dropped:
                problems.unexpected.append(Unexpected(key, reason))
        if allow_unexpected.texts:
            allowed = [problem.key for problem in problems.unexpected if problem.key in allow_unexpected]
            proof.allowed = tuple(dict.fromkeys(allowed))
            names = set(allowed)
            problems.unexpected = [problem for problem in problems.unexpected if problem.key not in names]


def _settle_ties(proof: Proof) -> None:
    """A tie whose leaf has no other key is that leaf's key."""
    filled = {block.leaves[0] for block in proof.blocks if not block.tie}
    for block in proof.blocks:
        if block.tie and block.leaves[0] not in filled:
            block.tie = False
            filled.add(block.leaves[0])
