"""Mistakes that are planted in ports: in their rules, in the model's code, in its config."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import bridge
from bridge.models.rope import RotaryAngles
from tests.checking.ports import Mistake, Port, inner


def mistakes(port: Port) -> dict[str, Mistake]:
    """Every mistake that the architecture can have."""
    return {name: found for name, make in _KINDS.items() if (found := make(port)) is not None}


def _exchanged(port: Port, one: str, other: str, *names: str) -> Mistake | None:
    """The keys of two leaves exchanged, wherever their layers stand: on the leaf side, or among the parts of an axis."""
    rules: list[str] = []
    for rule in port.rules:
        key, _, leaf = rule.partition(" -> ")
        parts = f"({one}|{other}|"
        if parts in key:
            key = key.replace(parts, f"({other}|{one}|")
        else:
            leaf = re.sub(rf"\b({one}|{other})\b", lambda found: other if found[0] == one else one, leaf)
        rules.append(f"{key} -> {leaf}")
    found = Mistake(tuple(rules), frozenset({*names, one, other}))
    return found if found.rules != port.rules and _plans(port, found) else None


def _plans(port: Port, found: Mistake) -> bool:
    return bridge.plan(port.folder, port.like, list(found.rules)).ok


def _edited(port: Port, ending: str, edit: Callable[[bridge.Rule], str | None]) -> Mistake | None:
    """Each rule of a leaf whose name ends so, edited."""
    edits: dict[str, str] = {}
    names: set[str] = set()
    for text in port.rules:
        rule = bridge.Rule(text)
        if rule.leaf is not None and str(rule.leaf.name).endswith(ending):
            edits[text] = edit(rule) or text
            names.add(inner(str(rule.leaf.name).rpartition(".")[0]))
    found = Mistake(tuple(edits.get(text, text) for text in port.rules), frozenset(names))
    return found if found.rules != port.rules and _plans(port, found) else None


def _turned(rule: bridge.Rule) -> str | None:
    """A matrix the other way round."""
    key, leaf = rule.keys[0], rule.leaf
    assert leaf is not None
    if leaf.axes is not None:
        *lead, a, b = map(str, leaf.axes)
        return f"{key} -> {leaf.name} [{' '.join([*lead, b, a])}]"
    stays = [index.name for index in leaf.name.indices()]
    lead = [index.name for index in key.name.indices() if index.name not in stays]
    sizes = " ".join(f"{name}={size}" for name, size in rule.sizes)
    return f"{key} [x y] -> {leaf} [{' '.join([*lead, 'y', 'x'])}]" + (f" ; {sizes}" if sizes else "")


def _with(option: str) -> Callable[[bridge.Rule], str]:
    return lambda rule: f"{rule}{' ' if rule.sizes else ' ; '}{option}"


def _swap_q_k(port: Port) -> Mistake | None:
    inner = ("attention.query", "attention.key", "attention", "attention.query_norm", "attention.key_norm")
    return _exchanged(port, "query", "key", *inner)


def _swap_gate_up(port: Port) -> Mistake | None:
    inner = ("mlp", "mlp.gate", "mlp.up", "mlp.experts", "mlp.experts.gate", "mlp.experts.up")
    return _exchanged(port, "gate", "up", *inner)


def _swap_norms(port: Port) -> Mistake | None:
    pair = ("before_attention", "before_mlp") if port.name == "gemma3" else ("norm1", "norm2")
    return _exchanged(port, *pair)


def _transposed(port: Port) -> Mistake | None:
    return _edited(port, "attention.out.weight", _turned)


def _scaled(port: Port) -> Mistake | None:
    return _edited(port, "attention.value.weight" if port.name != "gpt2" else "mlp.up.weight", _with("scale=0.5"))


def _plus_one(port: Port) -> Mistake | None:
    return _edited(port, "before_mlp.weight" if port.name == "gemma3" else "norm2.weight", _with("add=1.0"))


def _norm_without_one(port: Port) -> Mistake | None:
    """Gemma's norms as a port has them that knows no 1 + weight."""
    if port.name != "gemma3":
        return None
    gemma = importlib.import_module("bridge.models.gemma3")

    def plain(node: Any) -> Any:
        if not isinstance(node, gemma.Norm):
            return node
        norm = eqx.filter_eval_shape(lambda: eqx.nn.RMSNorm(node.weight.shape[-1], node.eps, use_bias=False))
        return eqx.tree_at(lambda norm: norm.weight, norm, node.weight)

    def changed(like: Any) -> Any:
        return jax.tree.map(plain, like, is_leaf=lambda node: isinstance(node, gemma.Norm))

    norms = (
        "before_attention",
        "after_attention",
        "before_mlp",
        "after_mlp",
        "attention.query_norm",
        "attention.key_norm",
    )
    return Mistake(port.rules, frozenset(norms), changed=changed)


def _layers_out_of_order(port: Port) -> Mistake | None:
    rules = tuple(rule.replace("{l}", "{l[0,2,1]}") for rule in port.rules)
    inside = {inner(str(bridge.Rule(rule).leaf.name).rpartition(".")[0]) for rule in rules if "[0,2,1]" in rule}
    found = Mistake(rules, frozenset({"", "layers", *inside}))
    return found if rules != port.rules and _plans(port, found) else None


@contextlib.contextmanager
def _pairs() -> Iterator[None]:
    """Rotary positions that turn neighbours, and not the halves of a head."""

    def turned(self: RotaryAngles, x: jax.Array) -> jax.Array:
        first, second = x[..., ::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
        cos, sin = self.cos[:, None, :], self.sin[:, None, :]
        both = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return both.reshape(x.shape).astype(x.dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RotaryAngles, "__call__", turned)
        yield


def _rope_in_pairs(port: Port) -> Mistake | None:
    if not hasattr(port.config, "rope"):
        return None
    # With norms of queries and keys their weights would have to be laid out otherwise too.
    plain = not any("query_norm" in rule for rule in port.rules)
    return Mistake(port.rules, frozenset({"attention", "attention.query", "attention.key"}), by_rule=plain, code=_pairs)


def _epsilon(port: Port) -> Mistake | None:
    for field in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"):
        if hasattr(port.config, field):
            config = replace(port.config, **{field: 0.3})
            names = (
                "norm",
                "norm1",
                "norm2",
                "embed.norm",
                "before_attention",
                "attention.query_norm",
                "attention.key_norm",
            )
            return Mistake(port.rules, frozenset(names), by_rule=False, config=config)
    return None


def _activation(port: Port) -> Mistake | None:
    field = next((field for field in ("hidden_act", "activation_function") if hasattr(port.config, field)), None)
    if field is None or port.name == "esm":  # whose activation is always the same
        return None
    config = replace(port.config, **{field: "relu"})
    return Mistake(port.rules, frozenset({"mlp", "mlp.experts"}), by_rule=False, config=config)


_KINDS: Mapping[str, Callable[[Port], Mistake | None]] = {
    "q and k exchanged": _swap_q_k,
    "a square turned over": _transposed,
    "gate and up exchanged": _swap_gate_up,
    "a factor too many": _scaled,
    "a norm with 1 too many": _plus_one,
    "norms without 1 +": _norm_without_one,
    "norms exchanged": _swap_norms,
    "layers out of order": _layers_out_of_order,
    "rotary pairs for halves": _rope_in_pairs,
    "another epsilon": _epsilon,
    "another activation": _activation,
}
