"""A plan read backwards: every exactly mapped tensor comes back as it was, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bridge
from tests.save.files import BF16, metadata, random, read, struct, write

N, E = 3, 2

LAYERS = {f"h.{n}.w": random((4, 4), seed=n) for n in range(N)}
EXPERTS = {f"h.{n}.e.{e}.w": random((4, 4), seed=10 * n + e) for n in range(N) for e in range(E)}

# what the checkpoint holds; the model; the rules between them
EXACT: dict[str, tuple[dict[str, np.ndarray], Any, list[str]]] = {
    "rename": ({"a.w": random((4, 4))}, {"b": struct((4, 4))}, ["a.w -> b"]),
    "scalar": ({"a": random(())}, {"b": struct(())}, ["a -> b"]),
    "empty": ({"a": random((0, 4))}, {"b": struct((0, 4))}, ["a -> b"]),
    "list": (LAYERS, {"h": [{"w": struct((4, 4))} for _ in range(N)]}, []),
    "stack": (LAYERS, {"h": {"w": struct((N, 4, 4))}}, []),
    "stack of eleven": (
        {f"h.{n}.w": random((2, 2), seed=n) for n in range(11)},
        {"w": struct((11, 2, 2))},
        ["h.{l}.w -> w"],
    ),
    "stack transposed": (LAYERS, {"w": struct((4, N, 4))}, ["h.{l}.w [a b] -> w [b l a]"]),
    "two stacks": (EXPERTS, {"w": struct((E, N, 4, 4))}, ["h.{l}.e.{e}.w [a b] -> w [e l b a]"]),
    "selection": (
        LAYERS,
        {"first": struct((1, 4, 4)), "w": struct((2, 4, 4))},
        ["h.{l[:1]}.w -> first", "h.{l[1:]}.w -> w"],
    ),
    "schedule": (
        {f"h.{n}.w": random((4, 4), seed=n) for n in range(6)},
        {"local": struct((2, 2, 4, 4)), "full": struct((2, 4, 4))},
        ["h.{(g i[:2])}.w -> local.{g}.{i} ; i=3", "h.{(g i[2])}.w -> full.{g} ; i=3"],
    ),
    "composed": ({"q": random((4, 4))}, {"q": struct((2, 2, 4))}, ["q [(h d) m] -> q [h d m] ; h=2"]),
    "unit axes": ({"b": random((4,))}, {"b": struct((4, 1, 1))}, ["b [o] -> b [o 1 1]"]),
    "the rest": ({"w": random((2, 3, 4))}, {"w": struct((4, 2, 3))}, ["w [... k] -> w [k ...]"]),
    "flip": ({"w": random((4, 4))}, {"w": struct((4, 4))}, ['w [a b] -> w [b a] ; flip="a"']),
    "split": (
        {"qkv": random((12, 4))},
        {"q": struct((4, 4)), "k": struct((4, 4)), "v": struct((4, 4))},
        ["qkv [(q|k|v) m] -> {q|k|v} [_ m]"],
    ),
    "split, grouped queries": (
        {"qkv": random((8, 4))},
        {"q": struct((4, 4)), "k": struct((2, 4)), "v": struct((2, 4))},
        ["qkv [(q|k|v) m] -> {q|k|v} [_ m] ; q=4, k=2, v=2"],
    ),
    "join": (
        {f"{p}.w": random((4, 4), seed=n) for n, p in enumerate("qkv")},
        {"qkv": struct((4, 12))},
        ["{q|k|v}.w [_ m] -> qkv [m (q|k|v)]"],
    ),
    "interleaved": (
        {"gate_up": random((8, 4))},
        {"gate": struct((4, 4)), "up": struct((4, 4))},
        ["gate_up [(f (gate|up)) m] -> {gate|up} [f m]"],
    ),
    "split per head, stacked": (
        {f"h.{n}.qkv": random((12, 4), seed=n) for n in range(N)},
        {p: struct((N, 4, 4)) for p in "qkv"},
        ["h.{l}.qkv [(h (q|k|v) d) m] -> {q|k|v} [l m (h d)] ; h=2"],
    ),
    "tie": (
        {"e": (tied := random((4, 4))), "head": tied},
        {"e": struct((4, 4))},
        ["head -> e ; tie=true"],
    ),
    "copy": ({"a": random((4, 4))}, {"a": struct((4, 4)), "b": struct((4, 4))}, ["a -> b ; copy=true", "a -> a"]),
    "copies": (
        {"a": random((4, 4))},
        {"b": struct((4, 4)), "c": struct((4, 4))},
        ["a -> b ; copy=true", "a -> c ; copy=true"],
    ),
}
COPIES = {"copy": ["b"], "copies": ["c"]}  # leaves that are not where a key comes from


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "I32", "F8_E4M3"])
def test_every_exactly_mapped_tensor_comes_back(tmp_path: Path, case: str, dtype: str):
    given, like, rules = EXACT[case]
    tensors = {key: random(array.shape, dtype, seed=n) for n, (key, array) in enumerate(given.items())}
    if case == "tie":
        tensors["head"] = tensors["e"]
    source = write(tmp_path / "model.safetensors", tensors)
    plan = bridge.plan(source, like, rules, dtype="checkpoint")
    assert plan.ok, plan
    assert plan.lossy == ()
    report = bridge.save(bridge.load(source, like, plan), tmp_path / "out", plan)
    assert read(tmp_path / "out") == read(source)
    assert report.files == ("model.safetensors",)
    assert report.nbytes == (tmp_path / "out/model.safetensors").stat().st_size
    assert [left.name for left in report.left_out] == COPIES.get(case, [])
    assert metadata(tmp_path / "out/model.safetensors") == {"format": "pt"}


@pytest.mark.parametrize("stored", ["BF16", "F16"])
@pytest.mark.parametrize("shape", [(4095,), (64, 64)])
def test_what_was_widened_comes_back_nan_payloads_too(tmp_path: Path, stored: str, shape: tuple[int, ...]):
    tensors = {"w": random(shape, stored)}
    assert np.isnan(tensors["w"].astype(np.float32)).any()
    source = write(tmp_path / "model.safetensors", tensors)
    plan = bridge.plan(source, {"w": struct(shape, np.float32)})
    assert plan.lossy == ()
    bridge.save(bridge.load(source, {"w": struct(shape, np.float32)}, plan), tmp_path / "out", plan)
    assert read(tmp_path / "out") == read(source)


def test_every_bfloat16_comes_back(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"w": np.arange(1 << 16, dtype=np.uint16).view(BF16)})
    plan = bridge.plan(source, {"w": struct((1 << 16,))})
    bridge.save(bridge.load(source, {"w": struct((1 << 16,))}, plan), tmp_path / "out", plan)
    assert read(tmp_path / "out") == read(source)


def test_every_float16_comes_back(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"w": np.arange(1 << 16, dtype=np.uint16).view(np.float16)})
    plan = bridge.plan(source, {"w": struct((1 << 16,))})
    bridge.save(bridge.load(source, {"w": struct((1 << 16,))}, plan), tmp_path / "out", plan)
    assert read(tmp_path / "out") == read(source)
