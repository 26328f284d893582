"""The directory at the end of a zip archive, read by ranges and checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.format.header import Readable
from bridge.torchfile.limits import MAX_DIRECTORY_NBYTES, MAX_RECORDS

_TAIL_NBYTES = 64 * 1024  # the directory of 500 storages, and the end: one read
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_LOCAL_NBYTES = 30
_SHORT, _LONG = 2**16 - 1, 2**32 - 1
_DIRECTORY_BIT = 0x10
_ENCRYPTED = 0x1


class DirectoryEntry(NamedTuple):
    """What the directory says of one record.

    `header` is where its own header begins, `limit` where the directory does, in bytes from the file's start.
    """

    name: str
    header: int
    nbytes: int
    packed_nbytes: int
    method: int
    flags: int
    limit: int


def read_directory(source: Readable) -> dict[str, DirectoryEntry]:
    """Every record by its name, in the directory's order. `CheckpointError` where the archive is not sound."""
    return _Directory(source).read()


class _Directory:
    def __init__(self, source: Readable) -> None:
        self._source, self._name = source, quote(source.name)

    def read(self) -> dict[str, DirectoryEntry]:
        start, nbytes, count, tail = self._end()
        if count > MAX_RECORDS or nbytes > MAX_DIRECTORY_NBYTES:
            raise CheckpointError(
                self._name,
                f"is a zip archive of {count:,} records; {MAX_RECORDS:,} is the most that bridge reads",
                "Save the weights in several files",
            )
        have = len(tail) - (self._source.nbytes - start)
        raw = tail[have : have + nbytes] if have >= 0 else self._bytes(start, nbytes)
        entries = {entry.name: entry for entry in self._entries(raw, start, count)}
        self._check_apart(entries)
        return entries

    def _end(self) -> tuple[int, int, int, bytearray]:
        """Where the directory begins, its length, its count of records; and the file's last bytes."""
        size = self._source.nbytes
        tail = self._bytes(max(0, size - _TAIL_NBYTES), min(size, _TAIL_NBYTES))
        if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\5\6"):
            self._unsound("does not end as a zip archive does: it is cut off, or something was appended")
        _, disk, first_disk, here, count, nbytes, start, _ = _END.unpack(tail[-_END.size :])
        end = size - _END.size
        wide = self._end64(tail, end)
        if wide is not None:
            short, (here, count, nbytes, start), end = (here, count, nbytes, start), wide[:4], wide[4]
            for small, large, limit in zip(short, wide, (_SHORT, _SHORT, _LONG, _LONG), strict=False):
                if small not in (limit, large):
                    self._unsound("has two ends that disagree")
        if disk or first_disk or here != count or start + nbytes != end:
            self._unsound("has a directory that is not where its end says")
        return start, nbytes, count, tail

    def _end64(self, tail: bytearray, end: int) -> tuple[int, int, int, int, int] | None:
        """The four numbers of a ZIP64 end and where it stands, if there is one."""
        locator = tail[: len(tail) - _END.size][-_LOCATOR.size :]
        if len(locator) < _LOCATOR.size or not locator.startswith(b"PK\6\7"):
            return None
        _, disk, at, disks = _LOCATOR.unpack(locator)
        expected = end - _LOCATOR.size - _END64.size
        if disk or disks > 1 or at != expected or at < 0 or len(tail) < self._source.nbytes - at:
            self._unsound("has a ZIP64 end that is not where it should be")
        raw = tail[len(tail) - (self._source.nbytes - at) :]
        mark, length, _, _, disk, first_disk, here, count, nbytes, start = _END64.unpack_from(raw)
        if mark != b"PK\6\6" or length != _END64.size - 12 or disk or first_disk:
            self._unsound("has an invalid ZIP64 end")
        return here, count, nbytes, start, at

    def _entries(self, raw: bytearray, limit: int, count: int) -> Iterator[DirectoryEntry]:
        at = 0
        names: dict[str, str] = {}
        for _ in range(count):
            if len(raw) - at < _ENTRY.size:
                self._unsound("has a directory that is cut off")
            fields = _ENTRY.unpack_from(raw, at)
            (
                mark,
                _,
                _,
                flags,
                method,
                _,
                _,
                _,
                packed,
                nbytes,
                name_nbytes,
                extra_nbytes,
                comment,
                disk,
                _,
                bits,
                header,
            ) = fields
            stop = at + _ENTRY.size + name_nbytes
            if mark != b"PK\1\2" or disk or stop + extra_nbytes + comment > len(raw):
                self._unsound("has a directory that is damaged")
            name = self._checked(raw[at + _ENTRY.size : stop], flags, bits, names)
            if _LONG in (packed, nbytes, header):
                wide = self._wide(raw[stop : stop + extra_nbytes], [nbytes, packed, header])
                nbytes, packed, header = wide
            yield DirectoryEntry(name, header, nbytes, packed, method, flags, limit)
            at = stop + extra_nbytes + comment
        if at != len(raw):
            self._unsound("has a directory of more than its records")

    def _checked(self, raw: bytearray, flags: int, bits: int, names: dict[str, str]) -> str:
        """A record's name, which nobody may read as another's or as a place outside the archive."""
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self._unsound("has a record whose name is not UTF-8")
        parts = name.split("/")
        if (
            "\\" in name
            or "\0" in name
            or ":" in parts[0]
            or any(part in ("", ".", "..") for part in parts[:-1])
            or parts[-1] == ".."
        ):
            self._unsound(f"has a record with the name {quote(name)}, which leads out of the archive")
        other = names.setdefault(raw.lower().decode(), name)  # miniz lowers the letters of ASCII
        if other is not name:
            self._unsound(f"has two records {quote(other)} and {quote(name)}, which PyTorch does not tell apart")
        if flags & _ENCRYPTED:
            self._unsound(f"has an encrypted record, {quote(name)}")
        if bits & _DIRECTORY_BIT and not name.endswith("/"):
            self._unsound(f"has a record {quote(name)} that is marked as a folder")
        return name

    def _wide(self, extra: bytearray, values: list[int]) -> list[int]:
        """Lengths and place of a record, those of 2^32 and more from its ZIP64 field."""
        at = 0
        while at + 4 <= len(extra):
            kind, nbytes = struct.unpack_from("<HH", extra, at)
            if kind == 1:
                missing = [place for place, value in enumerate(values) if value == _LONG]
                if nbytes < 8 * len(missing) or at + 4 + nbytes > len(extra):
                    break
                found = struct.unpack_from(f"<{len(missing)}Q", extra, at + 4)
                for place, value in zip(missing, found, strict=True):
                    values[place] = value
                return values
            at += 4 + nbytes
        self._unsound("has a record without its ZIP64 lengths")

    def _check_apart(self, entries: dict[str, DirectoryEntry]) -> None:
        """No two records, nor a record and the directory, may share a byte."""
        stop, before = 0, ""
        for entry in sorted(entries.values(), key=lambda entry: entry.header):
            if entry.header < stop:
                self._unsound(f"has records {quote(before)} and {quote(entry.name)} that overlap")
            stop, before = entry.header + _LOCAL_NBYTES + len(entry.name.encode()) + entry.packed_nbytes, entry.name
            if stop > entry.limit:
                self._unsound(f"has a record {quote(entry.name)} that reaches beyond its end")

    def _bytes(self, start: int, nbytes: int) -> bytearray:
        raw = bytearray(nbytes)
        self._source.readinto([memoryview(raw)], start)
        return raw

    def _unsound(self, what: str) -> NoReturn:
        raise CheckpointError(self._name, what, "Fetch it again: it is damaged, or made by hand")
