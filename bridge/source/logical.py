"""The keys that are meant: a table in which each quantised tensor stands in the place of its parts."""

from __future__ import annotations

from collections.abc import Collection

import ml_dtypes
import numpy as np

from bridge.format.table import Form, Part, Table, collector_off
from bridge.quantized import Found, Logical

_COMPUTED_IN = frozenset(map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16)))


def logical(stored: Table, found: Found, raw: Collection[str] = ()) -> Table:
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


def _logical(stored: Table, found: Found, raw: Collection[str]) -> Table:
    used, heads = set(found.beside), dict[str, tuple[str, Logical]]()
    for key, tensor in found.tensors.items():
        if key not in raw:
            used.update(tensor.parts, tensor.beside)
            heads[tensor.parts[0]] = key, tensor
    numbers, kinds = stored.numbers, stored.kinds.tolist()
    names: list[str] = []
    kept: list[int] = []
    forms, made, own = list(stored.forms), dict[tuple[int, int], int](), list[int]()
    parts: dict[int, tuple[Part, ...]] = {}
    for number, name in enumerate(stored.names):
        if name not in used:
            kept.append(number)
            names.append(name)
            own.append(kinds[number])
        elif name in heads:
            key, tensor = heads[name]
            found_parts = tuple([stored.part(numbers[part]) for part in tensor.parts])
            nbytes = sum([part.form.nbytes for part in found_parts])
            kind = made.setdefault((id(tensor.form), nbytes), len(forms))
            if kind == len(forms):
                said = tensor.form
                forms.append(Form(said.dtype, said.shape, nbytes, None, said.view, _COMPUTED_IN))
            parts[len(names)] = found_parts
            kept.append(number)
            names.append(key)
            own.append(kind)
    rows = np.array(kept, np.intp)
    return Table(names, np.array(own, np.intp), forms, stored.files, stored.ranks[rows], stored.offsets[rows], parts)
