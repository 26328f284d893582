"""How one atom of keys may be one atom of leaves: element counts, then extents, then every way to lay the axes out.

A fit says for each number in the keys' names which number or axis of the leaf it is, and for each axis of a key which
axes of the leaf it is made of, or which it is a part of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from math import prod
from typing import NamedTuple, TypeAlias

from bridge.mapping.arrays import Shape
from bridge.proposing.atom import Atom

Groups: TypeAlias = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
_MOST = 64  # ways that are looked at


class Fit(NamedTuple):
    """One way.

    - `numbers`: for each number of the keys' names the number of the leaf's name (`~n`) or its axis (`n`) that it is.
    - `unstacked`: for each number of the leaf's name that no number of the key is, by place, the key's axis that it is.
    - `groups`: what is left: pairs of key axes and leaf axes, of which one side has one and the other its factors.
    - `plain`: whether a rule without axes says it.
    """

    numbers: tuple[int, ...]
    unstacked: tuple[tuple[int, int], ...]
    groups: Groups
    plain: bool
    cost: float

    @property
    def straight(self) -> bool:
        """Whether the axes stand in the same order on both sides."""
        ordered = [axis for _, leaf in self.groups for axis in leaf]
        return ordered == sorted(ordered)

    @property
    def split(self) -> bool:
        """Whether an axis is several on the other side."""
        return any(len(key) != 1 or len(leaf) != 1 for key, leaf in self.groups)


def fits(key: Atom, leaf: Atom) -> list[Fit]:
    """Every way in which the keys may be the leaves, the likeliest first; none where counts or shapes disagree."""
    if key.elements != leaf.elements:
        return []
    found: dict[tuple[object, ...], Fit] = {}
    for numbers, unstacked in _numbers(key, leaf):
        used = {axis for axis in numbers if axis >= 0}
        taken = {axis for _, axis in unstacked}
        key_axes = [n for n in range(len(key.shape)) if n not in taken]
        leaf_axes = [n for n in range(len(leaf.shape)) if n not in used]
        lead = [axis for axis in numbers if axis >= 0]
        plain = _is_plain(key, leaf, lead, unstacked)
        ways = [_same(key_axes, leaf_axes)] if plain else []
        if not plain or leaf.info.port_shape is None:  # where a layout shapes what arrives, nothing else is meant
            shapes = [key.shape[n] for n in key_axes], [leaf.shape[n] for n in leaf_axes]
            ways += _placements(*shapes, key_axes, leaf_axes)
        for groups in ways:
            own = plain and groups == ways[0]
            fit = Fit(numbers, unstacked, groups, own, _cost(numbers, unstacked, groups, lead, leaf, own=own))
            found.setdefault((numbers, unstacked, _essence(groups, key.shape, leaf.shape) if not own else "plain"), fit)
            if own and key.shape == tuple(leaf.shape[n] for n in leaf_axes):  # the same map, spelled with axes
                found.setdefault((numbers, unstacked, _essence(groups, key.shape, leaf.shape)), fit)
            if len(found) >= _MOST:
                break
    return sorted(dict.fromkeys(found.values()), key=lambda fit: fit.cost)


def _essence(groups: Groups, key: Shape, leaf: Shape) -> object:
    """What a layout of axes does: axes of one element say nothing."""
    return frozenset(
        (tuple(n for n in a if key[n] != 1), tuple(n for n in b if leaf[n] != 1))
        for a, b in groups
        if prod(key[n] for n in a) != 1
    )


def _is_plain(key: Atom, leaf: Atom, lead: Sequence[int], unstacked: Sequence[tuple[int, int]]) -> bool:
    """Whether a rule without axes does it: numbers that are axes stand in front, and one layer's shape is the key's."""
    if unstacked or list(lead) != list(range(len(lead))):
        return False
    if key.joined or (leaf.joined and leaf.info.port_shape is None):
        return False
    if leaf.info.port_shape is not None:
        return leaf.info.depth == len(lead) and leaf.info.port_shape == key.shape
    return leaf.shape[len(lead) :] == key.shape


def _same(key_axes: Sequence[int], leaf_axes: Sequence[int]) -> Groups:
    return tuple(((a,), (b,)) for a, b in zip(key_axes, leaf_axes, strict=False))


def _numbers(key: Atom, leaf: Atom) -> Iterator[tuple[tuple[int, ...], tuple[tuple[int, int], ...]]]:
    """Every way to give each number of the keys a number or an axis of the leaf."""
    count = len(leaf.extents)
    for places in _assigned(key.extents, leaf.extents):
        # Numbers of the leaf that no number of the key is are axes of the key, the first ones.
        left = [n for n in range(count) if ~n not in places]
        free = [n for n, place in enumerate(places) if place is None]
        for taken in permutations(range(min(len(key.shape), 2)), len(left)):
            if any(key.shape[axis] != leaf.extents[n] for n, axis in zip(left, taken, strict=True)):
                continue
            for axes in permutations(range(len(leaf.shape)), len(free)):
                if all(leaf.shape[axis] == key.extents[n] for n, axis in zip(free, axes, strict=True)):
                    chosen = iter(axes)
                    numbers = tuple(next(chosen) if place is None else place for place in places)
                    yield numbers, tuple(zip(left, taken, strict=True))


def _assigned(key: Shape, leaf: Shape) -> Iterator[tuple[int | None, ...]]:
    """Numbers of the key that are numbers of the leaf (`~n`), in their order; `None` for the others."""
    options: list[list[int | None]] = [[None, *(~n for n, extent in enumerate(leaf) if extent == own)] for own in key]
    ways = [
        way
        for way in product(*options)
        if [~n for n in way if n is not None] == sorted({~n for n in way if n is not None})
    ]
    yield from sorted(ways, key=lambda way: sum(place is None for place in way))


def _placements(
    key: Sequence[int], leaf: Sequence[int], key_names: Sequence[int], leaf_names: Sequence[int]
) -> list[Groups]:
    """Every way to give each axis of the leaf to an axis of the key, the products equal; or the other way round."""
    found = list(_split(key, leaf))
    ways: list[Groups] = [
        tuple(((key_names[a],), tuple(leaf_names[b] for b in each)) for a, each in enumerate(way)) for way in found
    ]
    if len(key) > len(leaf):
        for way in _split(leaf, key):
            pairs = [(tuple(key_names[a] for a in each), (leaf_names[b],)) for b, each in enumerate(way)]
            ways.append(tuple(sorted(pairs)))
    kernel = len(key) >= 3 and len(key) == len(leaf)
    return [way for way in ways if not kernel or _keeps_kernel(way, dict(zip(key_names, key, strict=True)))]


def _split(whole: Sequence[int], parts: Sequence[int]) -> Iterator[list[list[int]]]:
    """Each of `parts` given to one of `whole`, whose products they are; their order within one is kept."""
    way: list[list[int]] = [[] for _ in whole]
    left = list(whole)

    def place(n: int) -> Iterator[list[list[int]]]:
        if n == len(parts):
            if all(each == 1 for each in left):
                yield [list(each) for each in way]
            return
        for w in range(len(whole)):
            if parts[n] and left[w] % parts[n] == 0 and (parts[n] > 1 or w == _unit_home(whole, way, n)):
                left[w] //= parts[n]
                way[w].append(n)
                yield from place(n + 1)
                way[w].pop()
                left[w] *= parts[n]

    if len(parts) <= 6 and len(whole) <= 6:
        yield from place(0)


def _unit_home(whole: Sequence[int], way: Sequence[Sequence[int]], n: int) -> int:
    """Where a unit axis goes: to the first unit axis of the other side that has none, else to the last axis."""
    for w, extent in enumerate(whole):
        if extent == 1 and not way[w]:
            return w
    return len(whole) - 1


def _keeps_kernel(way: Groups, extents: dict[int, int]) -> bool:
    """Axes of one extent beyond the first two of a kernel are its height and width, which keep their order."""
    small = sorted(extents.values())[: len(extents) - 2]
    order: dict[int, list[int]] = {}
    for key, leaf in way:
        if len(key) == 1 and len(leaf) == 1 and extents[key[0]] in small and extents[key[0]] > 1:
            order.setdefault(extents[key[0]], []).append(leaf[0])
    return all(each == sorted(each) for each in order.values())


def _cost(
    numbers: Sequence[int],
    unstacked: Sequence[tuple[int, int]],
    groups: Groups,
    lead: Sequence[int],
    leaf: Atom,
    *,
    own: bool,
) -> float:
    """How unusual a way is."""
    ordered = [axis for _, each in groups for axis in each]
    cost = 0.0 if own else 0.05
    cost += 0.0 if ordered == sorted(ordered) else 0.1
    cost += 0.15 * sum(len(a) != 1 or len(b) > 1 for a, b in groups)
    cost += 0.2 * (list(lead) != list(range(len(lead)))) + 0.4 * len(unstacked)
    if leaf.info.depth is not None and leaf.info.depth != len(lead):
        cost += 0.5
    return cost
