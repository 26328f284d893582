"""`diff`: two checkpoints, element by element."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from bridge._dtypes import DTYPES, dtype_name
from bridge._text import fold, plural, printable, quote
from bridge.converted import is_converted
from bridge.format.spec import TensorSpec
from bridge.source.box import bands, box_of, read_box
from bridge.source.checkpoint import Checkpoint, open_checkpoint

_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class Differing:
    """A key whose tensors have one dtype and shape, and `count` elements of different bits.

    `largest` is the largest absolute difference of their values; NaN where a value is none, 0 where only bits differ.
    """

    key: str
    count: int
    largest: float


@dataclass(frozen=True, slots=True)
class Diff:
    """What differs between two checkpoints. The split into files is not compared.

    - `equal`: whether they hold the same keys with the same dtypes, shapes and bits.
    - `only_a`, `only_b`: keys that the other does not hold.
    - `respecified`: tuples `(key, spec in a, spec in b)` where dtype or shape differ.
    - `differing`: keys whose contents differ, as `Differing(key, count, largest)`.
    - `metadata`: tuples `(name, text in a, text in b)` where the `__metadata__` differ, `None` where one has no such
        name. They say nothing about the tensors, and do not count for `equal`.
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
        return "\n".join([*lines, *self._metadata()])

    def _metadata(self) -> list[str]:
        shown = [
            (quote(name), *("absent" if text is None else quote(text) for text in texts))
            for name, *texts in self.metadata
        ]
        return [f"  metadata {name}: {one} and {two}" for name, one, two in shown]

    def to_json(self) -> str:
        """The same as one JSON document."""
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
    a: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Checkpoint,
    b: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Checkpoint,
    *,
    values: bool = False,
) -> Diff:
    """Compare two checkpoints, a few megabytes at a time.

    **Arguments:**

    - `a`, `b`: whatever `bridge.open` takes.
    - `values`: of quantised weights, compare what they mean, in the dtype that the model was made in, and not the codes
        and scales that are stored.

    **Returns:** a `Diff`; `diff.equal` says whether anything differs, `print(diff)` what.

    **Raises:** `CheckpointError`.

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
    respecified: list[tuple[str, TensorSpec, TensorSpec]] = []
    differing: list[Differing] = []
    common = [key for key in a if key in b]
    for ckpt in (a, b):
        numbers = np.array([ckpt.specs.numbers[key] for key in common], np.intp)
        ckpt.fetch(sorted(ckpt.specs.files_of(numbers)))
    for key in common:
        one, two = a.specs[key], b.specs[key]
        if (one.dtype, one.shape) != (two.dtype, two.shape):
            respecified.append((key, one, two))
        elif (found := _compare(key, a, b)) is not None:
            differing.append(found)
    only_a, only_b = (tuple(key for key in x if key not in y) for x, y in ((a, b), (b, a)))
    names = dict.fromkeys((*a.metadata, *b.metadata))
    metadata = [(name, a.metadata.get(name), b.metadata.get(name)) for name in names]
    unlike = tuple(entry for entry in metadata if entry[1] != entry[2])
    return Diff(a.source, b.source, len(common), only_a, only_b, tuple(respecified), tuple(differing), unlike)


def _compare(key: str, a: Checkpoint, b: Checkpoint) -> Differing | None:
    """The elements of one key that differ; `None` where all bits are the same."""
    count, largest = 0, 0.0
    plain = all(ckpt.specs.is_plain(key) for ckpt in (a, b))
    for raw in _stored(key, a, b) if plain else _computed(key, a, b):
        if not np.array_equal(raw[0], raw[1]):
            found, most = _differing(raw, a.specs[key].dtype)
            count, largest = count + found, float(np.maximum(largest, most))
    return Differing(key, count, largest) if count else None


def _stored(key: str, a: Checkpoint, b: Checkpoint) -> Iterator[list[np.ndarray]]:
    """The bytes of a key in both checkpoints, a run at a time."""
    one, two = a.specs[key], b.specs[key]
    for start in range(0, one.nbytes, _CHUNK):
        nbytes = min(_CHUNK, one.nbytes - start)
        raw = [np.empty(nbytes, np.uint8), np.empty(nbytes, np.uint8)]
        for ckpt, spec, into in ((a, one, raw[0]), (b, two, raw[1])):
            ckpt.byte_source(spec.file).readinto([into.data], spec.offset + start)
        yield raw


def _computed(key: str, a: Checkpoint, b: Checkpoint) -> Iterator[list[np.ndarray]]:
    """The bytes of the values of a key in both checkpoints, a box at a time, where one of them does not store these."""
    tensors = [ckpt.specs.part(ckpt.specs.numbers[key]) for ckpt in (a, b)]
    computed = next(tensor for tensor in tensors if not tensor.form.is_plain)
    for box in bands(computed, tuple(map(range, computed.form.shape))):
        found = (read_box(ckpt, tensor, box_of(tensor, box)) for ckpt, tensor in zip((a, b), tensors, strict=True))
        yield [np.ascontiguousarray(values).reshape(-1).view(np.uint8) for values in found]


def _differing(raw: list[np.ndarray], dtype: np.dtype) -> tuple[int, float]:
    """How many elements of two runs differ in their bits, and by how much at most."""
    packed = DTYPES[dtype_name(dtype)].packed
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
    return {"dtype": dtype_name(spec.dtype), "shape": list(spec.shape)}
