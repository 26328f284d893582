"""Qwen3-MoE (https://arxiv.org/abs/2505.09388): a Qwen3 whose MLPs are mixtures of many small experts.

    shards = (mesh, {"**.experts.**": P(None, "x")})
    model = bridge.models.from_pretrained("Qwen/Qwen3-30B-A3B", sharding=shards)

Layers and experts are two axes in front of each array: `layers.mlp.experts.gate.weight` is (layers, experts, f, d).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from bridge.models import qwen3
from bridge.models.config import DecoderConfig, Fields
from bridge.models.decoder import Decoder, Layer, rms_norm, stack
from bridge.models.experts import Experts, fused_rules, read_experts


@dataclass(frozen=True, kw_only=True)
class Config(DecoderConfig):
    """What makes one Qwen3-MoE differ from another.

    - `attention_bias`: whether the projections of attention have biases.
    - `sliding_window`: how many tokens back a layer sees, itself included; `None`: all of them.
    - `num_local_experts`: how many experts a layer has; older files call it `num_experts`. `num_experts_per_tok`: how
      many of them a token uses. `moe_intermediate_size`: the width inside one; `intermediate_size` is unused.
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

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        # Layers without experts: no published checkpoint has any.
        fields.one_of("decoder_sparse_step", [1], default=1)
        fields.one_of("mlp_only_layers", [[]], default=[])
        fields.whole("max_window_layers", default=0)  # a window is every layer's
        window = fields.window("sliding_window")
        return super().read(fields) | {
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


class Qwen3MoE(Decoder):
    """The decoder. Arguments as for `bridge.models.llama.Llama`."""

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            experts = Experts(
                config.hidden_size,
                config.moe_intermediate_size,
                config.hidden_act,
                count=config.num_local_experts,
                chosen=config.num_experts_per_tok,
                normalised=config.norm_topk_prob,
                key=keys[1],
            )
            attention = qwen3.normed_attention(config, bias=config.attention_bias, key=keys[0])
            return Layer(attention, experts, lambda: rms_norm(config))

        super().__init__(config, stack(layer, config.num_hidden_layers), rms_norm(config), key=key)


_EXPERTS = "model.layers.{l}.mlp.experts.{e}.{gate|up|down}_proj.weight -> layers.mlp.experts.{gate|up|down}.weight"


def rules(config: Config) -> list[str]:
    """Which key is which leaf: one key for each expert, as the Hub has it; and as transformers 5 has it in memory,
    and writes it where it is asked to, all experts of a layer in one.
    """
    router = "model.layers.{l}.mlp.gate.weight -> layers.mlp.router.weight"
    return [*qwen3.rules(config), router, _EXPERTS, *fused_rules("model.layers.{l}.mlp")]
