"""What headers say of their tensors: as columns, and as a mapping that makes a `TensorSpec` when asked."""

from __future__ import annotations

import gc
from collections.abc import Generator, ItemsView, Iterator, Mapping, Sequence, ValuesView
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from bridge.format.spec import TensorSpec
    from bridge.format.view import View

_NO_CODES = frozenset(np.dtype(d) for d in ("f8", "f4", "f2", "i8", "?", "c8", ml_dtypes.bfloat16))
_MAX_COUNT = 2**64 - 1  # the reference counts in 64 bits


@contextmanager
def collector_off(many: bool) -> Generator[None]:
    """For code that makes `many` objects, all live: the garbage collector, looking for dead ones, doubles its time."""
    if not many or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def element_count(shape: Sequence[int]) -> int:
    """How many elements a shape has; OverflowError where 64 bits do not hold it, or the product on the way to it."""
    count = 1
    for extent in shape:
        count *= extent
        if count > _MAX_COUNT:
            raise OverflowError(f"a tensor of shape {tuple(shape)} has too many elements to count")
    return count


class Form(NamedTuple):
    """What many tensors have in common.

    - `dtype` (a numpy dtype), `shape`: of the tensor's values.
    - `nbytes`: what it takes in the file, or its parts together.
    - `strides`: in elements, none negative, where it is not stored C-contiguous; 0 along an axis that repeats.
    - `view`: how its values come out of its parts, where they are not stored themselves.
    - `computed_in`: other dtypes that the view gives its values in, each rounded once.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    nbytes: int
    strides: tuple[int, ...] | None = None
    view: View | None = None
    computed_in: frozenset[np.dtype] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether the tensor is stored as it is: its `nbytes`, from where it starts, are its values in C order."""
        return self.strides is None and self.view is None


Numbers: TypeAlias = "npt.NDArray[np.intp]"


class StoredTensor:
    """A tensor with its place, of which another one is computed; it may have parts itself. `name` is for messages."""

    __slots__ = ("file", "form", "name", "offset", "parts")

    def __init__(self, name: str, form: Form, file: str, offset: int, parts: tuple[StoredTensor, ...] = ()) -> None:
        self.name, self.form, self.file, self.offset, self.parts = name, form, file, offset, parts

    @property
    def files(self) -> set[str]:
        """The files that its bytes are in."""
        return set[str]().union(*(part.files for part in self.parts)) if self.parts else {self.file}


class Columns:
    """A checked header. Tensor `n` is `keys[n]` and has `forms[kinds[n]]`; `starts` are int64, in bytes of the data."""

    __slots__ = ("forms", "keys", "kinds", "metadata", "starts")

    def __init__(
        self,
        metadata: dict[str, str],
        keys: Sequence[str],
        kinds: Numbers,
        forms: Sequence[Form],
        starts: npt.NDArray[np.int64],
    ) -> None:
        self.metadata, self.keys, self.kinds, self.forms, self.starts = metadata, keys, kinds, forms, starts


class Table(Mapping[str, "TensorSpec"]):
    """key to `TensorSpec`, of one file or of several. 100,000 tensors open without one spec being made.

    Tensor `n` is called `names[n]`, has `forms[kinds[n]]`, and lies in `files[ranks[n]]` from byte `offsets[n]` on.
    One that is computed from others has them in `parts[n]`, and its place is that of the first one. `files` are all
    files that the bytes of any tensor, or part of one, are in. `refused` says why some keys cannot be read: nobody
    knows what they are, and their forms say `void`.
    """

    def __init__(
        self,
        names: Sequence[str],
        kinds: Numbers,
        forms: Sequence[Form],
        files: Sequence[str],
        ranks: Numbers,
        offsets: npt.NDArray[np.int64],
        parts: Mapping[int, tuple[StoredTensor, ...]] | None = None,
        refused: Mapping[str, tuple[str, str, str]] | None = None,
    ) -> None:
        self.names, self.kinds, self.forms = names, kinds, forms
        self.files, self.ranks, self.offsets = files, ranks, offsets
        self.parts = parts or {}
        self.refused = refused or {}
        self._made: dict[str, TensorSpec] = {}

    @classmethod
    def of(cls, columns: Columns, *, file: str, data_start: int) -> Table:
        """The tensors of one file, whose data begins at byte `data_start`."""
        ranks = np.zeros(len(columns.keys), np.intp)
        return cls(columns.keys, columns.kinds, columns.forms, [file], ranks, columns.starts + data_start)

    @classmethod
    def joined(cls, tables: Sequence[tuple[Table, Numbers]]) -> Table:
        """Some tensors of each of several files, by number; no key may stand in two of them."""
        names: list[str] = []
        forms: dict[Form, int] = {}
        kinds: list[Numbers] = [np.empty(0, np.intp)]
        offsets: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]  # an index may list nothing
        parts: dict[int, tuple[StoredTensor, ...]] = {}
        refused: dict[str, tuple[str, str, str]] = {}
        for table, kept in tables:
            if table.parts:
                numbered = enumerate(kept.tolist(), len(names))
                parts |= {number: table.parts[n] for number, n in numbered if n in table.parts}
            if table.refused:
                held = {table.names[n] for n in kept.tolist()}
                refused |= {key: problem for key, problem in table.refused.items() if key in held}
            names += table.names if len(kept) == len(table) else map(table.names.__getitem__, kept.tolist())
            own = np.array([forms.setdefault(form, len(forms)) for form in table.forms], np.intp)
            kinds.append(own[table.kinds[kept]])
            offsets.append(table.offsets[kept])
        ranks = np.repeat(np.arange(len(tables)), [len(kept) for _, kept in tables])
        files = [table.files[0] for table, _ in tables]
        return cls(names, np.concatenate(kinds), list(forms), files, ranks, np.concatenate(offsets), parts, refused)

    def columns(self) -> tuple[Sequence[str], Numbers, Sequence[Form]]:
        """The keys, of each the number of its form, and the forms."""
        return self.names, self.kinds, self.forms

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each key."""
        return dict(zip(self.names, range(len(self.names)), strict=True))

    def spec(self, number: int) -> TensorSpec:
        """The spec of one tensor, by number."""
        from bridge.format.spec import TensorSpec  # a load asks for none

        form, file = self.forms[int(self.kinds[number])], self.files[int(self.ranks[number])]
        return TensorSpec(form.dtype, form.shape, form.nbytes, file, int(self.offsets[number]))

    def part(self, number: int) -> StoredTensor:
        """One tensor, by number, as what is to be read of it depends on."""
        form, file = self.forms[int(self.kinds[number])], self.files[int(self.ranks[number])]
        return StoredTensor(self.names[number], form, file, int(self.offsets[number]), self.parts.get(number, ()))

    @property
    def has_codes(self) -> bool:
        """Whether some tensor is of a dtype that codes of quantised weights have: few models have others of these."""
        return any(form.dtype not in _NO_CODES for form in self.forms)

    def is_plain(self, key: str) -> bool:
        """Whether a tensor is stored as it is."""
        return self.forms[int(self.kinds[self.numbers[key]])].is_plain

    def files_of(self, numbers: Numbers) -> set[str]:
        """The files that the bytes of some tensors are in."""
        found: set[str] = set()
        ranks: list[int] = np.unique(self.ranks[numbers]).tolist()
        found.update(self.files[rank] for rank in ranks)
        if self.parts:
            computed: list[int] = numbers.tolist()
            found.update(*(self.part(number).files for number in computed if number in self.parts))
        return found

    def __getitem__(self, key: str) -> TensorSpec:
        made = self._made.get(key)
        return self.spec(self.numbers[key]) if made is None else made

    def __contains__(self, key: object) -> bool:
        return key in self.numbers

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def items(self) -> ItemsView[str, TensorSpec]:
        """All at once: one by one they would take twice the time."""
        return self._all().items()

    def values(self) -> ValuesView[TensorSpec]:
        """All at once, as `items`."""
        return self._all().values()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._all()!r})"

    def _all(self) -> dict[str, TensorSpec]:
        from bridge.format.spec import TensorSpec  # a load asks for none

        if len(self._made) < len(self):
            ranks: list[int] = self.ranks.tolist()
            forms, files = map(self.forms.__getitem__, self.kinds.tolist()), self.files
            with collector_off(len(self) > 1000):
                self._made = {
                    key: TensorSpec(form.dtype, form.shape, form.nbytes, files[rank], offset)
                    for key, form, rank, offset in zip(self.names, forms, ranks, self.offsets.tolist(), strict=True)
                }
        return self._made
