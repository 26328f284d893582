"""Files that are nearly right: what torch.save writes, with a few bytes changed. A seed gives the same file each time."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
from collections import OrderedDict
from functools import cache
from typing import Any

import numpy as np
import torch

from tests.torchfile import craft

INTERESTING = [0, 1, 2, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]
OPCODES = b"()012BCGIJKMNQRTUXabcdehjlqrstu}]\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96."


def _objects() -> list[Any]:
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tied = torch.nn.Parameter(torch.ones(3))
    return [
        {"a": base, "b": base.t(), "c": base[1:3, ::2], "n": 3},
        OrderedDict(w=torch.ones(2, dtype=torch.bfloat16), e=torch.empty(0), s=torch.tensor(1)),
        {"model": {"w": tied, "v": tied}, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(2)}}}},
        {
            "f8": torch.ones(4).to(torch.float8_e4m3fn),
            "u": torch.ones(2, dtype=torch.uint16),
            "c": torch.ones(1, dtype=torch.complex64),
        },
        {"w": torch.ones(2), "x": np.arange(5.0), "y": np.float32(1)},
    ]


@cache
def _files() -> list[bytes]:
    made: list[bytes] = []
    for obj in _objects():
        for zipped, protocol in ((True, 2), (True, 2), (True, 2), (True, 4), (False, 2), (False, 5)):
            raw = io.BytesIO()
            torch.save(obj, raw, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
            made.append(raw.getvalue())
    return [*made, *_modules(), craft.archive(craft.dict_of(craft.GOOD)), craft.stream(craft.dict_of(craft.IN_STREAM))]


def _modules() -> list[bytes]:
    """Whole modules, pickled and as TorchScript."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    pickled, script = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out
        torch.save(net, pickled)
        torch.jit.save(torch.jit.script(net), script)
    return [pickled.getvalue(), script.getvalue()]


def mutant(rng: random.Random) -> bytes:
    """A file after one or two changes; in an archive mostly to its pickle, whose checksum and lengths stay right."""
    content = rng.choice(_files())
    if content[:2] == b"PK" and rng.random() < 0.7:
        return _repacked(content, rng)
    for _ in range(rng.randint(1, 2)):
        content = _changed(content, rng)
    return content


def _repacked(content: bytes, rng: random.Random) -> bytes:
    """The archive with a changed pickle, or a changed list of records."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    pickle = next(name for name in records if name.endswith("data.pkl"))
    for _ in range(rng.randint(1, 2)):
        if rng.random() < 0.85:
            records[pickle] = _changed(records[pickle], rng)
        else:
            name = rng.choice(list(records))
            records[name] = _changed(records[name] or b"\0", rng)
    return craft.zipped(records)


def _changed(content: bytes, rng: random.Random) -> bytes:
    """One change somewhere."""
    at = rng.randrange(len(content)) if content else 0
    match rng.randrange(14):
        case 0:
            return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
        case 1:
            return content[:at] + bytes([rng.choice(OPCODES)]) + content[at + 1 :]
        case 2:
            return content[:at] + bytes([rng.choice(OPCODES)]) + content[at:]
        case 3:
            return content[:at] + content[at + rng.randint(1, 8) :]
        case 4:
            return content[:at] + struct.pack("<I", rng.choice(INTERESTING)) + content[at + 4 :]
        case 5:
            stop = at + rng.randint(1, 40)
            other = rng.randrange(len(content)) if content else 0
            return content[:other] + content[at:stop] + content[other:]
        case 6:
            return content[:at] if rng.random() < 0.3 else content[:at] + content[at : at + 1] * 2 + content[at + 1 :]
        case _:
            return _number(content, rng)


def _number(content: bytes, rng: random.Random) -> bytes:
    """A small number in the pickle becomes another one: a shape, a stride, an offset, a length."""
    places = [place for place, byte in enumerate(content[:-1]) if byte == b"K"[0]]
    if not places:
        return content
    at = rng.choice(places) + 1
    return (
        content[:at] + bytes([rng.choice([0, 1, 2, 3, 4, 5, 6, 24, 25, 255, rng.randrange(256)])]) + content[at + 1 :]
    )
