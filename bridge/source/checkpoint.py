"""`Checkpoint`: all files of a source as one mapping from keys to tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, KeysView, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Self, cast

import numpy as np

from bridge._errors import CheckpointError, NoRootError, UnknownKeyError
from bridge._text import plural, quote
from bridge.format.header import Header, read_first, read_header
from bridge.format.table import Table
from bridge.source.bytes import ByteSource, held_files
from bridge.source.folder import LocalFiles, LocalFolder
from bridge.source.resolve import HubOptions, Located, locate, remedied

if TYPE_CHECKING:
    from bridge.format.index import FileIndex
    from bridge.source.hubfolder import HubFile
    from bridge.source.quantized import Quantized

_OPENED_AT_ONCE = 8
_SAFETENSORS = b"\0\0\0\0{"  # from byte 4 on: the length of the header has no more than 100 MB


class Checkpoint:
    """A mapping from keys to tensors, stored in one file or several. Made by `bridge.open`; a context manager.

    Opening reads headers only. Keys, specs and metadata can be used after `close`, tensors cannot.

    - `specs`: a mapping from keys to `TensorSpec` (dtype, shape, nbytes, file).
    - `metadata`: the `__metadata__` of all files; if two files have the same entry, the first file's text. For a file
        of `torch.save`: the numbers and texts beside its tensors.
    - `refused`: a mapping from keys that cannot be read, such as sparse tensors, to the reason. The checkpoint lists
        these keys with dtype `void`; to use one is an error.
    - `skipped`: a mapping from names in a file of `torch.save` that are no tensors to what they are: `"a number"`.
    - `files`: the names of the files that hold the tensors, in order.
    - `quantized`: the weights that are stored quantised, by the keys of the whole weights.
    - `commit`: the Hub commit that it comes from, or `None`.
    - `source`: what was opened, as text for messages.
    - `index`: the index that lists the files, or `None`; `index_name` is the name of its file.

    ```python
    with bridge.open("model.safetensors") as ckpt:
        shape, weight = ckpt.specs["weight"].shape, ckpt["weight"]  # a numpy array, bit for bit
    ```
    """

    def __init__(
        self, located: Located, *, verify: bool = False, root: str | None = None, modules: bool = False
    ) -> None:
        self.source, self.files, self.commit = located.text, located.files, located.commit
        self.index: FileIndex | None = located.parsed_index
        self.index_name = located.index_name
        self._folder = located.folder
        self._root, self._modules = root, modules
        self._sources: dict[str, ByteSource] = {}
        self._closed = False
        try:
            self._headers = self._open_all(located)
            self.specs = self._specs(located)
            if verify:
                self._verify()
        except BaseException:
            self.close()
            raise
        self.metadata: dict[str, str] = {}
        for header in self._headers.values():
            self.metadata = header.metadata | self.metadata

    @property
    def refused(self) -> Mapping[str, str]:
        """A mapping from keys that cannot be read to the reason."""
        return {key: str(CheckpointError(*why)) for key, why in self.specs.refused.items()}

    @property
    def skipped(self) -> dict[str, str]:
        """A mapping from names that are no tensors to what they are."""
        return {name: what for header in self._headers.values() for name, what in header.skipped.items()}

    def unlisted(self, key: object) -> str | None:
        """The file of a key that the index does not list; `None` if no file has the key."""
        return next((name for name, header in self._headers.items() if key in header.tensors), None)

    def keys(self) -> KeysView[str]:
        """The keys, file by file, in the order of the headers."""
        return self.specs.keys()

    def __len__(self) -> int:
        return len(self.specs)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __contains__(self, key: object) -> bool:
        return key in self.specs

    def __getitem__(self, key: str) -> np.ndarray:
        """The tensor, bit for bit, in memory of its own. `UnknownKeyError` for a key that is not there."""
        spec = self.specs.get(key)
        if spec is None:
            from bridge.source.suggest import unknown  # difflib is for mistakes

            raise UnknownKeyError(*unknown(key, self.specs, self.source, self.unlisted(key)))
        from bridge.source.tensor import check_readable, read_key, read_tensor  # a load reads no tensor alone

        source = self.peek(spec.file)
        check_readable(self.specs, key)
        if not self.specs.is_plain(key):
            return read_key(self, self.specs, key)
        if source.absent:
            try:
                source = self.byte_source(spec.file)
            except CheckpointError as e:
                subject = f"key {quote(key)} in {quote(source.name)}"
                raise CheckpointError(subject, f"cannot be read: {e.statement}", e.advice) from e
        return read_tensor(source, key, spec)

    @cached_property
    def quantized(self) -> Quantized:
        """The weights that are stored quantised: a mapping from the keys of the whole weights to `QuantizedTensor`."""
        from bridge.source.quantized import Quantized  # most checkpoints are plain

        return Quantized(self, self.peek)

    def header(self, file: str) -> Header:
        """The header of one of `files`."""
        return self._headers[file]

    def byte_source(self, file: str) -> ByteSource:
        """The bytes of one of `files`, open until the checkpoint is closed. `TensorSpec.offset` counts in them.

        A file of a Hub repo is fetched into the Hub's cache, if it is not there.
        """
        if self.peek(file).absent:
            self.fetch([file])
        return self._sources[file]

    def file_nbytes(self, file: str) -> int:
        """The length of one of `files`; nothing is fetched for it."""
        return self.peek(file).nbytes

    @property
    def parallel(self) -> int | None:
        """How many reads at once the files are read by where they are read over a network; else None."""
        found = (source.parallel for source in self._sources.values() if not source.absent)
        return max((count for count in found if count is not None), default=None)

    def absent_nbytes(self, files: Iterable[str]) -> int:
        """How many bytes `fetch` would fetch."""
        return sum(source.nbytes for source in map(self.peek, files) if source.absent)

    def fetch(self, files: Iterable[str], report: Callable[[int, int], None] | None = None) -> None:
        """Bring those of `files` that are on the Hub, and not in its cache, there. `report` is called with bytes."""
        absent = {name: source for name in files if (source := self.peek(name)).absent}
        if absent:
            from bridge.source.download import fetch_all  # only those who use the Hub wait for it

            self._sources.update(zip(absent, fetch_all(cast("list[HubFile]", [*absent.values()]), report), strict=True))

    def peek(self, file: str) -> ByteSource:
        """The bytes of one of `files` where they are: nothing is fetched for them."""
        if self._closed:
            raise CheckpointError(quote(self.source), "is closed", "Open it again, or read before it is closed")
        return self._sources[file]

    def beside(self, name: str) -> bytes:
        """The bytes of another file beside the checkpoint's files. **Raises:** `CheckpointError` if there is none."""
        from bridge.source.beside import read_beside  # few checkpoints have any

        return read_beside(self.open_beside(name))

    def open_beside(self, name: str) -> ByteSource:
        """Another file that lies with the checkpoint's, for the caller to close. `CheckpointError` if there is none."""
        return self._folder.open(name)

    def close(self) -> None:
        """Close the files. Afterwards it is an error to read a tensor, but not to close again."""
        self._closed = True
        for source in self._sources.values():
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {quote(self.source)}: {plural(len(self), 'key')} in {plural(len(self.files), 'file')}>"

    def _open_all(self, located: Located) -> dict[str, Header]:
        """The headers of all files; over a network several are read at once."""
        if len(located.files) < 2 or isinstance(located.folder, LocalFolder | LocalFiles):
            return {name: self._open(located, name) for name in located.files}
        from bridge.source.parallel import at_once  # only those who wait for a network wait for it

        headers = at_once(partial(self._open, located), located.files, _OPENED_AT_ONCE)
        return dict(zip(located.files, headers, strict=True))

    def _open(self, located: Located, name: str) -> Header:
        source = _open_listed(located, name, hold=len(self._sources) < held_files())
        self._sources[name] = source
        first = read_first(source)
        if bytes(first[4:9]) != _SAFETENSORS:
            from bridge.torchfile import is_torch_file  # what is no safetensors file by its first bytes

            if is_torch_file(bytes(first)):
                from bridge.source.torchtable import read_torch_header

                return read_torch_header(source, file=name, root=self._root, modules=self._modules)
        with remedied(located.folder, name):
            header = read_header(source, file=name, first=first)
        if source.absent:
            cast("HubFile", source).keep_header()
        return header

    def _specs(self, located: Located) -> Table:
        if self._root is not None and all(header.is_safetensors for header in self._headers.values()):
            raise NoRootError(
                quote(self.source),
                "is safetensors, whose keys are in no dicts",
                f"Leave root={quote(self._root)} out, or name the file of torch.save that has them",
            )
        if located.parsed_index is None and len(self._headers) == 1:
            return next(iter(self._headers.values())).tensors
        from bridge.source.together import joined  # for checkpoints of several files

        return joined(located, self._headers)

    def _verify(self) -> None:
        from bridge.source.verify import verify_file  # only those who ask for it wait for it

        self.fetch(self.files)
        for name, source in self._sources.items():
            verify_file(self._folder, name, source)


def open(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Checkpoint,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> Checkpoint:
    """Open a checkpoint. Reads the index and the headers, no weights.

    **Arguments:**

    - `source`: a file, a list of files, a folder, an fsspec URL, or, if no such path exists, a Hub repo id. An open
        `Checkpoint` is returned as it is. A file is safetensors or was written by `torch.save` (`.pth`, `.pt`, `.bin`,
        `.ckpt`): its content decides which, and nothing in it is run. In a folder, the index lists the files. Without
        an index, the file is `model.safetensors` or the only `.safetensors` file. A folder without safetensors files
        is searched for PyTorch's files in the same way, `pytorch_model.bin` first.
    - `subfolder`: a folder inside the folder or repo.
    - `variant`: `"fp16"` for `model.fp16.safetensors`.
    - `revision`, `token`, `cache_dir`, `local_files_only`: for a Hub repo, as in huggingface_hub.
    - `verify`: read all files and check their sha256 against the Hub's cache or a sidecar `<file>.sha256`.
    - `root`: for files of `torch.save`: the path of the dict to read, such as `"model_ema"`; `""` reads all dicts, with
        dots between the keys. Required if several dicts hold tensors.
    - `modules`: read modules too, pickled or TorchScript, by their attributes. Their code is not run.

    **Returns:** a `Checkpoint`.

    **Raises:** `CheckpointError` for a source that does not exist, or is malformed, unsafe or incomplete.

    ```python
    with bridge.open("model.safetensors") as ckpt:
        print(sorted(ckpt), ckpt["weight"].dtype)
    ```
    """
    if isinstance(source, Checkpoint):
        return source
    cache = None if cache_dir is None else os.fspath(cache_dir)
    hub = HubOptions(revision, token, cache, local_files_only)
    located = locate(source, subfolder=subfolder, variant=variant, hub=hub)
    return Checkpoint(located, verify=verify, root=root, modules=modules)


def _open_listed(located: Located, name: str, *, hold: bool) -> ByteSource:
    try:
        return located.folder.open(name, hold=hold)
    except CheckpointError as e:
        if located.parsed_index is None:
            raise
        index = f"{quote(located.index_name)} of {quote(located.text)}"
        raise CheckpointError(index, f"lists a file that fails: {e.statement}", e.advice) from e


open_checkpoint = open  # for rooms in which `open` is Python's
