"""Plans as JSON for models whose layers have layouts, state and shared leaves: each comes back as it was."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.planning.test_store import JUNK, places
from tests.save.files import bits, finite, read, write

KEY = jax.random.key(0)


def layers(make: Any, count: int = 2) -> Any:
    return eqx.filter_vmap(make)(jax.random.split(KEY, count))


class Norm(eqx.Module):
    bn: eqx.nn.BatchNorm

    def __init__(self, mode: Any) -> None:
        self.bn = eqx.nn.BatchNorm(3, "batch", mode=mode)


def norm(mode: str) -> Any:
    return eqx.nn.make_with_state(Norm)(mode)


def mixed() -> list[Any]:
    return [eqx.nn.Conv2d(4, 4, 3, key=KEY) if n % 2 else eqx.nn.Linear(4, 4, key=KEY) for n in range(4)]


def shared(transpose: bool) -> dict[str, Any]:
    pair = [eqx.nn.Embedding(4, 4, key=KEY), eqx.nn.Linear(4, 4, use_bias=False, key=KEY)]
    get = (lambda pair: pair[0].weight.T) if transpose else (lambda pair: pair[0].weight)
    return {"lm": eqx.nn.Shared(pair, lambda pair: pair[1].weight, get)}


def towers() -> dict[str, Any]:
    def tower() -> dict[str, Any]:
        return {
            "up": eqx.nn.ConvTranspose2d(4, 4, 3, key=KEY),
            "rnn": eqx.nn.LSTMCell(4, 4, use_bias=False, key=KEY),
            "out": eqx.nn.Linear(4, 4, key=KEY),
            "attn": eqx.nn.MultiheadAttention(2, 4, key=KEY),
        }

    return {"pair": eqx.nn.Shared([tower(), tower(), tower()], lambda t: [t[1], t[2]], lambda t: [t[0], t[0]])}


def tensors(prefix: str = "", **shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {prefix + name.replace("__", "."): finite(shape, seed=n) for n, (name, shape) in enumerate(shapes.items())}


NORM = tensors("bn.", weight=(3,), bias=(3,), running_mean=(3,), running_var=(3,))
COUNT = {"bn.num_batches_tracked": np.array(3)}
MIXED = {
    name: array
    for n in range(4)
    for name, array in tensors(f"net.{n}.", weight=(4, 4, 3, 3) if n % 2 else (4, 4), bias=(4,)).items()
}
TOWER = tensors(
    up__weight=(4, 4, 3, 3),
    up__bias=(4,),
    rnn__weight_ih_l0=(16, 4),
    rnn__weight_hh_l0=(16, 4),
    out__weight=(4, 4),
    out__bias=(4,),
    attn__in_proj_weight=(12, 4),
    attn__out_proj__weight=(4, 4),
)
TOWERS = {f"pair.{n}.{name}": array for n in range(3) for name, array in TOWER.items()}
SQUARE = finite((4, 4))
GRU = tensors("rnn.", weight_ih_l0=(12, 4), weight_hh_l0=(12, 4), bias_ih_l0=(12,), bias_hh_l0=(12,))
UP = {f"u.{n}.{name}": a for n in range(2) for name, a in tensors(weight=(3, 3, 3), bias=(3,)).items()}

CASES: dict[str, tuple[dict[str, np.ndarray], Any, Any]] = {
    "BatchNorm ema": (NORM, lambda: norm("ema"), None),
    "BatchNorm ema, counted": (NORM | COUNT, lambda: norm("ema"), None),
    "BatchNorm batch": (NORM, lambda: norm("batch"), None),
    "BatchNorm batch, counted": (NORM | COUNT, lambda: norm("batch"), None),
    "BatchNorm, renamed": (
        {f"net.{name}": array for name, array in (NORM | COUNT).items()},
        lambda: norm("ema"),
        ["net.** -> **"],
    ),
    "Linear and Conv2d": (MIXED, lambda: {"net": mixed()}, None),
    "Linear and Conv2d in a Sequential": (MIXED, lambda: {"net": eqx.nn.Sequential(mixed())}, None),
    "Linear and Conv2d, renamed": (MIXED, lambda: {"layers": mixed()}, ["net.{n}.** -> layers.{n}.**"]),
    "Shared": ({"lm.0.weight": SQUARE, "lm.1.weight": SQUARE}, lambda: shared(False), None),
    "Shared, by the copy": ({"lm.1.weight": SQUARE}, lambda: shared(False), None),
    "Shared, transposed": (
        {"lm.0.weight": SQUARE, "lm.1.weight": np.ascontiguousarray(SQUARE.T)},
        lambda: shared(True),
        None,
    ),
    "Shared layers": (TOWERS, towers, None),
    "Shared layers, one of them": ({f"pair.0.{name}": a for name, a in TOWER.items()}, towers, None),
    "Shared layers, the last": ({f"pair.2.{name}": a for name, a in TOWER.items()}, towers, None),
    "Shared layers, renamed": (
        {f"net.{name}": array for name, array in TOWERS.items()},
        towers,
        ["net.pair.{n}.** -> pair.{n}.**"],
    ),
    "GRUCell": (GRU, lambda: {"rnn": eqx.nn.GRUCell(4, 4, key=KEY)}, None),
    "a stack": (UP, lambda: {"u": layers(lambda key: eqx.nn.ConvTranspose1d(3, 3, 3, key=key))}, None),
    "a stack, by axes": (
        UP,
        lambda: {"u": layers(lambda key: eqx.nn.ConvTranspose1d(3, 3, 3, key=key))},
        ["u.{i}.weight [a b w] -> u.weight [i a b w]"],
    ),
    "no model": (MIXED, lambda: None, ["net.{n}.** -> layers.{n}.**"]),
    "other keys": (NORM, lambda: {"x": mixed()[:1]}, None),
}


def abstract(make: Any) -> Any:
    return eqx.filter_eval_shape(make)


def values(tree: Any) -> list[Any]:
    return [bits(leaf) for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]


@pytest.mark.parametrize("case", CASES)
def test_a_plan_comes_back_as_it_was(tmp_path: Path, case: str):
    arrays, make, rules = CASES[case]
    source, like = write(tmp_path / "in.safetensors", arrays), abstract(make)
    plan = bridge.plan(source, like, rules)
    again = bridge.Plan.from_json(plan.to_json())
    assert plan.ok == (case != "other keys")
    assert again == plan
    for name in ("ok", "rules", "missing", "unexpected", "mismatched", "casts", "lossy", "nbytes", "source", "model"):
        assert getattr(again, name) == getattr(plan, name), name
    assert str(again) == str(plan)
    assert json.loads(again.to_json()) == json.loads(plan.to_json())


@pytest.mark.parametrize("case", [case for case in CASES if case != "other keys"])
def test_what_came_back_loads_and_saves(tmp_path: Path, case: str):
    arrays, make, rules = CASES[case]
    source, like = write(tmp_path / "in.safetensors", arrays), abstract(make)
    plan = bridge.plan(source, like, rules)
    again = bridge.Plan.from_json(plan.to_json())
    one, two = (bridge.load(source, like, by) for by in (rules, again))
    assert values(one) == values(two)
    bridge.save(one, tmp_path / "one.safetensors", plan)
    bridge.save(one, tmp_path / "two.safetensors", again)
    assert read(tmp_path / "one.safetensors") == read(tmp_path / "two.safetensors")


@pytest.mark.parametrize("case", ["BatchNorm ema, counted", "Linear and Conv2d", "Shared layers"])
def test_options_come_back(tmp_path: Path, case: str):
    arrays, make, rules = CASES[case]
    source, like = write(tmp_path / "in.safetensors", arrays | {"more": finite((2,))}), abstract(make)
    for options in ({"dtype": "bfloat16"}, {"dtype": {"**.weight": jnp.float16}}, {"allow_unexpected": "more"}):
        plan = bridge.plan(source, like, rules, **options)
        again = bridge.Plan.from_json(plan.to_json())
        assert again == plan
        assert (again.ok, again.casts, again.unexpected) == (plan.ok, plan.casts, plan.unexpected)


OLD = """{"version": 1, "ok": true, "source": "old.safetensors", "model": "dict", "rules": ["net.h.{l}.bias -> h.bias",
"net.h.{l}.weight -> h.weight", "net.up.bias [o] -> up.bias [o 1]",
"net.up.weight [i o k0] -> up.weight [o i k0] ; flip=\\"k0\\"", "spare -> _"], "keys": {"net.h.0.bias": ["F32", 2],
"net.h.0.weight": ["F32", 2, 3], "net.h.1.bias": ["F32", 2], "net.h.1.weight": ["F32", 2, 3], "net.up.bias": ["F32", 1],
"net.up.weight": ["F32", 2, 1, 3], "spare": ["F32", 1]}, "leaves": {"h.weight": ["F32", 2, 2, 3], "h.bias":
["F32", 2, 2], "up.weight": ["F32", 1, 2, 3], "up.bias": ["F32", 1, 1]}, "fills": {}, "allow_missing": [],
"allow_unexpected": [], "dtype": null, "missing": [], "unexpected": [], "mismatched": [], "casts": [],
"lossy": [["spare", "dropped by 'spare -> _'"]], "nbytes": 92, "peak_nbytes": 8388700}"""


def test_a_plan_of_the_first_release_is_read(tmp_path: Path):
    like = abstract(
        lambda: {
            "h": layers(lambda key: eqx.nn.Linear(3, 2, key=key)),
            "up": eqx.nn.ConvTranspose1d(2, 1, 3, key=KEY),
        }
    )
    arrays = {
        name: finite(tuple(shape), seed=n) for n, (name, (_, *shape)) in enumerate(json.loads(OLD)["keys"].items())
    }
    source = write(tmp_path / "old.safetensors", arrays)
    old = bridge.Plan.from_json(OLD)
    assert old.ok
    assert old == bridge.plan(source, like, ["net.h.{l}.** -> h.**", "net.** -> **", "spare -> _"])
    model = bridge.load(source, like, old)
    assert np.array_equal(model["up"].weight, arrays["net.up.weight"].transpose(1, 0, 2)[..., ::-1])
    assert bridge.Plan.from_json(old.to_json()) == old


@pytest.mark.parametrize("case", ["BatchNorm batch, counted", "Shared, transposed"])
def test_junk_in_every_place(tmp_path: Path, case: str):
    """Either it is a plan still, or one of our errors says that it is none."""
    arrays, make, rules = CASES[case]
    plan = bridge.plan(write(tmp_path / "in.safetensors", arrays), abstract(make), rules)
    document, refused = json.loads(plan.to_json()), 0
    more = ["** -> **", "x.{l} -> y", "a -> _", ["w"], [["w", 0, 0, None]], {"w": "w"}, {"w": 1}, 3]
    for at in places(document):
        for junk in (*JUNK, *more):
            changed = copy.deepcopy(document)
            node = changed
            for step in at[:-1]:
                node = node[step]
            node[at[-1]] = junk
            try:
                str(bridge.Plan.from_json(json.dumps(changed)))
            except (bridge.PlanError, bridge.RuleError):
                refused += 1
    assert refused > 200
