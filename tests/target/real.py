"""Cases of `test_real.py`, run as a program: what the system itself refuses, without a stand-in for any call.

`denied FOLDER`: a user who may not read or write there. `full FOLDER`: a disk of two megabytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bridge
from tests.target.places import MANY, NEW, OLD, ONE, expected, held, names, save

LIKE = {key: jax.ShapeDtypeStruct(value.shape, jnp.float32) for key, value in NEW.items()}
BIG = {"big": np.zeros((1 << 20,), np.float32)}


def refused(kind: type[bridge.BridgeError], do: Callable[[], object], *words: str) -> None:
    """An error of this kind that says all of these words."""
    try:
        do()
    except kind as error:
        assert all(word in str(error) for word in words), error  # noqa: PT017
    else:
        raise AssertionError(f"nothing was refused where {words} was expected")


def lower_rights() -> None:
    """Nobody may go everywhere: become a user who may not, where this is the one who may."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def denied(folder: Path) -> None:
    """A folder that may be read and not written, and files that may not be read."""
    for name, limit in (("one", ONE), ("many", MANY)):
        save(OLD, folder / name, limit)
    save(NEW, folder / "source", ONE)
    bridge.convert(folder / "source", folder / "converted", LIKE)
    save(OLD, folder / "secret", ONE)
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    (folder / "secret/model.safetensors").chmod(0)
    bridge.load(folder / "source", LIKE)  # everything is imported while it may be
    before = {path: names(path) for path in folder.iterdir()}
    lower_rights()
    for name in ("one", "many"):
        for limit in (ONE, MANY):
            refused(bridge.SaveError, lambda n=name, x=limit: save(NEW, folder / n, x), "Permission denied", name)
        assert held(folder / name) == expected(OLD)
    refused(bridge.SaveError, lambda: save(NEW, folder / "new", ONE), "Permission denied", "nothing there has changed")
    for target in ("converted", "other"):
        converting = lambda to=target: bridge.convert(folder / "one", folder / to, dict(OLD), overwrite=True)  # noqa: E731
        refused(bridge.SaveError, converting, "Permission denied")
    assert held(folder / "converted") == expected(NEW)
    refused(
        bridge.CheckpointError,
        lambda: bridge.load(folder / "secret", None),
        "permission denied",
        "secret/model.safetensors",
    )
    assert {path: names(path) for path in folder.iterdir()} == before


def full(folder: Path) -> None:
    """A disk that has no room for a new checkpoint, and then has."""
    ballast = folder / "ballast"
    for name, limit in (("one", ONE), ("many", MANY)):
        save(OLD, folder / name, limit)
    bridge.convert(folder / "one", folder / "converted", dict(OLD))
    for name in ("one", "many"):
        for limit in (ONE, MANY):
            refused(bridge.SaveError, lambda n=name, x=limit: save(BIG, folder / n, x), "No space left", "Make room")
            assert held(folder / name) == expected(OLD)
    source = write_elsewhere(folder)
    refused(
        bridge.SaveError, lambda: bridge.convert(source, folder / "converted", None, overwrite=True), "No space left"
    )
    assert held(folder / "converted") == expected(OLD)
    # Not a byte: even what only notes what is going on finds no room.
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert "No space left" in str(error)  # noqa: PT017
    refused(bridge.SaveError, lambda: save(NEW, folder / "one", ONE), "No space left")
    assert held(folder / "one") == expected(OLD)
    ballast.unlink()
    for name in ("one", "many"):
        report = save(NEW, folder / name, ONE)
        assert held(folder / name) == expected(NEW)
        assert names(folder / name) == set(report.files)  # what the failures left is gone
    assert {path.name for path in folder.iterdir()} == {"one", "many", "converted"}


def write_elsewhere(folder: Path) -> Path:
    """A checkpoint on another disk."""
    place = Path(os.environ["ELSEWHERE"])
    bridge.save(BIG, place, ["** -> **"])
    return place


if __name__ == "__main__":
    {"denied": denied, "full": full}[sys.argv[1]](Path(sys.argv[2]))
    print("ok")
