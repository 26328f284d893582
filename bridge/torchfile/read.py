"""A file that torch.save has written, understood without PyTorch, and without running anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.format.header import Readable
from bridge.format.table import collector_off
from bridge.torchfile.archive import Archive, read_archive
from bridge.torchfile.dtypes import itemsize
from bridge.torchfile.entry import RootTensors
from bridge.torchfile.limits import MAX_PICKLE_NBYTES
from bridge.torchfile.machine import Machine
from bridge.torchfile.modules import is_module, module_values, script_values
from bridge.torchfile.roots import chosen, refuse_rootless, roots, tensors_of
from bridge.torchfile.script import script_lists
from bridge.torchfile.stream import MAGIC, read_stream
from bridge.torchfile.tape import Tape
from bridge.torchfile.tensors import EntryReader, LocateStorage
from bridge.torchfile.tokens import Dict, Object, Storage
from bridge.torchfile.walk import TensorDict, WalkLimit

HEAD_NBYTES = 512
"""How much of a file's beginning `is_torch_file` wants to see."""

_ZIP, _TAR = b"PK\3\4", b"ustar"
_MAGIC = b"\x8a\x0a" + MAGIC.to_bytes(10, "little")
_SMALL = 1000  # bytes that a record of one number may have
_MAX_METADATA = 100


def is_torch_file(first: bytes) -> bool:
    """Whether a file that begins with these bytes (`HEAD_NBYTES` of them) is for `read_torch_file` to judge.

    True for every zip archive, for PyTorch's older stream, for pickles and for tar archives.
    """
    return first[:4] == _ZIP or _is_pickle(first) or first[257:262] == _TAR


def _is_pickle(first: bytes) -> bool:
    return first[:1] == b"\x80" and first[1:2] in (b"\2", b"\3", b"\4", b"\5") and first[2:8] != b"\0\0\0\0\0\0"


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What a file holds, by its pickle.

    - `name`: what messages call it.
    - `roots`: paths of the dicts that may be meant to how many tensors each holds; `""` is the outermost dict.
    - `metadata`: numbers and text in the outermost dict, such as an epoch.
    """

    name: str
    roots: Mapping[str, int]
    metadata: Mapping[str, str]
    _found: tuple[TensorDict, ...]
    _reader: EntryReader

    def entries(self, root: str | None = None) -> RootTensors:
        """The tensors of one root. The source must still be open: where records lie is asked for here.

        **Arguments:**

        - `root`: its path; the dicts below it are flattened, with dots between the keys. None for the one dict that
          holds tensors, where there is only one.

        **Returns:** `RootTensors`. `CheckpointError` if the root is not there or not clear, or if the file says of a
        tensor what cannot be, or has objects of unknown classes among the tensors.
        """
        path = chosen(self.name, self.roots, self._found, root)
        with collector_off(many=True):
            return tensors_of(self.name, self._found, path, self._reader, alone=root is None)


def read_torch_file(
    source: Readable, file: str | None = None, *, modules: bool = False, distant: bool = False
) -> TorchFile:
    """Read the directory and the pickle of a file, no values.

    **Arguments:**

    - `source`: the file; `source.name` is what messages call it.
    - `file`: what the entries call it, by default `source.name`.
    - `modules`: read whole modules, pickled or TorchScript, by their attributes.
    - `distant`: whether each read takes long. Where storages lie is then computed, as PyTorch's writer does; else a
      few bytes are read for each storage, which must agree.

    **Returns:** a `TorchFile`. `CheckpointError` if torch.save has not written the file, if it is damaged, if it would
    make PyTorch run something, or if it costs more than `limits` allow.
    """
    with collector_off(many=True):  # what is made here has no cycles, and there may be a million of them
        return _read(source, source.name if file is None else file, modules=modules, distant=distant)


def _read(source: Readable, file: str, *, modules: bool, distant: bool) -> TorchFile:
    raw = bytearray(min(HEAD_NBYTES, source.nbytes))
    source.readinto([memoryview(raw)], 0)
    head = bytes(raw)
    walk, lists = WalkLimit(source.name), None
    if head[:4] == _ZIP:
        archive = read_archive(source)
        saved, swapped, place = _unpickled(archive), _is_big(archive), _zip_place(archive, distant=distant)
        if "constants.pkl" in archive.records:
            lists = script_lists(archive)
    else:
        saved, places = _streamed(source, head, distant=distant)
        swapped, place = False, _stream_place(places)
    if lists is not None:
        if not modules:
            raise CheckpointError(
                quote(source.name),
                "is a TorchScript archive",
                (
                    "Open it with modules=True, which reads its parameters and buffers without its code; or save "
                    "its state_dict()"
                ),
            )
        as_values = partial(script_values, source.name, lists=lists, walk=walk)
    else:
        as_values = partial(module_values, source.name, walk=walk)
    found = walk.dicts(saved, as_values if modules else lambda _: None)
    counts = roots(found)
    if not counts:
        refuse_rootless(source.name, saved, None if modules else _module_in(saved))
    reader = EntryReader(source.name, file, place, swapped=swapped)
    return TorchFile(source.name, counts, _metadata(saved), tuple(found), reader)


def _streamed(source: Readable, head: bytes, *, distant: bool) -> tuple[Any, dict[str, tuple[int, int]]]:
    if head[257:262] == _TAR:
        raise CheckpointError(
            quote(source.name),
            "is a tar archive, as PyTorch before 0.2 wrote them",
            "Unpack it if it holds other files; else load it with PyTorch, and save it again",
        )
    if not head:
        raise CheckpointError(quote(source.name), "is empty: it was not fetched, or not saved", "Fetch it again")
    if not _is_pickle(head) or _MAGIC not in head[:40]:
        kind = (
            "is a pickle that torch.save did not write" if _is_pickle(head) else "is not a file that torch.save writes"
        )
        raise CheckpointError(
            quote(source.name), kind, "Read it with the program that wrote it, and save the arrays as safetensors"
        )
    return read_stream(source, distant=distant)


def _unpickled(archive: Archive) -> Any:
    raw = archive.text("data.pkl", MAX_PICKLE_NBYTES)
    return Machine(Tape.of(archive.source, raw)).run()


def _is_big(archive: Archive) -> bool:
    """Whether storages are big-endian. Files before 2.1 do not say, and are little-endian."""
    if "byteorder" not in archive.records:
        return False
    order = bytes(archive.text("byteorder", _SMALL))
    if order not in (b"little", b"big"):
        raise CheckpointError(
            quote(archive.source.name),
            "has a byte order that is neither little nor big: it is damaged",
            "Fetch it again",
        )
    return order == b"big"


def _stream_place(places: Mapping[str, tuple[int, int]]) -> LocateStorage:
    return lambda storage: places[storage.key]


def _zip_place(archive: Archive, *, distant: bool) -> LocateStorage:
    def place(storage: Storage) -> tuple[int, int]:
        name, held = f"data/{storage.key}", itemsize(storage.kind)
        promised = storage.numel * held
        if name not in archive.records:
            raise CheckpointError(
                quote(archive.source.name), f"has no record {quote(name)} in the zip: it is damaged", "Fetch it again"
            )
        offset, nbytes = archive.place(name, distant=distant)
        if not promised <= nbytes < promised + held:
            raise CheckpointError(
                quote(archive.source.name),
                (
                    f"has a storage {quote(storage.key)} of {promised:,} bytes by its pickle, but of {nbytes:,} "
                    "bytes in the zip: it is damaged"
                ),
                "Fetch it again",
            )
        return offset, nbytes

    return place


def _module_in(saved: Any) -> str | None:
    """The class of a module that is saved, or that is a value of the dict that is."""
    values = list(saved.values()) if isinstance(saved, Dict) else [saved]
    return next((value.origin for value in values if isinstance(value, Object) and is_module(value)), None)


def _metadata(saved: Any) -> dict[str, str]:
    """The short values of the outermost dict."""
    items = saved.items() if isinstance(saved, Dict) else ()
    short = {
        key: str(value)
        for key, value in items
        if type(value) in (int, float, bool) or (type(value) is str and len(value) < _SMALL)
    }
    return dict(list(short.items())[:_MAX_METADATA])
