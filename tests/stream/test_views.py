"""Keys that are strided or computed: loaded, cut, cast, staged, converted and saved as if their values were stored."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import bridge
from tests.place.test_sharding import run
from tests.stream.views import BF16, KINDS, Made, counted, layers, same

ROOT = Path(__file__).resolve().parents[2]
RULES = {
    "list": [],
    "stack": ["h.{l}.w -> w"],
    "transposed": ["h.{l}.w [a b] -> w [l b a]"],
    "transposed list": ["h.{l}.w [a b] -> h.{l}.w [b a]"],
    "split": ["h.{l}.w [a (q|k|v)] -> h.{l}.{q|k|v} [a _] ; q=7, k=20, v=23"],
    "split rows": ["h.{l}.w [(q|k|v) b] -> h.{l}.{q|k|v} [_ b] ; q=9, k=8, v=13"],
    "heads": ["h.{l}.w [(h d) b] -> w [l b d h] ; h=6"],
    "flipped": ['h.{l}.w [a b] -> w [l b a] ; flip="a"'],
    "parts": [
        "h.{l}.w [a[:8] b] -> h.{l}.top [a b]",
        "h.{l}.w [a[8:] b[3:]] -> h.{l}.rest [a b]",
        "h.{l}.w [a[8:] b[:3]] -> _",
    ],
    "scaled": ["h.{l}.w -> w ; scale=3, add=0.5"],
    "summed": ["h.0.w + h.1.w -> s ; scale=2", "h.2.w -> w"],
    "summed in two orders": ["h.0.w [a b] + h.1.w [a b] -> s [b a]", "h.2.w -> w"],
    "used twice": ["h.{l}.w -> w", "h.{l}.w [a b] -> t [l b a] ; copy=true"],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_values_by_every_rule(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = layers(kind)
    expected = bridge.load(made.judge(tmp_path / "values.safetensors"), None, RULES[name])
    with made.open(tmp_path / "views") as ckpt:
        plan = bridge.plan(ckpt, None, RULES[name])
        with counted(monkeypatch) as lengths:
            same(bridge.load(ckpt, None, plan), expected)
        assert sum(lengths) == plan.nbytes
        # Nothing is read twice, but of what is stored as it is, parts of different lengths are read one by one.
        known = sum(form.nbytes for form, *_ in made.tensors.values())
        assert plan.nbytes <= known * (2 if name == "parts" and kind in KINDS[:3] else 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.dtype("f4"), BF16, np.dtype("f2")])
def test_casts(kind: str, dtype: np.dtype, tmp_path: Path):
    made = layers(kind)
    expected = bridge.load(made.judge(tmp_path / "values.safetensors"), None, ["h.{l}.w -> w"], dtype=dtype)
    with made.open(tmp_path / "views") as ckpt:
        same(bridge.load(ckpt, None, ["h.{l}.w -> w"], dtype=dtype), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_a_checkpoint(kind: str, tmp_path: Path):
    made = layers(kind)
    with made.open(tmp_path / "views") as ckpt:
        same({key: ckpt[key] for key in ckpt}, made.values)
        assert all(ckpt[key].flags.c_contiguous for key in ckpt)


@pytest.mark.parametrize("kind", KINDS)
def test_staged(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = layers(kind, 3, (300, 50))
    rules = ["h.{l}.w [a b] -> w [l b a]"]
    expected = bridge.load(made.judge(tmp_path / "values.safetensors"), None, rules)
    with made.open(tmp_path / "views") as ckpt:
        plan = bridge.plan(ckpt, None, rules, max_host_bytes=64 << 10)
        with counted(monkeypatch) as lengths:
            same(bridge.load(ckpt, None, plan, max_host_bytes=64 << 10), expected)
        assert sum(lengths) == plan.nbytes


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_bytes_behind_a_part_are_read(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rows of a large tensor, the first ones, that are kept."""
    made = layers(kind, 1, (600, 700))
    rules = ["h.0.w [a[:60] b] -> w [a b]", "h.0.w [a[60:] b] -> _", "h.0.b -> b"]
    with made.open(tmp_path / "views") as ckpt, counted(monkeypatch) as lengths:
        same({"w": bridge.load(ckpt, None, rules)["w"]}, {"w": made.values["h.0.w"][:60]})
    whole = made.tensors["h.0.w"][0].nbytes
    # Of columns, which rows of what is stored transposed are, the gaps between short runs are read over.
    share = {"expanded": 1.0, "transposed": 0.999, "packed": 1.0}.get(kind, 0.15)
    assert sum(lengths) <= share * whole + 1200


@pytest.mark.parametrize("kind", KINDS)
def test_saved_by_the_plan(kind: str, tmp_path: Path):
    """Keys are saved as what they mean, and not as they were stored."""
    made = layers(kind)
    with made.open(tmp_path / "views") as ckpt:
        plan = bridge.plan(ckpt, None, ["h.{l}.w [a b] -> w [l b a]"])
        model = bridge.load(ckpt, None, plan)
        bridge.save(model, tmp_path / "saved.safetensors", plan)
        assert bridge.diff(ckpt, tmp_path / "saved.safetensors").equal
        assert bridge.diff(tmp_path / "saved.safetensors", ckpt).equal
    same({key: bridge.open(tmp_path / "saved.safetensors")[key] for key in made.values}, made.values)


def test_differences(tmp_path: Path):
    made = layers("scaled")
    with made.open(tmp_path / "views") as ckpt:
        made.values["h.1.w"][3, 4] += 1.0
        found = bridge.diff(ckpt, made.judge(tmp_path / "values.safetensors"))
    assert [(d.key, d.count) for d in found.differing] == [("h.1.w", 1)]
    assert found.differing[0].largest == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_converted_and_reverted(kind: str, tmp_path: Path):
    """The leaves cannot give back what was stored, so it is kept: the way back is the same files to the byte."""
    made = layers(kind)
    rules = ["h.{l}.w [a b] -> w [l b a]"]
    with made.open(tmp_path / "views") as ckpt:
        bridge.convert(ckpt, tmp_path / "converted", None, rules)
        same(bridge.load(tmp_path / "converted", None), bridge.load(ckpt, None, rules))
    bridge.revert(tmp_path / "converted", tmp_path / "back")
    for name in ("a", "b"):
        assert (tmp_path / "back" / f"{name}.safetensors").read_bytes() == (
            tmp_path / "views" / f"{name}.safetensors"
        ).read_bytes()


def test_a_key_called_as_the_tensor_that_it_is_made_of(tmp_path: Path):
    made = Made()
    made.scaled("w", (9, 10), (4, 4), np.dtype("f4"))
    made.stored = {"w": made.stored["w.codes"], "w.scales": made.stored["w.scales"]}
    form, _, at, (first, second) = made.tensors["w"]
    made.tensors["w"] = form, "w", at, (("w", *first[1:]), second)
    with made.open(tmp_path / "views") as ckpt:
        bridge.convert(ckpt, tmp_path / "converted", None)
        same(bridge.load(tmp_path / "converted", None), made.values)
    bridge.revert(tmp_path / "converted", tmp_path / "back")
    stored = {k: v for f in sorted((tmp_path / "back").glob("*.safetensors")) for k, v in load_file(f).items()}
    same(stored, made.stored)


def test_two_names_on_one_storage(tmp_path: Path):
    made = Made()
    made.storage("storage", 40, np.dtype("f4"))
    made.strided("a", "storage", 0, (5, 8), (8, 1))
    made.strided("b", "storage", 3, (4, 5), (1, 8))
    made.strided("c", "storage", 1, (3, 4, 6), (8, 1, 2))
    made.strided("point", "storage", 7, (), ())
    made.strided("nothing", "storage", 0, (0, 4), (4, 1))
    with made.open(tmp_path / "views") as ckpt:
        same(bridge.load(ckpt, None), made.values)


def test_ties(tmp_path: Path):
    made = layers("scaled", 2)
    made.tensors["h.1.w"], made.values["h.1.w"] = made.tensors["h.0.w"], made.values["h.0.w"]
    rules = ["h.0.w -> w", "h.1.w -> w ; tie=true"]
    with made.open(tmp_path / "views") as ckpt:
        same({"w": bridge.load(ckpt, None, rules)["w"]}, {"w": made.values["h.0.w"]})
    other = layers("scaled", 2)
    match = r"'h\.1\.w' in '.*' is tied to a leaf"
    with other.open(tmp_path / "others") as ckpt, pytest.raises(bridge.CheckpointError, match=match):
        bridge.load(ckpt, None, rules)


def test_parts_of_a_key_that_many_leaves_take_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As experts are: the leaves' boxes lie off the grain, so that some of them share it."""
    made = Made()
    made.scaled("w", (90, 64), (16, 16), np.dtype("f4"))
    like = {f"e{n}": jax.ShapeDtypeStruct((9, 64), np.float32) for n in range(10)}
    rules = [f"w [a[{9 * n}:{9 * n + 9}] b] -> e{n} [a b]" for n in range(10)]
    with made.open(tmp_path / "views") as ckpt, counted(monkeypatch) as lengths:
        loaded = bridge.load(ckpt, like, rules)
    same(loaded, {f"e{n}": made.values["w"][9 * n : 9 * n + 9] for n in range(10)})
    assert sum(lengths) == made.tensors["w"][0].nbytes


def test_tensors_of_many_bands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Larger than what is computed at a time; each byte is read once, whatever the order of the storage."""
    made = Made()
    made.scaled("scaled", (1500, 1000), (128, 128), np.dtype("f4"))
    made.packed("packed", (1200, 1000), (1, 100), BF16)
    made.scaled("wide", (3, 700_000), (2, 1000), np.dtype("f4"))
    with made.open(tmp_path / "views") as ckpt:
        plan = bridge.plan(ckpt, None)
        with counted(monkeypatch) as lengths:
            same(bridge.load(ckpt, None, plan), made.values)
        assert sum(lengths) == plan.nbytes
        # Scales of some columns lie so near each other in each row that all are read, for each band of columns.
        assert plan.nbytes <= 1.3 * sum(form.nbytes for form, *_ in made.tensors.values())
        leaves = sum(values.nbytes for values in made.values.values())
        assert leaves < plan.peak_nbytes <= leaves + (12 << 20)
        with counted(monkeypatch) as lengths:
            same({key: ckpt[key] for key in ckpt}, made.values)
        assert sum(lengths) == plan.nbytes


def test_many_dtypes_and_views_in_one_family(tmp_path: Path):
    """Layers of one list or stack, each stored in its own way."""
    made = Made()
    made.storage("storage", 2000, BF16)
    made.plain("h.0.w", (30, 20), np.dtype("f4"))
    made.strided("h.1.w", "storage", 100, (30, 20), (1, 30))
    made.scaled("h.2.w", (30, 20), (8, 8), np.dtype("f4"))
    made.packed("h.3.w", (30, 20), (8, 8), np.dtype("f4"))
    made.plain("h.4.w", (30, 20), BF16)
    judge = made.judge(tmp_path / "values.safetensors")
    with made.open(tmp_path / "views") as ckpt:
        for like, rules in (
            ({"w": jax.ShapeDtypeStruct((5, 30, 20), np.float32)}, ["h.{l}.w -> w"]),
            ({"w": jax.ShapeDtypeStruct((5, 20, 30), jnp.bfloat16)}, ["h.{l}.w [a b] -> w [l b a]"]),
            ({f"w{n}": jax.ShapeDtypeStruct((30, 20), np.float32) for n in range(5)}, ["h.{l}.w -> w{l}"]),
            ({"w": jax.ShapeDtypeStruct((30, 20), np.float32)}, ["h.0.w + h.1.w + h.2.w -> w", "h.{l}.w -> _"]),
        ):
            same(bridge.load(ckpt, like, rules), bridge.load(judge, like, rules))


@pytest.mark.parametrize("count", [4, 8])
def test_sharded(count: int, tmp_path: Path):
    env = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    run([sys.executable, "-W", "error", "-m", "tests.stream.views_on_devices", str(tmp_path)], env)
