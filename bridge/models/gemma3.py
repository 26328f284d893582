"""Gemma 3 (https://arxiv.org/abs/2503.19786), the text model: layers that see a window, now and then one that sees all.

Layers are grouped as they alternate: `layers.local` is stacked (groups, locals of a group), `layers.full` (groups,),
and what is left over after the last group is `layers.tail`. So the local ones remember no more than their window.

Of a checkpoint that sees images too the text model is taken; what the images go through is left behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models.attention import CausalAttention, CausalContext, KeyValues
from bridge.models.config import DecoderConfig, Fields
from bridge.models.decoder import Collect, Decoder, causal_attention, gated_mlp, scan, stack
from bridge.models.layers import GatedMLP, accumulation_dtype
from bridge.models.rope import Rope, RotaryAngles

_IMAGES = frozenset({"boi_token_index", "eoi_token_index", "image_token_index", "mm_tokens_per_image", "vision_config"})


@dataclass(frozen=True, kw_only=True)
class Config(DecoderConfig):
    """What makes one Gemma 3 differ from another.

    - `pattern`: every so many-th layer sees everything, the others `sliding_window` tokens back, themselves included.
    - `rope`, `rope_local`: how positions turn the heads of the former and of the latter.
    - `query_pre_attn_scalar`: scores are divided by its square root.
    - `attention_bias`: whether the projections of attention have biases.
    - `images`: whether it is the text of a checkpoint that sees images too: then keys are called otherwise.
    """

    model_types = ("gemma3_text",)
    activation = "hidden_activation"
    defaults: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": 131_072,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    }

    pattern: int
    sliding_window: int
    rope_local: Rope
    query_pre_attn_scalar: float
    attention_bias: bool = False
    images: bool = False

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """The config of fields; where there are images too, of those of the text."""
        text = fields.inner("text_config")
        if text is None:
            return super().of(fields)
        tied = fields.flag("tie_word_embeddings", default=True)
        config = super().of(text)
        if config.tie_word_embeddings != tied:
            fields.refuse("tie_word_embeddings", tied, "the same value as in 'text_config'")
        fields.done(_IMAGES)
        return replace(config, images=True)

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        fields.one_of("use_bidirectional_attention", [False], default=False)
        fields.nothing("attn_logit_softcapping")
        fields.nothing("final_logit_softcapping")
        found = super().read(fields)
        return found | {
            "pattern": _read_pattern(fields, found["num_hidden_layers"]),
            "sliding_window": fields.count("sliding_window"),
            "query_pre_attn_scalar": fields.number("query_pre_attn_scalar"),
            "attention_bias": fields.flag("attention_bias", default=False),
        }

    @classmethod
    def read_rope(cls, fields: Fields, positions: int) -> dict[str, Any]:
        """Both of them: as `rope_parameters` today; before, `rope_scaling` was of the layers that see everything."""
        full, local = fields.number("rope_theta", default=1e6), fields.number("rope_local_base_freq", default=1e4)
        scaling = fields.either("rope_parameters", "rope_scaling")
        inner = {"full_attention": scaling, "sliding_attention": None}
        if scaling is not None and scaling.has(*inner):
            inner = {name: scaling.inner(name) for name in inner}
            scaling.done()
        found = (
            Rope(theta) if each is None else Rope.within(each, theta=theta, positions=positions)
            for each, theta in zip(inner.values(), (full, local), strict=True)
        )
        return dict(zip(("rope", "rope_local"), found, strict=True))

    @property
    def groups(self) -> int:
        """How many whole groups there are; the layers after them are local."""
        return self.num_hidden_layers // self.pattern


def _read_pattern(fields: Fields, layers: int) -> int:
    """Every how many-th layer sees everything: `layer_types` today, `sliding_window_pattern` before."""
    pattern = fields.count("sliding_window_pattern")
    types = fields.layer_types(layers)
    if types is None:
        return pattern
    pattern = types.index("full_attention") + 1 if "full_attention" in types else layers + 1
    if any((each == "full_attention") != ((n + 1) % pattern == 0) for n, each in enumerate(types)):
        fields.refuse("layer_types", list(types), "full_attention in every n-th layer, and sliding_attention elsewhere")
    return pattern


class Norm(eqx.Module):
    """A root mean square norm that multiplies by 1 + weight.

    The weight is kept as it is stored, and 1 is added in the call: in bfloat16 the sum would lose bits of it, which
    saving could not bring back.
    """

    weight: jax.Array
    eps: float = eqx.field(static=True)

    def __init__(self, shape: int, eps: float) -> None:
        self.weight = jnp.zeros(shape)
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """`(d,)` to `(d,)`."""
        y = x.astype(accumulation_dtype(x.dtype))
        y = y * jax.lax.rsqrt(jnp.mean(y**2) + self.eps)
        return (y * (1 + self.weight.astype(y.dtype))).astype(x.dtype)


class Layer(eqx.Module):
    """Attention, then an MLP; each between two norms, and added to its input."""

    before_attention: Norm
    attention: CausalAttention
    after_attention: Norm
    before_mlp: Norm
    mlp: GatedMLP
    after_mlp: Norm

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        keys = jax.random.split(key)
        self.before_attention, self.after_attention, self.before_mlp, self.after_mlp = (
            Norm(config.hidden_size, config.rms_norm_eps) for _ in range(4)
        )
        self.attention = causal_attention(
            config,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
            head_norm=lambda: Norm(config.head_dim, config.rms_norm_eps),
            scale=config.query_pre_attn_scalar**-0.5,
            key=keys[0],
        )
        self.mlp = gated_mlp(config, key=keys[1])

    def __call__(self, x: jax.Array, context: CausalContext, past: KeyValues | None) -> tuple[jax.Array, KeyValues]:
        """`(seq, d)` to `(seq, d)`, and the keys and values to remember."""
        mixed, new = self.attention(jax.vmap(self.before_attention)(x), context, past)
        x = x + jax.vmap(self.after_attention)(mixed)
        inner = jax.vmap(self.mlp)(jax.vmap(self.before_mlp)(x))
        return x + jax.vmap(self.after_mlp)(inner), new


class Parts(NamedTuple):
    """For each kind of layer the layers, their memory, or what was collected of them. `None`: there are none."""

    local: Any = None
    full: Any = None
    tail: Any = None


class Gemma3(Decoder):
    """The decoder. Arguments as for `bridge.models.llama.Llama`."""

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def layer(key: jax.Array) -> Layer:
            return Layer(config, key=key)

        def layers(key: jax.Array) -> Parts:
            keys = jax.random.split(key, 3)
            groups, tail = divmod(config.num_hidden_layers, config.pattern)
            counts = Parts((groups, config.pattern - 1), (groups,), (tail,))
            return Parts(*(stack(layer, *n)(k) if min(n) else None for n, k in zip(counts, keys, strict=True)))

        super().__init__(config, layers, Norm(config.hidden_size, config.rms_norm_eps), key=key)

    def embedded(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """What enters the first layer: embeddings times √d, which is rounded as the model's dtype is."""
        x = super().embedded(tokens, positions)
        return x * jnp.asarray(self.config.hidden_size**0.5, x.dtype)

    def through(self, x: jax.Array, positions: jax.Array, memory: Any, collect: Collect) -> tuple[jax.Array, Parts]:
        """Through all layers; what is collected is in parts, as `memory` is."""
        config, past = self.config, memory or Parts()
        angles = [RotaryAngles.at(positions, rope, config.head_dim) for rope in (config.rope_local, config.rope)]
        near = CausalContext(positions, angles[0], config.sliding_window)
        far = CausalContext(positions, angles[1])

        def group(x: jax.Array, each: tuple[Parts, Parts]) -> tuple[jax.Array, Parts]:
            layers, past = each
            local = None
            if layers.local is not None:
                x, local = scan(layers.local, x, near, past.local, collect)
            x, new = layers.full(x, far, past.full)
            return x, Parts(local, collect(x, new))

        collected, tail = Parts(), None
        if config.groups:
            x, collected = jax.lax.scan(group, x, (self.layers._replace(tail=None), past._replace(tail=None)))
        if self.layers.tail is not None:
            x, tail = scan(self.layers.tail, x, near, past.tail, collect)
        return x, collected._replace(tail=tail)

    def slots(self, size: int) -> Parts:
        """How many tokens the layers of each part remember."""
        near = min(size, self.config.sliding_window)
        return Parts(*(None if part is None else n for part, n in zip(self.layers, (near, size, near), strict=True)))

    def in_order(self, states: Parts) -> jax.Array:
        """`(layers, seq, d)`."""
        local, full, tail = states
        full = None if full is None else full[:, None]
        groups = [part for part in (local, full) if part is not None]
        runs = [jnp.concatenate(groups, axis=1).reshape(-1, *groups[0].shape[2:])] if groups else []
        return jnp.concatenate([*runs, *([] if tail is None else [tail])])


_LAYER = (
    "input_layernorm.weight -> before_attention.weight",
    "self_attn.{q|k|v|o}_proj.** -> attention.{query|key|value|out}.**",
    "self_attn.{q|k}_norm.weight -> attention.{query_norm|key_norm}.weight",
    "post_attention_layernorm.weight -> after_attention.weight",
    "pre_feedforward_layernorm.weight -> before_mlp.weight",
    "mlp.{gate|up|down}_proj.weight -> mlp.{gate|up|down}.weight",
    "post_feedforward_layernorm.weight -> after_mlp.weight",
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf. The i-th layer of the group g is layer g · `pattern` + i."""
    every, first = config.pattern, config.groups * config.pattern
    parts = {f"{{l[{first}:]}}": "tail"}
    if config.groups:
        parts |= {f"{{(g i[:{every - 1}])}}": "local", f"{{(g i[{every - 1}])}}": "full"}
    found = [
        "model.embed_tokens.weight -> embed.weight",
        "model.norm.weight -> norm.weight",
        "lm_head.weight -> embed.weight ; tie=true" if config.tie_word_embeddings else "lm_head.weight -> head.weight",
        *(f"model.{name}.inv_freq -> _" for name in ("rotary_emb", "rotary_emb_local")),  # computed in the call
    ]
    for layer, part in parts.items():
        for key, leaf in (rule.split(" -> ") for rule in _LAYER):
            of = f" ; i={every}" if "i[" in layer else ""
            found.append(f"model.layers.{layer}.{key} -> layers.{part}.{leaf}{of}")
    if config.images:
        images = ["vision_tower.** -> _", "multi_modal_projector.** -> _"]
        return [*(f"language_model.{rule}" for rule in found), *images]
    return found
