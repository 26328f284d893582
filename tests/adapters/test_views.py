"""Merged weights are views: any box of them, through stacks, transposes, splits, shards and casts, has the same bits."""

from __future__ import annotations

from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import bridge
from bridge.adapters.others import Patched, Shifted
from bridge.adapters.view import Merged
from tests.adapters.write import adapter, peft

CASES = Path(__file__).parent / "cases"
BF16 = np.dtype(ml_dtypes.bfloat16)
RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


VIEWS = {
    "a matrix": Merged((30, 50), 0, 1, 5, 0.5, (5, 50), (30, 5)),
    "of several tiles": Merged((60, 2500), 0, 1, 3, 2.0, (3, 2500), (60, 3)),
    "transposed": Merged((50, 30), 1, 0, 5, 0.5, (5, 50), (30, 5), rounds=True),
    "with magnitudes": Merged((30, 50), 0, 1, 5, 0.5, (5, 50), (30, 5), magnitude=(30,)),
    "transposed, with magnitudes": Merged((50, 30), 1, 0, 5, 0.5, (5, 50), (30, 5), magnitude=(30,)),
    "a kernel": Merged((30, 7, 3, 2), 0, 1, 5, 0.5, (5, 7, 3, 2), (30, 5, 1, 1)),
    "a kernel, with magnitudes": Merged((30, 7, 3), 0, 1, 5, 0.5, (5, 7, 3), (30, 5, 1), magnitude=(1, 30, 1)),
    "experts": Merged((3, 30, 50), 1, 2, 4, 0.5, (12, 50), (30, 12)),
    "experts, transposed": Merged((3, 50, 30), 2, 1, 4, 0.5, (12, 50), (30, 12), rounds=True),
}


def whole(view: Merged, dtype: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Parts, and the formula written plainly, in float64 up to the sum."""
    w = floats(*view.shape).astype(dtype)
    a, b = floats(*view.a_shape), floats(*view.b_shape)
    wide, parts = w.astype(np.float64), [w, b, a]
    if len(view.shape) == 3 and len(view.a_shape) == 2:
        experts = view.shape[0]
        axes = "eoi" if view.row_axis == 1 else "eio"
        factors = b.reshape(len(b), -1, experts), a.reshape(experts, -1, a.shape[1])
        delta = np.einsum(f"ore,eri->{axes}", *map(np.float64, factors))
    else:
        delta = np.float64(b.reshape(len(b), -1)) @ np.float64(a.reshape(len(a), -1))
        delta = delta.reshape(view.shape) if view.row_axis == 0 else delta.T
    total = wide + np.float64(np.float32(view.scale)) * delta
    if view.magnitude is not None:
        m = np.abs(floats(*view.magnitude)) + 1
        rows = np.moveaxis(total, view.row_axis, 0)
        norms = np.sqrt((rows.reshape(len(rows), -1) ** 2).sum(1))
        total = np.moveaxis(rows * (m.reshape(-1) / norms).reshape(-1, *(1,) * (rows.ndim - 1)), 0, view.row_axis)
        parts.append(m)
    return parts, total


def values(view: Any, box: tuple[range, ...], parts: list[np.ndarray], dtype: Any) -> np.ndarray:
    """A box, of just the boxes of parts that it asks for."""
    boxes = view.boxes(box)
    assert [len(one) for one in boxes] == [part.ndim for part in parts]
    cut = [part[tuple(slice(r.start, r.stop) for r in one)] for part, one in zip(parts, boxes, strict=True)]
    assert [part.shape for part in cut] == [tuple(map(len, one)) for one in boxes], "inside the parts"
    out = np.full(tuple(map(len, box)), np.nan, dtype)
    view.values(box, cut, out)
    return out


@pytest.mark.parametrize("dtype", [np.float32, BF16], ids=str)
@pytest.mark.parametrize("name", VIEWS)
def test_values_are_the_formula(name: str, dtype: Any) -> None:
    parts, expected = whole(VIEWS[name], dtype)
    full = values(VIEWS[name], tuple(map(range, VIEWS[name].shape)), parts, dtype)
    rounding = 1e-5 if dtype == np.float32 else 2.0**-6
    np.testing.assert_allclose(full.astype(np.float64), expected, rtol=rounding, atol=rounding)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_box_has_the_bits_of_the_whole(data: st.DataObject) -> None:
    view = VIEWS[data.draw(st.sampled_from(sorted(VIEWS)))]
    dtype = data.draw(st.sampled_from([np.dtype(np.float32), BF16]))
    parts, _ = whole(view, dtype)
    full = values(view, tuple(map(range, view.shape)), parts, dtype)
    box = tuple(
        range(start, data.draw(st.integers(start + 1, extent)))
        for extent in view.shape
        for start in [data.draw(st.integers(0, extent - 1))]
    )
    found = values(view, box, parts, dtype)
    assert found.tobytes() == full[tuple(slice(r.start, r.stop) for r in box)].tobytes()


def test_bands_of_a_grain_read_nothing_twice_but_factors() -> None:
    for view in VIEWS.values():
        spans = [
            [range(n, min(n + step, extent)) for n in range(0, extent, step)]
            for extent, step in zip(view.shape, view.grain, strict=True)
        ]
        boxes = [view.boxes(box)[0] for box in product(*spans)]
        assert sum(prod(map(len, box)) for box in boxes) == prod(view.shape)


def test_a_bias_and_rows() -> None:
    bias, more = floats(9), floats(9)
    assert values(Shifted(0.5), (range(2, 7),), [bias, more], np.float32).tobytes() == (
        (bias + more * np.float32(0.5))[2:7].tobytes()
    )
    matrix, own = floats(9, 4).astype(BF16), floats(3, 4)
    expected = matrix.copy()
    expected[[7, 0, 3]] = own.astype(BF16)
    for start, stop in ((0, 9), (1, 3), (3, 8)):
        box = (range(start, stop), range(1, 4))
        found = values(Patched((7, 0, 3)), box, [matrix, own], BF16)
        assert found.tobytes() == expected[start:stop, 1:4].tobytes()


# Through the engine


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four layers of two weights each, and an adapter for both."""
    folder = tmp_path_factory.mktemp("merged")
    weights = {f"h.{n}.{name}.weight": floats(24, 40) for n in range(4) for name in ("q", "k")}
    save_file(weights, folder / "model.safetensors")
    factors = {f"h.{n}.{name}": (floats(4, 40), floats(24, 4)) for n in range(4) for name in ("q", "k")}
    return folder / "model.safetensors", adapter(folder / "lora", peft(factors), r=4, lora_alpha=6)


@pytest.fixture(scope="module")
def merged(source: tuple[Path, Path]) -> dict[str, np.ndarray]:
    found = bridge.load(source[0], adapters=[source[1]])
    return {key: np.asarray(value) for key, value in found.items()}


def test_stacked_transposed_split(source: tuple[Path, Path], merged: dict[str, np.ndarray]) -> None:
    rules = ["h.{l}.q.weight [(a b) i] -> q [l i a b] ; a=3", "h.{l}.k.weight [o i] -> k [l i o] ; scale=2"]
    loaded = bridge.load(source[0], rules=rules, adapters=[source[1]])
    stacked = {name: np.stack([merged[f"h.{n}.{name}.weight"] for n in range(4)]) for name in ("q", "k")}
    q = stacked["q"].reshape(4, 3, 8, 40).transpose(0, 3, 1, 2)
    assert np.asarray(loaded["q"]).tobytes() == q.tobytes()
    assert np.asarray(loaded["k"]).tobytes() == (2 * stacked["k"].transpose(0, 2, 1)).tobytes()


def test_sums_of_merged_weights(source: tuple[Path, Path], merged: dict[str, np.ndarray]) -> None:
    rules = [f"h.{n}.q.weight + h.{n}.k.weight -> s{n}" for n in range(4)]
    loaded = bridge.load(source[0], rules=rules, adapters=[source[1]])
    for n in range(4):
        expected = merged[f"h.{n}.q.weight"] + merged[f"h.{n}.k.weight"]
        assert np.asarray(loaded[f"s{n}"]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=str)
def test_a_narrower_model(source: tuple[Path, Path], merged: dict[str, np.ndarray], dtype: Any) -> None:
    loaded = bridge.load(source[0], adapters=[source[1]], dtype=dtype)
    for key, values in merged.items():
        assert np.asarray(loaded[key]).tobytes() == values.astype(dtype).tobytes()


def test_the_peak_is_foreseen(source: tuple[Path, Path]) -> None:
    plan = bridge.plan(source[0], adapters=[source[1]])
    plain = bridge.plan(source[0])
    read = sum(path.stat().st_size for path in source[1].glob("*.safetensors"))
    assert plain.nbytes < plan.nbytes < plain.nbytes + read
    assert plan.peak_nbytes >= plain.peak_nbytes


def test_a_value_that_float16_has_no_room_for(tmp_path: Path) -> None:
    save_file({"m.weight": np.full((2, 2), 60000, np.float16)}, tmp_path / "model.safetensors")
    lora = adapter(tmp_path / "lora", peft({"m": (np.full((1, 2), 100, "f4"), np.full((2, 1), 100, "f4"))}), r=1)
    with pytest.raises(bridge.CheckpointError, match="comes to 100000 with the adapter"):
        bridge.load(tmp_path / "model.safetensors", adapters=[lora])


def test_a_case_that_peft_has_merged() -> None:
    """Kept, so that the bits are held against PEFT's where PEFT is not."""
    expected = load_file(CASES / "expected.safetensors")
    for name in ("plain", "saved_bias"):
        loaded = bridge.load(CASES / "base", adapters=[CASES / name])
        for key, values in loaded.items():
            assert np.asarray(values).tobytes() == expected[f"{name}|float32|{key}"].tobytes(), key
        base = {key: np.asarray(value).astype(BF16) for key, value in bridge.load(CASES / "base").items()}
        assert base.keys() == loaded.keys()


def test_weights_that_are_alike_share_a_view() -> None:
    """So that what is read for them is worked out once."""
    specs: Any = bridge.plan(CASES / "base", adapters=[CASES / "plain"]).specs
    kinds = [int(specs.kinds[specs.numbers[f"model.layers.{n}.self_attn.q_proj.weight"]]) for n in range(2)]
    assert kinds[0] == kinds[1]
    assert specs.forms[kinds[0]].view is not None
