"""Rules read from the leaf side: which keys, of which shapes, a model is saved as.

The keys found here go through the same proof as the keys of a checkpoint: what is written is what the rules would read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.indexmap import Shape
from bridge.mapping.keys import KeyTable
from bridge.mapping.land import Names, land
from bridge.mapping.relate import Relation, Relations
from bridge.mapping.send import send
from bridge.mapping.solve import ShapeConflict, solve
from bridge.mapping.template import Spec, Template
from bridge.planning.rivals import Rivals
from bridge.planning.spell import Speller
from bridge.rules.rule import Rule


def saved_specs(rules: Sequence[Rule], model: Template, *, first_wins: bool = False) -> dict[str, Spec]:
    """What every key looks like that `rules` name for the leaves of `model`; dtypes are the leaves'.

    A leaf that several rules name equally well goes to the first of them if `first_wins`.

    **Raises:** `PlanError` where the leaves do not tell a key's shape, or the rules do not tell its key.
    """
    found = Speller(model, None if first_wins else Rivals(rules))
    for number, rule in enumerate(rules):
        if rule.leaf is not None and not rule.copy:
            for side in range(len(rule.keys)):
                found.rule(rule, number, side)
    shapes: dict[str, Shape] = found.shapes
    unknown = np.dtype(np.uint8)  # only names and shapes count here
    sents, _ = send(rules, KeyTable.of({key: Spec(unknown, shape) for key, shape in shapes.items()}))
    names = Names(model)
    relations = Relations(names)
    for sent in sents:
        if sent.target is not None:
            for landed in land(sent, names).landed:
                relations.add(landed)
    specs: dict[str, Spec] = dict.fromkeys(shapes, Spec(next(iter(model.leaves.values())).dtype, ())) if shapes else {}
    for relation in relations.found.values():
        for key, spec in _specs(relation, model, shapes):
            specs[key] = spec
    _check_stacks(found, relations, model)
    return specs


def _check_stacks(found: Speller, relations: Relations, model: Template) -> None:
    """A stack of layers that no rule takes apart is nothing that PyTorch could read."""
    reached = {leaf for relation in relations.found.values() for leaf in relation.leaves.values()}
    for leaf, rule in found.stacked.items():
        if leaf not in reached:
            count = " × ".join(map(str, model.leaves[leaf].shape[: max(found.depths[leaf])]))
            layer = found.layers[leaf]
            raise PlanError(
                f"leaf {quote(leaf)} is a stack of {count} layers, and the rule '{rule}' does not say where their "
                f"index stands in the keys: write a rule that does, such as '{layer}.{{l}}.** -> {layer}.{{l}}.**'"
            )


def _specs(relation: Relation, model: Template, shapes: Mapping[str, Shape]) -> Iterator[tuple[str, Spec]]:
    """The keys of a relation with the shapes that its leaves give them, unless `shapes` knows better."""
    leaves = {branch: model.leaves[name] for branch, name in relation.leaves.items()}
    extents, rests = None, dict[int, Shape]()
    if relation.layout is not None:
        side = len(relation.layout.sides) - 1
        try:
            extents, rests = solve(relation.layout, {(side, branch): leaf.shape for branch, leaf in leaves.items()})
        except ShapeConflict as conflict:
            raise PlanError(
                f"leaf {quote(relation.leaves[0])} cannot be saved by the rule '{relation.rule}': {conflict}"
            ) from None
    for slot, arrived in relation.slots.items():
        leaf = leaves[slot.branch]
        shape = leaf.shape[relation.depth :]
        first = arrived[0].keys[0]
        if extents is not None:
            solved = shapes[first] or extents.shape((slot.side, slot.branch), rests.get(slot.branch))
            if solved is None:
                missing = ", ".join(f"{name}=…" for name in extents.unsolved())
                raise PlanError(
                    f"key {quote(first)} has a shape that the model does not tell: add '; {missing}' to the rule "
                    f"'{relation.rule}'"
                )
            shape = solved
        for landed in arrived:
            for key in landed.keys:
                yield key, Spec(leaf.dtype, shape)
