"""Every call to the disk fails once, at every place of a load: an error in our words or the right bits, never a part.

And nothing is left behind, no thread and no descriptor. The same for files that change at that moment.
"""

from __future__ import annotations

import errno
import gc
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.save.files import INDEX, write

L = 2  # layers
ROWS = np.arange(L * 40 * 30, dtype=np.float32).reshape(L, 40, 30)
RULES = ["l.{l}.w [o i] -> w [l i o]", "l.0.b -> first ; copy=true", "l.{l}.b -> b", "l.{l}.n -> n"]
LIKE = {
    "w": jax.ShapeDtypeStruct((L, 30, 40), jnp.bfloat16),  # transposed and cast
    "b": jax.ShapeDtypeStruct((L, 4000), jnp.float32),  # straight from the file
    "first": jax.ShapeDtypeStruct((4000,), jnp.float32),
    "n": jax.ShapeDtypeStruct((L,), jnp.int32),  # checked one by one: the file has int64
}
EXPECTED = {
    "w": ROWS.transpose(0, 2, 1).astype(jnp.bfloat16),
    "b": np.stack([np.full(4000, l, np.float32) for l in range(L)]),
    "first": np.zeros(4000, np.float32),
    "n": np.arange(L, dtype=np.int32),
}


def build(folder: Path) -> None:
    """A checkpoint in two files, long ago: a change shows in the time of modification."""
    tensors: list[dict[str, np.ndarray]] = [{}, {}]
    for l in range(L):
        parts = {"w": ROWS[l], "b": np.full(4000, l, np.float32), "n": np.array(l, np.int64)}
        tensors[l % 2] |= {f"l.{l}.{name}": array for name, array in parts.items()}
    names = ["a.safetensors", "b.safetensors"]
    for name, part in zip(names, tensors, strict=True):
        write(folder / name, part)
    weight_map = {key: name for name, part in zip(names, tensors, strict=True) for key in part}
    (folder / INDEX).write_text(str({"weight_map": weight_map}).replace("'", '"'))
    for path in folder.iterdir():
        os.utime(path, ns=(0, 0))


@pytest.fixture(scope="module", autouse=True)
def _few_objects():  # pyright: ignore[reportUnusedFunction]
    """The collector looks only at what the tests make: JAX alone has hundreds of thousands of objects."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def load(source: Any) -> Any:
    return bridge.load(source, LIKE, RULES)


def values(folder: Path) -> Any:
    with bridge.open(folder) as ckpt:
        return {key: ckpt[key] for key in ckpt}


def right(found: dict[str, Any]) -> bool:
    if set(found) == set(EXPECTED):
        return all(np.asarray(found[name]).tobytes() == array.tobytes() for name, array in EXPECTED.items())
    return all(np.asarray(found[f"l.{l}.w"]).tobytes() == ROWS[l].tobytes() for l in range(L))


DOINGS: dict[str, Callable[[Path], Any]] = {
    "load": load,
    "load what is converted": lambda folder: bridge.load(folder / "converted", LIKE),
    "load what is converted without mapping it": lambda folder: bridge.load(folder / "converted", LIKE, mmap=False),
    "values": values,
}


def error(number: int) -> Callable[..., Any]:
    def fail(_real: Callable[..., Any], *_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def nothing(_real: Callable[..., int], *_args: Any) -> int:
    return 0


def one_byte(real: Callable[..., int], descriptor: int, buffers: Sequence[Any], offset: int, *flags: int) -> int:
    first = next(b for b in buffers if len(b))
    return real(descriptor, [memoryview(first).cast("B")[:1]], offset, *flags)


FAULTS: list[tuple[ModuleType, str, Callable[..., Any]]] = [
    (os, "preadv", error(errno.EIO)),
    (os, "preadv", error(errno.EINTR)),
    (os, "preadv", nothing),
    (os, "preadv", one_byte),
    (os, "open", error(errno.EMFILE)),
    (os, "stat", error(errno.EACCES)),
    (os, "fstat", error(errno.EIO)),
    (os, "scandir", error(errno.EIO)),
    (mmap, "mmap", error(errno.ENOMEM)),
]


def attempt(do: Callable[[Path], Any], folder: Path, where: ModuleType, name: str, fault: Callable, at: int) -> bool:
    """Whether call `at` came at all. Checks what `do` gave, and that nothing is left."""
    calls: list[int] = []
    real, main = getattr(where, name), threading.get_ident()
    ours = {main}

    def call(*args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() not in ours and not threading.current_thread().name.startswith("bridge-"):
            return real(*args, **kwargs)
        calls.append(1)
        return fault(real, *args, **kwargs) if len(calls) == at + 1 else real(*args, **kwargs)

    gc.collect()
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    message = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, name, call)
        try:
            found = do(folder)
        except bridge.BridgeError as caught:
            found, message = None, str(caught)
    if found is None:
        assert message
        assert len(calls) > at
        assert any(text in message for text in ("safetensors", "bridge.", "/")), message
    else:
        assert right(found)
    del found
    gc.collect()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return len(calls) > at


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    build(folder)
    bridge.convert(folder, folder / "converted", LIKE, RULES)
    assert all(right(do(folder)) for do in DOINGS.values())  # whatever is imported late is imported now
    return folder


@pytest.mark.parametrize(
    ("where", "name", "fault"), FAULTS, ids=[f"{name}-{n}" for n, (_, name, _) in enumerate(FAULTS)]
)
@pytest.mark.parametrize("doing", DOINGS)
def test_each_call_fails_once(doing: str, where: ModuleType, name: str, fault: Callable[..., Any], folder: Path):
    at = 0
    while attempt(DOINGS[doing], folder, where, name, fault, at):
        at += 1
    assert at or name in ("mmap", "scandir")


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_what_is_no_error_of_the_disk_arrives_as_it_is(kind: type[BaseException], folder: Path):
    """Ctrl-C, wherever it comes: the loading thread stops the others, and the next load is none the worse."""

    def interrupt(_real: Callable[..., int], *_args: Any) -> int:
        raise kind

    at = 0
    while True:
        try:
            if not attempt(load, folder, os, "preadv", interrupt, at):
                break
        except kind:
            pass
        gc.collect()
        assert not [t for t in threading.enumerate() if t.name.startswith("bridge-")]
        at += 1
    assert at > 4
    assert right(load(folder))


# ---- files that change at that moment


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def rewrite(path: Path) -> None:
    raw = path.read_bytes()
    with path.open("r+b") as f:
        f.seek(len(raw) // 2)
        f.write(bytes(len(raw) - len(raw) // 2))


def replace(path: Path) -> None:
    (path.parent / "new").write_bytes(bytes(path.stat().st_size))
    os.replace(path.parent / "new", path)


def remove(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("held", [True, False], ids=["held", "reopened"])
@pytest.mark.parametrize(
    "change", [cut, rewrite, replace, remove, a_folder, a_pipe], ids=lambda change: change.__name__
)
def test_a_file_that_changes_before_each_read(
    change: Callable[[Path], None], held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if not held:
        monkeypatch.setattr("bridge.source.checkpoint.held_files", lambda: 0)
    at, came = 0, True
    while came:
        folder = tmp_path / str(at)
        folder.mkdir()
        build(folder)

        def then(real: Callable[..., int], *args: Any, path: Path = folder / "b.safetensors") -> int:
            change(path)
            return real(*args)

        with bridge.open(folder) as ckpt:
            came = attempt(lambda _, ckpt=ckpt: load(ckpt), folder, os, "preadv", then, at)
        at += 1
    assert at > 4


def test_a_mapped_file_is_looked_at_before_it_is_mapped(folder: Path, tmp_path: Path):
    """Under a mapping a file that shrinks would end the process: length and identity are checked right before."""
    bridge.convert(folder, tmp_path, LIKE, RULES)
    with bridge.open(tmp_path) as ckpt:
        (file,) = ckpt.files
        cut(tmp_path / file)
        for mapped in (True, False):
            with pytest.raises(bridge.CheckpointError, match="has changed since it was opened"):
                bridge.load(ckpt, LIKE, mmap=mapped)


def test_a_mapped_file_that_is_replaced_by_a_rename_stays_as_it_was(folder: Path, tmp_path: Path):
    bridge.convert(folder, tmp_path, LIKE, RULES)
    model = bridge.load(tmp_path, LIKE)
    other = {name: np.zeros(spec.shape, spec.dtype) for name, spec in LIKE.items()}
    bridge.save(other, tmp_path, "** -> **", overwrite=True)
    assert right(model)
