"""Keys that a layer's layout takes by PyTorch's name for them, once it is known which module is which layer.

The two biases of a recurrent layer are added up, `num_batches_tracked` is used up: no leaf is called like these, or has
their shape alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bridge._text import template as template_of
from bridge.mapping.template import Template, branch_names
from bridge.proposing.atom import Atom
from bridge.proposing.fits import Fit
from bridge.proposing.spelling import Spelling, Values, named


class Matched(NamedTuple):
    """A pair that is settled."""

    key: Atom
    leaf: Atom
    fit: Fit


class Taken(NamedTuple):
    """A key that a layout takes: the rule, and the leaves that it helps to fill."""

    key: Atom
    rule: str
    leaves: tuple[str, ...]


def summed(template: Template) -> frozenset[str]:
    """Leaves that a layout makes of several keys: none of these fills them alone."""
    return frozenset(
        placed.leaf(name)
        for placed in template.placed
        for rule in placed.rules
        if len(rule.keys) > 1 and rule.leaf is not None
        for name in branch_names(rule, -1)
    )


def by_ports(rest: Sequence[Atom], matched: Sequence[Matched], template: Template, values: Values) -> Iterator[Taken]:
    """Keys without a leaf that stand in a module of which another key went to a layer that knows their name."""
    if not rest or not template.placed:
        return
    ports = _ports(template)
    homes: dict[tuple[str, ...], Matched] = {}
    for each in matched:
        homes.setdefault(each.key.segments[:-1], each)
    for atom in rest:
        each = homes.get(atom.segments[:-1])
        if each is None or atom.extents != each.key.extents:
            continue
        width = max(each.leaf.info.own, 1)
        segments = (*each.leaf.segments[:-width], atom.segments[-1])
        found = ports.get(Atom(segments, each.leaf.numbers, each.leaf.ids, each.leaf.info).text)
        if found is None:
            continue
        spelling = Spelling(atom, each.leaf, each.fit, values)
        leaf = named(segments, spelling.leaf_letters, spelling.leaf_selections)
        yield Taken(atom, f"{spelling.key_name()} -> {leaf}", tuple(found))


def _ports(template: Template) -> dict[str, list[str]]:
    """By name without its numbers: the names that layouts take, and the leaves that each fills."""
    found: dict[str, list[str]] = {}
    for placed in template.placed:
        for rule in placed.rules if not placed.whole else ():
            for side in range(len(rule.keys)):
                names = branch_names(rule, -1) if rule.leaf is not None else ()
                for name in branch_names(rule, side):
                    entry = found.setdefault(template_of(placed.key(name))[0], [])
                    entry += [placed.leaf(leaf) for leaf in names]
    return found
