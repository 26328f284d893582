"""What may be wrong with a layer that departs alone: a closed list, tried on the recorded input and output."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from bridge.checking.alone import Alone
from bridge.checking.counterparts import Counterpart, Counterparts
from bridge.checking.edits import Branch, Edit, branch_of, edited, moved, proven, renamed
from bridge.checking.layers import CELLS, CONVS, at_index
from bridge.checking.measure import Compared
from bridge.checking.pieces import LayerElements
from bridge.planning.plan import Plan
from bridge.rules.syntax import literal

_EVIDENCE = "a recorded input and output determine it"
_KEYS = 200  # of one shape, that are tried


class Found(NamedTuple):
    """Why a layer departs, and the rule that makes it agree."""

    reason: str
    rule: str | None = None


class ValueTrial(NamedTuple):
    """Other values for leaves of a layer, what this is in words, and the edit of the rule that does it."""

    leaves: dict[str, Any]
    what: str
    edit: Edit


class Mistakes:
    """Tries the list on layers of one check. `in_run` says that the whole run was compared too: without it nobody knows
    whether a factor belongs to a layer or to what comes after it.
    """

    def __init__(self, alone: Alone, plan: Plan, pairs: Counterparts, *, in_run: bool) -> None:
        self.alone, self.plan, self.pairs, self.in_run = alone, plan, pairs, in_run

    def find(self, one: Counterpart, outcome: Compared) -> Found:
        """The first mistake whose repair makes the layer agree."""
        layer = at_index(self.pairs.modules[one.name], one.index)
        off = f"rounding explains {outcome.limit:g} ulps"
        if one.name not in {name for name, _ in self.pairs.layers}:
            return Found(f"{off}; what is inside may still agree: then it is its own code")
        reason = epsilon(one, layer, self.alone)
        if reason is not None:
            return Found(f"{off}; {reason}")
        for trial in self.trials(layer, one, outcome):
            repaired = self.alone.compare(_replaced(layer, trial.leaves), one)
            if isinstance(repaired, Compared) and _with_size(repaired, outcome).agrees:
                return self.found(one, trial, off)
        if one.differs:
            return Found(f"{off}; {one.differs}: the plan and the recording must be of the same checkpoint")
        return Found(f"{off}; nothing on the list of mistakes makes it agree: look at its own code")

    def found(self, one: Counterpart, trial: ValueTrial, off: str) -> Found:
        """The rules that do what a trial did, if they can be said and proven."""
        if trial.edit.scale not in (None, 1.0) and not self.in_run:
            return Found(
                f"{off}; {trial.what} it agrees: the model may do so afterwards, which the whole run would show"
            )
        texts: list[str] = []
        for leaf, values in trial.leaves.items():
            piece = one.pieces[leaf][0]
            branch = branch_of(self.plan, piece)
            edit = self.keyed(branch, piece, trial.edit)
            text = None if branch is None or edit is None else edited(branch, edit, np.ndim(values))
            place = f"{piece.leaf}[{','.join(map(str, one.index))}]"
            wanted = {place: np.asarray(values)}
            if text is None or branch is None or not proven(self.plan, branch, text, wanted, self.pairs.tensors):
                return Found(f"{off}; {trial.what} it agrees: {_EVIDENCE}")
            texts.append(text)
        return Found(f"{off}; {trial.what} it agrees: {_EVIDENCE}. The rule:", "\n".join(texts))

    def keyed(self, branch: Branch | None, piece: LayerElements, edit: Edit) -> Edit | None:
        """The edit, with the indices of the rule in the name of another key."""
        if branch is None or edit.key is None:
            return edit
        name = renamed(branch, piece.key, str(edit.key).replace("\\", ""))
        return None if name is None else edit._replace(key=name)

    def trials(self, layer: Any, one: Counterpart, outcome: Compared) -> Iterator[ValueTrial]:
        """The list."""
        leaves = {name: value for name in one.pieces if (value := _leaf(layer, name)) is not None}
        for name, value in leaves.items():
            if value.ndim > 1:
                yield from _turned(name, value, layer)
        if isinstance(layer, CELLS):
            yield from _gates(layer, leaves)
        for name, value in leaves.items():
            rule = one.pieces[name][0]
            for add in (1.0, -1.0):
                yield ValueTrial({name: value + add}, f"with {add:g} added to '{name}'", Edit(add=rule.add + add))
            yield from self.scaled(layer, one, name, value, outcome)
        for name, value in leaves.items():
            yield from self.other_keys(one, name, value)

    def scaled(self, layer: Any, one: Counterpart, name: str, value: Any, outcome: Compared) -> Iterator[ValueTrial]:
        """The factor that fits best, as a short number where one is near."""
        without = self.alone.compare(_replaced(layer, {name: jnp.zeros_like(value)}), one)
        if not isinstance(without, Compared) or without.got.shape != outcome.got.shape:
            return
        base = np.asarray(without.got, np.float64)
        mine, theirs = np.asarray(outcome.got, np.float64) - base, np.asarray(outcome.want, np.float64) - base
        square = float((mine * mine).sum())
        factor = float((mine * theirs).sum()) / square if square else 1.0
        if not np.isfinite(factor) or factor == 0 or abs(factor - 1) < 1e-4:
            return
        old = one.pieces[name][0].scale
        for digits in (2, 4, 6):
            short = float(f"{factor:.{digits}g}")
            yield ValueTrial({name: value * short}, f"with '{name}' times {short:g}", Edit(scale=float(old * short)))

    def other_keys(self, one: Counterpart, name: str, value: Any) -> Iterator[ValueTrial]:
        """The values of another key of the shape."""
        held = one.pieces[name]
        if len(held) != 1:
            return
        piece, tensors = held[0], self.pairs.tensors
        others = [key for key, t in tensors.items() if t.shape == piece.index_map.key_shape and key != piece.key]
        for key in others[:_KEYS]:
            values = jnp.asarray(moved(piece.index_map, tensors[key])).astype(value.dtype) * piece.scale + piece.add
            yield ValueTrial({name: values}, f"with '{key}' as '{name}'", Edit(key=literal(key)))


def epsilon(one: Counterpart, layer: Any, alone: Alone) -> str | None:
    """What to say of a norm whose epsilon is not the recorded module's."""
    mine = getattr(layer, "eps", None)
    attrs = alone.recording.modules[one.parts[0].module].attrs if one.parts else {}
    theirs = next((attrs[name] for name in ("eps", "variance_epsilon", "epsilon") if name in attrs), None)
    if not isinstance(mine, float) or not isinstance(theirs, float) or mine == theirs:
        return None
    return f"its epsilon is {mine:g}, PyTorch's is {theirs:g}: give the layer eps={theirs:g}"


def _turned(name: str, value: Any, layer: Any) -> Iterator[ValueTrial]:
    """The axes in another order, or backwards."""
    rank = value.ndim
    orders: list[tuple[tuple[int, ...], str]] = [((1, 0), "transposed")] if rank == 2 else []
    if rank > 2:
        rest = tuple(range(2, rank))
        orders.append(((1, 0, *rest), f"with the first two axes of '{name}' exchanged"))
        if rank > 3:
            turned = (0, 1, *reversed(rest))
            orders.append((turned, f"with height and width of '{name}' exchanged"))
            orders.append(((1, 0, *reversed(rest)), f"with both pairs of axes of '{name}' exchanged"))
    places = tuple(range(2, rank))
    flips = [places, *((axis,) for axis in places if len(places) > 1)] if isinstance(layer, CONVS) else []
    for order, what in orders:
        turned = jnp.transpose(value, order)
        if turned.shape == value.shape:
            yield ValueTrial({name: turned}, what, Edit(order=order))
    for axes in flips:
        if axes:
            yield ValueTrial({name: jnp.flip(value, axes)}, f"with '{name}' backwards", Edit(flip=axes))
    for order, what in orders if flips else ():
        turned = jnp.flip(jnp.transpose(value, order), places)
        if turned.shape == value.shape and places:
            yield ValueTrial({name: turned}, f"{what} and backwards", Edit(order=order, flip=places))


def _gates(layer: Any, leaves: dict[str, Any]) -> Iterator[ValueTrial]:
    """The gates of a recurrent cell in another order."""
    count = 4 if isinstance(layer, eqx.nn.LSTMCell) else 3
    names = [name for name, value in leaves.items() if value.shape[0] % count == 0 and name != "bias_n"]
    for order in list(permutations(range(count)))[1:]:
        turned = {name: jnp.concatenate([jnp.split(leaves[name], count)[n] for n in order]) for name in names}
        yield ValueTrial(turned, "with its gates in another order", Edit(parts=order))


def _with_size(repaired: Compared, outcome: Compared) -> Compared:
    """A repair of loaded values: what was lost when they were loaded, 1 added to small ones, does not come back."""
    if repaired.size.shape != outcome.size.shape:
        return repaired
    return repaired._replace(size=np.maximum(repaired.size, outcome.size))


def _leaf(layer: Any, name: str) -> Any:
    """A leaf of a layer by its dotted name; `None` where it lies in a state."""
    found = _at(layer, name)
    return found if eqx.is_inexact_array(found) else None


def _at(layer: Any, name: str) -> Any:
    for part in name.split("."):
        layer = getattr(layer, part, None)
    return layer


def _replaced(layer: Any, leaves: dict[str, Any]) -> Any:
    """A layer with other leaves."""
    names = list(leaves)
    return eqx.tree_at(lambda one: [_at(one, name) for name in names], layer, [leaves[name] for name in names])
