"""Sequential and Shared: names as PyTorch writes them, and the second key of a shared parameter."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.model.template import take_apart
from tests.model.contract import abstract

KEY = jax.random.key(0)


class Head(eqx.Module):
    """An embedding whose weight is the last layer's too."""

    lm: eqx.nn.Shared

    def __init__(self, key, get=lambda pair: pair[0].weight):
        pair = (eqx.nn.Embedding(4, 4, key=key), eqx.nn.Linear(4, 4, use_bias=False, key=key))
        self.lm = eqx.nn.Shared(pair, lambda pair: pair[1].weight, get)


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def saved(tmp_path, **arrays):
    save_file({name.replace("__", "."): array for name, array in arrays.items()}, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_a_sequentials_layers_are_not_in_the_names():
    model = eqx.nn.Sequential([eqx.nn.Linear(2, 2, key=KEY), eqx.nn.Sequential([eqx.nn.LayerNorm(2)])])
    template = take_apart(model).template
    assert list(template.leaves) == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert template.aliases["layers.1.layers.0.bias"] == "1.0.bias"
    assert next(iter(take_apart(eqx.nn.MLP(2, 2, 2, 1, key=KEY)).template.leaves)) == "layers.0.weight"


def test_both_keys_of_a_shared_weight(tmp_path):
    like, weight = abstract(Head)[0], weights(4, 4)
    both = saved(tmp_path, lm__0__weight=weight, lm__1__weight=weight)
    plan = bridge.plan(both, like)
    assert plan.ok, str(plan)
    assert bridge.plan(both, like, plan.rules) == plan
    embed, linear = bridge.load(both, like).lm()
    assert embed.weight is linear.weight
    assert np.array_equal(embed.weight, weight)


@pytest.mark.parametrize("key", ["lm.0.weight", "lm.1.weight"])
def test_either_key_suffices(key, tmp_path):
    weight = weights(4, 4)
    save_file({key: weight}, tmp_path / "m.safetensors")
    assert np.array_equal(bridge.load(tmp_path / "m.safetensors", abstract(Head)[0]).lm()[1].weight, weight)


def test_by_rules_as_well(tmp_path):
    weight = weights(4, 4)
    path = saved(tmp_path, model__embed_tokens__weight=weight, lm_head__weight=weight)
    model = bridge.load(path, abstract(Head)[0], ["model.embed_tokens.** -> lm.0.**", "lm_head.** -> lm.1.**"])
    assert np.array_equal(model.lm()[0].weight, weight)


def test_unequal_copies_are_no_copies(tmp_path):
    path = saved(tmp_path, lm__0__weight=weights(4, 4), lm__1__weight=weights(4, 4, seed=1))
    with pytest.raises(bridge.CheckpointError, match=r"'lm.1.weight'.*their values differ"):
        bridge.load(path, abstract(Head)[0])


def test_a_transposed_copy(tmp_path):
    like, weight = abstract(lambda key: Head(key, lambda pair: pair[0].weight.T))[0], weights(4, 4)
    path = saved(tmp_path, lm__0__weight=weight, lm__1__weight=np.ascontiguousarray(weight.T))
    embed, linear = bridge.load(path, like).lm()
    assert np.array_equal(embed.weight, weight)
    assert np.array_equal(linear.weight, weight.T)
    with pytest.raises(bridge.CheckpointError, match="their values differ"):
        bridge.load(saved(tmp_path, lm__0__weight=weight, lm__1__weight=weight), like)


def test_a_copy_that_is_computed_is_a_leaf_of_no_one(tmp_path):
    like = abstract(lambda key: Head(key, lambda pair: 2.0 * pair[0].weight))[0]
    plan = bridge.plan(saved(tmp_path, lm__0__weight=weights(4, 4), lm__1__weight=weights(4, 4)), like)
    assert plan.unexpected == ("lm.1.weight",)


class Towers(eqx.Module):
    """Whole layers shared, each with a layout of its own."""

    pair: eqx.nn.Shared

    def __init__(self, key):
        def tower():
            return {
                "up": eqx.nn.ConvTranspose2d(4, 4, 3, key=key),
                "rnn": eqx.nn.LSTMCell(4, 4, use_bias=False, key=key),
                "out": eqx.nn.Linear(4, 4, key=key),
                "attn": eqx.nn.MultiheadAttention(2, 4, key=key),
            }

        self.pair = eqx.nn.Shared([tower(), tower(), tower()], lambda t: [t[1], t[2]], lambda t: [t[0], t[0]])


TOWER = {
    "up.weight": (4, 4, 3, 3),
    "up.bias": (4,),
    "rnn.weight_ih_l0": (16, 4),
    "rnn.weight_hh_l0": (16, 4),
    "out.weight": (4, 4),
    "out.bias": (4,),
    "attn.in_proj_weight": (12, 4),
    "attn.out_proj.weight": (4, 4),
}


def test_shared_layers_keep_their_layouts(tmp_path):
    tower = {name: weights(*shape, seed=n) for n, (name, shape) in enumerate(TOWER.items())}
    alone = {f"pair.0.{name}": array for name, array in tower.items()}
    save_file(alone, tmp_path / "one.safetensors")
    save_file(
        {f"pair.{n}.{name}": array for n in range(3) for name, array in tower.items()}, tmp_path / "all.safetensors"
    )
    save_file({f"pair.2.{name}": array for name, array in tower.items()}, tmp_path / "last.safetensors")
    like = abstract(Towers)[0]
    one = jax.tree.leaves(bridge.load(tmp_path / "one.safetensors", like))
    for name in ("all", "last"):
        for a, b in zip(jax.tree.leaves(bridge.load(tmp_path / f"{name}.safetensors", like)), one, strict=True):
            assert np.array_equal(a, b)
    # A copy that differs where a layout reads it is found too.
    broken = {f"pair.{n}.{name}": array for n in range(3) for name, array in tower.items()}
    broken["pair.1.up.bias"] = weights(4, seed=99)
    save_file(broken, tmp_path / "broken.safetensors")
    with pytest.raises(bridge.CheckpointError, match=r"'pair.1.up.bias'.*their values differ"):
        bridge.load(tmp_path / "broken.safetensors", like)


def test_shared_sums_are_told_of(tmp_path):
    """Which of two numbers was summed no leaf remembers, so a copy of them cannot be compared."""

    class Cells(eqx.Module):
        cells: eqx.nn.Shared

        def __init__(self, key):
            pair = [eqx.nn.LSTMCell(4, 4, key=key), eqx.nn.LSTMCell(4, 4, key=key)]
            self.cells = eqx.nn.Shared(pair, lambda pair: pair[1], lambda pair: pair[0])

    shapes = {"weight_ih": (16, 4), "weight_hh": (16, 4), "bias_ih": (16,), "bias_hh": (16,)}
    arrays = {f"cells.{n}.{name}": weights(*shape) for n in range(2) for name, shape in shapes.items()}
    save_file(arrays, tmp_path / "m.safetensors")
    plan = bridge.plan(tmp_path / "m.safetensors", abstract(Cells)[0])
    assert plan.unexpected == ("cells.1.bias_hh", "cells.1.bias_ih")
    assert "a copy of 'cells.0.bias', which is a sum: drop it on purpose, 'cells.1.bias_ih -> _'" in str(plan)
    drop = ["cells.1.bias_* -> _"]
    assert np.array_equal(
        bridge.load(tmp_path / "m.safetensors", abstract(Cells)[0], drop).cells()[1].bias, 2 * arrays["cells.0.bias_ih"]
    )


def test_stacks_of_shared_layers(tmp_path):
    weight = weights(3, 4, 4)
    arrays = {f"heads.{n}.lm.{part}.weight": weight[n] for n in range(3) for part in range(2)}
    save_file(arrays, tmp_path / "m.safetensors")

    class Heads(eqx.Module):
        heads: Head

    like = abstract(lambda key: Heads(eqx.filter_vmap(Head)(jax.random.split(key, 3))))[0]
    assert np.array_equal(bridge.load(tmp_path / "m.safetensors", like).heads.lm()[1].weight, weight)


def test_a_stack_whose_copy_is_computed_leaves_the_tie_to_a_rule(tmp_path):
    """Its function means one layer, and cannot be asked about three."""

    class Heads(eqx.Module):
        heads: Head

    def head(key):
        return Head(key, lambda pair: jnp.einsum("ab->ba", pair[0].weight))

    like = abstract(lambda key: Heads(eqx.filter_vmap(head)(jax.random.split(key, 3))))[0]
    weight = weights(3, 4, 4)
    arrays = {f"heads.{n}.lm.0.weight": weight[n] for n in range(3)}
    save_file(arrays | {f"heads.{n}.lm.1.weight": weight[n].T.copy() for n in range(3)}, tmp_path / "m.safetensors")
    assert len(bridge.plan(tmp_path / "m.safetensors", like).unexpected) == 3
    rule = "heads.{n}.lm.1.weight [a b] -> heads.lm.0.weight [n b a] ; tie=true"
    assert np.array_equal(bridge.load(tmp_path / "m.safetensors", like, rule).heads.lm.pytree[0].weight, weight)
