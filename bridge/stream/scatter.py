"""Many short runs that lie side by side in a file: read at once, and copied from there to where they belong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from bridge.source.box import FileRun
from bridge.stream.buffers import as_bytes

if TYPE_CHECKING:
    import numpy.typing as npt

Column: TypeAlias = "npt.NDArray[np.int64]"


class LeafRuns(NamedTuple):
    """Runs of one length for one leaf, in bytes: where they start in what was read, and where in the leaf."""

    leaf: str
    length: int
    froms: Column
    starts: Column


class Scatter(NamedTuple):
    """A stretch of a file and the runs in it. A copy by numpy costs less than a buffer of its own for each run."""

    source: FileRun
    runs: Sequence[LeafRuns]

    @property
    def sources(self) -> tuple[FileRun, ...]:
        """The stretch."""
        return (self.source,)

    @property
    def key(self) -> str:
        """The key that the stretch starts with, for messages."""
        return self.source.key

    @property
    def file(self) -> str:
        """The file, by which reads are ordered."""
        return self.source.file

    @property
    def offset(self) -> int:
        """Where the stretch starts."""
        return self.source.offset

    @property
    def nbytes(self) -> int:
        """How many bytes are read."""
        return self.source.nbytes

    @property
    def scratch_nbytes(self) -> int:
        """What it takes to carry this out: what is read, and the runs as numpy gathers them."""
        return 2 * self.nbytes

    def finish(self, read: Sequence[np.ndarray], leaves: Mapping[str, np.ndarray]) -> None:
        """Write the bytes that were read to their places."""
        for leaf, length, froms, starts in self.runs:
            into = np.frombuffer(as_bytes(leaves[leaf]), np.uint8)
            if len(starts) == 1:
                into[starts[0] : starts[0] + length] = read[0][froms[0] : froms[0] + length]
            else:
                _windows(into, length)[starts] = _windows(read[0], length)[froms]


def scattered(
    at: tuple[str, int, str], leaves: Sequence[str], owner: Column, offset: Column, start: Column, length: Column
) -> Scatter:
    """The job for runs that follow one another from `at` on: a file, a byte of it, and the first one's key.

    Run `n` is `length[n]` bytes at `offset[n]` of the file, and goes to byte `start[n]` of `leaves[owner[n]]`.
    """
    file, first, key = at
    step = int(length.max()) + 1
    kind = owner * step + length
    found: list[LeafRuns] = []
    order = np.argsort(kind, kind="stable")
    heads = np.flatnonzero(np.diff(kind[order], prepend=-1))
    kinds: list[int] = kind[order[heads]].tolist()
    for each, members in zip(kinds, np.split(order, heads[1:]), strict=True):
        found.append(LeafRuns(leaves[each // step], each % step, offset[members] - first, start[members]))
    nbytes = int(offset[-1] + length[-1] - first)
    return Scatter(FileRun(file, first, nbytes, key, np.dtype(np.uint8)), found)


def _windows(flat: np.ndarray, length: int) -> np.ndarray:
    """Every run of `length` bytes in `flat`, as a row by where it starts."""
    return np.lib.stride_tricks.as_strided(flat, (len(flat) - length + 1, length), (1, 1))
