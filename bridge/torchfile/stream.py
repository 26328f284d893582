"""Files of PyTorch before 1.6: five pickles in a row, then the storages."""

# What patterns find in a pickle's values is of any type.
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

from bridge._errors import CheckpointError
from bridge._text import plural, quote
from bridge.format.header import Readable
from bridge.torchfile.dtypes import itemsize
from bridge.torchfile.limits import MAX_RECORDS
from bridge.torchfile.machine import Machine
from bridge.torchfile.tape import Tape
from bridge.torchfile.tokens import Storage

MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_NEAR_NBYTES = 4096  # storages so short that it is cheaper to read over them


def read_stream(source: Readable, *, distant: bool = False) -> tuple[Any, dict[str, tuple[int, int]]]:
    """The object that was saved, with tokens for what is not plain, and where each storage lies: (offset, nbytes).

    Storages are little-endian on every machine, whatever the third pickle says of the one that wrote them. Of a
    `distant` file only the first and the last storage's count are read; the length of all must be right.
    """
    machine = Machine(Tape(source, 0, source.nbytes))
    if machine.run() != MAGIC:
        raise CheckpointError(
            quote(source.name),
            "is a pickle that torch.save did not write",
            "Read it with the program that wrote it, and save the arrays as safetensors",
        )
    version = machine.run()
    if version != _VERSION:
        raise CheckpointError(
            quote(source.name),
            f"is of an older kind than PyTorch 0.2 to 1.5 wrote: its version is not {_VERSION}",
            "Save it again with a newer PyTorch",
        )
    machine.run()
    saved, keys = machine.run(), machine.run()
    return saved, _places(source, machine, keys, distant=distant)


def _places(source: Readable, machine: Machine, keys: Any, *, distant: bool) -> dict[str, tuple[int, int]]:
    """Where the storages lie. Each begins with the count of its elements, which must be the pickle's."""
    if not isinstance(keys, list) or len(keys) > MAX_RECORDS or not all(type(key) is str for key in keys):
        machine.damaged("an invalid list of storages")
    if sorted(keys) != sorted(machine.storages):
        machine.damaged("storages that are not those of its list")
    places: dict[str, tuple[int, int]] = {}
    position, near = machine.position, (0, b"")
    for key in keys:
        storage = machine.storages[key]
        nbytes = storage.numel * itemsize(storage.kind)
        count = storage.numel
        if not distant or key in (keys[0], keys[-1]):
            near = _near(source, near, position, nbytes)
            at = position - near[0]
            count = int.from_bytes(near[1][at : at + 8], "little", signed=True)
        position += 8
        if position + nbytes > source.nbytes or count != storage.numel:
            raise CheckpointError(quote(source.name), _disagreement(source, storage, count, position), "Fetch it again")
        places[key] = (position, nbytes)
        position += nbytes
    if position != source.nbytes:
        raise CheckpointError(
            quote(source.name),
            f"holds {plural(source.nbytes - position, 'byte')} after its last storage: something was appended to it",
            "Fetch it again",
        )
    return places


def _near(source: Readable, near: tuple[int, bytes], position: int, nbytes: int) -> tuple[int, bytes]:
    """Bytes that hold the 8 at `position`: those at hand, or others, with what follows where the storage is short."""
    if near[0] <= position and position + 8 <= near[0] + len(near[1]):
        return near
    wanted = 16 * _NEAR_NBYTES if nbytes < _NEAR_NBYTES else 8
    raw = bytearray(max(0, min(wanted, source.nbytes - position)))
    source.readinto([memoryview(raw)], position)
    return position, bytes(raw)


def _disagreement(source: Readable, storage: Storage, count: int, position: int) -> str:
    left = max(0, source.nbytes - position)
    return (
        f"has a storage {quote(storage.key)} of {storage.numel:,} elements of {storage.kind or 'one byte'} by its "
        f"pickle, but of {count:,} in the stream, which has {left:,} bytes left: it is cut off or damaged"
    )
