"""What the way back cannot restore bit for bit is saved as well as can be, and listed with its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.errors.promised import text_of
from tests.save.files import BF16, bits, finite, read, struct, write


def there_and_back(
    folder: Path, tensors: dict[str, np.ndarray], like: Any, rules: list[str], **options: Any
) -> tuple[dict, bridge.SaveReport]:
    source = write(folder / "model.safetensors", tensors)
    plan = bridge.plan(source, like, rules)
    assert plan.ok, plan
    report = bridge.save(bridge.load(source, like, plan), folder / "out", plan, **options)
    return read(folder / "out"), report


def test_a_sum_comes_back_as_the_sum_and_zeros(tmp_path: Path):
    tensors = {"r.bias_ih": finite((8,)), "r.bias_hh": finite((8,), seed=1)}
    back, report = there_and_back(tmp_path, tensors, {"b": struct((8,))}, ["r.bias_ih + r.bias_hh -> b"])
    assert back == {
        "r.bias_ih": bits(tensors["r.bias_ih"] + tensors["r.bias_hh"]),
        "r.bias_hh": bits(np.zeros(8, np.float32)),
    }
    reason = "a sum: saved as the sum and zeros"
    assert report.left_out == (("r.bias_ih", reason), ("r.bias_hh", reason))


def test_a_sum_of_parts(tmp_path: Path):
    tensors = {"ih": finite((12,)), "hh": finite((12,), seed=1)}
    rules = ["ih [(r|z|n)] + hh [(r|z|n)] -> {r|z|n} [_]"]
    like = {part: struct((4,)) for part in "rzn"}
    source = write(tmp_path / "model.safetensors", tensors)
    plan = bridge.plan(source, like, rules)
    assert plan.ok, plan
    bridge.save(bridge.load(source, like, plan), tmp_path / "out", plan)
    assert read(tmp_path / "out") == {"ih": bits(tensors["ih"] + tensors["hh"]), "hh": bits(np.zeros(12, np.float32))}


@pytest.mark.parametrize(("option", "value"), [("add", 1.0), ("scale", 2.0), ("scale", 3.0)])
def test_add_and_scale_are_undone(tmp_path: Path, option: str, value: float):
    tensors = {"w": finite((64,))}
    back, report = there_and_back(tmp_path, tensors, {"w": struct((64,))}, [f"w -> w ; {option}={value}"])
    restored = np.frombuffer(back["w"].data, np.float32)
    np.testing.assert_allclose(restored, tensors["w"], rtol=1e-5, atol=1e-6)
    assert report.left_out == (("w", "scale and add round"),)


def test_a_whole_number_added_to_whole_numbers_is_exact(tmp_path: Path):
    tensors = {"n": np.array([0, 100, 2**30 - 1], np.int32)}
    back, report = there_and_back(tmp_path, tensors, {"n": struct((3,), np.int32)}, [f"n -> n ; add={2**30}"])
    assert back == {"n": bits(tensors["n"])}
    assert report.left_out == ()


def test_a_whole_number_that_does_not_fit_is_an_error(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"n": np.array([3], np.uint8)})
    plan = bridge.plan(source, {"n": struct((1,), np.int32)})
    with pytest.raises(bridge.SaveError) as caught:
        bridge.save({"n": jnp.array([300], jnp.int32)}, tmp_path / "out", plan)
    assert str(caught.value) == text_of("save: a value that does not fit").replace("'a'", "'n'").replace(
        "int8", "uint8"
    )
    assert not (tmp_path / "out").exists()


def test_what_was_dropped_is_left_out(tmp_path: Path):
    tensors = {"w": finite((4,)), "rotary.inv_freq": finite((2,))}
    back, report = there_and_back(tmp_path, tensors, {"w": struct((4,))}, ["rotary.** -> _"])
    assert back == {"w": bits(tensors["w"])}
    assert report.left_out == (("rotary.inv_freq", "dropped by 'rotary.** -> _'"),)


def test_what_was_unexpected_and_allowed_is_not_saved(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"w": finite((4,)), "x": finite((2,))})
    plan = bridge.plan(source, {"w": struct((4,))}, allow_unexpected=["x"])
    report = bridge.save({"w": finite((4,))}, tmp_path / "out", plan)
    assert list(read(tmp_path / "out")) == ["w"]
    assert report.left_out == (("x", "unexpected, and allowed to be"),)


def test_what_was_narrowed_comes_back_in_its_dtype(tmp_path: Path):
    tensors = {"w": finite((64,))}
    back, report = there_and_back(tmp_path, tensors, {"w": struct((64,), BF16)}, [])
    assert back == {"w": bits(tensors["w"].astype(BF16).astype(np.float32))}
    assert report.left_out == (("w", "narrowed from float32 to bfloat16"),)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(None, "bfloat16"), ("model", "float32"), ("bf16", "bfloat16"), (jnp.float16, "float16"), (np.float32, "float32")],
)
def test_the_dtype_of_a_save(tmp_path: Path, dtype: Any, expected: str):
    tensors = {"w": finite((64,), BF16), "n": np.arange(3, dtype=np.int32)}
    like = {"w": struct((64,)), "n": struct((3,), np.int32)}
    back, _ = there_and_back(tmp_path, tensors, like, [], dtype=dtype)
    assert back == {"w": bits(tensors["w"].astype(np.float32).astype(np.dtype(expected))), "n": bits(tensors["n"])}


@pytest.mark.parametrize("dtype", [np.int32, "float8_e4m3fn", "nonsense"])
def test_a_dtype_that_makes_no_sense(tmp_path: Path, dtype: Any):
    source = write(tmp_path / "model.safetensors", {"w": finite((4,))})
    plan = bridge.plan(source, {"w": struct((4,))})
    with pytest.raises(bridge.PlanError):
        bridge.save({"w": finite((4,))}, tmp_path / "out", plan, dtype=dtype)
    assert not (tmp_path / "out").exists()


def test_a_tuned_tie_is_written_to_both_keys(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"e": (old := finite((4, 4))), "head": old})
    plan = bridge.plan(source, {"e": struct((4, 4))}, ["head -> e ; tie=true"])
    new = finite((4, 4), seed=1)
    bridge.save({"e": new}, tmp_path / "out", plan)
    assert read(tmp_path / "out") == {"e": bits(new), "head": bits(new)}


def test_a_copy_that_was_tuned_apart_is_an_error(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"a": finite((4,))})
    like = {"a": struct((4,)), "b": struct((4,))}
    plan = bridge.plan(source, like, ["a -> b ; copy=true", "a -> a"])
    new = {"a": finite((4,), seed=1), "b": finite((4,), seed=2)}
    for given in (plan, ["a -> b ; copy=true", "a -> a"]):
        with pytest.raises(bridge.PlanError, match=r"'b' is a copy of key 'a', which is saved from leaf 'a'"):
            bridge.save(new, tmp_path / "out", given)
    assert not (tmp_path / "out").exists()
    # What the error says to do
    report = bridge.save(new, tmp_path / "out", plan, leave_out=["b"])
    assert read(tmp_path / "out") == {"a": bits(new["a"])}
    assert report.left_out == (("b", "left out, as 'leave_out' says"),)
    bridge.save(new, tmp_path / "apart", ["a -> a", "b -> b"])
    assert read(tmp_path / "apart") == {"a": bits(new["a"]), "b": bits(new["b"])}


def test_a_copy_that_is_still_equal_is_written_once(tmp_path: Path):
    new = {"a": finite((4,), seed=1), "b": finite((4,), seed=1)}
    report = bridge.save(new, tmp_path, ["a -> b ; copy=true", "a -> a"])
    assert read(tmp_path) == {"a": bits(new["a"])}
    assert report.left_out == (("b", "a copy: key 'a' is saved from leaf 'a'"),)


def test_a_leaf_that_the_plan_kept_is_written_under_its_own_name(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"w": finite((4,))})
    like = {"w": struct((4,)), "head": jnp.zeros(3), "n": 7, "key": jax.random.key(0)}
    plan = bridge.plan(source, like, allow_missing=["head"])
    model = bridge.load(source, like, plan)
    report = bridge.save(model, tmp_path / "out", plan)
    assert report.left_out == ()
    assert read(tmp_path / "out") == {"w": bits(np.asarray(model["w"])), "head": bits(np.zeros(3, np.float32))}
    report = bridge.save(model, tmp_path / "without", plan, leave_out=["head"])
    assert report.left_out == (("head", "left out, as 'leave_out' says"),)
    assert read(tmp_path / "without").keys() == {"w"}


def test_a_new_layer_is_written_as_pytorch_has_it(tmp_path: Path):
    """A head that no plan knows goes through its layout: PyTorch transposes nothing, but has a bias of one axis."""
    source = write(tmp_path / "model.safetensors", {"w": finite((4,))})
    plan = bridge.plan(source, {"w": struct((4,))})
    model = {"w": finite((4,)), "up": eqx.nn.ConvTranspose1d(3, 2, 4, key=jax.random.key(1))}
    bridge.save(model, tmp_path / "out", plan)
    with bridge.open(tmp_path / "out") as ckpt:
        assert {key: spec.shape for key, spec in ckpt.specs.items()} == {
            "w": (4,),
            "up.weight": (3, 2, 4),
            "up.bias": (2,),
        }
    loaded = bridge.load(tmp_path / "out", model)
    assert (loaded["up"].weight == model["up"].weight).all()
    assert (loaded["up"].bias == model["up"].bias).all()


def test_a_new_leaf_may_not_take_a_key_of_the_plan(tmp_path: Path):
    source = write(tmp_path / "model.safetensors", {"head": finite((4,))})
    plan = bridge.plan(source, {"w": struct((4,))}, ["head -> w"])
    with pytest.raises(bridge.PlanError, match=r"'head' would be saved as 'head', .*leave_out=\['head'\]"):
        bridge.save({"w": finite((4,)), "head": finite((3,))}, tmp_path / "out", plan)


def test_half_of_a_key_cannot_be_left_out(tmp_path: Path):
    model = {"q": finite((2, 3)), "k": finite((2, 3))}
    with pytest.raises(bridge.PlanError, match="key 'qk' has elements of leaf 'k', which is left out, and of 'q'"):
        bridge.save(model, tmp_path / "out", ["qk [((q|k) d) c] -> {q|k} [d c]"], leave_out="k")


def test_a_pattern_that_leaves_nothing_out(tmp_path: Path):
    with pytest.raises(bridge.PlanError, match=r"leave_out='rope\.\*\*' matches no leaf"):
        bridge.save({"q": finite((2, 3))}, tmp_path / "out", leave_out=["rope.**"])


def test_a_part_that_was_dropped_is_saved_as_zeros(tmp_path: Path):
    tensors = {"e": finite((6, 4))}
    like, rules = {"w": struct((4, 4))}, ["e [v[:4] m] -> w [v m]", "e [v[4:] m] -> _"]
    back, report = there_and_back(tmp_path, tensors, like, rules)
    assert back == {"e": bits(np.concatenate([tensors["e"][:4], np.zeros((2, 4), np.float32)]))}
    assert report.left_out == (("e", "dropped by 'e [v[4:] m] -> _'"),)
