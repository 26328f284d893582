"""Stacks of layers that a save writes as stacks, and the rule that would split them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import equinox as eqx

from bridge._text import quote
from bridge.api.content import Content
from bridge.mapping.indexmap import Shape
from bridge.mapping.template import Template, branch_names
from bridge.model.template import joined, modules_of

_INDICES = "lmnijk"


def stack_remarks(model: Any, template: Template, content: Content) -> Iterator[str]:
    """A remark for each stack of layers that was saved as one tensor, unless a plan of the caller says so."""
    if not content.unplanned:
        return
    keys: dict[str, int] = {}
    for found in content.held.values():
        for leaf in {piece.leaf for piece in found}:
            keys[leaf] = keys.get(leaf, 0) + 1
    modules = modules_of(model)
    said: set[str] = set()
    for leaf, depth in _depths(modules, template).items():
        lead = template.leaves[leaf].shape[:depth]
        if leaf in content.unplanned and 0 < keys.get(leaf, 0) < prod(lead):
            prefix = _outermost(leaf, lead, [name for name, _ in modules], template)
            if prefix not in said:
                said.add(prefix)
                index = ".".join(f"{{{name}}}" for name in _INDICES[:depth])
                rule = f"{joined(prefix, index)}.** -> {joined(prefix, '**')}"
                count = " x ".join(map(str, lead))
                yield (
                    f"leaf {quote(prefix)} is a stack of {count} layers, and is saved as it is: with the rule '{rule}' "
                    "each layer has keys of its own"
                )


def _depths(modules: Sequence[tuple[str, Any]], template: Template) -> dict[str, int]:
    """How many leading axes of leaves belong to a stack, if the leaves' layers tell."""
    found: dict[str, int] = {}
    for name, module in modules:
        for attribute, rank in _ranks(module).items():
            leaf = joined(name, attribute)
            if leaf in template.leaves and len(template.leaves[leaf].shape) > rank:
                found[leaf] = len(template.leaves[leaf].shape) - rank
    placed = [one for one in template.placed if one.tied_at is None and not one.whole]
    for one in placed:
        alone = sum(other.prefix == one.prefix for other in placed) == 1
        for rule in one.rules if one.depth and alone else ():
            if rule.leaf is not None:
                found |= {one.leaf(name): one.depth for name in branch_names(rule, -1)}
    return found


def _ranks(module: Any) -> Mapping[str, int]:
    """How many axes the arrays of one layer have, for layers with PyTorch's shapes."""
    if isinstance(module, eqx.nn.Linear):
        return {"weight": 2, "bias": 1}
    if isinstance(module, eqx.nn.Embedding):
        return {"weight": 2}
    if isinstance(module, eqx.nn.LayerNorm):
        return {"weight": len(module.shape), "bias": len(module.shape)}
    if isinstance(module, eqx.nn.Conv | eqx.nn.ConvTranspose):
        return {"weight": module.num_spatial_dims + 2}
    return {"weight": 1, "bias": 1} if isinstance(module, eqx.nn.GroupNorm) else {}


def _outermost(leaf: str, lead: Shape, modules: Sequence[str], template: Template) -> str:
    """The outermost module whose arrays all have these leading axes; the model itself only if no other has."""
    around = [name for name in modules if name and leaf.startswith(f"{name}.")]
    for prefix in around:
        below = [spec.shape for name, spec in template.leaves.items() if name.startswith(f"{prefix}.")]
        if all(shape[: len(lead)] == lead for shape in below):
            return prefix
    return around[-1] if around else ""
