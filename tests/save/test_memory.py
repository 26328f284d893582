"""A save holds the model once: what it gathers is one tensor at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.save.files import read

SAVE = """
import sys, threading
from pathlib import Path
import jax.numpy as jnp, numpy as np
import bridge

def anonymous():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10

model = {"w": jnp.asarray(np.arange(50, dtype=np.float32)[:, None, None] + np.zeros((1, 1024, 1024), np.float32))}
rules = ["h.{l}.w [a b] -> w [l b a]"]
bridge.save({"w": model["w"][:1, :2, :2]}, sys.argv[1] + "/warm", rules)
before = peak = anonymous()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
bridge.save(model, sys.argv[1] + "/out", rules, max_shard_size="50MB")
done.set()
watcher.join()
print(peak - before)
"""


def test_a_save_takes_little_memory(tmp_path: Path):
    """200 MB in one leaf, stacked and transposed."""
    command = [sys.executable, "-c", SAVE, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 48 << 20
    assert len(read(tmp_path / "out")) == 50
