"""A folder of one commit of a repo: headers by ranged requests, weights through the Hub's cache or streamed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.bytes import ByteSource, LocalFile
from bridge.source.download import AGENT, RepoFile, fetch_all
from bridge.source.folder import cached_sha256
from bridge.source.hub import Repo, explained
from bridge.source.ranged import HEAD_NBYTES, RangedFile, Scattered, check_range, first_bytes
from bridge.source.resolve import PICKLED
from bridge.source.retry import PassingError

_HOPS = 5  # redirects that are followed: from the Hub to where the file is stored
_WEIGHTS = (".safetensors", *PICKLED)


class HubFolder:
    """A folder of one commit of a repo.

    Files of weights are opened by their headers alone, and fetched into the Hub's cache when their bytes are wanted;
    other files, which are small, when they are opened. `stream=True`: nothing is ever put on the disk.
    """

    def __init__(self, repo: Repo, subfolder: str | None, *, label: str, stream: bool = False) -> None:
        self._repo = repo
        self._stream = stream
        self._prefix = f"{subfolder.strip('/')}/" if subfolder else ""
        self.label = f"{label}/{self._prefix}"
        inside = (name[len(self._prefix) :] for name in repo.files if name.startswith(self._prefix))
        self._below = frozenset(inside)

    def names(self) -> Sequence[str]:
        """As the Hub listed them at this commit."""
        return sorted(name for name in self._below if "/" not in name)

    @property
    def empty(self) -> bool:
        """Whether the Hub listed nothing of it."""
        return not self._below

    def below(self) -> Sequence[str]:
        """As the Hub listed them."""
        return sorted(name for name in self._below if name.count("/") == 1)

    def has(self, name: str) -> bool:
        """Whether the Hub listed it."""
        return name in self._below

    def open(self, name: str, *, hold: bool = True) -> ByteSource:
        """Open one file; a file of weights that is not in the cache is a `HubFile`."""
        path, shown = self._prefix + name, self.label + name
        if path not in self._repo.files:
            absent = (f"is not in the repo at commit {self._repo.commit}", "Check its name")
            raise CheckpointError(quote(shown), *(absent if self._repo.online else _ABSENT)) from FileNotFoundError(
                path
            )
        if self._stream:
            return StreamedHubFile(self._repo, path, name=shown)
        cached = self._repo.whole(path)
        if cached is not None:
            return LocalFile(cached, shown, hold=hold)
        if path.endswith(_WEIGHTS):
            return HubFile(self._repo, path, name=shown)
        if not self._repo.online:
            raise CheckpointError(quote(shown), *_ABSENT)
        (found,) = fetch_all([RepoFile(self._repo, path, shown, self._repo.files[path].nbytes or 0)])
        return found

    def remedy(self, name: str, otherwise: str | None) -> str | None:
        """What to do where a file of the cache proves to be damaged, `otherwise` where it lies in no cache."""
        cached = self._repo.cache.path(self._repo.commit, self._prefix + name)
        if cached is None or self._stream:
            return otherwise
        return f"Remove it from the Hub's cache, {quote(os.path.realpath(cached))}, and it is fetched again"

    def sha256(self, name: str) -> str | None:
        """What the Hub says, or what the cache's blob is called by."""
        path = self._prefix + name
        listed = self._repo.files.get(path)
        if listed is not None and listed.sha256 is not None:
            return listed.sha256
        cached = self._repo.cache.path(self._repo.commit, path)
        return None if cached is None else cached_sha256(cached)


_ABSENT = ("is not in the cache and cannot be fetched offline", "Go online once, or check `cache_dir=`")


class StreamedHubFile(RangedFile):
    """A file of a repo, read by ranges with huggingface_hub's own session; the token stays on the Hub's own host."""

    _from_whole = False  # whether a server that ignores ranges will do: the rest of its answer is not read

    def __init__(self, repo: Repo, path: str, *, name: str, known: tuple[int, bytes] | None = None) -> None:
        """**Arguments:** `known`: the file's length and first bytes, where no request is needed to learn them."""
        from huggingface_hub import hf_hub_url  # find_repo has explained it where it is missing

        self._repo = repo
        self._path = path
        self._url = hf_hub_url(repo.id, path, repo_type=repo.kind, revision=repo.commit)
        self._place: str | None = None
        nbytes, head = known or first_bytes(name, lambda into: self._ask(name, 0, HEAD_NBYTES, None, into))
        listed = repo.files.get(path)
        if listed is not None and listed.nbytes not in (None, nbytes):
            raise CheckpointError(
                quote(name),
                f"holds {nbytes:,} bytes, the Hub lists {listed.nbytes:,}",
                "Try again, or tell the repo's owner",
            )
        super().__init__(name, nbytes, head)

    def transfer(self, start: int, stop: int, into: Scattered) -> None:
        """One ranged request."""
        self._ask(self.name, start, stop, self.nbytes, into)

    def _ask(self, name: str, start: int, stop: int, nbytes: int | None, into: Scattered) -> int:
        """Bytes `[start, stop)` into `into`; returns the file's length."""
        if not self._repo.online:
            raise CheckpointError(quote(name), *_ABSENT)
        with explained(quote(name), self._repo.options.revision):
            from huggingface_hub import constants, get_session, utils  # as above

            # Where the Hub sent the last request goes for some minutes: the Hub itself need not be asked each time.
            place = self._place
            url = place or self._url
            ours = cast("Any", utils).build_hf_headers(token=self._repo.options.token, user_agent=AGENT)
            for _ in range(_HOPS):
                at_home = _origin(url) == _origin(self._url)
                headers = {key: value for key, value in ours.items() if at_home or key.lower() != "authorization"}
                # Compressed, a range would be one of other bytes.
                headers |= {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
                with get_session().stream(
                    "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=False
                ) as response:
                    status, answer = response.status_code, response.headers
                    if at_home:
                        self._check_commit(name, answer.get("X-Repo-Commit"))
                    if status in (301, 302, 303, 307, 308) and "Location" in answer:
                        if int(answer.get("Content-Length", "0")) < HEAD_NBYTES:
                            response.read()  # then the connection can be used again
                        url = urljoin(url, answer["Location"])
                        continue
                    if url == place and status in (401, 403, 404, 410):
                        self._place = None if self._place == place else self._place
                        raise PassingError(f"the address that the Hub gave is no longer valid (HTTP status {status})")
                    if at_home:
                        utils.hf_raise_for_status(response)
                    if place is None and not at_home:
                        self._place = url
                    if status == 200 and self._from_whole and "Content-Encoding" not in answer:
                        _take(response.iter_raw(), start, into)
                        return int(answer.get("Content-Length", nbytes or 0))
                    found = check_range(name, status, answer, start, stop, nbytes)
                    for chunk in response.iter_raw():
                        into.write(chunk)
                    return found
        raise CheckpointError(quote(name), "redirects in a loop", "Try again later")

    def _check_commit(self, name: str, commit: str | None) -> None:
        if commit is not None and commit != self._repo.commit:
            raise CheckpointError(
                quote(name), f"comes from commit {quote(commit)}, expected {self._repo.commit}", "Try again"
            )


class HubFile(StreamedHubFile):
    """A file of weights that is not in the cache: its header is read by ranges, `fetch` brings all of it."""

    absent = True
    _from_whole = True  # headers lie at the front, and weights come by whole files: mirrors need not know ranges

    def __init__(self, repo: Repo, path: str, *, name: str) -> None:
        kept = repo.cache.head(repo.commit, path)
        super().__init__(repo, path, name=name, known=kept)
        self._kept = kept is not None

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        """As of any file; what follows the first bytes is remembered with them: the header is kept."""
        super().readinto(buffers, offset)
        if offset == len(self._head):
            self._head += b"".join(map(bytes, buffers))

    def keep_header(self) -> None:
        """Keep the first bytes of the file, which have proved to be a header, for the next time."""
        if not self._kept:
            self._repo.cache.keep_head(self._repo.commit, self._path, self.nbytes, self._head)
            self._repo.cache.note(self._repo.options.revision, self._repo.commit)

    def fetch(self, bar: Callable[..., Any]) -> LocalFile:
        """The whole file, in the Hub's cache. `bar`: what is called as tqdm would be.

        **Raises:** `CheckpointError`, also if what came is not the file whose header was read.
        """
        if not self._repo.online:
            raise CheckpointError(quote(self.name), *_ABSENT)
        local = RepoFile(self._repo, self._path, self.name, self.nbytes).fetch(bar)
        head = bytearray(min(len(self._head), local.nbytes))
        local.readinto([memoryview(head)], 0)
        if local.nbytes != self.nbytes or bytes(head) != self._head:
            raise CheckpointError(
                quote(self.name),
                "was fetched, but is not the file whose header was read before",
                (
                    f"Fetch it again: `hf download {self._repo.id} {self._path} --revision {self._repo.commit} "
                    "--force-download`"
                ),
            )
        return local

    @property
    def repo(self) -> Repo:
        """Where it belongs."""
        return self._repo


def _take(chunks: Iterable[bytes], start: int, into: Scattered) -> None:
    """What `into` has room for of a whole file, from byte `start` on; the rest is not waited for."""
    at = 0
    for chunk in chunks:
        part = memoryview(chunk)[max(start - at, 0) :]
        into.write(part[: into.nbytes - into.done])
        at += len(chunk)
        if into.done == into.nbytes:
            return


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
