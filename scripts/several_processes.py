"""A model over several processes: each reads its own part, all compute with it, all save it.

    python scripts/several_processes.py                               two processes on this machine, and a checkpoint
    python scripts/several_processes.py HOST:PORT COUNT RANK FOLDER   one of COUNT, on each host; HOST is that of rank 0

FOLDER holds `model.safetensors` and is the same on all hosts: a disk that they share. Needs eqx-bridge, no PyTorch.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS, WIDTH = 8, 512


def one_of_them(address: str, count: int, rank: int, folder: Path) -> None:
    """What each process does."""
    import jax

    def say(text: str) -> None:
        sys.stdout.write(f"process {rank} of {count}: {text}\n")  # at once: the others write to the same terminal
        sys.stdout.flush()

    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # how CPUs talk; GPUs and TPUs know for themselves
    jax.distributed.initialize(address, count, rank)

    import equinox as eqx
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh
    from jax.sharding import PartitionSpec as P

    import bridge

    class Net(eqx.Module):
        layers: eqx.nn.Linear  # one leaf for all layers, as jax.lax.scan wants it

        def __init__(self, key: jax.Array) -> None:
            self.layers = eqx.filter_vmap(lambda key: eqx.nn.Linear(WIDTH, WIDTH, key=key))(
                jax.random.split(key, LAYERS)
            )

        def __call__(self, x: jax.Array) -> jax.Array:
            return jax.lax.scan(lambda x, layer: (jnp.tanh(layer(x)), None), x, self.layers)[0]

    # The devices of all processes; jax.local_devices() are this one's.
    mesh = Mesh(np.array(jax.devices()), "model")
    like = eqx.filter_eval_shape(Net, jax.random.key(0))
    rows = {"layers.weight": P(None, "model"), "layers.bias": P(None, "model")}

    plan = bridge.plan(folder / "model.safetensors", like, sharding=(mesh, rows))
    whole = sum(leaf.nbytes for leaf in plan.leaves.values())
    say(f"reads {plan.nbytes:,} of {whole:,} bytes")
    model = bridge.load(folder / "model.safetensors", like, plan)

    norm = eqx.filter_jit(lambda model, x: jnp.linalg.norm(model(x)))(model, np.ones(WIDTH, np.float32))
    say(f"together they compute {float(norm):.6f}")

    report = bridge.save(model, folder / "saved", plan, overwrite=True)
    say(f"saved {', '.join(report.files)}, {report.nbytes:,} bytes")


def two_here() -> int:
    """A checkpoint, two processes that share it, and a look at what they saved."""
    import numpy as np
    from safetensors.numpy import save_file

    import bridge

    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        folder = Path(name)
        rng = np.random.default_rng(0)
        shapes = {"weight": (WIDTH, WIDTH), "bias": (WIDTH,)}
        tensors = {
            f"layers.{n}.{part}": rng.standard_normal(shape, np.float32) / 20
            for n in range(LAYERS)
            for part, shape in shapes.items()
        }
        save_file(tensors, folder / "model.safetensors")
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        command = [sys.executable, __file__, f"127.0.0.1:{port}", "2"]
        started = [subprocess.Popen([*command, str(rank), name], env=os.environ) for rank in range(2)]
        try:
            # Where one fails the other would wait for it.
            while any(process.poll() is None for process in started) and not any(process.poll() for process in started):
                time.sleep(0.1)
        finally:
            for process in started:
                process.kill()
                process.wait()
        if any(process.returncode for process in started):
            return 1
        print(bridge.diff(folder / "model.safetensors", folder / "saved"))
        return 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(two_here())
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    one_of_them(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
