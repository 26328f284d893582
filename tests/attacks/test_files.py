"""What lies where a file should lie, and what happens to files that are open. Nothing hangs, nothing is half read."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bridge import _errors
from bridge.source import Checkpoint, open_checkpoint
from tests.craft import checkpoint
from tests.errors.promised import text_of

A, B = np.arange(2000, dtype=np.float32), np.arange(2000, 4000, dtype=np.float32)


def refusal(path: Path) -> str:
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_a_named_pipe_does_not_hang(tmp_path: Path):
    os.mkfifo(tmp_path / "x.safetensors")
    assert refusal(tmp_path / "x.safetensors") == text_of("file: a named pipe")
    assert "x.safetensors' is a named pipe, not a file" in refusal(tmp_path)


def test_a_device():
    assert refusal(Path("/dev/zero")) == text_of("file: a device").replace("x.safetensors", "zero")


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("x.safetensors")
        assert refusal(tmp_path / "x.safetensors") == text_of("file: a socket")


def test_a_folder_called_like_a_file(tmp_path: Path):
    (tmp_path / "x.safetensors").mkdir()
    assert refusal(tmp_path / "x.safetensors") == text_of("folder: empty").replace("./", "x.safetensors/")
    assert "' is empty. " in refusal(tmp_path)


def test_a_folder_where_the_index_has_a_file(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map":{"a":"sub"}}')
    assert "sub' is a directory, not a file." in refusal(tmp_path)


def test_a_link_to_itself_and_a_link_to_nothing(tmp_path: Path):
    (tmp_path / "x.safetensors").symlink_to("x.safetensors")
    text = text_of("file: too many open files").replace("open files", "levels of symbolic links")
    assert refusal(tmp_path / "x.safetensors") == text
    (tmp_path / "y.safetensors").symlink_to("gone")
    assert refusal(tmp_path / "y.safetensors") == text_of("file: not there").replace("x.safetensors", "y.safetensors")


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(checkpoint({"a": A}))

    def refuse(*_: object) -> int:  # root may read everything: chmod would not show it
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert refusal(path) == text_of("file: permission denied")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).replace(str(tmp_path), ".") == text_of("folder: cannot be listed")


def test_names_that_no_file_can_have(tmp_path: Path):
    for name in ("x\0y.safetensors", "x\ud800.safetensors", "n" * 300 + ".safetensors"):
        with pytest.raises(_errors.CheckpointError, match=r"is not a file name|cannot be opened: File name too long"):
            open_checkpoint(f"{tmp_path}/{name}")


def test_terminal_commands_in_names_are_not_printed(tmp_path: Path):
    path = tmp_path / "\x1b[2Jx.safetensors"
    path.write_bytes(b"")
    assert refusal(path).startswith("'\\x1b[2Jx.safetensors' holds 0 bytes")


# ---- changes between open and read


def opened(tmp_path: Path) -> tuple[Checkpoint, Path]:
    path = tmp_path / "x.safetensors"
    path.write_bytes(checkpoint({"a": A, "b": B}))
    return open_checkpoint(path), path


def check(ckpt: Checkpoint, found: str) -> None:
    with ckpt, pytest.raises(_errors.CheckpointError) as caught:
        ckpt["b"]
    text = text_of("read: the file was rewritten").replace("key 'a'", "key 'b'").replace("it is newer", "@")
    said = str(caught.value).replace(ckpt.source, "x.safetensors")
    assert re.fullmatch(re.escape(text).replace("@", found), said)


def test_a_file_that_shrinks(tmp_path: Path):
    ckpt, path = opened(tmp_path)
    os.truncate(path, 9000)
    check(ckpt, r"it held 16,1\d\d bytes, now 9,000")


def test_a_file_that_grows(tmp_path: Path):
    ckpt, path = opened(tmp_path)
    with path.open("ab") as f:
        f.write(b"more")
    check(ckpt, r"it held 16,1\d\d bytes, now 16,1\d\d")


def test_a_file_that_is_rewritten_in_place(tmp_path: Path):
    ckpt, path = opened(tmp_path)
    path.write_bytes(checkpoint({"a": B, "b": A}))  # of the same length, by the same name
    os.utime(path, ns=(0, 0))
    check(ckpt, "it is newer")


@pytest.mark.parametrize("hold", [True, False])
def test_a_file_that_is_rewritten_and_its_time_set_back(hold: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bridge.source.checkpoint.held_files", lambda: hold)
    ckpt, path = opened(tmp_path)
    before = path.stat()
    with path.open("r+b") as f:
        f.write(checkpoint({"a": B, "b": A}))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    check(ckpt, "it is newer")


HONEST = {
    "linked": lambda path: os.link(path, f"{path}.link"),
    "of another mode": lambda path: path.chmod(0o600),
    "moved": lambda path: path.rename(f"{path}.moved"),
    "moved, and another came": lambda path: (path.rename(f"{path}.moved"), path.write_bytes(b"")),
    "looked at": lambda path: path.read_bytes(),
}


@pytest.mark.parametrize("change", HONEST)
def test_a_file_whose_bytes_stay_is_read(change: str, tmp_path: Path):
    ckpt, path = opened(tmp_path)
    HONEST[change](path)
    with ckpt:
        assert ckpt["b"].tobytes() == B.tobytes()
        assert ckpt["a"].tobytes() == A.tobytes()


def test_a_file_that_is_linked_and_then_rewritten(tmp_path: Path):
    ckpt, path = opened(tmp_path)
    before = path.stat()
    os.link(path, f"{path}.link")
    assert ckpt["b"].tobytes() == B.tobytes()
    path.write_bytes(checkpoint({"a": B, "b": A}))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    check(ckpt, "it is newer")


FEW = """
import resource, sys, numpy as np, bridge
folder = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
model = bridge.load(folder, None)
assert sorted(model) == sorted(f"k{n}" for n in range(100)), sorted(model)
assert all((np.asarray(model[f"k{n}"]) == n).all() for n in range(100))
with bridge.open(folder) as ckpt:
    assert all((ckpt[key] == int(key[1:])).all() for key in ckpt)
bridge.convert(folder, sys.argv[2])
"""


def test_a_hundred_files_and_few_descriptors(tmp_path: Path):
    folder, weight_map = tmp_path / "many", {f"k{n}": f"{n:03}.safetensors" for n in range(100)}
    folder.mkdir()
    for n, (key, name) in enumerate(weight_map.items()):
        (folder / name).write_bytes(checkpoint({key: np.full(1000, n, np.float32)}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    command = [sys.executable, "-c", FEW, str(folder), str(tmp_path / "converted")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_that_is_replaced_is_read_as_it_was(tmp_path: Path):
    ckpt, path = opened(tmp_path)
    (tmp_path / "new").write_bytes(checkpoint({"a": B, "b": A}))
    os.replace(tmp_path / "new", path)
    with ckpt:
        assert ckpt["b"].tobytes() == B.tobytes()


def test_a_file_that_is_removed_is_read_as_it_was(tmp_path: Path):
    ckpt, path = opened(tmp_path)
    path.unlink()
    with ckpt:
        assert ckpt["b"].tobytes() == B.tobytes()
