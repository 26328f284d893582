"""What a save writes to the disk: files of bounded length, an index that others read, metadata; and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.errors.promised import text_of
from tests.save.files import INDEX, bits, finite, metadata, read, struct, write

TENSORS = {f"layers.{n}.weight": finite((n + 1, 100), seed=n) for n in range(12)}


def saved(folder: Path, tensors: dict[str, np.ndarray] = TENSORS, **options: Any) -> bridge.SaveReport:
    return bridge.save(dict(tensors), folder, "** -> **", **options)


@pytest.mark.parametrize("limit", [1, 3000, 5000, "5KB", "0.005MB", "8 KiB", 10_000, "1GB"])
def test_no_file_is_longer_than_it_may_be(tmp_path: Path, limit: int | str):
    report = saved(tmp_path, max_shard_size=limit)
    nbytes = {"5KB": 5000, "0.005MB": 5000, "8 KiB": 8192, "1GB": 10**9}.get(str(limit), limit)
    files = [tmp_path / name for name in report.files if name != INDEX]
    for file in files:
        assert file.stat().st_size <= nbytes or len(read(file)) == 1
    assert read(tmp_path) == {key: bits(array) for key, array in TENSORS.items()}
    assert report.nbytes == sum((tmp_path / name).stat().st_size for name in report.files)
    assert {path.name for path in tmp_path.iterdir()} == set(report.files)
    if len(files) > 1:
        assert [file.name for file in files] == [
            f"model-{n + 1:05}-of-{len(files):05}.safetensors" for n in range(len(files))
        ]
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"] == {"total_size": sum(array.nbytes for array in TENSORS.values())}
        assert index["weight_map"] == {key: file.name for file in files for key in read(file)}
        assert [metadata(file) for file in files] == [{"format": "pt"}] * len(files)


def test_files_are_as_full_as_they_can_be(tmp_path: Path):
    equal = {f"w{n}": finite((256, 4), seed=n) for n in range(10)}  # 4,096 bytes each
    report = saved(tmp_path, equal, max_shard_size=4 * 4096 + 1024)
    assert [len(read(tmp_path / name)) for name in report.files if name != INDEX] == [4, 4, 2]


@pytest.mark.parametrize("limit", [0, -1, "0", "many", "5 parsecs", "", "1e9", True, None, 0.5])
def test_a_bad_max_shard_size(tmp_path: Path, limit: Any):
    with pytest.raises(bridge.SaveError) as caught:
        saved(tmp_path / "out", max_shard_size=limit)
    assert str(caught.value) == text_of("save: a size that is none").replace("'five'", repr(limit))
    assert not (tmp_path / "out").exists()


def test_one_file_by_name_is_one_file(tmp_path: Path):
    report = saved(tmp_path / "x.safetensors", max_shard_size=1)
    assert report.files == ("x.safetensors",)
    assert read(tmp_path / "x.safetensors") == {key: bits(array) for key, array in TENSORS.items()}


@pytest.mark.parametrize("given", [{}, {"format": "pt", "a": "b\n\u2192"}])
def test_metadata(tmp_path: Path, given: dict[str, str]):
    saved(tmp_path, metadata=given)
    assert (metadata(tmp_path / "model.safetensors") or {}) == given


def test_metadata_must_be_text(tmp_path: Path):
    with pytest.raises(bridge.SaveError) as caught:
        saved(tmp_path / "out", metadata={"steps": 7})
    assert str(caught.value) == text_of("save: metadata that is no text").replace("'n' is 1", "'steps' is 7").replace(
        "'1'", "'7'"
    )


def test_the_data_is_aligned_as_the_reference_has_it(tmp_path: Path):
    saved(tmp_path)
    raw = (tmp_path / "model.safetensors").read_bytes()
    assert int.from_bytes(raw[:8], "little") % 8 == 0


def test_progress_counts_all_bytes(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    saved(tmp_path, progress=lambda done, nbytes: seen.append((done, nbytes)))
    total = sum(array.nbytes for array in TENSORS.values())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_an_abstract_leaf(tmp_path: Path):
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"w": struct((3,))}, tmp_path / "out", "** -> **")
    assert str(caught.value) == text_of("save: an abstract model").replace("'a'", "'w'")


def test_a_leaf_that_was_donated(tmp_path: Path):
    gone = jnp.zeros(3)
    gone.delete()
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"w": gone}, tmp_path / "out", "** -> **")
    assert str(caught.value) == text_of("save: an array that was donated").replace("'a'", "'w'")


def test_a_model_that_the_plan_was_not_made_for(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"w": finite((4,)), "b": finite((2,))})
    plan = bridge.plan(source, {"w": struct((4,)), "b": struct((2,))})
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"w": finite((4,))}, tmp_path / "out", plan)
    assert str(caught.value) == text_of("save: by a plan of another model").replace("'a'", "'b'")
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"w": finite((5,)), "b": finite((2,))}, tmp_path / "out", plan)
    assert str(caught.value) == text_of("save: by a plan of another shape").replace("'a'", "'w'").replace(
        "(4,)", "(5,)"
    ).replace("(3,)", "(4,)")
    assert not (tmp_path / "out").exists()


def test_a_plan_that_is_not_ok(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"w": finite((4,))})
    plan = bridge.plan(source, {"v": struct((4,))})
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"v": finite((4,))}, tmp_path / "out", plan)
    assert caught.value.missing == ("v",)


def test_a_dtype_that_no_file_can_hold(tmp_path: Path):
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"w": np.zeros(3, np.complex128)}, tmp_path / "out", "** -> **")
    assert str(caught.value) == text_of("save: a dtype that has no name").replace("'a' is int4", "'w' is complex128")


def test_a_model_without_arrays(tmp_path: Path):
    with pytest.raises(bridge.PlanError) as caught:
        bridge.save({"w": 7}, tmp_path / "out", ["w -> w"])
    assert str(caught.value) == text_of("save: a model without arrays")


def test_arrays_that_are_not_contiguous(tmp_path: Path):
    array = finite((6, 8))
    model = {"t": array.T, "s": array[::2, 1:], "f": np.asfortranarray(array), "big": array.astype(">f4")}
    with pytest.raises(bridge.PlanError, match="leaf 'big' is >f4"):
        bridge.save(model, tmp_path / "out", "** -> **")
    del model["big"]
    bridge.save(model, tmp_path / "out", "** -> **")
    assert read(tmp_path / "out") == {key: bits(np.ascontiguousarray(value)) for key, value in model.items()}


def test_arrays_over_several_devices(tmp_path: Path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "x")
    array = jax.device_put(finite((8, 4)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))
    bridge.save({"w": array}, tmp_path, "** -> **")
    assert read(tmp_path) == {"w": bits(finite((8, 4)))}


@pytest.mark.torch
def test_transformers_reads_a_sharded_save(tmp_path: Path):
    import torch
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
    original = BertModel(config)
    original.save_pretrained(tmp_path / "pt")
    plan = bridge.plan(tmp_path / "pt", None, "** -> **")
    bridge.save(bridge.load(tmp_path / "pt", None, plan), tmp_path / "out", plan, max_shard_size="20KB")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 3
    config.save_pretrained(tmp_path / "out")
    state = BertModel.from_pretrained(tmp_path / "out").state_dict()
    assert list(state) == list(original.state_dict())
    for key, tensor in original.state_dict().items():
        assert torch.equal(state[key], tensor), key
    assert bridge.diff(tmp_path / "pt", tmp_path / "out").equal
