"""The keys that are meant: a table in which each quantised tensor stands in the place of its parts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import chain

import ml_dtypes
import numpy as np

from bridge.format.table import Form, StoredTensor, Table, collector_off
from bridge.quantized import Logical, QuantizedKeys

_COMPUTED_IN = frozenset(map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16)))


def logical(stored: Table, found: QuantizedKeys, raw: Collection[str] = ()) -> Table:
    """The table that plans and reads see.

    **Arguments:**

    - `stored`: the tensors as the files have them.
    - `found`: which of them are parts of quantised ones.
    - `raw`: quantised tensors that are left as they are stored.

    **Returns:** the keys of `stored`, in their order, without those that are used up; a quantised tensor stands where
    its heaviest part stood. Forms, like keys, are shared by all that are alike.
    """
    with collector_off(len(stored) > 1000):
        return _logical(stored, found, raw)


def _logical(stored: Table, found: QuantizedKeys, raw: Collection[str]) -> Table:
    used, heads = set(found.beside), dict[str, tuple[str, Logical]]()
    for key, tensor in found.tensors.items():
        if key not in raw:
            used.update(tensor.parts, tensor.beside)
            heads[tensor.parts[0]] = key, tensor
    numbers = stored.numbers
    kinds: list[int] = stored.kinds.tolist()
    names: list[str] = []
    kept: list[int] = []
    forms, made, own = list(stored.forms), dict[tuple[int, ...], int](), list[int]()
    parts, others = dict[int, tuple[int, ...]](), dict[int, int]()
    for number, name in enumerate(stored.names):
        if name not in used:
            if number in stored.parts:
                others[len(names)] = number
            kept.append(number)
            names.append(name)
            own.append(kinds[number])
        elif name in heads:
            key, tensor = heads[name]
            of = tuple([numbers[part] for part in tensor.parts])
            alike = (id(tensor.form), *[kinds[part] for part in of])
            kind = made.setdefault(alike, len(forms))
            if kind == len(forms):
                said, nbytes = tensor.form, sum(stored.forms[kinds[part]].nbytes for part in of)
                forms.append(Form(said.dtype, said.shape, nbytes, None, said.view, _COMPUTED_IN))
            parts[len(names)] = of
            kept.append(number)
            names.append(key)
            own.append(kind)
    rows = np.array(kept, np.intp)
    columns = stored.files, stored.ranks[rows], stored.offsets[rows]
    refused = {key: problem for key, problem in stored.refused.items() if key not in used}
    return Table(names, np.array(own, np.intp), forms, *columns, _StoredParts(stored, parts, others), refused)


class _StoredParts(Mapping[int, tuple[StoredTensor, ...]]):
    """The parts of each computed key, by its number; a plan asks for none of them.

    `numbers` are those of a quantised key, `others` what is computed as it is stored.
    """

    def __init__(self, stored: Table, numbers: Mapping[int, tuple[int, ...]], others: Mapping[int, int]) -> None:
        self._stored, self._numbers, self._others = stored, numbers, others

    def __getitem__(self, number: int) -> tuple[StoredTensor, ...]:
        if number in self._others:
            return self._stored.parts[self._others[number]]
        return tuple([self._stored.part(part) for part in self._numbers[number]])

    def __contains__(self, number: object) -> bool:
        return number in self._numbers or number in self._others

    def __iter__(self) -> Iterator[int]:
        return chain(self._numbers, self._others)

    def __len__(self) -> int:
        return len(self._numbers) + len(self._others)
