"""What each opcode of protocols 2 to 5 does to the machine. An opcode that is not here is refused.

Not here are those that import or call in ways of their own (INST, OBJ, EXT1 …, PERSID, out-of-band buffers), and those
of protocol 0, which torch.save never wrote; of that one, Python 2 still used the integer as text.
"""

# What patterns find in a pickle's values is of any type.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bridge.torchfile.limits import MAX_DIGITS, MAX_INT_NBYTES, MAX_NAME_NBYTES
from bridge.torchfile.meaning import build, call, make
from bridge.torchfile.persistent import storage_of
from bridge.torchfile.tokens import Dict, Object, OldText, Set

if TYPE_CHECKING:
    from bridge.torchfile.machine import Machine

Handler = Callable[["Machine"], None]
_FLOAT = struct.Struct(">d")


# ---- the stack and the memo


def _mark(m: Machine) -> None:
    m.below.append(m.stack)
    m.stack = []


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.marked()


def _pop_mark(m: Machine) -> None:
    m.marked()


def _dup(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _put1(m: Machine) -> None:
    m.keep(m.byte())


def _put4(m: Machine) -> None:
    m.keep(m.unsigned(4))


def _memoize(m: Machine) -> None:
    m.keep(len(m.memo))


def _get(m: Machine, number: int) -> None:
    if number not in m.memo:
        m.damaged(f"a reference to value {number:,}, which is not there,")
    m.stack.append(m.memo[number])


def _get1(m: Machine) -> None:
    _get(m, m.byte())


def _get4(m: Machine) -> None:
    _get(m, m.unsigned(4))


# ---- constants, numbers and text


def _constant(value: Any) -> Handler:
    def push(m: Machine) -> None:
        m.stack.append(value)

    return push


def _byte(m: Machine) -> None:
    m.stack.append(m.byte())


def _short(m: Machine) -> None:
    m.stack.append(m.unsigned(2))


def _int(m: Machine) -> None:
    m.stack.append(int.from_bytes(m.take(4), "little", signed=True))


def _long(length_nbytes: int) -> Handler:
    def push(m: Machine) -> None:
        nbytes = m.unsigned(length_nbytes)
        if nbytes > MAX_INT_NBYTES:
            m.damaged(f"an integer of {nbytes:,} bytes")
        m.stack.append(int.from_bytes(m.take(nbytes), "little", signed=True))

    return push


def _int_text(m: Machine) -> None:
    text = bytes(m.line(MAX_DIGITS))
    if text in (b"00", b"01"):  # how protocol 1 wrote False and True
        m.stack.append(text == b"01")
    elif text.lstrip(b"-").isdigit():
        m.stack.append(int(text))
    else:
        m.damaged("an invalid integer")


def _float(m: Machine) -> None:
    m.stack.append(_FLOAT.unpack(m.take(8))[0])


def _text(length_nbytes: int) -> Handler:
    def push(m: Machine) -> None:
        raw = m.take(m.unsigned(length_nbytes))
        try:
            m.stack.append(raw.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            m.damaged("text that is not UTF-8")

    return push


def _bytes(length_nbytes: int) -> Handler:
    def push(m: Machine) -> None:
        m.stack.append(bytes(m.take(m.unsigned(length_nbytes))))

    return push


def _old_text(length_nbytes: int) -> Handler:
    def push(m: Machine) -> None:
        raw = m.take(m.unsigned(length_nbytes))
        m.stack.append(raw.decode() if raw.isascii() else OldText(raw))

    return push


# ---- containers


def _container(kind: Callable[[], Any]) -> Handler:
    def push(m: Machine) -> None:
        m.stack.append(kind())

    return push


def _tuple(m: Machine) -> None:
    items = tuple(m.marked())
    m.stack.append(items)


def _tuple_of(count: int) -> Handler:
    def push(m: Machine) -> None:
        items = tuple(m.stack[-count:])
        if len(items) < count:
            m.damaged("a tuple of values that are not there")
        m.stack[-count:] = [items]

    return push


def _list(m: Machine) -> None:
    items = m.marked()
    m.stack.append(items)


def _dict(m: Machine) -> None:
    items, into = m.marked(), Dict()
    set_items(m, into, items)
    m.stack.append(into)


def _frozen_set(m: Machine) -> None:
    items = m.marked()
    m.stack.append(Set(items))


def _append(m: Machine) -> None:
    item = m.stack.pop()
    _extend(m, [item])


def _appends(m: Machine) -> None:
    _extend(m, m.marked())


def _extend(m: Machine, items: Sequence[Any]) -> None:
    into = m.stack[-1]
    if isinstance(into, list):
        into.extend(items)
    elif not isinstance(into, Object):  # what an unknown object holds is of no use
        m.damaged("something added to a value that is not a list")


def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    set_items(m, m.stack[-1], (key, value))


def _set_items(m: Machine) -> None:
    items = m.marked()
    set_items(m, m.stack[-1], items)


def set_items(m: Machine, into: Any, items: Sequence[Any]) -> None:
    """Put keys and values, which take turns in `items`, into a dict."""
    if len(items) % 2:
        m.damaged("a key without a value")
    if isinstance(into, Dict):
        for place in range(0, len(items), 2):
            into.put(items[place], items[place + 1])
    elif not isinstance(into, Object):
        m.damaged("a key set in a value that is not a dict")


# ---- names and what would be called


def _global(m: Machine) -> None:
    module, name = m.line(MAX_NAME_NBYTES), m.line(MAX_NAME_NBYTES)
    try:
        m.stack.append(m.refer(module.decode(), name.decode()))
    except UnicodeDecodeError:
        m.damaged("a name that is not UTF-8")


def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if type(name) is not str or type(module) is not str or len(name) + len(module) > 2 * MAX_NAME_NBYTES:
        m.damaged("an invalid name")
    m.stack.append(m.refer(module, name))


def _reduce(m: Machine) -> None:
    args, function = m.stack.pop(), m.stack.pop()
    m.stack.append(call(m, function, args))


def _new(m: Machine) -> None:
    args, cls = m.stack.pop(), m.stack.pop()
    m.stack.append(make(m, cls, args))


def _new_with_keywords(m: Machine) -> None:
    _keywords, args, cls = m.stack.pop(), m.stack.pop(), m.stack.pop()
    m.stack.append(make(m, cls, args))


def _build(m: Machine) -> None:
    state = m.stack.pop()
    build(m, m.stack[-1], state)


def _persistent(m: Machine) -> None:
    identity = m.stack.pop()
    m.stack.append(storage_of(m, identity))


# ---- what carries no meaning


def _skip(nbytes: int) -> Handler:
    def skip(m: Machine) -> None:
        m.take(nbytes)

    return skip


_HANDLERS: dict[bytes, Handler] = {
    # in the order of the protocols
    b"(": _mark, b"0": _pop, b"1": _pop_mark, b"2": _dup, b"q": _put1, b"r": _put4, b"h": _get1, b"j": _get4,
    b"N": _constant(None), b"I": _int_text, b"J": _int, b"K": _byte, b"M": _short, b"G": _float,
    b"T": _old_text(4), b"U": _old_text(1), b"X": _text(4), b"t": _tuple, b")": _constant(()), b"l": _list,
    b"]": _container(list[Any]), b"d": _dict, b"}": _container(Dict), b"a": _append, b"e": _appends,
    b"s": _set_item, b"u": _set_items, b"c": _global, b"R": _reduce, b"b": _build, b"Q": _persistent,
    b"\x80": _skip(1), b"\x81": _new, b"\x85": _tuple_of(1), b"\x86": _tuple_of(2), b"\x87": _tuple_of(3),
    b"\x88": _constant(True), b"\x89": _constant(False), b"\x8a": _long(1), b"\x8b": _long(4),
    b"B": _bytes(4), b"C": _bytes(1),
    b"\x8c": _text(1), b"\x8d": _text(8), b"\x8e": _bytes(8), b"\x8f": _container(Set), b"\x90": _appends,
    b"\x91": _frozen_set, b"\x92": _new_with_keywords, b"\x93": _stack_global, b"\x94": _memoize, b"\x95": _skip(8),
    b"\x96": _bytes(8),
}  # fmt: skip

OPCODES: tuple[Handler | None, ...] = tuple(_HANDLERS.get(bytes([code])) for code in range(256))
