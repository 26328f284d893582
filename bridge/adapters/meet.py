"""Where an adapter's changes meet a base: which tensors become which views, and what meets nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ml_dtypes
import numpy as np

from bridge._text import fold, quote
from bridge.adapters.change import AddedBias, Change, LowRank, Replaced, ReplacedRows
from bridge.adapters.fit import fitted
from bridge.adapters.others import Own, Patched, Shifted
from bridge.adapters.renaming import Prefix, renaming
from bridge.adapters.view import Merged
from bridge.quantized.view import Shape

FLOATS = frozenset(map(np.dtype, (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)))
_WHOLE = 1e6
_UNTOLD = "it is square, and other weights are not stored as fan_in_fan_out says: nothing tells how this one is"
_OWN = "is the adapter's own"
_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "embed_positions")
_HEADS = ("lm_head", "embed_out", "output_projection", "decoder")


class ArrayInfo(NamedTuple):
    """Dtype and shape of a tensor."""

    dtype: np.dtype
    shape: Shape


class Step(NamedTuple):
    """What becomes of one tensor of the base.

    - `view`: how values come out of the base's tensor and the adapter's; `None` where the adapter's is taken as it is.
    - `parts`: the adapter's keys. `alone`: the base's own tensor has no part in it.
    - `array`: dtype and shape that it has from here on.
    - `text`: the change in words, behind the key: `+= 2.0 · B @ A (r=16)`.
    """

    view: Merged | Own | Shifted | Patched | None
    parts: tuple[str, ...]
    array: ArrayInfo
    text: str
    alone: bool = False


class Problem(NamedTuple):
    """An adapter's key that cannot be merged, the base's key that it is for, and why."""

    key: str
    target: str
    reason: str


class BaseTensors(NamedTuple):
    """The tensors of a base. `tied`: what its config says of head and embedding, `None` where it says nothing."""

    arrays: Mapping[str, ArrayInfo]
    tied: bool | None = None

    @property
    def modules(self) -> set[str]:
        """Names before the last dot."""
        return {name.rpartition(".")[0] for name in self.arrays}


def meet(
    changes: Sequence[Change],
    own: Mapping[str, ArrayInfo],
    base: BaseTensors,
    before: Mapping[str, Sequence[Step]],
    *,
    weight: float,
    causal: bool | None,
) -> tuple[dict[str, list[Step]], list[Problem]]:
    """The steps of every tensor that an adapter changes.

    **Arguments:**

    - `changes`: what the adapter says; `own`: its tensors.
    - `base`: what it is merged into; `before`: what other adapters have changed of it.
    - `weight`: what the caller multiplies by: what is no sum has no part of it.
    - `causal`: whether the model gives words back; `None` where nothing says so.
    """
    joining = _Joining(own, base, before, weight, causal)
    renamed = renaming(changes, base.modules)
    order = {Replaced: 0, LowRank: 1, AddedBias: 1, ReplacedRows: 2}
    for change in sorted(changes, key=lambda change: order[type(change)]):
        joining.take(change, renamed)
    joining.settle()
    return joining.steps, joining.problems


class _Joining:
    """One adapter, one base."""

    def __init__(
        self,
        own: Mapping[str, ArrayInfo],
        base: BaseTensors,
        before: Mapping[str, Sequence[Step]],
        weight: float,
        causal: bool | None,
    ) -> None:
        self.own, self.base, self.before, self.weight = own, base, before, weight
        self.steps: dict[str, list[Step]] = {}
        self.problems: list[Problem] = []
        self.shared: dict[object, object] = {}
        self.waiting: dict[str, list[LowRank]] = {}
        self.merged: list[tuple[LowRank, str, Merged]] = []
        has_head = any(name.split(".")[-2:-1] == [head] for name in base.arrays for head in _HEADS)
        self.one_tensor = not has_head and base.tied is not False and bool(causal or (causal is None and base.tied))

    def take(self, change: Change, renamed: Prefix) -> None:
        """One change, if it meets a tensor."""
        match change:
            case Replaced():
                self.replace(change, renamed(change.target))
            case AddedBias():
                self.shift(change, f"{renamed(change.module)}.bias")
            case ReplacedRows():
                self.patch(change, f"{renamed(change.module)}.weight")
            case LowRank():
                change = change._replace(module=renamed(change.module))
                target = f"{change.module}.weight"
                if change.parameter and target not in self.base.arrays:
                    self.waiting.setdefault(change.module, []).append(change)
                else:
                    self.merge(change, target)

    def settle(self) -> None:
        """What only all changes together tell.

        Factors of parameters: of several in one module, each goes to the one that it fits. Square weights: they are
        stored as the config says, where it is right about the others.
        """
        for module, several in self.waiting.items():
            names = [key for key in self.base.arrays if key.rpartition(".")[0] == module]
            left = list(several)
            while left:
                fits = [
                    (change, [key for key in names if isinstance(self.view(change, key), Merged)]) for change in left
                ]
                change, keys = min(fits, key=lambda pair: (len(pair[1]) != 1, len(pair[1])))
                if len(keys) != 1:
                    break
                self.merge(change, keys[0])
                names.remove(keys[0])
                left.remove(change)
            for change in left:
                self.problem(
                    change.a, f"{module}.*", "no one parameter of that module has a shape that says it is meant"
                )

        squares = [each for each in self.merged if len({*each[2].shape}) == 1]
        others = [view.row_axis > view.column_axis for _, _, view in self.merged if len({*view.shape}) > 1]
        for change, target, _ in squares:
            if (not change.flipped) in others:
                self.problem(change.a, target, _UNTOLD)

    def merge(self, change: LowRank, target: str) -> None:
        """Factors on top of a weight."""
        if not self.is_there(change.a, target):
            return
        if change.magnitude is not None and self.weight != 1:
            return self.problem(change.a, target, "DoRA has no part of it: give the adapter without a weight")
        if change.magnitude is not None and change.embedding:
            return self.problem(
                change.a, target, "DoRA of an embedding needs all of it for every row, and is not merged"
            )
        view = self.view(change, target)
        if isinstance(view, str):
            return self.problem(change.a, target, view)
        dora = ", DoRA" if change.magnitude is not None else ""
        text = f"+= {_number(change.scale)} · B @ A (r={view.rank}{dora})"
        parts = (change.b, change.a, *([change.magnitude] if change.magnitude is not None else ()))
        if len(view.shape) == 2 and not change.embedding:
            self.merged.append((change, target, view))
        return self.add(target, Step(self.share(view), parts, self.array(target), text), change.embedding)

    def view(self, change: LowRank, target: str) -> Merged | str:
        """How a weight is computed with factors on top of it, or what does not fit."""
        array, (a, b) = self.array(target), (self.own[key] for key in (change.a, change.b))
        magnitude = None if change.magnitude is None else self.own[change.magnitude]
        if not {array.dtype, a.dtype, b.dtype, *([magnitude.dtype] if magnitude else ())} <= FLOATS:
            return f"it is stored in {array.dtype.name}, its factors in {a.dtype.name}: only floats are merged"
        rounds = change.embedding or not target.endswith(".weight")  # as PEFT does for all but layers
        shape = None if magnitude is None else magnitude.shape
        return fitted(change, array.shape, a.shape, b.shape, magnitude=shape, rounds=rounds)

    def replace(self, change: Replaced, target: str) -> None:
        """A tensor that is the adapter's own. It may have more or fewer rows: a vocabulary that has grown."""
        if not self.is_whole(change.key, target):
            return
        after = self.own[change.key]
        if target not in self.base.arrays:  # the head of another task, say: a key like any other
            return self.add(change.target, Step(None, (change.key,), after, _OWN, alone=True), False)
        before = self.array(target)
        resized = len(after.shape) == 2 and after.shape[1:] == before.shape[1:]
        if after.shape != before.shape and not resized:
            return self.problem(change.key, target, f"it is {list(before.shape)}, the adapter's is {list(after.shape)}")
        if not {before.dtype, after.dtype} <= FLOATS and before.dtype != after.dtype:
            return self.problem(change.key, target, f"it is {before.dtype.name}, the adapter's is {after.dtype.name}")
        view = None if before.dtype == after.dtype else self.share(Own(len(after.shape)))
        step = Step(view, (change.key,), ArrayInfo(before.dtype, after.shape), _OWN, alone=True)
        return self.add(target, step, target.split(".")[-2:-1] in [[name] for name in _EMBEDDINGS])

    def shift(self, change: AddedBias, target: str) -> None:
        """A bias that is added to one."""
        if not self.is_there(change.key, target, "the layer has no bias to add to"):
            return
        before, after = self.array(target), self.own[change.key]
        if before.shape != after.shape or not {before.dtype, after.dtype} <= FLOATS or len(before.shape) != 1:
            return self.problem(change.key, target, f"it is {list(before.shape)}, the adapter's is {list(after.shape)}")
        view = self.share(Shifted(change.scale))
        return self.add(target, Step(view, (change.key,), before, f"+= {_number(change.scale)} · b"), False)

    def patch(self, change: ReplacedRows, target: str) -> None:
        """Rows that are the adapter's own."""
        if not self.is_there(change.key, target) or not self.is_whole(change.key, target):
            return
        before, after = self.array(target), self.own[change.key]
        wanted = (len(change.indices), *before.shape[1:])
        if len(before.shape) != 2 or after.shape != wanted or not {before.dtype, after.dtype} <= FLOATS:
            reason = f"it is {list(before.shape)}, the adapter has {list(after.shape)} for {len(change.indices)} rows"
            return self.problem(change.key, target, reason)
        if max(change.indices) >= before.shape[0]:
            return self.problem(
                change.key, target, f"it has {before.shape[0]} rows, one of {max(change.indices)} is meant"
            )
        view = self.share(Patched(change.indices))
        count = len(change.indices)
        return self.add(target, Step(view, (change.key,), before, f"has {count} rows of the adapter's own"), True)

    def array(self, target: str) -> ArrayInfo:
        """What a tensor is by now."""
        steps = self.steps.get(target) or self.before.get(target)
        return steps[-1].array if steps else self.base.arrays[target]

    def is_there(self, key: str, target: str, reason: str = "") -> bool:
        """Whether the base has a tensor; else that is a problem."""
        found = target in self.base.arrays
        if not found:
            self.problem(key, target, reason or "the base has no such key: the adapter may be of another base")
        return found

    def is_whole(self, key: str, target: str) -> bool:
        """Whether what replaces a tensor is meant as it is."""
        if self.weight != 1:
            self.problem(key, target, "the adapter replaces it, so a weight cannot apply: give the adapter without one")
        return self.weight == 1

    def add(self, target: str, step: Step, embedding: bool) -> None:
        """One more step of a tensor."""
        if embedding and self.one_tensor:
            reason = "the base has no head of its own, so its head is this tensor, and training changed one of the two"
            return self.problem(step.parts[-1], target, reason)
        if any(not each.alone for each in self.steps.get(target, ())) or (step.alone and target in self.steps):
            return self.problem(step.parts[-1], target, "the adapter changes it twice")
        if target in self.before and not all(map(_is_sum, (step, *self.before[target]))):
            return self.problem(step.parts[-1], target, "another adapter changes it too, and they cannot be added")
        self.steps.setdefault(target, []).append(step)
        return None

    def problem(self, key: str, target: str, reason: str) -> None:
        """Something that does not meet."""
        self.problems.append(Problem(key, target, reason))

    def share(self, view: object) -> Merged | Own | Shifted | Patched:
        """One object for all that are equal."""
        return self.shared.setdefault(view, view)  # type: ignore[return-value]


def _is_sum(step: Step) -> bool:
    """Whether a step adds to what is there, whatever that is."""
    return isinstance(step.view, Shifted) or (isinstance(step.view, Merged) and step.view.magnitude is None)


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < _WHOLE and value == int(value) else f"{value:.6g}"


def told(problems: Sequence[Problem], label: str) -> list[tuple[str, str]]:
    """Problems in words, those alike as one: the adapter's keys, and what is wrong."""
    alike: dict[str, list[Problem]] = {}
    for problem in problems:
        alike.setdefault(problem.reason, []).append(problem)
    found: list[tuple[str, str]] = []
    for reason, members in alike.items():
        targets = {problem.key: problem.target for problem in members}
        for shown, keys in fold(targets):
            names = [name for name, _ in fold(dict.fromkeys(targets[key] for key in keys))]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            found.append((shown, f"of adapter {quote(label)}, for {', '.join(map(quote, names[:3]))}{more}: {reason}"))
    return found
