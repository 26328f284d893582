"""Archives of torch.save's that are larger than a disk."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.torchfile import craft


def sparse(path: Path, value: bytes, lengths: list[int]) -> None:
    """An archive whose storages are holes in the file."""
    small = craft.archive(value, {f"data/{n}": b"" for n in range(len(lengths))})
    directory = craft.directory_of(small)
    with path.open("wb") as file:
        entries: list[bytes] = []
        at = directory
        while small[at : at + 4] == b"PK\1\2":
            name_nbytes, extra_nbytes = struct.unpack_from("<HH", small, at + 28)
            entries.append(small[at : at + 46 + name_nbytes + extra_nbytes])
            at += len(entries[-1])
        places: list[bytes] = []
        for entry in entries:
            name = entry[46:]
            start = struct.unpack_from("<I", entry, 42)[0]
            own = small[start : start + 30 + len(name)]
            content = struct.unpack_from("<I", entry, 20)[0]
            nbytes = lengths[int(name.rpartition(b"/")[2])] if b"/data/" in name else content
            here = file.tell()
            file.write(own[:14] + struct.pack("<III", 0, nbytes, nbytes) + own[26:])
            file.write(small[start + len(own) : start + len(own) + content])
            file.seek(here + len(own) + nbytes)
            wide = here >= 2**32 - 1
            extra = struct.pack("<HHQ", 1, 8, here) if wide else b""
            short = 2**32 - 1 if wide else here
            head = entry[:16] + struct.pack("<III", 0, nbytes, nbytes) + entry[28:30] + struct.pack("<H", len(extra))
            places.append(head + entry[32:42] + struct.pack("<I", short) + name + extra)
        start = file.tell()
        file.write(b"".join(places))
        length, end = sum(map(len, places)), file.tell()
        count = len(places)
        file.write(struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        file.write(struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, length, min(start, 2**32 - 1), 0))
