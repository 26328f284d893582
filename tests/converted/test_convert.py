"""`convert`: what it writes loads without rules, is never converted again, and fits into little memory."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.errors.promised import text_of
from tests.save.files import bits, finite, read, struct, write

N = 3
TENSORS = {f"h.{n}.w": finite((4, 4), seed=n) for n in range(N)}
LIKE = {"w": struct((N, 4, 4))}
RULES = ["h.{l}.w [a b] -> w [l b a]"]
STACK = np.stack([TENSORS[f"h.{n}.w"].T for n in range(N)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "source/model.safetensors", TENSORS)


@pytest.fixture
def converted(tmp_path: Path, source: Path) -> Path:
    report = bridge.convert(source, tmp_path / "converted", LIKE, RULES)
    assert report.files == ("model.safetensors", "bridge.json", "bridge.original")
    return tmp_path / "converted"


@pytest.mark.parametrize("mmap", [True, False])
def test_it_loads_without_rules(converted: Path, mmap: bool):
    assert bits(bridge.load(converted, LIKE, mmap=mmap)["w"]) == bits(STACK)
    assert bits(bridge.load(converted, None)["w"]) == bits(STACK)
    plan = bridge.plan(converted, LIKE)
    assert plan.ok
    assert bits(bridge.load(converted, LIKE, plan, mmap=mmap)["w"]) == bits(STACK)
    assert read(converted) == {"w": bits(STACK)}


def test_its_own_rules_may_be_given_and_no_others(converted: Path, source: Path):
    for rules in (RULES, RULES[0], bridge.plan(source, LIKE, RULES), bridge.plan(source, LIKE, RULES).rules):
        assert bits(bridge.load(converted, LIKE, rules)["w"]) == bits(STACK)
    for rules in (["h.{l}.w -> w"], [*RULES, "x -> _"], "** -> **"):
        with pytest.raises(bridge.PlanError) as caught:
            bridge.load(converted, LIKE, rules)
        text = text_of("load: what was converted by other rules")
        assert str(caught.value) == text.replace("converted/", f"{converted}/", 1)


def test_its_own_plan_may_be_given(converted: Path):
    plan = bridge.plan(converted, LIKE)
    assert plan.ok
    assert bits(bridge.load(converted, LIKE, plan)["w"]) == bits(STACK)


def test_it_is_never_converted_again(tmp_path: Path, converted: Path):
    for rules in (None, RULES):
        with pytest.raises(bridge.PlanError) as caught:
            bridge.convert(converted, tmp_path / "twice", LIKE, rules)
        text = text_of("convert: what is converted already")
        assert str(caught.value) == text.replace("converted/", f"{converted}/", 1)
    assert not (tmp_path / "twice").exists()


def test_what_was_not_converted_is_not_reverted(tmp_path: Path, source: Path):
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.revert(source.parent, tmp_path / "back")
    assert str(caught.value) == text_of("revert: what was not converted").replace(
        "'x.safetensors'", f"'{source.parent}/'"
    )
    assert not (tmp_path / "back").exists()


def test_it_is_a_folder(tmp_path: Path, source: Path):
    with pytest.raises(bridge.SaveError) as caught:
        bridge.convert(source, tmp_path / "x.safetensors", LIKE, RULES)
    assert str(caught.value) == text_of("convert: to one file").replace("y.safetensors", f"{tmp_path}/x.safetensors")


def test_a_plan_that_is_not_ok_writes_nothing(tmp_path: Path, source: Path):
    with pytest.raises(bridge.PlanError):
        bridge.convert(source, tmp_path / "out", {"other": struct((3,))}, RULES)
    assert not (tmp_path / "out").exists()


def test_another_dtype(tmp_path: Path, source: Path):
    report = bridge.convert(source, tmp_path / "converted", LIKE, RULES, dtype=jnp.bfloat16)
    assert report.left_out == tuple((key, "narrowed from float32 to bfloat16") for key in TENSORS)
    like = {"w": struct((N, 4, 4), jnp.bfloat16)}
    direct = bridge.load(source, like, RULES)
    assert bits(bridge.load(tmp_path / "converted", like)["w"]) == bits(direct["w"])
    assert bits(bridge.load(tmp_path / "converted", None)["w"]) == bits(direct["w"])
    widened = bridge.load(tmp_path / "converted", LIKE)["w"]
    assert bits(widened) == bits(np.asarray(direct["w"]).astype(np.float32))


def test_another_template_is_held_against_the_leaves(converted: Path):
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(converted, {"w": struct((N, 4, 5))})
    ((leaf, key, _, got),) = caught.value.mismatched
    assert (leaf, key, got.shape) == ("w", "w", (N, 4, 4))


def test_missing_leaves_are_converted_too(tmp_path: Path, source: Path):
    like = LIKE | {"rope": struct((2,)), "head": jnp.full((2,), 3.0)}
    missing = {"rope": lambda name, spec: jnp.full(spec.shape, 7.0), "head": lambda name, spec: jnp.ones(spec.shape)}
    bridge.convert(source, tmp_path / "converted", like, RULES, allow_missing=missing)
    loaded = bridge.load(tmp_path / "converted", like)
    assert bits(loaded["rope"]) == bits(np.full(2, 7, np.float32))
    assert bits(loaded["head"]) == bits(np.ones(2, np.float32))


def test_progress(tmp_path: Path, source: Path):
    seen: list[tuple[int, int]] = []
    bridge.convert(source, tmp_path / "out", LIKE, RULES, progress=lambda done, nbytes: seen.append((done, nbytes)))
    assert seen[-1] == (N * 64, N * 64)


def test_over_a_checkpoint_of_many_files(tmp_path: Path, source: Path):
    target = tmp_path / "target"
    bridge.save(TENSORS, target, "** -> **", max_shard_size=1)
    with pytest.raises(bridge.SaveError, match="holds a checkpoint already"):
        bridge.convert(source, target, LIKE, RULES)
    for _ in range(3):
        report = bridge.convert(source, target, LIKE, RULES, overwrite=True)
        assert {path.name for path in target.iterdir()} == set(report.files)
        assert bits(bridge.load(target, LIKE)["w"]) == bits(STACK)
    bridge.save(TENSORS, target, "** -> **", max_shard_size=1, overwrite=True)
    assert len(list(target.iterdir())) == N + 1


@pytest.mark.parametrize("name", ["pwrite", "rename"])
def test_a_full_disk(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, name, full)
    with pytest.raises(bridge.SaveError, match=r"No space left on device; nothing there has changed"):
        bridge.convert(source, tmp_path / "out", LIKE, RULES)
    assert not (tmp_path / "out").exists()


def test_a_file_that_may_not_be_so_long(tmp_path: Path, source: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(bridge.SaveError, match=r"'model\.safetensors' cannot be written: File too large"):
            bridge.convert(source, tmp_path / "out", LIKE, RULES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "out").exists()


MEMORY = """
import sys, threading
from pathlib import Path
import jax
import bridge

def anonymous():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10

source, target, back = sys.argv[1:4]
like = {"w": jax.ShapeDtypeStruct((50, 1024, 1024), "float32")}
bridge.plan(source, like, ["h.{l}.w [a b] -> w [l b a]"])
before = peak = anonymous()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
bridge.convert(source, target, like, ["h.{l}.w [a b] -> w [l b a]"])
bridge.revert(target, back)
done.set()
watcher.join()
print(peak - before)
"""


def test_a_conversion_takes_little_memory(tmp_path: Path):
    """200 MB, stacked and transposed there and back: a few chunks and one tensor at a time, no leaf whole."""
    matrix = finite((1024, 1024))
    source = write(tmp_path / "source/model.safetensors", {f"h.{n}.w": matrix + np.float32(n) for n in range(50)})
    command = [sys.executable, "-c", MEMORY, source, tmp_path / "converted", tmp_path / "back"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 << 20
    assert bridge.diff(source, tmp_path / "back").equal


def test_devices_do_not_matter(tmp_path: Path, source: Path):
    """A committed template leaf: the converted form is the same."""
    like = {"w": jax.device_put(jnp.zeros((N, 4, 4)), jax.devices()[0])}
    bridge.convert(source, tmp_path / "converted", like, RULES)
    assert read(tmp_path / "converted") == {"w": bits(STACK)}
