"""Pickles that must be refused, and in which words: what they call, what they cost, what is wrong with them."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from typing import NamedTuple

from tests.torchfile import craft
from tests.torchfile.craft import (
    BUILD,
    EMPTY_DICT,
    EMPTY_TUPLE,
    GOOD,
    MARK,
    NEWOBJ,
    NONE,
    REDUCE,
    STACK_GLOBAL,
    archive,
    call,
    dict_of,
    instance,
    list_of,
    name,
    number,
    pickle,
    storage,
    stream,
    tensor,
    text,
    tuple_of,
    zipped,
)


class Hostile(NamedTuple):
    """A file, what the refusal must name, and how it is opened."""

    content: Callable[[], bytes]
    says: str
    modules: bool = False
    root: str | None = None


def beside(value: bytes) -> Callable[[], bytes]:
    """A value among the weights."""
    return lambda: archive(dict_of({**GOOD, "x": value}))


def good() -> bytes:
    return archive(dict_of(GOOD))


COMMAND = text("touch CANARY")
UTILS = "torch._utils"

CALLS = {
    "a command at the root": Hostile(lambda: archive(call(name("posix", "system"), COMMAND)), "posix.system"),
    "a command beside the weights": Hostile(beside(call(name("os", "system"), COMMAND)), "'os.system'"),
    "a command by protocol 4": Hostile(
        lambda: archive(dict_of({**GOOD, "x": text("os") + text("system") + STACK_GLOBAL + tuple_of(COMMAND) + REDUCE}), protocol=4),
        "'os.system'",
    ),
    "exec": Hostile(beside(call(name("builtins", "exec"), COMMAND)), "builtins.exec"),
    "eval of Python 2": Hostile(beside(call(name("__builtin__", "eval"), COMMAND)), "__builtin__.eval"),
    "an import and getattr": Hostile(
        beside(call(call(name("builtins", "getattr"), call(name("builtins", "__import__"), text("os")), text("system")), COMMAND)),
        "builtins.__import__",
    ),
    "a name that walks through torch": Hostile(
        beside(text("torch.serialization") + text("os.system") + STACK_GLOBAL + tuple_of(COMMAND) + REDUCE), "'os.system'"
    ),
    "a file that torch.load would fetch": Hostile(beside(call(name("torch.hub", "load"), COMMAND)), "torch.hub.load"),
    "another pickle": Hostile(beside(call(name("pickle", "loads"), COMMAND)), "pickle.loads"),
    "a command through a trampoline": Hostile(
        beside(call(name("torch._tensor", "_rebuild_from_type_v2"), name("subprocess", "run"), NONE, EMPTY_TUPLE, NONE)),
        "subprocess.run",
    ),
    "a call of nobody knows what": Hostile(beside(call(name("evil.pkg", "run"), COMMAND)), "'evil.pkg.run'"),
    "such a call at the root": Hostile(lambda: archive(call(name("evil.pkg", "run"), COMMAND)), "'evil.pkg.run'"),
    "a call of what a call returned": Hostile(beside(call(call(name("evil", "a")), COMMAND)), "'evil.a'"),
    "a class made by such a call": Hostile(beside(call(name("evil", "a")) + EMPTY_TUPLE + NEWOBJ), "'evil.a'"),
    "a name with terminal commands": Hostile(beside(call(name("\x1b[2Jevil", "run"))), r"a global with the name '\x1b[2Jevil.run'"),
    "an object among the weights": Hostile(beside(instance("argparse", "Namespace", EMPTY_DICT)), "argparse.Namespace"),
    "a class among the weights": Hostile(beside(name("pkg", "Model")), "pkg.Model"),
    "a trampoline for nobody knows what": Hostile(
        beside(
            call(name("torch._tensor", "_rebuild_from_type_v2"), name("evil", "run"), name("torch", "Tensor"), EMPTY_TUPLE, NONE)
        ),
        "is made by 'evil.run'",
    ),
}  # fmt: skip


def _laughs(levels: int) -> bytes:
    """A dict that holds the next one twice, and so on: 2**levels paths."""
    inner = dict_of(GOOD)
    for _ in range(levels):
        inner = EMPTY_DICT + MARK + text("a") + inner + b"q\0" + text("b") + b"h\0" + b"u"
    return inner


def _copies() -> bytes:
    pairs = list_of(*(tuple_of(text(str(n)), number(0)) for n in range(9000)))
    again = b"h\1" + name("collections", "OrderedDict") + b"h\0\x85R"
    return archive(pairs + b"q\0" + again.removeprefix(b"h\1") + again.removeprefix(b"h\1") * 5000)


COSTS = {
    "a dict that holds itself": Hostile(
        lambda: archive(EMPTY_DICT + b"q\0" + MARK + text("w") + tensor() + text("x") + b"h\0" + b"u"), "nested without end"
    ),
    "dicts with 2**40 paths": Hostile(lambda: archive(_laughs(40)), "nested without end"),
    "an integer of 2 GiB": Hostile(beside(b"\x8b" + struct.pack("<I", 2**31 - 1)), "an integer of 2,147,483,647 bytes"),
    "a negative length of text": Hostile(beside(b"T" + struct.pack("<i", -1)), "ends in the middle"),
    "a length of 2**63": Hostile(beside(b"\x8d" + struct.pack("<Q", 2**63)), "ends in the middle"),
    "an integer of a million digits": Hostile(beside(b"I" + b"9" * 10**6 + b"\n"), "a line of more than 40 bytes"),
    "a pickle that copies": Hostile(_copies, "copies more than it holds"),
    "too many opcodes": Hostile(lambda: archive(b"N0" * 1_050_001), "more than 2,100,000 opcodes"),
    "too many classes": Hostile(
        lambda: archive(b"".join(name("a", f"b{n}") for n in range(10_001))), "more than 10,000 classes and functions named"
    ),
    "too many values kept": Hostile(
        lambda: archive(NONE + b"".join(b"r" + struct.pack("<I", n) for n in range(1_000_001))), "more than 1,000,000 values kept"
    ),
    "a compressed pickle": Hostile(
        lambda: zipped({"a/data.pkl": bytes(20_000_000)}, zipfile.ZIP_DEFLATED), "a compressed record, 'data.pkl'"
    ),
    "a pickle of 25 MB": Hostile(lambda: archive(text("x" * 25_000_000)), "24,000,000 is the most"),
    "a pickle of 25 MB in a stream": Hostile(
        lambda: craft.MAGIC + pickle(text("x" * 25_000_000)), "a pickle of more than 24,000,000 bytes"
    ),
    "modules in modules without end": Hostile(
        lambda: archive(
            name("pkg", "Net") + EMPTY_TUPLE + NEWOBJ + b"q\0"
            + dict_of({"_parameters": EMPTY_DICT, "_buffers": EMPTY_DICT, "_modules": dict_of({"x": b"h\0"})}) + BUILD
        ),
        "nested without end",
        modules=True,
    ),
    "a parameter of a parameter of …": Hostile(
        beside(name(UTILS, "_rebuild_parameter") * 60 + tensor() + b"\x85R" * 60), "is nested without end"
    ),
}  # fmt: skip

PICKLES = {
    "an opcode that imports": Hostile(beside(b"ios\nsystem\n"), "opcode 0x69"),
    "an opcode of an extension": Hostile(beside(b"\x82\1"), "opcode 0x82"),
    "a buffer outside": Hostile(beside(b"\x97"), "opcode 0x97"),
    "an empty stack": Hostile(lambda: archive(b"0"), "takes a value that is not there"),
    "a tuple of too little": Hostile(lambda: archive(NONE + b"\x87"), "a tuple of values that are not there"),
    "a memo that is not there": Hostile(beside(b"h\7"), "a reference to value 7"),
    "no digits": Hostile(beside(b"Ione\n"), "an invalid integer"),
    "no UTF-8": Hostile(beside(b"X\1\0\0\0\xff"), "text that is not UTF-8"),
    "a name without UTF-8": Hostile(beside(b"c\xff\nx\n"), "a name that is not UTF-8"),
    "a name that is a number": Hostile(beside(number(1) + text("x") + STACK_GLOBAL), "an invalid name"),
    "a name of 2 kB": Hostile(beside(b"c" + b"x" * 2000 + b"\nx\n"), "a line of more than 1,000 bytes"),
    "an item for a number": Hostile(beside(number(1) + number(2) + b"a"), "added to a value that is not a list"),
    "a key for a number": Hostile(beside(number(1) + text("x") + number(2) + b"s"), "a key set in a value that is not a dict"),
    "a key without a value": Hostile(beside(EMPTY_DICT + MARK + text("x") + b"u"), "a key without a value"),
    "attributes for a number": Hostile(beside(number(1) + EMPTY_DICT + BUILD), "attributes for a value that has none"),
    "a call of a number": Hostile(beside(number(1) + EMPTY_TUPLE + REDUCE), "a call of a value that is not a function"),
    "a call without a tuple": Hostile(beside(name("a", "b") + number(1) + REDUCE), "a call without arguments"),
    "an object of a number": Hostile(beside(number(1) + EMPTY_TUPLE + NEWOBJ), "a new object of a value that is not a class"),
    "an object without a tuple": Hostile(beside(name("a", "b") + number(1) + NEWOBJ), "a new object without arguments"),
    "pairs that are none": Hostile(beside(call(name("collections", "OrderedDict"), list_of(number(1)))), "values that are not pairs"),
    "bytes that are none": Hostile(beside(call(name("_codecs", "encode"), text("€"), text("latin1"))), "invalid bytes"),
    "an id that is text": Hostile(beside(text("0") + b"Q"), "an invalid persistent id"),
    "a storage without a number": Hostile(beside(storage(key="../0")), "a storage without a number"),
    "a storage of a negative length": Hostile(beside(storage(numel=-1)), "a storage without a number or a length"),
    "a storage of an unknown type": Hostile(beside(storage("EvilStorage")), "'torch.EvilStorage'"),
    "a storage of two types": Hostile(beside(storage("IntStorage")), "names storage '0' twice"),
    "a view beyond its storage": Hostile(
        lambda: stream(tensor(storage("FloatStorage", "0", 4, tuple_of(text("1"), number(2), number(3))))), "a view beyond"
    ),
}  # fmt: skip
