"""ModernBERT: an encoder of long texts, rotary positions, most layers see a window (https://arxiv.org/abs/2412.13663).

    model = bridge.models.from_pretrained("answerdotai/ModernBERT-base")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap
    scores = model.logits(hidden, mask)  # where config.json names a class with a head

The first layer stands apart, `layers.first`, for it has no norm before attention: embeddings are normed already. The
others are stacked, `layers.rest`, under `jax.lax.scan`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models.attention import Attention, AttentionContext
from bridge.models.config import Fields, ModelConfig
from bridge.models.embedding import TextEmbedding
from bridge.models.encoder import Layer, TextEncoder, stack
from bridge.models.heads import MaskedLM, read_head
from bridge.models.layers import ACTIVATIONS, GatedMLP, Linear, Transform
from bridge.models.pooling import POOLINGS
from bridge.models.rope import Rope, RotaryAngles
from bridge.models.spellings import only_read


@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    """What makes one ModernBERT differ from another. The names are those of config.json, but for `rope`.

    - `hidden_size`: the width, d. `num_attention_heads` divides it. `intermediate_size`: the width inside an MLP.
    - `max_position_embeddings`: how many tokens the model was trained for; more can be computed.
    - `full`: for each layer whether it sees everything; the others see `local_attention` // 2 tokens to either side.
    - `rope`, `rope_local`: how positions turn the heads of the former and of the latter.
    - `hidden_activation`: one of `ACTIVATIONS`. `norm_eps`: what norms add to the variance.
    - `norm_bias`, `attention_bias`, `mlp_bias`, `classifier_bias`, `decoder_bias`: what has biases.
    - `head`: one of `bridge.models.heads.HEADS`, or `""`. `labels`: what it tells apart, by name.
    - `classifier_pooling`: whether texts are classified by the first token, `"cls"`, or by the `"mean"` of all.
    - `classifier_activation`: that of heads.
    """

    model_types = ("modernbert",)
    # What only training reads, how attention is run on a GPU, and leftovers that nothing reads.
    unused: ClassVar[Collection[str]] = frozenset(
        {
            *("attention_dropout", "classifier_dropout", "embedding_dropout", "mlp_dropout"),
            *("initializer_cutoff_factor", "repad_logits_with_grad", "sparse_pred_ignore_index", "sparse_prediction"),
            *("cls_token_id", "deterministic_flash_attn", "reference_compile", "unpad_inputs", "unpad_no_grad"),
            *("layer_norm_eps", "position_embedding_type"),
        }
    )

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    full: tuple[bool, ...]
    local_attention: int
    rope: Rope
    rope_local: Rope
    hidden_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    decoder_bias: bool = True
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    classifier_pooling: str = "cls"
    head: str = ""
    labels: tuple[str, ...] = ()

    @property
    def max_tokens(self) -> None:
        """Rotary positions have no end."""
        return None

    @property
    def head_dim(self) -> int:
        """The width of a head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
        if width % (2 * heads):
            fields.refuse("num_attention_heads", heads, f"a divisor of {width} that makes the width of a head even")
        layers, positions = fields.count("num_hidden_layers"), fields.count("max_position_embeddings", default=8192)
        biases = ("norm_bias", "attention_bias", "mlp_bias", "decoder_bias", "classifier_bias")
        return {
            "vocab_size": fields.count("vocab_size"),
            "hidden_size": width,
            "intermediate_size": fields.count("intermediate_size"),
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "max_position_embeddings": positions,
            "full": _read_full(fields, layers),
            "local_attention": fields.count("local_attention", default=128),
            **_read_ropes(fields, positions),
            "hidden_activation": fields.one_of("hidden_activation", list(ACTIVATIONS), default="gelu"),
            "norm_eps": fields.number("norm_eps", default=cls.norm_eps),
            **{name: fields.flag(name, default=getattr(cls, name)) for name in biases},
            "classifier_activation": fields.one_of("classifier_activation", list(ACTIVATIONS), default="gelu"),
            "classifier_pooling": fields.one_of("classifier_pooling", ["cls", "mean"], default="cls"),
            **read_head(fields),
        }


def _read_full(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers see everything: `layer_types` today, every so many-th from the first on before."""
    every, types = fields.count("global_attn_every_n_layers", default=3), fields.layer_types(layers)
    if types is None:
        return tuple(n % every == 0 for n in range(layers))
    return tuple(each == "full_attention" for each in types)


def _read_ropes(fields: Fields, positions: int) -> dict[str, Rope]:
    """Both of them: in `rope_parameters` today; before, each had a theta, null for that of the layers that see all."""
    fields.nothing("rope_scaling")
    theta, given = fields.number("global_rope_theta", default=160_000.0), fields.has("local_rope_theta")
    local = fields.number("local_rope_theta", default=theta if given else 10_000.0)
    today = fields.inner("rope_parameters")
    found = list[Rope]()
    for name, base in (("full_attention", theta), ("sliding_attention", local)):
        each = today.inner(name) if today else None
        found.append(Rope.within(each, theta=base, positions=positions) if each else Rope(base))
    if today:
        today.done()
    return {"rope": found[0], "rope_local": found[1]}


class Layers(NamedTuple):
    """The first layer, and the others, stacked. `None`: there are none."""

    first: Layer
    rest: Any


class Classifier(eqx.Module):
    """Scores of a state that goes through a layer, an activation and a norm before.

    **Arguments:** (of the constructor)

    - `config`: of its fields are read those that are named for heads.
    - `norm`: the norm.
    - `pooling`: one of `bridge.models.pooling.POOLINGS`, for scores of the text; `""` for those of each token.
    - `key`: for the initial weights.
    """

    dense: Linear
    norm: Transform
    out: Linear
    activation: str = eqx.field(static=True)
    pooling: str = eqx.field(static=True)

    def __init__(self, config: Config, norm: Transform, pooling: str, *, key: jax.Array) -> None:
        keys, width = jax.random.split(key), config.hidden_size
        self.dense = Linear(width, width, use_bias=config.classifier_bias, key=keys[0])
        self.out = Linear(width, len(config.labels), key=keys[1])
        self.norm, self.activation, self.pooling = norm, config.classifier_activation, pooling

    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        """Shapes `(seq, d)` and `(seq,)` to `(labels,)`, or to `(seq, labels)`."""
        if self.pooling:
            return self.scores(POOLINGS[self.pooling](hidden, mask).astype(hidden.dtype))
        return jax.vmap(self.scores)(hidden)

    def scores(self, x: jax.Array) -> jax.Array:
        """Shape `(d,)` to `(labels,)`."""
        return self.out(self.norm(ACTIVATIONS[self.activation](self.dense(x))))


class ModernBert(TextEncoder):
    """The encoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key_embed, key_first, key_rest, key_head = jax.random.split(key, 4)
        embed = TextEmbedding(config.hidden_size, tokens=config.vocab_size, norm=_norm(config), key=key_embed)
        first = eqx.tree_at(lambda layer: layer.norm1, _layer(config, key=key_first), eqx.nn.Identity())
        many = config.num_hidden_layers - 1
        rest = stack(lambda key: _layer(config, key=key), many)(key_rest) if many else None
        head = _head(config, key=key_head)
        super().__init__(config, embed, Layers(first, rest), norm=_norm(config), head=head)

    def embedded(self, tokens: jax.Array, mask: jax.Array, token_types: jax.Array) -> jax.Array:
        """What enters the first layer, `(seq, d)`: embeddings of tokens, normed. There are no types."""
        return self.embed(tokens)

    def context(self, tokens: jax.Array, mask: jax.Array) -> AttentionContext:
        """What the two kinds of layers are told, with an axis in front: those that see a window, those that see all."""
        config, positions = self.config, jnp.arange(len(tokens))
        angles = (RotaryAngles.at(positions, rope, config.head_dim) for rope in (config.rope_local, config.rope))
        windows = (config.local_attention // 2, len(tokens))
        both = (AttentionContext(mask, *each) for each in zip(angles, windows, strict=True))
        return jax.tree.map(lambda *each: jnp.stack(each), *both)

    def through(self, x: jax.Array, context: Any, *, every: bool) -> tuple[jax.Array, jax.Array | None]:
        """Through all layers. Arguments as for `Encoder`."""

        def step(x: jax.Array, each: tuple[Any, jax.Array]) -> tuple[jax.Array, jax.Array | None]:
            layer, full = each
            x = layer(x, jax.tree.map(lambda both: both[full], context))
            return x, x if every else None

        full = jnp.array(self.config.full, jnp.int32)
        first, _ = step(x, (self.layers.first, full[0]))
        if self.layers.rest is None:
            return first, first[None] if every else None
        x, states = jax.lax.scan(step, first, (self.layers.rest, full[1:]))
        return x, None if states is None else jnp.concatenate([first[None], states])

    def run_every(self, x: jax.Array, context: Any) -> jax.Array:
        """What `embed` gave and every layer's states, `(layers + 1, seq, d)`; the last is normed."""
        states = super().run_every(x, context)
        return states if self.norm is None else states.at[-1].set(jax.vmap(self.norm)(states[-1]))

    def logits(self, hidden: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """What the head says. Arguments as for `TextEncoder`; without a mask the mean is that of all tokens."""
        if isinstance(self.head, Classifier):
            return self.head(hidden, jnp.ones(len(hidden), bool) if mask is None else mask.astype(bool))
        return super().logits(hidden)


def _norm(config: Config) -> eqx.nn.LayerNorm:
    return eqx.nn.LayerNorm(config.hidden_size, config.norm_eps, use_bias=config.norm_bias)


def _layer(config: Config, *, key: jax.Array) -> Layer:
    keys, width, bias = jax.random.split(key), config.hidden_size, config.attention_bias
    attention = Attention(width, config.num_attention_heads, qkv_bias=bias, out_bias=bias, key=keys[0])
    mlp = GatedMLP(width, config.intermediate_size, config.hidden_activation, bias=config.mlp_bias, key=keys[1])
    return Layer(attention, mlp, lambda: _norm(config), norm_first=True)


def _head(config: Config, *, key: jax.Array) -> MaskedLM | Classifier | None:
    """The head that a config asks for."""
    if config.head == "masked_lm":
        width, biases = config.hidden_size, {"dense_bias": config.classifier_bias, "bias": config.decoder_bias}
        return MaskedLM(width, width, config.vocab_size, config.classifier_activation, _norm(config), **biases, key=key)
    pooling = config.classifier_pooling if config.head == "sequence_classification" else ""
    return Classifier(config, _norm(config), pooling, key=key) if config.head else None


HEAD_KEYS: Mapping[str, str] = {
    "masked_lm": "head.dense.weight",
    "question_answering": "classifier.weight",
    "sequence_classification": "classifier.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is."""

_LAYER = (
    "attn_norm.** -> norm1.**",
    "attn.Wqkv.weight [(query|key|value) m] -> attention.{query|key|value}.weight [_ m]",
    "attn.Wqkv.bias [(query|key|value)] -> attention.{query|key|value}.bias [_]",
    "attn.Wo.** -> attention.out.**",
    "mlp_norm.** -> norm2.**",
    "mlp.Wi.weight [(gate|up) m] -> mlp.{gate|up}.weight [_ m]",
    "mlp.Wi.bias [(gate|up)] -> mlp.{gate|up}.bias [_]",
    "mlp.Wo.** -> mlp.down.**",
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `ModernBertModel` and for models that hold it as `model.`.

    A head of pre-training that the model does not have is dropped. A head that a model was fine-tuned for is not: name
    it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    encoder = ["embeddings.tok_embeddings.weight -> embed.token.weight", "embeddings.norm.** -> embed.norm.**"]
    for layer, part in (("0", "first"), ("{l[1:]}", "rest")):
        pairs = (rule.split(" -> ") for rule in _LAYER)
        encoder += [f"layers.{layer}.{key} -> layers.{part}.{leaf}" for key, leaf in pairs]
    encoder.append("final_norm.** -> norm.**")
    held = [f"model.{rule}" for rule in encoder]
    written, read = (held, encoder) if config.head else (encoder, held)
    return [*written, *only_read(read), *_head_rules(config)]


def _head_rules(config: Config) -> list[str]:
    if not config.head:
        return ["head.** -> _", "decoder.** -> _"]
    head = ["head.dense.** -> head.dense.**", "head.norm.** -> head.norm.**"]
    if config.head == "masked_lm":
        return [*head, "decoder.bias -> head.bias", "decoder.weight -> embed.token.weight ; tie=true"]
    return [*head, "classifier.** -> head.out.**", "decoder.** -> _"]
