"""One of several JAX processes that load checkpoints together, and save them; a program for `test_processes.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import bridge
from tests.place.processes import joined, wait

RULES = {
    "exact": [
        "l.{l}.rows -> rows",
        "l.{l}.e.{e} [f m] -> experts [e l m f]",
        "l.{l}.heads [(h d) m] -> heads [l h d m] ; h=8",
        "qkv [(split|k|v) m] -> {split|k|v} [_ m] ; split=256, k=128, v=128",
    ],
    "wide": ["wide -> wide"],
    "narrow": ["narrow -> narrow"],
    "kinds": [
        "a + b -> summed",
        "gu [(f (gate|up)) m] -> {gate|up} [m f]",
        "{p|q} [_ m] -> joined [(p|q) m]",
        "half -> half",
        "norm -> norm ; add=1.0",
    ],
}
SPECS = {
    "rows": P(None, ("host", "local")),
    "experts": P("host"),
    "heads": P(None, "host", "local"),
    "split": P(("host", "local")),
    "k": P("host"),
    "v": P("host"),
    "wide": P(None, "host"),
    "narrow": P(None, ("local", "host")),
    "summed": P(("local", "host")),
    "gate": P("local", "host"),
    "up": P(None, "host"),
    "joined": P(("host", "local")),
    "half": P("local"),
}


def main(arguments: list[str]) -> None:
    mapped: list[object] = []
    sys.addaudithook(lambda event, given: mapped.append(given) if event == "mmap.__new__" and given[0] >= 0 else None)
    _, count, (folder,) = joined(arguments)
    mesh = Mesh(np.array(jax.devices()).reshape(count, 2), ("host", "local"))
    bridge.load(Path(folder, "kinds.safetensors"), None)  # reading Python's own modules is not what is counted
    for name in RULES:
        leaves = dict(np.load(Path(folder, f"{name}.npz")))
        like = {key: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for key, leaf in leaves.items()}
        sharding = mesh, {key: spec for key, spec in SPECS.items() if key in leaves}
        path = Path(folder, f"{name}.safetensors")
        plan = bridge.plan(path, like, RULES[name], sharding=sharding)
        wait()
        loaded = bridge.load(path, like, plan)
        needed = 0
        for key, array in loaded.items():
            boxes = {}
            for shard in array.addressable_shards:
                assert np.asarray(shard.data).tobytes() == np.ascontiguousarray(leaves[key][shard.index]).tobytes(), key
                boxes[str(shard.index)] = shard.data.nbytes
            needed += sum(boxes.values())
        assert not mapped, "no file is mapped: what is read is counted"
        wait()
        print("needed", needed, "planned", plan.nbytes, flush=True)
        if name in ("exact", "kinds"):
            saved(Path(folder, f"saved-{count}"), name, loaded, plan)
    elsewhere(Path(folder), mesh, count)


def elsewhere(folder: Path, mesh: Mesh, count: int) -> None:
    """Leaves on one device, of this process or of another; one that no key fills, spread; all of them in pieces too."""
    leaves = dict(np.load(folder / "kinds.npz"))
    like = {name: jax.ShapeDtypeStruct(leaves[name].shape, np.float32) for name in ("half", "joined", "norm")}
    like["extra"] = np.arange(64, dtype=np.float32)
    devices = jax.devices()
    where = {"half": devices[-1], "norm": devices[0], "joined": NamedSharding(mesh, P("host", "local"))}
    for budget in (None, 9000):
        loaded = bridge.load(
            folder / "kinds.safetensors",
            like,
            RULES["kinds"][2:],
            sharding=lambda name, spec: where.get(name, NamedSharding(mesh, P(("local", "host")))),
            allow_missing="extra",
            allow_unexpected=["a", "b", "gu"],
            max_host_bytes=budget,
        )
        for name, array in loaded.items():
            expected = leaves.get(name, like["extra"])
            for shard in array.addressable_shards:
                assert np.array_equal(shard.data, expected[shard.index]), name
        assert loaded["half"].devices() == {devices[-1]}
        assert len(loaded["half"].addressable_shards) == (devices[-1] in jax.local_devices())
    bridge.save(loaded, folder / f"saved-{count}" / "elsewhere", ["** -> **"])
    based(folder, count)


PART = ["qkv [x[128:384] m] -> part [x m]"]


def part_of(path: Path) -> np.ndarray:
    """Rows for the middle of a tensor."""
    columns = bridge.open(path).specs["qkv"].shape[1]
    return np.arange(256 * columns, dtype=np.float32).reshape(256, columns)


def based(folder: Path, count: int) -> None:
    """A leaf that is spread, and a checkpoint that has more keys, and more elements of its key."""
    mesh = Mesh(np.array(jax.devices()), ("all",))
    where = NamedSharding(mesh, P("all"))
    path = folder / "exact.safetensors"
    stored, values = bridge.open(path)["qkv"], part_of(path)
    part = jax.make_array_from_callback(values.shape, where, lambda index: values[index])
    out = folder / f"saved-{count}" / "based.safetensors"
    report = bridge.save({"part": part}, out, PART, base=path, verify=True)
    assert report.left_out == ()
    whole = stored.copy()
    whole[128:384] = values
    found, base = bridge.open(out), bridge.open(path)
    assert found["qkv"].tobytes() == whole.tobytes()
    assert all(found[key].tobytes() == base[key].tobytes() for key in base if key != "qkv")


def saved(folder: Path, name: str, model: dict[str, jax.Array], plan: bridge.Plan) -> None:
    """Several files, then one, then fewer in place of those that stand; a leaf of each process' own among them."""
    seen: list[tuple[int, int]] = []
    bridge.save(
        model, folder / name, plan, max_shard_size="300KB", metadata={"a": "b"}, progress=lambda *now: seen.append(now)
    )
    assert seen[-1][0] == seen[-1][1]
    report = bridge.save(model, folder / f"{name}.safetensors", plan, verify=True)
    assert report.files == (f"{name}.safetensors",)
    assert report.nbytes == (folder / f"{name}.safetensors").stat().st_size
    own = model | {"own": np.arange(5.0, dtype=np.float32)}
    bridge.save(own, folder / f"{name}-rules", ["** -> **"], dtype="bf16", max_shard_size="300KB")
    bridge.save(own, folder / f"{name}-rules", ["** -> **"], max_shard_size="1MB", overwrite=True)


if __name__ == "__main__":
    main(sys.argv[1:])
