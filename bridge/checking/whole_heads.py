"""Edits of a plan's own rules that lay out the rows of heads otherwise: rotary positions turn halves, or pairs."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.checking.counterparts import Counterpart
from bridge.checking.edits import Branch, branch_of, has_parts
from bridge.checking.whole_rules import RuleChange, spelled, with_others
from bridge.planning.plan import Plan
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Index, Side


def as_they_are(plan: Plan, layers: Sequence[Counterpart]) -> RuleChange | None:
    """The rules of some layers without the axes that lay out their elements otherwise."""
    found: dict[str, str] = {}
    row: list[Branch] = []
    for one in layers:
        for held in one.pieces.values():
            branch = branch_of(plan, held[0])
            if branch is None or len(held) != 1 or has_parts(branch.rule) or branch.rule.leaf is None:
                return None
            axes = branch.rule.leaf.axes
            if axes is None or not any(isinstance(axis, Axis) and len(axis.factors) > 1 for axis in axes):
                continue
            text = spelled(branch.rule, [Side(name) for name in branch.keys], Side(branch.leaf), ())
            if text is None:
                return None
            found[held[0].leaf] = text
            row.append(branch)
    return (
        _change(row, list(found.values()), "with their elements as they are stored", frozenset(found))
        if found
        else None
    )


def halves(plan: Plan, layers: Sequence[Counterpart], half: int, *, to_pairs: bool) -> RuleChange | None:
    """The rows of some layers, of heads of `2 * half` rows, from halves to pairs, or the other way."""
    row, texts, leaves = list[Branch](), list[str](), list[str]()
    for one in layers:
        for held in one.pieces.values():
            branch = branch_of(plan, held[0])
            if branch is None or len(held) != 1 or len(branch.keys) != 1 or branch.rule.leaf is None:
                return None
            rank = len(held[0].index_map.leaf_shape)
            if branch.rule.leaf.axes is not None or branch.rule.keys[0].axes is not None or rank not in (1, 2):
                return None
            if held[0].index_map.leaf_shape[0] % (2 * half):
                return None
            text = _laid_out(branch, rank, half, to_pairs=to_pairs)
            if text is None:
                return None
            row.append(branch)
            texts.append(text)
            leaves.append(held[0].leaf)
    what = "with each head's rows in pairs" if to_pairs else "with each head's rows in halves"
    return _change(row, texts, f"{what}, which is how rotary positions turn them", frozenset(leaves))


def _laid_out(branch: Branch, rank: int, half: int, *, to_pairs: bool) -> str | None:
    indices = [index.name for index in branch.keys[0].indices()]
    stays = {index.name for index in branch.leaf.indices()}
    h, t, d, m = _free(indices)
    stored, meant = (t, d), (d, t)
    if not to_pairs:
        stored, meant = meant, stored
    last = [Axis((Index(m),))] if rank == 2 else []
    key = Side(branch.keys[0], (Axis(tuple(map(Index, (h, *stored)))), *last))
    lead = [Axis((Index(name),)) for name in indices if name not in stays]
    leaf = Side(branch.leaf, (*lead, Axis(tuple(map(Index, (h, *meant)))), *last))
    return spelled(branch.rule, [key], leaf, tuple(sorted({**dict(branch.rule.sizes), t: 2, d: half}.items())))


def _free(indices: Sequence[str]) -> tuple[str, str, str, str]:
    """Four names of axes that are no indices."""
    left = [name for name in "htdmxyzuvwbcn" if name not in indices]
    return left[0], left[1], left[2], left[3]


def _change(row: Sequence[Branch], texts: Sequence[str], what: str, leaves: frozenset[str]) -> RuleChange | None:
    """The change that puts a text in the place of each branch."""
    held: dict[Rule, tuple[str, ...]] = {}
    for branch, text in zip(row, texts, strict=True):
        if has_parts(branch.rule):
            return None
        held[branch.rule] = (*held.get(branch.rule, ()), text)
    return RuleChange(with_others(held, row), what, leaves, tuple(texts))
