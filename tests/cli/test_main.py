"""The program as a whole: exit statuses, errors without traceback, nothing raw on a terminal, pipes, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bridge
from bridge.cli.main import main
from tests.cli.program import HOSTILE, MODEL, command, environment, run, weights, write

COMMANDS = ("inspect", "plan", "convert", "revert", "diff", "demo")
HUB_FLAGS = ("--revision", "--subfolder", "--variant", "--token", "--cache-dir", "--local-files-only")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    return write(tmp_path / "model.safetensors", {HOSTILE: np.ones((2, 2), "f4")}, {"\x07note": "\x1b]0;title\x07"})


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"eqx-bridge {bridge.__version__}\n"
    assert main(["--help"]) == 0
    assert set(COMMANDS) <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "--json" in out
    if name != "revert":  # what it takes was written by `convert`, on a disk
        assert all(flag in out for flag in HUB_FLAGS)


@pytest.mark.parametrize(
    "argv", [[], ["frobnicate"], ["inspect"], ["inspect", "a", "--frobnicate"], ["plan", "a"], ["diff", "a"]]
)
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: eqx-bridge")


def test_an_argument_that_is_none_is_not_printed_raw(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "a", "--\x1b[2J"]) == 2
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert r"--\x1b[2J" in err


def lfs_pointer(folder: Path) -> Path:
    file = folder / "lfs.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    return file


def only_pickles(folder: Path) -> Path:
    (folder / "pytorch_model.bin").write_bytes(b"x")
    return folder


def incomplete(folder: Path) -> Path:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    return folder


def escaping(folder: Path) -> Path:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lfs_pointer, "lfs.safetensors"),
        (only_pickles, "pytorch_model.bin"),
        (incomplete, "gone.safetensors"),
        (escaping, "../x.safetensors"),
        (lambda folder: folder, "is empty"),
        (lambda folder: folder / "absent.safetensors", "absent.safetensors"),
    ],
    ids=["lfs", "pickles", "incomplete", "escaping", "empty", "absent"],
)
def test_a_problem_in_the_data_is_1_and_a_message(
    make, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(make(tmp_path))]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err


def test_the_program_itself_ends_with_these_statuses(tmp_path: Path) -> None:
    file = write(tmp_path / "model.safetensors", weights())
    done, problem, usage = run("inspect", file), run("inspect", tmp_path / "absent.safetensors"), run("frobnicate")
    assert [r.returncode for r in (done, problem, usage)] == [0, 1, 2]
    assert (done.stderr, problem.stdout, usage.stdout) == ("", "", "")
    assert "Traceback" not in problem.stderr + usage.stderr


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_nothing_from_a_file_is_printed_raw(
    hostile: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(hostile), *flags]) == 0
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\u202e")
    assert "[bold red]key[/]" in out  # and nothing of the key is taken for markup
    if flags:
        assert list(json.loads(out)["tensors"]) == [HOSTILE]
    else:
        assert r"\x1b[2J[bold red]key[/]\u202e.weight" in out


def test_nothing_from_a_file_is_printed_raw_by_plan_and_diff(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hostile_model.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    other = write(tmp_path / "other.safetensors", {"b": np.ones(2, "f4")})
    assert main(["plan", str(hostile), "--like", "hostile_model:make"]) == 1
    assert main(["diff", str(hostile), str(other)]) == 1
    assert main(["inspect", str(tmp_path / "\x1b[2J.safetensors")]) == 1
    text = "".join(capsys.readouterr())
    assert not set(text) & set("\x1b\x07\u202e")
    assert text.count(r"\x1b[2J[bold red]key[/]\u202e.weight") >= 2


def on_terminal(*arguments: object, **extra: str) -> tuple[int, str]:
    """Exit status and what a terminal of 60 columns is sent."""
    ours, theirs = pty.openpty()
    env = environment(TERM="xterm-256color", COLUMNS="60", **extra)
    with subprocess.Popen(command(*arguments), env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        os.close(ours)
        status = process.wait(timeout=120)
    return status, said.decode()


def test_a_terminal_gets_styles_of_ours_and_none_of_the_file(hostile: Path) -> None:
    status, said = on_terminal("inspect", hostile)
    assert status == 0
    assert re.search(r"\x1b\[1m", said)  # our own title is bold
    unstyled = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert not set(unstyled) & set("\x1b\x07\u202e")
    assert "\x1b[2J" not in said


def test_a_long_key_is_whole_in_a_pipe_and_wrapped_on_a_terminal(tmp_path: Path) -> None:
    key = ".".join(f"part{n}x" for n in range(20))
    file = write(tmp_path / "m.safetensors", {key: np.ones(1, "f4")})
    assert key in run("inspect", file).stdout
    _, said = on_terminal("inspect", file, NO_COLOR="1")
    column = "".join(line.split("  ")[0].strip() for line in said.splitlines())
    assert key in column


def test_a_reader_that_goes_away_ends_the_program_quietly(tmp_path: Path) -> None:
    file = write(tmp_path / "m.safetensors", {f"key{n}x": np.ones(n % 7 + 1, "f4") for n in range(20_000)})
    for flags in ([], ["--json"]):
        with subprocess.Popen(
            command("inspect", file, *flags), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(timeout=120) == 141


def test_an_output_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    file = write(tmp_path / "m.safetensors", weights())
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *command("inspect", file)]
    with open(tmp_path / "output", "wb") as output:
        ended = subprocess.run(
            limited, env=environment(), stdout=output, stderr=subprocess.PIPE, text=True, timeout=120, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, "error: the system says: [Errno 27] File too large\n")


def test_ctrl_c_is_130(tmp_path: Path) -> None:
    # A shell's background job ignores the signal, and hands that down to what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    (tmp_path / "slow_model.py").write_text(
        "import pathlib, time\npathlib.Path('started').touch()\ntime.sleep(60)\ndef make(): pass\n"
    )
    file = write(tmp_path / "m.safetensors", weights())
    with subprocess.Popen(
        command("plan", file, "--like", "slow_model:make"), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")


def test_a_terminal_without_utf8_gets_escapes(tmp_path: Path) -> None:
    file = write(tmp_path / "m.safetensors", {"größe": np.ones(1, "f4")})
    ended = run("inspect", file, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ended.returncode == 0
    assert r"gr\xf6\xdfe" in ended.stdout


def test_inspecting_needs_neither_jax_nor_torch(tmp_path: Path) -> None:
    file = write(tmp_path / "m.safetensors", weights())
    code = "import sys; from bridge.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(file)],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(ended.stdout.splitlines()[-1].split())
    assert {"rich", "numpy", "bridge.cli.inspect"} <= loaded
    assert not loaded & {"jax", "equinox", "torch", "transformers", "huggingface_hub"}
