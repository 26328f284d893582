"""Llama 1 to 3.3, and the many models of its shape (https://arxiv.org/abs/2407.21783).

    model = bridge.models.from_pretrained("meta-llama/Llama-3.2-1B")
    logits = model(tokens)  # (seq,) -> (seq, vocab); a batch by jax.vmap
    tokens = bridge.models.generate(model, tokens, 20)

All layers are one stacked module under `jax.lax.scan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from bridge.models.config import DecoderConfig, Fields
from bridge.models.decoder import Decoder, Layer, causal_attention, gated_mlp, rms_norm, stack


@dataclass(frozen=True, kw_only=True)
class Config(DecoderConfig):
    """What makes one Llama differ from another. `attention_bias`, `mlp_bias`: whether these projections have biases."""

    model_types = ("llama",)

    attention_bias: bool = False
    mlp_bias: bool = False

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        fields.one_of("is_llama_config", [True], default=True)  # of models that were converted to this shape
        fields.one_of("rope_interleaved", [False], default=False)
        biases = {name: fields.flag(name, default=False) for name in ("attention_bias", "mlp_bias")}
        return super().read(fields) | biases


class Llama(Decoder):
    """The decoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            bias = config.attention_bias
            attention = causal_attention(config, qkv_bias=bias, out_bias=bias, key=keys[0])
            return Layer(attention, gated_mlp(config, bias=config.mlp_bias, key=keys[1]), lambda: rms_norm(config))

        super().__init__(config, stack(layer, config.num_hidden_layers), rms_norm(config), key=key)


def rules(config: DecoderConfig) -> list[str]:
    """Which key is which leaf."""
    return [
        "model.embed_tokens.weight -> embed.weight",
        "model.layers.{l}.input_layernorm.weight -> layers.norm1.weight",
        "model.layers.{l}.self_attn.{q|k|v|o}_proj.** -> layers.attention.{query|key|value|out}.**",
        "model.layers.{l}.post_attention_layernorm.weight -> layers.norm2.weight",
        "model.layers.{l}.mlp.{gate|up|down}_proj.** -> layers.mlp.{gate|up|down}.**",
        "model.norm.weight -> norm.weight",
        "lm_head.weight -> embed.weight ; tie=true" if config.tie_word_embeddings else "lm_head.weight -> head.weight",
        *(f"{place}.rotary_emb.inv_freq -> _" for place in ("model", "model.layers.{l}.self_attn")),  # computed
    ]
