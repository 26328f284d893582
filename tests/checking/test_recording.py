"""Recordings from strangers: whatever is wrong with one, the error is ours and names the place."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.checking.kept import Kept
from bridge.checking.recording import Recording

TENSOR = {"shape": [3, 2], "dtype": "float32", "whole": False, "file": "t0"}
TREE = {"dict": {"args": {"tuple": [{"tensor": 0}]}, "kwargs": {"dict": {}}}}
GOOD: dict[str, Any] = {
    "version": 1,
    "torch": "2",
    "class": "Net",
    "tensors": [TENSOR, {"shape": [2], "dtype": "int64", "whole": True, "file": None}],
    "modules": {"": {"class": "Net", "kind": "", "attrs": {}, "aliases": ["x"], "training": False, "params": {"w": "w"}}},
    "calls": [{"module": "", "start": 0, "end": 1, "in": TREE, "out": {"tensor": 0, "all": 1}}],
    "ops": [
        {"op": "mm", "module": "", "at": 0, "param": "w", "offset": 0, "shape": [2, 2], "strides": [1, 2]}
        | {"in": 0, "out": 0}
    ],
    "params": {"w": {"dtype": "float32", "shape": [2, 2], "storage": 0, "offset": 0, "crc": 1, "rows": {"0,1": 7}}},
    "skipped": [["a", "b"]],
}  # fmt: skip


def written(folder: Path, content: Any, metadata: dict[str, str] | None = None) -> Path:
    path = folder / "run.safetensors"
    text = content if isinstance(content, str) else json.dumps(content)
    tensors = {"t0": np.arange(4, dtype="f4").reshape(2, 2)}
    save_file(tensors, path, metadata or {"format": "bridge-recording", "recording": text})
    return path


def test_a_good_one_is_read(tmp_path: Path) -> None:
    recording = Recording.read(written(tmp_path, GOOD))
    (call,) = recording.calls_of("")
    assert isinstance(call.output, Kept)
    assert call.output.values is not None  # the whole of it was not kept
    assert call.output.rows.tolist() == [0, 2]
    assert recording.ops[0].taken is call.output


WRONG: dict[str, tuple[tuple[Any, ...], Any]] = {
    "tensors: none": (("tensors",), None),
    "a tensor that is none": (("tensors", 0), 3),
    "a shape below zero": (("tensors", 0, "shape"), [-1, 2]),
    "a shape that no array has": (("tensors", 0, "shape"), [2**60, 2**60]),
    "a shape of half an axis": (("tensors", 0, "shape"), [1.5]),
    "fewer rows than are kept": (("tensors", 0, "shape"), [1, 2]),
    "no axis": (("tensors", 0, "shape"), []),
    "whole, and of another shape": (("tensors", 0, "whole"), True),
    "whole, and no answer": (("tensors", 0, "whole"), 1),
    "another dtype": (("tensors", 0, "dtype"), "float64"),
    "no dtype": (("tensors", 0, "dtype"), "complex64"),
    "a tensor that is not in the file": (("tensors", 0, "file"), "t9"),
    "a name that is none": (("tensors", 0, "file"), ["t0"]),
    "a number that no tensor has": (("calls", 0, "out"), {"tensor": 9}),
    "true as a number": (("calls", 0, "out"), {"tensor": True}),
    "a tree of nothing known": (("calls", 0, "out"), {"what": 1}),
    "a value that is a list": (("calls", 0, "out"), {"value": [1]}),
    "a call without arguments": (("calls", 0, "in"), {"tensor": 0}),
    "a call without keywords": (("calls", 0, "in"), {"dict": {"args": {"tuple": []}, "kwargs": {"tensor": 0}}}),
    "a call of no module": (("calls", 0, "module"), "absent"),
    "a call that began nowhere": (("calls", 0, "start"), "now"),
    "a corner that is none": (("calls", 0, "corner"), 5),
    "a corner of one tensor": (("calls", 0, "corner"), {"in": {"tensor": 0}, "out": {"tensor": 0}}),
    "modules: a list": (("modules",), []),
    "a class that is a number": (("modules", "", "class"), 1),
    "an alias that is a number": (("modules", "", "aliases"), [1]),
    "parameters: a list": (("modules", "", "params"), []),
    "a product of no module": (("ops", 0, "module"), "absent"),
    "a product with a shape below zero": (("ops", 0, "shape"), [-2]),
    "a checksum that is a text": (("params", "w", "crc"), "1"),
    "rows of no matrix": (("params", "w", "rows"), {"x": 1}),
    "rows of very many digits": (("params", "w", "rows"), {"0," + "9" * 5000: 1}),
    "skipped without a reason": (("skipped",), [["a"]]),
    "a class of the model that is missing": (("class",), None),
}


def changed(case: str) -> Any:
    """A recording with one wrong place."""
    path, value = WRONG[case]
    content = copy.deepcopy(GOOD)
    place: Any = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return content


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_place_is_named(tmp_path: Path, case: str) -> None:
    with pytest.raises(bridge.CheckpointError, match=r"its recording is damaged: .*Record the run again: eqx-bridge"):
        Recording.read(written(tmp_path, changed(case)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "is not JSON"),
        ("[]", "has a list as its version"),
        ('{"version": 2}', "has the number 2 as its version, expected 1"),
        ('{"a": 1, "a": 2}', "holds the name 'a' twice"),
        ("[" * 10**5 + "]" * 10**5, "is nested deeper"),
        (json.dumps(GOOD).replace('"tensor": 0}', '"tensor": NaN}', 1), "holds NaN"),
    ],
)
def test_what_is_no_recording_s_json(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(bridge.CheckpointError, match=words):
        Recording.read(written(tmp_path, content))


def test_a_checkpoint_is_no_recording(tmp_path: Path) -> None:
    path = written(tmp_path, "", {"format": "pt"})
    with pytest.raises(bridge.CheckpointError, match="is not a recording of a PyTorch model's run"):
        Recording.read(path)


def test_values_of_any_tree_come_back(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    inner = {"dict": {"a": {"value": "x"}}}
    content["calls"][0]["out"] = {"tuple": [{"value": None}, {"value": 2.5}, {"other": "Cache"}, inner]}
    nothing, number, other, inner = Recording.read(written(tmp_path, content)).calls[0].output
    assert (nothing, number, repr(other), inner) == (None, 2.5, "<Cache>", {"a": "x"})


def test_a_recording_of_huge_claims_costs_nothing(tmp_path: Path) -> None:
    content = copy.deepcopy(GOOD)
    content["tensors"][1]["shape"] = [2**30, 2**20]
    content["tensors"][0]["shape"] = [2**57, 2]
    recording = Recording.read(written(tmp_path, content))
    assert recording.calls[0].output.rows.tolist() == [0, 2**57 - 1]


def test_check_refuses_it_too(tmp_path: Path) -> None:
    with pytest.raises(bridge.CheckpointError, match="is not a recording"):
        bridge.check(written(tmp_path, "", {"format": "pt"}), None, None)  # type: ignore[arg-type]
