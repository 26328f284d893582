"""Where a rule with axes does something else with a leaf than the layout of its layer would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bridge._errors import PlanError
from bridge.mapping.arrays import Arrays, ArrayTable
from bridge.mapping.bind import INFERENCE
from bridge.mapping.block import Block
from bridge.mapping.indexmap import IndexMap
from bridge.mapping.keynames import KeySpeller
from bridge.mapping.landing import ModelNames
from bridge.mapping.pattern import NamePattern, NamePatterns
from bridge.mapping.template import PlacedLayout, Spec, Template, branch_names
from bridge.planning.prove import prove
from bridge.rules.rule import Rule

if TYPE_CHECKING:
    from bridge.planning.plan import Plan

KeyMaps = frozenset[object]


def set_aside(plan: Plan) -> Mapping[str, str]:
    """The leaves whose layouts rules with axes have switched off, each with the type of its layer."""
    if plan.set_aside or plan.template is None:
        return plan.set_aside
    axes = [rule for rule in plan.request.rules if rule.leaf is not None and rule.leaf.axes is not None]
    patterns = [NamePattern(side.name) for rule in axes for side in rule.keys]
    layers, found = _LayerLayouts(plan.template), dict[str, str]()
    for block in plan.blocks if layers.placed else ():
        # Rules with axes have blocks of their own.
        if any(pattern.match(block.terms[0].keys[0]) is not None for pattern in patterns):
            for leaf in Arrays(block.leaves.table, np.unique(block.leaves.numbers)):
                layer = layers.other(leaf, block)
                if layer is not None:
                    found[leaf] = layer
    return found


class _LayerLayouts:
    """The layouts of a model, and what they would do."""

    def __init__(self, model: Template) -> None:
        self.model = model
        self.placed: dict[str, list[tuple[PlacedLayout, Rule]]] = {}
        for placed in model.placed:
            for rule in placed.rules if placed.kind and placed.tied_at is None else ():
                for name in branch_names(rule, -1) if rule.leaf is not None else ():
                    self.placed.setdefault(placed.leaf(name), []).append((placed, rule))
        self.known: dict[object, KeyMaps] = {}

    def other(self, leaf: str, block: Block) -> str | None:
        """The type of the layer whose layout would fill a leaf through other maps than those of a block."""
        layer = None
        for placed, rule in self.placed.get(leaf, ()):
            maps = self.maps(placed, rule, leaf)
            if any(_signed(term.index_map, placed.depth) in maps for term in block.terms):
                return None
            layer = placed.kind if maps else layer
        return layer

    def maps(self, placed: PlacedLayout, rule: Rule, leaf: str) -> KeyMaps:
        """The maps by which a rule of a layout fills a leaf of one layer. Layers of one type and shape are alike."""
        names = {placed.leaf(name): f"layer.{name}" for name in branch_names(rule, -1)}
        specs = {here: self.model.leaves[name] for name, here in names.items()}
        own = {name: Spec(spec.dtype, spec.shape[placed.depth :]) for name, spec in specs.items()}
        alike = (rule, names[leaf], tuple(own.items()))
        if alike not in self.known:
            here = PlacedLayout("layer", (rule,))
            self.known[alike] = _maps(Template(own, (here,)), names[leaf])
        return self.known[alike]


def _maps(model: Template, leaf: str) -> KeyMaps:
    """The maps that fill a leaf of a model of one layer, without any rules."""
    try:
        found = list(KeySpeller(ModelNames(model)).spell(INFERENCE))
    except PlanError:
        return KeyMaps()
    specs: dict[str, Spec] = {key: spelled.spec for spelled in found for key in spelled.keys}
    any_name = NamePatterns.of("**")
    proof = prove(ArrayTable.of(specs), model, (), allow_missing=any_name, allow_unexpected=any_name)
    blocks: Sequence[Block] = [block for block in proof.blocks if leaf in set(block.leaves)]
    return KeyMaps(_signed(term.index_map, 0) for block in blocks for term in block.terms)


def _signed(index_map: IndexMap, depth: int) -> object:
    """What maps have in common that differ only in where they start; `depth` axes of the leaf are a stack's."""
    loops = [loop._replace(leaf_axis=loop.leaf_axis - depth) for loop in index_map.loops if loop.extent != 1]
    return index_map.key_shape, index_map.leaf_shape[depth:], tuple(sorted(loops))
