"""Hostile files of torch.save by all ways that lead to them: refused in our words, and nothing is run.

The cases are those of `tests/torchfile`, where each is also held to its time and memory.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import bridge
from bridge.cli.main import main
from bridge.cli.options import spoken
from tests.cli.program import run
from tests.torchfile.craft import DATA, GOOD, archive, dict_of, number, storage, tensor, text
from tests.torchfile.hostile import Hostile
from tests.torchfile.hostile_files import HOSTILE, REFUSED

# Each costs a second or two while it is refused: once is enough.
_OTHER = ("stream: something else",)  # by its first bytes it is no pickle, and read as safetensors
_DEAR = ("opcodes", "kept", "25 MB", "classes", "copies", "2**40 paths")
CASES = {name: case for name, case in HOSTILE.items() if not any(part in name for part in (*_DEAR, *_OTHER))}
LIKE = {"w": jax.ShapeDtypeStruct((4,), np.float32)}

WAYS: dict[str, Callable[[Path, Any], Any]] = {
    "open": lambda path, options: bridge.open(path, **options),
    "plan": lambda path, options: bridge.plan(path, LIKE, **options),
    "load": lambda path, options: bridge.load(path, LIKE, **options),
    "convert": lambda path, options: bridge.convert(path, "native", LIKE, **options),
    "a list": lambda path, options: bridge.open([path], **options),
    "a folder": lambda path, options: bridge.open(path.parent, **options),
    "a URL": lambda path, options: bridge.open(f"file://{path}", **options),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_refused_by_every_way(
    case: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder, empty = tmp_path / "model", tmp_path / "empty"
    folder.mkdir()
    empty.mkdir()
    monkeypatch.chdir(empty)
    path = folder / "pytorch_model.bin"
    path.write_bytes(case.content())
    for do in WAYS.values():
        with pytest.raises(bridge.CheckpointError) as refusal:
            do(path, {"root": case.root, "modules": case.modules})
        assert case.says in str(refusal.value)
        assert "pytorch_model.bin" in str(refusal.value)
        assert str(refusal.value).isprintable()
    root = [] if case.root is None else [f"--root={case.root}"]
    assert main(["inspect", str(folder), *root, *["--modules"] * case.modules]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err[:7]) == ("", "error: ")
    assert spoken(case.says) in said.err
    assert "\x1b" not in said.err
    assert [*empty.iterdir()] == []
    assert [p.name for p in folder.iterdir()] == ["pytorch_model.bin"]


PROGRAM = [
    "pickle calls: a command at the root",
    "pickle calls: a name with terminal commands",
    "pickle costs: a dict that holds itself",
]


@pytest.mark.parametrize("name", PROGRAM)
def test_refused_by_the_program(name: str, tmp_path: Path):
    case = HOSTILE[name]
    (tmp_path / "x.pth").write_bytes(case.content())
    for command in (["inspect", "x.pth"], ["diff", "x.pth", "x.pth"]):
        done = run(*command, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert spoken(case.says) in done.stderr
        assert "Traceback" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.parametrize(("value", "says"), REFUSED.values(), ids=REFUSED)
def test_one_tensor_that_cannot_be(value: bytes, says: str, tmp_path: Path):
    """The others are read; whoever uses it is told."""
    path = tmp_path / "x.pth"
    path.write_bytes(archive(dict_of({**GOOD, "x": value}), {"data/0": DATA, "data/1": DATA}))
    assert np.asarray(bridge.load(path, LIKE, allow_unexpected=["x"])["w"]).tobytes() == DATA
    assert not bridge.plan(path, LIKE).ok
    for use in (
        lambda: bridge.open(path)["x"],
        lambda: bridge.load(path, None),
        lambda: bridge.load(path, {"w": LIKE["w"]}, ["x -> w", "w -> _"]),
        lambda: bridge.convert(path, tmp_path / "native"),
        lambda: bridge.diff(path, path),
    ):
        with pytest.raises(bridge.BridgeError) as refusal:
            use()
        assert says in str(refusal.value)
    assert main(["inspect", str(path)]) == 0


def test_what_claims_to_be_ours(tmp_path: Path):
    """Names that convert writes into metadata, said by a pickle."""
    path = tmp_path / "x.pth"
    beside = text('["bridge.json", "bridge.original"]')
    path.write_bytes(archive(dict_of({**GOOD, "eqx-bridge.converted": text("1"), "eqx-bridge.beside": beside})))
    assert np.asarray(bridge.load(path, {"v": LIKE["w"]}, ["w -> v"])["v"]).tobytes() == DATA
    bridge.convert(path, tmp_path / "native")
    with pytest.raises(bridge.CheckpointError, match="was not written by convert"):
        bridge.revert(path, tmp_path / "back")


def test_a_key_that_no_terminal_may_obey(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "x.pth"
    value = dict_of({"\x1b[2J.w": tensor(), "\u202estep": number(3), "\x1b]0;x\x07": text("\x1b[2J")})
    path.write_bytes(archive(value))
    for command in (["inspect"], ["inspect", "--json"], ["diff", str(path)]):
        assert main([*command, str(path)]) == 0
    output = capsys.readouterr()
    assert set((output.out + output.err).replace("\n", "")).isdisjoint("\0\a\x1b\u202e")


def test_four_bytes_expanded(tmp_path: Path):
    """Within what is allowed they are read once, and take the memory that the leaf has."""
    path = tmp_path / "x.pth"
    path.write_bytes(archive(dict_of({"w": tensor(storage(numel=4), (1000, 1000), (0, 0), 2)})))
    loaded = bridge.load(path, None)["w"]
    assert loaded.shape == (1000, 1000)
    assert (np.asarray(loaded) == 2).all()
