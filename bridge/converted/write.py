"""A checkpoint written in the converted form: its leaves, what they cannot give back, and the record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from bridge.converted import COMMIT, MARK, ORIGINALS, RECORD
from bridge.converted.leaves import Report, leaves_of
from bridge.converted.record import VERSION, kept_keys, record_of, stale_name
from bridge.format.encode import encode_header, encode_index
from bridge.format.table import Form, StoredTensor, Table
from bridge.mapping import shard
from bridge.place.kept import KeptPart
from bridge.planning.plan import Plan
from bridge.source.box import box_of, read_box
from bridge.source.checkpoint import Checkpoint
from bridge.stream.gather import exact_keys
from bridge.target.commit import Target
from bridge.target.existing import BESIDE
from bridge.target.writer import check_length, make_file, write_file, write_ranges

_ALIGNED = 64
_PART = 4 << 20


def write_converted(
    place: Target,
    ckpt: Checkpoint,
    plan: Plan,
    kept: Mapping[str, np.ndarray],
    parts: Mapping[str, KeptPart],
    *,
    max_nbytes: int,
    report: Report | None,
) -> tuple[tuple[str, ...], int]:
    """Write and commit all files; their names and how many bytes they have together.

    **Arguments:** `kept`: leaves that no key fills; `parts`: what those have that keys fill in part.
    """
    with place.staged() as stage, stage.interruptible():
        (main,), index = place.names(stage)
        record, originals = stage.free_name(RECORD), stage.free_name(ORIGINALS)
        _write_leaves(
            stage.path, main, ckpt, plan, kept, parts, beside=[record, originals], max_nbytes=max_nbytes, report=report
        )
        stale = _write_originals(stage.path / originals, ckpt, plan)
        write_file(stage.path / record, record_of(ckpt, plan, stale), (), shown=record)
        names = [record, originals, main]
        if index is not None:
            weight_map = dict.fromkeys(plan.leaves, main)
            total = sum(spec.nbytes for spec in plan.leaves.values())
            write_file(stage.path / index, encode_index(weight_map, total), (), shown=index)
            names.append(index)
        nbytes = sum((stage.path / name).stat().st_size for name in names)
        place.commit(stage, names[:-1], names[-1])
    return (main, *names[3:], record, originals), nbytes


def _write_leaves(
    stage: Path,
    name: str,
    ckpt: Checkpoint,
    plan: Plan,
    kept: Mapping[str, np.ndarray],
    parts: Mapping[str, KeptPart],
    *,
    beside: Sequence[str],
    max_nbytes: int,
    report: Report | None,
) -> None:
    """The leaves, those of whole alignments first: so all of them start on one, and the small rest behind them."""

    # Behind the aligned ones, by falling size of item: every leaf starts on a multiple of its own item at least.
    def rank(leaf: str) -> int:
        return -_ALIGNED if plan.leaves[leaf].nbytes % _ALIGNED == 0 else -plan.leaves[leaf].dtype.itemsize

    order = sorted(plan.leaves, key=rank)
    tensors = {leaf: (plan.leaves[leaf].dtype, plan.leaves[leaf].shape) for leaf in order}
    metadata = {MARK: str(VERSION), BESIDE: json.dumps(beside)} | ({COMMIT: ckpt.commit} if ckpt.commit else {})
    head, offsets = encode_header(tensors, metadata, file=name, alignment=_ALIGNED)
    nbytes = len(head) + sum(spec.nbytes for spec in plan.leaves.values())
    make_file(stage / name, head, nbytes, shown=name)

    def ranges() -> Iterator[tuple[int, np.ndarray]]:
        for leaf, value in plan.fills.items():
            yield offsets[leaf], np.full(prod(plan.leaves[leaf].shape), value, plan.leaves[leaf].dtype)
        for leaf, values in kept.items():
            yield offsets[leaf], np.ascontiguousarray(values).reshape(-1)
        for leaf, first, values in leaves_of(ckpt, plan, order, parts, max_nbytes=max_nbytes, report=report):
            yield offsets[leaf] + first * values.itemsize, values

    write_ranges(stage / name, ranges(), shown=name)
    check_length(stage / name, nbytes, shown=name)


def _write_originals(path: Path, ckpt: Checkpoint, plan: Plan) -> dict[str, list[str]]:
    """What the leaves cannot give back; returns the keys that lie in a file though its index does not list them."""
    exact = exact_keys(plan.blocks, plan.specs, {name for name, _ in plan.lossy})
    names: dict[str, StoredTensor] = {}
    stale: dict[str, list[str]] = {}
    for number, file in enumerate(ckpt.files):
        tensors = ckpt.header(file).tensors
        stale[file] = []
        for key in kept_keys(ckpt, file):
            # Of a key that is not what its file has, the tensors that it is made of are kept.
            if not _is_listed(ckpt, key, tensors):
                stale[file].append(key)
                names[stale_name(number, key)] = tensors.part(tensors.numbers[key])
            elif key not in exact:
                names[key] = tensors.part(tensors.numbers[key])
    # Bytes, whatever they mean: not every dtype is one that fills its bytes.
    raw = {name: (np.dtype(np.uint8), (_nbytes(tensor.form),)) for name, tensor in names.items()}
    head, _ = encode_header(raw, {}, file=path.name)
    write_file(path, head, (part for tensor in names.values() for part in _raw(ckpt, tensor)), shown=path.name)
    return stale


def _is_listed(ckpt: Checkpoint, key: str, tensors: Table) -> bool:
    """Whether a tensor in a file's header is the checkpoint's key of that name, as it is stored."""
    number = ckpt.specs.numbers.get(key)
    if number is None:
        return False
    found, stored = ckpt.specs.part(number), tensors.part(tensors.numbers[key])
    return (found.file, found.form) == (stored.file, stored.form)


def _nbytes(form: Form) -> int:
    """How many bytes the values take in C order."""
    return form.nbytes if form.is_plain else prod(form.shape) * form.dtype.itemsize


def _raw(ckpt: Checkpoint, tensor: StoredTensor) -> Iterator[np.ndarray]:
    """A tensor's bytes as the file has them, a part at a time; of one that has them in another order, as C has them."""
    form = tensor.form
    if not form.is_plain:
        for box in shard.parts(tuple(map(range, form.shape)), max(_PART // form.dtype.itemsize, 1)):
            yield np.ascontiguousarray(read_box(ckpt, tensor, box_of(tensor, box))).reshape(-1).view(np.uint8)
        return
    for start in range(0, form.nbytes, _PART):
        raw = np.empty(min(_PART, form.nbytes - start), np.uint8)
        ckpt.byte_source(tensor.file).readinto([raw.data], tensor.offset + start)
        yield raw
