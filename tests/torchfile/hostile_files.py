"""Tensors, archives, streams and roots that must be refused, and in which words."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

from tests.torchfile import craft
from tests.torchfile.craft import (
    BUILD,
    EMPTY_DICT,
    EMPTY_TUPLE,
    FALSE,
    GOOD,
    IN_STREAM,
    NONE,
    ORDERED,
    TRUE,
    archive,
    call,
    dict_of,
    end_of,
    entry_of,
    instance,
    list_of,
    name,
    number,
    patched,
    pickle,
    storage,
    stream,
    tensor,
    text,
    tuple_of,
    zipped,
)
from tests.torchfile.hostile import CALLS, COMMAND, COSTS, PICKLES, UTILS, Hostile, beside, good

UNTYPED = storage("UntypedStorage", numel=16)
TENSORS = {
    "more elements than the record": Hostile(lambda: archive(dict_of({"w": tensor(storage(numel=1000))})), "16 bytes in the zip"),
    "fewer elements than the record": Hostile(lambda: archive(dict_of({"w": tensor(storage(numel=2))})), "16 bytes in the zip"),
    "no record": Hostile(lambda: archive(dict_of(GOOD), {}), "no record 'data/0'"),
    "an end beyond the storage": Hostile(lambda: archive(dict_of({"w": tensor(None, (3,), (2,))})), "reaches to element 4"),
    "64 bits are too few": Hostile(lambda: archive(dict_of({"w": tensor(None, (2**40,), (2**40,))})), "reaches to element"),
    "expanded beyond 64 bits": Hostile(
        lambda: archive(dict_of({"w": tensor(None, (2**40, 2**40), (0, 0))})), "more elements than 64 bits"
    ),
    "a negative stride": Hostile(lambda: archive(dict_of({"w": tensor(None, (2,), (-1,), 1)})), "an invalid shape, strides or offset"),
    "a negative offset": Hostile(lambda: archive(dict_of({"w": tensor(None, (1,), (1,), -1)})), "an invalid shape, strides or offset"),
    "strides for another shape": Hostile(lambda: archive(dict_of({"w": tensor(None, (2, 2), (1,))})), "2 axes and 1 stride"),
    "65 axes": Hostile(lambda: archive(dict_of({"w": tensor(None, (1,) * 65, (1,) * 65)})), "65 axes"),
    "a view of bytes": Hostile(
        lambda: stream(
            dict_of({
                "w": call(
                    name(UTILS, "_rebuild_tensor_v3"), storage("UntypedStorage", "0", 16, tuple_of(text("1"), number(0), number(16))),
                    number(0), tuple_of(number(16)), tuple_of(number(1)), FALSE, ORDERED, name("torch", "float32"),
                )
            }),
            data=struct.pack("<q", 16) + craft.DATA,
        ),
        "is part of a view",
    ),
    "no dtype": Hostile(lambda: archive(dict_of({"w": tensor(UNTYPED)})), "has no dtype"),
    "made of nothing": Hostile(beside(call(name(UTILS, "_rebuild_tensor_v2"))), "is not made as torch.save makes tensors"),
    "one name for two": Hostile(
        lambda: archive(dict_of({"a.w": tensor(), "a": dict_of(GOOD)})), "two tensors that would be called 'a.w'", root=""
    ),
    "a name that is no text": Hostile(lambda: archive(dict_of({"\ud800": tensor()})), "whose name is not text"),
}  # fmt: skip

REFUSED = {
    "quantised": (call(name(UTILS, "_rebuild_qtensor"), storage()), "is quantised"),
    "sparse": (call(name(UTILS, "_rebuild_sparse_tensor"), NONE), "is sparse"),
    "nested": (call(name(UTILS, "_rebuild_nested_tensor"), NONE), "is nested"),
    "meta": (call(name(UTILS, "_rebuild_meta_tensor_no_storage"), NONE), "is a meta tensor"),
    "XLA": (call(name(UTILS, "_rebuild_xla_tensor"), NONE), "XLA"),
    "a wrapper": (call(name(UTILS, "_rebuild_wrapper_subclass"), NONE), "wraps other tensors"),
    "a state": (tensor() + EMPTY_DICT + BUILD, "was given a state"),
    "conjugated": (tensor(None, (4,), (1,), 0, dict_of({"conj": TRUE})), "conjugated or negated"),
    "expanded": (tensor(None, (2**40,), (0,)), "is expanded to 4.4 TB from 16 B"),
    "complex32": (
        call(name(UTILS, "_rebuild_tensor_v3"), storage("UntypedStorage", "1", 16), number(0), tuple_of(number(4)),
             tuple_of(number(1)), FALSE, ORDERED, name("torch", "complex32")),
        "'torch.complex32'",
    ),
    "a subclass": (
        call(name("torch._tensor", "_rebuild_from_type_v2"), name(UTILS, "_rebuild_tensor_v2"), name("pkg", "Special"),
             EMPTY_TUPLE, NONE),
        "'pkg.Special'",
    ),
}  # fmt: skip
"""Tensors that are refused when they are used: a value among weights, and what the refusal says."""


def _twice(first: str, second: str) -> Callable[[], bytes]:
    return lambda: zipped({"a/data.pkl": pickle(dict_of(GOOD)), first: craft.DATA, second: craft.DATA})


def _bent(record: str, at: int, new: bytes) -> Callable[[], bytes]:
    """A good archive, with other bytes in a record's directory entry."""
    return lambda: patched(good(), entry_of(good(), record) + at, new)


def _bent_end(at: int, new: bytes) -> Callable[[], bytes]:
    return lambda: patched(good(), end_of(good()) + at, new)


def _wide(at: int = 0, new: bytes = b"", start: int = 0) -> bytes:
    """A good archive with a ZIP64 end, as PyTorch writes it, and other bytes somewhere in that."""
    content = good()
    count, nbytes, first = struct.unpack_from("<HII", content, end_of(content) + 10)
    end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, nbytes, first)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end_of(content) + start, 1)
    return patched(content[: end_of(content)] + end + locator + content[end_of(content) :], end_of(content) + at, new)


ZIPS = {
    "no end": Hostile(lambda: good()[:-1], "does not end as a zip archive does"),
    "bytes behind the end": Hostile(lambda: good() + b"\0", "something was appended"),
    "an end that points elsewhere": Hostile(_bent_end(16, b"\0\0\0\0"), "not where its end says"),
    "too many records": Hostile(lambda: _wide(24, struct.pack("<QQ", 10**6, 10**6))[:-14] + b"\xff\xff\xff\xff" + _wide()[-10:], "300,000 is the most"),
    "two ends": Hostile(lambda: _wide(24, struct.pack("<QQ", 9, 9)), "two ends that disagree"),
    "a ZIP64 end that is none": Hostile(lambda: _wide(0, b"XX"), "an invalid ZIP64 end"),
    "a ZIP64 end elsewhere": Hostile(lambda: _wide(start=1), "a ZIP64 end that is not where"),
    "a directory that is cut off": Hostile(
        lambda: patched(good(), end_of(good()) + 8, struct.pack("<HH", 9, 9)), "a directory that is cut off"
    ),
    "a directory that is longer": Hostile(
        lambda: patched(good(), end_of(good()) + 8, struct.pack("<HH", 3, 3)), "more than its records"
    ),
    "a directory entry that is none": Hostile(_bent("a/data/0", 0, b"XX"), "a directory that is damaged"),
    "a name that leads outside": Hostile(_twice("a/data/0", "a/data/../../../tmp/x"), "tmp/x"),
    "an absolute name": Hostile(_twice("a/data/0", "/etc/x"), "/etc/x"),
    "a name without UTF-8": Hostile(_bent("a/data/0", 46, b"\xff"), "whose name is not UTF-8"),
    "a name twice, but for case": Hostile(_twice("a/data/0", "a/DATA/0"), "two records"),
    "a record outside the folder": Hostile(_twice("a/data/0", "b/data/1"), "outside its folder 'a'"),
    "an encrypted record": Hostile(_bent("a/data/0", 8, b"\1\0"), "an encrypted record"),
    "a record marked as a folder": Hostile(_bent("a/data/0", 38, b"\x10"), "marked as a folder"),
    "records that overlap": Hostile(_bent("a/byteorder", 42, struct.pack("<I", 1)), "that overlap"),
    "a record beyond the end": Hostile(_bent("a/version", 20, struct.pack("<II", 10**6, 10**6)), "reaches beyond its end"),
    "no ZIP64 lengths": Hostile(_bent("a/data/0", 20, struct.pack("<II", 2**32 - 1, 2**32 - 1)), "without its ZIP64 lengths"),
    "a header with another name": Hostile(
        lambda: patched(good(), good().index(b"a/data/0"), b"a/data/9"), "the zip's directory disagree"
    ),
    "a header with another length": Hostile(
        lambda: patched(good(), good().index(b"a/data/0") - 8, struct.pack("<I", 8)), "the zip's directory disagree"
    ),
    "a header that is pushed aside": Hostile(
        lambda: patched(good(), good().index(b"a/data/0") - 2, struct.pack("<H", 60000)), "the zip's directory disagree"
    ),
    "a header without its mark": Hostile(
        lambda: patched(good(), good().index(b"a/byteorder") - 30, b"XX"), "the zip's directory disagree"
    ),
    "a compressed storage": Hostile(
        lambda: patched(good(), entry_of(good(), "a/data/0") + 10, struct.pack("<H", 8)), "a compressed record, 'data/0'"
    ),
    "a byte order that is none": Hostile(
        lambda: zipped({"a/data.pkl": pickle(dict_of(GOOD)), "a/byteorder": b"middle", "a/data/0": craft.DATA}), "neither little nor big"
    ),
    "a byte order of 2 kB": Hostile(
        lambda: zipped({"a/data.pkl": pickle(dict_of(GOOD)), "a/byteorder": bytes(2000), "a/data/0": craft.DATA}),
        "where 1,000 is the most",
    ),
    "a wrapper": Hostile(lambda: zipped({"weights/model.pth": good()}), "Unpack it"),
    "arrays of numpy": Hostile(lambda: zipped({"w.npy": b""}), "numpy arrays (.npz)"),
    "old TorchScript": Hostile(lambda: zipped({"net/model.json": b"{}"}), "TorchScript archive of PyTorch 1.3"),
    "another zip": Hostile(lambda: zipped({"x.txt": b""}), "without a data.pkl"),
    "an empty zip": Hostile(lambda: b"PK\3\4" + zipped({}), "not where its end says"),
}  # fmt: skip

STREAMS = {
    "a count of elements that is wrong": Hostile(
        lambda: stream(dict_of(IN_STREAM), data=struct.pack("<q", 2**40) + craft.DATA), "1,099,511,627,776 in the stream"
    ),
    "storages that are cut off": Hostile(lambda: stream(dict_of(IN_STREAM))[:-1], "in the stream"),
    "bytes behind the storages": Hostile(lambda: stream(dict_of(IN_STREAM)) + b"\0", "1 byte after its last storage"),
    "a list of other storages": Hostile(lambda: stream(dict_of(IN_STREAM), ("1",)), "storages that are not those of its list"),
    "a list that is none": Hostile(
        lambda: craft.MAGIC + pickle(number(1001)) + craft.SYSTEM + pickle(dict_of(IN_STREAM)) + pickle(NONE), "an invalid list of storages"
    ),
    "another version": Hostile(lambda: craft.MAGIC + pickle(number(999)), "its version is not 1001"),
    "another magic number": Hostile(lambda: pickle(number(7) + b"0" + craft.MAGIC[2:-1] + b"0N"), "torch.save did not write"),
    "code in the third pickle": Hostile(
        lambda: craft.MAGIC + pickle(number(1001)) + pickle(call(name("os", "system"), COMMAND)), "'os.system'"
    ),
    "a pickle of something else": Hostile(lambda: pickle(dict_of({})), "a pickle that torch.save did not write"),
    "a pickle that is cut off": Hostile(lambda: craft.MAGIC[:-1], "ends in the middle"),
    "a tar archive": Hostile(lambda: bytes(257) + b"ustar" + bytes(250), "is a tar archive"),
    "something else": Hostile(lambda: b"hello", "is not a file that torch.save writes"),
    "nothing": Hostile(lambda: b"", "is empty"),
}  # fmt: skip


def _module(parts: dict[str, bytes]) -> bytes:
    attributes = {"_parameters": dict_of(GOOD), "_buffers": EMPTY_DICT, "_modules": EMPTY_DICT, **parts}
    return instance("pkg", "Net", dict_of(attributes))


def script(code: bytes | None, value: bytes | None = None, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    records = {"data.pkl": pickle(value or instance("__torch__", "Net", dict_of(GOOD))), "data/0": craft.DATA}
    plain = zipped(
        {f"a/{record}": content for record, content in {**records, "constants.pkl": pickle(EMPTY_TUPLE)}.items()}
    )
    if code is None:
        return plain
    raw = io.BytesIO(plain)
    with zipfile.ZipFile(raw, "a") as archive:
        archive.writestr(zipfile.ZipInfo("a/code/__torch__.py"), code, method)
    return raw.getvalue()


CODE = b'class Net(Module):\n  __parameters__ = ["w", ]\n  __buffers__ = []\n'


def _secret() -> bytes:
    """Code of 9 MB that is said to have 9 bytes, in both places."""
    content = script(b" " * 9_000_000)
    local = content.index(b"a/code/__torch__.py") - 30
    said = struct.pack("<I", 9)
    return patched(patched(content, local + 22, said), entry_of(content, "a/code/__torch__.py") + 24, said)


ROOTS = {
    "several dicts": Hostile(
        lambda: archive(dict_of({"model": dict_of(GOOD), "model_ema": dict_of({**GOOD, "b": tensor()})})),
        "root='model' (1 tensor), root='model_ema' (2 tensors)",
    ),
    "many dicts": Hostile(lambda: archive(dict_of({f"m{n}": dict_of(GOOD) for n in range(25)})), ", 5 more. Choose"),
    "a tensor beside a dict": Hostile(
        lambda: archive(dict_of({"model": dict_of(GOOD), "loss": tensor()})),
        "root='model' (1 tensor), the outermost dict (1 tensor)",
    ),
    "a root that is not there": Hostile(lambda: good(), "no tensors under root='model'", root="model"),
    "a single tensor": Hostile(lambda: archive(tensor()), "holds a single tensor"),
    "a list": Hostile(lambda: archive(list_of(tensor())), "holds a list"),
    "a dict without tensors": Hostile(lambda: archive(dict_of({"x": number(1)})), "holds a dict, but no dict of named"),
    "a whole module": Hostile(lambda: archive(_module({})), "'pkg.Net'"),
    "a whole module in a dict": Hostile(lambda: archive(dict_of({"model": _module({})})), "modules=True"),
    "a module with hooks": Hostile(
        lambda: archive(_module({"_state_dict_hooks": EMPTY_DICT + number(0) + NONE + b"s"})), "changed by hooks", modules=True
    ),
    "a module that is none": Hostile(
        lambda: archive(_module({"_modules": dict_of({"x": instance("pkg", "Odd", EMPTY_DICT)})})), "'pkg.Odd' where a module", modules=True
    ),
    "TorchScript": Hostile(lambda: script(CODE), "is a TorchScript archive"),
    "TorchScript without an attribute": Hostile(lambda: script(CODE.replace(b'"w"', b'"v"')), "without the attributes", modules=True),
    "TorchScript with damaged code": Hostile(
        lambda: patched(script(CODE), script(CODE).index(b"code/__torch__.py") + 17, b"\xff" * 8), "that cannot be read", modules=True
    ),
    "TorchScript whose code inflates": Hostile(lambda: script(b" " * 9_000_000), "8,000,000 bytes of TorchScript code", modules=True),
    "TorchScript whose code inflates in secret": Hostile(_secret, "that cannot be read", modules=True),
}  # fmt: skip

HOSTILE: dict[str, Hostile] = {
    f"{room}: {case}": hostile
    for room, cases in {
        "pickle calls": CALLS,
        "pickle costs": COSTS,
        "pickle": PICKLES,
        "tensor": TENSORS,
        "zip": ZIPS,
        "stream": STREAMS,
        "root": ROOTS,
    }.items()
    for case, hostile in cases.items()
}
