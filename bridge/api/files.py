"""The files of a save: all are decided first, then this process writes them; `together` is for several processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bridge._errors import CheckpointError, SaveError
from bridge._text import quote
from bridge.api.content import Content
from bridge.api.progress import Progress
from bridge.format.encode import encode_header, encode_index
from bridge.mapping.template import Spec
from bridge.place.local import LocalShards
from bridge.stream.convert import DoesNotFitError
from bridge.stream.gather import LeafElements, gather, raw
from bridge.target.commit import Target, numbered
from bridge.target.existing import INDEX, SINGLE
from bridge.target.files import split_into_files, stored_nbytes
from bridge.target.stage import Stage
from bridge.target.writer import verify_file, write_file


@dataclass(frozen=True, slots=True)
class TensorFile:
    """One file: the tensors in it, its first bytes, where each tensor starts, and its length."""

    specs: Mapping[str, Spec]
    head: bytes
    offsets: Mapping[str, int]
    nbytes: int


@dataclass(frozen=True, slots=True)
class SaveFiles:
    """All files of a save, the same in every process, and the places of the values: pieces of `leaves`, or `base`.

    The preferred names of the files are `wanted`, that of their index is `index_name`.
    """

    files: Sequence[TensorFile]
    wanted: Sequence[str]
    index_name: str
    content: Content
    leaves: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        content: Content,
        leaves: Mapping[str, Any],
        metadata: Mapping[str, str],
        *,
        limit: int | None,
        single: str | None,
    ) -> Self:
        """Decide the files.

        **Arguments:**

        - `limit`: the largest size of a file in bytes. With a base, the tensors are distributed as in its files.
        - `single`: the name of the only file, if the target is one file.

        **Raises:** `SaveError` for a value that no file can hold.
        """
        base = content.base
        index_name = INDEX if base is None else base.index_name
        if single is not None:
            dealt = {single: dict(content.specs)}
        elif base is not None:
            dealt = base.files(content.specs)
        else:
            parts = split_into_files(content.specs, limit, metadata)
            dealt = dict(zip([SINGLE] if len(parts) == 1 else numbered(len(parts)), parts, strict=True))
        files: list[TensorFile] = []
        for name, specs in dealt.items():
            tensors = {key: (spec.dtype, spec.shape) for key, spec in specs.items()}
            head, offsets = encode_header(tensors, metadata, file=name)
            last = next(reversed(specs), None)
            nbytes = len(head) if last is None else offsets[last] + stored_nbytes(specs[last])
            files.append(TensorFile(specs, head, offsets, nbytes))
        return cls(files, list(dealt), index_name, content, leaves)

    @property
    def held(self) -> Mapping[str, Sequence[LeafElements]]:
        """Where the leaves have the elements of each key."""
        return self.content.held

    def digest(self) -> str:
        """A hash that is equal in processes that would write the same files from the same places."""
        decided = json.dumps([[file.head.hex() for file in self.files], self.content.plan.texts])
        return hashlib.sha256(decided.encode()).hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(file.nbytes - len(file.head) for file in self.files)

    @property
    def held_nbytes(self) -> int:
        """Bytes of all elements that a leaf holds; the others are zero."""
        return sum(
            piece.index_map.count * spec.dtype.itemsize
            for file in self.files
            for key, spec in file.specs.items()
            for piece in self.held.get(key, ())
            if not piece.zero
        )

    def index(self, names: Sequence[str]) -> bytes:
        """The index of the files under these names."""
        weight_map = {key: name for name, file in zip(names, self.files, strict=True) for key in file.specs}
        return encode_index(weight_map, self.nbytes)


def write_alone(
    place: Target, files: SaveFiles, report: Progress | None, *, verify: bool
) -> tuple[tuple[str, ...], int]:
    """Write and commit all files; their names and how many bytes they have. **Raises:** `SaveError`."""
    parts, wrote = LocalShards(files.leaves), counting(report, files.nbytes)
    written = 0
    with place.staged() as stage, stage.interruptible():
        names, index = place.names(stage, files.wanted, files.index_name)
        for name, file in zip(names, files.files, strict=True):
            path = stage.path / name
            written += write_file(path, file.head, _tensors(files, parts, file), shown=name, wrote=wrote)
            if verify:
                verify_file(path, file.head, _tensors(files, parts, file), shown=name)
        return committed(place, stage, files, names, written, index)


def committed(
    place: Target, stage: Stage, files: SaveFiles, names: Sequence[str], written: int, index: str | None
) -> tuple[tuple[str, ...], int]:
    """Put the files, with an index if they need one, into their place; returns their names and bytes."""
    if index is None:
        place.commit(stage, [], names[0])
        return tuple(names), written
    written += write_file(stage.path / index, files.index(names), (), shown=index)
    place.commit(stage, names, index)
    return (*names, index), written


def counting(report: Progress | None, total: int) -> Callable[[int], None]:
    """A function that is called with numbers of bytes and reports their sum."""
    done = 0

    def wrote(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if report is not None:
            report(done, total)

    return wrote


def _tensors(files: SaveFiles, parts: LocalShards, file: TensorFile) -> Iterator[np.ndarray | memoryview]:
    """The tensors of one file, in its order, one at a time, those of the base in parts."""
    base = files.content.base
    for key, spec in file.specs.items():
        if base is not None and key in base.keys:
            yield from base.stored(key)
        elif key not in files.held:
            yield np.zeros(spec.shape, spec.dtype)  # used up by its layer: no leaf has it
        else:
            try:
                if base is not None and key in base.partial:
                    yield gather(files.held[key], parts, spec.dtype, base.ckpt[key])
                else:
                    yield raw(files.held[key], parts, spec.dtype)
            except CheckpointError as error:
                raise unwritable(key, error) from error


def unwritable(key: str, error: CheckpointError) -> SaveError:
    """The error for a value that a key's dtype does not hold."""
    advice = "Save with dtype='model', and each key gets its leaf's dtype"
    return SaveError(f"key {quote(key)}", error.problem, advice if isinstance(error, DoesNotFitError) else error.advice)
