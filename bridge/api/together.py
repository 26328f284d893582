"""A save of a model that is sharded over several processes: each writes its shards, one commits the files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bridge._errors import CheckpointError, SaveError
from bridge._text import quote
from bridge.api.files import SaveFiles, TensorFile, committed, counting, unwritable
from bridge.api.progress import Progress
from bridge.place.local import LocalShards, is_whole
from bridge.place.save_group import SaveGroup
from bridge.stream.gather import LeafElements, count, runs
from bridge.target.commit import Target, is_one_file
from bridge.target.writer import check_length, holds, make_file, verify_ranges, write_ranges

VISIBLE = 30.0
"""Seconds that a network file system may take to show one host what another has made."""


def write_together(
    group: SaveGroup, place: Target | None, target: Path, files: SaveFiles, report: Progress | None, *, verify: bool
) -> tuple[tuple[str, ...], int]:
    """Write this process's part of all files. The leader creates the files, and commits them when all have written.

    **Arguments:**

    - `place`: the target in the leader, `None` in the other processes.
    - `target`: the path of the target, the same in every process.

    **Returns:** in every process, the names of the files and their size in bytes.

    **Raises:** `SaveError`, also if another process has failed or died.
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
            f"processes {group.me} and {other}",
            "would save different files",
            "Call save with the same model, plan or rules, dtype, metadata and max_shard_size in every process",
        )
    group.all_are_here()
    owners = _owners({group.me: whole} | {process: names for process, (_, names) in decided.items()})
    with place.staged() as stage, stage.interruptible():
        names, index = place.names(stage, files.wanted, files.index_name)
        for name, file in zip(names, files.files, strict=True):
            make_file(stage.path / name, file.head, file.nbytes, shown=name)
        # Before the others come: where a base has some elements of a key, leaves have the rest.
        for name, file in zip(names, files.files, strict=True):
            write_ranges(stage.path / name, _from_base(files, file), shown=name)
        group.post("staged", json.dumps({"folder": stage.path.name, "names": names, "whole": owners}))
        own = _write_part(group, stage.path, names, files, owners[group.me], report, verify=verify)
        found = own + sum(map(int, group.wait_for_all("written").values()))
        if found != files.held_nbytes:
            raise SaveError(
                "the processes",
                f"hold {found:,} bytes in total, expected {files.held_nbytes:,}",
                "Give save the same model in all of them",
            )
        if verify or any(files.content.copies()):
            group.wait_for_all("verified")
        for name, file in zip(names, files.files, strict=True):
            check_length(stage.path / name, file.nbytes, shown=name)
        written = sum(file.nbytes for file in files.files)
        done = committed(place, stage, files, names, written, index)
    group.post("committed", json.dumps({"names": done[0], "nbytes": done[1]}))
    return done


def _owners(whole: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    """Which process saves each leaf that processes have as a whole: the first of those that have it."""
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
    files: SaveFiles,
    whole: Sequence[str],
    report: Progress | None,
    *,
    verify: bool,
) -> int:
    """Write this process's part into the files in `folder`; returns how many bytes it wrote."""
    parts = LocalShards(files.leaves, whole=frozenset(whole))
    own = sum(
        count(files.held.get(key, ()), parts) * spec.dtype.itemsize
        for file in files.files
        for key, spec in file.specs.items()
    )
    wrote = counting(report, own)
    for name, file in zip(names, files.files, strict=True):
        write_ranges(folder / name, _ranges(files, parts, file), shown=name, wrote=wrote)
    group.post("written", str(own))
    copies = list(files.content.copies())
    if verify or copies:
        # Not before all have written: who comes last could have spoilt what another one read back well.
        group.wait_for_all("written")
        for name, file in zip(names, files.files, strict=True):
            if verify:
                verify_ranges(folder / name, _ranges(files, parts, file), shown=name)
            for key, copy in copies:
                # Each process has parts of a copy whose counterparts others may have written.
                if key in file.specs and not holds(folder / name, _of_copy(file, key, copy, parts), shown=name):
                    raise files.content.drifted(key, copy)
        group.post("verified")
    return own


def _of_copy(file: TensorFile, key: str, copy: LeafElements, parts: LocalShards) -> Iterator[tuple[int, np.ndarray]]:
    """The pieces of a copy in this process, each with its place in the file in bytes."""
    dtype = file.specs[key].dtype
    for start, values in runs([copy], parts, dtype):
        yield file.offsets[key] + start * dtype.itemsize, values


def _await(folder: Path, process: int) -> None:
    """Wait until the folder that another host made is visible here. **Raises:** `SaveError`."""
    for _ in range(int(VISIBLE / 0.1)):
        if folder.is_dir():
            return
        time.sleep(0.1)
    raise SaveError(
        f"process {process}",
        f"and process 0 do not see the same {quote(str(folder.parent))}",
        "Save to a file system that all processes share",
    )


def _from_base(files: SaveFiles, file: TensorFile) -> Iterator[tuple[int, np.ndarray]]:
    """The pieces of one file that are copied from the base."""
    base = files.content.base
    for key in file.specs if base is not None else ():
        if base is not None and (key in base.keys or key in base.partial):
            start = file.offsets[key]
            for part in base.stored(key):
                yield start, part
                start += part.nbytes


def _ranges(files: SaveFiles, parts: LocalShards, file: TensorFile) -> Iterator[tuple[int, np.ndarray]]:
    """The pieces of one file in this process, each with its first byte. Elements that no leaf has are zero already."""
    for key, spec in file.specs.items():
        try:
            for start, values in runs(files.held.get(key, ()), parts, spec.dtype):
                yield file.offsets[key] + start * spec.dtype.itemsize, values
        except CheckpointError as error:
            raise unwritable(key, error) from error
