"""`Recording`: what `record` wrote, read and checked. It may come from a stranger: every number is checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, NoReturn, TypeGuard

import ml_dtypes
import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.checking.kept import Kept, Other
from bridge.format.strict_json import is_list, is_object, kind, loads
from bridge.mapping.arrays import Shape
from bridge.mapping.indexmap import MAX_COUNT
from bridge.source.checkpoint import Checkpoint, open_checkpoint

_ADVICE = "Record the run again: eqx-bridge recorder > record.py"
_BF16 = np.dtype(ml_dtypes.bfloat16)
_DTYPES = {
    name: np.dtype(name)
    for name in ("float64", "float32", "float16", "bool", "uint8", "int8", "int16", "int32", "int64")
} | {"bfloat16": _BF16}


class TorchModule(NamedTuple):
    """A module of PyTorch: its class, the class of torch.nn that it is, plain attributes, other names, parameters."""

    name: str
    kind: str
    torch_kind: str
    attrs: Mapping[str, Any]
    aliases: tuple[str, ...]
    params: Mapping[str, str]


class RecordedCall(NamedTuple):
    """One call of a module: when it began and ended, what it took and gave; `corner` of a small part, whole."""

    module: str
    start: int
    end: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    corner: tuple[tuple[Any, ...], Any] | None


class Op(NamedTuple):
    """A product with a parameter outside of a layer: of `taken` and the part of `param` that shape and strides say."""

    op: str
    module: str
    at: int
    param: str
    offset: int
    shape: Shape
    strides: Shape
    taken: Kept
    given: Kept
    groups: tuple[Kept, ...]


class Param(NamedTuple):
    """A parameter or buffer: its checksum, and those of some rows of its matrices, by matrix and row."""

    dtype: np.dtype
    shape: Shape
    storage: tuple[int, int]
    crc: int
    rows: Mapping[tuple[int, int], int]


class Recording:
    """What a PyTorch model took and gave, module by module."""

    def __init__(self, source: str, content: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
        parse = _RecordingParser(source, content, tensors)
        self.source = source
        self.kind = parse.text(content, "class", "the recording")
        self.modules = parse.modules()
        self.calls = parse.calls(self.modules)
        self.params = parse.params()
        self.ops = parse.ops(self.modules)
        self.skipped = parse.skipped()
        self._calls: dict[str, list[RecordedCall]] = {}
        for call in self.calls:
            self._calls.setdefault(call.module, []).append(call)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Recording:
        """Read a file that `record` wrote. **Raises:** `CheckpointError` for one that is none, or is damaged."""
        with open_checkpoint(path) as ckpt:
            return _read(ckpt)

    def calls_of(self, module: str) -> Sequence[RecordedCall]:
        """The calls of one module that were kept, in their order."""
        return self._calls.get(module, ())


def _read(ckpt: Checkpoint) -> Recording:
    name = ckpt.source
    if ckpt.metadata.get("format") != "bridge-recording" or "recording" not in ckpt.metadata:
        raise CheckpointError(quote(name), "is not a recording of a PyTorch model's run", _ADVICE)
    subject = f"{quote(name)}: its recording"
    content = loads(ckpt.metadata["recording"].encode(), subject=subject, advice=_ADVICE)
    if not is_object(content) or content.get("version") != 1:
        version = kind(content.get("version")) if is_object(content) else kind(content)
        raise CheckpointError(subject, f"has {version} as its version, expected 1", "Update eqx-bridge or record again")
    return Recording(name, content, {key: ckpt[key] for key in ckpt})


class _RecordingParser:
    """Turns JSON into what it says. Every wrong place is one and the same `CheckpointError`."""

    def __init__(self, source: str, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.source, self.content, self.arrays = source, content, arrays
        found = self.list(content.get("tensors"), "tensors")
        self.kept = [self.tensor(entry, n) for n, entry in enumerate(found)]

    def wrong(self, where: str, value: Any, wanted: str) -> NoReturn:
        """A place that holds something else. **Raises:** `CheckpointError`."""
        raise CheckpointError(
            quote(self.source), f": its recording is damaged: {where} is {kind(value)}, not {wanted}", _ADVICE
        )

    def text(self, entry: Any, name: str, where: str) -> str:
        """A text of an object."""
        value = self.object(entry, where).get(name)
        if not isinstance(value, str):
            self.wrong(f"{where}.{name}", value, "a text")
        return value

    def number(self, entry: Any, name: str, where: str) -> int:
        """A whole number of an object, not negative."""
        value = self.object(entry, where).get(name)
        if not _counts(value):
            self.wrong(f"{where}.{name}", value, "a whole number")
        return value

    def object(self, value: Any, where: str) -> dict[str, Any]:
        """A JSON object."""
        if not is_object(value):
            self.wrong(where, value, "an object")
        return value

    def list(self, value: Any, where: str) -> list[Any]:
        """A JSON list."""
        if not is_list(value):
            self.wrong(where, value, "a list")
        return value

    def shape(self, value: Any, where: str) -> Shape:
        """The shape of an array, or its strides."""
        found = self.list(value, where)
        if not all(map(_counts, found)) or len(found) > 64 or prod(max(n, 1) for n in found) > MAX_COUNT:
            self.wrong(where, value, "a shape")
        return tuple(found)

    def dtype(self, entry: Any, where: str) -> np.dtype:
        """A dtype by PyTorch's name."""
        name = self.text(entry, "dtype", where)
        if name not in _DTYPES:
            self.wrong(f"{where}.dtype", name, "a dtype")
        return _DTYPES[name]

    def tensor(self, entry: Any, number: int) -> Kept:
        """What is kept of one tensor: its array has the rows and columns that its shape allows."""
        where = f"tensors[{number}]"
        shape, dtype = self.shape(self.object(entry, where).get("shape"), f"{where}.shape"), self.dtype(entry, where)
        whole, name = entry.get("whole"), entry.get("file")
        if not isinstance(whole, bool):
            self.wrong(f"{where}.whole", whole, "true or false")
        if name is None:
            return Kept(shape, dtype, None, whole=whole, number=number)
        array = self.arrays.get(name) if isinstance(name, str) else None
        if array is None or array.dtype != dtype:
            self.wrong(f"{where}.file", name, f"the name of a tensor of dtype {dtype} in the file")
        fits = array.shape == shape if whole else array.ndim == 2 and _within(array.shape, shape)
        if not fits:
            self.wrong(f"{where}.shape", list(shape), f"a shape of which {list(array.shape)} can be a part")
        return Kept(shape, dtype, array, whole=whole, number=number)

    def ref(self, value: Any, where: str) -> Kept:
        """A tensor by its number."""
        if not _counts(value) or value >= len(self.kept):
            self.wrong(where, value, "the number of a tensor")
        return self.kept[value]

    def tree(self, value: Any, where: str) -> Any:
        """Tensors, tuples, dicts and plain values."""
        match self.object(value, where):
            case {"tensor": number, "all": all_of} if self.ref(all_of, where).values is not None:
                self.ref(all_of, where).number = self.ref(number, where).number
                return self.ref(all_of, where)
            case {"tensor": number}:
                return self.ref(number, where)
            case {"tuple": children} if is_list(children):
                return tuple([self.tree(child, where) for child in children])
            case {"dict": children} if is_object(children):
                return {name: self.tree(child, where) for name, child in children.items()}
            case {"value": plain} if not is_list(plain) and not is_object(plain):
                return plain
            case {"other": str(name)}:
                return Other(name)
            case _:
                self.wrong(where, value, "a tensor, a tuple, a dict or a value")

    def modules(self) -> dict[str, TorchModule]:
        """The modules by name."""
        found: dict[str, TorchModule] = {}
        for name, entry in self.object(self.content.get("modules"), "modules").items():
            where = f"modules[{quote(name)}]"
            classes = self.text(entry, "class", where), self.text(entry, "kind", where)
            aliases = self.list(entry.get("aliases"), f"{where}.aliases")
            params = self.object(entry.get("params"), f"{where}.params")
            for text in (*aliases, *params.values()):
                if not isinstance(text, str):
                    self.wrong(where, text, "a name")
            attrs = self.object(entry.get("attrs"), f"{where}.attrs")
            found[name] = TorchModule(name, *classes, attrs, tuple(aliases), params)
        return found

    def calls(self, modules: Mapping[str, TorchModule]) -> tuple[RecordedCall, ...]:
        """The calls, in the order in which they began."""
        found: list[RecordedCall] = []
        for n, entry in enumerate(self.list(self.content.get("calls"), "calls")):
            where = f"calls[{n}]"
            name = self.known(entry, where, modules)
            taken, corner = self.tree(entry.get("in"), f"{where}.in"), None
            if not isinstance(taken, dict) or not isinstance(taken.get("args"), tuple):
                self.wrong(f"{where}.in", entry["in"], "the arguments of a call")
            if not isinstance(taken.get("kwargs"), dict):
                self.wrong(f"{where}.in", entry["in"], "the arguments of a call")
            if "corner" in entry:
                pair = self.object(entry["corner"], f"{where}.corner")
                corner = tuple([self.tree(pair.get(side), f"{where}.corner.{side}") for side in ("in", "out")])
                if not isinstance(corner[0], tuple):
                    self.wrong(f"{where}.corner.in", pair.get("in"), "the arguments of a call")
            ticks = self.number(entry, "start", where), self.number(entry, "end", where)
            output = self.tree(entry.get("out"), f"{where}.out")
            found.append(RecordedCall(name, *ticks, taken["args"], taken["kwargs"], output, corner))
        return tuple(sorted(found, key=lambda call: call.start))

    def ops(self, modules: Mapping[str, TorchModule]) -> tuple[Op, ...]:
        """The products with parameters."""
        found: list[Op] = []
        for n, entry in enumerate(self.list(self.content.get("ops"), "ops")):
            where = f"ops[{n}]"
            module, at = self.known(entry, where, modules), self.number(entry, "at", where)
            texts = self.text(entry, "op", where), module, at, self.text(entry, "param", where)
            shapes = self.shape(entry.get("shape"), where), self.shape(entry.get("strides"), where)
            pair = self.ref(entry.get("in"), f"{where}.in"), self.ref(entry.get("out"), f"{where}.out")
            groups = [self.ref(one, f"{where}.groups") for one in self.list(entry.get("groups", []), where)]
            found.append(Op(*texts, self.number(entry, "offset", where), *shapes, *pair, tuple(groups)))
        return tuple(found)

    def known(self, entry: Any, where: str, modules: Mapping[str, TorchModule]) -> str:
        """The module that a call or a product belongs to."""
        name = self.text(entry, "module", where)
        if name not in modules:
            self.wrong(f"{where}.module", name, "a module of the recording")
        return name

    def params(self) -> dict[str, Param]:
        """The parameters and buffers by name."""
        found: dict[str, Param] = {}
        for name, entry in self.object(self.content.get("params"), "params").items():
            where = f"params[{quote(name)}]"
            place = self.number(entry, "storage", where), self.number(entry, "offset", where)
            rows: dict[tuple[int, int], int] = {}
            for spot, crc in self.object(entry.get("rows"), f"{where}.rows").items():
                matrix, _, row = spot.partition(",")
                if not (matrix.isdecimal() and row.isdecimal() and len(spot) < 40 and _counts(crc)):
                    self.wrong(f"{where}.rows", spot, "a pair of a matrix and a row")
                rows[int(matrix), int(row)] = crc
            shape = self.shape(entry.get("shape"), f"{where}.shape")
            found[name] = Param(self.dtype(entry, where), shape, place, self.number(entry, "crc", where), rows)
        return found

    def skipped(self) -> tuple[tuple[str, str], ...]:
        """What could not be recorded: names and reasons."""
        found: list[tuple[str, str]] = []
        for pair in self.list(self.content.get("skipped"), "skipped"):
            if not (is_list(pair) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
                self.wrong("skipped", pair, "a pair of a name and a reason")
            found.append((pair[0], pair[1]))
        return tuple(found)


def _counts(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _within(kept: Shape, shape: Shape) -> bool:
    """Whether an array of rows and columns can have been kept of a tensor."""
    return bool(shape) and kept[0] <= prod(shape[:-1]) and kept[1] <= shape[-1]
