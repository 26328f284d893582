"""GPT-2: a decoder with absolute positions, and matrices stored the other way round
(https://huggingface.co/openai-community/gpt2).

    model = bridge.models.from_pretrained("openai-community/gpt2")
    logits = model(tokens)  # (seq,) -> (seq, vocab); a batch by jax.vmap
    tokens = bridge.models.generate(model, tokens, 20)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models._activations import ACTIVATIONS
from bridge.models._attention import Look, attend
from bridge.models._cache import Rows
from bridge.models._config import Fields, read_json
from bridge.models._decoder import Decoder, Note
from bridge.models._linear import Linear
from bridge.models._rope import precise
from bridge.models._spellings import only_read

# Fields that only training reads, those of a head for whole texts, and leftovers that nothing reads any more.
_UNUSED = frozenset(
    {
        *("attn_pdrop", "embd_pdrop", "resid_pdrop"),
        *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
        *("n_ctx", "predict_special_tokens"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What makes one GPT-2 differ from another. The names are those of config.json.

    - `n_embd`: the width, d. `n_head` divides it. `n_inner`: the width inside an MLP, 4 d unless it is given.
    - `n_positions`: how many tokens there are positions for.
    - `activation_function`: one of `ACTIVATIONS`. `layer_norm_epsilon`: what layer norms add to the variance.
    - `scale_attn_weights`: whether scores are divided by √(d / n_head). `scale_attn_by_inverse_layer_idx`: whether
      those of layer l, from 0, are divided by l + 1 too.
    - `tie_word_embeddings`: whether the embeddings are the head too.
    """

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
    def max_position_embeddings(self) -> int:
        """What other decoders call `n_positions`."""
        return self.n_positions

    @property
    def scales(self) -> tuple[float, ...]:
        """What each layer's scores are multiplied by."""
        scale = (self.n_embd // self.n_head) ** -0.5 if self.scale_attn_weights else 1.0
        return tuple(scale / (l + 1 if self.scale_attn_by_inverse_layer_idx else 1) for l in range(self.n_layer))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, ignore: Collection[str] = (), name: str = "config.json") -> Config:
        """The config of what a config.json says.

        **Arguments:**

        - `data`: the fields, as transformers writes them.
        - `ignore`: fields that are known to change nothing.
        - `name`: what messages call the file.

        **Raises:** `bridge.CheckpointError` that names a field which is absent, unknown, or of a value that is not
        implemented.
        """
        fields = Fields(data, name=name)
        fields.one_of("model_type", ["gpt2"], default="gpt2")
        for flag in ("add_cross_attention", "is_encoder_decoder"):
            fields.one_of(flag, [False], default=False)
        fields.flag("reorder_and_upcast_attn", default=False)  # the same scores, in float32; here they always are
        width = fields.count("n_embd")
        config = cls(
            vocab_size=fields.count("vocab_size"),
            n_positions=fields.count("n_positions"),
            n_embd=width,
            n_layer=fields.count("n_layer"),
            n_head=fields.count("n_head"),
            n_inner=fields.count("n_inner", default=4 * width),
            activation_function=fields.one_of(
                "activation_function", list(ACTIVATIONS), default=cls.activation_function
            ),
            layer_norm_epsilon=fields.number("layer_norm_epsilon", default=cls.layer_norm_epsilon),
            scale_attn_weights=fields.flag("scale_attn_weights", default=cls.scale_attn_weights),
            scale_attn_by_inverse_layer_idx=fields.flag("scale_attn_by_inverse_layer_idx", default=False),
            tie_word_embeddings=fields.flag("tie_word_embeddings", default=cls.tie_word_embeddings),
        )
        if width % config.n_head:
            fields.refuse("n_head", config.n_head, f"a divisor of {width}")
        fields.done(unused={*_UNUSED, *ignore})
        return config

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, ignore: Collection[str] = ()) -> Config:
        """The config of a config.json file. Arguments and errors as for `from_dict`."""
        return cls.from_dict(read_json(path), ignore=ignore, name=os.fspath(path))


class Attention(eqx.Module):
    """Causal attention; what scores are multiplied by is the layer's."""

    query: Linear
    key: Linear
    value: Linear
    out: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, d: int, heads: int, *, key: jax.Array) -> None:
        self.query, self.key, self.value, self.out = (Linear(d, d, key=k) for k in jax.random.split(key, 4))
        self.heads = heads

    def __call__(self, x: jax.Array, look: Look, past: Rows | None, scale: jax.Array) -> tuple[jax.Array, Rows]:
        """`(seq, d)` to `(seq, d)`, and the keys and values to remember."""
        q, k, v = (jax.vmap(f)(x).reshape(x.shape[0], self.heads, -1) for f in (self.query, self.key, self.value))
        return jax.vmap(self.out)(attend(q, Rows(k, v), look, past, scale=scale)), Rows(k, v)


class Layer(eqx.Module):
    """Attention, then an MLP; each reads a norm of its input and is added to it."""

    norm1: eqx.nn.LayerNorm
    attention: Attention
    norm2: eqx.nn.LayerNorm
    up: Linear
    down: Linear
    activation: str = eqx.field(static=True)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        d, eps = config.n_embd, config.layer_norm_epsilon
        key_attention, key_up, key_down = jax.random.split(key, 3)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(d, eps), eqx.nn.LayerNorm(d, eps)
        self.attention = Attention(d, config.n_head, key=key_attention)
        self.up = Linear(d, config.n_inner, key=key_up)
        self.down = Linear(config.n_inner, d, key=key_down)
        self.activation = config.activation_function

    def __call__(self, x: jax.Array, look: Look, past: Rows | None, scale: jax.Array) -> tuple[jax.Array, Rows]:
        """`(seq, d)` to `(seq, d)`, and the keys and values to remember."""
        mixed, rows = self.attention(jax.vmap(self.norm1)(x), look, past, scale)
        x = x + mixed
        inner = ACTIVATIONS[self.activation](jax.vmap(self.up)(jax.vmap(self.norm2)(x)))
        return x + jax.vmap(self.down)(inner), rows


class GPT2(Decoder):
    """The decoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    position: eqx.nn.Embedding

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        d = config.n_embd
        key_embed, key_position, key_layers, key_head = jax.random.split(key, 4)
        self.embed = eqx.nn.Embedding(config.vocab_size, d, key=key_embed)
        self.position = eqx.nn.Embedding(config.n_positions, d, key=key_position)
        self.layers = eqx.filter_vmap(lambda k: Layer(config, key=k))(jax.random.split(key_layers, config.n_layer))
        self.norm = eqx.nn.LayerNorm(d, config.layer_norm_epsilon)
        tied = config.tie_word_embeddings
        self.head = None if tied else Linear(d, config.vocab_size, use_bias=False, key=key_head)
        self.config = config

    def embedded(self, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """What enters the first layer, `(seq, d)`, of ids and positions `(seq,)`."""
        self.slots(tokens.shape[0])
        return jax.vmap(self.embed)(tokens) + jax.vmap(self.position)(positions)

    def through(self, x: jax.Array, positions: jax.Array, memory: Any, note: Note) -> tuple[jax.Array, Any]:
        """Through all layers. Notes have an axis (layers,) in front, as `memory` has."""
        look = Look(positions)

        def step(x: jax.Array, each: tuple[Layer, Any, jax.Array]) -> tuple[jax.Array, Any]:
            layer, past, scale = each
            x, rows = layer(x, look, past, scale)
            return x, note(x, rows)

        scales = jnp.asarray(self.config.scales, precise(x.dtype))
        return jax.lax.scan(step, x, (self.layers, memory, scales))

    def slots(self, size: int) -> int:
        """All that there are tokens, as far as there are positions for them."""
        if size > self.config.n_positions:
            raise bridge.BridgeError(
                f"GPT2 is to see {size} tokens and has positions for {self.config.n_positions}: cut the text."
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
    "h.{l}.mlp.{c_fc|c_proj}.weight [i o] -> layers.{up|down}.weight [o i]",
    "h.{l}.mlp.{c_fc|c_proj}.bias -> layers.{up|down}.bias",
    "ln_f.** -> norm.**",
    "h.{l}.attn.{bias|masked_bias} -> _",  # old files: the causal mask, and what stood for minus infinity
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `GPT2LMHeadModel` and for `GPT2Model`, whose keys have no `transformer.`."""
    head = (
        "lm_head.weight -> embed.weight ; tie=true" if config.tie_word_embeddings else "lm_head.weight -> head.weight"
    )
    return [*(f"transformer.{rule}" for rule in _RULES), *only_read(_RULES), head]
