"""Readers that fail: one error, no thread and no descriptor left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from bridge._errors import CheckpointError
from bridge.stream.direct import Read
from bridge.stream.run import run
from tests.craft import checkpoint


class Files:
    """A file of zeros whose reads fail from some offset on."""

    name, nbytes = "zeros", 1 << 40

    def __init__(self, error: BaseException, at: int):
        self.error, self.at, self.reads = error, at, 0

    def byte_source(self, file: str) -> Files:
        return self

    def readinto(self, buffers: Sequence[memoryview], offset: int) -> None:
        self.reads += 1
        if offset >= self.at:
            raise self.error
        for buffer in buffers:
            buffer[:] = bytes(buffer.nbytes)

    def close(self) -> None:
        pass


def reads(count: int) -> list[Read]:
    return [Read("zeros", n * 1000, f"key.{n}", [("leaf", 0, 1000)], 1000) for n in range(count)]


LEAVES = {"leaf": np.zeros(1000, np.uint8)}


def threads() -> int:
    return sum(thread.name.startswith("bridge-") for thread in threading.enumerate())


@pytest.mark.parametrize("count", [1, 2, 8])
def test_one_error_stops_all_threads(count: int):
    files = Files(CheckpointError("'zeros'", "cannot be read"), at=20_000)
    with pytest.raises(CheckpointError) as caught:
        run(reads(10_000), files, LEAVES, threads=count)
    assert str(caught.value).startswith("key 'key.2")
    assert str(caught.value).endswith("'zeros' cannot be read")
    assert files.reads < 5_000  # another thread may have its turn before it is told
    assert threads() == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_what_is_no_error_of_ours_arrives_as_it_is(error: BaseException):
    with pytest.raises(type(error)):
        run(reads(1000), Files(error, at=20_000), LEAVES, threads=4)
    assert threads() == 0


def test_nothing_to_do():
    run([], Files(MemoryError(), at=0), {})


def big(path: Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Of 138 MB: each thread has many reads to make."""
    tensors = {f"w{n}": np.full((1200, 1200), n, np.float32) for n in range(24)}
    path.write_bytes(checkpoint(tensors))
    return {key: jax.ShapeDtypeStruct((1200, 1200), jnp.float32) for key in tensors}


def test_a_file_cut_short_between_open_and_load(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    like = big(path)
    before = len(os.listdir("/proc/self/fd"))
    with bridge.open(path) as ckpt:
        os.truncate(path, 30_000_000)
        with pytest.raises(CheckpointError, match="key 'w") as caught:
            bridge.load(ckpt, like)
        assert str(path) in str(caught.value)
    del caught  # its traceback holds the frames of the read
    assert threads() == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_loading_again_and_again_leaves_nothing_behind(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}))
    like = {"w": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    bridge.load(path, like)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        bridge.load(path, like)
    assert len(os.listdir("/proc/self/fd")) == before
    assert threads() == 0


@pytest.mark.parametrize("at", [0, 3])
def test_a_progress_callback_that_raises_stops_the_load(tmp_path: Path, at: int):
    path = tmp_path / "model.safetensors"
    like = big(path)
    before = len(os.listdir("/proc/self/fd"))
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) > at:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bridge.load(path, like, progress=progress)
    assert len(seen) == at + 1
    assert threads() == 0
    assert len(os.listdir("/proc/self/fd")) == before
    assert (bridge.load(path, like)["w7"] == 7).all()


def test_progress_is_told_once_a_read_and_ends_at_the_total(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    like = big(path)
    seen: list[tuple[int, int]] = []
    bridge.load(path, like, progress=lambda *now: seen.append(now))
    nbytes = 24 * 1200 * 1200 * 4
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (nbytes, nbytes)
    # No call for each tensor, row or page: what a callback costs does not grow with the model's parts.
    assert len(seen) <= len(like) * 3 + 1


INTERRUPTED = """
import os, signal, sys, threading, time
import jax, numpy as np
import bridge

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and hands that down
like = {f"w{n}": jax.ShapeDtypeStruct((1 << 20,), np.float32) for n in range(60)}
bridge.plan(sys.argv[1], like)
fds, preadv = os.listdir("/proc/self/fd"), os.preadv

def slow(*arguments):
    if threading.active_count() > 1:
        os.write(1, b"reading\\n")  # at once, from two threads
        time.sleep(0.2)
    return preadv(*arguments)

os.preadv = slow
try:
    bridge.load(sys.argv[1], like)
except KeyboardInterrupt:
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("bridge")]
    print("interrupted", left, flush=True)
# Not in the handler: there the interrupt still holds the frames that it came through.
print(len(os.listdir("/proc/self/fd")) - len(fds))
os.preadv = preadv
print(float(bridge.load(sys.argv[1], like)["w59"][0]))
"""


def test_ctrl_c_in_mid_load(tmp_path: Path):
    """A real signal: no thread goes on, no descriptor stays open, and the next load is whole."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(checkpoint({f"w{n}": np.full(1 << 20, n, np.float32) for n in range(60)}))
    program = [sys.executable, "-c", INTERRUPTED, str(path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert said.replace("reading\n", "").splitlines() == ["interrupted []", "0", "59.0"]
    assert said.count("reading") < 15, "it read to the end"
