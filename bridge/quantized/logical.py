"""What `find` finds: logical tensors, each made of stored ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.quantized.view import QuantizedView, Shape


class StoredSpec(Protocol):
    """dtype and shape of a stored tensor; `bridge.format.table.Form` is one."""

    @property
    def dtype(self) -> np.dtype:
        """A numpy dtype."""
        ...

    @property
    def shape(self) -> Shape:
        """As stored."""
        ...


class QuantizedForm(NamedTuple):
    """What many quantised tensors have in common: one object for all that are alike.

    - `format`: what it is called, such as `"fp8"`.
    - `how`: what else is to be said about it, such as `"in blocks of 128 x 128"`; may be empty.
    - `bits`: of a code.
    - `shape`, `dtype`: of the tensor that is meant. The dtype is what the model was made in.
    - `view`: how it comes out of the stored tensors.
    - `roles`: which stored tensors the view takes, in its order, the heaviest first.
    """

    format: str
    how: str
    bits: int
    shape: Shape
    dtype: np.dtype
    view: QuantizedView
    roles: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.format} {self.how}".rstrip()


class Logical(NamedTuple):
    """A tensor that is meant.

    - `form`: what it is.
    - `parts`: the keys of the stored tensors that `form.view` takes, in its order.
    - `beside`: keys that are used up with it, although no value depends on them.
    """

    form: QuantizedForm
    parts: tuple[str, ...]
    beside: tuple[str, ...]

    def explained(self, error: CheckpointError) -> CheckpointError:
        """An error of `form.view.values`, which knows no key, with the key in front."""
        return CheckpointError(quote(self.parts[0]), error.problem, error.advice)


@dataclass(frozen=True, slots=True)
class QuantizedKeys:
    """What a checkpoint's keys and config come to.

    - `tensors`: each tensor that is meant, by its key. Its stored keys are keys no longer.
    - `beside`: stored keys that belong to no single tensor and change no weight, such as scales of a cache.
    - `needs`: keys whose values decide about the rest. `find` then wants to be called again, with them.
    - `warnings`: sentences for the plan.
    """

    tensors: Mapping[str, Logical]
    beside: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def consumed(self) -> frozenset[str]:
        """All stored keys that are no keys any longer."""
        used = set(self.beside)
        for tensor in self.tensors.values():
            used.update(tensor.parts, tensor.beside)
        return frozenset(used)
