"""Every kind of rule and source over three meshes of eight host devices, against numpy; run by `test_sharding.py`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from safetensors.numpy import save_file

import bridge
from bridge.place import local
from tests.place.eight_devices import check, mesh
from tests.place.eight_partly import partly
from tests.place.eight_shardings import memories, refused, traced

L, D = 4, 16
RULES = [
    "h.{l}.a [i o] + h.{l}.b [i o] -> turned [l o i]",
    "h.{l}.x + h.{l}.y -> summed",
    "h.{l}.x2 [i o] + h.{l}.y2 [o i] -> crossed [l o i]",
    "h.{l}.n -> shifted ; add=1.0",
    "h.{l}.r [(k d) m] -> flipped [l k d m] ; k=4, flip='d'",
    "h.{l}.gu [(f (g|u)) m] -> {g|u} [l f m]",
    "c.{q|k|v} [_ m] -> fused [(q|k|v) m]",
    "embed -> embed",
    "head -> embed ; tie=true",
    "counts -> counts",
]
MESHES = {
    (8,): {
        "turned": P(None, "a"),
        "summed": P(None, None, "a"),
        "[gu]": P(None, "a"),
        "fused": P("a"),
        "embed": P("a"),
    },
    (4, 2): {
        "turned": P("b", None, "a"),
        "summed": P("a", "b"),
        "crossed": P(None, "b", "a"),
        "shifted": P("b", "a"),
        "flipped": P(None, "a", "b"),
        "fused": P("b", "a"),
        "embed": P("a", "b"),
        "counts": P("b", "a"),
    },
    (2, 2, 2): {
        "turned": P("c", ("a", "b")),
        "summed": P(None, "c", "a"),
        "flipped": P("a", "b", "c"),
        "[gu]": P("a", ("c", "b")),
        "fused": P(("a", "c")),
        "embed": P(None, ("b", "a", "c")),
    },
}


def written(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    shapes = {
        "a": (D, 2 * D),
        "b": (D, 2 * D),
        "x": (D, D),
        "y": (D, D),
        "x2": (D, D),
        "y2": (D, D),
        "n": (D,),
        "r": (4 * D, D),
        "gu": (4 * D, D),
    }
    t = {f"h.{n}.{name}": rng.standard_normal(shape, np.float32) for n in range(L) for name, shape in shapes.items()}
    t |= {f"c.{name}": rng.standard_normal((rows, D), np.float32) for name, rows in {"q": 16, "k": 8, "v": 8}.items()}
    t["embed"] = t["head"] = rng.standard_normal((2 * D, D), np.float32)
    t = {key: value.astype(ml_dtypes.bfloat16) for key, value in t.items()}
    t["counts"] = rng.integers(-(2**31), 2**31, (D, D))
    save_file(t, folder / "model.safetensors")
    f = {
        key: value.astype(np.float32) if value.dtype.kind == "V" else value.astype(np.int32) for key, value in t.items()
    }

    def stack(name: str) -> np.ndarray:
        return np.stack([f[f"h.{n}.{name}"] for n in range(L)])

    return folder / "model.safetensors", {
        "turned": (stack("a") + stack("b")).transpose(0, 2, 1),
        "summed": stack("x") + stack("y"),
        "crossed": stack("x2").transpose(0, 2, 1) + stack("y2"),
        "shifted": stack("n") + np.float32(1),
        "flipped": stack("r").reshape(L, 4, D, D)[:, :, ::-1],
        "g": stack("gu")[:, ::2],
        "u": stack("gu")[:, 1::2],
        "fused": np.concatenate([f["c.q"], f["c.k"], f["c.v"]]),
        "embed": f["embed"],
        "counts": f["counts"],
    }


def patterns(found: dict[str, P]) -> dict[str, P]:
    """`[gu]` stands for the two leaves `g` and `u`."""
    return {name: spec for key, spec in found.items() for name in (key.strip("[]") if key[0] == "[" else [key])}


def kinds(folder: Path) -> None:
    """Bit for bit, whole or staged; converted too. `rules` with a plan are what they are without."""
    path, leaves = written(folder)
    like = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    bridge.convert(path, folder / "converted", like, RULES)
    for shape, specs in MESHES.items():
        sharding = (mesh(*shape), patterns(specs))
        check(bridge.load(folder / "converted", like, sharding=sharding), leaves)
        for budget in (None, 3000) if shape == (4, 2) else (None,):
            seen: list[tuple[int, int]] = []
            loaded = bridge.load(
                path,
                like,
                RULES,
                sharding=sharding,
                max_host_bytes=budget,
                progress=lambda *now, to=seen: to.append(now),
            )
            check(loaded, leaves)
            planned = bridge.plan(path, like, RULES, sharding=sharding, max_host_bytes=budget)
            assert seen[-1][0] == seen[-1][1] == planned.nbytes, (seen[-1], planned.nbytes)
    check(bridge.load(folder / "converted", like, sharding=sharding, max_host_bytes=3000), leaves)


def saved(folder: Path) -> None:
    """Shard by shard, in the host's memory or out of a device's own: the same files as of a model in one place."""
    path, leaves = written(folder)
    like = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
    plan = bridge.plan(path, like, RULES)

    def save(model: object) -> dict[str, bytes]:
        bridge.save(model, folder / "saved", plan, max_shard_size="20KB", overwrite=True)
        bridge.save(model, folder / "own.safetensors", ["** -> **"], overwrite=True, verify=True)
        files = [*(folder / "saved").glob("*.safetensors"), folder / "own.safetensors"]
        return {re.sub(r"-\d\.", ".", file.name): file.read_bytes() for file in files}

    alone = save(bridge.load(path, like, RULES))
    assert len(alone) > 3
    for shape, specs in MESHES.items():
        model = bridge.load(path, like, RULES, sharding=(mesh(*shape), patterns(specs)))
        assert save(model) == alone
    local._on_host = lambda array: False
    assert save(model) == alone
    assert save(bridge.load(path, like, RULES)) == alone


def untied(folder: Path) -> None:
    """One element of a tied copy that differs is found, whichever device it belongs to."""
    rng = np.random.default_rng(0)
    tensors = {"embed": rng.standard_normal((64, 8), np.float32)}
    for row in (0, 31, 63):
        other = tensors["embed"].copy()
        other[row, 7] += 1
        save_file({**tensors, "head": other}, folder / "untied.safetensors")
        for budget in (None, 100):
            with pytest.raises(bridge.CheckpointError, match=r"'head' in 'untied\.safetensors' is tied to a leaf"):
                bridge.load(
                    folder / "untied.safetensors",
                    {"embed": jax.ShapeDtypeStruct((64, 8), np.float32)},
                    ["head -> embed ; tie=true"],
                    sharding=(mesh(4, 2), {"embed": P("a", "b")}),
                    max_host_bytes=budget,
                )


class Net(eqx.Module):
    norm: eqx.nn.BatchNorm
    out: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        self.norm = eqx.nn.BatchNorm(16, axis_name="batch", mode="batch")
        self.out = eqx.nn.Linear(16, 8, key=key)


def state(folder: Path) -> None:
    """Leaves of a BatchNorm's state, and one that its layout fills."""
    rng = np.random.default_rng(0)
    names = ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    tensors = {name: rng.random(16, np.float32) for name in names}
    tensors |= {"norm.num_batches_tracked": np.array(7)}
    tensors |= {"out.weight": rng.random((8, 16), np.float32), "out.bias": rng.random(8, np.float32)}
    save_file(tensors, folder / "net.safetensors")
    like = eqx.filter_eval_shape(eqx.nn.make_with_state(Net), jax.random.key(0))
    plain = jax.tree.leaves(eqx.filter(bridge.load(folder / "net.safetensors", like), eqx.is_array))
    where = mesh(4, 2)
    spread = bridge.load(folder / "net.safetensors", like, sharding=(where, {"**.running_*": P("a"), "out.*": P("b")}))
    found = jax.tree.leaves(eqx.filter(spread, eqx.is_array))
    assert [a.shape for a in found] == [a.shape for a in plain]
    assert all(np.array_equal(a, b) for a, b in zip(found, plain, strict=True))
    assert sum(a.sharding.spec == P("a") for a in found) == 2
    assert all(len(a.devices()) == 8 for a in found)


def kept(folder: Path) -> None:
    """Leaves that no key fills go where they should, of whatever they are made; the caller's own are left alone."""
    save_file({"w": np.ones((8, 8), np.float32)}, folder / "w.safetensors")
    where, specs = mesh(4, 2), {"w": P("a"), "extra": P("a", "b")}
    own = np.arange(64, dtype=np.float32).reshape(8, 8)
    like = {"w": jax.ShapeDtypeStruct((8, 8), np.float32), "extra": own}
    placed = NamedSharding(where, P("b"))
    for value in (own, jnp.asarray(own), jax.device_put(own, placed)):
        made = bridge.load(
            folder / "w.safetensors", like | {"extra": value}, sharding=(where, specs), allow_missing="extra"
        )
        check(made["extra"], own)
        assert made["extra"].sharding == NamedSharding(where, specs["extra"])
        made = bridge.load(
            folder / "w.safetensors", like, sharding=(where, specs), allow_missing={"extra": lambda *_, v=value: v}
        )
        check(made["extra"], own)
    alone = bridge.load(folder / "w.safetensors", like, allow_missing="extra")["extra"]
    before, own[0, 0] = own[0, 0], 99
    assert alone[0, 0] == before


def compiled(folder: Path) -> None:
    """Placing compiles nothing. Staging compiles as often for many leaves as for few, by their shapes."""
    lines: list[str] = []

    def count(layers: int, budget: int | None) -> int:
        tensors = {f"h.{n}.w": np.ones((8, 64), np.float32) for n in range(layers)}
        save_file(tensors, folder / "many.safetensors")
        like = {"h": [{"w": jax.ShapeDtypeStruct((8, 64), np.float32)} for _ in range(layers)]}
        jax.clear_caches()
        lines.clear()
        bridge.load(folder / "many.safetensors", like, sharding=(mesh(8), {"**": P(None, "a")}), max_host_bytes=budget)
        return len(lines)

    def listen(event: str, *_: object, **__: object) -> None:
        if re.search("backend_compile", event):
            lines.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.jit(lambda x: x + 1)(jnp.zeros(3))
    assert lines, "compilations are counted"
    assert count(3, None) == count(20, None) == 0
    few = count(3, 300)
    assert 0 < few == count(20, 300), few


if __name__ == "__main__":
    for case in (kinds, saved, untied, state, kept, partly, compiled, refused, traced, memories):
        case(Path(sys.argv[1]))
    print("ok")
