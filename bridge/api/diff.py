"""`diff`: compares two checkpoints, element by element."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge._dtypes import DTYPES, dtype_label
from bridge._text import fold, plural, printable, quote, safe
from bridge.converted import is_converted
from bridge.format.spec import TensorSpec
from bridge.format.table import Table
from bridge.mapping.arrays import Numbers, groups
from bridge.source.box import bands, box_of, read_box
from bridge.source.checkpoint import Checkpoint, open_checkpoint
from bridge.source.tensor import check_readable

if TYPE_CHECKING:
    from bridge.api.arguments import Source

_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class Differing:
    """A key that has the same dtype and shape in both checkpoints, and `count` elements with different bits.

    `largest` is the largest absolute difference of the values: NaN if a value is NaN, 0 if only the bits differ.
    """

    key: str
    count: int
    largest: float


@dataclass(frozen=True, slots=True)
class Diff:
    """The differences of two checkpoints, `a` and `b`. The distribution over files is not compared.

    - `equal`: whether both have the same keys with the same dtypes, shapes and bits.
    - `only_a`, `only_b`: keys that only one of them has.
    - `respecified`: tuples `(key, spec in a, spec in b)` of keys whose dtype or shape differs.
    - `differing`: keys whose values differ, as `Differing(key, count, largest)`.
    - `metadata`: tuples `(name, text in a, text in b)` of entries of `__metadata__` that differ; a text is `None` if
        that checkpoint has no such entry. `equal` does not depend on the metadata.
    """

    a: str
    b: str
    compared: int
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    respecified: tuple[tuple[str, TensorSpec, TensorSpec], ...]
    differing: tuple[Differing, ...]
    metadata: tuple[tuple[str, str | None, str | None], ...] = ()

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not (self.only_a or self.only_b or self.respecified or self.differing)

    def __str__(self) -> str:
        if self.equal:
            text = f"{quote(self.a)} and {quote(self.b)} are equal: {plural(self.compared, 'key')}, bit for bit"
            return "\n".join([text, *self._metadata()])
        lines = [f"{quote(self.a)} and {quote(self.b)} differ"]
        for where, keys in ((self.a, self.only_a), (self.b, self.only_b)):
            lines += [f"  only in {quote(where)}: {printable(name)}" for name, _ in fold(keys)]
        for key, one, two in self.respecified:
            lines.append(f"  {printable(key)}: {_shown(one)} and {_shown(two)}")
        for d in self.differing:
            verb = "differs" if d.count == 1 else "differ"
            lines.append(f"  {printable(d.key)}: {plural(d.count, 'element')} {verb}, by at most {d.largest:g}")
        return safe("\n".join([*lines, *self._metadata()]))

    def _metadata(self) -> list[str]:
        shown = [
            (quote(name), *("absent" if text is None else quote(text) for text in texts))
            for name, *texts in self.metadata
        ]
        return [f"  metadata {name}: {one} and {two}" for name, one, two in shown]

    def to_json(self) -> str:
        """The differences as one JSON document."""
        document = {
            "equal": self.equal,
            "compared": self.compared,
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
            "respecified": [{"key": key, "a": _entry(one), "b": _entry(two)} for key, one, two in self.respecified],
            "differing": [
                {"key": d.key, "count": d.count, "largest": d.largest if np.isfinite(d.largest) else str(d.largest)}
                for d in self.differing
            ],
            "metadata": [{"name": name, "a": one, "b": two} for name, one, two in self.metadata],
        }
        return json.dumps(document, ensure_ascii=False)


def diff(
    a: Source,
    b: Source,
    *,
    values: bool = False,
) -> Diff:
    """Compare two checkpoints, a few megabytes at a time.

    **Arguments:**

    - `a`, `b`: two checkpoints, each anything that `bridge.open` takes.
    - `values`: compare the values of quantised weights, in the dtype that the model was made in, instead of the stored
        codes and scales.

    **Returns:** a `Diff`. `diff.equal` says whether the checkpoints are equal, `print(diff)` shows the differences.

    **Raises:** `CheckpointError` for a checkpoint that cannot be read.

    ```python
    assert bridge.diff("model.safetensors", "model.safetensors").equal
    ```
    """
    with ExitStack() as stack:
        one = a if isinstance(a, Checkpoint) else stack.enter_context(open_checkpoint(a))
        two = b if isinstance(b, Checkpoint) else stack.enter_context(open_checkpoint(b))
        return _diff(_meant(one), _meant(two)) if values else _diff(one, two)


def _meant(ckpt: Checkpoint) -> Checkpoint:
    """A checkpoint whose quantised weights are keys."""
    if not ckpt.specs.has_codes or is_converted(ckpt.metadata):
        return ckpt
    from bridge.source.quantized import over  # most checkpoints are plain

    return over(ckpt, ckpt.quantized.table())


def _diff(a: Checkpoint, b: Checkpoint) -> Diff:
    numbers = b.specs.numbers
    there = np.array([numbers.get(key, -1) for key in a.specs.names], np.intp)
    here = np.flatnonzero(there >= 0)
    for ckpt, common in ((a, here), (b, there[here])):
        ckpt.fetch(sorted(ckpt.specs.files_of(common)))
    for key in (key for key in {**a.specs.refused, **b.specs.refused} if key in a and key in b):
        check_readable(a.specs, key)
        check_readable(b.specs, key)
    respecified, stored, computed = _kinds(a.specs, here, b.specs, there[here])
    unlike: list[int] = respecified.tolist()
    found: dict[int, tuple[int, float]] = {}
    for number, raw in chain(_stored(a, stored, b, there[stored]), _computed(a, computed, b, there[computed])):
        if not np.array_equal(raw[0], raw[1]):
            before, largest = found.get(number, (0, 0.0))
            count, most = _differing(raw, a.specs.spec(number).dtype)
            found[number] = before + count, float(np.maximum(largest, most))
    pairs = (a.specs, numbers), (b.specs, a.specs.numbers)
    only_a, only_b = (tuple([key for key in keys if key not in others]) for keys, others in pairs)
    names = dict.fromkeys((*a.metadata, *b.metadata))
    metadata = [(name, a.metadata.get(name), b.metadata.get(name)) for name in names]
    return Diff(
        a.source,
        b.source,
        len(here),
        only_a,
        only_b,
        tuple((a.specs.names[n], a.specs.spec(n), b.specs.spec(int(there[n]))) for n in unlike),
        tuple(Differing(a.specs.names[number], *found[number]) for number in sorted(found)),
        tuple(entry for entry in metadata if entry[1] != entry[2]),
    )


def _kinds(a: Table, here: Numbers, b: Table, there: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Keys of `a`, by number: of other dtype or shape in `b`; stored as they are in both; and the others."""
    found: tuple[list[Numbers], ...] = [], [], []
    for pair, rows in groups(a.kinds[here] * len(b.forms) + b.kinds[there]):
        one, two = a.forms[pair // len(b.forms)], b.forms[pair % len(b.forms)]
        plain = one.is_plain and two.is_plain
        found[0 if (one.dtype, one.shape) != (two.dtype, two.shape) else 1 if plain else 2].append(here[rows])
    respecified, stored, computed = (np.sort(np.concatenate([here[:0], *rows])) for rows in found)
    return respecified, stored, computed


class _StoredKeys:
    """Keys of a checkpoint, by number, that are stored as they are."""

    def __init__(self, ckpt: Checkpoint, numbers: Numbers) -> None:
        specs = ckpt.specs
        ranks, starts = specs.ranks[numbers], specs.offsets[numbers]
        nbytes = np.array([form.nbytes for form in specs.forms], np.int64)[specs.kinds[numbers]]
        new = np.ones(len(numbers), bool)
        new[1:] = (ranks[1:] != ranks[:-1]) | (starts[1:] != starts[:-1] + nbytes[:-1])
        files, offsets = map(specs.files.__getitem__, ranks.tolist()), starts.tolist()
        self.ckpt, self.places = ckpt, list(zip(files, offsets, strict=True))
        self.nbytes: list[int] = nbytes.tolist()
        # For each key, the first behind it that does not follow the one before it in the file.
        self.stops: list[int] = np.append(np.flatnonzero(new), len(new))[np.cumsum(new)].tolist()

    def read(self, first: int, start: int, ends: Sequence[int], into: memoryview) -> None:
        """Bytes of the keys from row `first` on, of that one from byte `start` on; `ends` are theirs in `into`."""
        if self.stops[first] >= first + len(ends):
            self.fill(*self.places[first], start, [into])
            return
        places = self.places[first : first + len(ends)]
        buffers: list[memoryview] = []
        at, behind = places[0], places[0]
        for place, (low, high) in sorted(zip(places, pairwise([0, *ends]), strict=True)):
            if place != behind:
                self.fill(*at, start, buffers)
                at, buffers = place, []
            buffers.append(into[low:high])
            behind = place[0], place[1] + high - low
        self.fill(*at, start, buffers)

    def fill(self, file: str, offset: int, start: int, buffers: Sequence[memoryview]) -> None:
        """Read a run of a file."""
        if any(buffers):
            self.ckpt.byte_source(file).readinto(buffers, offset + start)


def _stored(a: Checkpoint, here: Numbers, b: Checkpoint, there: Numbers) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The bytes of keys in both checkpoints, a key or a run of it at a time, where any of what was read differs."""
    one, two = _StoredKeys(a, here), _StoredKeys(b, there)
    memory = np.empty((2, _CHUNK), np.uint8)
    for first, start, ends in _spans(one.nbytes):
        raw = memory[:, : ends[-1]]
        one.read(first, start, ends, raw[0].data)
        two.read(first, start, ends, raw[1].data)
        if not _same(raw[0], raw[1]):
            rows = here[first : first + len(ends)].tolist()
            for number, (low, high) in zip(rows, pairwise([0, *ends]), strict=True):
                yield number, [raw[0, low:high], raw[1, low:high]]


def _spans(nbytes: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
    """What is read at a time, so that it is no more than a chunk: as many keys as there is room for, or a run of one.

    The first row, the byte of it to start at, and where each row ends among all bytes.
    """
    first, ends = 0, list[int]()
    for row, count in enumerate(nbytes):
        if ends and ends[-1] + count > _CHUNK:
            yield first, 0, ends
            ends = []
        if count > _CHUNK:
            for start in range(0, count, _CHUNK):
                yield row, start, [min(_CHUNK, count - start)]
        else:
            first = first if ends else row
            ends.append(ends[-1] + count if ends else count)
    if ends:
        yield first, 0, ends


def _same(one: np.ndarray, two: np.ndarray) -> bool:
    """Whether bytes are the same; numpy compares eight at a time twice as fast as one."""
    whole = len(one) // 8 * 8
    words = np.array_equal(one[:whole].view(np.uint64), two[:whole].view(np.uint64))
    return words and np.array_equal(one[whole:], two[whole:])


def _computed(a: Checkpoint, here: Numbers, b: Checkpoint, there: Numbers) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The bytes of the values of keys in both checkpoints, a box at a time, where one of them does not store these."""
    for number, other in zip(here.tolist(), there.tolist(), strict=True):
        tensors = a.specs.part(number), b.specs.part(other)
        computed = next(tensor for tensor in tensors if not tensor.form.is_plain)
        for box in bands(computed, tuple(map(range, computed.form.shape))):
            found = (read_box(ckpt, tensor, box_of(tensor, box)) for ckpt, tensor in zip((a, b), tensors, strict=True))
            yield number, [np.ascontiguousarray(values).reshape(-1).view(np.uint8) for values in found]


def _differing(raw: list[np.ndarray], dtype: np.dtype) -> tuple[int, float]:
    """How many elements of two runs differ in their bits, and by how much at most."""
    known = DTYPES.get(dtype_label(dtype))
    packed = known is not None and known.packed
    unequal = np.flatnonzero((raw[0] != raw[1]).reshape(-1, 1 if packed else dtype.itemsize).any(1))
    if packed:
        return len(unequal), float("nan")  # bytes of several values each: counted, but not measured
    wide: Any = np.complex128 if dtype.kind == "c" else np.float64
    values = [part.view(dtype)[unequal].astype(wide) for part in raw]
    with np.errstate(invalid="ignore"):
        return len(unequal), float(np.abs(values[0] - values[1]).max())


def _shown(spec: TensorSpec) -> str:
    return f"{spec.dtype.name}[{', '.join(map(str, spec.shape))}]"


def _entry(spec: TensorSpec) -> dict[str, Any]:
    return {"dtype": dtype_label(spec.dtype), "shape": list(spec.shape)}
