"""Which files a source means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge import _errors
from bridge.source import open_checkpoint
from tests.craft import checkpoint
from tests.errors.promised import text_of


def file(path: Path, key: str = "a") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(checkpoint({key: np.zeros(2, np.float32)}))
    return path


def keys(*args: Any, **options: Any) -> list[str]:
    with open_checkpoint(*args, **options) as ckpt:
        return list(ckpt)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(_errors.CheckpointError) as caught:
        open_checkpoint(*args, **options)
    return str(caught.value)


def test_one_file_as_text_or_path(tmp_path: Path):
    path = file(tmp_path / "any.safetensors")
    for source in (path, str(path)):
        with open_checkpoint(source) as ckpt:
            assert ckpt.files == ("any.safetensors",)
            assert ckpt.source == str(path)
            assert ckpt.specs["a"].file == "any.safetensors"


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file(tmp_path / "org" / "name" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert keys("org/name") == ["a"]  # a path that exists, not a Hub repo
    with open_checkpoint("org/name") as ckpt:
        assert ckpt.source == "org/name/"


def test_a_list_of_files(tmp_path: Path):
    x, y = file(tmp_path / "x.safetensors", "x"), file(tmp_path / "sub" / "y.safetensors", "y")
    with open_checkpoint([y, str(x)]) as ckpt:
        assert ckpt.files == ("y.safetensors", "x.safetensors")
        assert list(ckpt) == ["y", "x"]
        assert ckpt.source == f"{y} and 1 more"
    assert keys((x,)) == ["x"]


def test_a_list_of_files_of_one_name(tmp_path: Path):
    x, y = file(tmp_path / "x" / "m.safetensors", "x"), file(tmp_path / "y" / "m.safetensors", "y")
    with open_checkpoint([x, y]) as ckpt:
        assert ckpt.files == (str(x), str(y))
        assert ckpt.specs["y"].file == str(y)
    assert refusal([x, x]) == text_of("source: a list with a file twice").replace("'x.safetensors'", f"'{x}'")
    assert refusal([]) == text_of("source: an empty list")


def test_a_key_in_two_files_of_a_list(tmp_path: Path):
    x, y = file(tmp_path / "x.safetensors"), file(tmp_path / "y.safetensors")
    assert refusal([x, y]) == (text_of("source: a list of files that share a key"))


def test_an_open_checkpoint_is_handed_back(tmp_path: Path):
    with open_checkpoint(file(tmp_path / "x.safetensors")) as ckpt:
        assert open_checkpoint(ckpt) is ckpt


def test_model_safetensors_then_the_only_one(tmp_path: Path):
    file(tmp_path / "other.safetensors", "other")
    assert keys(tmp_path) == ["other"]
    file(tmp_path / "model.safetensors", "model")
    assert keys(tmp_path) == ["model"]


def test_what_lies_beside_is_left_alone(tmp_path: Path):
    file(tmp_path / "weights.safetensors", "weights")
    for name in (
        "consolidated.safetensors",
        "consolidated.00.safetensors",
        "adapter_model.safetensors",
        "._x.safetensors",
    ):
        file(tmp_path / name, name)
    file(tmp_path / "original" / "model.safetensors")
    (tmp_path / "consolidated.safetensors.index.json").write_text("{")
    assert keys(tmp_path) == ["weights"]
    (tmp_path / "weights.safetensors").unlink()
    assert refusal(tmp_path) == (
        f"'{tmp_path}/' holds only 'adapter_model.safetensors', 'consolidated.00.safetensors', "
        "'consolidated.safetensors', which is read only if it is named. Name the file itself."
    )


def test_several_candidates_are_listed(tmp_path: Path):
    for name in ("b", "a"):
        file(tmp_path / f"{name}.safetensors")
    assert refusal(tmp_path) == (
        text_of("folder: several files and no index")
        .replace("'./'", f"'{tmp_path}/'")
        .replace("'x.safetensors'", "'a.safetensors'")
        .replace("'y.safetensors'", "'b.safetensors'")
    )


def test_an_index_of_another_name(tmp_path: Path):
    index = json.dumps({"weight_map": {"a": "x.safetensors"}})
    file(tmp_path / "x.safetensors")
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text(index)
    assert keys(tmp_path) == ["a"]
    (tmp_path / "second.safetensors.index.json").write_text(index)
    assert refusal(tmp_path) == (
        f"'{tmp_path}/' holds 2 indices: 'diffusion_pytorch_model.safetensors.index.json', "
        "'second.safetensors.index.json'. Name the file, or a list of files."
    )
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert keys(tmp_path) == ["a"]


def test_subfolder(tmp_path: Path):
    file(tmp_path / "unet" / "deep" / "model.safetensors")
    assert keys(tmp_path, subfolder="unet/deep") == ["a"]
    for outside in ("..", "a/../..", "/etc", "..\\x"):
        assert refusal(tmp_path, subfolder=outside) == (
            text_of("folder: a subfolder that leaves it").replace("'../..'", f"'{outside}'")
        )


def test_variant(tmp_path: Path):
    file(tmp_path / "model.safetensors", "plain")
    file(tmp_path / "model.fp16.safetensors", "fp16")
    assert keys(tmp_path) == ["plain"]
    assert keys(tmp_path, variant="fp16") == ["fp16"]
    assert refusal(tmp_path, variant="int8") == (
        f"'{tmp_path}/' holds no file of variant 'int8', only 'model.fp16.safetensors', "
        "'model.safetensors'. Leave `variant` out, or name one that is there."
    )


@pytest.mark.parametrize("name", ["model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"])
def test_an_index_of_a_variant(name: str, tmp_path: Path):
    file(tmp_path / "model.safetensors", "plain")
    file(tmp_path / "model.fp16-00001-of-00001.safetensors", "fp16")
    (tmp_path / name).write_text(json.dumps({"weight_map": {"fp16": "model.fp16-00001-of-00001.safetensors"}}))
    assert keys(tmp_path, variant="fp16") == ["fp16"]


def test_a_folder_without_weights(tmp_path: Path):
    wrong = "Name the folder that holds the weights; `subfolder=` names one inside it."
    assert refusal(tmp_path) == f"'{tmp_path}/' is empty. {wrong}"
    (tmp_path / "config.json").write_text("{}")
    assert refusal(tmp_path) == f"'{tmp_path}/' holds no file of weights, only 'config.json'. {wrong}"


def test_no_such_path(tmp_path: Path):
    text = text_of("source: not there")
    for source in (
        tmp_path / "absent",
        str(tmp_path / "absent"),
        "absent.safetensors",
        "org/absent.safetensors",
        "~/x",
    ):
        assert refusal(source) == text.replace("gone.safetensors", str(source))
    path = file(tmp_path / "x.safetensors")
    assert refusal(path / "below") == text.replace("gone.safetensors", f"{path}/below")


@pytest.mark.parametrize("source", [None, 3, b"bytes", "", {"a": 1}, [None]])
def test_no_source(source: object):
    shown = source[0] if isinstance(source, list) else source
    quoted = "'" + repr(shown) + "'"
    assert refusal(source) == (text_of("source: a model").replace("a value of 'ndarray'", f"{quoted}"))


def test_an_index_is_no_source(tmp_path: Path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    assert refusal(index) == text_of("source: an index by its name").replace(
        "'model.safetensors.index.json'", f"'{index}'"
    )


@pytest.mark.parametrize("stem", ["model", "diffusion_pytorch_model", "a.b"])
def test_a_variant_beside_its_file_is_no_doubt(tmp_path: Path, stem: str):
    file(tmp_path / f"{stem}.safetensors", "plain")
    file(tmp_path / f"{stem}.fp16.safetensors", "fp16")
    file(tmp_path / f"{stem}.non_ema.safetensors", "non_ema")
    assert keys(tmp_path) == ["plain"]
    assert keys(tmp_path, variant="fp16") == ["fp16"]
    (tmp_path / f"{stem}.safetensors").unlink()
    assert "holds 2 safetensors files and no index" in refusal(tmp_path)


def test_a_variant_in_several_files_beside_its_file(tmp_path: Path):
    file(tmp_path / "unet.safetensors", "plain")
    shard = file(tmp_path / "unet.fp16-00001-of-00001.safetensors", "fp16")
    index = json.dumps({"weight_map": {"fp16": shard.name}})
    for name in ("unet.safetensors.index.fp16.json", "unet.fp16.safetensors.index.json"):
        (tmp_path / name).write_text(index)
        assert keys(tmp_path) == ["plain"]
        assert keys(tmp_path, variant="fp16") == ["fp16"]
        (tmp_path / name).unlink()


def test_a_variant_beside_an_index(tmp_path: Path):
    for stem in ("unet", "unet.fp16"):
        shard = file(tmp_path / f"{stem}-00001-of-00001.safetensors", stem)
        (tmp_path / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": {stem: shard.name}}))
    assert keys(tmp_path) == ["unet"]
    assert keys(tmp_path, variant="fp16") == ["unet.fp16"]


def pipeline(path: Path) -> Path:
    """A folder as diffusers writes it."""
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        file(path / f"{name}.safetensors")
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text("{}")
    (path / "model_index.json").write_text("{}")
    return path


def test_a_pipelines_folder_names_those_that_have_weights(tmp_path: Path):
    path = pipeline(tmp_path / "pipe")
    said = f"'{path}/' holds no weights itself; these of its folders do: 'text_encoder', 'unet', 'vae'. "
    assert refusal(path) == f"{said}Choose one, as in subfolder='text_encoder'."
    (path / "model_index.json").unlink()
    assert refusal(path).startswith(said)
    for name in ("text_encoder", "unet", "vae"):
        assert keys(path, subfolder=name) == ["a"]


def test_a_subfolder_that_is_not_there(tmp_path: Path):
    path = pipeline(tmp_path / "pipe")
    assert refusal(path, subfolder="unett") == (
        f"'{path}/' has no folder 'unett'; folders with weights: 'text_encoder', 'unet', 'vae'. "
        "Check the spelling of `subfolder`."
    )
    file(tmp_path / "plain" / "model.safetensors")
    assert refusal(tmp_path / "plain", subfolder="unet") == (
        text_of("folder: no subfolder at all").replace("'./'", f"'{tmp_path}/plain/'")
    )


def test_links_that_lead_nowhere(tmp_path: Path):
    (tmp_path / "x.safetensors").symlink_to("gone/x.safetensors")
    assert "is a link to 'gone/x.safetensors', which does not exist" in refusal(tmp_path / "x.safetensors")
    assert "is a link to 'gone/x.safetensors', which does not exist" in refusal(tmp_path)
