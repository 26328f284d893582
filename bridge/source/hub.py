"""A repo on the Hub, through the cache that huggingface_hub shares with every other tool."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bridge._errors import CheckpointError
from bridge._text import printable, quote
from bridge.source.bytes import LocalFile
from bridge.source.folder import Folder, LocalFolder, cached_sha256


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How to ask the Hub; the names and meanings are huggingface_hub's."""

    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | None = None
    local_files_only: bool = False


def hub_folder(repo: str, subfolder: str | None, options: HubOptions) -> tuple[Folder, str]:
    """The folder that a repo id names, and the commit it stands for.

    **Arguments:**

    - `repo`: `org/name`, or `name`.
    - `subfolder`: a folder in the repo.
    - `options`: which revision, from which cache, by which token, or without the network.

    **Returns:** a folder of one commit, and its hash. The revision is resolved once, so that no load can mix two.
    `CheckpointError` names the repo and what to do.
    """
    with _named(repo, options):
        import huggingface_hub  # only those who use the Hub wait for it
        from huggingface_hub import constants

        if options.local_files_only or constants.HF_HUB_OFFLINE:
            # No file is asked for here: which ones are needed, the index says, and it says which are not cached.
            snapshot = huggingface_hub.snapshot_download(  # pyright: ignore[reportUnknownMemberType]
                repo,
                revision=options.revision,
                cache_dir=options.cache_dir,
                local_files_only=True,
                allow_patterns=[],
            )
            label = f"{repo}/{subfolder}" if subfolder else repo
            return LocalFolder(os.path.join(snapshot, subfolder or ""), label), os.path.basename(snapshot)
        info = huggingface_hub.HfApi(token=options.token).model_info(repo, revision=options.revision)
    if info.sha is None:
        raise CheckpointError(f"Hub repo {quote(repo)} does not say which commit it is at. Name one: `revision=`.")
    names = [sibling.rfilename for sibling in info.siblings or ()]
    return HubFolder(repo, subfolder, info.sha, names, options), info.sha


class HubFolder:
    """A folder of one commit of a repo. Opening a file fetches it into the Hub's cache, if it is not there."""

    def __init__(
        self, repo: str, subfolder: str | None, commit: str, names: Sequence[str], options: HubOptions
    ) -> None:
        self._prefix = f"{subfolder.strip('/')}/" if subfolder else ""
        self.label = f"{repo}/{self._prefix}"
        self._repo = repo
        self._commit = commit
        self._options = options
        inside = (name[len(self._prefix) :] for name in names if name.startswith(self._prefix))
        self._below = frozenset(inside)
        self._paths: dict[str, str] = {}

    def names(self) -> Sequence[str]:
        """As the Hub listed them at this commit."""
        return sorted(name for name in self._below if "/" not in name)

    def has(self, name: str) -> bool:
        """Whether the Hub listed it."""
        return name in self._below

    def open(self, name: str, *, hold: bool = True) -> LocalFile:
        """Fetch one file into the cache and open it there."""
        return LocalFile(self._fetch(name), self.label + name, hold=hold)

    def sha256(self, name: str) -> str | None:
        """What the cache says."""
        return cached_sha256(self._fetch(name))

    def _fetch(self, name: str) -> str:
        if name not in self._paths:
            with _named(self._repo, self._options):
                import huggingface_hub

                self._paths[name] = huggingface_hub.hf_hub_download(  # pyright: ignore[reportUnknownMemberType]
                    self._repo,
                    self._prefix + name,
                    revision=self._commit,
                    cache_dir=self._options.cache_dir,
                    token=self._options.token,
                )
        return self._paths[name]


@contextmanager
def _named(repo: str, options: HubOptions) -> Generator[None]:
    """What huggingface_hub raises, as one error that names the repo and the next step."""
    subject = f"{quote(repo)} is no file or folder here, and the Hub repo of that name"
    revision = f" at revision {quote(options.revision)}" if options.revision else ""
    try:
        from huggingface_hub import errors
    except ImportError as e:
        raise CheckpointError(f"{subject} needs huggingface_hub: pip install huggingface_hub. ({e})") from e
    # Its base is the HTTP library's own error, which connections and timeouts raise; the library differs by version.
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.GatedRepoError as e:
        problem, cause = "is gated. Ask for access on its page, then log in: `hf auth login`, or `token=`", e
    except errors.RepositoryNotFoundError as e:
        problem, cause = "does not exist, or is private. Check its name, or log in: `hf auth login`, or `token=`", e
    except errors.RevisionNotFoundError as e:
        problem, cause = f"has no revision {quote(str(options.revision))}. Name a branch, a tag or a commit", e
    except errors.LocalEntryNotFoundError as e:
        problem = f"is not in the cache{revision} and cannot be fetched. Go online once, or check `cache_dir=`"
        cause = e
    except errors.EntryNotFoundError as e:
        problem, cause = f"lacks a file{revision} that it lists. Try again, or tell its owner", e
    except errors.HFValidationError as e:
        problem, cause = f"cannot be: {_first_line(e)}. Check its spelling", e
    except (transport, OSError, ValueError, RuntimeError) as e:
        problem, cause = f"cannot be read{revision}: {_first_line(e)}. Check the network and try again", e
    else:
        return
    raise CheckpointError(f"{subject} {problem}.") from cause


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return printable(lines[0].rstrip(".")) if lines else type(error).__name__
