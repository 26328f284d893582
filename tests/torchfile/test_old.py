"""What no PyTorch of today writes: files of Python 2, views of storages, other packers; beside torch.load where it reads them."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bridge.torchfile import Entry, Inline, read_torch_file
from tests.torchfile import craft
from tests.torchfile.craft import FALSE, MARK, NONE, ORDERED, TUPLE, call, name, number, storage, text, tuple_of
from tests.torchfile.held import Held
from tests.torchfile.reading import assert_same, tensors, values

pytestmark = pytest.mark.torch


def old_text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


def old_tensor(numel: bytes = number(4)) -> bytes:
    identity = (
        MARK
        + old_text(b"storage")
        + name("torch", "FloatStorage")
        + old_text(b"0")
        + old_text(b"cpu")
        + numel
        + NONE
        + TUPLE
    )
    layout = (number(0), tuple_of(number(4)), tuple_of(number(1)))
    return call(name("torch._utils", "_rebuild_tensor_v2"), identity + b"Q", *layout, FALSE, ORDERED)


def test_python_2(tmp_path: Path):
    """Text without an encoding, and a dict by its pairs."""
    pairs = craft.list_of(
        craft.list_of(old_text(b"w"), old_tensor()), craft.list_of(old_text("größe".encode()), old_tensor())
    )
    path = tmp_path / "x.pth"
    path.write_bytes(craft.stream(call(name("collections", "OrderedDict"), pairs)))
    assert_same(values(path), torch.load(path, weights_only=True))
    assert list(values(path)) == ["w", "größe"]


def test_integers_as_text():
    """As Python 2 wrote those of more than 31 bits. PyTorch's own harmless reader refuses them."""
    held = Held(craft.stream(craft.dict_of({"w": old_tensor(b"I4\n"), "seed": b"I3735928559\n", "on": b"I01\n"})))
    found = read_torch_file(held).entries()
    assert list(found.entries) == ["w"]
    assert found.skipped == {"seed": "a number", "on": "a bool"}


def test_arrays_of_python_2():
    """Their bytes are text without an encoding."""
    array = np.array([0, 1, 1 << 20], "<i4")
    for raw in (array.tobytes(), b"\xff" * 12):
        dtype = call(name("numpy", "dtype"), old_text(b"i4"), number(0), number(1))
        state = tuple_of(number(3), old_text(b"<"), NONE, NONE, NONE, number(-1), number(-1), number(0))
        made = call(
            name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), tuple_of(number(0)), old_text(b"b")
        )
        filled = made + tuple_of(number(1), tuple_of(number(3)), dtype + state + b"b", FALSE, old_text(raw)) + b"b"
        found = read_torch_file(Held(craft.stream(craft.dict_of({"w": old_tensor(), "x": filled})))).entries()
        entry = found.entries["x"]
        assert isinstance(entry, Inline)
        assert entry.values.tobytes() == raw


def test_instances_of_python_2():
    """Beside the weights: what they are is of no interest."""
    options = call(
        name("copy_reg", "_reconstructor"), name("argparse", "Namespace"), name("__builtin__", "object"), NONE
    )
    saved = craft.dict_of(
        {"opt": options + craft.dict_of({"lr": NONE}) + b"b", "state_dict": craft.dict_of({"w": old_tensor()})}
    )
    assert dict(read_torch_file(Held(craft.stream(saved))).roots) == {"state_dict": 1}


@pytest.mark.parametrize("start", [0, 1, 3])
def test_views_of_storages(start: int, tmp_path: Path):
    """As PyTorch before 0.4 shared storages: the view has a key, a start and a length of its own."""
    view = storage("FloatStorage", "0", 8, tuple_of(text("9"), number(start), number(4)))
    state = {"w": craft.tensor(view, (2,), (2,), 1), "all": craft.tensor(storage("FloatStorage", "0", 8, NONE), (8,))}
    data = np.arange(8, dtype="<f4")
    path = tmp_path / "x.pth"
    path.write_bytes(craft.stream(craft.dict_of(state), data=struct.pack("<q", 8) + data.tobytes()))
    assert_same(values(path), torch.load(path, weights_only=True))
    found = tensors(path).entries
    assert len({entry.storage for entry in found.values() if isinstance(entry, Entry)}) == 1


def test_an_archive_packed_again(tmp_path: Path):
    """By a program that knows no padding, in another order, without the records that newer versions have."""
    state = {"a": torch.randn(3, 2), "b": torch.arange(7)}
    raw = io.BytesIO()
    torch.save(state, raw)
    with zipfile.ZipFile(raw) as old, zipfile.ZipFile(tmp_path / "x.pth", "w") as new:
        kept = [n for n in old.namelist() if not n.split("/")[1].startswith((".", "byteorder"))]
        for record in reversed(kept):
            new.writestr(record, old.read(record))
    assert_same(values(tmp_path / "x.pth"), state)


def test_devices_are_of_no_interest(tmp_path: Path):
    """Storages that lay on a GPU, by their type or by their place."""
    on_gpu = tuple_of(text("storage"), name("torch.cuda", "FloatStorage"), text("0"), text("cuda:7"), number(4)) + b"Q"
    path = tmp_path / "x.pth"
    path.write_bytes(craft.archive(craft.dict_of({"w": craft.tensor(on_gpu)})))
    assert_same(values(path), {"w": torch.arange(4.0)})


def test_zip64(tmp_path: Path):
    """Lengths and places that 32 bits do not hold: a file with a hole of 4.3 GB."""
    path = tmp_path / "x.pth"
    count = (1 << 32) // 4 + 5
    with torch.serialization.skip_data():
        torch.save({"big": torch.empty(count), "after": torch.ones(3)}, path)
    held = tensors(path)
    big, after = held.entries["big"], held.entries["after"]
    assert isinstance(big, Entry)
    assert isinstance(after, Entry)
    assert big.nbytes == 4 * count
    assert after.offset > 1 << 32
    with path.open("r+b") as f:
        f.seek(after.offset)
        f.write(np.arange(3, dtype="<f4").tobytes())
    again = torch.load(path, mmap=True, weights_only=True)
    assert again["after"].tolist() == [0, 1, 2]
    assert again["big"].shape == (count,)
