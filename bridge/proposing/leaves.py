"""What is known of a model's leaves beside their names: what PyTorch calls them, in what shape, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from bridge.mapping.arrays import Shape
from bridge.mapping.template import PlacedLayout, Template, branch_names
from bridge.proposing.atom import Info, number_of
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Index, Rest, Side, UnitAxis


def leaf_infos(template: Template, kinds: Mapping[str, str]) -> list[Info]:
    """For each leaf what is known of it; leaves of one kind share one object."""
    ports: dict[str, list[tuple[PlacedLayout, Rule, str]]] = {}
    for placed in template.placed:
        if placed.tied_at is not None or placed.whole:
            continue
        for rule in placed.rules:
            # A join or a sum of several keys is no leaf's own: such leaves go by their own names.
            if rule.leaf is not None and len(rule.keys) == 1 and len(branch_names(rule, -1)) == 1:
                own = branch_names(rule, -1)[0]
                ports.setdefault(placed.leaf(own), []).append((placed, rule, own))
    fused = _fused(template)
    known: dict[Info, Info] = {}
    found: list[Info] = []
    for name, spec in template.leaves.items():
        info = Info(spec.shape, layer=kinds.get(name, ""), number=number_of(spec.dtype))
        if name in fused:
            port, own, depth = fused[name]
            info = info._replace(fused=port, fused_own=own, fused_depth=depth)
        for placed, rule, own in ports.get(name, ())[:1]:
            shape = _port_shape(rule, spec.shape[placed.depth :])
            names = [branch_names(other, 0)[0] for p, other, _ in ports[name] if p.depth == placed.depth]
            if shape is not None:
                width = len(own.split("."))
                info = info._replace(ports=tuple(dict.fromkeys(names)), own=width, port_shape=shape, depth=placed.depth)
        found.append(known.setdefault(info, info))
    return found


def _fused(template: Template) -> dict[str, tuple[str, int, int]]:
    """For leaves that a layout fills from one key with others: its name, of how many segments, and the depth."""
    found: dict[str, tuple[str, int, int]] = {}
    for placed in template.placed:
        for rule in placed.rules if placed.tied_at is None and not placed.whole else ():
            names = branch_names(rule, -1) if rule.leaf is not None else ()
            if len(rule.keys) == 1 and len(names) > 1 and len(set(branch_names(rule, 0))) == 1:
                port = branch_names(rule, 0)[0]
                for name in names:
                    found[placed.leaf(name)] = port, len(name.split(".")), placed.depth
    return found


def _port_shape(rule: Rule, shape: Shape) -> Shape | None:
    """The shape that the key of a layout's rule has, for a leaf of `shape`; `None` where that is not plain."""
    assert rule.leaf is not None
    rest = len(shape) - sum(isinstance(axis, Axis) for axis in rule.leaf.axes or ())
    sides = [_flat(rule.leaf, rest), _flat(rule.keys[0], rest)]
    if sides[0] is None or len(sides[0]) != len(shape):
        return None
    extents: dict[str, int] = dict(rule.sizes)
    for names, extent in zip(sides[0], shape, strict=True):
        open_ = [name for name in names if name not in extents]
        known = prod(extents[name] for name in names if name in extents)
        if len(open_) > 1 or extent % known:
            return None
        if open_:
            extents[open_[0]] = extent // known
    if sides[1] is None or any(name not in extents for names in sides[1] for name in names):
        return None
    return tuple(prod(extents[name] for name in names) for names in sides[1])


def _flat(side: Side, rest: int) -> Sequence[Sequence[str]] | None:
    """The axes of a side as names of factors, `rest` of them for `...`; `None` where a part or a selection stands."""
    found: list[list[str]] = []
    axes = side.axes or (Rest(),)
    for axis in axes:
        if isinstance(axis, Axis):
            factors: list[str] = []
            for factor in axis.factors:
                if isinstance(factor, UnitAxis):
                    continue
                if not isinstance(factor, Index) or factor.selection is not None:
                    return None
                factors.append(factor.name)
            found.append(factors)
        else:
            found += [[f"...{n}"] for n in range(rest)]
    return found
