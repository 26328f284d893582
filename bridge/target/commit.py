"""New files under names of their own, then one rename: before it the target is the old checkpoint, then the new one.

Which rename that is depends on what stands in the folder, and so on what a reader of it goes by:

    new                old                 the files go out     what commits
    one file           nothing, or one                          the file takes `model.safetensors`
    one file           an index            the file             the old index goes away
    several            an index, or        all of them          the new index takes its name
                       `model.safetensors`
    several            nothing             after the index      the last of them, which the index lacks till then

Old files go last, those that the old checkpoint named and no others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridge._errors import SaveError
from bridge._text import quote
from bridge.target.existing import INDEX, SINGLE, ExistingCheckpoint, existing_checkpoint, indices, inside, tensor_files
from bridge.target.explain import explained, sync
from bridge.target.interrupts import DeferredInterrupts
from bridge.target.journal import recover, write_journal
from bridge.target.stage import Stage, folder_lock, staged, sweep


def is_one_file(target: str | os.PathLike[str]) -> bool:
    """Whether a target is one file by its name, and no folder."""
    return Path(target).suffix == ".safetensors"


def _is_encodable(text: str) -> bool:
    """Whether a file system has characters for a name."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


class Target:
    """A folder, or one file, to write a checkpoint to."""

    def __init__(self, target: str | os.PathLike[str], *, overwrite: bool) -> None:
        """**Arguments:**

        - `target`: a folder, made if need be; a name that ends in `.safetensors` is one file.
        - `overwrite`: whether what stands there may be replaced.

        **Raises:** `SaveError` if something stands there and may not be replaced, or it is no place for a checkpoint.
        """
        text = os.fspath(target)
        if not text or "\0" in text or "://" in text or not _is_encodable(text):
            raise SaveError(quote(text), "is not a place to save to", "Name a folder or a file on a disk")
        self.path = Path(target)
        self.overwrite = overwrite
        self.single = is_one_file(target)
        self.folder = self.path.parent if self.single else self.path
        with DeferredInterrupts(), explained(self.path, "cannot be looked at"):
            if self.path.exists() and self.single == self.path.is_dir():
                problem = (
                    "is a folder, but a name that ends in '.safetensors' is that of a file"
                    if self.single
                    else "is a file, but a name that does not end in '.safetensors' is that of a folder"
                )
                raise SaveError(quote(str(target)), problem, "Name another place")
            sweep(self.folder)
            self.check_free()

    def check_free(self) -> None:
        """**Raises:** `SaveError` where a checkpoint stands that may not be replaced."""
        if not self.overwrite and (
            os.path.lexists(self.path) if self.single else existing_checkpoint(self.folder).files
        ):
            raise SaveError(
                quote(str(self.path)), "holds a checkpoint already", "Name another place, or give overwrite=True"
            )

    @contextmanager
    def staged(self) -> Iterator[Stage]:
        """A folder of its own to write to, on the target's disk. It is gone afterwards, whatever happened."""
        with staged(self.folder) as stage:
            yield stage

    def names(
        self, stage: Stage, wanted: Sequence[str] = (SINGLE,), index: str = INDEX
    ) -> tuple[list[str], str | None]:
        """Names for files of tensors, and that of their index if they need one. Interrupts wait meanwhile.

        `wanted` is what they would like to be called, `index` their index, if a reader finds them by that.
        """
        with DeferredInterrupts():
            if self.single:
                return [self.path.name], None
            found = set(indices(self.folder))
            if len(wanted) == 1 and wanted[0] != SINGLE and set(tensor_files(self.folder)) <= set(wanted) and not found:
                return list(wanted), None
            if len(wanted) == 1 and self._alone():
                return [SINGLE], None
            # An index of another name would be a second one, and readers would not know which to go by.
            if len(wanted) == 1 or (index != INDEX and not found <= {index}):
                wanted, index = numbered(len(wanted)), INDEX
            return [stage.free_name(name) for name in wanted], index

    def _alone(self) -> bool:
        """Whether `model.safetensors` decides once the index that stands there, if any, is gone."""
        found = indices(self.folder)
        with explained(self.folder, "cannot be looked at"):
            old = existing_checkpoint(self.folder)
        return not found or (found == [old.index] and SINGLE not in old.counted)

    def commit(self, stage: Stage, files: Sequence[str], deciding: str) -> None:
        """Move what lies in `stage` to its place.

        **Arguments:**

        - `files`: names in `stage` that nothing in the folder has.
        - `deciding`: one more: the index of several files, or the only file of tensors.

        **Raises:** `SaveError`; what stood there then stands there still, unless it says otherwise.
        """
        with explained(self.path, "cannot be written to"):
            for name in (*files, deciding):
                sync(stage.path / name)
        with DeferredInterrupts(), explained(self.path, "cannot be written to"), folder_lock(self.folder):
            self.check_free()
            self._check_fresh(files, deciding)
            old = ExistingCheckpoint() if self.single else existing_checkpoint(self.folder)
            try:
                self._move(stage.path, files, deciding, old)
            except BaseException:
                # An error may come right after the rename that commits: then this finishes, else it undoes.
                recover(stage.path)
                raise
            with explained(
                self.path,
                "cannot be tidied up",
                ("the new checkpoint is there, whole", "Remove what is left, or leave it to the next save"),
            ):
                # Not before the new names are there for good do the old files go.
                _sync_folders(self.folder, [self.path.name] if self.single else [*files, deciding])
                recover(stage.path)
                sync(self.folder)

    def _check_fresh(self, files: Sequence[str], deciding: str) -> None:
        """What was free when the names were given is so still, for all who do not wait for the lock."""
        taken = next((name for name in files if os.path.lexists(self.folder / name)), None)
        away = next((name for name in files if not inside(self.folder, name)), None)
        if away is not None:
            raise SaveError(
                quote(str(self.folder / away)),
                "would be written elsewhere, through a symbolic link",
                "Name another place",
            )
        if taken is not None or (deciding == SINGLE and not self.single and not self._alone()):
            raise SaveError(
                quote(str(self.folder / (taken or SINGLE))),
                (
                    "has appeared while this was being written: another program writes there, and its "
                    "files are unchanged"
                ),
                "Save again, or name another place",
            )

    def _move(self, stage: Path, files: Sequence[str], deciding: str, old: ExistingCheckpoint) -> None:
        """All renames up to the one that commits."""
        new = [*files, deciding]
        if self.single:
            os.replace(stage / deciding, self.path)
        elif not _is_index(deciding) and old.index is not None:
            write_journal(stage, new, old.files, index_to_remove=old.index)
            _out(stage, new)
            sync(self.folder)
            os.rename(self.folder / old.index, stage / ".old-index")
        elif _is_index(deciding) and not old.files:
            write_journal(stage, new, ())
            _out(stage, [deciding, *files])
        else:
            # A file that counts as the only one would not when others come: it gets the name that counts.
            needs_link = _is_index(deciding) and old.index is None and SINGLE not in old.files
            write_journal(stage, new, old.files, temporary_links={SINGLE: old.files[0]} if needs_link else {})
            if needs_link:
                os.link(self.folder / old.files[0], self.folder / SINGLE)
            _out(stage, new)


def numbered(count: int) -> list[str]:
    """What several files of tensors are called."""
    return [f"model-{n + 1:05}-of-{count:05}.safetensors" for n in range(count)]


def _is_index(name: str) -> bool:
    return name.endswith(".index.json")


def _out(stage: Path, names: Sequence[str]) -> None:
    """Move files from the stage to the folder around it, in order. The disk has all others before the last one goes."""
    for name in names:
        (stage.parent / name).parent.mkdir(parents=True, exist_ok=True)
    for name in names[:-1]:
        os.rename(stage / name, stage.parent / name)
    _sync_folders(stage.parent, names)
    os.rename(stage / names[-1], stage.parent / names[-1])


def _sync_folders(folder: Path, names: Sequence[str]) -> None:
    """Have the disk hold the names of files in `folder` and below."""
    for path in sorted({folder / parent for name in names for parent in Path(name).parents}, reverse=True):
        sync(path)  # those below before those that hold them
