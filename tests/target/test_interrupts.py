"""Ctrl-C in a program that goes on, as a notebook does: the next save finds no lock, no descriptor and no stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.target import commit, stage
from bridge.target.interrupts import DeferredInterrupts
from tests.save.files import read
from tests.target.interrupting import descriptors, left, save


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    """Who is started in the background by a shell is told to ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_sixty_interrupted_saves(tmp_path: Path):
    """In a process of its own: what JAX and pytest do with an interrupt at any moment is not ours."""
    command = [sys.executable, "-m", "tests.target.interrupting", str(tmp_path), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "nothing left\n", done.stderr


WHERE = [
    (stage, "_make"),
    (stage, "_clear"),
    (stage, "_sweep"),
    (stage, "recover"),
    (commit, "_out"),
    (commit, "recover"),
    (commit, "sync"),
    (commit, "write_journal"),
    (os, "rename"),
    (os, "unlink"),
]


@pytest.mark.parametrize(("module", "name"), WHERE, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("after", [False, True])
def test_at_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, after: bool):
    """An interrupt right before a step, or right after it; the frames are kept, and the next save is as any other."""
    target, step = tmp_path / "target", getattr(module, name)
    save(target, 1)

    def ringing(*arguments: Any, **options: Any) -> Any:
        try:
            if not after:
                signal.raise_signal(signal.SIGINT)
            return step(*arguments, **options)
        finally:
            if after:
                signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, ringing)
        with pytest.raises(KeyboardInterrupt) as caught:
            save(target, 1)
    read(target)
    save(target, 0)
    assert not left(target)
    assert not descriptors(target)
    del caught  # the frames, up to here


def test_interrupts_wait_and_then_arrive():
    done: list[str] = []

    def waits() -> None:
        with DeferredInterrupts():
            signal.raise_signal(signal.SIGINT)
            done.append("waited")

    def is_let_through() -> None:
        with DeferredInterrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            done.append("waited too")
            with interrupts.let_through():
                done.append("never")

    def arrives() -> None:
        with DeferredInterrupts() as interrupts, interrupts.let_through():
            signal.raise_signal(signal.SIGINT)
            done.append("never")

    for case in (waits, is_let_through, arrives):
        with pytest.raises(KeyboardInterrupt):
            case()
    assert done == ["waited", "waited too"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_program_does_with_interrupts_is_its_own(monkeypatch: pytest.MonkeyPatch):
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        with DeferredInterrupts(), DeferredInterrupts():
            signal.raise_signal(signal.SIGINT)
            assert not came
        assert came == [signal.SIGINT]
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with DeferredInterrupts():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_none(tmp_path: Path):
    thread = threading.Thread(target=save, args=(tmp_path / "target", 1))
    thread.start()
    thread.join()
    read(tmp_path / "target")
