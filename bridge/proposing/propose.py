"""`propose`: keys and leaves come in, pairs come out, each certain or with its doubt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bridge.mapping.arrays import ArraySpec, ArrayTable
from bridge.mapping.template import Template
from bridge.proposing.assign import Assignment
from bridge.proposing.atom import Atom, Info
from bridge.proposing.doubt import LITTLE, Doubt, doubts
from bridge.proposing.fits import Fit
from bridge.proposing.fold import folded, key_infos
from bridge.proposing.fused import with_joined
from bridge.proposing.leaves import leaf_infos
from bridge.proposing.leftover import Drop as Drop
from bridge.proposing.leftover import leftover
from bridge.proposing.numbering import odd_ones
from bridge.proposing.orient import Ways, settled
from bridge.proposing.ports import Matched, by_ports, summed
from bridge.proposing.refine import refined
from bridge.proposing.score import Scores
from bridge.proposing.spelling import Spelling, all_values


class Pair(NamedTuple):
    """Keys and the leaves that they fill. `doubt` is empty where names, structure, counts and shapes settle it.

    `others` are keys that fit as well, folded: `h.{0..11}.ln_2.weight`. `straight` says that nothing is a guess but the
    order of the axes, and that the rule leaves them as they are; `near`, that the names have something in common.
    """

    rule: str
    keys: tuple[str, ...]
    leaves: tuple[str, ...]
    doubt: str = ""
    others: tuple[str, ...] = ()
    score: float = 0.0
    straight: bool = False
    near: bool = True


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
    infos, apart = leaf_infos(template, kinds or {}), summed(template)
    whole = np.array(
        [n for n, name in enumerate(leaves.names) if name not in apart and _wants(name, infos[n], template)], np.intp
    )
    sides = refined(folded(table, key_infos(table)), folded(leaves, infos, whole))
    made = Assignment(Scores(*with_joined(*sides)))
    pairs, values = _pairs(made, table, leaves), all_values(made.names.keys)
    rest = [atom for i, atom in enumerate(made.names.keys) if made.leaf_of[i] < 0]
    taken = list(by_ports(rest, [each.matched for each in pairs], template, values))
    found = [each.pair for each in pairs]
    found += [Pair(each.rule, tuple(each.key.names(table)), each.leaves) for each in taken]
    rest = [atom for atom in rest if all(atom is not each.key for each in taken)]
    drops = leftover(rest, table, made.names.leaves, values)
    used = {name for pair in (*found, *drops) for name in pair.keys}
    filled = {name for pair in found for name in pair.leaves}
    return Proposal(
        tuple(found),
        tuple(drops),
        tuple(name for name in leaves.names if name not in filled and name not in template.fills),
        tuple(name for name in table.names if name not in used),
    )


def _wants(name: str, info: Info, template: Template) -> bool:
    """Whether a leaf wants a key: counters and flags that a layer fills itself do not, unless PyTorch has them."""
    return name not in template.fills or bool(info.ports)


class _Chosen(NamedTuple):
    pair: Pair
    matched: Matched


def _pairs(made: Assignment, table: ArrayTable, leaves: ArrayTable) -> list[_Chosen]:
    keys, targets = made.names.keys, made.names.leaves
    leaf_of: list[int] = made.leaf_of.tolist()
    chosen = [(i, j) for i, j in enumerate(leaf_of) if j >= 0]
    roles = [said.role for said in made.names.said[0]]
    ways = settled([Ways(keys[i], targets[j], made.names.ways[i, j], roles[i]) for i, j in chosen])
    why, values = doubts(made), all_values(keys)
    matched = [Matched(keys[i], targets[j], way.fit) for (i, j), way in zip(chosen, ways, strict=True)]
    odd = odd_ones(matched)
    found: list[_Chosen] = []
    for n, ((i, j), way) in enumerate(zip(chosen, ways, strict=True)):
        key, leaf, doubt = keys[i], targets[j], why.get(i) or Doubt("")
        numbers = "other weights have other numbers of these for each other" if n in odd else ""
        others = [*filter(None, (doubt.why, numbers, key.why, _fused(key, leaf, way.fit)))]
        pair = Pair(
            str(Spelling(key, leaf, way.fit, values)),
            tuple(key.names(table)),
            tuple(leaf.names(leaves)),
            "; ".join([*others, way.why] if way.why else others),
            tuple(keys[n].shown for n in doubt.others),
            float(made.scores[i, j]),
            way.fit.plain and not others,
            doubt.why != LITTLE,
        )
        found.append(_Chosen(pair, matched[n]))
    return found


def _fused(key: Atom, leaf: Atom, fit: Fit) -> str:
    """Why a pair of which one side is several arrays is a guess, unless a layout takes the fused name itself."""
    if not (key.joined or leaf.joined) or (fit.plain and key.segments[-1] in leaf.info.ports):
        return ""
    return "headers do not tell in which order a fused array holds its parts: one after the other is assumed"
