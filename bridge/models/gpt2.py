"""GPT-2: a decoder with absolute positions, and matrices stored the other way round
(https://huggingface.co/openai-community/gpt2).

    model = bridge.models.from_pretrained("openai-community/gpt2")
    logits = model(tokens)  # (seq,) -> (seq, vocab); a batch by jax.vmap
    tokens = bridge.models.generate(model, tokens, 20)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models.attention import CausalAttention, CausalContext
from bridge.models.config import Fields, ModelConfig
from bridge.models.decoder import Collect, Decoder, Layer, scan, stack
from bridge.models.layers import ACTIVATIONS, MLP, accumulation_dtype
from bridge.models.spellings import only_read

# Fields that only training reads, those of a head for whole texts, and leftovers that nothing reads any more.
_UNUSED = frozenset(
    {
        *("attn_pdrop", "embd_pdrop", "resid_pdrop"),
        *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
        *("is_decoder", "n_ctx", "predict_special_tokens"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """What makes one GPT-2 differ from another. The names are those of config.json.

    - `n_embd`: the width, d. `n_head` divides it. `n_inner`: the width inside an MLP, 4 d unless it is given.
    - `n_positions`: how many tokens there are positions for.
    - `activation_function`: one of `ACTIVATIONS`. `layer_norm_epsilon`: what layer norms add to the variance.
    - `scale_attn_weights`: whether scores are divided by √(d / n_head). `scale_attn_by_inverse_layer_idx`: whether
      those of layer l, from 0, are divided by l + 1 too.
    - `tie_word_embeddings`: whether the embeddings are the head too.
    """

    model_types = ("gpt2",)
    unused: ClassVar[Collection[str]] = _UNUSED

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    activation_function: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    tie_word_embeddings: bool = True

    @property
    def hidden_size(self) -> int:
        """What other decoders call `n_embd`."""
        return self.n_embd

    @property
    def max_position_embeddings(self) -> int:
        """What other decoders call `n_positions`."""
        return self.n_positions

    @property
    def scales(self) -> tuple[float, ...]:
        """What each layer's scores are multiplied by."""
        scale = (self.n_embd // self.n_head) ** -0.5 if self.scale_attn_weights else 1.0
        return tuple(scale / (l + 1 if self.scale_attn_by_inverse_layer_idx else 1) for l in range(self.n_layer))

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        fields.one_of("add_cross_attention", [False], default=False)
        fields.flag("reorder_and_upcast_attn", default=False)  # the same scores, in float32; here they always are
        width, heads = fields.count("n_embd"), fields.count("n_head")
        if width % heads:
            fields.refuse("n_head", heads, f"a divisor of {width}")
        return {
            "vocab_size": fields.count("vocab_size"),
            "n_positions": fields.count("n_positions"),
            "n_embd": width,
            "n_layer": fields.count("n_layer"),
            "n_head": heads,
            "n_inner": fields.count("n_inner", default=4 * width),
            "activation_function": fields.one_of(
                "activation_function", list(ACTIVATIONS), default=cls.activation_function
            ),
            "layer_norm_epsilon": fields.number("layer_norm_epsilon", default=cls.layer_norm_epsilon),
            "scale_attn_weights": fields.flag("scale_attn_weights", default=cls.scale_attn_weights),
            "scale_attn_by_inverse_layer_idx": fields.flag("scale_attn_by_inverse_layer_idx", default=False),
            "tie_word_embeddings": fields.flag("tie_word_embeddings", default=cls.tie_word_embeddings),
        }


class GPT2(Decoder):
    """The decoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    position: eqx.nn.Embedding

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        def norm() -> eqx.nn.LayerNorm:
            return eqx.nn.LayerNorm(config.n_embd, config.layer_norm_epsilon)

        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            attention = CausalAttention(config.n_embd, config.n_head, key=keys[0])
            return Layer(attention, MLP(config.n_embd, config.n_inner, config.activation_function, key=keys[1]), norm)

        key, key_position = jax.random.split(key)
        super().__init__(config, stack(layer, config.n_layer), norm(), key=key)
        self.position = eqx.nn.Embedding(config.n_positions, config.n_embd, key=key_position)

    def embedded(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """What enters the first layer, `(seq, d)`, of ids and positions `(seq,)`."""
        self.slots(tokens.shape[0])
        return jax.vmap(self.embed)(tokens) + jax.vmap(self.position)(positions)

    def through(self, x: jax.Array, positions: jax.Array, memory: Any, collect: Collect) -> tuple[jax.Array, Any]:
        """Through all layers, each with the scale of its scores."""
        scales = jnp.asarray(self.config.scales, accumulation_dtype(x.dtype))
        return scan(self.layers, x, CausalContext(positions), memory, collect, {"scale": scales})

    def slots(self, size: int) -> int:
        """All that there are tokens, as far as there are positions for them."""
        if size > self.config.n_positions:
            raise bridge.BridgeError(
                f"{size} tokens",
                f"are more than the {self.config.n_positions} that GPT2 has positions for",
                "Shorten the input",
            )
        return size


_RULES = (
    "wte.weight -> embed.weight",
    "wpe.weight -> position.weight",
    "h.{l}.{ln_1|ln_2}.** -> layers.{norm1|norm2}.**",
    "h.{l}.attn.c_attn.weight [i (query|key|value)] -> layers.attention.{query|key|value}.weight [_ i]",
    "h.{l}.attn.c_attn.bias [(query|key|value)] -> layers.attention.{query|key|value}.bias [_]",
    "h.{l}.attn.c_proj.weight [i o] -> layers.attention.out.weight [o i]",
    "h.{l}.attn.c_proj.bias -> layers.attention.out.bias",
    "h.{l}.mlp.{c_fc|c_proj}.weight [i o] -> layers.mlp.{up|down}.weight [o i]",
    "h.{l}.mlp.{c_fc|c_proj}.bias -> layers.mlp.{up|down}.bias",
    "ln_f.** -> norm.**",
    "h.{l}.attn.{bias|masked_bias} -> _",  # old files: the causal mask, and what stood for minus infinity
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `GPT2LMHeadModel` and for `GPT2Model`, whose keys have no `transformer.`."""
    head = (
        "lm_head.weight -> embed.weight ; tie=true" if config.tie_word_embeddings else "lm_head.weight -> head.weight"
    )
    return [*(f"transformer.{rule}" for rule in _RULES), *only_read(_RULES), head]
