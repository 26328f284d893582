"""Where a URL or the name of a repo leads."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote as escaped
from urllib.parse import unquote

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.folder import Folder
from bridge.source.http import shown_url, split_url
from bridge.source.hub import Repo, find_repo
from bridge.source.hubfolder import HubFolder
from bridge.source.huburl import HubUrl
from bridge.source.remote import remote_folder
from bridge.source.resolve import PICKLED, HubOptions

_WEIGHTS = (".safetensors", *PICKLED)

_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<kind>datasets/|spaces/)?(?P<repo>[\w.-]+/[\w.-]+)"
    r"(?:/(?:blob|tree)/(?P<revision>[^/]+)(?:/(?P<path>.*))?)?/?",
    re.ASCII,
)


class Distant(NamedTuple):
    """A folder, and the one file in it that was named, if any; `text` is what messages call the source."""

    text: str
    folder: Folder
    name: str | None = None
    commit: str | None = None


def by_repo(repo: str, subfolder: str | None, options: HubOptions) -> Distant:
    """A repo by its id: through the Hub's cache."""
    subject = f"{quote(repo)} is not a file or folder here, and the Hub repo of that name"
    found = find_repo(repo, options, subject=subject)
    return Distant(repo, _inside(found, subfolder, label=repo), commit=found.commit)


def by_url(url: str, subfolder: str | None, options: HubOptions) -> Distant:
    """A file or a folder by its URL: streamed, nothing is put on the disk."""
    named = HubUrl.parse(url)
    if named is not None:
        return _on_hub(named, url, subfolder, options)
    page = _PAGE.fullmatch(url.partition("?")[0])
    if page is not None:
        repo, kind = page["repo"], page["kind"] or ""
        at = f"hf://{kind}{repo}" + (
            f"@{page['revision']}/{page['path'] or ''}".rstrip("/") if page["revision"] else ""
        )
        raise CheckpointError(quote(url), "is a page about a repo on the Hub", f"Name the repo itself, {quote(at)}")
    web = split_url(url).scheme in ("http", "https")
    path, mark, query = url.partition("?") if web else (url, "", "")
    if path.endswith(_WEIGHTS):
        parent, name = path.rsplit("/", 1)
        name = unquote(name) if web else name
        return Distant(shown_url(url), remote_folder(parent + mark + query, name), name)
    if subfolder:
        inside = escaped(subfolder) if web else subfolder
        return Distant(shown_url(url), remote_folder(f"{path.rstrip('/')}/{inside}{mark}{query}"))
    return Distant(shown_url(url), remote_folder(url))


def _on_hub(named: HubUrl, url: str, subfolder: str | None, options: HubOptions) -> Distant:
    if named.revision is not None and options.revision not in (None, named.revision):
        raise CheckpointError(
            quote(url),
            f"names revision {quote(named.revision)}, but `revision=` is {quote(str(options.revision))}",
            "Name one of them",
        )
    options = options.at(named.revision or options.revision)
    repo = find_repo(named.repo, options, kind=named.kind, subject=f"Hub repo {quote(named.repo)}")
    label = url[: len(url) - len(named.path)].rstrip("/")
    if named.path.endswith(_WEIGHTS):
        parent, _, name = named.path.rpartition("/")
        return Distant(url, HubFolder(repo, parent, label=label, stream=True), name, repo.commit)
    inside = "/".join(part for part in (named.path.strip("/"), subfolder) if part)
    return Distant(url, _inside(repo, inside, label=label, stream=True), commit=repo.commit)


def _inside(repo: Repo, subfolder: str | None, *, label: str, stream: bool = False) -> HubFolder:
    """A folder of a repo. **Raises:** `CheckpointError` where the Hub listed none of that name."""
    folder = HubFolder(repo, subfolder, label=label, stream=stream)
    if subfolder and folder.empty and repo.online:
        from bridge.source.nothing import refuse_subfolder  # a name that is misspelt

        refuse_subfolder(HubFolder(repo, None, label=label), subfolder)
    return folder
