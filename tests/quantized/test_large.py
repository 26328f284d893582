"""One weight of 8192 x 28672, from headers alone: what a thread takes of it at a time, and what it reads in all."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.source.box import box_of, reads
from tests.quantized.loads import FP8, GPTQ

ROWS, COLUMNS = 8192, 28672
ITEMSIZES = {"F8_E4M3": 1, "I32": 4, "F16": 2, "BF16": 2, "F32": 4, "I64": 8}
_GPTQ = {
    "m.qweight": ("I32", (COLUMNS // 8, ROWS)),
    "m.qzeros": ("I32", (COLUMNS // 128, ROWS // 8)),
    "m.scales": ("F16", (COLUMNS // 128, ROWS)),
}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
FORMATS: dict[str, tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, Any], float]] = {
    "fp8": (
        {"m.weight": ("F8_E4M3", (ROWS, COLUMNS)), "m.weight_scale_inv": ("F32", (ROWS // 128, COLUMNS // 128))},
        FP8,
        1.01,
    ),
    "gptq": (_GPTQ, GPTQ, 1.05),
    # Each band of columns needs the scales of all groups.
    "desc_act": ({**_GPTQ, "m.g_idx": ("I32", (COLUMNS,))}, {**GPTQ, "desc_act": True}, 2.2),
    "awq": ({**_GPTQ, "m.qweight": ("I32", (COLUMNS, ROWS // 8))}, AWQ, 1.05),
}


def headers(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], said: dict[str, Any]) -> Path:
    """A file as long as that of a real checkpoint, and a hole but for its header."""
    header, at = dict[str, Any](), 0
    for key, (dtype, shape) in tensors.items():
        nbytes = prod(shape) * ITEMSIZES[dtype]
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with (path / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + at)
    (path / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "quantization_config": said}))
    return path


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_thread_takes_is_bounded(format: str, tmp_path: Path):
    tensors, said, times = FORMATS[format]
    with bridge.open(headers(tmp_path, tensors, said)) as ckpt:
        stored = sum(spec.nbytes for key, spec in ckpt.specs.items())
        table = ckpt.quantized.table()
        tensor = table.part(table.numbers["m.weight"])
        made = [box_of(tensor, box) for box in reads(tensor, (range(ROWS), range(COLUMNS)))]
        assert max(box.read_nbytes + box.scratch_nbytes for box in made) <= 4 << 20
        plan = bridge.plan(ckpt, None)
        assert plan.nbytes == sum(box.read_nbytes for box in made) <= times * stored
        assert plan.peak_nbytes <= 2 * ROWS * COLUMNS + (12 << 20)


def test_a_plan_lays_out_no_single_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of tensors that are alike one tells what all of them take."""
    tensors = {
        f"h.{n}.{key}": spec
        for n in range(300)
        for key, spec in (("weight", ("F8_E4M3", (2048, 7168))), ("weight_scale_inv", ("F32", (16, 56))))
    }
    asked: list[int] = []

    def counting(*args: Any, **kwargs: Any) -> Any:
        asked.append(1)
        return box_of(*args, **kwargs)

    monkeypatch.setattr("bridge.stream.computed.box_of", counting)
    plan = bridge.plan(headers(tmp_path, tensors, FP8), None, ["h.{l}.weight -> w"])
    assert plan.leaves["w"].shape == (300, 2048, 7168)
    assert plan.nbytes == 300 * (2048 * 7168 + 4 * 16 * 56)
    assert len(asked) <= 16
