"""Convert, then revert: the files as they were, byte for byte, whatever was in them; and loading what was converted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import bridge
from tests.craft import craft, entry
from tests.errors.promised import text_of
from tests.save.files import BF16, INDEX, bits, finite, metadata, random, read, struct, write

N = 3
LAYERS = {f"h.{n}.w": finite((4, 4), seed=n) for n in range(N)}
STACK = {"w": struct((N, 4, 4))}
RULE = "h.{l}.w [a b] -> w [b l a]"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_back(folder: Path, source: Any, like: Any = None, rules: Any = None, **options: Any) -> None:
    """Convert and revert; the files that come out are those in `folder/source`."""
    report = bridge.convert(source, folder / "converted", like, rules, **options)
    assert {path.name for path in (folder / "converted").iterdir()} == set(report.files)
    assert report.nbytes == sum(path.stat().st_size for path in (folder / "converted").iterdir())
    report = bridge.revert(folder / "converted", folder / "back")
    assert contents(folder / "back") == contents(folder / "source")
    assert set(report.files) == set(contents(folder / "back"))
    assert report.nbytes == sum(map(len, contents(folder / "back").values()))


def one(folder: Path, tensors: dict[str, np.ndarray], meta: dict[str, str] | None = None) -> Path:
    return write(folder / "source/model.safetensors", tensors, meta)


def test_one_file(tmp_path: Path):
    check_back(tmp_path, one(tmp_path, LAYERS, {"format": "pt", "a\n": "\u2192"}), {"w": struct((4, N, 4))}, RULE)


def test_a_file_of_another_name(tmp_path: Path):
    check_back(tmp_path, write(tmp_path / "source/resnet18.safetensors", LAYERS), {"w": struct((4, N, 4))}, RULE)


def test_no_template_and_no_rules(tmp_path: Path):
    check_back(tmp_path, one(tmp_path, LAYERS))
    assert read(tmp_path / "converted") == {key: bits(array) for key, array in LAYERS.items()}


def many(folder: Path, tensors: dict[str, np.ndarray], *, indent: int | None = 4, **more: Any) -> Path:
    files = [f"model-{n + 1:05}-of-{len(tensors):05}.safetensors" for n in range(len(tensors))]
    for file, (key, array) in zip(files, tensors.items(), strict=True):
        write(folder / file, {key: array}, {"format": "pt", "file": file})
    weight_map = dict(reversed(list(zip(tensors, files, strict=True))))
    (folder / INDEX).write_text(json.dumps({**more, "weight_map": weight_map}, indent=indent))
    return folder


@pytest.mark.parametrize("more", [{}, {"metadata": {"total_size": 1, "x": [1.5]}}, {"metadata": None, "other": "kept"}])
def test_several_files_and_their_index(tmp_path: Path, more: dict[str, Any]):
    check_back(tmp_path, many(tmp_path / "source", LAYERS, **more), {"w": struct((4, N, 4))}, RULE)


def test_files_below_the_folder(tmp_path: Path):
    source = tmp_path / "source"
    weight_map = {key: f"part/{n}/model.safetensors" for n, key in enumerate(LAYERS)}
    for key, file in weight_map.items():
        write(source / file, {key: LAYERS[key]})
    (source / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    check_back(tmp_path, source)


def test_a_list_of_files_gets_an_index(tmp_path: Path):
    files = [write(tmp_path / f"source/{key}.safetensors", {key: array}) for key, array in LAYERS.items()]
    bridge.convert(files, tmp_path / "converted")
    report = bridge.revert(tmp_path / "converted", tmp_path / "back")
    assert contents(tmp_path / "back").items() >= contents(tmp_path / "source").items()
    assert set(report.files) == {*(file.name for file in files), INDEX}
    assert bridge.diff(files, tmp_path / "back").equal


def test_a_list_of_files_of_one_name(tmp_path: Path):
    files = [write(tmp_path / f"{n}/x.safetensors", {key: LAYERS[key]}) for n, key in enumerate(LAYERS)]
    bridge.convert(files, tmp_path / "converted")
    bridge.revert(tmp_path / "converted", tmp_path / "back")
    assert bridge.diff(files, tmp_path / "back").equal


def test_stale_tensors(tmp_path: Path):
    """Tensors that the index does not list, or lists for another file: no part of the checkpoint, but of its files."""
    source = tmp_path / "source"
    write(source / "a.safetensors", {"x": finite((4,)), "y": finite((3,), seed=1), "old": finite((2,))})
    write(source / "b.safetensors", {"y": finite((4,), seed=2), "x": finite((1,), seed=3)})
    (source / INDEX).write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    check_back(tmp_path, source)
    assert set(read(tmp_path / "converted")) == {"x", "y"}


def test_unusual_headers(tmp_path: Path):
    """Blanks, unaligned data, unknown fields, tensors out of the header's order, empty tensors."""
    header = {
        "b": entry("F32", [2], 4, 12),
        "e": entry("F32", [0, 5], 12, 12),
        "a": {**entry("U8", [4], 0, 4), "extra": [1]},
        "s": entry("BF16", [], 12, 14),
        "__metadata__": {},
    }
    (tmp_path / "source").mkdir()
    path = tmp_path / "source/model.safetensors"
    path.write_bytes(craft(f" {json.dumps(header, indent=1)}   ", bytes(range(14))))
    check_back(tmp_path, path)


@pytest.mark.parametrize(
    "dtype", ["F4", "F6_E2M3", "F6_E3M2", "F8_E4M3", "F8_E5M2", "F8_E8M0", "C64", "BOOL", "I64", "U64", "F64"]
)
def test_every_dtype_that_is_not_mapped(tmp_path: Path, dtype: str):
    """Dropped: the leaves hold none of it, so the bytes are kept beside them."""
    nbytes = {"F4": 8, "F6_E2M3": 12, "F6_E3M2": 12, "C64": 128, "I64": 128, "U64": 128, "F64": 128}.get(dtype, 16)
    (tmp_path / "source").mkdir()
    path = tmp_path / "source/model.safetensors"
    data = bytes(range(nbytes)) if dtype != "BOOL" else bytes([0, 1] * 8)
    header = {"q": entry(dtype, [4, 4], 0, nbytes), "w": entry("F32", [1], nbytes, nbytes + 4)}
    path.write_bytes(craft(header, data + b"\x00\x00\x80?"))
    check_back(tmp_path, path, {"w": struct((1,))}, ["q -> _"])


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F8_E4M3", "I32", "U8", "BOOL"])
def test_every_dtype_that_is(tmp_path: Path, dtype: str):
    source = one(tmp_path, {f"h.{n}.w": random((4, 4), dtype, seed=n) for n in range(N)})
    check_back(tmp_path, source, {"w": struct((4, N, 4))}, RULE, dtype="checkpoint")


def test_whole_numbers_that_jax_makes_narrower(tmp_path: Path):
    check_back(tmp_path, one(tmp_path, {"n": np.arange(5), "m": np.array(7, np.uint64)}))


LOSSY: dict[str, tuple[dict[str, np.ndarray], Any, list[str], dict[str, Any]]] = {
    "narrowed": (LAYERS, STACK, ["h.{l}.w -> w"], {"dtype": jnp.bfloat16}),
    "widened": ({"w": random((64,), "BF16")}, {"w": struct((64,))}, [], {}),
    "dropped": (LAYERS | {"x": finite((3,))}, STACK, ["h.{l}.w -> w", "x -> _"], {}),
    "dropped in part": (
        {"e": finite((6, 4))},
        {"w": struct((4, 4))},
        ["e [v[:4] m] -> w [v m]", "e [v[4:] m] -> _"],
        {},
    ),
    "ignored": (LAYERS | {"x": finite((3,))}, STACK, ["h.{l}.w -> w"], {"allow_unexpected": ["x"]}),
    "a sum": ({"a": finite((3,)), "b": finite((3,), seed=1)}, {"c": struct((3,))}, ["a + b -> c"], {}),
    "add": ({"a": finite((3,))}, {"a": struct((3,))}, ["a -> a ; add=1.0"], {}),
    "scale": ({"a": finite((3,))}, {"a": struct((3,))}, ["a -> a ; scale=3.0"], {}),
    "a tie": ({"a": finite((3,)), "b": finite((3,))}, {"a": struct((3,))}, ["b -> a ; tie=true"], {}),
    "a copy": ({"a": finite((3,))}, {"a": struct((3,)), "b": struct((3,))}, ["a -> b ; copy=true", "a -> a"], {}),
    "only a copy": ({"a": finite((3,))}, {"b": struct((3,))}, ["a -> b ; copy=true"], {}),
    "missing": (LAYERS, {**STACK, "n": jnp.full((2,), 7.0)}, ["h.{l}.w -> w"], {"allow_missing": ["n"]}),
    "nothing mapped": ({"x": finite((3,))}, {"n": jnp.zeros(2)}, ["x -> _"], {"allow_missing": ["n"]}),
}


@pytest.mark.parametrize("case", LOSSY)
def test_what_the_leaves_cannot_give_back_is_kept(tmp_path: Path, case: str):
    tensors, like, rules, options = LOSSY[case]
    source = one(tmp_path, tensors)
    check_back(tmp_path, source, like, rules, **options)
    direct = bridge.load(source, like, rules, **options)
    converted = bridge.load(tmp_path / "converted", jax.eval_shape(lambda: direct))
    assert jax.tree.map(bits, converted) == jax.tree.map(bits, direct)


class Net(eqx.Module):
    conv: eqx.nn.ConvTranspose2d
    bn: eqx.nn.BatchNorm
    cell: eqx.nn.GRUCell
    width: int

    def __init__(self, key: jax.Array):
        a, b = jax.random.split(key)
        self.conv = eqx.nn.ConvTranspose2d(2, 4, 3, key=a)
        self.bn = eqx.nn.BatchNorm(4, "batch", mode="batch")
        self.cell = eqx.nn.GRUCell(4, 4, key=b)
        self.width = 4


def net_tensors() -> dict[str, np.ndarray]:
    shapes = {
        "conv.weight": (2, 4, 3, 3),
        "conv.bias": (4,),
        **{f"bn.{name}": (4,) for name in ("weight", "bias", "running_mean", "running_var")},
        **{f"cell.weight_{name}": (12, 4) for name in ("ih", "hh")},
        **{f"cell.bias_{name}": (12,) for name in ("ih", "hh")},
    }
    tensors = {key: finite(shape, seed=n) for n, (key, shape) in enumerate(shapes.items())}
    return tensors | {"bn.num_batches_tracked": np.array(7)}


def test_a_model_and_its_state(tmp_path: Path):
    like = eqx.filter_eval_shape(eqx.nn.make_with_state(Net), jax.random.key(0))
    source = one(tmp_path, net_tensors())
    check_back(tmp_path, source, like)
    direct, converted = bridge.load(source, like), bridge.load(tmp_path / "converted", like)
    assert jax.tree.structure(direct) == jax.tree.structure(converted)
    assert [bits(x) for x in jax.tree.leaves(eqx.filter(converted, eqx.is_array))] == [
        bits(x) for x in jax.tree.leaves(eqx.filter(direct, eqx.is_array))
    ]


def test_a_real_checkpoint(tmp_path: Path, minilm: Path):
    bridge.convert(minilm, tmp_path / "converted", None, ["encoder.layer.{l}.** -> layers.**", "** -> **"])
    bridge.revert(tmp_path / "converted", tmp_path / "back")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (minilm / "model.safetensors").read_bytes()


def test_over_another_checkpoint_and_into_one_file(tmp_path: Path):
    source = one(tmp_path, LAYERS)
    bridge.convert(source, tmp_path / "converted", None)
    bridge.revert(tmp_path / "converted", tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").read_bytes() == source.read_bytes()
    many(tmp_path / "many", LAYERS)
    with pytest.raises(bridge.SaveError, match="holds a checkpoint already"):
        bridge.revert(tmp_path / "converted", tmp_path / "many")
    bridge.revert(tmp_path / "converted", tmp_path / "many", overwrite=True)
    assert contents(tmp_path / "many") == {"model.safetensors": source.read_bytes()}
    bridge.convert(many(tmp_path / "again", LAYERS), tmp_path / "converted", overwrite=True)
    with pytest.raises(bridge.SaveError) as caught:
        bridge.revert(tmp_path / "converted", tmp_path / "y.safetensors")
    assert str(caught.value) == text_of("revert: several files to one").replace(
        "'y.safetensors'", f"'{tmp_path}/y.safetensors'"
    ).replace("had 2", "had 3")
    bridge.revert(tmp_path / "converted", tmp_path / "again", overwrite=True)
    assert bridge.diff(tmp_path / "again", source).equal
    assert metadata(next((tmp_path / "again").glob("model-00001*")))["file"] == "model-00001-of-00003.safetensors"


def test_leaves_start_where_jax_can_map_them(tmp_path: Path):
    tensors = {"odd": random((3,), "U8"), "a": finite((16,)), "half": finite((5,), BF16), "b": finite((64, 3))}
    bridge.convert(one(tmp_path, tensors), tmp_path / "converted")
    with bridge.open(tmp_path / "converted") as ckpt:
        assert [ckpt.specs[key].offset % 64 for key in ("a", "b")] == [0, 0]
        assert all(spec.offset % spec.dtype.itemsize == 0 for spec in ckpt.specs.values())
    assert ml_dtypes.bfloat16 == BF16
