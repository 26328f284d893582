"""What a good header becomes, by whichever of the two readers, and how much is read of the file for it."""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import pickle
import random
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from bridge import _errors
from bridge.format.exact import parse_exact
from bridge.format.header import FIRST_READ_NBYTES, parse_fast, read_header
from bridge.format.spec import TensorSpec
from bridge.format.table import Columns
from tests.craft import craft, entry, ours, reference, seen
from tests.format.mutants import mutant

GOOD = {"__metadata__": {"format": "pt"}, "b": entry("BF16", [2, 1], 4, 8), "a": entry("F32", [], 0, 4)}


class Counted:
    """A file in memory that counts its reads."""

    name = "x.safetensors"

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.nbytes = len(content)
        self.reads: list[tuple[int, int]] = []

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        for buffer in buffers:
            buffer[:] = self.content[offset : offset + buffer.nbytes]
            self.reads.append((offset, buffer.nbytes))
            offset += buffer.nbytes


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def columns(parsed: Columns | None) -> object:
    assert parsed is not None
    return parsed.metadata, list(parsed.keys), [parsed.forms[kind] for kind in parsed.kinds], parsed.starts.tolist()


def test_specs_in_the_order_of_the_header():
    content = craft(GOOD, bytes(8))
    header = read_header(Counted(content))
    assert header.metadata == {"format": "pt"}
    assert header.data_start == len(content) - 8
    assert list(header.tensors.items()) == [
        ("b", TensorSpec(np.dtype(ml_dtypes.bfloat16), (2, 1), 4, "x.safetensors", header.data_start + 4)),
        ("a", TensorSpec(np.dtype("f4"), (), 4, "x.safetensors", header.data_start)),
    ]


def test_specs_can_name_the_file_otherwise():
    header = read_header(Counted(craft(GOOD, bytes(8))), file="shown")
    assert header.tensors["a"].file == "shown"


def test_tensors_are_a_mapping():
    tensors = read_header(Counted(craft(GOOD, bytes(8)))).tensors
    assert list(tensors) == list(tensors.keys()) == ["b", "a"]
    assert len(tensors) == 2
    assert "a" in tensors
    assert "c" not in tensors
    assert tensors == dict(tensors.items())
    assert list(tensors.values()) == [tensors["b"], tensors["a"]]
    assert repr(tensors).startswith("Table({'b': TensorSpec(")
    with pytest.raises(KeyError):
        tensors["c"]


def test_a_spec_is_a_frozen_dataclass():
    spec = TensorSpec(np.dtype("f4"), (2, 3), 24, "x.safetensors", 8)
    again = TensorSpec(dtype=np.dtype("f4"), shape=(2, 3), nbytes=24, file="x.safetensors", offset=8)
    assert spec == again == pickle.loads(pickle.dumps(spec)) == copy.deepcopy(spec)  # noqa: S301 - our own bytes
    assert len({spec, again, dataclasses.replace(spec, offset=16)}) == 2
    assert [field.name for field in dataclasses.fields(spec)] == ["dtype", "shape", "nbytes", "file", "offset"]
    assert TensorSpec(**dataclasses.asdict(spec)) == spec
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(spec, "offset", 0)  # noqa: B010 - as who does not know better


@pytest.mark.parametrize("length", [0, 1000, FIRST_READ_NBYTES - 8, FIRST_READ_NBYTES - 7, 200_000])
def test_one_read_or_two(length: int):
    header = json.dumps(GOOD | {"__metadata__": {"pad": ""}})
    header = header.replace('"pad": ""', '"pad": "' + "x" * (length - len(header)) + '"')
    source = Counted(craft(header, bytes(8)))
    assert list(read_header(source).tensors) == ["b", "a"]
    assert len(source.reads) == (1 if 8 + len(header) <= FIRST_READ_NBYTES else 2)
    assert source.reads[-1][0] + source.reads[-1][1] <= max(64 * 1024, 8 + len(header))


@pytest.mark.parametrize(
    "header",
    [
        "{}",
        " \r\n\t{} \n",
        '{"__metadata__":null}',
        '{"__metadata__":{}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"unknown":[-0,2.5,null,{"x":1e308}]}}',
        '{"a":["F32",[2],[0,8]]}',
        '{"a":{"dtype":{"F32":null},"shape":[2],"data_offsets":[0,8]}}',
        '{"":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"\\u0000\\u001b[31m":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"\x7f\u2028\ufeff":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"\\ud83d\\ude00":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        '{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F32","shape":[' + "1," * 999 + '2],"data_offsets":[0,8]}}',
        '{"z":{"dtype":"F32","shape":[0],"data_offsets":[8,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        '"y":{"dtype":"I8","shape":[3,0],"data_offsets":[8,8]},"x":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}',
        '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":' + "[" * 125 + "]" * 125 + "}}",
    ],
)
def test_unusual_and_good(header: str, tmp_path: Path):
    data = bytes(8) if '"data_offsets":[0,8]' in header or "[0,8]]" in header else b""
    path = write(tmp_path / "x.safetensors", craft(header, data))
    theirs = reference(path)
    assert theirs is not None
    assert seen(path, ours(path)) == theirs


def test_a_header_may_be_unaligned(tmp_path: Path):
    path = write(tmp_path / "x.safetensors", craft(json.dumps(GOOD) + "  ", bytes(8)))
    assert ours(path).data_start % 8 != 0
    assert seen(path, ours(path)) == reference(path)


def test_both_readers_see_the_same():
    rng = random.Random(0)
    told = 0
    for _ in range(6000):
        content = mutant(rng).content
        stop = 8 + int.from_bytes(content[:8], "little")
        fast = parse_fast(content[8:stop], len(content) - stop)
        if fast is not None:
            told += 1
            assert columns(fast) == columns(parse_exact(content[8:stop], len(content) - stop, file="x"))
    assert told > 100


@pytest.mark.parametrize("metadata", [None, {"format": "pt", "é": "a,b"}, {"format": "pt", "names": '["a", "b"]'}])
@pytest.mark.parametrize("count", [1, 3000])
def test_the_fast_reader_knows_what_writers_write(metadata: dict[str, str] | None, count: int, tmp_path: Path):
    tensors = {f"layers.{i}.weight": np.zeros((i % 5, 2), np.float32) for i in range(count)}
    save_file(tensors, tmp_path / "x.safetensors", metadata)
    content = (tmp_path / "x.safetensors").read_bytes()
    stop = 8 + int.from_bytes(content[:8], "little")
    spaced = json.dumps(json.loads(content[8:stop]), ensure_ascii=False).encode()
    for raw in (content[8:stop], spaced):
        fast = parse_fast(raw, len(content) - stop)
        assert columns(fast) == columns(parse_exact(raw, len(content) - stop, file="x"))


@pytest.mark.parametrize(
    "metadata",
    ['{"a": "1", "a": "2"}', '{"a": "1",, "b": "2"}', '{"a": 1}', '{"a": "\x00"}', '{"a": "1",}', '{"a" : "1"}}', "[]"],
)
def test_metadata_that_the_fast_reader_leaves_to_the_exact_one(metadata: str):
    tensors = json.dumps({"a": entry("F32", [2], 0, 8)})
    assert parse_fast(f'{{"__metadata__": {{"a": "1"}}, {tensors[1:]}'.encode(), 8) is not None
    assert parse_fast(f'{{"__metadata__": {metadata}, {tensors[1:]}'.encode(), 8) is None


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("good", [True, False])
def test_the_collector_is_left_as_it_was(enabled: bool, good: bool):
    padded = json.dumps(GOOD | {"__metadata__": {"pad": "x" * 2_000_000}})
    source = Counted(craft(padded, bytes(8 if good else 7)))
    (gc.enable if enabled else gc.disable)()
    try:
        if good:
            assert len(read_header(source).tensors) == 2
        else:
            with pytest.raises(_errors.CheckpointError):
                read_header(source)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_an_unknown_dtype_names_dtype_key_and_file():
    with pytest.raises(
        _errors.CheckpointError, match=r"^'x\.safetensors': tensor 'a\\x1b\[2J': unknown dtype 'F7'; known"
    ):
        read_header(Counted(craft({"a\x1b[2J": entry("F7", [], 0, 4)}, bytes(4))))
