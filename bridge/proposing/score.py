"""How much two names say the same, as a number for every pair of atoms whose element counts agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from bridge.proposing.atom import Atom
from bridge.proposing.concepts import Said, literal_parts, said_by
from bridge.proposing.fits import Fit, fits

if TYPE_CHECKING:
    import numpy.typing as npt

Floats: TypeAlias = "npt.NDArray[np.float64]"
T = TypeVar("T")
NEVER = -1e6
_CROSSED = (("enc", "dec"), ("vision", "text"))
_CONTEXTS = ("enc", "dec", "vision", "text", "cross", "experts", "sharedexperts", "audio", "attn", "mlp")
_MOST = 40  # leaves that are looked at for one key, and keys for one leaf
_ROLES_OF_NORMS = ("norm", "norm1", "norm2", "norm3", "normf")


class Scores:
    """For keys (rows) and leaves (columns): `names` what their names say, `NEVER` where they cannot be one.

    `ways` are the fits of each pair that may be one; `concepts` and `words` are how alike names are, from 0 to 1, and
    `literal` how many parts of names are spelled alike.
    """

    def __init__(self, keys: Sequence[Atom], leaves: Sequence[Atom]) -> None:
        self.keys, self.leaves = keys, leaves
        self.said = said_by(keys), said_by(leaves)
        self.concepts = _cosines([s.weights for s in self.said[0]], [s.weights for s in self.said[1]])
        self.words = _cosines([s.words for s in self.said[0]], [s.words for s in self.said[1]])
        self.literal = _common([literal_parts(a) for a in keys], [literal_parts(a) for a in leaves])
        same = np.array([a.elements for a in keys])[:, None] == np.array([a.elements for a in leaves])[None, :]
        same &= np.array([[a.info.number == b.info.number for b in leaves] for a in keys], bool).reshape(same.shape)
        raw = 6 * self.concepts + 2 * self.words + self._parts() + _ends(keys, leaves, same)
        self.ways: dict[tuple[int, int], list[Fit]] = {}
        self.names = np.full(raw.shape, NEVER)
        for i, j in _best(np.where(same, raw, NEVER)):
            found = self.fitting(i, j)
            if found:
                self.ways[i, j] = found
                self.names[i, j] = raw[i, j] - min(fit.cost for fit in found)

    def fitting(self, i: int, j: int) -> list[Fit]:
        """How a key fits a leaf; shapes repeat, and each pair of them is looked at once."""
        key, leaf = self.keys[i], self.leaves[j]
        alike = (key.extents, key.shape, leaf.extents, leaf.shape, leaf.info.port_shape, leaf.info.depth)
        alike = (*alike, key.joined, leaf.joined, key.axis, leaf.axis)
        known: dict[object, list[Fit]] = self.__dict__.setdefault("_fits", {})
        found = known.get(alike)
        if found is None:
            found = known[alike] = fits(key, leaf)
        return found

    def _parts(self) -> Floats:
        """Attributes, roles and contexts: what agrees, and what does not."""
        keys, leaves = self.said
        attributes = _table([_attribute(s) for s in keys], [_attribute(s) for s in leaves], _attributes)
        roles = _table([s.role for s in keys], [s.role for s in leaves], _roles)
        around = [frozenset(s.contexts) for s in keys], [frozenset(s.contexts) for s in leaves]
        return attributes + roles + _table(*around, _around)


def _table(of_rows: Sequence[T], of_columns: Sequence[T], value: Callable[[T, T], float]) -> Floats:
    """A value for each pair, computed once for each pair of different things."""
    first: dict[T, int] = {}
    second: dict[T, int] = {}
    a = np.array([first.setdefault(each, len(first)) for each in of_rows], np.intp)
    b = np.array([second.setdefault(each, len(second)) for each in of_columns], np.intp)
    values = np.array([[value(x, y) for y in second] for x in first], np.float64).reshape(len(first), len(second))
    return values[a[:, None], b[None, :]]


def _attribute(said: Said) -> str:
    return said.attribute


def _attributes(a: str, b: str) -> float:
    if a and b:
        return 2.0 if a == b else -2.0
    return 0.0


def _roles(a: str, b: str) -> float:
    if not a or not b or a == b:
        return 0.0
    if "norm" in (a, b) and a in _ROLES_OF_NORMS and b in _ROLES_OF_NORMS:
        return -0.5
    return -2.0


def _around(a: frozenset[str], b: frozenset[str]) -> float:
    value = 0.0
    for one, other in _CROSSED:
        if (one in a and other not in a and other in b and one not in b) or (
            other in a and one not in a and one in b and other not in b
        ):
            value -= 3.0
    return value - 0.6 * sum((each in a) != (each in b) for each in _CONTEXTS)


def _ends(keys: Sequence[Atom], leaves: Sequence[Atom], same: npt.NDArray[np.bool_]) -> Floats:
    """A bonus where one name is the other's end, as behind a prefix."""
    found = np.zeros(same.shape)
    for i, j in np.argwhere(same).tolist():
        a, b = keys[i].segments, leaves[j].segments
        short = min(len(a), len(b))
        if short and a[-short:] == b[-short:]:
            found[i, j] = 2.0
    return found


def _common(rows: Sequence[frozenset[str]], columns: Sequence[frozenset[str]]) -> npt.NDArray[np.float64]:
    """How many members each two have in common."""
    known = {word: n for n, word in enumerate(dict.fromkeys(word for each in rows for word in each))}
    held = [np.zeros((len(side), max(len(known), 1))) for side in (rows, columns)]
    for table, side in zip(held, (rows, columns), strict=True):
        for n, each in enumerate(side):
            table[n, [known[word] for word in each if word in known]] = 1
    return held[0] @ held[1].T


def _cosines(rows: Sequence[dict[str, float]], columns: Sequence[dict[str, float]]) -> Floats:
    """How alike each two are, by what they hold; what most hold counts little."""
    known: dict[str, int] = {}
    for each in (*rows, *columns):
        for concept in each:
            known.setdefault(concept, len(known))
    both = np.zeros((len(rows) + len(columns), max(len(known), 1)))
    for n, each in enumerate((*rows, *columns)):
        for concept, weight in each.items():
            both[n, known[concept]] = weight
    held = (both > 0).sum(axis=0)
    both *= np.array([1.0 / (1.0 + log(1.0 + count / 4.0)) for count in held])
    both /= np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-9)
    return both[: len(rows)] @ both[len(rows) :].T


def _best(scores: Floats) -> list[tuple[int, int]]:
    """The pairs to look at: the best of each row and of each column."""
    if not scores.size:
        return []
    rows, columns = scores.shape
    chosen = np.zeros(scores.shape, bool)
    across = np.argsort(-scores, axis=1, kind="stable")[:, :_MOST]
    chosen[np.arange(rows)[:, None], across] = True
    along = np.argsort(-scores, axis=0, kind="stable")[:_MOST]
    chosen[along, np.arange(columns)[None, :]] = True
    return [(i, j) for i, j in np.argwhere(chosen & (scores > NEVER / 2)).tolist()]
