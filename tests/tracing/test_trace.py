"""`bridge.trace` against the program without it: the same bits; and against what modules give when they are called."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge

KEY = jax.random.key(0)


class Block(eqx.Module):
    norm: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        keys = jax.random.split(key)
        self.norm = eqx.nn.LayerNorm(4)
        self.up, self.down = eqx.nn.Linear(4, 6, key=keys[0]), eqx.nn.Linear(6, 4, key=keys[1])

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(seq, 4)` to `(seq, 4)`."""
        y = jax.vmap(self.up)(jax.vmap(self.norm)(x))
        return x + jax.vmap(self.down)(jax.nn.gelu(y))


def made(make: Any, *args: Any, **kwargs: Any) -> Any:
    """A module with values from numpy: nothing is compiled for them."""
    rng = np.random.default_rng(0)

    def value(leaf: Any) -> Any:
        spec = isinstance(leaf, jax.ShapeDtypeStruct)
        return jnp.asarray(rng.normal(size=leaf.shape).astype(leaf.dtype)) if spec else leaf

    return jax.tree.map(value, eqx.filter_eval_shape(lambda: make(*args, **kwargs)))


def stacked(n: int, make: Any = Block) -> Any:
    """A stack of `n` modules."""
    return made(lambda: eqx.filter_vmap(make)(jax.random.split(KEY, n)))


def linear(*sizes: int) -> eqx.nn.Linear:
    return made(eqx.nn.Linear, *sizes, key=KEY)


def layer(blocks: Block, n: int) -> Block:
    """One module of a stack, in numpy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[n] if eqx.is_array(leaf) else leaf, blocks)


class Stack(eqx.Module):
    blocks: Block
    head: eqx.nn.Linear
    how: str = eqx.field(static=True)

    def __init__(self, how: str) -> None:
        self.blocks, self.head, self.how = stacked(3), linear(4, 2), how

    def __call__(self, x: jax.Array) -> jax.Array:
        dynamic, static = eqx.partition(self.blocks, eqx.is_array)

        def step(x: jax.Array, leaves: Any) -> jax.Array:
            return eqx.combine(leaves, static)(x)

        if self.how == "checkpoint":
            x, _ = jax.lax.scan(lambda x, leaves: (jax.checkpoint(step)(x, leaves), None), x, dynamic)
        if self.how == "fori":
            x = jax.lax.fori_loop(0, 3, lambda n, x: step(x, jax.tree.map(lambda leaf: leaf[n], dynamic)), x)
        if self.how == "unrolled":
            for n in range(3):
                x = jax.tree.map(lambda leaf, n=n: leaf[n] if eqx.is_array(leaf) else leaf, self.blocks)(x)
        if self.how == "jit again":
            call = jax.jit(step)
            for n in range(3):
                x = call(x, jax.tree.map(lambda leaf, n=n: leaf[n], dynamic))
        return jax.vmap(self.head)(x)


def batched(model: Any, x: jax.Array) -> Any:
    return jax.vmap(model)(x)


def traced(fn: Any, model: Any, *args: Any) -> bridge.Trace:
    """A trace, whose result has the bits that the function gives without one."""
    trace = bridge.trace(fn, model, *args)
    expected = eqx.filter_jit(fn)(model, *args)
    assert jax.tree.structure(trace.result) == jax.tree.structure(expected)
    for found, wanted in zip(*map(jax.tree.leaves, (trace.result, expected)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    return trace


def near(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32))


def computed(blocks: Block, x: Any, layers: int = 3) -> dict[str, list[np.ndarray]]:
    """What each layer gives, in numpy."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("blocks", "blocks.norm", "blocks.up", "blocks.down")}
    x = np.asarray(x)
    for n in range(layers):
        one = layer(blocks, n)
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + one.norm.eps)
        found["blocks.norm"].append(y * one.norm.weight + one.norm.bias)
        found["blocks.up"].append(found["blocks.norm"][-1] @ one.up.weight.T + one.up.bias)
        gelu = found["blocks.up"][-1]
        gelu = gelu / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gelu + 0.044715 * gelu**3)))
        found["blocks.down"].append(gelu @ one.down.weight.T + one.down.bias)
        x = x + found["blocks.down"][-1]
        found["blocks"].append(x)
    return found


@pytest.mark.parametrize("how", ["checkpoint", "fori"])
def test_in_a_loop_over_layers_there_is_an_axis_for_them_in_front(how: str):
    model = Stack(how)
    trace = traced(batched, model, X)
    assert list(trace) == ["blocks.norm", "blocks.up", "blocks.down", "blocks", "head", ""]
    expected = computed(model.blocks, X)
    for name, outputs in expected.items():
        near(trace[name].output, np.stack(outputs))
    near(trace["blocks"].inputs[0], np.stack([X, *expected["blocks"][:-1]]))
    near(trace["head"].inputs[0], expected["blocks"][-1])
    np.testing.assert_array_equal(trace[""].output, trace.result)


@pytest.mark.parametrize("how", ["unrolled", "jit again"])
def test_calls_of_one_module_are_kept_apart(how: str):
    model = Stack(how)
    trace = traced(batched, model, X)
    for name, outputs in computed(model.blocks, X).items():
        for n, (call, output) in enumerate(zip((name, f"{name}#2", f"{name}#3"), outputs, strict=True)):
            near(trace[call].output, output)
            assert trace[call].number == n


def test_under_a_gradient_what_was_computed_forward_is_there_once():
    model = Stack("checkpoint")

    def loss(model: Stack, x: jax.Array) -> jax.Array:
        return (jax.vmap(model)(x) ** 2).sum()

    trace = traced(eqx.filter_value_and_grad(loss), model, X)
    assert list(trace) == ["blocks.norm", "blocks.up", "blocks.down", "blocks", "head", ""]
    for name, outputs in computed(model.blocks, X).items():
        near(trace[name].output, np.stack(outputs))
    assert type(trace.result[1]) is Stack


def test_mapped_over_inputs_and_modules():
    model = stacked(2)
    trace = traced(lambda m, x: eqx.filter_vmap(lambda one: jax.vmap(one, in_axes=1)(x))(m), model, X.swapaxes(0, 1))
    assert trace["norm"].output.shape == (2, 2, 5, 4)
    assert trace[""].inputs[0].shape == (2, 5, 4)  # the same for all modules
    for n in range(2):
        expected = computed(jax.tree.map(lambda leaf, n=n: leaf[n:] if eqx.is_array(leaf) else leaf, model), X, 1)
        near(trace[""].output[n], expected["blocks"][0])


class Branches(eqx.Module):
    a: eqx.nn.Linear
    b: eqx.nn.Linear

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.lax.cond(x.sum() > 0, lambda x: self.a(x), lambda x: 2 * self.b(x), x)


def test_of_a_condition_the_branch_that_did_not_run_is_nan():
    a, b = (made(eqx.nn.Linear, 4, 3, key=KEY), stacked(1, lambda key: eqx.nn.Linear(4, 3, key=key)))
    b = jax.tree.map(lambda leaf: leaf[0], b)
    x = np.ones(4, np.float32)
    trace = traced(lambda m, x: m(x), Branches(a, b), jnp.asarray(x))
    near(trace["a"].output, a.weight @ x + a.bias)
    assert np.isnan(trace["b"].output).all()
    near(trace.again(Branches(b, a))["a"].output, b.weight @ x + b.bias)
    trace = bridge.trace(lambda m, x: m(x), Branches(a, b), jnp.asarray(-x))
    near(trace["b"].output, b.weight @ -x + b.bias)
    assert np.isnan(trace["a"].output).all()


def test_shared_layers_methods_and_sequences():
    class Language(eqx.Module):
        shared: eqx.nn.Shared
        body: eqx.nn.Sequential

        def encode(self, tokens: jax.Array) -> jax.Array:
            embed, head = self.shared()
            return jax.vmap(head)(jax.vmap(self.body)(jax.vmap(embed)(tokens)))

    embed, head = made(eqx.nn.Embedding, 7, 4, key=KEY), made(eqx.nn.Linear, 4, 7, use_bias=False, key=KEY)
    shared = eqx.nn.Shared((embed, head), lambda pair: pair[1].weight, lambda pair: pair[0].weight)
    body = eqx.nn.Sequential([linear(4, 4), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Dropout(inference=True)])
    model = Language(shared, body)
    trace = traced(lambda m, t: m.encode(t), model, jnp.arange(5))
    assert list(trace) == ["shared.0", "body.0", "body.1", "body.2", "body", "shared.1"]
    near(trace["shared.1"].output, np.asarray(trace["body"].output) @ np.asarray(embed.weight).T)


def test_batch_norm_with_its_state():
    class Net(eqx.Module):
        conv: eqx.nn.Conv1d
        norm: eqx.nn.BatchNorm

        def __init__(self) -> None:
            self.conv = eqx.nn.Conv1d(2, 3, 3, key=KEY)
            self.norm = eqx.nn.BatchNorm(3, "batch", mode="batch")

        def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple[jax.Array, eqx.nn.State]:
            return self.norm(self.conv(x), state)

    model, state = made(eqx.nn.make_with_state(Net))

    def fn(model: Net, x: jax.Array, state: eqx.nn.State) -> Any:
        return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 2, 9)).astype(np.float32))
    trace = traced(fn, model, x, state)
    windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=-1)
    near(
        trace["norm"].inputs[0],
        np.einsum("bitk,oik->bot", windows, np.asarray(model.conv.weight)) + np.asarray(model.conv.bias),
    )
    np.testing.assert_array_equal(trace["norm"].output[0], trace.result[0])
    assert repr(trace["norm"].inputs[1]) == "<State>"
    pair = bridge.trace(lambda pair, x: fn(pair[0], x, pair[1]), (model, state), x)
    assert list(pair) == list(trace) == ["conv", "norm", ""]


def test_a_loop_over_time_and_one_over_layers_are_told_apart():
    class Net(eqx.Module):
        cells: eqx.nn.GRUCell  # stacked

        def __call__(self, xs: jax.Array) -> jax.Array:
            def layer(xs: jax.Array, cell: eqx.nn.GRUCell) -> tuple[jax.Array, None]:
                def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
                    h = cell(x, h)
                    return h, h

                return jax.lax.scan(step, jnp.zeros(4), xs)[1], None

            return jax.lax.scan(layer, xs, self.cells)[0]

    cells = stacked(5, lambda key: eqx.nn.GRUCell(4, 4, key=key))
    trace = traced(batched, Net(cells), X)
    assert trace["cells"].output.shape == (5, 5, 2, 4)  # layers, time, batch
    (axes,) = {met.mark.axes for slot, met in trace["cells"].marks.items() if slot == max(trace["cells"].marks)}
    assert axes == (True, False, False)


def test_a_while_loop_is_refused_by_name():
    def fn(linear: eqx.nn.Linear, x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + linear(x) ** 2, x)

    with pytest.raises(bridge.BridgeError, match="'model' is called within while_loop"):
        bridge.trace(fn, linear(4, 4), jnp.ones(4))


def test_what_is_split_over_devices_is_refused_by_name():
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("x",))
    split = jax.sharding.PartitionSpec("x")

    def fn(linear: eqx.nn.Linear, x: jax.Array) -> jax.Array:
        return jax.shard_map(jax.vmap(linear), mesh=mesh, in_specs=split, out_specs=split)(x)

    with pytest.raises(bridge.BridgeError, match=r"'model' is called within shard_map.*on one device"):
        bridge.trace(fn, linear(4, 4), jnp.ones((2, 4)))
