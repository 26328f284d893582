"""Layers of a user's own, their layouts, and the places where they stand, with what is to arrive said in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

import bridge
from tests.save.files import read, write

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
COUNT = 3


class Linear(eqx.Module):
    w: jax.Array
    b: jax.Array | None

    def __init__(self, use_bias: bool = True):
        self.w, self.b = jnp.zeros((4, 4)), jnp.zeros(4) if use_bias else None


class Norm(eqx.Module):
    scale: jax.Array
    shift: jax.Array

    def __init__(self):
        self.scale, self.shift = jnp.zeros(4), jnp.zeros(4)


class Conv(eqx.Module):
    """A convolution with channels last, and running statistics that it keeps in the state."""

    kernel: jax.Array
    stats: eqx.nn.StateIndex

    def __init__(self):
        self.kernel = jnp.zeros((2, 3, 4, 4))
        self.stats = eqx.nn.StateIndex((jnp.zeros(4), jnp.ones(4)))


class Split(eqx.Module):
    q: jax.Array
    k: jax.Array
    v: jax.Array

    def __init__(self):
        self.q, self.k, self.v = jnp.zeros((4, 4)), jnp.zeros((2, 4)), jnp.zeros((2, 4))


class Joined(eqx.Module):
    qkv: jax.Array
    out: Linear

    def __init__(self):
        self.qkv, self.out = jnp.zeros((8, 4)), Linear()


class Heads(eqx.Module):
    """Projections that are interleaved head by head."""

    qkv: jax.Array

    def __init__(self):
        self.qkv = jnp.zeros((2, 3, 2, 4))


class Flat(eqx.nn.Conv1d):
    """A layer of `eqx.nn` whose bias its owner keeps as PyTorch does, and whose kernel runs backwards."""

    def __init__(self):
        super().__init__(4, 4, 3, key=KEY)
        self.bias = jnp.zeros(4)


class Named(eqx.Module):
    """Its leaves are called as PyTorch calls others of its parameters."""

    weight: jax.Array
    bias: jax.Array

    def __init__(self):
        self.weight, self.bias = jnp.zeros(4), jnp.zeros(4)


Tensors = dict[str, np.ndarray]


class Case(NamedTuple):
    """A layer, its layout, what PyTorch has of it, and the leaves that these tensors come to, said in numpy."""

    make: Callable[[], Any]
    layouts: Mapping[type, Any]
    shapes: Mapping[str, tuple[int, ...]]
    leaves: Callable[[Tensors], list[np.ndarray]]


LINEAR: Mapping[type, Any] = {Linear: ("weight [o i] -> w [i o]", "bias -> b")}
CASES: dict[str, Case] = {
    "Linear": Case(Linear, LINEAR, {"weight": (4, 4), "bias": (4,)}, lambda t: [t["weight"].T, t["bias"]]),
    "Linear without bias": Case(lambda: Linear(use_bias=False), LINEAR, {"weight": (4, 4)}, lambda t: [t["weight"].T]),
    "Norm": Case(
        Norm,
        {Norm: ["gamma -> scale ; add=1.0", "beta -> shift"]},
        {"gamma": (4,), "beta": (4,)},
        lambda t: [t["gamma"] + 1, t["beta"]],
    ),
    "Norm, of one choice": Case(
        Norm,
        {Norm: "{gamma|beta} -> {scale|shift}"},
        {"gamma": (4,), "beta": (4,)},
        lambda t: [t["gamma"], t["beta"]],
    ),
    "Conv": Case(
        Conv,
        {
            Conv: (
                "weight [o i h w] -> kernel [h w i o]",
                "running_mean -> stats.0",
                "running_var [c] -> stats.1 [c] ; scale=2.0",
                "num_batches_tracked [] -> _ ; zeros=true",
            )
        },
        {"weight": (4, 4, 2, 3), "running_mean": (4,), "running_var": (4,), "num_batches_tracked": ()},
        lambda t: [t["weight"].transpose(2, 3, 1, 0), t["running_mean"], 2 * t["running_var"]],
    ),
    "Split": Case(
        Split,
        {Split: "in_proj.weight [(q|k|v) m] -> {q|k|v} [_ m]"},
        {"in_proj.weight": (8, 4)},
        lambda t: np.split(t["in_proj.weight"], [4, 6]),
    ),
    "Joined": Case(
        Joined,
        {Joined: "{q|k|v}_proj.weight [_ m] -> qkv [(q|k|v) m] ; q=4 k=2 v=2", **LINEAR},
        {"q_proj.weight": (4, 4), "k_proj.weight": (2, 4), "v_proj.weight": (2, 4)}
        | {"out.weight": (4, 4), "out.bias": (4,)},
        lambda t: [np.concatenate([t[f"{n}_proj.weight"] for n in "qkv"]), t["out.weight"].T, t["out.bias"]],
    ),
    "Joined, called otherwise": Case(
        Heads,
        {Heads: "{query|key|value}_proj [(h d) m] -> qkv [h (q|k|v) d m] ; h=2"},
        {"query_proj": (4, 4), "key_proj": (4, 4), "value_proj": (4, 4)},
        lambda t: [np.stack([t[f"{n}_proj"].reshape(2, 2, 4) for n in ("query", "key", "value")], axis=1)],
    ),
    "a layer of eqx.nn": Case(
        Flat,
        {eqx.nn.Conv: "bias [o] -> bias [o 1]", Flat: 'weight [o i k] -> weight [o i k] ; flip="k"'},
        {"weight": (4, 4, 3), "bias": (4,)},
        lambda t: [t["weight"][..., ::-1], t["bias"]],
    ),
    "Named": Case(
        Named,
        {Named: ("bias -> weight", "weight -> bias", "weight_rest [...] -> _")},
        {"weight": (4,), "bias": (4,), "weight_rest": (2,)},
        lambda t: [t["bias"], t["weight"]],
    ),
}
DROPPED = ("num_batches_tracked", "weight_rest")


class Place(NamedTuple):
    """Where layers stand: a model of them, the prefixes of their keys, and how leaves of all come to those of a model."""

    model: Callable[[Callable[[], Any]], Any]
    prefixes: tuple[str, ...]
    stack: tuple[int, ...] = ()


def stack(make: Callable[[], Any], *counts: int) -> Any:
    for count in reversed(counts):
        make = _stacked(make, count)
    return make()


def _stacked(make: Callable[[], Any], count: int) -> Callable[[], Any]:
    return lambda: eqx.filter_vmap(lambda _: make(), axis_size=count)(jnp.zeros(count))


PLACES: dict[str, Place] = {
    "alone": Place(lambda make: make(), ("",)),
    "below a name": Place(lambda make: {"net": {"layer": make()}}, ("net.layer.",)),
    "a list": Place(lambda make: {"layers": [make() for _ in range(3)]}, tuple(f"layers.{n}." for n in range(3))),
    "Sequential": Place(
        lambda make: {"net": eqx.nn.Sequential([make(), eqx.nn.Lambda(jax.nn.relu), make()])}, ("net.0.", "net.2.")
    ),
    "a stack": Place(lambda make: {"layers": stack(make, 3)}, tuple(f"layers.{n}." for n in range(3)), (3,)),
    "a nested stack": Place(
        lambda make: {"a": {"b": stack(make, 2, 3)}},
        tuple(f"a.{n}.b.{m}." for n in range(2) for m in range(3)),
        (2, 3),
    ),
    "a list of stacks": Place(
        lambda make: {"layers": [stack(make, 2) for _ in range(3)]},
        tuple(f"layers.{n}.{m}." for n in range(3) for m in range(2)),
        (2,),
    ),
}
BOTH = [(case, place) for case in CASES for place in PLACES]


def tensors(case: Case, prefixes: tuple[str, ...]) -> list[Tensors]:
    """Values in eighths, which adding 1 and scaling by 2 leave exact."""
    rng = np.random.default_rng(0)
    return [
        {name: np.asarray(rng.integers(-64, 64, shape) / 8, np.float32) for name, shape in case.shapes.items()}
        for _ in prefixes
    ]


def wanted(case: Case, place: Place, parts: list[Tensors]) -> list[np.ndarray]:
    """The leaves of a model, layer by layer; those of a stack together."""
    each = [case.leaves(part) for part in parts]
    size = int(np.prod(place.stack))
    groups = [each[n : n + size] for n in range(0, len(each), size)]
    return [
        np.stack(leaves).reshape(*place.stack, *leaves[0].shape)
        for group in groups
        for leaves in zip(*group, strict=True)
    ]


def like(case: Case, place: Place) -> Any:
    return eqx.filter_eval_shape(eqx.nn.make_with_state(lambda: place.model(case.make)))


def found(tree: Any, case: Case, place: Place) -> list[np.ndarray]:
    """The leaves of a loaded model in the order of `wanted`; a state's stand with their layer."""
    model, state = tree
    arrays = [np.asarray(leaf) for leaf in jtu.tree_leaves(model) if eqx.is_array(leaf)]
    kept = [np.asarray(leaf) for leaf in jtu.tree_leaves(state) if eqx.is_array(leaf)]
    count = len(place.prefixes) // int(np.prod(place.stack))
    each, more = len(arrays) // count, len(kept) // count
    return [leaf for n in range(count) for leaf in (*arrays[n * each :][:each], *kept[n * more :][:more])]


def same(got: list[np.ndarray], want: list[np.ndarray]) -> None:
    assert len(got) == len(want) > 0
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def set_up(tmp_path: Path, name: str, at: str, prefix: str = "") -> tuple[Case, Place, list[Tensors], Path, Any]:
    case, place = CASES[name], PLACES[at]
    parts = tensors(case, place.prefixes)
    arrays = {
        prefix + before + key: array
        for before, part in zip(place.prefixes, parts, strict=True)
        for key, array in part.items()
    }
    return case, place, parts, write(tmp_path / "in.safetensors", arrays), like(case, place)


def random(*shape: int) -> np.ndarray:
    return np.asarray(RNG.integers(-64, 64, shape) / 8, np.float32)


def arrays(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jtu.tree_leaves(tree) if eqx.is_array(leaf)]


def linear(prefix: str) -> dict[str, np.ndarray]:
    return {f"{prefix}weight": random(4, 4), f"{prefix}bias": random(4)}


def both_ways(tmp_path: Path, tensors: dict[str, np.ndarray], like: Any, rules: Any, layouts: Any) -> Any:
    """Load; hold the plan's rules and its JSON to the plan; save by the plan, which gives the same file."""
    source = write(tmp_path / "in.safetensors", tensors)
    plan = bridge.plan(source, like, rules, layouts=layouts)
    assert plan.ok, str(plan)
    assert bridge.plan(source, like, plan.rules) == plan
    assert bridge.plan(source, like, plan.rules, layouts=layouts) == plan
    assert bridge.Plan.from_json(plan.to_json()) == plan
    model = bridge.load(source, like, rules, layouts=layouts)
    bridge.save(model, tmp_path / "out.safetensors", plan)
    assert read(tmp_path / "out.safetensors") == read(source)
    return model
