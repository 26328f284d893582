"""Every kind of tensor that torch.save writes, in every way it writes them: the same bits, names and ties."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bridge import CheckpointError
from bridge.torchfile import Entry, is_torch_file, read_torch_file
from tests.torchfile import craft
from tests.torchfile.held import Held
from tests.torchfile.reading import assert_same, bits, opened, tensors, torch_bits, values

pytestmark = pytest.mark.torch

OLD = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8]
OLD += [torch.uint8, torch.bool, torch.complex64, torch.complex128]
NEW = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2]
NEW += [torch.float8_e5m2fnuz, torch.float8_e8m0fnu]


def saved(path: Path, obj: Any, *, zipped: bool = True, protocol: int = 2) -> Path:
    torch.save(obj, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return path


def drawn(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Values with any bits, as far as the dtype allows."""
    generator = torch.Generator().manual_seed(0)
    count = int(np.prod(shape)) * dtype.itemsize
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8).to(torch.bool)
    return torch.randint(0, 256, (count,), generator=generator, dtype=torch.uint8).view(dtype).reshape(shape)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_dtypes(zipped: bool, protocol: int, tmp_path: Path):
    """The stream holds new dtypes too, though PyTorch itself cannot read them back from it."""
    state = {str(dtype): drawn(dtype, 3, 5) for dtype in OLD + NEW}
    path = saved(tmp_path / "x.pth", state, zipped=zipped, protocol=protocol)
    assert is_torch_file(path.read_bytes()[:512])
    assert_same(values(path), state)


VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "whole": lambda t: t,
    "transposed": lambda t: t.t(),
    "a slice": lambda t: t[2:5],
    "columns": lambda t: t[:, 1:4],
    "every second": lambda t: t[::2, ::3],
    "a row": lambda t: t[3],
    "one element": lambda t: t[2, 3],
    "nothing": lambda t: t[3:3],
    "nothing, beyond the end": lambda t: t[6:, 8:],
    "expanded": lambda t: t[:1].expand(4, 8),
    "expanded along a new axis": lambda t: t.expand(3, 6, 8),
    "overlapping": lambda t: t.as_strided((4, 4), (2, 1), 3),
    "an axis of one": lambda t: t[:, None],
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.complex128, torch.bfloat16], ids=str)
def test_views_share_their_storage(dtype: torch.dtype, zipped: bool, tmp_path: Path):
    base = drawn(dtype, 6, 8)
    state = {name: view(base) for name, view in VIEWS.items()}
    path = saved(tmp_path / "x.pth", state, zipped=zipped)
    assert_same(values(path), state)
    entries = [entry for entry in tensors(path).entries.values() if isinstance(entry, Entry)]
    assert len(entries) == len(VIEWS)
    assert len({(e.storage, e.offset, e.nbytes) for e in entries}) == 1
    assert [e.strides for e in entries] == [view.stride() for view in state.values()]


def test_views_of_new_dtypes(tmp_path: Path):
    base = drawn(torch.float8_e4m3fn, 6, 8)
    wide = drawn(torch.uint32, 6, 8)
    state = {"a": base.t(), "b": base[2:4, 1:], "c": wide.t()[1:], "d": base[0, 0]}
    assert_same(values(saved(tmp_path / "x.pth", state)), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_shapes(zipped: bool, tmp_path: Path):
    state = {
        "scalar": drawn(torch.float32),
        "empty": torch.empty(0),
        "hollow": torch.empty(3, 0, 2),
        "deep": drawn(torch.int8, *[1] * 12),
    }
    state |= {
        "channels_last": drawn(torch.float32, 2, 3, 4, 5).to(memory_format=torch.channels_last),
        "after": torch.ones(2),
    }
    assert_same(values(saved(tmp_path / "x.pth", state, zipped=zipped)), state)


def test_real_modules(tmp_path: Path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.LSTM(4, 5, 2)).to(
        memory_format=torch.channels_last
    )
    state = net.state_dict()
    assert_same(values(saved(tmp_path / "x.pth", state)), state)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_ties(zipped: bool, tmp_path: Path):
    weight = torch.nn.Parameter(torch.randn(4, 3))
    state = {"embed": weight, "head": weight, "other": torch.randn(4, 3), "same.values": weight.detach().clone()}
    found = tensors(saved(tmp_path / "x.pth", state, zipped=zipped)).entries
    assert found["embed"] == found["head"]
    assert len({e.storage for e in found.values() if isinstance(e, Entry)}) == 3


class _Attributes(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.buffer = torch.nn.Buffer(torch.randn(2, 3))


def test_parameters_buffers_and_tensors_with_attributes(tmp_path: Path):
    marked = torch.randn(3)
    marked.note = "kept aside"  # pyright: ignore[reportAttributeAccessIssue]
    parameter = torch.nn.Parameter(torch.randn(2, 2).t(), requires_grad=False)
    noted = torch.nn.Parameter(torch.randn(2))
    noted.note = {"a": 1}  # pyright: ignore[reportAttributeAccessIssue]
    state = {"marked": marked, "parameter": parameter, "noted": noted, "buffer": _Attributes().buffer}
    assert_same(values(saved(tmp_path / "x.pth", state)), state)


def test_without_checksums_and_with_other_alignments(tmp_path: Path):
    state = {f"w{n}": torch.randn(n) for n in range(40)}
    before = torch.serialization.get_crc32_options(), torch.utils.serialization.config.save.storage_alignment
    try:
        for crc, alignment in ((True, 64), (False, 64), (True, 4096), (True, 1)):
            torch.serialization.set_crc32_options(crc)
            torch.utils.serialization.config.save.storage_alignment = alignment
            path = saved(tmp_path / f"{crc}{alignment}.pth", state)
            assert_same(values(path), state)
            assert_places_can_be_computed(path)
    finally:
        torch.serialization.set_crc32_options(before[0])
        torch.utils.serialization.config.save.storage_alignment = before[1]


def assert_places_can_be_computed(path: Path) -> None:
    """As read from each record's own header, without those reads."""
    near, far = Held(path.read_bytes()), Held(path.read_bytes())
    found = read_torch_file(near).entries()
    assert read_torch_file(far, distant=True).entries() == found
    assert len(near.reads) > len(found.entries)
    assert len(far.reads) <= 6


def test_a_distant_stream(tmp_path: Path):
    path = saved(tmp_path / "x.pth", {f"w{n}": torch.zeros(20_000) for n in range(40)}, zipped=False)
    near, far = Held(path.read_bytes()), Held(path.read_bytes())
    assert read_torch_file(far, distant=True).entries() == read_torch_file(near).entries()
    assert len(near.reads) >= 40
    assert len(far.reads) <= 6
    for content, says in ((path.read_bytes()[:-8], "cut off"), (path.read_bytes() + bytes(8), "appended")):
        with pytest.raises(CheckpointError, match=says):
            read_torch_file(Held(content), distant=True)


def test_a_distant_file_of_another_writer(tmp_path: Path):
    """Without padding nothing can be computed."""
    held = Held(craft.archive(craft.dict_of(craft.GOOD)))
    assert read_torch_file(held, distant=True).entries() == read_torch_file(held).entries()


def test_a_buffer_and_other_names(tmp_path: Path):
    """The folder inside is the file's name, or `archive`."""
    state = {"w": torch.randn(3)}
    raw = io.BytesIO()
    torch.save(state, raw)
    (tmp_path / "x.pth").write_bytes(raw.getvalue())
    assert_same(values(tmp_path / "x.pth"), state)
    assert_same(values(saved(tmp_path / "größe 1.tar", state)), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.complex64, torch.bfloat16, torch.uint8], ids=str)
def test_big_endian(dtype: torch.dtype, tmp_path: Path):
    """Values as torch.load reads them from the same file."""
    path = saved(tmp_path / "x.pth", {"w": drawn(dtype, 4, 3).t(), "v": drawn(dtype, 2)})
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "big.pth", "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("byteorder") else old.read(name))
    expected = torch.load(tmp_path / "big.pth", weights_only=True)
    assert all(e.swapped for e in tensors(tmp_path / "big.pth").entries.values() if isinstance(e, Entry))
    assert_same(values(tmp_path / "big.pth"), expected)


def test_streams_are_little_endian_whatever_they_say(tmp_path: Path):
    """PyTorch swaps while it writes a stream, and ignores the flag."""
    state = {"w": torch.randn(3)}
    path = saved(tmp_path / "x.pth", state, zipped=False)
    raw = path.read_bytes()
    at = raw.index(b"little_endian") + len(b"little_endian")
    at = raw.index(b"\x88", at)
    path.write_bytes(raw[:at] + b"\x89" + raw[at + 1 :])
    assert_same(values(path), torch.load(path, weights_only=True))


@pytest.mark.filterwarnings("ignore::UserWarning")  # that these kinds are in beta, or on their way out
def test_tensors_that_cannot_be(tmp_path: Path):
    plain = torch.ones(2, 2)
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    csr = plain.to_sparse_csr()
    state = {
        "good": plain,
        "sparse": plain.to_sparse(),
        "csr": csr,
        "quantised": torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
        "meta": torch.ones(2, device="meta"),
        "conj": torch.view_as_complex(torch.ones(2, 2)).conj(),
        "nested": nested,
        "half": torch.zeros(2, dtype=torch.complex32),
        "bits": torch.zeros(2, dtype=torch.uint8).view(torch.bits8),
    }
    found = tensors(saved(tmp_path / "x.pth", state))
    assert list(found.entries) == ["good"]
    assert list(found.refused) == [key for key in state if key != "good"]
    for key, refused in found.refused.items():
        assert refused.subject == f"key {key!r} in 'x.pth'"


def test_an_overlap_of_more_than_a_gigabyte(tmp_path: Path):
    """Without a stride of 0."""
    base = torch.zeros(40_000)
    found = tensors(saved(tmp_path / "x.pth", {"w": base.as_strided((20_000, 20_000), (1, 1)), "b": base}))
    assert list(found.entries) == ["b"]
    assert "is expanded to 1.6 GB from 160.0 kB" in found.refused["w"].problem


def test_only_directory_and_pickle_are_read(tmp_path: Path):
    """64 MB of values are planned from less than 200 kB."""
    state = {f"w{n}": torch.zeros(2_000_000) for n in range(8)}
    for zipped in (True, False):
        held = Held(saved(tmp_path / "x.pth", state, zipped=zipped).read_bytes())
        found = read_torch_file(held).entries()
        assert list(found.entries) == list(state)
        assert sum(nbytes for _, nbytes in held.reads) < 200_000
        assert len(held.reads) < 20


def test_values_are_what_pytorch_reads(tmp_path: Path):
    """Once through torch.load, as the judge of all the rest."""
    state = {"a": torch.randn(3, 4).t(), "b": torch.arange(5)}
    path = saved(tmp_path / "x.pth", state)
    loaded = torch.load(path, weights_only=True)
    found = values(path)
    assert {key: bits(array) for key, array in found.items()} == {key: torch_bits(t) for key, t in loaded.items()}
    assert opened(path).roots == {"": 2}
