"""A checkpoint with adapters on top: a table in which the tensors that they change are computed, and all files."""

from __future__ import annotations

import threading
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from bridge.adapters import Step
from bridge.format.table import Form, StoredTensor, Table
from bridge.source.checkpoint import Checkpoint
from bridge.source.memory import InMemory

if TYPE_CHECKING:
    from bridge.source.bytes import ByteSource

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
AdapterSteps = Sequence[tuple[int, Step]]
"""What becomes of one tensor: of each step also which adapter it is of."""


class Adapted(Checkpoint):
    """A base with adapters on top. Closing it closes the base, not the adapters.

    `files` and all that was written with them are the base's. An adapter's file is called by the adapter's name too.
    """

    def __init__(self, base: Checkpoint, adapters: Sequence[Checkpoint], steps: Mapping[str, AdapterSteps]) -> None:
        self.__dict__.update(base.__dict__)
        self._others: dict[str, tuple[Checkpoint, str]] = {}
        self._held: dict[str, InMemory] = {}
        self._lock = threading.Lock()
        names: list[dict[str, str]] = []
        for number, adapter in enumerate(adapters):
            called = {file: self._called(adapter, file, number) for file in adapter.files}
            self._others |= {name: (adapter, file) for file, name in called.items()}
            names.append(called)
        self.specs = _TableBuilder(base.specs, adapters, names).table(steps)

    def _called(self, adapter: Checkpoint, file: str, number: int) -> str:
        name = f"{adapter.source.rstrip('/')}/{file}" if not adapter.source.endswith(file) else adapter.source
        taken = name in self._others or name in self._headers
        return f"{name} ({number + 1})" if taken else name

    @property
    def kept_nbytes(self) -> int:
        """Bytes of files that stay in memory while they are read: those that are far away, for they are small and all
        weights need them.
        """
        sources = (adapter.peek(file) for adapter, file in self._others.values())
        return sum(source.nbytes for source in sources if not source.absent and source.parallel is not None)

    def peek(self, file: str) -> ByteSource:
        """A file's bytes where they are: nothing is fetched."""
        if file in self._others:
            adapter, own = self._others[file]
            return adapter.peek(own)
        return super().peek(file)

    def byte_source(self, file: str) -> ByteSource:
        """The bytes of one file, of an adapter's too."""
        if file not in self._others:
            return super().byte_source(file)
        with self._lock:  # several threads may be the first to ask
            if file in self._held:
                return self._held[file]
            adapter, own = self._others[file]
            source = adapter.byte_source(own)
            if source.parallel is None:
                return source
            self._held[file] = InMemory.of(source)
            return self._held[file]

    def absent_nbytes(self, files: Iterable[str]) -> int:
        """How many bytes `fetch` would fetch."""
        mine, others = self._split(files)
        return super().absent_nbytes(mine) + sum(adapter.absent_nbytes([own]) for adapter, own in others)

    def fetch(self, files: Iterable[str], report: Callable[[int, int], None] | None = None) -> None:
        """Bring files that are on the Hub, and not in its cache, there. Adapters are small, and come first."""
        mine, others = self._split(files)
        for adapter, own in others:
            adapter.fetch([own])
        super().fetch(mine, report)

    def _split(self, files: Iterable[str]) -> tuple[list[str], list[tuple[Checkpoint, str]]]:
        wanted = list(files)
        return [file for file in wanted if file not in self._others], [
            self._others[file] for file in wanted if file in self._others
        ]


class _TableBuilder:
    """The table of a base with some tensors computed."""

    def __init__(self, base: Table, adapters: Sequence[Checkpoint], names: Sequence[Mapping[str, str]]) -> None:
        self.base, self.adapters, self.names = base, adapters, names
        self.files = [*base.files, *(name for called in names for name in called.values())]
        self.rank = {file: rank for rank, file in enumerate(self.files)}

    def table(self, steps: Mapping[str, AdapterSteps]) -> Table:
        """The keys of the base in their order, then those that only an adapter has."""
        base = self.base
        new = [key for key in steps if key not in base.numbers]
        kinds, ranks, offsets = (
            np.concatenate([column, np.zeros(len(new), column.dtype)])
            for column in (base.kinds, base.ranks, base.offsets)
        )
        forms = list(base.forms)
        made: dict[object, int] = {}
        parts: dict[int, tuple[StoredTensor, ...]] = {}
        for key, several in steps.items():
            number = base.numbers.get(key)
            part = self.computed(key, None if number is None else base.part(number), several)
            number = len(base) + new.index(key) if number is None else number
            kind = made.setdefault(_alike(part), len(forms))
            if kind == len(forms):
                forms.append(part.form)
            kinds[number], ranks[number], offsets[number] = kind, self.rank[part.file], part.offset
            if part.parts:
                parts[number] = part.parts
        others = base.parts
        if others and not steps.keys().isdisjoint(base.names):
            gone = {base.numbers[key] for key in steps if key in base.numbers} - parts.keys()
            others = {number: others[number] for number in others if number not in gone} if gone else others
        every = cast(
            "Mapping[int, tuple[StoredTensor, ...]]",
            ChainMap(parts, cast("dict[int, tuple[StoredTensor, ...]]", others)),
        )
        refused = {key: problem for key, problem in base.refused.items() if key not in steps}
        return Table([*base.names, *new], kinds, forms, self.files, ranks, offsets, every, refused)

    def computed(self, key: str, part: StoredTensor | None, steps: AdapterSteps) -> StoredTensor:
        """One tensor, as its steps leave it. Between two of them it is wider: only the last one rounds."""
        for place, (number, step) in enumerate(steps):
            own = [self.own(number, name) for name in step.parts]
            if step.view is None:
                (only,) = own
                part = StoredTensor(key, only.form, only.file, only.offset, only.parts)
                continue
            parts = tuple(own) if step.alone or part is None else (_wider(part), *own)
            form = self.form(step, parts, last=place == len(steps) - 1)
            part = StoredTensor(key, form, parts[0].file, parts[0].offset, parts)
        assert part is not None, "a tensor without a step is none that is computed"
        return part

    def form(self, step: Step, parts: Sequence[StoredTensor], *, last: bool) -> Form:
        """What is known of a tensor after a step."""
        dtype, shape = step.array
        nbytes = sum(part.form.nbytes for part in parts)
        narrow = dtype.itemsize < 4
        if not last:
            return Form(_FLOAT32 if narrow else dtype, shape, nbytes, None, step.view)
        # A float32 is rounded on its way to the model, where it is seen whether it fits.
        return Form(dtype, shape, nbytes, None, step.view, frozenset((_FLOAT32, dtype)) if narrow else frozenset())

    def own(self, number: int, name: str) -> StoredTensor:
        """An adapter's tensor, in a file that is called as here."""
        table = self.adapters[number].specs
        return _moved(table.part(table.numbers[name]), self.names[number])


def _moved(part: StoredTensor, files: Mapping[str, str]) -> StoredTensor:
    return StoredTensor(
        part.name, part.form, files[part.file], part.offset, tuple(_moved(each, files) for each in part.parts)
    )


def _wider(part: StoredTensor) -> StoredTensor:
    """A tensor that is computed, such as one of codes: in float32, where it can be."""
    if _FLOAT32 not in part.form.computed_in:
        return part
    form = part.form._replace(dtype=_FLOAT32, computed_in=frozenset())
    return StoredTensor(part.name, form, part.file, part.offset, part.parts)


def _alike(part: StoredTensor) -> object:
    """What tensors that are computed alike have in common."""
    return part.form, tuple(_alike(each) for each in part.parts)
