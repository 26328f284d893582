"""What is read of quantised checkpoints: the bytes behind one device's box, requests over HTTP, plans given again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from bridge.planning.plan import make_plan
from tests.hub.server import Hub
from tests.quantized.loads import FP8, GPTQ, INT4, folder, fp8, gptq, int4, layers
from tests.stream.views import counted, same

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
STACK = ["h.{l}.up.weight [o i] -> up [l i o]", "h.{l}.up.bias -> bias"]


def awq(rng: np.random.Generator, rows: int, columns: int, name: str) -> dict[str, np.ndarray]:
    """Groups of 128 of the columns, eight rows a word."""
    return {
        f"{name}.qweight": rng.integers(-(2**31), 2**31, (columns, rows // 8), np.int32),
        f"{name}.qzeros": rng.integers(-(2**31), 2**31, (columns // 128, rows // 8), np.int32),
        f"{name}.scales": rng.uniform(0.01, 0.1, (columns // 128, rows)).astype(np.float16),
    }


@pytest.mark.parametrize("devices", [4, 8])
@pytest.mark.parametrize(
    ("make", "said", "rows"),
    [(fp8, FP8, 2048), (int4, INT4, 2048), (gptq, GPTQ, 16384), (awq, AWQ, 16384)],
    ids=["fp8", "int4", "gptq", "awq"],
)
def test_one_device_s_rows(
    make: Any, said: dict[str, Any], rows: int, devices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its share of codes, scales and zero points, also where a row of the weight is a column of what is stored."""
    tensors = make(np.random.default_rng(0), rows, 512, "m")
    share = sum(array.nbytes for key, array in tensors.items() if "shape" not in key) / devices
    with bridge.open(folder(tmp_path / "q", tensors, said)) as ckpt:
        start, stop = rows // devices, 2 * rows // devices
        rest = [f"m.weight [a[:{start}] b] -> _", f"m.weight [a[{stop}:] b] -> _"]
        plan = bridge.plan(ckpt, None, [f"m.weight [a[{start}:{stop}] b] -> w [a b]", *rest], dtype=jnp.float32)
        whole = ckpt.quantized["m.weight"].read(np.float32)
        with counted(monkeypatch) as lengths:
            found = bridge.load(ckpt, None, plan)
    assert np.asarray(found["w"]).tobytes() == whole[start:stop].tobytes()
    assert sum(lengths) == plan.nbytes <= 1.05 * share


@pytest.mark.parametrize("kind", ["fp8", "int4", "gptq"])
def test_over_http(kind: str, hub: Hub, tmp_path: Path):
    """config.json is read once, beside the files, and what decides about the plan in few requests."""
    source = layers(tmp_path / "q", kind, 30, 128, 256)
    hub.web |= {f"/repo/{path.name}": path.read_bytes() for path in source.iterdir()}
    with bridge.open(f"{hub.web_url}/repo") as ckpt:
        opened = len(hub.requests)
        plan = bridge.plan(ckpt, None, STACK)
        asked = [request.path for request in hub.requests[opened:]]
        assert asked.count("/repo/config.json") == 1
        assert len(asked) <= {"fp8": 2, "int4": 5, "gptq": 2}[kind]
        assert len(plan.quantized) == 30
        same(bridge.load(ckpt, None, plan), bridge.load(source, None, STACK))


def test_a_plan_is_for_what_was_said_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Keys and shapes are the same, and the values others."""
    source = folder(tmp_path / "q", gptq(np.random.default_rng(0), 256, 256, "m"), None)
    said = [{**GPTQ, "checkpoint_format": name} for name in ("gptq", "gptq_v2")]
    one, two = (bridge.plan(source, None, quantized=each) for each in said)
    assert one != two
    assert one == bridge.plan(source, None, quantized=dict(said[0])) == bridge.Plan.from_json(one.to_json())
    values = [np.asarray(bridge.load(source, None, plan)["m.weight"]).tobytes() for plan in (one, two)]
    assert values[0] != values[1]
    proven: list[int] = []

    def counting(*args: Any, **kwargs: Any) -> bridge.Plan:
        proven.append(1)
        return make_plan(*args, **kwargs)

    monkeypatch.setattr("bridge.api.planned.make_plan", counting)
    for number, count in ((0, 0), (1, 1)):
        again = bridge.load(source, None, one, quantized=said[number])
        assert np.asarray(again["m.weight"]).tobytes() == values[number]
        assert len(proven) == count
