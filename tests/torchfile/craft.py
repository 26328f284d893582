"""Files of torch.save's two formats, byte by byte: pickles from opcodes, and archives with any fault."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

DATA = np.arange(4, dtype="<f4").tobytes()
EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, MARK = b"}", b"]", b")", b"("
TUPLE, REDUCE, NEWOBJ, BUILD, STACK_GLOBAL = b"t", b"R", b"\x81", b"b", b"\x93"
NONE, TRUE, FALSE, STOP = b"N", b"\x88", b"\x89", b"."


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return MARK + b"".join(items) + TUPLE


def list_of(*items: bytes) -> bytes:
    return EMPTY_LIST + MARK + b"".join(items) + b"e"


def call(function: bytes, *args: bytes) -> bytes:
    return function + tuple_of(*args) + REDUCE


def dict_of(items: Mapping[str, bytes]) -> bytes:
    return EMPTY_DICT + MARK + b"".join(text(key) + value for key, value in items.items()) + b"u"


def instance(module: str, cls: str, attributes: bytes) -> bytes:
    return name(module, cls) + EMPTY_TUPLE + NEWOBJ + attributes + BUILD


def storage(kind: str = "FloatStorage", key: str = "0", numel: int = 4, *view: bytes) -> bytes:
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), number(numel), *view) + b"Q"


ORDERED = name("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE


def tensor(
    where: bytes | None = None,
    shape: tuple[int, ...] = (4,),
    strides: tuple[int, ...] = (1,),
    start: int = 0,
    *more: bytes,
) -> bytes:
    layout = [number(start), tuple_of(*map(number, shape)), tuple_of(*map(number, strides))]
    function = name("torch._utils", "_rebuild_tensor_v2")
    return call(function, storage() if where is None else where, *layout, FALSE, ORDERED, *more)


def pickle(value: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + value + STOP


def zipped(records: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A plain zip archive, as other programs write it: no ZIP64 end, no padding."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for record, content in records.items():
            archive.writestr(zipfile.ZipInfo(record), content, method)
    return raw.getvalue()


def archive(value: bytes, records: Mapping[str, bytes] | None = None, protocol: int = 2) -> bytes:
    """A file of torch.save's whose pickle has `value`; storage 0 holds four float32 unless `records` says otherwise."""
    more = {"data/0": DATA} if records is None else dict(records)
    inner = {"data.pkl": pickle(value, protocol), "byteorder": b"little", **more, "version": b"3\n"}
    return zipped({f"a/{record}": content for record, content in inner.items()})


MAGIC = pickle(b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little"))
SYSTEM = pickle(dict_of({"little_endian": TRUE}))


def stream(value: bytes, keys: tuple[str, ...] = ("0",), data: bytes = struct.pack("<q", 4) + DATA) -> bytes:
    """A file of PyTorch before 1.6 whose object is `value`."""
    listed = pickle(list_of(*map(text, keys)))
    return MAGIC + pickle(number(1001)) + SYSTEM + pickle(value) + listed + data


GOOD = {"w": tensor()}
IN_STREAM = {"w": tensor(storage("FloatStorage", "0", 4, NONE))}


def end_of(content: bytes) -> int:
    """Where the end of a zip archive from `zipped` begins."""
    return len(content) - 22


def directory_of(content: bytes) -> int:
    return struct.unpack_from("<I", content, end_of(content) + 16)[0]


def patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


def entry_of(content: bytes, record: str) -> int:
    """Where the directory's entry of a record begins."""
    return content.index(record.encode(), directory_of(content)) - 46
