"""A traced run beside the recorded one: how far apart each input and output is, in the order of the traced run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from math import prod
from typing import Any, NamedTuple

import equinox as eqx
import jax.tree_util as jtu
import numpy as np

from bridge.checking.counterparts import Address, ColumnMatch, Counterpart, Counterparts
from bridge.checking.kept import Kept, tensors
from bridge.checking.measure import coarser
from bridge.checking.recording import RecordedCall as Recorded
from bridge.checking.recording import Recording
from bridge.checking.whole_align import RunArray, Wanted, distance, first_fit
from bridge.checking.whole_outputs import Path, candidates, is_ordered, own_path, recorded_paths
from bridge.tracing.interpret import Met
from bridge.tracing.mark import Slot
from bridge.tracing.trace import Call, Trace

IN, OUT = "in", "out"
_LAST = 1 << 60


class Event(NamedTuple):
    """A layer was called, or gave its output. `error` is a distance, `None` where it could not be compared."""

    at: Address
    side: str
    order: tuple[int, ...]
    error: float | None
    dtype: np.dtype


class AlignedCalls:
    """Recorded calls beside traced ones."""

    def __init__(self, recording: Recording, pairs: Counterparts) -> None:
        self.recording, self.pairs = recording, pairs
        known = {**pairs.composites, **pairs.layers}
        self.known: Mapping[Address, Counterpart] = known

    def events(self, trace: Trace) -> list[Event]:
        """What happened, in the order of the traced run."""
        found = [event for call in trace.calls for event in self._of_call(call)]
        ends = [event for event in found if event.at == ("", ()) and event.side == OUT]
        if len(ends) <= 1:
            # A function of the user's may call a method of the model, or turn what the model gives.
            given = jtu.tree_leaves_with_path(eqx.filter(trace.result, eqx.is_array))
            own = [(own_path(keys), RunArray(np.asarray(leaf), leaf.shape)) for keys, leaf in given]
            error, dtype = self._root_output(own, 0, ordered=is_ordered(trace.result))
            if not ends or (error is not None and (ends[0].error is None or error < ends[0].error)):
                found = [event for event in found if event not in ends]
                found.append(Event(("", ()), OUT, (_LAST,), error, dtype))
        return sorted(found, key=lambda event: event.order)

    def _of_call(self, call: Call) -> Iterator[Event]:
        sides = {side: _marks(call, side) for side in (IN, OUT)}
        widest = max((met for held in sides.values() for met in held), key=lambda met: sum(met.mark.axes), default=None)
        if widest is None:
            return
        extents = [n for n, stacked in zip(widest.value.shape, widest.mark.axes, strict=False) if stacked]
        unrolled = call.peeled > len(extents)
        for index in np.ndindex(*extents):
            at = call.name, (*index, call.number) if unrolled else index
            for number, step in self._steps(at, widest, 0 if unrolled else call.number):
                recorded = self._recorded(at, number)
                for side, held in sides.items():
                    if held:
                        order = _order(held[-1] if side == OUT else held[0], index, step, side)
                        arrays = [_at(met, index, step) for met in held]
                        if at == ("", ()) and side == OUT:
                            own = list(zip(_output_paths(call), arrays, strict=True))
                            error, dtype = self._root_output(own, number, ordered=is_ordered(call.output))
                        else:
                            error, dtype = self._error(at, side, arrays, recorded)
                        yield Event(at, side, order, error, dtype)

    def _steps(self, at: Address, met: Met, number: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The recorded calls that a call in the program stands for, by their numbers, each with its place in loops.

        A layer that a loop runs again and again, as ALBERT's, was called as often in PyTorch.
        """
        loops = met.mark.order.count(None)
        repeats = [n for n, stacked in zip(met.value.shape[:loops], met.mark.axes, strict=False) if not stacked]
        one = self.known.get(at)
        calls = len(self.recording.calls_of(one.module)) if one is not None and one.module is not None else 0
        if number == 0 and 1 < calls <= prod(repeats):
            yield from islice(enumerate(np.ndindex(*repeats)), calls)
        else:
            yield number, ()

    def _recorded(self, at: Address, number: int) -> list[tuple[ColumnMatch | None, Recorded]]:
        """The recorded calls of a layer's counterparts. The root's are the root's."""
        one = self.known.get(at)
        parts: Sequence[ColumnMatch | None] = one.parts if one is not None else ()
        names = [part.module for part in parts if part is not None]
        if at == ("", ()) and at not in self.pairs.layers:
            parts, names = [None, *parts], ["", *names]
        found: list[tuple[ColumnMatch | None, Recorded]] = []
        for part, name in zip(parts, names, strict=True):
            if part is not None and at in self.pairs.layers and self._is_shared(at[0], part):
                continue
            calls = self.recording.calls_of(name)
            if number < len(calls) and not (part is not None and self._is_inside(at, part, calls[number])):
                found.append((part, calls[number]))
        return found

    def _is_shared(self, name: str, part: ColumnMatch) -> bool:
        """Whether the torch module is more than a linear layer: it holds the matrices of many, as of experts."""
        rank = len(self.recording.params[part.place.param].shape)
        return isinstance(self.pairs.modules[name], eqx.nn.Linear) and (part.place.matrix is not None and rank > 2)

    def _is_inside(self, at: Address, part: ColumnMatch, call: Recorded) -> bool:
        """Whether a layer is a part of a matrix that PyTorch's module does more with, as attention does with that of
        queries, keys and values: what it gives is as wide as the part, and not as the matrix.
        """
        module, given = self.recording.modules[part.module], next(tensors(call.output), None)
        if part.theirs is None or module.torch_kind == "Linear" or module.kind == "Conv1D" or given is None:
            return False
        return at in self.pairs.layers and given.width == len(part.theirs)

    def _adds_later(self, one: Counterpart | None, part: ColumnMatch) -> bool:
        """Whether a layer has a bias, and PyTorch's linear layer none: it is added after that."""
        module = self.recording.modules[part.module]
        linear = module.torch_kind == "Linear" or module.kind == "Conv1D"
        return one is not None and linear and "bias" in one.pieces and "bias" not in module.params

    def _error(
        self,
        at: Address,
        side: str,
        arrays: Sequence[RunArray],
        recorded: Sequence[tuple[ColumnMatch | None, Recorded]],
    ) -> tuple[float | None, np.dtype]:
        """The distance of one side of a call; of a layer that joins several modules the largest."""
        one, errors, dtype = self.known.get(at), list[float](), np.dtype(np.float32)
        if at == ("", ()) and side == IN and at not in self.pairs.layers:
            return self._root_input(arrays) or (None, dtype)
        for part, call in recorded:
            if side == OUT and part is not None and self._adds_later(one, part):
                continue
            tree = call.output if side == OUT else (call.args, dict(call.kwargs))
            found = self._compared(arrays, [self.wanted(one, part, side, kept) for kept in tensors(tree)])
            if found is not None:
                errors.append(found[0])
                dtype = found[1]
                if part is None:
                    break
        return max(errors, default=None), dtype

    def wanted(self, one: Counterpart | None, part: ColumnMatch | None, side: str, kept: Any) -> Wanted:
        """A recorded tensor as a layer has it."""
        if part is None or one is None or (one.name, one.index) not in self.pairs.layers:
            # What the model itself gives is of examples: of each, or of all with all.
            return Wanted(kept, shared=part is not None)
        if one.name == "" and side == OUT:
            return Wanted(kept, part.own, part.theirs, shared=False)
        return Wanted(kept, part.own, part.theirs) if side == OUT else Wanted(kept, None, one.taken)

    def _root_input(self, arrays: Sequence[RunArray]) -> tuple[float, np.dtype] | None:
        """The distance of what the model was run on. It may take other arguments than PyTorch's, in another order, and
        examples in front of time where PyTorch has time in front.
        """
        turned = [array.values.swapaxes(0, 1) for array in arrays if len(array.shape) > 2 and not array.cut]
        arrays = [*arrays, *(RunArray(values, values.shape) for values in turned)]
        calls = self.recording.calls_of("")[:1]
        taken = [Wanted(kept) for call in calls for kept in tensors((call.args, dict(call.kwargs)))]
        found = [self._compared([array], [one]) for array in arrays for one in taken]
        return min((one for one in found if one is not None), key=lambda one: one[0], default=None)

    def _root_output(
        self, own: Sequence[tuple[Path, RunArray]], number: int, *, ordered: bool
    ) -> tuple[float | None, np.dtype]:
        """The largest distance of what the model gives: of each of its outputs, not of the first alone. A model without
        PyTorch's head gives what the module below it does.
        """
        nearest: list[tuple[float, np.dtype]] = []
        for call in self.recording.calls_of("")[number : number + 1]:
            for group in candidates(own, list(recorded_paths(call.output)), ordered=ordered):
                found = [self._compared([array], [Wanted(kept, shared=False)]) for array, kept in group]
                if any(found):
                    nearest.append(min((one for one in found if one is not None), key=lambda one: one[0]))
        if nearest:
            return max(nearest, key=lambda one: one[0])
        at = "", ()
        return self._error(at, OUT, [array for _, array in own], self._recorded(at, number))

    def _compared(self, arrays: Sequence[RunArray], wanted: Sequence[Wanted]) -> tuple[float, np.dtype] | None:
        fit = first_fit(wanted, [array.shape for array in arrays])
        if fit is None:
            return None
        number, place, found = fit
        array, kept = arrays[number], wanted[place].kept
        if array.cut and array.values.shape[-1] * kept.height != prod(array.shape):
            return None  # its rows are those of another tensor
        got, want = wanted[place].pair(array.rows(found, kept))
        if (meant := self._meant(kept)) is not None:
            got, want = got[meant[: len(got)]], want[meant[: len(want)]]
        if not got.size or (want.dtype.kind not in "iub" and not np.isfinite(want).any()):
            return None  # not-a-number is like anything
        return distance(got, want), coarser(got.dtype, want.dtype)

    def _meant(self, kept: Kept) -> np.ndarray | None:
        """Which of a tensor's kept rows are of tokens, and not of padding, where nobody says what a model gives."""
        mask = self.padding
        if mask is None or mask.size != kept.height or kept.shape[:2] not in (mask.shape, (mask.size, kept.width)):
            return None
        return mask.reshape(-1)[kept.rows]

    @cached_property
    def padding(self) -> np.ndarray | None:
        """Which tokens PyTorch's model was told to look at, `(examples, tokens)`; `None` where it was all."""
        for call in self.recording.calls_of("")[:1]:
            mask = call.kwargs.get("attention_mask")
            if isinstance(mask, Kept) and mask.whole and mask.values is not None and len(mask.shape) == 2:
                held = mask.values.reshape(mask.shape) != 0
                return None if held.all() else held
        return None

    def input_of(self, call: Call, index: tuple[int, ...]) -> list[RunArray]:
        """What a module was called with, at one place of its stack."""
        at = call.name, index
        return [_at(met, index, next(self._steps(at, met, 0))[1]) for met in _marks(call, IN)]

    def same_inputs(self, arrays: Sequence[RunArray], limit: float) -> list[str]:
        """The torch modules that were called with the same."""
        found: list[str] = []
        for name in self.recording.modules:
            for call in self.recording.calls_of(name)[:1]:
                compared = self._compared(
                    arrays[:1], [Wanted(kept) for kept in tensors((call.args, dict(call.kwargs)))]
                )
                if compared is not None and compared[0] <= limit:
                    found.append(name)
        return found


def _marks(call: Call, side: str) -> list[Met]:
    """What was met of a call's inputs or of its output."""
    token = next(iter(call.marks.values())).mark.call.token
    slots = jtu.tree_leaves(token.inputs if side == IN else token.output, is_leaf=lambda node: isinstance(node, Slot))
    numbers = [slot.number for slot in slots if isinstance(slot, Slot)]
    return [call.marks[number] for number in numbers if number in call.marks]


def _output_paths(call: Call) -> list[Path]:
    """Where the arrays of a call's output stand in it, in the order of `_marks`."""
    token = next(iter(call.marks.values())).mark.call.token
    leaves = jtu.tree_leaves_with_path(token.output, is_leaf=lambda node: isinstance(node, Slot))
    return [own_path(keys) for keys, slot in leaves if isinstance(slot, Slot) and slot.number in call.marks]


def _at(met: Met, index: tuple[int, ...], step: tuple[int, ...] = ()) -> RunArray:
    """A value at one place of the axes along which its module changes, and at one step of the loops that repeat it."""
    left, steps, loops = list(index), list(step), met.mark.order.count(None)
    picks = tuple(
        left.pop(0) if stacked and left else steps.pop(0) if steps and n < loops and not stacked else slice(None)
        for n, stacked in enumerate(met.mark.axes)
    )
    values = np.asarray(met.value)
    if values.shape[loops:] != met.mark.shape:  # cut where it was made, in loops over the stack alone
        return RunArray(values[picks[:loops]], met.mark.shape)
    values = values[picks]
    return RunArray(values, values.shape)


def _order(met: Met, index: tuple[int, ...], step: tuple[int, ...], side: str) -> tuple[int, ...]:
    """When a mark was met at one place of the stack, and at one step of the loops that repeat its module: loops over
    anything else are begun at first, and over at last.
    """
    left, steps, axes = list(index), list(step), iter(met.mark.axes)
    found: list[int] = []
    for number in met.mark.order:
        if number is not None:
            found.append(number)
            continue
        picks = left if next(axes) else steps
        found.append(picks.pop(0) if picks else (0 if side == IN else _LAST))
    return tuple(found)
