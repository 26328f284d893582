"""The bars that `progress=True` shows, for downloads and for reads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from bridge.source.checkpoint import Checkpoint

Progress = Callable[[int, int], None]


@contextmanager
def reporting(
    progress: Progress | bool | None, what: str = "reading", *, before: int = 0, after: int = 0
) -> Generator[Progress | None]:
    """The function of `(done_nbytes, nbytes)` that a `progress` argument stands for, or `None`.

    **Arguments:** `before`, `after`: bytes of other work for the same `progress`, done already and still to do. A
    function is told the sum of all work. Each work has a bar of its own, because networks and disks differ in speed.
    """
    if progress is None or progress is False:
        yield None
    elif callable(progress):
        yield lambda done, total: progress(before + done, before + total + after)
    else:
        from rich.console import Console  # silent programs need none of it
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def fetch(ckpt: Checkpoint, files: Iterable[str], progress: Progress | bool | None, *, after: int) -> int:
    """Download those of `files` that are on the Hub and not in its cache.

    **Arguments:** `after`: how many bytes of work follow, for `progress`.

    **Returns:** how many bytes were downloaded.
    """
    wanted = sorted(files)
    nbytes = ckpt.absent_nbytes(wanted)
    if nbytes:
        with reporting(progress, "downloading", after=after) as report:
            ckpt.fetch(wanted, report)
    return nbytes
