"""Qwen3-MoE (https://arxiv.org/abs/2505.09388): a Qwen3 whose MLPs are mixtures of many small experts.

    shards = (mesh, {"**.experts.**": P(None, "x")})
    model = bridge.models.from_pretrained("Qwen/Qwen3-30B-A3B", sharding=shards)

Layers and experts are two axes in front of each array: `layers.mlp.experts.gate.weight` is (layers, experts, f, d).
Where some layers have one MLP and no experts, `layers.mlp` has a stack of each kind: `layers.mlp.sparse.experts` and
`layers.mlp.dense`, and one scan goes through all layers, whose attention and norms are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models import qwen3
from bridge.models.attention import CausalContext
from bridge.models.config import DecoderConfig, Fields
from bridge.models.decoder import Collect, Decoder, Layer, gated_mlp, rms_norm, stack
from bridge.models.experts import Experts, fused_rules, read_experts
from bridge.models.layers import GatedMLP
from bridge.models.rope import RotaryAngles


@dataclass(frozen=True, kw_only=True)
class Config(DecoderConfig):
    """What makes one Qwen3-MoE differ from another.

    - `attention_bias`: whether the projections of attention have biases.
    - `sliding_window`: how many tokens back a layer sees, itself included; `None`: all of them.
    - `num_local_experts`: how many experts a layer has; older files call it `num_experts`. `num_experts_per_tok`: how
      many of them a token uses. `moe_intermediate_size`: the width inside one.
    - `dense_layers`: the numbers of the layers that have no experts, but one MLP, `intermediate_size` wide inside.
    - `norm_topk_prob`: whether the shares of those add up to 1.
    """

    model_types = ("qwen3_moe",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 4,
        "sliding_window": 4096,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
    }

    attention_bias: bool = False
    sliding_window: int | None
    num_local_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    norm_topk_prob: bool = False
    dense_layers: tuple[int, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        step, dense = fields.count("decoder_sparse_step", default=1), fields.wholes("mlp_only_layers")
        fields.whole("max_window_layers", default=0)  # a window is every layer's
        window = fields.window("sliding_window")
        found = super().read(fields)
        layers = range(found["num_hidden_layers"])
        return found | {
            "dense_layers": tuple(l for l in layers if l in dense or (l + 1) % step),
            "attention_bias": fields.flag("attention_bias", default=False),
            "sliding_window": window if fields.flag("use_sliding_window", default=False) else None,
            "moe_intermediate_size": fields.count("moe_intermediate_size"),
            "norm_topk_prob": fields.flag("norm_topk_prob", default=False),
            **read_experts(fields, "num_local_experts", "num_experts"),
        }

    @property
    def window(self) -> int | None:
        """The same in every layer."""
        return self.sliding_window

    @property
    def sparse_layers(self) -> tuple[int, ...]:
        """The numbers of the layers that have experts."""
        return tuple(l for l in range(self.num_hidden_layers) if l not in self.dense_layers)


class Mixed(eqx.Module):
    """The MLPs of layers of two kinds: a stack of each."""

    sparse: Experts
    dense: GatedMLP


class One(eqx.Module):
    """The MLP of one layer: which kind, and at which place of its stack."""

    mlps: Mixed
    is_sparse: jax.Array
    place: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """One token, `(d,)` to `(d,)`."""

        def of(stacked: Any) -> Any:
            return lambda x: jax.tree.map(lambda array: array[self.place], stacked)(x)

        return jax.lax.cond(self.is_sparse, of(self.mlps.sparse), of(self.mlps.dense), x)


class Qwen3MoE(Decoder):
    """The decoder. Arguments as for `bridge.models.llama.Llama`."""

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def experts(key: jax.Array) -> Experts:
            return Experts(
                config.hidden_size,
                config.moe_intermediate_size,
                config.hidden_act,
                count=config.num_local_experts,
                chosen=config.num_experts_per_tok,
                normalised=config.norm_topk_prob,
                key=key,
            )

        def dense(key: jax.Array) -> GatedMLP:
            return gated_mlp(config, key=key)

        def layers(key: jax.Array) -> Layer:
            key, key_sparse, key_dense = jax.random.split(key, 3)
            of_one_kind = dense if not config.sparse_layers else experts if not config.dense_layers else None
            found = stack(lambda key: layer(config, of_one_kind, key=key), config.num_hidden_layers)(key)
            if of_one_kind is not None:
                return found
            sparse = stack(experts, len(config.sparse_layers))(key_sparse)
            mixed = Mixed(sparse, stack(dense, len(config.dense_layers))(key_dense))
            return with_mlp(found, mixed)

        super().__init__(config, layers, rms_norm(config), key=key)

    def through(self, x: jax.Array, positions: jax.Array, memory: Any, collect: Collect) -> tuple[jax.Array, Any]:
        """Through all layers. What is collected has an axis (layers,) in front, as `memory` has."""
        config, mlps = self.config, self.layers.mlp
        if not isinstance(mlps, Mixed):
            return super().through(x, positions, memory, collect)
        angles = RotaryAngles.at(positions, config.rope, config.head_dim)
        context = CausalContext(positions, angles, config.window)
        is_sparse = [l in config.sparse_layers for l in range(config.num_hidden_layers)]
        places = [is_sparse[:l].count(is_sparse[l]) for l in range(config.num_hidden_layers)]

        def step(x: jax.Array, each: tuple[Layer, Any, jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
            call, past, *which = each
            x, new = with_mlp(call, One(mlps, *which))(x, context, past)
            return x, collect(x, new)

        rest = with_mlp(self.layers, None)
        return jax.lax.scan(step, x, (rest, memory, jnp.array(is_sparse), jnp.array(places, jnp.int32)))


def layer(config: Config, mlp: Callable[[jax.Array], Any] | None, *, key: jax.Array) -> Layer:
    """One layer; `mlp` makes what follows attention, or is left for later."""
    keys = jax.random.split(key)
    attention = qwen3.normed_attention(config, bias=config.attention_bias, key=keys[0])
    return Layer(attention, None if mlp is None else mlp(keys[1]), lambda: rms_norm(config))  # pyright: ignore[reportArgumentType]


def with_mlp(layer: Layer, mlp: Any) -> Layer:
    """A layer, or a stack of them, with another MLP."""
    return eqx.tree_at(lambda layer: layer.mlp, layer, mlp, is_leaf=lambda node: node is None)


def rules(config: Config) -> list[str]:
    """Which key is which leaf: one key for each expert, as the Hub has it; and as transformers 5 has it in memory,
    and writes it where it is asked to, all experts of a layer in one.
    """
    sparse, mlp, before = "l", "layers.mlp", list[str]()
    if config.sparse_layers and config.dense_layers:
        sparse, dense = map(_some, (config.sparse_layers, config.dense_layers))
        mlp = "layers.mlp.sparse"
        before = [f"model.layers.{{{dense}}}.mlp.{{gate|up|down}}_proj.** -> layers.mlp.dense.{{gate|up|down}}.**"]
    at = f"model.layers.{{{sparse}}}.mlp"
    return [
        *before,
        f"{at}.gate.weight -> {mlp}.router.weight",
        f"{at}.experts.{{e}}.{{gate|up|down}}_proj.weight -> {mlp}.experts.{{gate|up|down}}.weight",
        *fused_rules(at, mlp),
        *qwen3.rules(config),
    ]


def _some(layers: tuple[int, ...]) -> str:
    """An index of some layers, as rules have it: of one alone a slice, which keeps the axis."""
    first, *others = layers
    return f"l[{','.join(map(str, layers))}]" if others else f"l[{first}:{first + 1}]"
