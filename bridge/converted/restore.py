"""From the converted form back to the files that it came from, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bridge._errors import CheckpointError, SaveError
from bridge._text import quote
from bridge.converted.record import beside, plan_of, read_record, stale_name
from bridge.format.encode import encode_index
from bridge.format.header import read_header
from bridge.format.spec import TensorSpec
from bridge.planning.plan import Plan
from bridge.source.bytes import ByteSource, LocalFile
from bridge.source.checkpoint import Checkpoint
from bridge.stream.gather import HostLeaf, gather, pieces
from bridge.target.commit import Target
from bridge.target.existing import INDEX
from bridge.target.stage import Stage
from bridge.target.writer import write_file


def restore(ckpt: Checkpoint, place: Target) -> tuple[tuple[str, ...], int]:
    """Write all files that a converted checkpoint came from; their names, an index among them, and their bytes.

    **Raises:** `CheckpointError` where it does not have all that they need; `SaveError` for the target.
    """
    record = read_record(ckpt)
    files = record["files"]
    if place.single and len(files) > 1:
        raise SaveError(
            quote(str(place.path)), f"is the name of one file, but the checkpoint had {len(files)}", "Name a folder"
        )
    main = ckpt.byte_source(ckpt.files[0])
    if not isinstance(main, LocalFile) or len(ckpt.files) > 1:
        raise CheckpointError(
            quote(ckpt.source), "is not on this disk as the folder that convert wrote", "Fetch it to a folder first"
        )
    kept = ckpt.open_beside(beside(ckpt)[1])
    try:
        back = _Back(ckpt, plan_of(record, ckpt), np.frombuffer(main.map(), np.uint8), kept)
        with place.staged() as stage, stage.interruptible():
            return _write(place, stage, record, back)
    finally:
        kept.close()


class _Back:
    """The tensors of the original checkpoint, one at a time."""

    def __init__(self, ckpt: Checkpoint, plan: Plan, memory: np.ndarray, kept: ByteSource) -> None:
        self.ckpt, self.plan, self.kept = ckpt, plan, kept
        self.held = pieces(plan.blocks)
        self.stored = read_header(kept).tensors
        self.leaves = _Mapped(memory, ckpt.specs)

    def tensor(self, number: int, key: str, *, stale: bool) -> np.ndarray:
        """One tensor of file `number`, or its bytes."""
        name = stale_name(number, key) if stale else key
        if name in self.stored:
            spec = self.stored[name]
            raw = np.empty(spec.nbytes, np.uint8)
            self.kept.readinto([raw.data], spec.offset)
            return raw
        if name in self.held and name in self.plan.specs:
            return gather(self.held[name], self.leaves, self.plan.specs[name].dtype)
        raise CheckpointError(
            quote(self.ckpt.source),
            f"has lost key {quote(key)}: neither a leaf nor {quote(self.kept.name)} holds it",
            "Convert it again",
        )


def _write(place: Target, stage: Stage, record: Mapping[str, Any], back: _Back) -> tuple[tuple[str, ...], int]:
    """All files of the record, and their index."""
    files = record["files"]
    names, indexed = _names(place, stage, record)
    keys = [_keys(file["header"], back.ckpt.source) for file in files]
    # No file holds a key that was computed from what its files hold.
    named = {key for held in keys for key in held}.union(record.get("computed", ()))
    lost = next((key for key in back.plan.specs if key not in named), None)
    if lost is not None:
        raise CheckpointError(
            quote(back.ckpt.source),
            f"has a record of its conversion that is damaged: no file of it holds key {quote(lost)}",
            "Convert it again",
        )
    nbytes = 0
    for number, (file, name) in enumerate(zip(files, names, strict=True)):
        head = file["header"].encode()
        stale = set(file["stale"])
        tensors = (back.tensor(number, key, stale=key in stale) for key in keys[number])
        path = stage.path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        nbytes += write_file(path, len(head).to_bytes(8, "little") + head, tensors, shown=name)
        _check(path, back.ckpt.source)
    if not indexed:
        place.commit(stage, [], names[0])
        return tuple(names), nbytes
    raw = _index(record, names, keys, nbytes)
    write_file(stage.path / INDEX, raw, (), shown=INDEX)
    place.commit(stage, names, INDEX)
    return (*names, INDEX), nbytes + len(raw)


def _names(place: Target, stage: Stage, record: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The files' own names where they are free, and whether an index goes with them."""
    wanted = [file["name"] for file in record["files"]]
    if place.single or (len(wanted) == 1 and record["index"] is None):
        names, index = place.names(stage, wanted[:1])
        return names, index is not None
    return [stage.free_name(name) for name in wanted], True


def _index(record: Mapping[str, Any], names: Sequence[str], keys: Sequence[Sequence[str]], nbytes: int) -> bytes:
    """The original index, to the byte where no file was renamed; one of our own where there was none."""
    if record["index"] is None:
        return encode_index({key: name for name, held in zip(names, keys, strict=True) for key in held}, nbytes)
    renamed = {file["name"]: name for file, name in zip(record["files"], names, strict=True)}
    if all(old == new for old, new in renamed.items()):
        return record["index"].encode()
    document = json.loads(record["index"])
    document["weight_map"] = {key: renamed[file] for key, file in document["weight_map"].items()}
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _keys(header: str, source: str) -> list[str]:
    """The keys of a header in the order in which their bytes lie."""
    try:
        entries = [(entry["data_offsets"], key) for key, entry in json.loads(header).items() if key != "__metadata__"]
        return [key for _, key in sorted(entries, key=lambda entry: entry[0])]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            quote(source),
            "has a record of its conversion that is damaged: a header in it cannot be read",
            "Convert it again",
        ) from error


def _check(path: Path, source: str) -> None:
    """The file just written is what its header says. **Raises:** `CheckpointError`: the record was tampered with."""
    written = LocalFile(path, path.name)
    try:
        read_header(written)
    except CheckpointError as error:
        raise CheckpointError(
            quote(source), f"has a record of its conversion that is damaged: {error.statement}", "Convert it again"
        ) from error
    finally:
        written.close()


class _Mapped(Mapping[str, Sequence[HostLeaf]]):
    """The tensors of one file as views of it: nothing is read before it is looked at."""

    def __init__(self, flat: np.ndarray, specs: Mapping[str, TensorSpec]) -> None:
        self.flat, self.specs = flat, specs

    def __getitem__(self, name: str) -> Sequence[HostLeaf]:
        spec = self.specs[name]
        return [HostLeaf(self.flat[spec.offset : spec.offset + spec.nbytes].view(spec.dtype).reshape(spec.shape))]

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)
