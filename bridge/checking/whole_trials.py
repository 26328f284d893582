"""What may be wrong where a run departs: a closed list of edits of the plan, each tried on the run itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bridge.checking.alone import Alone
from bridge.checking.counterparts import Address, Counterpart, Counterparts, counterparts
from bridge.checking.edits import Edit
from bridge.checking.layers import KNOWN, at_index
from bridge.checking.measure import Compared
from bridge.checking.recording import Recording
from bridge.checking.whole_events import IN, OUT, AlignedCalls
from bridge.checking.whole_forms import around as around_of
from bridge.checking.whole_forms import form, in_common
from bridge.checking.whole_heads import as_they_are, halves
from bridge.checking.whole_rules import RuleChange, edit_of, exchanged, in_order, leaf_values
from bridge.checking.whole_run import Judged, Judgement, judge
from bridge.model.template import take_apart
from bridge.planning.plan import Plan
from bridge.tracing.trace import Trace

_MOST = 60
"""Edits that are tried."""
_NONE = (1 << 62,)


class Trial(NamedTuple):
    """A change of the plan, the layer that it concerns first, and those whose counterparts are others by it; `None`
    where all of them may be.
    """

    change: RuleChange
    at: Address
    layers: tuple[str, ...] | None


class Repair(NamedTuple):
    """The change that makes the run agree as far as it was tried."""

    at: Address
    change: RuleChange
    plan: Plan
    model: Any


class Trials:
    """Tries the list on one run. `first` is what departs first in it."""

    def __init__(
        self, recording: Recording, pairs: Counterparts, model: Any, plan: Plan, trace: Trace, judgement: Judgement
    ) -> None:
        self.recording, self.pairs, self.model, self.plan, self.trace = recording, pairs, model, plan, trace
        self.judgement, self.beside = judgement, AlignedCalls(recording, pairs)
        self.parts, self.left = take_apart(model), _MOST

    def find(self, first: Judged) -> Repair | None:
        """The first group of trials of which one repairs the run, and the one that carries furthest."""
        horizon = self.horizon(first)
        for group in self.groups(first):
            found: list[tuple[tuple[int, ...], Repair]] = []
            for trial in group:
                if self.left <= 0:
                    return None
                repaired = self.repaired(trial.change)
                until = None if repaired is None else self.until(trial, *repaired)
                if repaired is not None and until is not None and until > horizon:
                    found.append((until, Repair(trial.at, trial.change, *repaired)))
                    if until == _NONE:
                        break
            if found:
                return max(found, key=lambda pair: pair[0])[1]
        return None

    def horizon(self, first: Judged) -> tuple[int, ...]:
        """How far the run must agree for a trial to have repaired it: beyond the module around what departs. A layer of
        one's own that takes the same and gives the same is repaired.
        """
        name, index = first.event.at
        ends = {
            one.event.at: one.event.order
            for one in self.judgement.events
            if one.event.side == OUT and one.agrees is not None
        }
        one = self.pairs.layers.get(first.event.at)
        own = first.event.side == OUT and (one is None or not self.is_alone(one))
        for around in (*([name] if own else []), *around_of(name)):
            for n in range(len(index), -1, -1):
                if (around, index[:n]) in ends:
                    return max(ends[around, index[:n]], first.event.order)
        return first.event.order

    def repaired(self, change: RuleChange) -> tuple[Plan, Any] | None:
        """The plan and the model with a change; `None` where there is no such plan, or the model stays the same."""
        plan = change.plan(self.plan)
        if plan is None:
            return None
        values: dict[str, Any] = {name: leaf.value for name, leaf in self.parts.arrays.items()}
        changed = False
        for leaf in change.leaves:
            made = leaf_values(plan, leaf, self.pairs.tensors)
            if made is None or leaf not in values:
                return None
            array = _as(made, values[leaf])
            changed = changed or not np.array_equal(np.asarray(array), np.asarray(values[leaf]))
            values[leaf] = array
        return (plan, self.parts.filled(values)) if changed else None

    def until(self, trial: Trial, plan: Plan, model: Any) -> tuple[int, ...]:
        """Where the run departs with a change, as an order."""
        self.left -= 1
        trace = self.trace.again(model)
        # Other keys are other modules of PyTorch's: what is said of the layers themselves does not count.
        beside, dropped = self.beside, trial.layers or ()
        if trial.layers is None:
            beside = AlignedCalls(self.recording, counterparts(self.recording, model, plan))
        events = [e._replace(error=None) if e.at[0] in dropped else e for e in beside.events(trace)]
        found = judge(beside, events).first
        return _NONE if found is None else found.event.order

    def groups(self, first: Judged) -> Iterator[Iterator[Trial]]:
        """The list, in the order in which mistakes are likely."""
        name, index = first.event.at
        own = self.pairs.layers.get(first.event.at)
        if first.event.side == IN:
            yield self.of_same_input(first, own) if own is not None else self.of_same_module(first)
        if first.event.side == OUT and own is not None:
            if not self.is_alone(own):  # then the list was tried on it
                yield self.of_one(own)
                yield self.of_leaves(own)
            return
        change = in_order(self.plan)
        if change is not None:
            yield iter([Trial(change, first.event.at, None)])
        here = [name] if first.event.side == OUT else []
        for n, around in enumerate((*here, *around_of(name))[:2]):
            inside = self.inside(around, index)
            held = self.pairs.layers.get((around, index))
            if held is not None:
                yield self.of_leaves(held)
            yield self.of_pairs(inside, self.earlier(first))
            yield self.of_modules(around, index)
            if n == 0:
                yield self.of_heads(inside)
                yield self.of_threes(inside)

    def is_alone(self, own: Counterpart) -> bool:
        """Whether a layer can be looked at alone."""
        layer = self.pairs.modules[own.name]
        if not isinstance(layer, KNOWN):
            return False
        return isinstance(Alone(self.recording, self.pairs).compare(at_index(layer, own.index), own), Compared)

    def of_same_input(self, first: Judged, own: Counterpart) -> Iterator[Trial]:
        """A layer is called with what another module of PyTorch's was called with: the keys of that one."""
        same = self.same_inputs(first)
        for at, other in self.pairs.layers.items():
            if at[0] != own.name and other.module in same and form(other) == form(own):
                for change in exchanged(self.plan, [own, other]):
                    yield Trial(change, (own.name, own.index), (own.name, other.name))

    def of_same_module(self, first: Judged) -> Iterator[Trial]:
        """The same of a module that holds layers: all that the two hold."""
        same, own = self.same_inputs(first), self.held_by(*first.event.at)
        for at, one in self.pairs.composites.items():
            if at != first.event.at and one.module in same and form(other := self.held_by(*at)) == form(own):
                for change in exchanged(self.plan, (own, other)):
                    yield Trial(change, first.event.at, None)

    def same_inputs(self, first: Judged) -> set[str]:
        """The modules of PyTorch's that took what a module of the model takes."""
        name, index = first.event.at
        calls = [call for call in self.trace.calls if call.name == name]
        return set(self.beside.same_inputs(self.beside.input_of(calls[0], index), first.limit)) if calls else set()

    def of_one(self, own: Counterpart) -> Iterator[Trial]:
        """A layer of one's own, which nobody can call alone: a constant, the other way round."""
        for local, held in own.pieces.items():
            rank = len(held[0].index_map.leaf_shape)
            edits = [(Edit(add=held[0].add + add), f"with {add:g} added to '{local}'") for add in (1.0, -1.0)]
            if rank == 2:
                edits.insert(0, (Edit(order=(1, 0)), "transposed"))
            for edit, what in edits if len(held) == 1 else ():
                change = edit_of(self.plan, held[0], edit, what)
                if change is not None:
                    yield Trial(change, (own.name, own.index), ())

    def of_leaves(self, own: Counterpart) -> Iterator[Trial]:
        """Two leaves of one layer exchanged, as a mean and a variance."""
        each = [replace(own, name=f"{own.name}.{local}", pieces={"": held}) for local, held in own.pieces.items()]
        for pair in combinations(each, 2):
            if form(pair[0]) == form(pair[1]):
                for change in exchanged(self.plan, pair):
                    yield Trial(change, (own.name, own.index), ())

    def of_modules(self, around: str, index: tuple[int, ...]) -> Iterator[Trial]:
        """Two modules that hold layers of the same shapes exchanged, each with all that it holds."""
        names = sorted({name for name, _ in self.pairs.composites if not around or name.startswith(f"{around}.")})
        for pair in combinations(names, 2):
            one, other = (self.held_by(name, index) for name in pair)
            if one.pieces and form(one) == form(other) and not pair[1].startswith(f"{pair[0]}."):
                for change in exchanged(self.plan, (one, other)):
                    yield Trial(change, (one.name, one.index), None)

    def held_by(self, name: str, index: tuple[int, ...]) -> Counterpart:
        """All layers below a module, as if they were one."""
        pieces = {
            f"{layer.name[len(name) :]}.{local}": held
            for layer in self.inside(name, index)
            for local, held in layer.pieces.items()
        }
        return Counterpart(name, index, (), pieces=pieces)

    def of_pairs(self, inside: Sequence[Counterpart], earlier: set[str]) -> Iterator[Trial]:
        """Two layers of one shape exchanged; those first that ran before the run departs."""
        pairs = [in_common(*pair) for pair in combinations(inside, 2)]
        pairs = [pair for pair in pairs if pair[0].pieces and form(pair[0]) == form(pair[1])]
        for pair in sorted(pairs, key=lambda pair: sum(one.name not in earlier for one in pair)):
            for change in exchanged(self.plan, pair):
                yield Trial(change, (pair[0].name, pair[0].index), tuple(one.name for one in pair))

    def of_threes(self, inside: Sequence[Counterpart]) -> Iterator[Trial]:
        """Three of them, each with the keys of the next."""
        for three in combinations(inside, 3):
            if len({form(one) for one in three}) == 1:
                for turn in (three, three[::-1]):
                    for change in exchanged(self.plan, turn):
                        yield Trial(change, (three[0].name, three[0].index), tuple(one.name for one in three))

    def of_heads(self, inside: Sequence[Counterpart]) -> Iterator[Trial]:
        """The rows of two layers, queries and keys, laid out for the other of the two ways of rotary positions."""
        sizes = self.head_sizes()
        for pair in combinations(inside, 2):
            names = tuple(one.name for one in pair)
            change = as_they_are(self.plan, pair)
            if change is not None:
                yield Trial(change, (pair[0].name, pair[0].index), names)
            for size in sizes:
                for to_pairs in (True, False):
                    change = halves(self.plan, pair, size // 2, to_pairs=to_pairs)
                    if change is not None:
                        yield Trial(change, (pair[0].name, pair[0].index), names)

    def head_sizes(self) -> list[int]:
        """How many rows a head may have, as the model's static fields or PyTorch's modules say it."""
        fields: list[Mapping[str, Any]] = [vars(module) for module in self.pairs.modules.values()]
        fields += [vars(held["config"]) for held in fields if hasattr(held.get("config"), "__dict__")]
        fields += [module.attrs for module in self.recording.modules.values()]
        sizes, counts = dict[int, None](), dict[int, None]()
        for held in fields:
            for name, value in held.items():
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    if "head_dim" in name or name in ("head_size", "attention_head_size", "qk_size"):
                        sizes[value] = None
                    elif "head" in name:
                        counts[value] = None
        widths = {
            piece.index_map.leaf_shape[0]
            for one in self.pairs.layers.values()
            for held in one.pieces.values()
            for piece in held
            if len(piece.index_map.leaf_shape) == 2
        }
        sizes |= (
            {width // count: None for count in counts for width in sorted(widths) if width % count == 0}
            if not sizes
            else {}
        )
        return [size for size in sizes if size % 2 == 0][:4]

    def inside(self, around: str, index: tuple[int, ...]) -> list[Counterpart]:
        """The layers below a module, one of each name, at a place of its stack."""
        found: dict[str, Counterpart] = {}
        for (name, own), one in self.pairs.layers.items():
            depth = min(len(own), len(index))
            below = not around or name.startswith(f"{around}.")
            if below and name not in found and own[:depth] == index[:depth] and one.pieces:
                found[name] = one
        return list(found.values())

    def earlier(self, first: Judged) -> set[str]:
        """The layers that ran before."""
        return {one.event.at[0] for one in self.judgement.events if one.event.order < first.event.order}


def _as(made: np.ndarray, old: Any) -> Any:
    """Values for a leaf as it was, also where it was: so that the compiled program takes them."""
    array = jnp.asarray(made.astype(old.dtype))
    placed = isinstance(old, jax.Array) and getattr(old, "committed", False)
    return jax.device_put(array, old.sharding) if placed else array
