"""A checkpoint several times as large as the memory it is converted in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import bridge

MIB = 1 << 20
BUDGET = 24 * MIB
ROOT = Path(__file__).resolve().parents[2]
RULES = [
    "h.{l}.w -> w",
    "h.{l}.turned [i o] -> turned [l o i]",
    "h.{l}.wide -> wide",
    "embed -> embed",
    "a + b -> summed",
    "dropped -> _",
]

# The process may have 64 MiB more than it has before it converts, whatever the memory is for. More threads would need
# more for their stacks alone.
CHILD = """
import json, os, resource, sys
from pathlib import Path
import jax, numpy as np
import bridge

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name + ":"))

source, target, like, rules, small = sys.argv[1:6]
like = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in json.loads(like).items()}
bridge.convert(small, target + "-small", None)
before = status("VmSize")
resource.setrlimit(resource.RLIMIT_AS, (before + (64 << 20), resource.RLIM_INFINITY))
Path("/proc/self/clear_refs").write_text("5")
resident = status("VmRSS")
bridge.convert(source, target, like, json.loads(rules), max_host_bytes=int(sys.argv[6]))
print(status("VmHWM") - resident)
"""


def test_a_checkpoint_larger_than_memory(tmp_path: Path):
    rng = np.random.default_rng(0)
    pool = rng.standard_normal(1 << 22, np.float32)

    def draw(*shape: int) -> np.ndarray:
        return np.resize(np.roll(pool, int(rng.integers(pool.size))), shape)

    t = {f"h.{n}.w": draw(1024, 2048) for n in range(8)}  # 8 MiB each
    t |= {f"h.{n}.turned": draw(1024, 1024) for n in range(8)}
    t |= {f"h.{n}.wide": draw(1024, 1024).astype(ml_dtypes.bfloat16) for n in range(8)}
    t |= {"embed": draw(10_000, 1024), "a": draw(2048, 1024), "b": draw(2048, 1024), "dropped": draw(8192, 1024)}
    source, target = tmp_path / "model.safetensors", tmp_path / "converted"
    save_file(t, source)
    save_file({"small": np.ones(3, np.float32)}, tmp_path / "small.safetensors")
    assert source.stat().st_size > 8 * BUDGET
    leaves = {
        "w": np.stack([t[f"h.{n}.w"] for n in range(8)]),
        "turned": np.stack([t[f"h.{n}.turned"].T for n in range(8)]),
        "wide": np.stack([t[f"h.{n}.wide"].astype(np.float32) for n in range(8)]),
        "embed": t["embed"],
        "summed": t["a"] + t["b"],
    }
    like = json.dumps({name: (leaf.shape, leaf.dtype.name) for name, leaf in leaves.items()})
    command = [sys.executable, "-c", CHILD, source, target, like, json.dumps(RULES), tmp_path / "small.safetensors"]
    done = subprocess.run(
        [*map(str, command), str(BUDGET)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    # Pages of code and of Python's own objects come on top.
    assert int(done.stdout) < BUDGET + 8 * MIB, done.stdout
    for name, array in bridge.load(target, None).items():
        assert np.array_equal(array, leaves[name]), name
    bridge.revert(target, tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == source.read_bytes()
