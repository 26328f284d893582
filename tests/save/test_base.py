"""`base`: what no leaf is saved as comes from the checkpoint that was loaded, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM

import bridge
from tests.save.files import BF16, bits, finite, metadata, random, read, struct, write

RULES = ["bert.layers.{l}.w -> layers.w", "bert.norm -> norm"]


def full() -> dict[str, np.ndarray]:
    """A backbone in its full model, with what only PyTorch wants: a head, a buffer, a counter, odd dtypes and bits."""
    layers = {f"bert.layers.{l}.w": finite((3, 5), BF16, seed=l) for l in range(4)}
    return {
        "bert.position_ids": np.arange(7),
        **layers,
        "bert.norm": finite((3,), BF16),
        "cls.weight": random((9, 3)),
        "cls.bias": random((9,), "F16"),
        "cls.steps": np.array(3),
        "empty": np.zeros((0, 4), np.float32),
    }


def backbone() -> dict[str, Any]:
    return {"layers": {"w": jax.ShapeDtypeStruct((4, 3, 5), BF16)}, "norm": jax.ShapeDtypeStruct((3,), BF16)}


def tuned(source: Path, rules: Any = RULES) -> dict[str, Any]:
    model = bridge.load(source, backbone(), rules, allow_unexpected="**")
    return jax.tree.map(lambda x: x * 2, model)


def expected(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The tensors with a backbone twice as large."""
    own = {key: array * 2 if "layers" in key or "norm" in key else array for key, array in tensors.items()}
    return {key: bits(array) for key, array in own.items()}


def test_a_backbone_goes_back_into_its_full_model(tmp_path: Path):
    source = write(tmp_path / "in.safetensors", full(), {"format": "pt", "by": "someone"})
    model = tuned(source)
    plan = bridge.plan(source, backbone(), RULES, allow_unexpected="**")
    for name, rules in {"plan": plan, "rules": RULES}.items():
        out = tmp_path / f"{name}.safetensors"
        report = bridge.save(model, out, rules, base=source)
        assert read(out) == expected(full())
        assert list(bridge.open(out)) == list(full()), "in the order of the base"
        assert metadata(out) == {"format": "pt", "by": "someone"}
        assert report.left_out == ()
        assert report.remarks == (
            f"5 keys come from '{source}': 'bert.position_ids', 'cls.bias', 'cls.steps', 'cls.weight', 'empty'",
        )


def test_pytorch_reads_it_strictly(tmp_path: Path):
    class Full(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.norm = torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6)
            self.head = torch.nn.Linear(6, 2)

    class Body(eqx.Module):
        body: eqx.nn.Linear
        norm: eqx.nn.BatchNorm

        def __init__(self) -> None:
            self.body = eqx.nn.Linear(4, 6, key=jax.random.key(0))
            self.norm = eqx.nn.BatchNorm(6, "batch", mode="ema")

    module = Full()
    module.norm.num_batches_tracked.fill_(17)
    source = write(tmp_path / "in.safetensors", {key: value.numpy() for key, value in module.state_dict().items()})
    like = eqx.nn.make_with_state(Body)()
    model = bridge.load(source, like, allow_unexpected="head.**")
    for rules in (None, bridge.plan(source, like, allow_unexpected="head.**")):
        bridge.save(model, tmp_path / "out.safetensors", rules, base=source, overwrite=True)
        found = load_file(tmp_path / "out.safetensors")
        Full().load_state_dict(found, strict=True)
        assert all(torch.equal(found[key], value) for key, value in module.state_dict().items())


def test_transformers_reads_it(tmp_path: Path):
    """A backbone of which the head, and what ties it, stay with the base: the full model computes with both."""
    config = BertConfig(vocab_size=24, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8)
    torch.manual_seed(0)
    BertForMaskedLM(config).eval().save_pretrained(tmp_path / "full")
    rules = ["bert.encoder.layer.{l}.attention.self.{query|key|value}.** -> {query|key|value}.**"]
    like = {name: {"weight": struct((2, 8, 8)), "bias": struct((2, 8))} for name in ("query", "key", "value")}
    model = bridge.load(tmp_path / "full", like, rules, allow_unexpected="**")
    bridge.save(jax.tree.map(lambda x: x + 1, model), tmp_path / "tuned", rules, base=tmp_path / "full")
    config.save_pretrained(tmp_path / "tuned")
    found, told = BertForMaskedLM.from_pretrained(tmp_path / "tuned", output_loading_info=True)
    assert not any(told.values())
    wanted = BertForMaskedLM.from_pretrained(tmp_path / "full")
    with torch.no_grad():
        for layer in wanted.bert.encoder.layer:
            for linear in (layer.attention.self.query, layer.attention.self.key, layer.attention.self.value):
                linear.weight += 1
                linear.bias += 1
        ids = torch.arange(6)[None]
        assert torch.equal(found.eval()(ids).logits, wanted.eval()(ids).logits)


def test_a_diffusion_pipelines_folder(tmp_path: Path):
    """Its files have names of their own, which readers of pipelines look for; the index too."""
    unet = tmp_path / "pipe" / "unet"
    names = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    keys = list(full())
    parts = [keys[:3], keys[3:]]
    for name, part in zip(names, parts, strict=True):
        write(unet / name, {key: full()[key] for key in part}, {"format": "pt"})
    index = "diffusion_pytorch_model.safetensors.index.json"
    weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    (unet / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    source = tmp_path / "pipe"
    with bridge.open(source, subfolder="unet") as base:
        model = tuned(unet) | {"new": jnp.ones(3)}
        report = bridge.save(model, tmp_path / "out", RULES, base=base)
    assert report.files == (*names, index)
    assert json.loads((tmp_path / "out" / index).read_text())["weight_map"] == weight_map | {"new": names[1]}
    found = {key: value for name in names for key, value in read(tmp_path / "out" / name).items()}
    assert found == expected(full()) | {"new": bits(np.ones(3, np.float32))}
    assert report.remarks[1] == f"1 key is not in '{unet}/': 'new'"
    # The same in its own place.
    bridge.save(model, unet, RULES, base=unet, overwrite=True)
    assert bridge.diff(tmp_path / "out", unet).equal
    assert (unet / index).exists()


def test_one_file_keeps_its_name(tmp_path: Path):
    source = write(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", full())
    report = bridge.save(tuned(source), tmp_path / "out", RULES, base=tmp_path / "unet")
    assert report.files == ("diffusion_pytorch_model.safetensors",)
    bridge.save(tuned(source), tmp_path / "unet", RULES, base=tmp_path / "unet", overwrite=True)
    assert [path.name for path in (tmp_path / "unet").iterdir()] == ["diffusion_pytorch_model.safetensors"]
    assert read(source) == expected(full())


def test_elements_of_a_key_that_no_leaf_holds(tmp_path: Path):
    tensors = {"w": random((5, 2)), "other": random((3,))}
    source = write(tmp_path / "in.safetensors", tensors)
    rules = ["w [v[1:4] d] -> x [d v]"]
    like = {"x": jax.ShapeDtypeStruct((2, 3), np.float32)}
    dropping = [*rules, "w [v[:1] d] -> _", "w [v[4:] d] -> _", "other -> _"]
    for given in (rules, bridge.plan(source, like, dropping)):
        report = bridge.save({"x": jnp.ones((2, 3))}, tmp_path / "out.safetensors", given, base=source, overwrite=True)
        whole = tensors["w"].copy()
        whole[1:4] = 1
        assert read(tmp_path / "out.safetensors") == {"w": bits(whole), "other": bits(tensors["other"])}
        assert report.left_out == ()
    with pytest.raises(bridge.PlanError, match="Save without dtype="):
        bridge.save({"x": jnp.ones((2, 3))}, tmp_path / "o.safetensors", rules, base=source, dtype="bf16")


def test_a_head_of_another_size_takes_the_place_of_the_old_one(tmp_path: Path):
    source = write(tmp_path / "in.safetensors", full())
    model = tuned(source) | {"cls": {"weight": jnp.ones((2, 3))}}
    dropping = [*RULES, "cls.weight -> _"]
    plan = bridge.plan(source, model, dropping, allow_missing="cls.weight", allow_unexpected="**")
    bridge.save(model, tmp_path / "out.safetensors", plan, base=source)
    assert read(tmp_path / "out.safetensors")["cls.weight"] == bits(np.ones((2, 3), np.float32))


def test_what_is_left_out_comes_from_the_base(tmp_path: Path):
    source = write(tmp_path / "in.safetensors", full())
    plan = bridge.plan(source, backbone(), RULES, allow_unexpected="**")
    report = bridge.save(tuned(source), tmp_path / "out.safetensors", plan, base=source, leave_out="norm")
    assert read(tmp_path / "out.safetensors")["bert.norm"] == bits(full()["bert.norm"])
    assert [name for name, _ in report.left_out] == ["norm"]


@pytest.mark.parametrize("change", ["shape", "absent"])
def test_another_checkpoint_than_the_plans(tmp_path: Path, change: str):
    source = write(tmp_path / "in.safetensors", full())
    plan = bridge.plan(source, backbone(), RULES, allow_unexpected="**")
    other = full()
    key = "cls.weight"
    if change == "absent":
        del other[key]
    else:
        other[key] = random((2, 3))
    base = write(tmp_path / "other.safetensors", other)
    with pytest.raises(bridge.PlanError, match=f"'{key}'.*Give the checkpoint that the plan was made for"):
        bridge.save(tuned(source), tmp_path / "out.safetensors", plan, base=base)


SAVE = """
import sys, threading
from pathlib import Path
import jax.numpy as jnp, numpy as np
import bridge

def anonymous():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10

model = {"w": jnp.zeros((4,), jnp.float32)}
folder = sys.argv[1]
bridge.save(model, folder + "/warm.safetensors", ["w -> w"], base=folder + "/small.safetensors")
before = peak = anonymous()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
bridge.save(model, folder + "/out.safetensors", ["w -> w"], base=folder + "/in.safetensors", verify=True)
done.set()
watcher.join()
print(peak - before)
"""


def test_it_is_handed_over_a_part_at_a_time(tmp_path: Path):
    """100 MB in one tensor."""
    big = {"big": np.zeros(25 << 20, np.float32), "w": np.ones(4, np.float32)}
    write(tmp_path / "in.safetensors", big)
    write(tmp_path / "small.safetensors", {"big": np.zeros(4, np.float32), "w": np.ones(4, np.float32)})
    done = subprocess.run([sys.executable, "-c", SAVE, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 << 20
