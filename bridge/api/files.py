"""The files of a save: decided as a whole, then written by this process alone, or by several each its own part."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from bridge._errors import CheckpointError, SaveError
from bridge._text import quote
from bridge.api.progress import Progress
from bridge.format.encode import encode_header, encode_index
from bridge.mapping.template import Spec
from bridge.place.held import Held, is_whole
from bridge.place.save_group import SaveGroup
from bridge.planning.plan import Plan
from bridge.stream.convert import DoesNotFitError
from bridge.stream.gather import Piece, count, raw, runs
from bridge.target.commit import Target, is_one_file
from bridge.target.existing import INDEX
from bridge.target.files import split_into_files, stored_nbytes
from bridge.target.stage import Stage
from bridge.target.writer import check_length, make_file, verify_file, verify_ranges, write_file, write_ranges

VISIBLE = 30.0
"""Seconds that a network file system may take to show one host what another has made."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """One file: the tensors in it, its first bytes, where each tensor starts, and its length."""

    specs: Mapping[str, Spec]
    head: bytes
    offsets: Mapping[str, int]
    nbytes: int


@dataclass(frozen=True, slots=True)
class Files:
    """All files of a save, the same whoever writes them, and where the values are: pieces of `leaves`."""

    files: Sequence[Tensors]
    plan: Plan
    held: Mapping[str, Sequence[Piece]]
    leaves: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        specs: Mapping[str, Spec],
        plan: Plan,
        held: Mapping[str, Sequence[Piece]],
        leaves: Mapping[str, Any],
        metadata: Mapping[str, str],
        *,
        limit: int | None,
        single: str,
    ) -> Self:
        """Decide.

        **Arguments:**

        - `held`: where the leaves have the elements of each key that `plan` reads.
        - `limit`: how many bytes a file may have.
        - `single`: what a single file is called, in messages.

        **Raises:** `SaveError` for what no file can hold.
        """
        files: list[Tensors] = []
        parts = split_into_files(specs, limit, metadata)
        for number, dealt in enumerate(parts):
            tensors = {key: (spec.dtype, spec.shape) for key, spec in dealt.items()}
            name = single if len(parts) == 1 else f"model-{number + 1:05}-of-{len(parts):05}.safetensors"
            head, offsets = encode_header(tensors, metadata, file=name)
            last = next(reversed(dealt), None)
            nbytes = len(head) if last is None else offsets[last] + stored_nbytes(dealt[last])
            files.append(Tensors(dealt, head, offsets, nbytes))
        return cls(files, plan, held, leaves)

    def digest(self) -> str:
        """The same for processes that would write the same files from the same places."""
        decided = json.dumps([[file.head.hex() for file in self.files], self.plan.texts])
        return hashlib.sha256(decided.encode()).hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(file.nbytes - len(file.head) for file in self.files)

    @property
    def held_nbytes(self) -> int:
        """Bytes of all elements that some leaf has; the others are zero."""
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


def write_alone(place: Target, files: Files, report: Progress | None, *, verify: bool) -> tuple[tuple[str, ...], int]:
    """Write and commit all files; their names and how many bytes they have. **Raises:** `SaveError`."""
    parts, wrote = Held(files.leaves), _counting(report, files.nbytes)
    written = 0
    with place.staged() as stage:
        names, indexed = place.names(stage, len(files.files))
        for name, file in zip(names, files.files, strict=True):
            path = stage.path / name
            written += write_file(path, file.head, _tensors(files, parts, file), shown=name, wrote=wrote)
            if verify:
                verify_file(path, file.head, _tensors(files, parts, file), shown=name)
        return _committed(place, stage, files, names, written, indexed=indexed)


def write_together(
    group: SaveGroup, place: Target | None, target: Path, files: Files, report: Progress | None, *, verify: bool
) -> tuple[tuple[str, ...], int]:
    """Write what this process has of all files; the one that leads makes them and commits them, when all have written.

    **Arguments:**

    - `place`: the target of the process that leads, `None` in the others.
    - `target`: where every process finds it; it must be the same for all.

    **Returns:** the files' names and how many bytes they have, in every process.

    **Raises:** `SaveError`, where another process has failed or died too.
    """
    whole = [name for name, leaf in files.leaves.items() if is_whole(leaf)]
    mine = files.digest()
    group.post("decided", json.dumps([mine, whole]))
    if place is None:
        stage = json.loads(group.wait_for("staged", group.processes[0]))
        group.all_are_here()
        folder = (target.parent if is_one_file(target) else target) / stage["folder"]
        _await(folder, group.me)
        own = stage["whole"].get(str(group.me), ())
        _write_part(group, folder, stage["names"], files, own, report, verify=verify)
        written = json.loads(group.wait_for("committed", group.processes[0]))
        return tuple(written["names"]), written["nbytes"]
    decided = {process: json.loads(text) for process, text in group.wait_for_all("decided").items()}
    other = next((process for process, (digest, _) in decided.items() if digest != mine), None)
    if other is not None:
        raise SaveError(
            f"processes {group.me} and {other} would save different files: call save with the same model, plan or "
            "rules, dtype, metadata and max_shard_size in every process"
        )
    group.all_are_here()
    owners = _owners({group.me: whole} | {process: names for process, (_, names) in decided.items()})
    with place.staged() as stage:
        names, indexed = place.names(stage, len(files.files))
        for name, file in zip(names, files.files, strict=True):
            make_file(stage.path / name, file.head, file.nbytes, shown=name)
        group.post("staged", json.dumps({"folder": stage.path.name, "names": names, "whole": owners}))
        own = _write_part(group, stage.path, names, files, owners[group.me], report, verify=verify)
        found = own + sum(map(int, group.wait_for_all("written").values()))
        if found != files.held_nbytes:
            raise SaveError(
                f"the processes have {found:,} of {files.held_nbytes:,} bytes together: give save the same model in "
                "all of them"
            )
        if verify:
            group.wait_for_all("verified")
        for name, file in zip(names, files.files, strict=True):
            check_length(stage.path / name, file.nbytes, shown=name)
        written = sum(file.nbytes for file in files.files)
        done = _committed(place, stage, files, names, written, indexed=indexed)
    group.post("committed", json.dumps({"names": done[0], "nbytes": done[1]}))
    return done


def _owners(whole: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    """Who saves the leaves that processes have whole: of several that have one, the first."""
    found: dict[int, list[str]] = {}
    taken: set[str] = set()
    for process, names in sorted(whole.items()):
        found[process] = [name for name in names if name not in taken]
        taken.update(names)
    return found


def _write_part(
    group: SaveGroup,
    folder: Path,
    names: Sequence[str],
    files: Files,
    whole: Sequence[str],
    report: Progress | None,
    *,
    verify: bool,
) -> int:
    """Everything that this process saves, into the files that stand in `folder`; returns how many bytes."""
    parts = Held(files.leaves, whole=frozenset(whole))
    own = sum(
        count(files.held.get(key, ()), parts) * spec.dtype.itemsize
        for file in files.files
        for key, spec in file.specs.items()
    )
    wrote = _counting(report, own)
    for name, file in zip(names, files.files, strict=True):
        write_ranges(folder / name, _ranges(files, parts, file), shown=name, wrote=wrote)
    group.post("written", str(own))
    if verify:
        # Not before all have written: who comes last could have spoilt what another one read back well.
        group.wait_for_all("written")
        for name, file in zip(names, files.files, strict=True):
            verify_ranges(folder / name, _ranges(files, parts, file), shown=name)
        group.post("verified")
    return own


def _await(folder: Path, process: int) -> None:
    """Wait until another host's folder is seen here. **Raises:** `SaveError`."""
    for _ in range(int(VISIBLE / 0.1)):
        if folder.is_dir():
            return
        time.sleep(0.1)
    raise SaveError(
        f"process {process} does not see {quote(str(folder.parent))} as process 0 does: several processes save to a "
        "file system that all of them share"
    )


def _committed(
    place: Target, stage: Stage, files: Files, names: Sequence[str], written: int, *, indexed: bool
) -> tuple[tuple[str, ...], int]:
    """The files with their index, if they need one, at their place; their names and bytes."""
    if not indexed:
        place.commit(stage, [], names[0])
        return tuple(names), written
    written += write_file(stage.path / INDEX, files.index(names), (), shown=INDEX)
    place.commit(stage, names, INDEX)
    return (*names, INDEX), written


def _counting(report: Progress | None, total: int) -> Callable[[int], None]:
    """A function that is told of bytes and reports their sum."""
    done = 0

    def wrote(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if report is not None:
            report(done, total)

    return wrote


def _tensors(files: Files, parts: Held, file: Tensors) -> Iterator[np.ndarray | memoryview]:
    """The tensors of one file, in its order, one at a time."""
    for key, spec in file.specs.items():
        if key not in files.held:
            yield np.zeros(spec.shape, spec.dtype)  # used up by its layer: no leaf has it
            continue
        try:
            yield raw(files.held[key], parts, spec.dtype)
        except CheckpointError as error:
            raise SaveError(_unwritable(key, error)) from error


def _unwritable(key: str, error: CheckpointError) -> str:
    more = ": save with dtype='model', and each key gets its leaf's dtype" if isinstance(error, DoesNotFitError) else ""
    return f"key {quote(key)} {error}{more}"


def _ranges(files: Files, parts: Held, file: Tensors) -> Iterator[tuple[int, np.ndarray]]:
    """What this process has of one file, each with the byte where it starts. What no leaf has is zero already."""
    for key, spec in file.specs.items():
        try:
            for start, values in runs(files.held.get(key, ()), parts, spec.dtype):
                yield file.offsets[key] + start * spec.dtype.itemsize, values
        except CheckpointError as error:
            raise SaveError(_unwritable(key, error)) from error
