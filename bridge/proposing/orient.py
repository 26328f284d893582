"""Which of several ways in which a key fits its leaf is meant. A square matrix does not tell; others of its kind may.

Evidence are pairs that fit in one way only: of the same kind of weight, and for numbers of the same node of the keys.
Without any, a layer of `eqx.nn` says that its leaf is as PyTorch has it; else the way is a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bridge.proposing.atom import Atom
from bridge.proposing.fits import Fit
from bridge.proposing.meanings import role_of

_MATRICES = ("Linear", "Conv", "ConvTranspose", "Embedding", "LSTMCell", "GRUCell")


class Settled(NamedTuple):
    """A pair's way, and why it is a guess, if it is one."""

    fit: Fit
    why: str = ""


class Ways(NamedTuple):
    """A pair, all ways in which it fits, and the role that the key's name gives it."""

    key: Atom
    leaf: Atom
    fits: Sequence[Fit]
    role: str = ""


def settled(pairs: Sequence[Ways]) -> list[Settled]:
    """The way of each pair."""
    places = _Evidence()
    for pair in pairs:
        fits = _by_layer(pair)
        for kind in _places(pair):
            places.add(kind, {_placed(pair, fit, kind) for fit in fits})
    left = [[f for f in _by_layer(p) if all(places.allows(k, _placed(p, f, k)) for k in _places(p))] for p in pairs]
    left = [_by_heads(p, each or list(_by_layer(p))) for each, p in zip(left, pairs, strict=True)]
    turns = _Evidence()
    for pair, fits in zip(pairs, left, strict=True):
        if len(_essential(pair.key.shape)) > 1:
            turns.add(_kind(pair), {_turn(pair, fit) for fit in fits})
    return [_settle(pair, fits, turns) for pair, fits in zip(pairs, left, strict=True)]


class _Evidence:
    """What pairs that fit in one way have in common, by kind."""

    def __init__(self) -> None:
        self.seen: dict[object, set[object]] = {}

    def add(self, kind: object, values: set[object]) -> None:
        """Of one pair the values that its ways have: they say something if they are one."""
        if len(values) == 1:
            self.seen.setdefault(kind, set()).update(values)

    def allows(self, kind: object, value: object) -> bool:
        """Whether nothing speaks against a value."""
        seen = self.seen.get(kind)
        return seen is None or value in seen

    def only(self, kind: object) -> object | None:
        """The one value that was seen; `None` where there was none, or several."""
        seen = self.seen.get(kind, set())
        return next(iter(seen)) if len(seen) == 1 else None


def _by_layer(pair: Ways) -> Sequence[Fit]:
    """The ways in which the stack of a layer of `eqx.nn` has its axes in front, where the layer is known."""
    depth = _depth(pair.leaf)
    if depth is None:
        return pair.fits
    inside = [fit for fit in pair.fits if sorted(n for n in fit.numbers if n >= 0) == list(range(depth))]
    return inside or pair.fits


def _by_heads(pair: Ways, fits: Sequence[Fit]) -> Sequence[Fit]:
    """Where an axis is cut into heads: of PyTorch's linear layers query, key and value have them at their output, the
    first axis of the weight, and what follows attention at its input, the second.
    """
    cut = {"q": 0, "k": 0, "v": 0, "o": 1}.get(pair.role)
    key = pair.key
    torch = key.segments[-1] == "weight" and len(key.shape) == 2 and not key.segments[-2:][0].startswith("c_")
    if cut is None or not torch:
        return fits
    return [fit for fit in fits if any(a == (cut,) and len(b) > 1 for a, b in fit.groups)] or fits


def _depth(leaf: Atom) -> int | None:
    """How many axes of a leaf are a stack's, where its layer says so."""
    if leaf.info.depth is not None:
        return leaf.info.depth
    ranks = (
        {"Linear": 2, "Embedding": 2} if leaf.segments[-1] == "weight" else {"Linear": 1, "LayerNorm": 1, "RMSNorm": 1}
    )
    rank = ranks.get(leaf.info.layer)
    return None if rank is None or len(leaf.shape) < rank else len(leaf.shape) - rank


def _places(pair: Ways) -> Iterator[tuple[str, int]]:
    """The numbers of the keys, by node."""
    for n, node in enumerate(pair.key.nodes):
        yield node, n


def _placed(pair: Ways, fit: Fit, kind: tuple[str, int]) -> int:
    return fit.numbers[kind[1]]


def _essential(shape: Sequence[int]) -> list[int]:
    return [extent for extent in shape if extent != 1]


def _kind(pair: Ways) -> tuple[object, ...]:
    """What weights are turned alike."""
    key, leaf = pair.key, pair.leaf
    table = bool({role_of(segment) for segment in key.segments[-2:]} & {"emb", "pos", "type"})
    return (
        key.segments[-1],
        leaf.segments[-1] if leaf.info.layer else "",
        leaf.info.layer,
        len(key.shape),
        len([n for _, axes in pair.fits[0].groups for n in axes if leaf.shape[n] != 1]),
        table,
    )


def _turn(pair: Ways, fit: Fit) -> tuple[object, ...]:
    """For each axis of the leaf those of the key that it is of. Axes of one element say nothing."""
    axes = [n for n, extent in enumerate(pair.key.shape) if extent != 1]
    order = {
        n: tuple(axes.index(m) for m in a if m in axes) for a, b in fit.groups for n in b if pair.leaf.shape[n] != 1
    }
    return tuple(order[n] for n in sorted(order))


def _settle(pair: Ways, fits: Sequence[Fit], turns: _Evidence) -> Settled:
    if len(fits) == 1:
        return Settled(fits[0])
    kinds = {_turn(pair, fit) for fit in fits}
    if len(kinds) > 1:
        seen = turns.only(_kind(pair))
        if seen is not None:
            told = [fit for fit in fits if _turn(pair, fit) == seen]
            fits = told or fits
            if told and len({fit.numbers for fit in told}) == 1:
                return Settled(told[0])
        elif pair.leaf.info.layer in _MATRICES and not turns.seen.get(_kind(pair)):
            straight = [fit for fit in fits if fit.plain]
            if len(straight) == 1 and pair.key.segments[-1] not in ("kernel", "embedding"):
                return Settled(straight[0])
    if len(fits) == 1:
        return Settled(fits[0])
    usual = [fit for fit in fits if _turn(pair, fit) in turns.seen.get(_kind(pair), ())]
    fits = usual or fits
    if len({fit.numbers for fit in fits}) > 1:
        return Settled(fits[0], "axes of equal extent: which of them is the layers', shapes do not tell")
    shape = ", ".join(map(str, pair.key.shape))
    return Settled(fits[0], f"[{shape}] fits in more than one order of its axes, and no other weight tells which")
