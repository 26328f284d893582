"""Whole processes, with the environment that users set: a terminal, a pipe, several processes of one job."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from tests.errors.promised import text_of
from tests.hub.repo import HEAD_NBYTES, WEIGHTS, served
from tests.hub.server import Fault, Hub

ROOT = Path(__file__).resolve().parents[2]


def environment(hub: Hub, home: Path) -> dict[str, str]:
    return os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}


def convert(hub: Hub, home: Path, stderr: int) -> tuple[subprocess.Popen[bytes], Path]:
    target = home / "converted"
    arguments = ["convert", "org/name", str(target), "--like", "tests.hub.repo:whole_like"]
    command = [sys.executable, "-W", "error", "-m", "bridge", *arguments]
    env = environment(hub, home) | {"TERM": "xterm", "COLUMNS": "80"}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=stderr), target


def test_a_terminal_sees_what_is_fetched_and_read(repo: Hub, tmp_path: Path):
    repo.fault = lambda r: Fault(stall=0.3) if r.server == "cdn" and r.range is None else None
    ours, theirs = pty.openpty()
    process, target = convert(repo, tmp_path, theirs)
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(4096):
                shown += part
        except OSError:
            pass  # Linux' way of saying that the other end is closed
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert (target / "model.safetensors").exists()
    assert b"downloading" in shown
    assert b"converting" in shown
    assert WEIGHTS.keys() & {name for name in WEIGHTS if name.encode() in shown} == set()  # no bar of the Hub's client


def test_a_pipe_sees_nothing(repo: Hub, tmp_path: Path):
    process, target = convert(repo, tmp_path, subprocess.PIPE)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert stderr == b""
    assert (target / "model.safetensors").exists()
    assert sorted(map(len, WEIGHTS.values())) == sorted(
        len(served(repo, r) or b"") for r in repo.weights() if not r.range
    )


SHARDED = """
import sys, jax, numpy as np
rank, count, port, url = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", count, rank, initialization_timeout=60)
import bridge
from jax.sharding import Mesh, PartitionSpec as P
like = {"h": {"w": jax.ShapeDtypeStruct((4, 512, 256), np.float32)}, "e": jax.ShapeDtypeStruct((1024, 256), np.float32)}
mesh = Mesh(np.array(jax.devices()), ("x",))
model = bridge.load(url, like, ["h.{l}.w -> h.w"], sharding=(mesh, {"h.w": P(None, "x"), "e": P("x")}))
for leaf in jax.tree.leaves(model):
    for shard in leaf.addressable_shards:
        rows = np.arange(*shard.index[-2].indices(leaf.shape[-2]), dtype=np.float32)
        assert (np.asarray(shard.data) == rows[:, None]).all()
print("right")
"""


def test_each_process_fetches_its_own_bytes(hub: Hub):
    tensors = {f"h.{n}.w": np.repeat(np.arange(512, dtype=np.float32)[:, None], 256, 1) for n in range(4)}
    tensors["e"] = np.repeat(np.arange(1024, dtype=np.float32)[:, None], 256, 1)
    hub.web["/model.safetensors"] = save(tensors)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    # What stands behind the question mark tells the processes apart.
    urls = [f"{hub.web_url}/model.safetensors?rank={rank}" for rank in range(2)]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SHARDED, str(rank), "2", port, url],
            env=environment(hub, Path("/nowhere")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for rank, url in enumerate(urls)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [out for out, _ in outputs] == ["right\n", "right\n"], outputs
    needed = sum(tensor.nbytes for tensor in tensors.values()) // 2
    for rank in range(2):
        sent = sum(r.nbytes for r in hub.requests if f"rank={rank}" in r.path)
        assert needed <= sent <= 1.05 * needed + HEAD_NBYTES


def test_a_file_on_the_disk_needs_no_client(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(save({"a": np.zeros(3)}))
    code = f"import sys, bridge; bridge.open({str(tmp_path)!r})['a']; print(*sorted({CLIENTS} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


CLIENTS = {"aiohttp", "fsspec", "huggingface_hub"}


def test_a_client_that_is_not_installed(tmp_path: Path):
    code = """
import sys
sys.modules[sys.argv[1]] = None
import bridge
try:
    bridge.open(sys.argv[2])
except bridge.CheckpointError as error:
    print(error)
"""
    for module, source, said in (
        ("huggingface_hub", "org/name", "Install it: pip install huggingface_hub."),
        (
            "fsspec",
            "https://example.org/x.safetensors",
            text_of("store: of a kind that nobody knows").replace("'nosuch://repo'", "'https://example.org'"),
        ),
        (
            "aiohttp",
            "https://example.org/x.safetensors",
            text_of("store: of a kind that nobody knows").replace("'nosuch://repo'", "'https://example.org'"),
        ),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, module, source], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert said in done.stdout, done.stderr
        assert re.search(r"[Ii]nstall", done.stdout)
