"""Repos on the Hub: which commit a name stands for, what it holds, and what to do when that cannot be told."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bridge._errors import CheckpointError
from bridge._text import printable, quote
from bridge.source.hubcache import HubCache
from bridge.source.ranged import BUSY, busy
from bridge.source.resolve import HubOptions
from bridge.source.retry import PassingError, Tries

_LOG_IN = "log in: `hf auth login`, or `token=`"
_LATER = "Try again later; who is logged in may ask more often: `hf auth login`, or `token=`"


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of a repo, as the Hub lists it: its length in bytes and its sha256, each None where it does not say."""

    nbytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Repo:
    """One commit of a repo.

    - `id`, `kind`: `org/name`, and `model`, `dataset` or `space`.
    - `commit`: its hash. Every request is for this commit, so that no load can mix two revisions.
    - `files`: all files by name; offline those that the cache has something of.
    - `online`: whether the Hub may be asked.
    """

    id: str
    kind: str
    commit: str
    files: Mapping[str, ListedFile]
    options: HubOptions
    cache: HubCache
    online: bool

    def whole(self, path: str) -> str | None:
        """Where a file lies in the cache; None where it is not there, or shorter or longer than the Hub says it is."""
        cached = self.cache.path(self.commit, path)
        listed = self.files.get(path)
        if cached is not None and listed is not None and listed.nbytes not in (None, os.path.getsize(cached)):
            return None
        return cached


def find_repo(repo: str, options: HubOptions, *, kind: str = "model", subject: str) -> Repo:
    """The commit that a repo's revision stands for, and its files.

    **Arguments:**

    - `repo`: `org/name`, or `name`.
    - `options`: which revision, from which cache, by which token, or without the network.
    - `subject`: how messages begin: "'org/name' is not a file or folder here, and the Hub repo of that name".

    **Returns:** a `Repo`. Where the Hub cannot be reached, what the cache knows of that revision, with a warning.

    **Raises:** `CheckpointError` that names the repo and what to do.
    """
    with explained(subject, options.revision):
        import huggingface_hub  # only those who use the Hub wait for it
        from huggingface_hub import constants
        from huggingface_hub.utils import validate_repo_id

        validate_repo_id(repo)
        cache = HubCache.of(repo, kind, options.cache_dir)
        offline = options.local_files_only or constants.HF_HUB_OFFLINE
        known = cache.commit(options.revision)
        if offline and known is None:
            raise huggingface_hub.errors.LocalEntryNotFoundError(repo)

    def cached(commit: str) -> Repo:
        files = {name: ListedFile() for name in cache.names(commit)}
        return Repo(repo, kind, commit, files, options, cache, online=False)

    def ask() -> Repo:
        with explained(subject, options.revision):
            info: Any = huggingface_hub.HfApi(token=options.token).repo_info(
                repo,
                repo_type=kind,
                revision=options.revision,
                files_metadata=True,
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
        if info.sha is None:
            raise CheckpointError(subject, "does not say which commit it is at", "Name one: `revision=`")
        files = {s.rfilename: ListedFile(s.size, None if s.lfs is None else s.lfs.sha256) for s in info.siblings or ()}
        return Repo(repo, kind, info.sha, files, options, cache, online=True)

    if known is not None and offline:
        return cached(known)
    try:
        return (ask if known is not None else lambda: Tries(subject, "cannot be read").run(ask))()
    except PassingError as failure:
        assert known is not None
        warnings.warn(
            f"the Hub cannot be asked about {quote(repo)}: {failure.problem}. "
            f"Commit {known} is taken from the cache; it may no longer be the newest.",
            stacklevel=2,
        )
        return cached(known)


@contextmanager
def explained(subject: str, revision: str | None) -> Generator[None]:
    """What huggingface_hub raises, as an error that names the repo and the next step; `PassingError` if it may pass."""
    try:
        from huggingface_hub import errors  # only those who use the Hub wait for it
    except ImportError as e:
        raise CheckpointError(subject, f"needs huggingface_hub ({e})", "Install it: pip install huggingface_hub") from e
    # Its base is the HTTP library's own error, which connections and timeouts raise; the library differs by version.
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except (PassingError, CheckpointError):
        raise
    except (errors.OfflineModeIsEnabled, transport, OSError, ValueError, RuntimeError) as e:
        # "Not in the cache" is what the client says for whatever kept it from looking on the Hub.
        cause = e.__cause__ if isinstance(e, errors.LocalEntryNotFoundError) and e.__cause__ is not None else e
        response: Any = getattr(cause, "response", None)
        if isinstance(cause, errors.HfHubHTTPError) and response.status_code in BUSY:
            failure = busy(response.status_code, response.headers)
            raise PassingError(failure.problem, after=_reset(response.headers) or failure.after, advice=_LATER) from e
        if isinstance(cause, transport) and not isinstance(cause, errors.HfHubHTTPError):
            raise PassingError(f"{type(cause).__name__}: {_first_line(cause)}") from e
        raise CheckpointError(subject, *_problem(cause, revision, errors)) from e


def _problem(e: BaseException, revision: str | None, errors: Any) -> tuple[str, str]:
    """What is wrong, and what to do."""
    at = f" at revision {quote(revision)}" if revision else ""
    response: Any = getattr(e, "response", None)
    status = None if response is None else response.status_code
    if isinstance(e, errors.GatedRepoError):
        return "is gated", f"Ask for access on its page, then {_LOG_IN}"
    if isinstance(e, errors.RevisionNotFoundError):
        return f"has no revision {quote(str(revision))}", "Name a branch, a tag or a commit"
    if isinstance(e, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return f"is not in the cache{at} and cannot be fetched", "Go online once, or check `cache_dir=`"
    if isinstance(e, errors.EntryNotFoundError):
        return f"lacks a file{at} that it lists", "Try again, or tell its owner"
    if isinstance(e, errors.RepositoryNotFoundError) or status == 404:
        return "does not exist, or is private", f"Check its name, or {_LOG_IN}"
    if status == 401:
        return "may not be read: the Hub refuses the token", f"Make a new one, then {_LOG_IN}"
    if status == 403:
        return "may not be read by this token: HTTP status 403", "Ask for access on its page, or use another token"
    if isinstance(e, errors.HFValidationError):
        return f"has an invalid name: {_first_line(e)}", "Check its spelling"
    if isinstance(e, errors.LocalTokenNotFoundError):
        return "cannot be asked for with `token=True`: no token is stored here", f"First {_LOG_IN}"
    return f"cannot be read{at}: {_first_line(e)}", "Check the network and try again"


def _reset(headers: Mapping[str, str]) -> float | None:
    """When the Hub's rate limit is over, in seconds, as its own header says."""
    found = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})", headers.get("RateLimit", ""), re.ASCII)
    return None if found is None else float(found[1])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0].rstrip(".")) if lines else type(error).__name__
