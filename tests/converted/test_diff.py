"""`diff`: keys, specs, bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge.api.diff import Diff
from tests.craft import craft, entry
from tests.save.files import finite, random, write

A = {"w": finite((4, 4)), "b": finite((4,)), "n": np.arange(3)}


def compared(folder: Path, a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> Diff:
    return bridge.diff(write(folder / "a.safetensors", a), write(folder / "b.safetensors", b))


def listed(found: Diff) -> list[tuple[str, int, float]]:
    return [(one.key, one.count, one.largest) for one in found.differing]


def test_equal(tmp_path: Path):
    found = compared(tmp_path, A, dict(reversed(A.items())))
    assert found.equal
    assert str(found) == (f"'{tmp_path}/a.safetensors' and '{tmp_path}/b.safetensors' are equal: 3 keys, bit for bit")
    assert json.loads(found.to_json())["equal"] is True


def test_metadata_is_told_and_does_not_count(tmp_path: Path):
    one = write(tmp_path / "a.safetensors", A, {"format": "pt", "step": "1", "\x1b[2J": "x"})
    two = write(tmp_path / "b.safetensors", A, {"format": "pt", "step": "2", "new": ""})
    found = bridge.diff(one, two)
    assert found.equal
    assert found.metadata == (("step", "1", "2"), ("\x1b[2J", "x", None), ("new", None, ""))
    assert str(found) == (
        f"'{one}' and '{two}' are equal: 3 keys, bit for bit\n"
        "  metadata 'step': '1' and '2'\n"
        "  metadata '\\x1b[2J': 'x' and absent\n"
        "  metadata 'new': absent and ''"
    )
    assert json.loads(found.to_json())["metadata"][0] == {"name": "step", "a": "1", "b": "2"}
    two = write(tmp_path / "b.safetensors", A | {"b": A["b"] + 1}, {"format": "np"})
    assert str(bridge.diff(one, two)).endswith(
        "by at most 1\n  metadata 'format': 'pt' and 'np'\n"
        "  metadata 'step': '1' and absent\n  metadata '\\x1b[2J': 'x' and absent"
    )


def test_files_are_not_compared(tmp_path: Path):
    one = write(tmp_path / "a.safetensors", A, {"x": "y"})
    bridge.save(A, tmp_path / "many", "** -> **", max_shard_size=1)
    with bridge.open(one) as ckpt:
        assert bridge.diff(ckpt, tmp_path / "many").equal
        assert bridge.diff(ckpt, ckpt).equal
        assert ckpt["n"].tolist() == [0, 1, 2]  # still open: it was the caller's


def test_keys_and_specs(tmp_path: Path):
    b = {"w": A["w"].reshape(2, 8), "n": A["n"].astype(np.int32), "new.0": A["b"], "new.1": A["b"]}
    found = compared(tmp_path, A, b)
    assert not found.equal
    assert (found.only_a, found.only_b, found.differing) == (("b",), ("new.0", "new.1"), ())
    assert [key for key, _, _ in found.respecified] == ["w", "n"]
    assert str(found) == (
        f"'{tmp_path}/a.safetensors' and '{tmp_path}/b.safetensors' differ\n"
        f"  only in '{tmp_path}/a.safetensors': b\n"
        f"  only in '{tmp_path}/b.safetensors': new.{{0..1}}\n"
        "  w: float32[4, 4] and float32[2, 8]\n"
        "  n: int64[3] and int32[3]"
    )
    assert json.loads(found.to_json()) == {
        "equal": False,
        "compared": 2,
        "only_a": ["b"],
        "only_b": ["new.0", "new.1"],
        "respecified": [
            {"key": "w", "a": {"dtype": "F32", "shape": [4, 4]}, "b": {"dtype": "F32", "shape": [2, 8]}},
            {"key": "n", "a": {"dtype": "I64", "shape": [3]}, "b": {"dtype": "I32", "shape": [3]}},
        ],
        "differing": [],
        "metadata": [],
    }


@pytest.mark.parametrize(
    ("a", "b", "count", "largest"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.5, 7.0], 2, 4.0),
        ([0.0, 1.0], [-0.0, 1.0], 1, 0.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0, 0.0),
        ([np.nan, 1.0], [2.0, 1.0], 1, np.nan),
        ([np.inf, 1.0], [np.inf, 1.5], 1, 0.5),
        ([np.inf], [-np.inf], 1, np.inf),
        ([np.inf], [0.0], 1, np.inf),
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "bfloat16"])
def test_contents(tmp_path: Path, a: list[float], b: list[float], count: int, largest: float, dtype: str):
    found = compared(tmp_path, {"w": np.array(a, dtype)}, {"w": np.array(b, dtype)})
    if count == 0:
        assert found.equal
        return
    (one,) = found.differing
    assert (one.key, one.count) == ("w", count)
    np.testing.assert_equal(one.largest, largest)
    (shown,) = json.loads(found.to_json())["differing"]
    assert shown == {"key": "w", "count": count, "largest": largest if np.isfinite(largest) else str(largest)}


def test_nans_of_other_bits_differ(tmp_path: Path):
    quiet, other = np.array([0x7FC00000], np.uint32).view("f4"), np.array([0x7FC00001], np.uint32).view("f4")
    (found,) = compared(tmp_path, {"w": quiet}, {"w": other}).differing
    assert found.count == 1
    assert np.isnan(found.largest)


def test_whole_numbers_and_flags(tmp_path: Path):
    a = {"i": np.array([1, 2], np.int64), "u": np.array([0, 255], np.uint8), "q": np.array([True, False])}
    b = {"i": np.array([1, -2], np.int64), "u": np.array([255, 255], np.uint8), "q": np.array([True, True])}
    assert listed(compared(tmp_path, a, b)) == [("i", 1, 4.0), ("u", 1, 255.0), ("q", 1, 1.0)]


def test_every_byte_of_a_large_tensor_counts(tmp_path: Path):
    values = random((3_000_000,), "U8")
    for place in (0, 4 << 19, len(values) - 1):
        other = values.copy()
        other[place] ^= 1
        assert listed(compared(tmp_path, {"w": values}, {"w": other})) == [("w", 1, 1.0)]
    big = np.zeros((2, (4 << 20) + 3), np.float32)
    other = big.copy()
    other[0, 0], other[1, -1], other[0, 1 << 20] = 1, 2, 3
    assert listed(compared(tmp_path, {"w": big}, {"w": other})) == [("w", 3, 3.0)]


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3"])
def test_packed_values(tmp_path: Path, dtype: str):
    nbytes = 8 if dtype == "F4" else 12
    for name, data in (("a", bytes(nbytes)), ("b", bytes([1]) + bytes(nbytes - 1))):
        (tmp_path / f"{name}.safetensors").write_bytes(craft({"w": entry(dtype, [4, 4], 0, nbytes)}, data))
    assert bridge.diff(tmp_path / "a.safetensors", tmp_path / "a.safetensors").equal
    assert not bridge.diff(tmp_path / "a.safetensors", tmp_path / "b.safetensors").equal


def test_a_key_is_never_printed_raw(tmp_path: Path):
    found = compared(tmp_path, {"\x1b[31m": finite((2,)), "x\x07": A["b"]}, {"x\x07": A["b"] + 1})
    assert str(found).isprintable() or set(str(found)) - {"\n"} <= {c for c in str(found) if c.isprintable()}
    assert "\\x1b[31m" in str(found)


def test_what_is_no_checkpoint(tmp_path: Path):
    good = write(tmp_path / "a.safetensors", A)
    for pair in ((good, tmp_path / "absent"), (tmp_path / "absent", good)):
        with pytest.raises(bridge.CheckpointError):
            bridge.diff(*pair)


@pytest.mark.parametrize("chunk", [64, 512, 4 << 20])
def test_keys_in_any_order_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int):
    """What is read together must not matter: neighbours in one checkpoint lie apart in the other, some cut in parts."""
    monkeypatch.setattr(bridge.api.diff, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    dtypes, shapes = ("f4", "i8", "u1", "c8", "bfloat16"), ((), (3,), (0, 4), (7, 11), (40, 3))
    a = {f"h.{n}.w": rng.integers(1, 99, shapes[n % 5]).astype(dtypes[n // 5 % 5]) for n in range(100)}
    b = {key: a[key].copy() for key in rng.permutation(list(a)).tolist()}
    changed = {}
    for key in list(a)[::7]:
        if b[key].size:
            b[key].reshape(-1)[-1] += 2
            changed[key] = (key, 1, 2.0)
    one = write(tmp_path / "a.safetensors", a)
    bridge.save(b, tmp_path / "b", max_shard_size=2000)
    found = bridge.diff(one, tmp_path / "b")
    assert sorted(listed(found)) == sorted(changed.values())
    assert [key for key, _, _ in listed(found)] == [key for key in a if key in changed]
    back = bridge.diff(tmp_path / "b", one)
    assert sorted(listed(back)) == sorted(changed.values())
