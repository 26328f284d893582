"""Keys, leaves, dtypes and devices that do not meet. Reports of many problems have tests of their own in tests/planning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import bridge
from tests.errors.reading import A, good
from tests.errors.situations import situation
from tests.save.files import write

F32 = jnp.float32


def spec(*shape: int, dtype: Any = F32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _load(
    name: str, tensors: dict[str, np.ndarray], like: Any, rules: Any = None, *, until: str = "", **options: Any
) -> None:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        write(Path("x.safetensors"), tensors)
        bridge.load("x.safetensors", like() if callable(like) else like, rules, **options)

    situation(f"load: {name}", until=until)(provoke)


_load("keys and leaves that do not meet", {"a": A, "c": A}, {"a": spec(4), "b": spec(3)})
_load("a class in the place of the model", {"a": A}, lambda: eqx.nn.Linear)
_load("a function in the place of the model", {"a": A}, lambda: _load)
_load("a number in the place of the model", {"a": A}, 3)
_load("rules in the place of the model", {"a": A}, ["a -> b"])
_load("a dtype that is none", {"a": A}, {"a": spec(3)}, dtype="f99")
_load("a dtype as PyTorch spells it", {"a": A}, {"a": spec(3)}, dtype="torch.bfloat16")
_load("a leaf that may be missing and has no value", {"a": A}, {"a": spec(3), "b": spec(3)}, allow_missing="b")
_load(
    "a function that makes another shape",
    {"a": A},
    {"a": spec(3), "b": spec(3)},
    allow_missing={"b": lambda name, spec: jnp.zeros(4)},
)
_load("two leaves of one name", {"a": A}, {"a": {"b": spec(3)}, "a.b": spec(3)})
_load("an integer that does not fit", {"a": np.array([2**40])}, {"a": spec(1, dtype=jnp.int32)})
_load(
    "a sum with add that does not fit",
    {"a": np.array([2], np.int32)},
    {"a": spec(1, dtype=jnp.int32)},
    "a -> a ; add=2147483647",
)
SQUARES = {f"h.{n}.w": np.zeros((3, 3), np.float32) for n in range(2)}
_load("a rule that takes no key", SQUARES, {"w": spec(2, 3, 3)}, ["h.{l}.** -> **", "h.{l}.w [i o] -> w [l o i]"])
_load("a tie that is none", {"a": A, "b": A + 1}, {"a": spec(3)}, ["b -> a ; tie=true"])

MESH = Mesh(np.array(jax.devices("cpu")[:1]), ("x",))
_load("a sharding that is none", {"a": A}, {"a": spec(3)}, sharding="gpu")
_load("patterns without a mesh", {"a": A}, {"a": spec(3)}, sharding={"a": P("x")})
_load("a mesh without patterns", {"a": A}, {"a": spec(3)}, sharding=(MESH, P("x")), until="got ")
_load("a mesh alone", {"a": A}, {"a": spec(3)}, sharding=MESH)
_load("a pattern without a PartitionSpec", {"a": A}, {"a": spec(3)}, sharding=(MESH, {"a": "x"}))
_load("a mesh axis named twice", {"a": A}, {"a": spec(3)}, sharding=(MESH, {"a": P(("x", "x"))}))
_load("no number of bytes", {"a": A}, {"a": spec(3)}, max_host_bytes="1GB")
_load("a pattern of shardings that matches nothing", {"a": A}, {"a": spec(3)}, sharding=(MESH, {"b": P("x")}))
_load(
    "a sharding by a mesh without that axis",
    {"a": A},
    {"a": spec(3)},
    sharding=(MESH, {"a": P("y")}),
    until="the sharding",
)
_load(
    "a sharding of more axes than the leaf",
    {"a": A},
    {"a": spec(3)},
    sharding=NamedSharding(MESH, P(None, "x")),
    until="the sharding",
)
_load(
    "shardings of another tree",
    {"a": A},
    {"a": spec(3)},
    sharding={"a": {"b": jax.devices("cpu")[0]}, "c": None},
    until="template:",
)


@situation("load: a kept array that is spread otherwise", until="as ")
def _(patch: pytest.MonkeyPatch) -> None:
    kept = jnp.zeros(3)
    patch.setattr(type(kept), "is_fully_addressable", property(lambda _: False))
    patch.setattr(type(kept.sharding), "is_equivalent_to", lambda *_: False)
    where = {"a": None, "b": jax.devices("cpu")[0]}
    bridge.load(good(), {"a": spec(3), "b": kept}, allow_missing="b", sharding=where)


_load("a bound on memory that is no number", {"a": A}, {"a": spec(3)}, max_host_bytes="1GB")


@situation("load: more memory than there is")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("bridge.place.work.available_nbytes", lambda: 10)
    bridge.load(good(), None)


@situation("load: memory that the system does not give after all")
def _(patch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    patch.setattr("bridge.api.read.empty", full)
    bridge.load(good(), None)


# ---- state


class Net(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __init__(self) -> None:
        self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")


def _pair() -> Any:
    return eqx.nn.make_with_state(Net)()


def _used() -> Any:
    model, state = _pair()
    value = state.get(model.norm.batch_state_index)
    state.set(model.norm.batch_state_index, value)
    return model, state


class Two(eqx.Module):
    a: Net
    b: Net

    def __init__(self) -> None:
        self.a, self.b = Net(), Net()


def _of_more() -> Any:
    model, state = eqx.nn.make_with_state(Two)()
    return model.a, state


_load("a model with state and none given", {"a": A}, Net)
_load("a state within a tree", {"a": A}, lambda: {"x": _pair()})
_load("a state used before", {"a": A}, _used)
_load("a state of another model", {"a": A}, lambda: (_pair()[0], eqx.nn.make_with_state(Two)()[1]))
_load("a state of a larger model", {"a": A}, _of_more)


# ---- plans as JSON


def _json(change: Callable[[dict[str, Any]], Any]) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        document = json.loads(bridge.plan(good(), None).to_json())
        change(document)
        bridge.Plan.from_json(json.dumps(document))

    return provoke


situation("plan: another version")(_json(lambda d: d.update(version=99)))
situation("plan: a part that is missing")(_json(lambda d: d.pop("keys")))
situation("plan: a shape that is none")(_json(lambda d: d["keys"].update(a=["F32", -1])))


@situation("plan: no JSON", until="again:")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.Plan.from_json("{")


# ---- the way back by rules


LAYERS = eqx.filter_vmap(lambda key: eqx.nn.Conv1d(2, 2, 1, key=key))(jax.random.split(jax.random.key(0), 2))


def _save(name: str, model: Any, *rules: str) -> None:
    situation(f"save by rules: {name}")(lambda patch: bridge.save(model, "out", list(rules)))


_save("an extent that nothing says", {"q": np.zeros((2, 3), np.float32)}, "q [(h d)] -> q [h d] ; h=4")
_save("an index with two readings", {"m": [np.zeros((2, 3), np.float32)]}, "k.{i}.{j} -> m.{i}.{j}")
_save("an extent that the model does not tell", {"w": np.zeros((2, 3), np.float32)}, "k [m v[1:]] -> w [m v]")
_save("a stack of layers", {"layers": LAYERS}, "net.** -> **")
_save("an index that counts from the end", {"last": A}, "h.{l[-1]}.w -> last")
_save("two rules for one leaf", {"x": A}, "a.w -> x", "b.w -> x")
