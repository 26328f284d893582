"""Files of a repo fetched into the Hub's cache: several at once, with progress, and an end where nothing comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.bytes import LocalFile
from bridge.source.hub import Repo, explained
from bridge.source.retry import Tries

AGENT = "eqx-bridge"
"""How requests to the Hub say on whose behalf they come."""
AT_ONCE = 8
"""Files that are fetched at once, as many as huggingface_hub's own snapshots."""
STALL_SECONDS = 120.0
"""How long nothing may come: longer than a few time-outs of the client, which tries again by itself."""
_TICK_SECONDS = 0.1
_WAITS = (1.0, 2.0)  # the client itself tries again where a connection ends, not where it is reset
Report = Callable[[int, int], None]


class Fetchable(Protocol):
    """A file that can be brought into the Hub's cache."""

    @property
    def repo(self) -> Repo:
        """Where it belongs."""
        ...

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def nbytes(self) -> int:
        """Its length."""
        ...

    def fetch(self, bar: Callable[..., Any]) -> LocalFile:
        """Bring it; `bar` is called as tqdm would be."""
        ...


@dataclass(frozen=True, slots=True)
class RepoFile:
    """A file of a repo by its path."""

    repo: Repo
    path: str
    name: str
    nbytes: int

    def fetch(self, bar: Callable[..., Any]) -> LocalFile:
        """Bring it by huggingface_hub: its locks, its resuming, and however the Hub stores the file.

        One that is in the cache already, and not whole, is fetched in its place.
        """
        import huggingface_hub  # only those who use the Hub wait for it

        client: Any = huggingface_hub  # its bars are tqdm's to a type checker
        options = self.repo.options
        damaged = self.repo.whole(self.path) != self.repo.cache.path(self.repo.commit, self.path)

        def once() -> str:
            with explained(quote(self.name), options.revision):
                return client.hf_hub_download(
                    self.repo.id,
                    self.path,
                    repo_type=self.repo.kind,
                    revision=self.repo.commit,
                    cache_dir=options.cache_dir,
                    token=options.token,
                    user_agent=AGENT,
                    force_download=damaged,
                    tqdm_class=bar,
                )

        path = Tries(quote(self.name), "cannot be fetched", _WAITS).run(once)
        self.repo.cache.note(options.revision, self.repo.commit)
        return LocalFile(path, self.name, hold=False)


def fetch_all(files: Sequence[Fetchable], report: Report | None = None) -> list[LocalFile]:
    """Fetch `files`, all of one repo, and open them where they lie.

    **Arguments:** `report`: called with `(done_nbytes, nbytes)`, from this thread.

    **Raises:** `CheckpointError`: the first error of any file, once the others have stopped; or where for
    `STALL_SECONDS` no byte has come, neither here nor in another process that fetches the same files.
    """
    work = _DownloadQueue(files)
    threads = [
        threading.Thread(target=work.drain, name=f"bridge-fetch-{n}", daemon=True)
        for n in range(min(AT_ONCE, len(files)))
    ]
    for thread in threads:
        thread.start()
    try:
        # This thread only waits, so that an interrupt arrives at once, whatever the client is waiting for.
        work.watch(threads, report)
    finally:
        work.stopped = True
        soon = time.monotonic() + 1.0
        for thread in threads:  # one that is inside the client for longer ends by itself
            thread.join(max(0.0, soon - time.monotonic()))
        # Kept there, an error would hold itself alive, and with it the frames in its traceback.
        error, work.error = work.error, None
    if error is not None:
        try:
            raise error
        finally:
            del error
    if report is not None:
        report(work.nbytes, work.nbytes)
    return [work.found[file.name] for file in files]


class _DownloadQueue:
    """The files that are left, and how far the others have got."""

    def __init__(self, files: Sequence[Fetchable]) -> None:
        self.files = files
        self.left = iter(files)
        self.lock = threading.Lock()
        self.nbytes = sum(file.nbytes for file in files)
        self.bars: dict[str, list[Quiet]] = {file.name: [] for file in files}
        self.found: dict[str, LocalFile] = {}
        self.error: BaseException | None = None
        self.stopped = False

    def drain(self) -> None:
        """Fetch files until none is left or an error has stopped the work."""
        while not self.stopped:
            with self.lock:
                file = next(self.left, None)
            if file is None:
                return
            try:
                self.found[file.name] = file.fetch(self.bar(file))
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, whatever it is
                self.error = self.error or error
                self.stopped = True

    def bar(self, file: Fetchable) -> Callable[..., Any]:
        """What the client makes its progress bars of: one for what is written, with some stores one for what comes."""
        work = self

        class Counting(Quiet):
            def __init__(self, *positional: object, **options: Any) -> None:
                super().__init__(*positional, **options)
                work.bars[file.name].append(self)

            def update(self, n: float | None = 1) -> None:
                super().update(n)
                if work.stopped:
                    raise _StoppedError

        return Counting

    def done_nbytes(self) -> int:
        """Bytes that are there, of all files."""
        done = 0
        for file in self.files:
            count = max((bar.n for bar in self.bars[file.name]), default=0)
            done += file.nbytes if file.name in self.found else max(0, min(count, file.nbytes))
        return done

    def watch(self, threads: Sequence[threading.Thread], report: Report | None) -> None:
        """Wait for the end. **Raises:** `CheckpointError` where nothing moves any more."""
        moved, seen = time.monotonic(), None
        cache = self.files[0].repo.cache
        while any(thread.is_alive() for thread in threads) and self.error is None:
            for thread in threads:
                if thread.is_alive():
                    thread.join(_TICK_SECONDS)
                    break
            done = self.done_nbytes()
            # Another process may be fetching the same file, and we wait for its lock: then its part grows.
            state = done, cache.partial_nbytes()
            if state != seen:
                moved, seen = time.monotonic(), state
                if report is not None:
                    report(done, self.nbytes)
            elif time.monotonic() - moved > STALL_SECONDS:
                waiting = next(file.name for file in self.files if file.name not in self.found)
                raise CheckpointError(
                    quote(waiting),
                    f"cannot be fetched: nothing has come for {STALL_SECONDS:g} s",
                    "Check the network and try again; what is complete is kept",
                )


class Quiet:
    """What huggingface_hub may call a progress bar; it shows nothing and only counts."""

    def __init__(self, *_: object, **options: Any) -> None:
        self.total: int | None = options.get("total")
        self.n: int = options.get("initial") or 0

    def update(self, n: float | None = 1) -> None:
        """`n` more bytes."""
        self.n += int(n or 0)

    def close(self, *_: object, **__: object) -> None:
        """Nothing is open."""

    refresh = set_postfix_str = set_description = close

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _StoppedError(Exception):
    """Raised in the client's own loop, to end it."""
