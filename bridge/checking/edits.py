"""A plan's own rule for a leaf, edited: other axes, a constant added, another key; and proof that the edit does it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from bridge._errors import BridgeError, RuleError
from bridge.checking.pieces import LayerElements
from bridge.mapping.indexmap import IndexMap, strided
from bridge.planning.plan import Plan, make_plan
from bridge.rules.check import branch_count, branch_picks, picked_labels
from bridge.rules.options import Options, rule_text
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Choice, Hole, Index, JoinedParts, Name, NamePiece, Rest, Side, literal

_AXES = {1: "o", 2: "oi", 3: "oiw", 4: "oihw", 5: "oidhw"}
_OTHERS = "abcdefgh"


class Branch(NamedTuple):
    """A rule of a plan where its choices of names are made: what it says of one family of keys and leaves."""

    rule: Rule
    keys: tuple[Name, ...]
    leaf: Name

    @property
    def one(self) -> bool:
        """Whether the rule has no other branch."""
        return branch_count(self.rule.pairing) == 1


class Edit(NamedTuple):
    """What becomes of a rule: its leaf's own axes in another order, backwards, parts of the first in another order; a
    constant added, a factor; another key in its place.
    """

    order: tuple[int, ...] | None = None
    flip: tuple[int, ...] = ()
    parts: tuple[int, ...] | None = None
    add: float | None = None
    scale: float | None = None
    key: Name | None = None


def branch_of(plan: Plan, piece: LayerElements) -> Branch | None:
    """The rule of the plan that brings a key to a leaf."""
    for rule in plan.rules:
        for branch in branches_of(rule):
            if is_named(branch.leaf, piece.leaf) and any(is_named(key, piece.key) for key in branch.keys):
                return branch
    return None


def branches_of(rule: Rule) -> Iterator[Branch]:
    """The branches of a rule; none of one that drops its key."""
    if rule.leaf is None:
        return
    for number in range(branch_count(rule.pairing)):
        picks = branch_picks(rule.pairing, number)
        keys = tuple(_picked(side.name, picked_labels(rule.pairing, n, picks)) for n, side in enumerate(rule.keys))
        yield Branch(rule, keys, _picked(rule.leaf.name, picked_labels(rule.pairing, -1, picks)))


def _picked(name: Name, labels: Sequence[str]) -> Name:
    left = iter(labels)

    def piece(piece: NamePiece) -> NamePiece:
        return next(left) if isinstance(piece, Choice) else piece

    return Name(tuple(tuple(map(piece, segment)) for segment in name.segments))


def is_named(name: Name, text: str) -> bool:
    """Whether a name with indices can be that of a key or a leaf."""
    parts = ["".join(re.escape(p) if isinstance(p, str) else r"\d+" for p in segment) for segment in name.segments]
    return re.fullmatch(r"\.".join(parts), text) is not None


def edited(branch: Branch, edit: Edit, rank: int) -> str | None:
    """The rule with an edit, for one branch of it where it concerns one; the leaf has `rank` axes of its own."""
    rule = branch.rule
    assert rule.leaf is not None
    alone = not has_parts(rule) and not branch.one
    keys = list(rule.keys)
    if alone:
        keys = [Side(name, side.axes) for name, side in zip(branch.keys, rule.keys, strict=True)]
    leaf = Side(branch.leaf, rule.leaf.axes) if alone else rule.leaf
    flip = set(rule.flip)
    if edit.key is not None:
        if len(keys) > 1 or not (alone or branch.one):
            return None
        keys = [Side(edit.key, keys[0].axes)]
    if edit.order is not None or edit.flip or edit.parts is not None:
        keys, leaf = _with_axes(keys, leaf, rank, edit.parts is not None)
        axes = list(leaf.axes or ())
        if len(axes) < rank or any(isinstance(axis, Rest) for axis in axes):
            return None
        own = axes[len(axes) - rank :]
        flip ^= {str(own[axis]) for axis in edit.flip}
        if edit.order is not None:
            own = [own[axis] for axis in edit.order]
        lead = axes[: len(axes) - rank]
        if edit.parts is not None:
            labels = [_OTHERS[n] for n in range(len(edit.parts))]
            parts = Axis((JoinedParts(tuple(labels)),))
            keys = [Side(side.name, (parts, *(side.axes or ())[1:])) for side in keys]
            own[0] = Axis((JoinedParts(tuple(labels[n] for n in edit.parts)),))
        leaf = Side(leaf.name, (*lead, *own))
    scale, add = (new if new is not None else old for new, old in ((edit.scale, rule.scale), (edit.add, rule.add)))
    options = Options(rule.sizes, scale, add, tuple(sorted(flip)), rule.tie, rule.copy, rule.alt)
    try:
        return str(Rule(rule_text(keys, leaf, options)))
    except RuleError:  # an edit that the language does not have
        return None


def has_parts(rule: Rule) -> bool:
    """Whether axes tell the branches of a rule apart: then no branch stands for itself."""
    return any(isinstance(factor, JoinedParts) for side in (*rule.keys, rule.leaf) if side for factor in side.factors())


def _with_axes(keys: Sequence[Side], leaf: Side, rank: int, anew: bool) -> tuple[list[Side], Side]:
    """The sides with every axis named: where a rule names none, or leaves the rest open."""
    axes = leaf.axes
    if axes is not None and not anew and not any(isinstance(axis, Rest) for axis in axes):
        return list(keys), leaf
    used = {index.name for side in (*keys, leaf) for index in side.name.indices()}
    letters = [_AXES.get(rank, ""), _OTHERS, "stuvwxyz"]
    names = next(text for text in letters if len(text) >= rank and not used & set(text))[:rank]
    if axes is None:
        stays = {index.name for index in leaf.name.indices()}
        lead = [Axis((Index(index.name),)) for index in next(iter(keys)).name.indices() if index.name not in stays]
    else:
        named = [axis for axis in axes if not isinstance(axis, Rest)]
        lead = named[: len(named) - rank] if anew and len(named) == len(axes) else named
    own = [Axis((Index(name),)) for name in names]
    return [Side(side.name, tuple(own)) for side in keys], Side(leaf.name, (*lead, *own))


def renamed(branch: Branch, key: str, other: str) -> Name | None:
    """The name of another key with the indices of the rule's own, where it has the same numbers."""
    numbers, others = (re.findall(r"\d+", text) for text in (key, other))
    holes = [piece for piece in branch.keys[0].pieces() if isinstance(piece, Hole)]
    if numbers != others:
        return None if holes else literal(other)
    pattern = ["".join(re.escape(p) if isinstance(p, str) else r"(\d+)" for p in s) for s in branch.keys[0].segments]
    found = re.fullmatch(r"\.".join(pattern), key)
    if found is None:
        return None
    # Only numbers that are whole segments, each once, say which index they are.
    chosen = dict(zip(found.groups(), holes, strict=True))
    if len(chosen) < len(holes):
        return None
    return Name(tuple((chosen[text],) if text in chosen else (text,) for text in other.split(".")))


def proven(
    plan: Plan, branch: Branch, text: str, wanted: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray]
) -> bool:
    """Whether the plan with this rule in place of its own puts `wanted`, by leaf and place, where it should.

    **Arguments:**

    - `wanted`: the values of a leaf, of the shape of one layer, by `leaf[index]`.
    """
    branches = list(branches_of(branch.rule))
    others = [] if has_parts(branch.rule) else [one for one in branches if one.leaf != branch.leaf]
    rules: list[Rule] = []
    for rule in plan.rules:
        if rule == branch.rule:
            rules.append(Rule(text))
            rules += [Rule(found) for one in others if (found := edited(one, Edit(), 0)) is not None]
        else:
            rules.append(rule)
    try:
        made = make_plan(plan.specs, plan.template, plan.request._replace(rules=tuple(rules)), source=plan.source)
    except BridgeError:
        return False
    return made.ok and all(_holds(made, place, values, tensors) for place, values in wanted.items())


def _holds(plan: Plan, place: str, values: np.ndarray, tensors: Mapping[str, np.ndarray]) -> bool:
    leaf, _, index = place.partition("[")
    at = tuple(int(text) for text in index.rstrip("]").split(",") if text)
    whole = np.zeros(plan.leaves[leaf].shape, np.float64)
    for block in plan.blocks:
        if leaf not in set(block.leaves) or block.tie:
            continue
        for row, name in enumerate(block.leaves):
            if name == leaf:
                total = np.zeros(whole.shape)
                for key, index_map in block.maps(row):
                    if key not in tensors:
                        return False
                    total += moved(index_map, np.asarray(tensors[key], np.float64))
                mask = moved(next(block.maps(row))[1], np.ones(next(block.maps(row))[1].key_shape)) != 0
                whole = np.where(mask, total * block.scale + block.add, whole)
    found = whole[at]
    return found.shape == values.shape and bool(
        np.allclose(found, np.asarray(values, np.float64), rtol=1e-2, atol=1e-6)
    )


def moved(index_map: IndexMap, tensor: np.ndarray) -> np.ndarray:
    """A leaf of zeros with a tensor's elements at their places."""
    out = np.zeros(index_map.leaf_shape, tensor.dtype)
    tensor = np.ascontiguousarray(tensor)
    extents, key, leaf = strided(index_map)
    width = tensor.itemsize
    source, target = tensor.reshape(-1)[key.offset :] if key.offset else tensor.reshape(-1), out.reshape(-1)
    if not out.size or not tensor.size:
        return out
    to = as_strided(target[leaf.offset :], extents, [stride * width for stride in leaf.strides])
    to[...] = as_strided(source, extents, [stride * width for stride in key.strides])
    return out
