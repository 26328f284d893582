"""Cases of `test_views.py`, run as a program under several host devices: shards off the grain of a view."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import bridge
from tests.stream.views import KINDS, counted, layers, same

CASES = [
    (["h.{l}.w -> w"], P(None, "x")),
    (["h.{l}.w -> w"], P(None, None, "x")),
    (["h.{l}.w [a b] -> w [l b a]"], P(None, "x")),
    (["h.{l}.w [a b] -> w [l b a]"], P(None, "x", "y")),
    (["h.{l}.w -> w"], P(None, "y", "x")),
    (["h.0.w + h.1.w -> w", "h.2.w -> _"], P("x")),
]


def check(kind: str, folder: Path) -> None:
    made = layers(kind, 3, (24, 40))
    judge = made.judge(folder / f"{kind}.safetensors")
    devices = np.array(jax.devices())
    patch = pytest.MonkeyPatch()
    with made.open(folder / kind) as ckpt:
        for rules, spec in CASES:
            shape = (len(devices) // 2, 2) if "y" in spec else (len(devices), 1)
            sharding = (Mesh(devices.reshape(shape), ("x", "y")), {"w": spec})
            expected = bridge.load(judge, None, rules)
            for budget in (None, 20_000):
                plan = bridge.plan(ckpt, None, rules, sharding=sharding, max_host_bytes=budget)
                with counted(patch) as lengths:
                    loaded = bridge.load(ckpt, None, plan, sharding=sharding, max_host_bytes=budget)
                assert loaded["w"].sharding == NamedSharding(*sharding[:1], spec)
                same(loaded, expected)
                assert sum(lengths) == plan.nbytes, (kind, rules, spec, budget)
                bridge.save(loaded, folder / "saved.safetensors", plan, overwrite=True)
                if len(rules) == 1:
                    assert bridge.diff(ckpt, folder / "saved.safetensors").equal


if __name__ == "__main__":
    for name in KINDS:
        check(name, Path(sys.argv[1]))
    print("ok")
