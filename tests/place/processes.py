"""Programs of several JAX processes, started on 127.0.0.1 and watched from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 150


class Process:
    """One of them: it says a line, and waits for one when it has said `wait`."""

    def __init__(self, module: str, rank: int, arguments: list[str], devices: int) -> None:
        env = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, "-m", module, str(rank), *arguments]
        pipe = subprocess.PIPE
        self.rank = rank
        self.started = subprocess.Popen(command, env=env, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def wait(self) -> None:
        """Until it waits for us."""
        line = self.started.stdout.readline()
        assert line == "wait\n", line + self.started.stdout.read() + self.started.stderr.read()

    def go(self) -> None:
        """Let it go on."""
        self.started.stdin.write("go\n")
        self.started.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """Its exit status, what it said, and what it complained of."""
        out, err = self.started.communicate(timeout=_SECONDS + 30)
        return self.started.returncode, out, err

    def read_nbytes(self) -> int:
        """What the kernel says it has read by system calls."""
        fields = dict(line.split(": ") for line in Path(f"/proc/{self.started.pid}/io").read_text().splitlines())
        return int(fields["rchar"])

    def maps(self, path: Path) -> bool:
        """Whether it has a file in its address space."""
        return str(path) in Path(f"/proc/{self.started.pid}/maps").read_text()


@contextmanager
def processes(module: str, count: int, *arguments: object, devices: int = 2) -> Iterator[list[Process]]:
    """`python -m MODULE RANK COUNT PORT ARGUMENTS…`, for every rank. None of them outlives the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(count), str(port), *map(str, arguments)]
    started = [Process(module, rank, words, devices) for rank in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.started.kill()
            process.started.communicate()


def wait() -> None:
    """In such a process: tell the parent, and go on when it says so."""
    print("wait", flush=True)
    assert sys.stdin.readline() == "go\n"


def joined(arguments: list[str]) -> tuple[int, int, list[str]]:
    """In such a process: join the others. Rank, how many they are, and the rest of the arguments."""
    import jax

    signal.alarm(_SECONDS)  # whatever happens, it ends
    rank, count, port = map(int, arguments[:3])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", count, rank, initialization_timeout=60)
    return rank, count, arguments[3:]
