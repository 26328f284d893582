"""Keys, a template and rules come in; blocks and every problem come out. This is where a mapping is proven right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bridge._text import template
from bridge.mapping.block import Block
from bridge.mapping.blocks import Prover
from bridge.mapping.cover import Box, Cover, cover, key_steps, leaf_steps, spans
from bridge.mapping.fit import fit
from bridge.mapping.indexmap import Shape
from bridge.mapping.land import Names, land, spelled
from bridge.mapping.lower import key_box
from bridge.mapping.pattern import Names as Patterns
from bridge.mapping.problem import Conflict, Missing, Problems, Unexpected
from bridge.mapping.relate import Relations
from bridge.mapping.send import INFERENCE, Sent, infer, send
from bridge.mapping.template import Template
from bridge.rules.rule import Rule


@dataclass(slots=True)
class Proof:
    """What a mapping came to: `blocks`, keys dropped on purpose, leaves kept, rules that matched nothing."""

    blocks: list[Block] = field(default_factory=list[Block])
    dropped: dict[str, str] = field(default_factory=dict[str, str])
    kept: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    derived: dict[str, Shape] = field(default_factory=dict[str, Shape])
    problems: Problems = field(default_factory=Problems)


def prove(
    shapes: Mapping[str, Shape],
    model: Template | None,
    rules: Sequence[Rule],
    *,
    allow_missing: Patterns,
    allow_unexpected: Patterns,
) -> Proof:
    """Map every key to the model's leaves, or to leaves of their own where there is no model, and check it all."""
    proof = Proof()
    problems = proof.problems
    sents, left = send(rules, shapes)
    lost: list[tuple[str, str]] = []
    relations = Relations(model, Names(model)) if model is not None else Relations.without_model()
    arrived: set[str] = set()
    for sent in sents:
        _deliver(sent, relations, shapes, proof, lost, arrived)
    for sent in infer((key for key in left if key not in arrived), len(rules)):
        _deliver(sent, relations, shapes, proof, lost, arrived)
    prover = Prover(shapes, None if model is None else model.leaves, problems)
    for relation in relations.found.values():
        proof.blocks += prover.blocks(relation)
    proof.dropped |= relations.dropped
    proof.derived = prover.derived
    for key, reason in lost:
        if key not in arrived and key not in proof.dropped:
            problems.unexpected.append(Unexpected(key, reason))
    unexpected = {problem.key for problem in problems.unexpected}
    proof.allowed = tuple(key for key in unexpected if key in allow_unexpected)
    problems.unexpected = [problem for problem in problems.unexpected if problem.key not in allow_unexpected]
    _settle_ties(proof)
    if model is not None:
        _check_leaves(proof, model, allow_missing)
    _check_keys(proof, shapes, sents)
    used = {sent.number for sent in sents if sent.members}
    proof.idle = tuple(str(rule) for number, rule in enumerate(rules) if number not in used)
    return proof


def _deliver(
    sent: Sent,
    relations: Relations,
    shapes: Mapping[str, Shape],
    proof: Proof,
    lost: list[tuple[str, str]],
    arrived: set[str],
) -> None:
    """Land what was sent; what lands nowhere is `lost`, with the rule that sent it."""
    if sent.target is None:
        proof.dropped |= {member.key: str(sent.rule) for member in sent.members}
        return
    landed, nowhere, readings = land(sent, relations.names, shapes) if relations.names else relations.derive(sent)
    if readings:
        both = " or ".join(f"'{spelled(sent, reading)}'" for reading in readings)
        text = f"it can be read in {len(readings)} ways, and both fit: say which by a rule: {both}"
        keys = tuple(member.key for member in sent.members)
        proof.problems.conflicts.append(Conflict(f"'{sent.key_name}'", text, keys))
        arrived |= set(keys)
    for one in landed:
        relations.add(one)
        arrived |= {member.key for member, _ in one.arrived}
    reason = "" if sent.rule is INFERENCE else f"sent to '{sent.leaf_name}' by the rule '{sent.rule}'"
    hints = relations.model.hints
    lost += [(member.key, hints.get(sent.name(member), reason) if hints else reason) for member in nowhere]


def _settle_ties(proof: Proof) -> None:
    """A tie whose leaf has no other key is that leaf's key."""
    filled = {block.leaf for block in proof.blocks if not block.tie}
    for number, block in enumerate(proof.blocks):
        if block.tie and block.leaf not in filled:
            proof.blocks[number] = replace(block, tie=False)
            filled.add(block.leaf)


def _check_leaves(proof: Proof, model: Template, allow_missing: Patterns) -> None:
    """Every leaf element is written exactly once, unless the leaf may be missing or its layer fills it."""
    by_leaf: dict[str, list[Block]] = {}
    for block in proof.blocks:
        if not block.tie:
            by_leaf.setdefault(block.leaf, []).append(block)
    kept: list[str] = []
    problems = proof.problems
    faulty = {problem.leaf.split("[")[0] for problem in (*problems.mismatched, *problems.missing)}
    siblings, keys = _Siblings(by_leaf), model.keys()
    for name, spec in model.leaves.items():
        blocks = by_leaf.get(name)
        if blocks is None:
            if name in model.fills:
                continue
            if name in allow_missing:
                kept.append(name)
            elif name not in faulty:
                proof.problems.missing.append(Missing(name, siblings.key(name) or keys.get(name, name)))
            continue
        boxes: list[tuple[Block, int, Box]] = []
        for block in blocks:
            steps = leaf_steps(block.terms[0].index_map)
            boxes += [(block, place, Box(start, steps)) for place, start in enumerate(block.starts)]
        found = cover(spec.shape, [box for _, _, box in boxes])
        if not found:
            _report(proof.problems, name, spec.shape, boxes, found, faulty=name in faulty)
    proof.kept = tuple(kept)


class _Siblings:
    """Leaves whose names differ only in indices, to tell which key a missing one would have."""

    def __init__(self, by_leaf: Mapping[str, list[Block]]) -> None:
        self.groups: dict[str, dict[Shape, str]] = {}
        for leaf, blocks in by_leaf.items():
            text, indices = template(leaf)
            if indices:
                self.groups.setdefault(text, {})[indices] = blocks[0].terms[0].keys[0]

    def key(self, name: str) -> str | None:
        """The key that would fill the leaf `name`, as far as its siblings tell."""
        text, indices = template(name)
        return fit(self.groups.get(text, {}), indices)


def _report(
    problems: Problems, leaf: str, shape: Shape, boxes: list[tuple[Block, int, Box]], found: Cover, *, faulty: bool
) -> None:
    """Holes and overlaps of one leaf as problems."""
    samples = {box.start: block.terms[0].keys[place] for block, place, box in boxes}
    reported = {problem.leaf for problem in problems.mismatched}
    for hole in found.holes:
        label = leaf + spans(shape, hole)
        if label in reported or (faulty and not spans(shape, hole)):
            continue
        problems.missing.append(Missing(label, fit(samples, tuple(r.start for r in hole))))
    for overlap in found.overlaps:
        point = tuple(r.start for r in overlap)
        keys = tuple(dict.fromkeys(b.terms[0].keys[p] for b, p, x in boxes if _holds(x, shape, point)))
        text = "filled by " + " and by ".join(f"'{key}'" for key in keys)
        if not any(set(keys) <= set(conflict.keys) for conflict in problems.conflicts):
            problems.conflicts.append(Conflict(leaf + spans(shape, overlap), text, keys))


def _holds(box: Box, shape: Shape, point: Shape) -> bool:
    """Whether a box has an element at `point`."""
    one = Box(point, ((),) * len(shape))
    both = cover(shape, [box, one], limit=1)
    return any(all(n in r for n, r in zip(point, overlap, strict=True)) for overlap in both.overlaps)


def _check_keys(proof: Proof, shapes: Mapping[str, Shape], sents: Sequence[Sent]) -> None:
    """Every element of a key that is read in part is read, or dropped, exactly once."""
    boxes: dict[str, list[Box]] = {}
    partial: set[str] = set()
    for block in proof.blocks:
        for term in block.terms:
            steps = key_steps(term.index_map)
            whole = term.index_map.whole_key
            for key, start in zip(term.keys, term.starts, strict=True):
                if not whole:
                    partial.add(key)
                if not block.copy:
                    boxes.setdefault(key, []).append(Box(start, steps))
    for sent in sents:
        if sent.target is None:
            for member in sent.members:
                boxes.setdefault(member.key, []).append(key_box(sent.rule, shapes[member.key]))
                if sent.rule.keys[0].axes is not None:
                    partial.add(member.key)
    known = {key for problem in proof.problems.conflicts for key in problem.keys}
    known |= {problem.key for problem in proof.problems.mismatched}
    for key in sorted(partial - known):
        found = cover(shapes[key], boxes.get(key, []))
        shown = ", ".join(spans(shapes[key], hole) or "all" for hole in found.holes[:3])
        if found.holes and boxes.get(key):
            text = f"elements {shown} are read by no rule: to drop them on purpose, '{key} [axes] -> _'"
            proof.problems.unexpected.append(Unexpected(key, text))
        if found.overlaps:
            text = "some of its elements are read twice: a rule that reads them again says 'copy=true'"
            proof.problems.conflicts.append(Conflict(f"'{key}'", text, (key,)))
