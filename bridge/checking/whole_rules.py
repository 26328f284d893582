"""Edits of a plan's own rules that a run may want: keys exchanged, layers in order, heads laid out otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bridge._errors import BridgeError, RuleError
from bridge.checking.counterparts import Counterpart
from bridge.checking.edits import Branch, Edit, branch_of, branches_of, edited, has_parts, is_named
from bridge.checking.pieces import LayerElements
from bridge.mapping.indexmap import IndexMap, strided
from bridge.planning.plan import Plan, make_plan
from bridge.rules.options import Options, rule_text
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Choice, Hole, Index, JoinedParts, Name, NamePiece, Segment, Selection, Side


class RuleChange(NamedTuple):
    """Rules in place of some of the plan's, what they do in words, and the leaves that they fill otherwise."""

    texts: Mapping[Rule, tuple[str, ...]]
    """For each rule that is replaced, what stands in its place; the first `shown` of them are what changes."""
    what: str
    leaves: frozenset[str]
    shown: tuple[str, ...]

    def plan(self, plan: Plan) -> Plan | None:
        """The plan with these rules; `None` where it is none."""
        try:
            rules = [made for rule in plan.rules for made in self._made(rule)]
            made = make_plan(plan.specs, plan.template, plan.request._replace(rules=tuple(rules)), source=plan.source)
        except BridgeError:
            return None
        return made if made.ok else None

    def _made(self, rule: Rule) -> list[Rule]:
        return [Rule(text) for text in self.texts[rule]] if rule in self.texts else [rule]


def leaf_values(plan: Plan, leaf: str, tensors: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """What a plan puts into a leaf; `None` where a tensor of it is not known."""
    rows = [
        (block, row) for block in plan.blocks if not block.tie for row, name in enumerate(block.leaves) if name == leaf
    ]
    held = [[(tensors.get(key), index_map) for key, index_map in block.maps(row)] for block, row in rows]
    known = [[(tensor, index_map) for tensor, index_map in terms if tensor is not None] for terms in held]
    if not rows or any(len(mine) < len(terms) for mine, terms in zip(known, held, strict=True)):
        return None
    whole = np.zeros(plan.leaves[leaf].shape, np.result_type(*(tensor.dtype for terms in known for tensor, _ in terms)))
    for (block, _), terms in zip(rows, known, strict=True):
        for number, (tensor, index_map) in enumerate(terms):
            add = block.add if number == 0 else 0
            part = tensor if block.scale == 1 and add == 0 else (tensor.astype(np.float64) * block.scale + add)
            _put(index_map, part, whole, more=number > 0)
    return whole


def _put(index_map: IndexMap, tensor: np.ndarray, out: np.ndarray, *, more: bool) -> None:
    """Write a tensor's elements to their places in a leaf; `more`: add them to what is there."""
    if not tensor.size or not out.size:
        return
    extents, key, leaf = strided(index_map)
    flat, target = np.ascontiguousarray(tensor).reshape(-1)[key.offset :], out.reshape(-1)[leaf.offset :]
    source = as_strided(flat, extents, [stride * flat.itemsize for stride in key.strides])
    place = as_strided(target, extents, [stride * target.itemsize for stride in leaf.strides])
    place[...] = (place + source if more else source).astype(out.dtype)


def exchanged(plan: Plan, layers: Sequence[Counterpart]) -> Iterator[RuleChange]:
    """Changes by which each of some layers takes the keys of the next one, and the last those of the first."""
    columns = [{local: held[0] for local, held in one.pieces.items() if len(held) == 1} for one in layers]
    if not columns[0] or any(column.keys() != columns[0].keys() for column in columns):
        return
    branches = [[branch_of(plan, column[local]) for column in columns] for local in columns[0]]
    known = [[branch for branch in row if branch is not None] for row in branches]
    if any(len(row) != len(layers) for row in known):
        return
    names = [one.name for one in layers]
    what = f"with the keys of {' and '.join(map(repr, names))} exchanged" if len(names) == 2 else ""
    what = what or f"with the keys of {', '.join(map(repr, names))} moved on by one"
    for spell in (_labels_of_keys, _labels_of_leaves, _names_of_keys):
        texts: dict[Rule, tuple[str, ...]] = {}
        shown: list[str] = []
        for row in known:
            found = spell(row)
            if found is None or any(rule in texts for rule in found[0]):
                break
            texts |= found[0]
            shown += found[1]
        else:
            yield RuleChange(texts, what, filled_by(plan, texts), tuple(dict.fromkeys(shown)))


_Spelled = tuple[dict[Rule, tuple[str, ...]], list[str]] | None


def _labels_of_keys(row: Sequence[Branch]) -> _Spelled:
    """Of one rule with a choice: the labels of its key side in another order."""
    rule = row[0].rule
    if any(branch.rule != rule for branch in row[1:]) or len(rule.keys) != 1 or rule.leaf is None:
        return None
    order = _next_of([_label(branch, rule.keys[0].name, branch.keys[0]) or _part(branch) for branch in row])
    if order is None:
        return None
    key = _relabelled(rule.keys[0], order)
    text = spelled(rule, [key], rule.leaf) if key != rule.keys[0] else None
    return None if text is None else ({rule: (text,)}, [text])


def _labels_of_leaves(row: Sequence[Branch]) -> _Spelled:
    """Likewise those of its leaf side."""
    rule = row[0].rule
    if any(branch.rule != rule for branch in row[1:]) or rule.leaf is None:
        return None
    labels = [_label(branch, rule.leaf.name, branch.leaf) for branch in row]
    order = _next_of([labels[-1], *labels[:-1]])
    order = None if order is None else {b: a for a, b in order.items()}
    if order is None:
        return None
    leaf = _relabelled(rule.leaf, order)
    text = spelled(rule, rule.keys, leaf) if leaf != rule.leaf else None
    return None if text is None else ({rule: (text,)}, [text])


def _names_of_keys(row: Sequence[Branch]) -> _Spelled:
    """A rule for each branch, with the key of the next."""
    texts: dict[Rule, tuple[str, ...]] = {}
    shown: list[str] = []
    for branch, other in zip(row, [*row[1:], row[0]], strict=True):
        name = _with_indices(other.keys[0], branch.keys[0])
        text = None if name is None or len(branch.keys) != 1 else edited(branch, Edit(key=name), 0)
        if text is None:
            return None
        shown.append(text)
        texts[branch.rule] = (*texts.get(branch.rule, ()), text)
    return with_others(texts, row), shown


def with_others(texts: dict[Rule, tuple[str, ...]], row: Sequence[Branch]) -> dict[Rule, tuple[str, ...]]:
    """What a rule says beside the branches that are replaced stays."""
    changed = {branch.leaf for branch in row}
    for rule, found in texts.items():
        others = [edited(one, Edit(), 0) for one in branches_of(rule) if one.leaf not in changed]
        texts[rule] = (*found, *(text for text in others if text is not None))
    return texts


def _next_of(labels: Sequence[str | None]) -> dict[str, str] | None:
    known = [label for label in labels if label is not None]
    if len(known) < len(labels) or len(set(known)) < len(known):
        return None
    return dict(zip(known, [*known[1:], known[0]], strict=True))


def _label(branch: Branch, name: Name, picked: Name) -> str | None:
    """The label that a branch picks of the only choice in a name."""
    found = [
        (piece, segment, place)
        for place, segment in enumerate(name.segments)
        for piece in segment
        if isinstance(piece, Choice)
    ]
    if len(found) != 1:
        return None
    choice, segment, place = found[0]
    for label in choice.labels:
        if tuple(label if piece is choice else piece for piece in segment) == picked.segments[place]:
            return label
    return None


def _part(branch: Branch) -> str | None:
    """The label of the part of an axis that is a branch's."""
    rule = branch.rule
    parts = [factor for factor in rule.keys[0].factors() if isinstance(factor, JoinedParts)]
    if len(parts) != 1 or len(rule.pairing) != 1:
        return None
    pair = rule.pairing[0]
    for number, one in enumerate(branches_of(rule)):
        if one.leaf == branch.leaf:
            return pair.labels[0][number]
    return None


def _relabelled(side: Side, order: Mapping[str, str]) -> Side:
    """A side whose choice has its labels in another order."""

    def labels(found: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(order.get(label, label) for label in found)

    def piece(piece: NamePiece) -> NamePiece:
        return Choice(labels(piece.labels)) if isinstance(piece, Choice) else piece

    name = Name(tuple(tuple(map(piece, segment)) for segment in side.name.segments))
    axes = None if side.axes is None else tuple(_axis(axis, labels) for axis in side.axes)
    return Side(name, axes)


def _axis(axis: Any, labels: Any) -> Any:
    if not isinstance(axis, Axis):
        return axis
    return Axis(tuple(JoinedParts(labels(f.labels)) if isinstance(f, JoinedParts) else f for f in axis.factors))


def _with_indices(name: Name, own: Name) -> Name | None:
    """A name of another rule, with the indices of this rule's in the place of its own."""
    mine, theirs = list(own.indices()), list(name.indices())
    if len(mine) != len(theirs):
        return None
    names = dict(zip([index.name for index in theirs], mine, strict=True))

    def piece(piece: NamePiece) -> NamePiece:
        return Hole(tuple(names[index.name] for index in piece.indices)) if isinstance(piece, Hole) else piece

    segments: list[Segment] = [tuple(map(piece, segment)) for segment in name.segments]
    return Name(tuple(segments))


def spelled(
    rule: Rule, keys: Sequence[Side], leaf: Side, sizes: tuple[tuple[str, int], ...] | None = None
) -> str | None:
    """A rule with other sides, and the options that it has; `None` where the language has no such rule."""
    options = Options(
        rule.sizes if sizes is None else sizes, rule.scale, rule.add, rule.flip, rule.tie, rule.copy, rule.alt
    )
    try:
        return str(Rule(rule_text(keys, leaf, options)))
    except RuleError:
        return None


def edit_of(plan: Plan, piece: LayerElements, edit: Edit, what: str) -> RuleChange | None:
    """The rule of one leaf with an edit."""
    branch = branch_of(plan, piece)
    text = None if branch is None else edited(branch, edit, len(piece.index_map.leaf_shape))
    if branch is None or text is None:
        return None
    held = {branch.rule: (text,)}
    alone = has_parts(branch.rule) or branch.one
    return RuleChange(held if alone else with_others(held, [branch]), what, filled_by(plan, held), (text,))


def in_order(plan: Plan) -> RuleChange | None:
    """Every list of picked indices that is not in order, in order: `{l[0,2,1]}` as `{l}`."""
    texts: dict[Rule, tuple[str, ...]] = {}
    for rule in plan.rules:
        if rule.leaf is not None:
            text = spelled(rule, [Side(_sorted(side.name), side.axes) for side in rule.keys], rule.leaf)
            if text is not None and text != str(rule):
                texts[rule] = (text,)
    shown = tuple(text for (text,) in texts.values())
    return RuleChange(texts, "with its layers in their order", filled_by(plan, texts), shown) if texts else None


def filled_by(plan: Plan, rules: Iterable[Rule]) -> frozenset[str]:
    """The leaves that some rules fill, in each stack that they are of."""
    names = [one.leaf for rule in rules for one in branches_of(rule)]
    return frozenset(leaf for leaf in plan.leaves if any(is_named(name, leaf) for name in names))


def _sorted(name: Name) -> Name:
    def index(index: Index) -> Index:
        picked = index.selection.picked if index.selection is not None else ()
        if len(picked) < 2 or list(picked) == sorted(picked):
            return index
        ordered = tuple(sorted(picked))
        return Index(index.name, None if ordered == tuple(range(len(ordered))) else Selection(picked=ordered))

    def piece(piece: NamePiece) -> NamePiece:
        return Hole(tuple(map(index, piece.indices))) if isinstance(piece, Hole) else piece

    return Name(tuple(tuple(map(piece, segment)) for segment in name.segments))
