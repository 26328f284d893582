"""`propose`: keys and leaves come in, pairs come out, each certain or with its doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.mapping.arrays import ArraySpec, ArrayTable
from bridge.mapping.template import Template
from bridge.proposing.assign import Assignment
from bridge.proposing.atom import Atom, Info
from bridge.proposing.doubt import Doubt, doubts
from bridge.proposing.fits import Fit
from bridge.proposing.fold import folded
from bridge.proposing.fused import with_joined
from bridge.proposing.leaves import leaf_infos
from bridge.proposing.leftover import Drop as Drop
from bridge.proposing.leftover import leftover
from bridge.proposing.orient import Ways, settled
from bridge.proposing.refine import refined
from bridge.proposing.score import Scores
from bridge.proposing.spelling import Spelling, Values, all_values


class Pair(NamedTuple):
    """Keys and the leaves that they fill. `doubt` is empty where names, structure, counts and shapes settle it.

    `others` are keys that fit as well, folded: `h.{0..11}.ln_2.weight`.
    """

    rule: str
    keys: tuple[str, ...]
    leaves: tuple[str, ...]
    doubt: str = ""
    others: tuple[str, ...] = ()
    score: float = 0.0


class Proposal(NamedTuple):
    """What goes where, as far as it can be told."""

    pairs: tuple[Pair, ...]
    drops: tuple[Drop, ...]
    unmatched: tuple[str, ...]
    left: tuple[str, ...]


def propose(
    keys: ArrayTable | Mapping[str, ArraySpec], template: Template, kinds: Mapping[str, str] | None = None
) -> Proposal:
    """Which key is which leaf.

    **Arguments:**

    - `keys`: those that may be used.
    - `template`: the leaves that want a key, with the layouts of their layers.
    - `kinds`: for leaves that a layer of `eqx.nn` owns the name of its type.
    """
    table = keys if isinstance(keys, ArrayTable) else ArrayTable.of(keys)
    leaves = ArrayTable.of(template.leaves)
    key_atoms, leaf_atoms = refined(folded(table, _key_infos(table)), folded(leaves, leaf_infos(template, kinds or {})))
    key_atoms, leaf_atoms = with_joined(key_atoms, leaf_atoms)
    made = Assignment(Scores(key_atoms, leaf_atoms))
    pairs = [*_pairs(made, table, leaves)]
    taken = {name for pair in pairs for name in pair.keys}
    filled = {name for pair in pairs for name in pair.leaves}
    rest = [atom for i, atom in enumerate(key_atoms) if made.leaf_of[i] < 0]
    drops = leftover(rest, table, leaf_atoms, all_values(key_atoms))
    taken |= {name for drop in drops for name in drop.keys}
    return Proposal(
        tuple(pairs),
        tuple(drops),
        tuple(name for name in leaves.names if name not in filled and name not in template.fills),
        tuple(name for name in table.names if name not in taken),
    )


def _key_infos(table: ArrayTable) -> Sequence[Info]:
    known = [Info(spec.shape) for spec in table.specs]
    return [known[kind] for kind in table.kinds.tolist()]


def _pairs(made: Assignment, table: ArrayTable, leaves: ArrayTable) -> list[Pair]:
    keys, targets = made.names.keys, made.names.leaves
    leaf_of: list[int] = made.leaf_of.tolist()
    chosen = [(i, j) for i, j in enumerate(leaf_of) if j >= 0]
    ways = settled([Ways(keys[i], targets[j], made.names.ways[i, j], made.names.said[0][i].role) for i, j in chosen])
    why, values = doubts(made), all_values(keys)
    found: list[Pair] = []
    for (i, j), way in zip(chosen, ways, strict=True):
        doubt = why.get(i) or Doubt("")
        text = "; ".join(filter(None, (doubt.why, way.why, _fused(keys[i], targets[j], way.fit))))
        found.append(
            _pair(keys[i], targets[j], way.fit, values, table, leaves)._replace(
                doubt=text,
                others=tuple(keys[n].shown for n in doubt.others),
                score=float(made.scores[i, j]),
            )
        )
    return found


def _fused(key: Atom, leaf: Atom, fit: Fit) -> str:
    if not (key.joined or leaf.joined) or (fit.plain and key.segments[-1] in leaf.info.ports):
        return ""
    return "headers do not tell in which order a fused array holds its parts: one after the other is assumed"


def _pair(key: Atom, leaf: Atom, fit: Fit, values: Values, table: ArrayTable, leaves: ArrayTable) -> Pair:
    text = str(Spelling(key, leaf, fit, values))
    return Pair(text, tuple(key.names(table)), tuple(leaf.names(leaves)))
