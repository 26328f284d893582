"""The content of a save: which keys, with which dtypes, from which leaves; and what is left out."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.api.base import BaseCheckpoint, check_base
from bridge.api.unread import UnreadKeys, planned
from bridge.mapping.arrays import ArraySpec, ArrayTable
from bridge.mapping.block import filled
from bridge.mapping.cover import spans
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.template import Spec, Template
from bridge.planning.partly import Box
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.planning.policy import DtypePolicy, refusal
from bridge.rules.rule import Rule
from bridge.source.checkpoint import Checkpoint
from bridge.stream.gather import HostLeaf, LeafElements, TermRows, agrees, pieces

Pieces = Mapping[str, Sequence[LeafElements]]
"""For every key, where the leaves have its elements."""


class LeftOut(NamedTuple):
    """A leaf or key that was not saved, or not with its own values, and the reason."""

    name: str
    reason: str


class Content:
    """What is written.

    - `plan`: how a load reads the keys: the caller's plan, or the plan of the caller's rules.
    - `held`: where the leaves have the elements of each key. `specs`: the written spec of each key, in the same order.
    - `left_out`: the leaves that the caller leaves out. `unplanned`: leaves that are saved by rules or under their own
        names, and not by a plan of the caller.
    - `base`: what is copied from a base, if there is one.
    - `unsaved`: the boxes of leaves that no key holds.
    """

    def __init__(
        self,
        plan: Plan,
        held: Pieces,
        specs: Mapping[str, Spec],
        left_out: frozenset[str],
        unplanned: frozenset[str],
        base: BaseCheckpoint | None,
        unsaved: Mapping[str, Sequence[Box]],
    ) -> None:
        self.plan, self.held, self.specs, self.left_out = plan, held, specs, left_out
        self.unplanned, self.base, self.unsaved = unplanned, base, unsaved

    @classmethod
    def of(
        cls,
        template: Template,
        leaves: Mapping[str, Any],
        rules: tuple[Rule, ...] | Plan,
        target: str | os.PathLike[str],
        leave_out: Sequence[str] | str,
        dtype: Any,
        ckpt: Checkpoint | None = None,
    ) -> Content:
        """Decide the content; `ckpt` is the base. **Raises:** `PlanError` if model and rules or plan do not fit."""
        left_out = _chosen(leave_out, leaves)
        by_rules = not isinstance(rules, Plan) and ckpt is None
        own_rules = () if isinstance(rules, Plan) else rules
        if isinstance(rules, Plan):
            plan = rules
        elif ckpt is None:
            plan = planned(template, rules, target, left_out)
        else:
            any_name = NamePatterns.of("**")  # what the base lacks is new, what no leaf takes it hands over
            request = PlanRequest(rules, allow_missing=any_name, allow_unexpected=any_name)
            plan = make_plan(ckpt.specs, template, request, source=ckpt.source)
            plan.problems.unexpected.clear()  # elements of keys are handed over too
        if ckpt is not None:
            check_base(ckpt, plan)
        _check_model(plan, leaves, left_out)
        held = _without(pieces(plan.blocks), left_out)
        specs = _specs(plan, held, leaves, dtype, by_rules=by_rules)
        named = {*filled(plan.blocks), *plan.fills, *left_out}
        unplanned = frozenset(leaves.keys() if by_rules else leaves.keys() - named)
        unsaved = plan.partly if by_rules else {}
        if not by_rules and (unplanned or plan.partly):
            beside = UnreadKeys.of(plan, template, own_rules, target, named, left_out)
            beside.check_apart(specs)
            own = pieces(beside.blocks)
            held |= own
            unsaved = beside.unsaved
            specs |= _specs(beside.plan, own, leaves, dtype, by_rules=True, stored=beside.stored)
        _policy(dtype).check(specs, "key")
        base = None if ckpt is None else BaseCheckpoint(ckpt, specs, held)
        return cls(plan, held, specs if base is None else base.specs(specs), left_out, unplanned, base, unsaved)

    def copies(self) -> Iterator[tuple[str, LeafElements]]:
        """Leaves that are copies of a key which is saved from another leaf: the key, and their elements of it."""
        for block in (block for block in self.plan.blocks if block.copy):
            terms = [TermRows(block, term, zero=False) for term in block.terms]
            for row, leaf in enumerate(block.leaves):
                for rows in terms:
                    key = rows.term.keys[row]
                    names = {piece.leaf for piece in self.held.get(key, ())}
                    if names and leaf not in names and leaf not in self.left_out:
                        yield key, LeafElements(rows, row)

    def check_copies(self, leaves: Mapping[str, Any]) -> None:
        """**Raises:** `PlanError` if a copy no longer has the values of the leaf that is saved."""
        for key, copy in self.copies():
            names = {copy.leaf, *(piece.leaf for piece in self.held[key])}
            whole = {name: [HostLeaf(np.asarray(leaves[name]))] for name in names}
            if not agrees(copy, self.held[key], whole, self.specs[key].dtype):
                raise self.drifted(key, copy)

    def drifted(self, key: str, copy: LeafElements) -> PlanError:
        """The error for a copy with other values than the saved leaf: the values of one of the two would be lost."""
        return PlanError(
            f"leaf {quote(copy.leaf)}",
            (
                f"is a copy of key {quote(key)}, which is saved from leaf {quote(self.held[key][0].leaf)}, "
                "but their values differ now"
            ),
            (
                f"Save by rules in which {quote(copy.leaf)} has a key of its own, or leave it out, leave_out="
                f"{[copy.leaf]}"
            ),
        )

    def not_written(self, leaves: Mapping[str, Any]) -> Iterator[LeftOut]:
        """Leaves and keys that the files do not hold, or not with their own values."""
        copied: dict[str, str] = {}
        for block in self.plan.blocks:
            if block.copy:
                copied |= zip(reversed(block.leaves), reversed(block.terms[0].keys), strict=True)
        saved = {piece.leaf for found in self.held.values() for piece in found} if copied else set[str]()
        for name in leaves:
            if name in self.left_out:
                yield LeftOut(name, "left out, as 'leave_out' says")
            elif name in copied and name not in saved:
                key = copied[name]
                yield LeftOut(name, f"a copy: key {quote(key)} is saved from leaf {quote(self.held[key][-1].leaf)}")
            elif name in self.unsaved:
                for hole in self.unsaved[name]:
                    place = spans(tuple(leaves[name].shape), hole)
                    yield LeftOut(f"{name}{place}", "no key holds this part of the leaf")
        if self.base is None and self.unplanned >= leaves.keys():
            yield from self._without_shape()
        for rule in (Rule(text) for text in self.plan.idle if self.base is None):
            if rule.zeros:
                yield LeftOut(str(rule.keys[0].name), f"no leaf tells its shape to the rule '{rule}': save with base=")
        handed = frozenset[str]() if self.base is None else self.base.keys | self.base.partial
        yield from (LeftOut(key, reason) for key, reason in self.plan.lossy if key not in handed)
        for key in self.plan.allowed if self.base is None else ():
            yield LeftOut(key, "unexpected, and allowed to be")

    def _without_shape(self) -> Iterator[LeftOut]:
        """Keys that layouts drop, and that a save by rules cannot write as zeros."""
        for layer in () if self.plan.template is None else self.plan.template.placed:
            for rule in layer.rules if layer.tied_at is None and not layer.whole else ():
                if rule.leaf is None and rule.zeros and rule.keys[0].axes is None:
                    name = str(rule.keys[0].name)
                    yield LeftOut(layer.key(name), f"its layout does not say its shape: '{name} [] -> _ ; zeros=true'")


def _chosen(leave_out: Sequence[str] | str, leaves: Mapping[str, Any]) -> frozenset[str]:
    """The leaves that are not written. **Raises:** `PlanError` for a pattern that matches none."""
    patterns = NamePatterns.of(leave_out)
    for text in patterns.texts:
        one = NamePatterns.of(text)
        if not any(name in one for name in leaves):
            raise PlanError(
                f"leave_out={quote(text)}",
                "matches no leaf of the model to save",
                "Leave that pattern out, or correct it",
            )
    return frozenset(name for name in leaves if name in patterns)


def _check_model(plan: Plan, leaves: Mapping[str, Any], left_out: Container[str]) -> None:
    """**Raises:** `PlanError` if the model lacks a leaf that the plan filled."""
    plan.check()
    for name in filled(plan.blocks):
        if name not in leaves:
            raise PlanError(
                "the model",
                f"has no leaf {quote(name)}, which the plan fills",
                "Save the model that the plan was made for",
            )
        shape, wanted = tuple(leaves[name].shape), plan.leaves[name].shape
        if shape != wanted and name not in left_out:
            raise PlanError(
                f"leaf {quote(name)}", f"has shape {shape}, the plan has {wanted}", "Make a plan for this model"
            )


def _without(held: Pieces, left_out: frozenset[str]) -> dict[str, Sequence[LeafElements]]:
    """The keys without elements in a leaf that is left out. **Raises:** `PlanError` if only some of a key's are."""
    if not left_out:
        return dict(held)
    kept: dict[str, Sequence[LeafElements]] = {}
    for key, found in held.items():
        out = [piece.leaf for piece in found if piece.leaf in left_out]
        if not out:
            kept[key] = found
        elif len(out) < len(found):
            other = next(piece.leaf for piece in found if piece.leaf not in left_out)
            raise PlanError(
                f"key {quote(key)}",
                f"has elements of leaf {quote(out[0])}, which is left out, and of {quote(other)}",
                "Leave out both, or neither",
            )
    return kept


def _policy(dtype: Any) -> DtypePolicy:
    return DtypePolicy.of(None if isinstance(dtype, str) and dtype == "model" else dtype)


def _specs(
    plan: Plan,
    held: Pieces,
    leaves: Mapping[str, Any],
    dtype: Any,
    *,
    by_rules: bool,
    stored: Mapping[str, np.dtype] = {},
) -> dict[str, Spec]:
    """The written spec of every key, in the checkpoint's order. `stored`: the dtypes of the keys of some leaves."""
    policy = _policy(dtype)
    specs: dict[str, Spec] = {}
    consumed = plan.consumed
    table = ArrayTable.of(plan.specs)
    dtypes = {name: np.dtype(leaf.dtype) for name, leaf in leaves.items()}
    known: dict[tuple[int, np.dtype], Spec] = {}
    for key, kind in zip(table.names, table.kinds.tolist(), strict=True):
        read = table.specs[kind]
        if key in consumed:
            specs[key] = Spec(read.dtype, read.shape)
        elif key in held:
            own = dtypes[held[key][0].leaf]
            # Keys of one spec whose leaves have one dtype get one spec, unless a pattern has a say in it.
            leaf = held[key][0].leaf
            spec = None if policy.by_leaf or leaf in stored else known.get((kind, own))
            if spec is None and leaf in stored:
                like = Spec(stored[leaf], read.shape)
                spec = _spec(key, like, own, policy, as_is=dtype == "model")
            elif spec is None:
                spec = known[kind, own] = _spec(key, read, own, policy, as_is=by_rules or dtype == "model")
            specs[key] = spec
    return specs


def _spec(key: str, read: ArraySpec, own: np.dtype, policy: DtypePolicy, *, as_is: bool) -> Spec:
    """The written spec of a key whose leaf has dtype `own`. **Raises:** `PlanError` if it cannot be written."""
    stored = own if as_is else read.dtype
    wanted = policy.dtype(key, stored, stored)
    reason = refusal(own, wanted) if not (own.kind in "iu" and wanted.kind in "iu") else None
    if reason is not None:
        raise PlanError(
            f"key {quote(key)}",
            f"cannot be saved as {wanted.name}: {reason[0]}",
            "Save without dtype=, or give another one",
        )
    return Spec(wanted, read.shape)
