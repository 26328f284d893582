"""Cases of `test_sharding.py`, run as a program under eight host devices."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

import bridge

N, D, F, E = 4, 16, 8, 8
RULES = [
    "h.{l}.attn.c.weight [m (q|k|v)] -> attn.{q|k|v} [l _ m]",
    "h.{l}.moe.{e}.w [f m] -> moe [e l m f]",
    "h.{l}.ln.bias + h.{l}.ln.bias2 -> ln",
    "h.{l}.out.weight [(g d) m] -> out [l g d m] ; g=8",
]


def written(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = {"attn.c.weight": (D, 3 * D), "ln.bias": (D,), "ln.bias2": (D,), "out.weight": (8 * 2, D)}
    shapes |= {f"moe.{e}.w": (F, D) for e in range(E)}
    tensors = {f"h.{n}.{name}": rng.standard_normal(s, np.float32) for n in range(N) for name, s in shapes.items()}
    tensors["plain"] = rng.standard_normal((D, D), np.float32)
    save_file(tensors, folder / "model.safetensors")
    leaves = {
        "attn": {
            part: np.stack([tensors[f"h.{n}.attn.c.weight"][:, k * D : (k + 1) * D].T for n in range(N)])
            for k, part in enumerate("qkv")
        },
        "moe": np.stack([np.stack([tensors[f"h.{n}.moe.{e}.w"].T for n in range(N)]) for e in range(E)]),
        "ln": np.stack([tensors[f"h.{n}.ln.bias"] + tensors[f"h.{n}.ln.bias2"] for n in range(N)]),
        "out": np.stack([tensors[f"h.{n}.out.weight"].reshape(8, 2, D) for n in range(N)]),
        "plain": tensors["plain"],
    }
    return folder / "model.safetensors", leaves


def like(leaves: object, sharding: object = None) -> object:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), leaves)


def check(loaded: object, leaves: object) -> None:
    """Every shard holds the bits of its box, and the whole those of the oracle."""

    def one(array: jax.Array, expected: np.ndarray) -> None:
        for piece in array.addressable_shards:
            assert np.asarray(piece.data).tobytes() == np.ascontiguousarray(expected[piece.index]).tobytes()
        assert np.asarray(array).tobytes() == expected.tobytes()

    jax.tree.map(one, loaded, leaves)


def mesh(*shape: int) -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(shape), tuple("abc"[: len(shape)]))


def meshes(folder: Path) -> None:
    path, leaves = written(folder)
    cases = [
        (mesh(8), {"moe": P("a"), "attn.*": P(None, "a"), "out": P(None, "a"), "plain": P("a"), "ln": P(None, "a")}),
        (
            mesh(8),
            {
                "moe": P(None, None, "a"),
                "attn.*": P(None, None, "a"),
                "out": P(None, None, None, "a"),
                "plain": P(None, "a"),
            },
        ),
        (
            mesh(4, 2),
            {"moe": P("a", "b"), "attn.*": P("a", "b"), "out": P("b", "a"), "plain": P("a", "b"), "ln": P("a", "b")},
        ),
        (mesh(4, 2), {"moe": P(("a", "b")), "attn.q": P("b"), "attn.*": P(None, ("b", "a")), "plain": P("b")}),
        (
            mesh(2, 2, 2),
            {
                "moe": P("c", "a", "b"),
                "attn.*": P("a", "c"),
                "out": P(None, ("a", "b"), "c", None),
                "plain": P("c", "b"),
            },
        ),
    ]
    for where, specs in cases:
        loaded = bridge.load(path, like(leaves), RULES, sharding=(where, specs))
        check(loaded, leaves)
        for name, spec in specs.items():
            if "." not in name and name in loaded:
                assert loaded[name].sharding == NamedSharding(where, spec), name


def forms(folder: Path) -> None:
    path, leaves = written(folder)
    where = mesh(8)
    rows = NamedSharding(where, P())
    device = jax.devices()[3]
    for given in (
        device,
        SingleDeviceSharding(device),
        rows,
        lambda name, spec: rows if len(spec.shape) > 2 else device,
    ):
        check(bridge.load(path, like(leaves), RULES, sharding=given), leaves)
    assert bridge.load(path, like(leaves), RULES, sharding=device)["plain"].devices() == {device}
    prefix = {"attn": rows, "moe": device, "ln": None, "out": rows, "plain": {"": device}[""]}
    loaded = bridge.load(path, like(leaves), RULES, sharding=prefix)
    check(loaded, leaves)
    assert loaded["moe"].devices() == {device}
    own = like(leaves, NamedSharding(where, P()))
    assert bridge.load(path, own, RULES)["plain"].sharding == NamedSharding(where, P())
    concrete = jax.tree.map(lambda a: jax.device_put(jnp.zeros(a.shape, a.dtype), device), leaves)
    assert bridge.load(path, concrete, RULES)["out"].devices() == {device}
    with jax.set_mesh(where):
        check(bridge.load(path, like(leaves), RULES, sharding={"plain": P("a")}), leaves)
    flat = bridge.load(path, None, sharding=(where, {"plain": P(None, "a")}))
    assert flat["plain"].sharding == NamedSharding(where, P(None, "a"))


def refused(text: str, path: Path, leaves: object, sharding: object) -> None:
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, like(leaves), RULES, sharding=sharding)
    assert text in str(caught.value)


def errors(folder: Path) -> None:
    path, leaves = written(folder)
    where = mesh(8)
    refused(
        "leaf 'moe' of shape (8, 4, 16, 8) cannot have the sharding P(None, 'a')",
        path,
        leaves,
        (where, {"moe": P(None, "a")}),
    )
    refused("pattern 'nothing.**' matches no leaf", path, leaves, (where, {"nothing.**": P("a")}))
    refused("without a mesh", path, leaves, {"plain": P("a")})
    refused("leaf 'plain' of shape (16, 16)", path, leaves, (where, {"plain": P("a", None, None)}))
    refused("sharding is not a prefix of the template", path, leaves, [where])
    refused("Give a jax.Device or a jax.sharding.Sharding", path, leaves, lambda name, spec: "cpu")


def reads(folder: Path) -> None:
    """One device's leaves are read from its own bytes only, and the plan says how many."""
    path, leaves = written(folder)
    where = Mesh(np.array(jax.devices()[:1]), "a")
    plan = bridge.plan(path, like(leaves), RULES, sharding=(mesh(8), {"moe": P("a")}))
    assert plan.nbytes == sum(a.nbytes for a in jax.tree.leaves(leaves)) + leaves["ln"].nbytes
    assert plan.nbytes == bridge.plan(path, like(leaves), RULES, sharding=(where, {})).nbytes
    assert bridge.plan(path, like(leaves), RULES).peak_nbytes >= plan.nbytes - leaves["ln"].nbytes


def staged(folder: Path) -> None:
    """A small budget: leaves arrive in pieces, written into the final arrays on their devices."""
    path, leaves = written(folder)
    specs = {"moe": P("a", "b"), "attn.*": P(None, "a"), "plain": P("b", "a")}
    for budget in (64, 1000, 5000, 1 << 30):
        check(bridge.load(path, like(leaves), RULES, max_host_bytes=budget), leaves)
        check(bridge.load(path, like(leaves), RULES, max_host_bytes=budget, sharding=(mesh(4, 2), specs)), leaves)
        plan = bridge.plan(path, like(leaves), RULES, max_host_bytes=budget)
        assert plan.nbytes >= sum(a.nbytes for a in jax.tree.leaves(leaves))
    seen: list[tuple[int, int]] = []
    bridge.load(path, like(leaves), RULES, max_host_bytes=1000, progress=lambda *now: seen.append(now))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0


if __name__ == "__main__":
    {"meshes": meshes, "forms": forms, "errors": errors, "reads": reads, "staged": staged}[sys.argv[1]](
        Path(sys.argv[2])
    )
    print("ok")
