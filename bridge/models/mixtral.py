"""Mixtral (https://arxiv.org/abs/2401.04088): a Mistral whose MLPs are mixtures of experts.

    shards = (mesh, {"**.experts.**": P(None, "x")})
    model = bridge.models.from_pretrained("mistralai/Mixtral-8x7B-v0.1", sharding=shards)

Layers and experts are two axes in front of each array: `layers.mlp.experts.gate.weight` is (layers, experts, f, d).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from bridge.models import mistral
from bridge.models.config import Fields
from bridge.models.decoder import Decoder, Layer, causal_attention, rms_norm, stack
from bridge.models.experts import Experts, fused_rules, read_experts
from bridge.models.llama import rules as llama_rules
from bridge.models.rope import Rope
from bridge.models.spellings import only_read


@dataclass(frozen=True, kw_only=True)
class Config(mistral.Config):
    """What makes one Mixtral differ from another: what a Mistral has, and

    - `num_local_experts`: how many experts a layer has. `num_experts_per_tok`: how many of them a token uses.
    """

    model_types = ("mixtral",)
    defaults: ClassVar[Mapping[str, Any]] = {
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-5,
    }

    num_local_experts: int
    num_experts_per_tok: int

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        return super().read(fields) | read_experts(fields, "num_local_experts")

    @classmethod
    def read_rope(cls, fields: Fields, positions: int) -> dict[str, Any]:
        """How positions turn heads."""
        return {"rope": Rope.of(fields, theta=1e6, positions=positions)}


class Mixtral(Decoder):
    """The decoder. Arguments as for `bridge.models.llama.Llama`."""

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            experts = Experts(
                config.hidden_size,
                config.intermediate_size,
                config.hidden_act,
                count=config.num_local_experts,
                chosen=config.num_experts_per_tok,
                normalised=True,
                key=keys[1],
            )
            return Layer(causal_attention(config, key=keys[0]), experts, lambda: rms_norm(config))

        super().__init__(config, stack(layer, config.num_hidden_layers), rms_norm(config), key=key)


_EXPERTS = "model.layers.{l}.block_sparse_moe"


def rules(config: Config) -> list[str]:
    """Which key is which leaf: one key for each expert, as the Hub has it; and as transformers 5 has it in memory,
    and writes it where it is asked to, all experts of a layer in one.
    """
    return [
        *llama_rules(config),
        _EXPERTS + ".gate.weight -> layers.mlp.router.weight",
        _EXPERTS + ".experts.{e}.{w1|w3|w2}.weight -> layers.mlp.experts.{gate|up|down}.weight",
        *only_read(["model.layers.{l}.mlp.gate.weight -> layers.mlp.router.weight"]),
        *fused_rules("model.layers.{l}.mlp"),
    ]
