"""Values on the way: dtypes, casts, scale and add, sums, ties; bit for bit where bits are promised."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from tests.craft import checkpoint
from tests.errors.promised import text_of


def struct(dtype: object, *shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def saved(folder: Path, **tensors: np.ndarray) -> Path:
    path = folder / "model.safetensors"
    save_file(tensors, path)
    return path


def bits(array: object) -> bytes:
    return np.asarray(array).tobytes()


SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -3.5, 65504.0], np.float32)


@pytest.mark.parametrize(
    "name",
    [
        "float32",
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
        "int8",
        "uint8",
        "int16",
        "int32",
        "bool",
        "complex64",
    ],
)
def test_a_leaf_of_the_stored_dtype_gets_the_stored_bits(tmp_path: Path, name: str):
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    raw = np.random.default_rng(0).integers(0, 2 if name == "bool" else 256, 64 * dtype.itemsize, np.uint8)
    values = raw.view(dtype)
    loaded = bridge.load(saved(tmp_path, w=values), {"w": struct(dtype, 64)})
    assert bits(loaded["w"]) == raw.tobytes()


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        ("bfloat16", "float32"),
        ("float16", "float32"),
        ("float32", "bfloat16"),
        ("float32", "float16"),
        ("float16", "bfloat16"),
    ],
)
def test_float_casts_are_those_of_ml_dtypes(tmp_path: Path, stored: str, wanted: str):
    source, target = np.dtype(getattr(ml_dtypes, stored, stored)), np.dtype(getattr(ml_dtypes, wanted, wanted))
    with np.errstate(over="ignore"):
        values = SPECIAL.astype(source)
        expected = values.astype(target)
    path = saved(tmp_path, w=values)
    assert bits(bridge.load(path, {"w": struct(target, 8)})["w"]) == expected.tobytes()
    plan = bridge.plan(path, {"w": struct(target, 8)})
    widens = (stored, wanted) in [("bfloat16", "float32"), ("float16", "float32")]
    assert [cast.leaf for cast in plan.casts] == ([] if widens else ["w"])
    assert [lossy.key for lossy in plan.lossy] == ([] if widens else ["w"])


def test_a_float_dtype_leaves_integers_alone(tmp_path: Path):
    path = saved(tmp_path, w=np.ones(3, np.float32), n=np.arange(3, dtype=np.int32), m=np.array([True, False]))
    like = {"w": struct(jnp.float32, 3), "n": struct(jnp.int32, 3), "m": struct(jnp.bool_, 2)}
    loaded = bridge.load(path, like, dtype=jnp.bfloat16)
    assert [loaded[name].dtype for name in "wnm"] == [jnp.bfloat16, jnp.int32, jnp.bool_]


def test_dtype_by_leaf_and_as_stored(tmp_path: Path):
    path = saved(tmp_path, a=np.ones(2, np.float16), b=np.ones(2, np.float16))
    like = {"a": struct(jnp.float32, 2), "b": struct(jnp.float32, 2)}
    assert [v.dtype for v in bridge.load(path, like, dtype="checkpoint").values()] == [jnp.float16, jnp.float16]
    assert [v.dtype for v in bridge.load(path, like, dtype={"a": jnp.bfloat16}).values()] == [jnp.bfloat16, jnp.float32]
    assert [v.dtype for v in bridge.load(path, like, dtype="bf16").values()] == [jnp.bfloat16, jnp.bfloat16]


def test_int64_into_int32_is_checked_value_by_value(tmp_path: Path):
    like = {"n": struct(jnp.int32, 2)}
    fits = saved(tmp_path, n=np.array([-(2**31), 2**31 - 1]))
    assert np.asarray(bridge.load(fits, like)["n"]).tolist() == [-(2**31), 2**31 - 1]
    path = saved(tmp_path, n=np.array([0, 2**31]))
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load(path, like)
    assert str(caught.value) == (
        text_of("load: an integer that does not fit")
        .replace("'a'", "'n'")
        .replace("'x.safetensors'", "'model.safetensors'")
        .replace("1099511627776", "2147483648")
    )


@pytest.mark.parametrize(("stored", "wanted", "reason"), [
    (np.float32, jnp.int32, "float32 is not cast to int32: float to float and int to wider int only"),
    (np.int32, jnp.float32, "int32 is not cast to float32: float to float and int to wider int only"),
    (np.int32, jnp.int8, "int32 does not fit into int8"),
    (ml_dtypes.float8_e4m3fn, jnp.float32, "float8_e4m3fn means nothing without its scales: "
        "load it as it is with dtype='checkpoint'"),
])  # fmt: skip
def test_casts_that_are_refused(tmp_path: Path, stored: type, wanted: type, reason: str):
    path = saved(tmp_path, w=np.ones(2, stored))
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, {"w": struct(wanted, 2)})
    assert f"mismatched  w   'w': {reason}" in str(caught.value)


def test_scale_and_add(tmp_path: Path):
    w = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    path = saved(tmp_path, w=w, b=w.astype(ml_dtypes.bfloat16), n=np.array(3))
    rules = ["w [a b] -> w [b a] ; scale=2.0 add=1.0", "b -> b ; add=1.0", "n -> n ; add=1073741824"]
    like = {"w": struct(jnp.float32, 8, 8), "b": struct(jnp.float32, 8, 8), "n": struct(jnp.int32)}
    loaded = bridge.load(path, like, rules)
    assert bits(loaded["w"]) == (w.T * np.float32(2) + np.float32(1)).tobytes()
    assert bits(loaded["b"]) == (w.astype(ml_dtypes.bfloat16).astype(np.float32) + np.float32(1)).tobytes()
    assert int(loaded["n"]) == 3 + 2**30


def test_a_sum_is_one_leaf(tmp_path: Path):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 6), np.float32)
    path = saved(tmp_path, a=a, b=b)
    like = {"c": struct(jnp.float32, 6, 3)}
    loaded = bridge.load(path, like, ["a [x y] + b [x y] -> c [y x]"])
    assert bits(loaded["c"]) == (a + b).T.tobytes()
    assert {lossy.key for lossy in bridge.plan(path, like, ["a [x y] + b [x y] -> c [y x]"]).lossy} == {"a", "b"}
    flipped = bridge.load(saved(tmp_path, a=a, b=b.T.copy()), like, ["a [x y] + b [y x] -> c [y x]"])
    assert bits(flipped["c"]) == (a + b).T.tobytes()


def test_ties_must_be_equal(tmp_path: Path):
    w = np.random.default_rng(0).standard_normal((5, 5), np.float32)
    rules = ["head -> embed ; tie=true"]
    like = {"embed": struct(jnp.float32, 5, 5)}
    for tensors in ({"embed": w, "head": w}, {"embed": w}, {"head": w}):
        assert bits(bridge.load(saved(tmp_path, **tensors), like, rules)["embed"]) == w.tobytes()
    other = w.copy()
    other[0, 0] = -other[0, 0]
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load(saved(tmp_path, embed=w, head=other), like, rules)
    assert str(caught.value) == (
        text_of("load: a tie that is none")
        .replace("'b'", "'head'")
        .replace("'x.safetensors'", "'model.safetensors'")
        .replace("'a'", "'embed'")
    )


def test_large_tensors_in_many_chunks(tmp_path: Path):
    """Several chunks a tensor, direct, transposed and cast; the bits are those of numpy."""
    w = np.random.default_rng(0).standard_normal((2100, 2100), np.float32)
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint({"a": w, "b": w, "c": w}))
    like = {
        "a": struct(jnp.float32, 2100, 2100),
        "b": struct(jnp.float32, 2100, 2100),
        "c": struct(jnp.bfloat16, 2100, 2100),
    }
    loaded = bridge.load(path, like, ["b [x y] -> b [y x]", 'c [x y] -> c [y x] ; flip="x"'])
    assert bits(loaded["a"]) == w.tobytes()
    assert bits(loaded["b"]) == w.T.tobytes()
    assert bits(loaded["c"]) == w.T[:, ::-1].astype(ml_dtypes.bfloat16).tobytes()


def test_progress_counts_every_byte(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    path = saved(tmp_path, a=np.zeros((1500, 1500), np.float32), b=np.zeros(3, np.float32))
    like = {"a": struct(jnp.float32, 1500, 1500), "b": struct(jnp.float32, 3)}
    bridge.load(path, like, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (9_000_012, 9_000_012)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("name", ["float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "bfloat16", "int8"])
def test_every_dtype_passes_through_strides(tmp_path: Path, name: str):
    dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
    values = np.random.default_rng(0).integers(0, 256, 300 * 40 * dtype.itemsize, np.uint8).view(dtype).reshape(300, 40)
    like = {"w": struct(dtype, 40, 300), "v": struct(dtype, 40, 300)}
    path = saved(tmp_path, w=values, v=values)
    loaded = bridge.load(path, like, ["w [a b] -> w [b a]", 'v [a b] -> v [b a] ; flip="a"'])
    raw = values.view(np.uint8).reshape(300, 40, -1)
    assert bits(loaded["w"]) == np.ascontiguousarray(raw.transpose(1, 0, 2)).tobytes()
    assert bits(loaded["v"]) == np.ascontiguousarray(raw[::-1].transpose(1, 0, 2)).tobytes()
