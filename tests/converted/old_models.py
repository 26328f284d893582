"""Models whose plans and converted folders 0.1.0 wrote, as they lie in `tests/converted/0.1.0`.

Each folder there has the original, 0.1.0's `plan.json` of it, and where `converted` is set what its `convert` wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

KEY = jax.random.key(0)
Tensors = dict[str, np.ndarray]


class Old(NamedTuple):
    """What a plan was made of."""

    like: Callable[[], Any]
    tensors: Callable[[], Tensors]
    rules: list[str] | None = None
    options: dict[str, Any] = {}
    converted: bool = False


class Layer(eqx.Module):
    """A layer of a very small BERT."""

    query: eqx.nn.Linear
    norm: eqx.nn.LayerNorm

    def __init__(self, key: Any):
        self.query, self.norm = eqx.nn.Linear(4, 4, key=key), eqx.nn.LayerNorm(4)


class Bert(eqx.Module):
    """Embeddings, layers, a head that shares the embeddings' matrix."""

    embed: eqx.nn.Embedding
    layers: Any

    def __init__(self, stacked: bool):
        self.embed = eqx.nn.Embedding(6, 4, key=KEY)
        keys = jax.random.split(KEY, 3)
        self.layers = eqx.filter_vmap(Layer)(keys) if stacked else [Layer(key) for key in keys]


class Net(eqx.Module):
    """A convolution and its normalisation."""

    conv: eqx.nn.Conv2d
    bn: eqx.nn.BatchNorm

    def __init__(self, mode: Any):
        self.conv, self.bn = eqx.nn.Conv2d(2, 3, 2, key=KEY), eqx.nn.BatchNorm(3, "batch", mode=mode)


def filled(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    """Small numbers, each tensor its own."""
    return {
        name: (np.arange(int(np.prod(shape)), dtype=np.float32) / 8 + 100 * n).reshape(shape)
        for n, (name, shape) in enumerate(shapes.items())
    }


def bert() -> Tensors:
    shapes: dict[str, tuple[int, ...]] = {"bert.embed.weight": (6, 4)}
    for n in range(3):
        at = f"bert.layers.{n}"
        shapes |= {f"{at}.query.weight": (4, 4), f"{at}.query.bias": (4,), f"{at}.norm.gamma": (4,)}
        shapes |= {f"{at}.norm.beta": (4,), f"{at}.inv_freq": (2,)}
    found = filled(shapes)
    return found | {"cls.weight": found["bert.embed.weight"].copy()}


def net() -> Tensors:
    found = filled({"conv.weight": (3, 2, 2, 2), "conv.bias": (3,), "bn.weight": (3,), "bn.bias": (3,)})
    return found | filled({"bn.running_mean": (3,), "bn.running_var": (3,)}) | {"bn.num_batches_tracked": np.array(7)}


def rnn() -> Tensors:
    shapes = {"net.up.weight": (2, 3, 3), "net.up.bias": (3,)}
    shapes |= {"net.rnn.weight_ih_l0": (8, 2), "net.rnn.weight_hh_l0": (8, 2)}
    shapes |= {"net.rnn.bias_ih_l0": (8,), "net.rnn.bias_hh_l0": (8,)}
    shapes |= {"net.attn.in_proj_weight": (12, 4), "net.attn.out_proj.weight": (4, 4)}
    return filled(shapes)


def layers() -> Any:
    return {
        "up": eqx.nn.ConvTranspose1d(2, 3, 3, key=KEY),
        "rnn": eqx.nn.LSTMCell(2, 2, key=KEY),
        "attn": eqx.nn.MultiheadAttention(2, 4, key=KEY),
    }


def abstract(make: Callable[..., Any], *args: Any) -> Callable[[], Any]:
    return lambda: eqx.filter_eval_shape(make, *args)


BERT = [
    "cls.weight -> embed.weight ; tie=true",
    "bert.**.inv_freq -> _",
    "bert.**.norm.gamma -> **.norm.weight",
    "bert.**.norm.beta -> **.norm.bias",
    "bert.** -> **",
]
CASES = {
    "bert-list": Old(abstract(lambda: Bert(False)), bert, BERT, {}, True),
    "bert-stack": Old(abstract(lambda: Bert(True)), bert, BERT, {}, True),
    "net-batch": Old(abstract(lambda: eqx.nn.make_with_state(Net)("batch")), net, None, {}, True),
    "net-ema": Old(abstract(lambda: eqx.nn.make_with_state(Net)("ema")), net, None, {}, True),
    "layouts": Old(abstract(layers), rnn, ["net.** -> **"]),
    "dtypes": Old(
        abstract(lambda: Bert(True)), bert, BERT, {"dtype": {"**.query.*": jnp.bfloat16, "embed.**": jnp.float16}}
    ),
    "left": Old(
        lambda: {"a": jnp.zeros(3), "b": jnp.ones(2)},
        lambda: filled({"a": (3,), "more.x": (2,)}),
        None,
        {"allow_missing": ["b"], "allow_unexpected": ["more.**"]},
    ),
}
