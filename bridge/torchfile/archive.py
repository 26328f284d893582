"""The records of a zip archive, from its directory alone: names checked, none compressed where it is to be read."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.format.header import Readable
from bridge.torchfile.directory import DirectoryEntry, read_directory

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_UNREAD = 2**32 - 1
_TORCH_FLAGS = 0x0808  # UTF-8 names, lengths in a descriptor behind the data
_EMPTY_FLAGS = 0x0800
_ALIGNMENT = 64
_SPARE_NBYTES = 128 * 1024  # of a record's header, whose extra field may have 64 kB
_MAX_DIGITS = 9
_FETCH = "Fetch it again: it is damaged, or made by hand"


@dataclass(frozen=True)
class Archive:
    """What a zip archive holds.

    - `folder`: what all names begin with, without the slash; `records` go by what follows it.
    - `stops`: of each record, where the next one or the directory begins, in bytes from the file's start.
    """

    source: Readable
    folder: str
    records: dict[str, DirectoryEntry]
    stops: dict[str, int]

    @cached_property
    def alignment(self) -> int:
        """What the file says that its records are aligned to."""
        if ".storage_alignment" not in self.records:
            return _ALIGNMENT
        said = bytes(self.text(".storage_alignment", _MAX_DIGITS))
        return max(1, int(said)) if said.isdigit() else _ALIGNMENT

    def place(self, name: str, *, distant: bool) -> tuple[int, int]:
        """Where the bytes of a record lie, as (offset, nbytes), by the record's own header.

        PyTorch pads each record by a rule. If the file is `distant`, that rule takes the place of a read, where what
        follows begins just where it then should.
        """
        entry = self._stored(name)
        start = self._padded(name, entry, _ALIGNMENT) if distant else None
        if distant and start is None:
            start = self._padded(name, entry, self.alignment)
        return self._read_place(name, entry) if start is None else start, entry.nbytes

    def text(self, name: str, limit: int) -> bytearray:
        """A small record, whole. Its own header is read too, and must agree with the directory."""
        entry = self._stored(name)
        if entry.nbytes > limit:
            raise CheckpointError(
                quote(self.source.name),
                (
                    f"has a record {quote(name)} of {entry.nbytes:,} bytes, where {limit:,} is the most that "
                    "bridge reads"
                ),
                "Save the weights without what lies beside them",
            )
        return self.packed(name)

    def packed(self, name: str) -> bytearray:
        """The bytes of a record as they lie there, compressed or not."""
        entry = self.records[name]
        span = bytearray(min(self.stops[name] - entry.header, entry.packed_nbytes + _SPARE_NBYTES))
        self.source.readinto([memoryview(span)], entry.header)  # with its own header, in one read
        start = self._own_start(name, entry, span)
        return span[start : start + entry.packed_nbytes]

    def _stored(self, name: str) -> DirectoryEntry:
        entry = self.records[name]
        if entry.method != 0 or entry.packed_nbytes != entry.nbytes:
            raise CheckpointError(
                quote(self.source.name),
                f"has a compressed record, {quote(name)}; torch.save compresses none",
                "Unpack it, and pack it again without compression (zip -0), or save it again with torch.save",
            )
        return entry

    def _padded(self, name: str, entry: DirectoryEntry, alignment: int) -> int | None:
        """Where PyTorch's writer puts the bytes of a record, by where its header is; None where that does not fit."""
        if entry.flags != (_TORCH_FLAGS if entry.nbytes else _EMPTY_FLAGS):
            return None
        large, far = entry.nbytes >= _UNREAD, entry.header >= _UNREAD
        extra = 4 + 4 * (large or far) + 16 * large + 8 * far
        start = entry.header + _LOCAL.size + len(f"{self.folder}/{name}".encode()) + extra
        start = -(-start // alignment) * alignment
        return start if start + entry.nbytes + _descriptor_nbytes(entry) == self.stops[name] else None

    def _read_place(self, name: str, entry: DirectoryEntry) -> int:
        """Where a record's bytes begin, by its own header, which must agree with the directory."""
        raw = bytearray(_LOCAL.size + len(f"{self.folder}/{name}".encode()))
        self.source.readinto([memoryview(raw)], entry.header)
        return entry.header + self._own_start(name, entry, raw)

    def _own_start(self, name: str, entry: DirectoryEntry, raw: bytearray) -> int:
        """Where a record's bytes begin behind its header, of which `raw` holds at least the fields and the name."""
        wanted = f"{self.folder}/{name}".encode()
        mark, _, flags, method, _, _, _, packed, nbytes, name_nbytes, extra_nbytes = _LOCAL.unpack_from(raw)
        start = _LOCAL.size + len(wanted) + extra_nbytes
        later = flags & 8 and not packed and not nbytes  # the lengths stand behind the data
        lengths = later or (packed in (entry.packed_nbytes, _UNREAD) and nbytes in (entry.nbytes, _UNREAD))
        same = (
            mark == b"PK\3\4"
            and name_nbytes == len(wanted)
            and raw.startswith(wanted, _LOCAL.size)
            and method == entry.method
        )
        if not same or not lengths or entry.header + start + entry.packed_nbytes > self.stops[name]:
            self._disagree(name)
        return start

    def _disagree(self, name: str) -> NoReturn:
        raise CheckpointError(
            quote(self.source.name),
            f"has a record {quote(name)} whose own header and the zip's directory disagree",
            _FETCH,
        )


def read_archive(source: Readable) -> Archive:
    """The records of a zip archive that torch.save has written, or a `CheckpointError` that says what it is."""
    entries = read_directory(source)
    first = next(iter(entries.values()), None)
    folder = "" if first is None else first.name.partition("/")[0]
    if f"{folder}/data.pkl" not in entries:
        raise CheckpointError(quote(source.name), *_other(list(entries)))
    strange = next((name for name in entries if not name.startswith(f"{folder}/")), None)
    if strange is not None:
        raise CheckpointError(
            quote(source.name), f"has a record {quote(strange)} outside its folder {quote(folder)}", _FETCH
        )
    cut = len(folder) + 1
    ordered = sorted(entries.values(), key=lambda entry: entry.header)
    stops = [*(entry.header for entry in ordered[1:]), ordered[-1].limit]
    return Archive(
        source,
        folder,
        {entry.name[cut:]: entry for entry in entries.values()},
        {entry.name[cut:]: stop for entry, stop in zip(ordered, stops, strict=True)},
    )


def _other(names: list[str]) -> tuple[str, str]:
    """What a zip is that torch.save has not written, and what to do."""
    inner = [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth", ".safetensors"))]
    if inner:
        return f"is a zip archive that holds {quote(inner[0])}", "Unpack it, and open that"
    if any(name.endswith(".npy") for name in names):
        return "is a zip archive of numpy arrays (.npz)", "Save them with safetensors.numpy.save_file"
    if any(name.endswith("model.json") for name in names):
        return "is a TorchScript archive of PyTorch 1.3 or older", "Load it with PyTorch, and save its state_dict()"
    return "is a zip archive without a data.pkl: torch.save did not write it", "Check that it is the file you mean"


def _descriptor_nbytes(entry: DirectoryEntry) -> int:
    if not entry.nbytes:
        return 0
    return 24 if entry.nbytes >= _UNREAD or entry.header >= _UNREAD else 16
