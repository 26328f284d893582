"""The bar that `progress=True` shows."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

Progress = Callable[[int, int], None]


@contextmanager
def reporting(progress: Progress | bool | None, what: str = "reading") -> Generator[Progress | None]:
    """What a `progress` argument means, as a function of `(done_nbytes, nbytes)` or `None`."""
    if progress is None or progress is False:
        yield None
    elif callable(progress):
        yield progress
    else:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
