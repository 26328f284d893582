"""GPTQ, against GPTQModel's formula, unpacked bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bridge import CheckpointError
from bridge.quantized import find
from tests.quantized.contract import Case, FormatContract, Shape
from tests.quantized.plain import BF16, pack, unpack, wild
from tests.quantized.stored import Tensors, assert_same, columns, found_in, read


def config(**fields: Any) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": "gptq", **fields}}


class Gptq:
    """How one is made, and the formula. `stored`: what zero points are stored as where they are all the same."""

    def __init__(
        self,
        bits: int,
        group: int,
        dtype: Any = np.float16,
        *,
        layout: str = "gptq",
        order: str = "plain",
        stored: int | None = None,
        **said: Any,
    ) -> None:
        self.bits, self.group, self.dtype, self.layout, self.order, self.stored = (
            bits,
            group,
            dtype,
            layout,
            order,
            stored,
        )
        self.said = config(bits=bits, group_size=group, checkpoint_format=layout, **{"sym": stored is not None, **said})

    def case(self, name: str) -> Case:
        step = self.group if self.group > 0 else 32
        return Case(name, self.said, self.make, self.formula, (32, step))

    def make(self, rng: np.random.Generator, shape: Shape) -> Tensors:
        rows, columns = shape
        group = self.group if self.group > 0 else columns
        grid = (columns // group, rows)
        zeros = rng.integers(0, 1 << self.bits, grid) if self.stored is None else np.full(grid, self.stored)
        plain = np.arange(columns, dtype=np.int32) // group
        made = {
            "m.qweight": np.ascontiguousarray(pack(rng.integers(0, 1 << self.bits, shape), self.bits).T).view(np.int32),
            "m.scales": wild(rng, grid, self.dtype),
            "m.qzeros": pack(zeros, self.bits).view(np.int32),
            "m.g_idx": rng.permutation(plain) if self.order == "permuted" else plain,
        }
        if self.order == "none":
            del made["m.g_idx"]
        return made

    def zeros(self, tensors: Tensors, rows: int) -> np.ndarray:
        """Whole words are added to, so that a field that is all ones carries into the next; but for 3 bits."""
        words = tensors["m.qzeros"].view(np.uint32)
        if self.stored is not None:
            return np.full((len(words), rows), 1 << self.bits - 1)
        if self.layout == "gptq" and self.bits != 3:
            words = words + np.uint32(sum(1 << place for place in range(0, 32, self.bits)))
        zeros = unpack(words, self.bits, rows)
        return (zeros + 1) % 8 if self.layout == "gptq" and self.bits == 3 else zeros

    def formula(self, tensors: Tensors, shape: Shape) -> np.ndarray:
        rows, columns = shape
        codes = unpack(np.ascontiguousarray(tensors["m.qweight"].T), self.bits, columns).T  # (in, out)
        group = self.group if self.group > 0 else columns
        g = tensors.get("m.g_idx", np.arange(columns) // group)
        return (tensors["m.scales"][g] * (codes - self.zeros(tensors, rows)[g]).astype(self.dtype)).T


class TestGptq(FormatContract):
    cases = (
        *(Gptq(bits, 32).case(f"v1, {bits} bits") for bits in (2, 3, 4, 8)),
        *(Gptq(bits, 32, layout="gptq_v2").case(f"v2, {bits} bits") for bits in (2, 3, 4, 8)),
        *(Gptq(bits, 32, stored=(1 << bits - 1) - 1).case(f"symmetric, {bits} bits") for bits in (2, 3, 4, 8)),
        Gptq(4, 128, stored=8).case("called v1, and is v2"),
        Gptq(4, 128, layout="gptq_v2", stored=7).case("called v2, and is v1"),
        Gptq(4, 128, BF16).case("bfloat16"),
        Gptq(4, -1).case("one group"),
        Gptq(4, 32, order="none").case("without g_idx"),
        Gptq(4, 32, order="permuted", desc_act=True).case("desc_act"),
        Gptq(3, 64, BF16, order="permuted", desc_act=True, layout="gptq_v2").case("desc_act, 3 bits"),
        Gptq(8, 32, order="permuted", desc_act=True, stored=127).case("desc_act, symmetric"),
        Gptq(4, 32, order="permuted", desc_act=False).case("another order, unsaid"),
    )


def test_scales_that_float16_cannot_multiply():
    """Beyond 65504 a product is infinite in float16, and so it is in the reference."""
    made = Gptq(8, 32)
    tensors = dict(made.make(np.random.default_rng(0), (32, 64)))
    tensors["m.scales"][0, :4] = np.float16([6e4, -6e4, 400, np.inf])
    with np.errstate(all="ignore"):
        expected = made.formula(tensors, (32, 64)).astype(np.float32)
    assert np.isinf(expected).any()
    assert_same(read(found_in(tensors, made.said).tensors["m.weight"], tensors), expected)


def test_modules_of_their_own():
    rng = np.random.default_rng(0)
    tensors = {f"a.q{k[1:]}": v for k, v in Gptq(4, 32).make(rng, (32, 64)).items()}
    tensors |= {f"a.down{k[1:]}": v for k, v in Gptq(8, 64).make(rng, (32, 64)).items()}
    dynamic = {"-:.*lm_head": {}, "+:.*down": {"bits": 8, "group_size": 64}}
    found = found_in(tensors, config(bits=4, group_size=32, sym=False, dynamic=dynamic))
    assert {key: str(t.form) for key, t in found.tensors.items()} == {
        "a.q.weight": "gptq int4 in groups of 32",
        "a.down.weight": "gptq int8 in groups of 64",
    }


def test_auto_round_writes_gptq():
    made = Gptq(4, 32, stored=7)
    tensors = made.make(np.random.default_rng(0), (32, 64))
    said = {
        "quant_method": "auto-round",
        "packing_format": "auto_round:auto_gptq",
        "bits": 4,
        "group_size": 32,
        "sym": True,
    }
    assert_same(
        read(found_in(tensors, {"quantization_config": said}).tensors["m.weight"], tensors),
        made.formula(tensors, (32, 64)).astype(np.float32),
    )


def test_one_g_idx_speaks_for_all_that_are_alike():
    """Nobody wants to read one for each of a thousand experts before planning."""
    made = Gptq(4, 32)
    tensors = {f"{i}{k[1:]}": v for i in range(9) for k, v in made.make(np.random.default_rng(i), (32, 64)).items()}
    assert find(*columns(tensors), made.said).needs == ("0.g_idx",)


def test_one_that_is_unlike_them_is_refused_when_it_is_read():
    made = Gptq(4, 32)
    tensors = {f"{i}{k[1:]}": v for i in range(2) for k, v in made.make(np.random.default_rng(i), (32, 64)).items()}
    tensors["1.g_idx"] = tensors["1.g_idx"][::-1].copy()
    found = found_in(tensors, made.said)
    with pytest.raises(CheckpointError, match="has a g_idx that does not count up"):
        read(found.tensors["1.weight"], tensors)


def test_zero_points_that_contradict_sym_are_refused():
    tensors = Gptq(4, 32).make(np.random.default_rng(0), (32, 64))
    found = found_in(tensors, config(bits=4, group_size=32, sym=True))
    with pytest.raises(CheckpointError, match="zero points other than 8"):
        read(found.tensors["m.weight"], tensors)


@pytest.mark.parametrize("left_out", ["qweight", "scales", "qzeros"])
def test_an_incomplete_set_is_refused(left_out: str):
    tensors = dict(Gptq(4, 32).make(np.random.default_rng(0), (32, 64)))
    del tensors[f"m.{left_out}"]
    with pytest.raises(CheckpointError, match=r"beside it|the codes for its .* are missing"):
        found_in(tensors, Gptq(4, 32).said)
