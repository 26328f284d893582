"""Which files a source means."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.source.folder import Folder, LocalFiles, LocalFolder

if TYPE_CHECKING:
    from bridge.format.index import FileIndex

_SHORT = 60  # characters; of longer values the type is told
_SUFFIX = ".safetensors"
_REPO = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pt.tar", ".pth.tar")
"""What files of torch.save are called. What a file is, its content says; but a name must do in a list or a URL."""
ASIDE = ("consolidated", "adapter_", ".")  # other layouts of the same weights, other weights, hidden files


class HubOptions:
    """How to ask the Hub; the names and meanings are huggingface_hub's. Its repr shows no token."""

    __slots__ = ("cache_dir", "local_files_only", "revision", "token")

    def __init__(
        self,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.revision = revision
        self.token = token
        self.cache_dir = cache_dir
        self.local_files_only = local_files_only

    def at(self, revision: str | None) -> HubOptions:
        """The same for another revision."""
        return HubOptions(revision, self.token, self.cache_dir, self.local_files_only)


class Located:
    """The files of a checkpoint. `text` is the source as messages show it, `files` names in `folder`, in order."""

    __slots__ = ("commit", "files", "folder", "index_name", "parsed_index", "text")

    def __init__(
        self,
        text: str,
        folder: Folder,
        files: tuple[str, ...],
        parsed_index: FileIndex | None = None,
        index_name: str = "",
        commit: str | None = None,
    ) -> None:
        self.text, self.folder, self.files, self.parsed_index = text, folder, files, parsed_index
        self.index_name, self.commit = index_name, commit


def locate(
    source: object,
    *,
    subfolder: str | None,
    variant: str | None,
    hub: HubOptions,
    within: Callable[[Folder, str | None, str | None], Located] | None = None,
) -> Located:
    """Find the files that `source` means.

    **Arguments:**

    - `source`: a list of files, one file, a directory, a URL, or a Hub repo id where no such path exists.
    - `subfolder`: a folder in it; `variant`: as in `model.fp16.safetensors`.
    - `hub`: how to ask the Hub.
    - `within`: which files of a folder are meant, if not those of a model.

    **Returns:** `Located`. `CheckpointError` if nothing is there, or what is there does not say which.
    """
    if isinstance(source, list | tuple):
        return _listed([_path(item) for item in cast("Sequence[object]", source)])
    path, chosen = _path(source), within or in_folder
    kind = _kind(path)
    if subfolder is not None:
        _check_subfolder(subfolder)
    if kind == "directory":
        if subfolder and _kind(os.path.join(path, subfolder)) == "absent":
            from bridge.source.nothing import refuse_subfolder  # a name that is misspelt

            refuse_subfolder(LocalFolder(path), subfolder)
        return chosen(LocalFolder(os.path.join(path, subfolder) if subfolder else path), variant, None)
    if kind == "other":  # a file; what is no regular file is refused when it is opened
        return _single(path)
    named = (
        isinstance(source, str)
        and re.fullmatch(_REPO, path, re.ASCII)
        and not path.endswith((_SUFFIX, *PICKLED, ".json"))
    )
    if named or "://" in path:
        from bridge.source.distant import by_repo, by_url  # only those who read over a network

        found = by_repo(path, subfolder, hub) if named else by_url(path, subfolder, hub)
        if found.name is None:
            return chosen(found.folder, variant, found.commit)
        return Located(found.text, found.folder, (found.name,), commit=found.commit)
    from bridge.source.nothing import refuse_absent  # a name that is misspelt

    refuse_absent(path)


def _path(item: object) -> str:
    shown = repr(item)
    shown = quote(shown) if len(shown) < _SHORT else f"a value of {quote(type(item).__name__)}"
    path = os.fspath(cast("os.PathLike[str]", item)) if isinstance(item, str | os.PathLike) else None
    if isinstance(path, str) and path:
        return path
    raise CheckpointError(
        shown, "is not a source", "Name a file, a list of files, a folder, a URL or a Hub repo like 'org/name'"
    )


def _kind(path: str) -> str:
    """`directory`, `other` or `absent`."""
    try:
        os.lstat(path)  # a dangling link is there, and its own error says more than "does not exist"
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    except (OSError, ValueError):
        return "absent" if "://" in path else "other"  # opening it will say why
    return "directory" if os.path.isdir(path) else "other"


def _check_subfolder(subfolder: str) -> None:
    if os.path.isabs(subfolder) or ".." in subfolder.replace("\\", "/").split("/"):
        raise CheckpointError(f"subfolder {quote(subfolder)}", "leaves the source", "Name a folder inside it")


def _single(path: str) -> Located:
    if path.endswith(".index.json"):
        raise CheckpointError(quote(path), "is an index", "Name the folder that holds it and its files")
    name = os.path.basename(path)
    return Located(path, LocalFiles({name: path}, label=path), (name,))


def _listed(paths: Sequence[str]) -> Located:
    if not paths:
        raise CheckpointError("the list of files", "is empty", "Name at least one .safetensors file")
    short = [os.path.basename(p) for p in paths]
    names = short if len(set(short)) == len(short) else list(paths)
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise CheckpointError(quote(twice), "is twice in the list of files", "Name each file once")
    text = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    return Located(text, LocalFiles(dict(zip(names, paths, strict=True)), label=text), tuple(names))


def in_folder(folder: Folder, variant: str | None, commit: str | None = None) -> Located:
    """The safetensors of a folder, or what PyTorch has saved there where it has none."""
    found = safetensors_in_folder(folder, variant, commit)
    if found is None:
        from bridge.source.torchfolder import torch_in_folder  # most folders have safetensors

        found = torch_in_folder(folder, variant, commit)
    if found is None and variant is None:
        from bridge.source.adapterfolder import known_adapter  # a folder that has nothing else

        found = known_adapter(folder, commit) if folder.has("adapter_config.json") else None
    if found is None:
        from bridge.source.nothing import refuse_empty  # most folders have something

        refuse_empty(folder, variant)
    return found


def safetensors_in_folder(folder: Folder, variant: str | None, commit: str | None = None) -> Located | None:
    """An index decides; without one `model.safetensors`, else the only `.safetensors` there. None if there is none."""
    default = f"model.{variant}{_SUFFIX}" if variant else f"model{_SUFFIX}"
    # A web server may not list what it has; then it is asked for what a model's files are called.
    found = folder.names() or [name for name in (*_index_names(variant), default) if folder.has(name)]
    names = [name for name in found if not name.startswith(ASIDE)]
    names = names if variant else _without_variants(names)
    index_name = choose(_indices(names, variant), _index_names(variant), "indices", folder)
    if index_name is not None:
        return located_by_index(folder, index_name, commit)
    if default in names:
        return Located(folder.label, folder, (default,), commit=commit)
    ending = f".{variant}{_SUFFIX}" if variant else _SUFFIX
    name = choose([n for n in names if n.endswith(ending)], (), "safetensors files and no index", folder)
    return None if name is None else Located(folder.label, folder, (name,), commit=commit)


def _without_variants(names: Sequence[str]) -> list[str]:
    """Those that are no variant of others: `x.fp16.safetensors` beside `x.safetensors`, in one file or in several."""
    endings = (_SUFFIX, f"{_SUFFIX}.index.json")
    stems = {name.removesuffix(ending) for name in names for ending in endings if name.endswith(ending)}
    plain: list[str] = []
    for name in names:
        stem = next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), "")
        if stem.rpartition(".")[0] not in stems:
            plain.append(name)
    return plain


def located_by_index(folder: Folder, name: str, commit: str | None) -> Located:
    """The files that an index lists."""
    index = _read_index(folder, name)
    return Located(folder.label, folder, index.files, index, name, commit)


def _index_names(variant: str | None) -> tuple[str, ...]:
    if variant is None:
        return (f"model{_SUFFIX}.index.json",)
    # transformers writes the first, diffusers and others the second.
    return f"model{_SUFFIX}.index.{variant}.json", f"model.{variant}{_SUFFIX}.index.json"


def _indices(names: Sequence[str], variant: str | None) -> list[str]:
    endings = tuple(name.removeprefix("model") for name in _index_names(variant))
    return [name for name in names if name.endswith(endings)]


def choose(names: Sequence[str], preferred: Sequence[str], what: str, folder: Folder) -> str | None:
    """A preferred name, else the only one; an error where there are several, None where there is none."""
    for name in preferred:
        if name in names:
            return name
    if len(names) > 1:
        from bridge.source.nothing import refuse_parts  # a folder that is not clear

        refuse_parts(folder, names)
        listed = ", ".join(map(quote, names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise CheckpointError(
            quote(folder.label), f"holds {len(names)} {what}: {listed}", "Name the file, or a list of files"
        )
    return names[0] if names else None


@contextmanager
def remedied(folder: Folder, name: str) -> Generator[None]:
    """An error about a file says what to do where its folder is a cache."""
    try:
        yield
    except CheckpointError as error:
        remedy = getattr(folder, "remedy", None)
        advice = remedy(name, error.advice) if remedy else error.advice
        if advice == error.advice:
            raise
        raise CheckpointError(error.subject, error.problem, advice) from error


def _read_index(folder: Folder, name: str) -> FileIndex:
    from bridge.format.index import MAX_INDEX_NBYTES, parse_index  # for checkpoints of several files

    source = folder.open(name)
    try:
        if source.nbytes > MAX_INDEX_NBYTES:
            raise CheckpointError(
                quote(source.name),
                f"holds {source.nbytes:,} bytes; an index may have {MAX_INDEX_NBYTES:,}",
                "Check where it came from",
            )
        with remedied(folder, name):
            raw = bytearray(source.nbytes)
            source.readinto([memoryview(raw)], 0)
            return parse_index(bytes(raw), name=source.name)
    finally:
        source.close()
