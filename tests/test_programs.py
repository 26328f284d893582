"""The programs of the design, as they stand, with small random checkpoints in place of the Hub's.

A folder named as the repo id in the current directory is taken before a repo.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge

ROOT = Path(__file__).resolve().parents[1]
BF16 = np.dtype(ml_dtypes.bfloat16)


def written(folder: Path, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype = BF16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tensors = {key: rng.standard_normal(shape, np.float32).astype(dtype) for key, shape in shapes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return tensors


def bits(array: object) -> bytes:
    return np.asarray(array).tobytes()


class Norm(eqx.Module):
    weight: jax.Array


class Linear(eqx.Module):
    weight: jax.Array


class Attention(eqx.Module):
    q: Linear
    k: Linear
    v: Linear
    o: Linear


class MLP(eqx.Module):
    gate: Linear
    up: Linear
    down: Linear


class Block(eqx.Module):
    attn: Attention
    mlp: MLP
    norm1: Norm
    norm2: Norm


class Llama(eqx.Module):
    """A Llama whose layers are one stacked module; the head is the embedding."""

    embed: Linear
    layers: Block
    norm: Norm

    def __init__(self, layers: int, d: int, *, key: jax.Array):
        def block(key: jax.Array) -> Block:
            def linear(out: int, into: int) -> Linear:
                return Linear(jax.random.normal(key, (out, into)))

            attention = Attention(linear(d, d), linear(d // 2, d), linear(d // 2, d), linear(d, d))
            mlp = MLP(linear(2 * d, d), linear(2 * d, d), linear(d, 2 * d))
            return Block(attention, mlp, Norm(jnp.ones(d)), Norm(jnp.ones(d)))

        self.embed = Linear(jnp.zeros((32, d)))
        self.layers = eqx.filter_vmap(block)(jax.random.split(key, layers))
        self.norm = Norm(jnp.ones(d))


def llama_shapes(layers: int, d: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32, d), "model.norm.weight": (d,)}
    for n in range(layers):
        at = f"model.layers.{n}"
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (d, d) for p in "qo"}
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (d // 2, d) for p in "kv"}
        shapes |= {f"{at}.mlp.{p}_proj.weight": (2 * d, d) for p in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj.weight": (d, 2 * d)}
        shapes |= {f"{at}.{p}_layernorm.weight": (d,) for p in ("input", "post_attention")}
    return shapes


LLAMA_RULES = [
    "model.embed_tokens.** -> embed.**",
    "model.norm.** -> norm.**",
    "model.layers.{l}.self_attn.*_proj.** -> layers.attn.*.**",
    "model.layers.{l}.mlp.*_proj.** -> layers.mlp.*.**",
    "model.layers.{l}.input_layernorm.** -> layers.norm1.**",
    "model.layers.{l}.post_attention_layernorm.** -> layers.norm2.**",
    "lm_head.weight -> embed.weight ; tie=true",
]


@pytest.mark.parametrize("tied", [False, True])
def test_1_a_llama_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tied: bool):
    monkeypatch.chdir(tmp_path)
    repo = Path("meta-llama/Llama-3.2-1B")
    tensors = written(repo, llama_shapes(11, 8))
    if tied:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        save_file(tensors, repo / "model.safetensors")
    like = eqx.filter_eval_shape(Llama, 11, 8, key=jax.random.key(0))
    model = bridge.load("meta-llama/Llama-3.2-1B", like, LLAMA_RULES, dtype=jnp.bfloat16)
    assert isinstance(model, Llama)
    stacked = np.stack([tensors[f"model.layers.{n}.mlp.up_proj.weight"] for n in range(11)])
    assert bits(model.layers.mlp.up.weight) == stacked.tobytes()
    assert bits(model.embed.weight) == tensors["model.embed_tokens.weight"].tobytes()
    plan = bridge.plan("meta-llama/Llama-3.2-1B", like, LLAMA_RULES, dtype=jnp.bfloat16)
    bridge.save(model, "out", plan)
    saved = load_file("out/model.safetensors")
    assert {key: saved[key].tobytes() for key in saved} == {key: value.tobytes() for key, value in tensors.items()}


class Tower(eqx.Module):
    """A small net with BatchNorm, its attributes named as a PyTorch twin's."""

    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    layer1: list[eqx.nn.Sequential]
    fc: eqx.nn.Linear

    def __init__(self, key: jax.Array):
        def norm() -> eqx.nn.BatchNorm:
            return eqx.nn.BatchNorm(4, "batch", mode="batch")

        k1, k2, k3, k4 = jax.random.split(key, 4)
        self.conv1, self.bn1 = eqx.nn.Conv2d(3, 4, 3, use_bias=False, key=k1), norm()
        self.layer1 = [eqx.nn.Sequential([eqx.nn.Conv2d(4, 4, 3, key=k), norm()]) for k in (k2, k3)]
        self.fc = eqx.nn.Linear(4, 5, key=k4)


def test_2_batch_norm_named_as_torchs_needs_no_rules(tmp_path: Path):
    norm = {"weight": (4,), "bias": (4,), "running_mean": (4,), "running_var": (4,)}
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (4, 3, 3, 3), "fc.weight": (5, 4), "fc.bias": (5,)}
    shapes |= {f"bn1.{name}": shape for name, shape in norm.items()}
    for n in range(2):
        shapes |= {f"layer1.{n}.0.weight": (4, 4, 3, 3), f"layer1.{n}.0.bias": (4,)}
        shapes |= {f"layer1.{n}.1.{name}": shape for name, shape in norm.items()}
    tensors = written(tmp_path, shapes, np.dtype(np.float32))
    counts = {key.replace("running_mean", "num_batches_tracked"): np.array(7) for key in shapes if "mean" in key}
    save_file(tensors | counts, tmp_path / "resnet18.safetensors")
    like = eqx.filter_eval_shape(eqx.nn.make_with_state(Tower), jax.random.key(0))
    model, state = bridge.load(tmp_path / "resnet18.safetensors", like)
    assert bits(model.layer1[1].layers[0].bias) == tensors["layer1.1.0.bias"].tobytes()
    mean, var = state.get(model.layer1[1].layers[1].batch_state_index)
    assert (bits(mean), bits(var)) == tuple(tensors[f"layer1.1.1.running_{x}"].tobytes() for x in ("mean", "var"))
    assert int(state.get(model.bn1.batch_counter)) == 2**30 + 7


PROGRAM_3 = """
import jax, jax.numpy as jnp, numpy as np, bridge
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "model"))
shape = lambda *s: jax.ShapeDtypeStruct(s, jnp.bfloat16)
like = {"layers": {"moe": {n: shape(3, 8, 16, 8) for n in ("gate", "up")}, "attn": {n: shape(3, 8, 8) for n in "qk"}}}
rules = ["model.layers.{l}.block_sparse_moe.experts.{e}.{w1|w3}.weight -> layers.moe.{gate|up}",
         "model.layers.{l}.self_attn.*_proj.weight -> layers.attn.*"]
repo = "mistralai/Mixtral"
specs = {"layers.moe.**": P(None, "model"), "**.attn.**": P(None, "model", None)}
plan  = bridge.plan(repo, like, rules, sharding=(mesh, specs))
model = bridge.load(repo, like, plan)
assert plan.ok, plan
ckpt = bridge.open(repo)
key = "model.layers.{}.block_sparse_moe.experts.{}.w1.weight"
gate = np.stack([np.stack([ckpt[key.format(l, e)] for e in range(8)]) for l in range(3)])
assert np.asarray(model["layers"]["moe"]["gate"]).tobytes() == gate.tobytes()
assert model["layers"]["moe"]["gate"].sharding == NamedSharding(mesh, P(None, "model"))
assert {s.data.shape for s in model["layers"]["attn"]["q"].addressable_shards} == {(3, 2, 8)}
print("ok")
"""


def test_3_experts_and_layers_on_a_mesh(tmp_path: Path):
    shapes: dict[str, tuple[int, ...]] = {}
    for n in range(3):
        at = f"model.layers.{n}"
        shapes |= {f"{at}.block_sparse_moe.experts.{e}.{w}.weight": (16, 8) for e in range(8) for w in ("w1", "w3")}
        shapes |= {f"{at}.self_attn.{p}_proj.weight": (8, 8) for p in "qk"}
    written(tmp_path / "mistralai/Mixtral", shapes)
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM_3]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "ok", done.stderr


def test_4_fine_tuned_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    tensors = written(Path("repo"), {f"layers.{n}.weight": (10, 10) for n in range(12)}, np.dtype(np.float32))
    model = {"layers": {"weight": jnp.zeros((12, 10, 10))}}
    plan = bridge.plan("repo", model)
    tuned = jax.tree.map(lambda w: w + 1, bridge.load("repo", model, plan))
    report = bridge.save(tuned, "out/", plan)
    assert report.files == ("model.safetensors",)
    saved = load_file("out/model.safetensors")
    assert {key: saved[key].tobytes() for key in saved} == {
        k: (v + np.float32(1)).tobytes() for k, v in tensors.items()
    }


def test_5_five_local_layers_to_one_global(tmp_path: Path):
    tensors = written(tmp_path, {f"model.layers.{n}.w": (4, 4) for n in range(26)}, np.dtype(np.float32))
    rules = [
        "model.layers.{l[24:]}.** -> tail.{l}.**",
        "model.layers.{(g i[:5])}.** -> groups.local.{g}.{i}.** ; i=6",
        "model.layers.{(g i[5])}.** -> groups.full.{g}.** ; i=6",
    ]

    def struct(*shape: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {"w": jax.ShapeDtypeStruct(shape, jnp.float32)}

    like = {"tail": struct(2, 4, 4), "groups": {"local": struct(4, 5, 4, 4), "full": struct(4, 4, 4)}}
    layers = [tensors[f"model.layers.{n}.w"] for n in range(26)]
    loaded = bridge.load(tmp_path, like, rules)
    assert bits(loaded["tail"]["w"]) == np.stack(layers[24:]).tobytes()
    assert bits(loaded["groups"]["local"]["w"]) == np.stack([layers[6 * g : 6 * g + 5] for g in range(4)]).tobytes()
    assert bits(loaded["groups"]["full"]["w"]) == np.stack(layers[5:24:6]).tobytes()
    bridge.save(loaded, tmp_path / "by-plan.safetensors", bridge.plan(tmp_path, like, rules))
    assert bridge.diff(tmp_path / "by-plan.safetensors", tmp_path / "model.safetensors").equal


def test_6_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    written(Path("repo"), llama_shapes(3, 8))
    like = eqx.filter_eval_shape(Llama, 3, 8, key=jax.random.key(0))
    bridge.convert("repo", "converted/", like, LLAMA_RULES)
    model = bridge.load("converted/", like)
    direct = bridge.load("repo", like, LLAMA_RULES)
    assert jax.tree.all(jax.tree.map(lambda a, b: bits(a) == bits(b), model, direct))
    bridge.revert("converted/", "back/")
    assert Path("back/model.safetensors").read_bytes() == Path("repo/model.safetensors").read_bytes()
