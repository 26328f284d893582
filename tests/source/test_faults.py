"""What people meet: files that are not what they are called, and folders that are not the model's. Each is called that."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bridge
from tests.craft import checkpoint

TENSORS = {f"h.{n}.w": np.full((4, 4), n, np.float32) for n in range(4)}
WHOLE = checkpoint(TENSORS)
HALVES = [checkpoint(dict(list(TENSORS.items())[n : n + 2])) for n in (0, 2)]
PARTS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


def zipped() -> bytes:
    """A folder, as a browser packs it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model/model.safetensors", WHOLE)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("model.safetensors")
        member.size = len(WHOLE)
        archive.addfile(member, io.BytesIO(WHOLE))
    return out.getvalue()


FILES: dict[str, tuple[bytes, str]] = {
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "a Git LFS pointer"),
    "a web page": (b"\n <!DOCTYPE html>\n<html><title>404</title></html>", "a web page"),
    "an answer in JSON": (b'{"error": "Repository not found"}', "JSON text"),
    "an answer in words": (
        b"Access to model org/name is restricted.\nLog in.",
        "is plain text, not safetensors",
    ),
    "gzip": (gzip.compress(WHOLE), "compressed by gzip"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(99), "compressed by zstd"),
    "a zip of the folder": (zipped(), "a zip archive that holds 'model/model.safetensors'"),
    "a tar of the folder": (tarred(), "a tar archive"),
    "GGUF": (b"GGUF\x03" + bytes(99), "a GGUF file"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "a numpy array": (b"\x93NUMPY\x01\x00" + bytes(99), "a numpy .npy file"),
    "cut off in its data": (WHOLE[:-10], "cut off"),
    "cut off in its header": (WHOLE[:50], "cut off"),
    "empty": (b"", "empty or cut off"),
    "allocated and never written": (bytes(len(WHOLE)), "nothing but zeros at its start"),
    "too long": (WHOLE + b"xx", "after its last tensor"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_called_what_it_is(tmp_path: Path, kind: str) -> None:
    content, said = FILES[kind]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for source in (path, tmp_path):
        with pytest.raises(bridge.CheckpointError) as caught:
            bridge.load(source)
        assert str(caught.value).startswith(f"'{path}'")
        assert said in str(caught.value)


def index(names: list[str]) -> bytes:
    keys = zip(TENSORS, (names[0], names[0], names[1], names[1]), strict=True)
    return json.dumps({"weight_map": dict(keys)}).encode()


FOLDERS: dict[str, tuple[dict[str, bytes], tuple[str, ...]]] = {
    "two checkpoints": (
        {"a.safetensors": WHOLE, "b.safetensors": WHOLE},
        ("holds 2 safetensors files and no index: 'a.safetensors', 'b.safetensors'", "Name the file"),
    ),
    "averaged weights beside": (
        {"unet.safetensors": WHOLE, "unet_ema.safetensors": WHOLE},
        ("'unet.safetensors', 'unet_ema.safetensors'", "Name the file"),
    ),
    "parts without an index": (
        dict(zip(PARTS, HALVES, strict=True)),
        (f"parts of one checkpoint without the index that lists them: '{PARTS[0]}', '{PARTS[1]}'", "as a list"),
    ),
    "a part of another name": (
        {"model.safetensors.index.json": index(PARTS), "model-1-of-2.safetensors": HALVES[0], PARTS[1]: HALVES[1]},
        ("'model.safetensors.index.json' of '", f"/{PARTS[0]}' does not exist"),
    ),
    "GGUF alone": (
        {"m-q4.gguf": b"GGUF", "config.json": b"{}"},
        ("weights in other formats: 'm-q4.gguf' (GGUF).", "the same"),
    ),
    "Keras alone": ({"tf_model.h5": b"\x89HDF"}, ("weights in other formats: 'tf_model.h5' (HDF5).",)),
    "Flax alone": ({"flax_model.msgpack": b"\x81"}, ("'flax_model.msgpack' (Flax).",)),
    "Orbax": ({"manifest.ocdbt": b"x", "_METADATA": b"{}"}, ("'manifest.ocdbt' (Orbax).",)),
    "a download that goes on": (
        {"model.safetensors.incomplete": WHOLE[:9]},
        ("'model.safetensors.incomplete', whose download did not finish",),
    ),
    "what a trainer keeps": (
        {"optimizer.pt": b"x", "rng_state.pth": b"x", "scheduler.pt": b"x", "trainer_state.json": b"{}"},
        ("holds no weights, only what a trainer keeps for itself: 'optimizer.pt', 'rng_state.pth', 'scheduler.pt'",),
    ),
    "checkpoints of a trainer": (
        {"checkpoint-500/model.safetensors": WHOLE, "checkpoint-90/model.safetensors": WHOLE},
        ("these of its folders do: 'checkpoint-500', 'checkpoint-90'", "subfolder='checkpoint-500'"),
    ),
    "a tokenizer alone": ({"tokenizer.json": b"{}"}, ("holds no file of weights, only 'tokenizer.json'",)),
}


def files(folder: Path, held: dict[str, bytes]) -> Path:
    for name, content in held.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_told_by_what_it_holds(tmp_path: Path, kind: str) -> None:
    held, said = FOLDERS[kind]
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load(files(tmp_path / "m", held))
    assert f"'{tmp_path / 'm'}/" in str(caught.value)
    for text in said:
        assert text in str(caught.value)


def test_the_list_of_parts_loads(tmp_path: Path) -> None:
    files(tmp_path, dict(zip(PARTS, HALVES, strict=True)))
    found = bridge.load([tmp_path / name for name in PARTS])
    assert all(np.array_equal(found[key], value) for key, value in TENSORS.items())


def test_a_repos_folder_in_the_hubs_cache(tmp_path: Path) -> None:
    path = files(tmp_path / "models--org--name", {"snapshots/0/model.safetensors": WHOLE, "refs/main": b"0"})
    with pytest.raises(
        bridge.CheckpointError, match=r"is where the Hub's cache keeps a repo\. Name the repo, 'org/name'"
    ):
        bridge.open(path)
    assert len(bridge.open(path / "snapshots" / "0")) == 4


NAMES: dict[str, Callable[[Path], tuple[object, str]]] = {
    "a misspelt file": lambda at: (at / "modle.safetensors", f"Did you mean '{at}/model.safetensors'?"),
    "a blank behind it": lambda at: (f"{at}/model.safetensors ", f"Did you mean '{at}/model.safetensors'?"),
    "a page of the Hub": lambda at: ("https://huggingface.co/org/name", "Name the repo itself, 'hf://org/name'."),
    "a page about a file": lambda at: (
        "https://huggingface.co/org/name/blob/main/x.safetensors",
        "Name the repo itself, 'hf://org/name@main/x.safetensors'.",
    ),
    "a page about a folder": lambda at: ("https://huggingface.co/org/name/tree/v1/unet/", "'hf://org/name@v1/unet'."),
    "a page about data": lambda at: ("https://huggingface.co/datasets/org/name", "'hf://datasets/org/name'."),
    "a dict of arrays": lambda at: (TENSORS, "a value of 'dict' is not a source."),
    "an open file": lambda at: (io.BytesIO(WHOLE), "is not a source. Name a file"),
    "a folder in a list": lambda at: ([at], "is a directory, not a file."),
    "its index": lambda at: (at / "model.safetensors.index.json", "is an index. Name the folder"),
    "its config": lambda at: (at / "config.json", "is JSON text, not safetensors"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_source_that_is_none_says_what_was_meant(tmp_path: Path, kind: str) -> None:
    names = ("model.safetensors", "config.json", "model.safetensors.index.json")
    files(tmp_path, dict.fromkeys(names, b"{}"))
    source, said = NAMES[kind](tmp_path)
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.open(source)  # type: ignore[arg-type]
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [("fp16", "float16"), ("torch.bfloat16", "bfloat16"), ("torch.half", "float16"), ("bf16 ", None), ("bf61", None)],
)
def test_dtypes_as_people_spell_them(tmp_path: Path, spelled: str, meant: str | None) -> None:
    path = files(tmp_path, {"model.safetensors": WHOLE})
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, dtype=spelled)
    assert str(caught.value).endswith(f"Did you mean '{meant}'?" if meant else "or a mapping.")
    if meant:
        assert {str(value.dtype) for value in bridge.load(path, dtype=meant).values()} == {meant}
