"""A finite float never becomes infinite without a word: an error, with key, value and dtype, whichever way it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import ShapeDtypeStruct as Struct
from safetensors.numpy import save_file

import bridge
from bridge.stream.convert import DoesNotFitError, assign, combine, restore
from tests.errors.promised import text_of

BF16 = np.dtype(ml_dtypes.bfloat16)
F16, F32, F64 = np.dtype("f2"), np.dtype("f4"), np.dtype("f8")
CASTS = [(F32, F16, 70000.0), (F32, BF16, 3.4e38), (F64, F32, 1e300), (F64, BF16, -1e39), (BF16, F16, -1e30)]


def saved(folder: Path, **tensors: np.ndarray) -> Path:
    path = folder / "model.safetensors"
    save_file(tensors, path)
    return path


def refused(path: Path, like: Any, rules: Any = None, **options: Any) -> str:
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load(path, like, rules, **options)
    return str(caught.value)


@pytest.mark.parametrize(("stored", "wanted", "value"), CASTS)
def test_by_the_leafs_dtype_or_by_dtype(tmp_path: Path, stored: np.dtype, wanted: np.dtype, value: float):
    values = np.array([1.5, value, np.inf, -np.inf, np.nan], F64).astype(stored)
    path, like = saved(tmp_path, w=values), {"w": Struct((5,), wanted)}
    shown = f"{float(values[1]):.6g}"
    text = (
        text_of("load: a float that becomes infinite")
        .replace("'a'", "'w'")
        .replace("'x.safetensors'", "'model.safetensors'")
        .replace("70000", str(shown))
        .replace("float16", wanted.name)
    )
    assert refused(path, like) == text
    assert refused(path, {"w": Struct((5,), F32)}, dtype={"**": wanted}) == text
    values[1] = 0
    loaded = np.asarray(bridge.load(saved(tmp_path, w=values), like)["w"])
    assert loaded.tobytes() == values.astype(wanted).tobytes()  # what is infinite already stays so


LAYERS = 3
RULES = ["l.{l}.w -> w", "l.{l}.w [a b] -> w [l b a]", 'l.{l}.w [a b] -> w [b l a] ; flip="a"']


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 129, 70), (2, 259, 1039)])
def test_in_stacks_and_transposed(tmp_path: Path, rule: str, place: tuple[int, int, int]):
    """The value stands at the front, in the middle and at the end, in tensors of several tiles."""
    values = np.zeros((LAYERS, 260, 1040), F32)
    values[place] = -1e6
    path = saved(tmp_path, **{f"l.{n}.w": layer for n, layer in enumerate(values)})
    like = bridge.plan(path, None, [rule], dtype="checkpoint").leaves["w"].shape
    message = refused(path, {"w": Struct(like, F16)}, [rule])
    assert message.startswith(
        f"'l.{place[0]}.w' in 'model.safetensors' holds -1e+06, which becomes infinite in float16"
    )


def test_in_the_last_of_several_chunks(tmp_path: Path):
    values = np.zeros(3 << 20, F32)
    values[-1] = 1e5
    assert "holds 100000" in refused(saved(tmp_path, w=values), {"w": Struct(values.shape, F16)})


@pytest.mark.parametrize(
    ("rules", "by"),
    [
        (["w -> w ; scale=1e38"], "with scale=1e+38 and add=0 "),
        (["w -> w ; add=3.4e38"], "with scale=1 and add=3.4e+38 "),
        (["w + v -> w"], "in a sum "),
    ],
)
def test_by_what_a_rule_does(tmp_path: Path, rules: list[str], by: str):
    values = np.array([1, 1e38], F32)
    path = saved(tmp_path, w=values, v=np.array([1, 3e38], F32))
    message = refused(path, {"w": Struct((2,), F32)}, rules, allow_unexpected=["v"])
    assert f"'w' in 'model.safetensors' holds 1e+38, which {by}becomes infinite in float32" in message


def test_whole_numbers_that_a_scale_makes_too_large(tmp_path: Path):
    path = saved(tmp_path, n=np.array([1, 2], np.int32))
    message = refused(path, {"n": Struct((2,), np.int32)}, ["n -> n ; scale=1e300"])
    assert "which does not fit into int32" in message


def test_convert(tmp_path: Path):
    path = saved(tmp_path, w=np.array([1, 70000], F32))
    with pytest.raises(bridge.CheckpointError, match="holds 70000, which becomes infinite in float16"):
        bridge.convert(path, tmp_path / "converted", {"w": Struct((2,), F16)})
    assert not (tmp_path / "converted").exists()


def test_save(tmp_path: Path):
    model = {"w": jnp.array([1, 70000], F32)}
    plan = bridge.plan(saved(tmp_path, w=np.zeros(2, F16)), {"w": Struct((2,), F32)})
    for given_, options in ((["w -> w"], {"dtype": "float16"}), (plan, {}), (["w -> w"], {"dtype": {"w": F16}})):
        with pytest.raises(bridge.SaveError) as caught:
            bridge.save(model, tmp_path / "out", given_, **options)
        assert str(caught.value) == text_of("save: a float that becomes infinite").replace("'a'", "'w'")
        assert not (tmp_path / "out").exists()
    plan = bridge.plan(saved(tmp_path, w=np.zeros(2, F32)), {"w": Struct((2,), F32)}, ["w -> w ; scale=1e-30"])
    with pytest.raises(bridge.SaveError, match=r"holds 1e\+20, which with scale=1e-30 and add=0 undone becomes inf"):
        bridge.save({"w": jnp.array([1, 1e20], F32)}, tmp_path / "out", plan)


FLOATS = {"f2": F16, "bf16": BF16, "f4": F32, "f8": F64}


@given(
    st.sampled_from([*FLOATS]),
    st.sampled_from([*FLOATS]),
    st.lists(st.floats(allow_nan=True, width=64), min_size=1, max_size=9),
    st.booleans(),
)
def test_any_values(one: str, other: str, numbers: list[float], backwards: bool):
    """numpy's own cast is the judge."""
    with np.errstate(all="ignore"):
        values = np.array(numbers, F64).astype(FLOATS[one])
        expected = values.astype(FLOATS[other])
    lost = (np.isfinite(values) & ~np.isfinite(expected)).any()
    for move in (assign, lambda out, v: combine([v], 1, 0, out), lambda out, v: restore(v, 1, 0, out)):
        out = np.empty(2 * len(values), FLOATS[other])[:: -2 if backwards else 2]
        if lost:
            with pytest.raises(DoesNotFitError, match="becomes infinite in"):
                move(out, values)
        else:
            move(out, values)
            np.testing.assert_array_equal(out.astype(F64), expected.astype(F64))


def test_a_pattern_of_dtype_that_matches_nothing(tmp_path: Path):
    path, like = saved(tmp_path, w=np.zeros(2, F32)), {"layers": {"w": Struct((2,), F32)}}
    for call in (bridge.plan, bridge.load):
        with pytest.raises(bridge.PlanError) as caught:
            call(path, like, ["w -> layers.w"], dtype={"layers.*": "bf16", "layer.**": "bfloat16"})
        assert str(caught.value) == (
            text_of("load: a pattern of dtypes that matches nothing")
            .replace("'b.**'", "'layer.**'")
            .replace("'a'", "'layers.w'")
        )
    with pytest.raises(bridge.PlanError, match=r"dtype: pattern 'layer.\*\*' matches no key \(the first is 'a'\)"):
        bridge.save({"a": jnp.zeros(2)}, tmp_path / "out", dtype={"layer.**": "bf16"})
