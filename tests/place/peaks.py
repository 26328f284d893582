"""Cases of `test_peak.py`, run as a program: what loads take of memory, beside what their plans predict."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import bridge
from bridge.cli.memory import forget_peak, peak_nbytes, resident_nbytes
from tests.stream.views import Made

MIB = 1 << 20
SLACK = 2 * MIB  # threads, Python's own objects
UNUSED = 10 * MIB  # scratch that not every load needs, and little more
F32, BF16 = np.dtype(np.float32), np.dtype(jnp.bfloat16)
LAYERS, ROWS, COLUMNS = 12, 1024, 1500  # 70 MiB of float32, no multiple of a large page


def written(path: Path, dtype: np.dtype, layers: int = LAYERS) -> Path:
    save_file({f"h.{n}.w": np.full((ROWS, COLUMNS), n, dtype) for n in range(layers)}, path)
    return path


def like(dtype: np.dtype, *shape: int) -> dict[str, Any]:
    return {"w": jax.ShapeDtypeStruct(shape, dtype)}


def measured(source: Any, template: Any, rules: Any, **options: Any) -> tuple[int, int, int]:
    """Bytes of the arrays, of the prediction, and of the peak over what the process had before; arrays are dropped."""
    bridge.load(source, template, rules, **options)  # what is compiled and imported once is no part of it
    plan = bridge.plan(source, template, rules, **options)
    gc.collect()
    # The kernel's own high-water mark: exact, where a watcher on a busy machine would miss what lasts a moment.
    forget_peak()
    before = resident_nbytes()
    loaded = jax.block_until_ready(bridge.load(source, template, plan, **options))
    peak = peak_nbytes() - before
    return sum(leaf.nbytes for leaf in jax.tree.leaves(loaded)), plan.peak_nbytes, peak


def held(name: str, source: Any, template: Any, rules: Any = None) -> None:
    """Arrays that are host memory: they are the most of the peak."""
    final, predicted, peak = measured(source, template, rules)
    print(f"{name}: {final=:,} {predicted=:,} {peak=:,}")
    assert final <= predicted
    assert predicted - UNUSED <= peak <= predicted + SLACK, name


def staged(name: str, source: Any, template: Any, rules: Any, budget: int) -> None:
    """On the CPU what has been placed is host memory too: the prediction is about what comes on top."""
    final, predicted, peak = measured(source, template, rules, max_host_bytes=budget)
    print(f"{name}: {final=:,} {predicted=:,} {peak=:,}")
    assert predicted == budget
    assert budget // 4 <= peak - final <= predicted + SLACK, name


def main(folder: Path) -> None:
    f32, bf16 = written(folder / "f32.safetensors", F32), written(folder / "bf16.safetensors", BF16)
    held("same", f32, like(F32, LAYERS, ROWS, COLUMNS), ["h.{l}.w -> w"])
    held("list", bf16, {"h": [like(BF16, ROWS, COLUMNS) for _ in range(LAYERS)]})  # 2.9 MiB each
    held("widened", bf16, like(F32, LAYERS, ROWS, COLUMNS), ["h.{l}.w -> w"])
    held("narrowed", f32, like(BF16, LAYERS, ROWS, COLUMNS), ["h.{l}.w -> w"])
    held("transposed", f32, like(F32, LAYERS, COLUMNS, ROWS), ["h.{l}.w [a b] -> w [l b a]"])
    held("scaled", bf16, like(BF16, LAYERS, ROWS, COLUMNS), ["h.{l}.w -> w ; scale=2.0"])
    pair = folder / "pair.safetensors"
    save_file({name: np.ones((8 * ROWS, COLUMNS), F32) for name in "ab"}, pair)
    held("tied", pair, like(F32, 8 * ROWS, COLUMNS), ["a -> w", "b -> w ; tie=true"])
    held("summed", pair, like(F32, 8 * ROWS, COLUMNS), ["a + b -> w"])
    made = Made()
    for n in range(LAYERS):
        made.scaled(f"h.{n}.w", (ROWS, COLUMNS), (128, 128), F32)
    with made.open(folder / "computed") as computed:
        held("computed", computed, like(F32, LAYERS, ROWS, COLUMNS), ["h.{l}.w -> w"])
        held("computed and turned", computed, like(BF16, LAYERS, COLUMNS, ROWS), ["h.{l}.w [a b] -> w [l b a]"])
        staged("computed, staged", computed, like(F32, LAYERS, ROWS, COLUMNS), ["h.{l}.w -> w"], 32 * MIB)
    staged("staged", f32, like(F32, LAYERS, ROWS, COLUMNS), ["h.{l}.w -> w"], 32 * MIB)
    staged("staged and transposed", f32, like(F32, LAYERS, COLUMNS, ROWS), ["h.{l}.w [a b] -> w [l b a]"], 32 * MIB)
    converted = folder / "converted"
    bridge.convert(f32, converted, like(F32, LAYERS, ROWS, COLUMNS), ["h.{l}.w -> w"])
    final, predicted, peak = measured(converted, like(F32, LAYERS, ROWS, COLUMNS), None)
    assert peak <= predicted <= UNUSED < final, "mapped: the file is the memory"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    print("ok")
