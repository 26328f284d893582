"""What goes wrong in one process reaches the others in bounded time, and the target stays what it was."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.errors.promised import text_of
from tests.place.processes import Process, processes


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def said(process: Process, count: int) -> dict[str, str]:
    """The next lines, by what was tried; without seconds, which are few."""
    found = {}
    for _ in range(count):
        line = process.started.stdout.readline().rstrip("\n")
        what, _, text = line.partition(": ")
        seconds = re.search(r" \[(\d+) s\]$", text)
        assert seconds is None or int(seconds[1]) < 60, line
        found[what] = text[: seconds.start()] if seconds else text
    return found


def test_saving_together_goes_wrong(tmp_path: Path):
    out = tmp_path / "out"
    tensors = {"w": np.ones((64, 4096), np.float32), "n": np.arange(64, dtype=np.int8)}
    save_file(tensors, tmp_path / "model.safetensors")
    with processes("tests.place.failing", 2, tmp_path, devices=1) as started:
        first, second = (said(process, 8) for process in started)
        holds = text_of("save: without overwrite").replace("'.'", f"'{out}'")
        differ = text_of("processes: they save different files")
        value = text_of("processes: a value that does not fit").replace("'a' holds 300", "'n' holds 1000")
        unseen = text_of("processes: one does not see the folder").replace("'out'", f"'{tmp_path}/own-1/out'")
        late = text_of("processes: one comes too late").replace("0 s", "1 s")
        errors = {"again": holds, "metadata": differ, "late": late}
        for what, text in errors.items():
            assert first[what] == f"SaveError: {text}"
            assert second[what] == f"SaveError: process 0 could not save its part: {text}"
        for what, text in {"value": value, "elsewhere": unseen}.items():
            assert first[what] == f"SaveError: process 1 could not save its part: {text}"
            assert second[what] == f"SaveError: {text}"
        assert first["copy"] == second["copy"] == "done"
        drifted = "leaf 'v' is a copy of key 'w', which is saved from leaf 'w', but their values differ now"
        assert second["drifted"].startswith(f"PlanError: {drifted}")
        assert drifted in first["drifted"]
        assert not (tmp_path / "drifted").exists()
        assert first["after"] == second["after"] == "done"
        assert not (tmp_path / "own-0").exists()
        for process in started:
            process.wait()
        before = files(out)
        assert len(before) == 3
        for process in started:
            process.go()
        (status, found, err), (killed, _, _) = (process.end() for process in started)
        assert (status, killed) == (0, -9), err
        dead = text_of("processes: one gives no sign of life").replace("0 s", "2 s")
        assert found.startswith(f"death: SaveError: {dead}"), found
    assert files(out) == before, "the old checkpoint, whole, and nothing beside it"


def test_loading_together_goes_wrong(tmp_path: Path):
    rng = np.random.default_rng(0)
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        tensors = {key: rng.standard_normal((64, 64), np.float32) for key in "wv"}
        save_file(tensors, tmp_path / name / "model.safetensors")
        np.save(tmp_path / name / "w.npy", tensors["w"])
    same = "Give all of them the same files, of a repo the same revision='<commit>'"
    alike = "Call load with the same template, rules and sharding in all of them"

    with processes("tests.place.agreeing", 2, tmp_path, devices=1) as (first, second):
        for what, text in (
            ("values", "values"),
            ("rules", "rules or leaves"),
            ("shardings", "shardings"),
        ):
            first.wait()  # in the midst of its load
            second.wait()
            second.go()
            kind, advice = ("CheckpointError", same) if what == "values" else ("PlanError", alike)
            assert said(second, 1)[what].startswith(f"{kind}: ")
            first.go()
            found = said(first, 1)[what]
            assert found.endswith(f"processes 0 and 1 would load different {text} into one model. {advice}."), found
            assert found.startswith(f"{kind}: ")
            for process in (first, second):
                process.wait()
                process.go()
            if what == "values":
                assert said(first, 1) == said(second, 1) == {"equal": "done"}
        assert said(first, 1) == said(second, 1) == {"own": "done"}
        first.wait()
        second.wait()
        first.go()
        assert said(first, 1) == {"alone": "done"}, "it waits for nobody"
        first.wait()
        second.go()
        assert "processes 0 and 1 would load different values into one model" in said(second, 1)["alone"]
        second.wait()
        first.go()
        first.wait()  # in the midst of its load
        second.go()
        assert second.end()[0] == -9
        first.go()
        assert said(first, 1) == {"death": "done"}
        assert first.end()[0] == 0
