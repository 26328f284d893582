"""Mistakes that are planted in a model's code or in its config."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from bridge.models.rope import RotaryAngles
from tests.checking.ports import Mistake, Port


def norm_without_one(port: Port) -> Mistake | None:
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


def without_scales(port: Port) -> Mistake | None:
    """Layer scales that a port has, and does not use."""
    if not any(re.search(r"\bscale\d?$", rule.partition(" ; ")[0].partition(" [")[0]) for rule in port.rules):
        return None
    if "convnext" in port.name:
        block = importlib.import_module("bridge.models.convnext").Block
        call = block.__call__

        def unscaled(self: Any, x: jax.Array) -> jax.Array:
            return call(eqx.tree_at(lambda one: one.scale, self, jnp.ones_like(self.scale)), x)

        return Mistake(
            port.rules, frozenset({"stages.0.rest"}), by_rule=False, code=_patched(block, "__call__", unscaled)
        )
    layer = importlib.import_module("bridge.models.dinov2").Layer

    def plain(self: Any, x: jax.Array, context: Any) -> jax.Array:
        x = x + self.attention(jax.vmap(self.norm1)(x), context)
        return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))

    return Mistake(port.rules, frozenset({"layers"}), by_rule=False, code=_patched(layer, "__call__", plain))


def distances_backwards(port: Port) -> Mistake | None:
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


def window(port: Port) -> Mistake | None:
    """Tokens that look less far."""
    for field in ("sliding_window", "local_attention"):
        if getattr(port.config, field, None) is not None:
            config = replace(port.config, **{field: getattr(port.config, field) - 2})
            return Mistake(port.rules, frozenset({"attention", "layers"}), by_rule=False, config=config)
    return None


def without_logit_scale(port: Port) -> Mistake | None:
    if not hasattr(port.config, "vision_config"):
        return None
    dual = importlib.import_module("bridge.models.dual").DualEncoder
    call = dual.logits

    def unscaled(self: Any, images: jax.Array, texts: jax.Array) -> jax.Array:
        return call(eqx.tree_at(lambda one: one.logit_scale, self, jnp.zeros_like(self.logit_scale)), images, texts)

    return Mistake(port.rules, frozenset({""}), by_rule=False, code=_patched(dual, "logits", unscaled))


def rope_in_pairs(port: Port) -> Mistake | None:
    if not hasattr(port.config, "rope"):
        return None
    # With norms of queries and keys their weights would have to be laid out otherwise too; and parts of one key are
    # all laid out as one.
    plain = not any("query_norm" in rule or "(query|key" in rule for rule in port.rules)
    return Mistake(port.rules, frozenset({"attention", "attention.query", "attention.key"}), by_rule=plain, code=_pairs)


def epsilon(port: Port) -> Mistake | None:
    config = _of_config(port.config, ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps"), 0.3)
    if config is None:
        return None
    names = ("norm", "norm1", "norm2", "norm_embed", "embed.norm", "pooler.norm", "before_attention", "distances.norm")
    names = (*names, "attention.query_norm", "attention.key_norm")
    return Mistake(port.rules, frozenset(names), by_rule=False, config=config)


def activation(port: Port) -> Mistake | None:
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
