"""Mistakes that are planted in ports: in their rules, in the model's code, in its config."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        if re.search(rf"\({one}\|{other}[|)]", key):  # parts of an axis
            key = key.replace(f"({one}|{other}", f"({other}|{one}")
        else:
            leaf = re.sub(rf"\b({one}|{other})\b", lambda found: other if found[0] == one else one, leaf)
        rules.append(f"{key} -> {leaf}")
    found = Mistake(tuple(rules), frozenset({*names, one, other}))
    return found if found.rules != port.rules and _plans(port, found) else None


def _plans(port: Port, found: Mistake) -> bool:
    return bridge.plan(port.folder, port.like, list(found.rules)).ok


def _edited(port: Port, ending: str | tuple[str, ...], edit: Callable[[bridge.Rule], str | None]) -> Mistake | None:
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


def _swap_statistics(port: Port) -> Mistake | None:
    """BatchNorm's mean and variance."""
    names = {inner(rule.rpartition(".")[0]) for rule in (rule.rpartition("-> ")[2] for rule in port.rules)}
    return _exchanged(port, "running_mean", "running_var", *(name for name in names if name.endswith("norm")))


def _swap_convolutions(port: Port) -> Mistake | None:
    """The two of a block that have one shape, with their norms."""
    if port.name != "resnet_basic":
        return None

    def made(rule: str) -> list[str]:
        key, _, leaf = rule.partition(" -> ")
        if ".rest." not in leaf:
            return [rule]
        return [f"{key.replace('{c}', c)} -> {leaf.replace('{c}', other)}" for c, other in ("01", "10")]

    names = [f"convs.{c}{part}" for c in "01" for part in ("", ".conv", ".norm")]
    return Mistake(tuple(each for rule in port.rules for each in made(rule)), frozenset(names))


def _swap_scales(port: Port) -> Mistake | None:
    return _exchanged(port, "scale1", "scale2", "layers")


def _swap_distances(port: Port) -> Mistake | None:
    return _exchanged(port, "pos_key", "pos_query", "attention.pos_key", "attention.pos_query", "attention")


def _axes_of_a_convolution(port: Port) -> Mistake | None:
    """Height and width of each square kernel exchanged."""

    def turned(rule: bridge.Rule) -> str | None:
        key, leaf = rule.keys[0], rule.leaf
        assert leaf is not None
        stays = [index.name for index in leaf.name.indices()]
        lead = [index.name for index in key.name.indices() if index.name not in stays]
        if leaf.axes is not None:
            *lead, a, b = map(str, leaf.axes)
            return f"{key} -> {leaf.name} [{' '.join([*lead, b, a])}]"
        return f"{key} [o i x y] -> {leaf} [{' '.join([*lead, 'o', 'i', 'y', 'x'])}]"

    return _edited(port, ("patches.weight", "conv.weight"), turned)


def _transposed(port: Port) -> Mistake | None:
    return _edited(port, "attention.out.weight", _turned)


def _scaled(port: Port) -> Mistake | None:
    ending = {"gpt2": "mlp.up.weight", "convnext": "up.weight", "convnextv2": "up.weight"}
    return _edited(port, ending.get(port.name, ("attention.value.weight", "convs.0.conv.weight")), _with("scale=0.5"))


def _plus_one(port: Port) -> Mistake | None:
    ending = {"gemma3": "before_mlp.weight", "convnext": "norm.weight", "convnextv2": "norm.weight"}
    return _edited(port, ending.get(port.name, ("norm2.weight", "convs.1.norm.weight")), _with("add=1.0"))


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
    names = {"{l}": "{l[0,2,1]}", "{l[1:]}": "{l[2,1]}", "{b}": "{b[0,2,1]}", "{b[1:]}": "{b[2,1]}"}
    found = {rule: re.sub(r"\{[lb](\[1:\])?\}", lambda met: names[met[0]], rule) for rule in port.rules}
    rules = tuple(found.values())
    leaves = [bridge.Rule(rule).leaf for rule, made in found.items() if made != rule]
    inside = {inner(str(leaf.name).rpartition(".")[0]) for leaf in leaves if leaf is not None}
    found = Mistake(rules, frozenset({"", "layers", "stages.0", "stages.0.rest", *inside}))
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


def _patched(target: Any, name: str, other: Any) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A model's code with another function in one place."""

    @contextlib.contextmanager
    def code() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, name, other)
            yield

    return code


def _without_scales(port: Port) -> Mistake | None:
    """Layer scales that a port has, and does not use."""
    if not any(re.search(r"\bscale\d?$", rule.partition(" ; ")[0].partition(" [")[0]) for rule in port.rules):
        return None
    if "convnext" in port.name:
        block = importlib.import_module("bridge.models.convnext").Block
        call = block.__call__

        def unscaled(self: Any, x: jax.Array) -> jax.Array:
            return call(eqx.tree_at(lambda one: one.scale, self, jnp.ones_like(self.scale)), x)

        return Mistake(port.rules, frozenset({"stages.0.rest"}), by_rule=False, code=_patched(block, "__call__", unscaled))
    layer = importlib.import_module("bridge.models.dinov2").Layer

    def plain(self: Any, x: jax.Array, context: Any) -> jax.Array:
        x = x + self.attention(jax.vmap(self.norm1)(x), context)
        return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))

    return Mistake(port.rules, frozenset({"layers"}), by_rule=False, code=_patched(layer, "__call__", plain))


def _distances_backwards(port: Port) -> Mistake | None:
    """Relative positions of keys to queries, where they are of queries to keys."""
    if "deberta" not in port.name:
        return None
    kind = importlib.import_module("bridge.models.disentangled").Distances
    call = kind.__call__

    def backwards(self: Any, seq: int) -> Any:
        x, rows = call(self, seq)
        return x, rows.T

    names = frozenset({"attention", "layers"})
    return Mistake(port.rules, names, by_rule=False, code=_patched(kind, "__call__", backwards))


def _window(port: Port) -> Mistake | None:
    """Tokens that look less far."""
    for field in ("sliding_window", "local_attention"):
        if getattr(port.config, field, None) is not None:
            config = replace(port.config, **{field: getattr(port.config, field) - 2})
            return Mistake(port.rules, frozenset({"attention", "layers"}), by_rule=False, config=config)
    return None


def _without_logit_scale(port: Port) -> Mistake | None:
    if not hasattr(port.config, "vision_config"):
        return None
    dual = importlib.import_module("bridge.models.dual").DualEncoder
    call = dual.logits

    def unscaled(self: Any, images: jax.Array, texts: jax.Array) -> jax.Array:
        return call(eqx.tree_at(lambda one: one.logit_scale, self, jnp.zeros_like(self.logit_scale)), images, texts)

    return Mistake(port.rules, frozenset({""}), by_rule=False, code=_patched(dual, "logits", unscaled))


def _rope_in_pairs(port: Port) -> Mistake | None:
    if not hasattr(port.config, "rope"):
        return None
    # With norms of queries and keys their weights would have to be laid out otherwise too; and parts of one key are
    # all laid out as one.
    plain = not any("query_norm" in rule or "(query|key" in rule for rule in port.rules)
    return Mistake(port.rules, frozenset({"attention", "attention.query", "attention.key"}), by_rule=plain, code=_pairs)


def _epsilon(port: Port) -> Mistake | None:
    config = _of_config(port.config, ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"), 0.3)
    if config is None:
        return None
    names = ("norm", "norm1", "norm2", "norm_embed", "embed.norm", "pooler.norm", "before_attention", "distances.norm")
    names = (*names, "attention.query_norm", "attention.key_norm")
    return Mistake(port.rules, frozenset(names), by_rule=False, config=config)


def _activation(port: Port) -> Mistake | None:
    if port.name == "esm" or "resnet" in port.name:  # whose activation is always the same, and is `relu`
        return None
    config = _of_config(port.config, ("hidden_act", "hidden_activation", "activation_function"), "relu")
    names = frozenset({"mlp", "mlp.experts", "stages.0.rest"})
    return None if config is None else Mistake(port.rules, names, by_rule=False, config=config)


def _of_config(config: Any, fields: Sequence[str], value: Any) -> Any:
    """A config with another value in the first of some fields that it has, or that those of its encoders have."""
    within = [name for name in ("text_config", "vision_config") if hasattr(config, name)]
    if within:
        return replace(config, **{name: _of_config(getattr(config, name), fields, value) for name in within})
    field = next((field for field in fields if hasattr(config, field)), None)
    return None if field is None else replace(config, **{field: value})


_KINDS: Mapping[str, Callable[[Port], Mistake | None]] = {
    "q and k exchanged": _swap_q_k,
    "a square turned over": _transposed,
    "gate and up exchanged": _swap_gate_up,
    "a factor too many": _scaled,
    "a norm with 1 too many": _plus_one,
    "norms without 1 +": _norm_without_one,
    "norms exchanged": _swap_norms,
    "mean and variance exchanged": _swap_statistics,
    "convolutions exchanged": _swap_convolutions,
    "height and width exchanged": _axes_of_a_convolution,
    "scales of layers exchanged": _swap_scales,
    "scales of layers left out": _without_scales,
    "distances' keys and queries exchanged": _swap_distances,
    "distances the other way": _distances_backwards,
    "another window": _window,
    "the scale of logits left out": _without_logit_scale,
    "layers out of order": _layers_out_of_order,
    "rotary pairs for halves": _rope_in_pairs,
    "another epsilon": _epsilon,
    "another activation": _activation,
}
