"""Whether pairs agree on which number of keys is which of leaves: layer 1 is not layer 0 for one weight alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bridge.mapping.pattern import MARK
from bridge.proposing.atom import Atom
from bridge.proposing.ports import Matched

_FEW = 4  # a number that goes elsewhere less often than one in so many is an error of its own
_Node = tuple[tuple[str, ...], tuple[str, ...]]


def odd_ones(pairs: Sequence[Matched]) -> frozenset[int]:
    """The pairs, by place, whose numbers are not those that most others have for the same two nodes."""
    moves = [list(_moves(pair)) for pair in pairs]
    seen: dict[_Node, Counter[tuple[int, int]]] = {}
    for found in moves:
        for node, values in found:
            seen.setdefault(node, Counter()).update(values)
    # Where most pairs have one node of the leaves for a node of the keys, another one is as odd as another number.
    usual: dict[tuple[str, ...], Counter[tuple[str, ...]]] = {}
    for found in moves:
        for (key, leaf), _ in found:
            usual.setdefault(key, Counter())[leaf] += 1
    return frozenset(
        n
        for n, found in enumerate(moves)
        for node, values in found
        if not _agrees(values, seen[node]) or _FEW * usual[node[0]][node[1]] <= max(usual[node[0]].values())
    )


def _agrees(values: Sequence[tuple[int, int]], seen: Counter[tuple[int, int]]) -> bool:
    """Whether each number goes where it goes nearly always, and nearly nothing else goes there."""
    for one, other in values:
        count = seen[one, other]
        rivals = (times for (a, b), times in seen.items() if (a == one) != (b == other))
        if any(_FEW * times >= count for times in rivals):
            return False
    return True


def _moves(pair: Matched) -> Iterator[tuple[_Node, list[tuple[int, int]]]]:
    """For numbers in the names of both the nodes where they stand, and which becomes which."""
    key, leaf = _numbers(pair.key), _numbers(pair.leaf)
    at = dict(zip(_marks(pair.key), pair.fit.numbers, strict=True))
    marks = _marks(pair.leaf)
    used = {marks[~place] for place in at.values() if place < 0}
    free = [n for n in leaf if n not in used and MARK not in pair.leaf.segments[n]]
    plain = [n for n in key if n not in at]
    couples = [(n, marks[~place]) for n, place in at.items() if place < 0]
    couples += zip(plain, free, strict=False)  # the outermost first
    for n, m in couples:
        node = _home(pair.key, n), _home(pair.leaf, m)
        yield node, list(zip(key[n], leaf[m], strict=True))


def _numbers(atom: Atom) -> dict[int, list[int]]:
    """By segment the numbers that stand there, one or many."""
    columns = iter(atom.columns)
    found: dict[int, list[int]] = {}
    for n, segment in enumerate(atom.segments):
        if MARK in segment:
            found[n] = next(columns).tolist()
        elif segment.isdigit():
            found[n] = [int(segment)]
    return found


def _marks(atom: Atom) -> list[int]:
    return [n for n, segment in enumerate(atom.segments) if MARK in segment]


def _home(atom: Atom, n: int) -> tuple[str, ...]:
    """The node of a number: what stands before it, without other numbers."""
    return tuple("" if MARK in segment or segment.isdigit() else segment for segment in atom.segments[:n])
