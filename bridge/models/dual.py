"""What CLIP and similar models share: an encoder of images and one of text, whose vectors are compared.

This module has the configs of both encoders, their layers, the model that holds them, and the rules for shared keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models.attention import Attention
from bridge.models.config import Fields, ModelConfig
from bridge.models.encoder import Layer, stack
from bridge.models.layers import ACTIVATIONS, MLP, Linear, accumulation_dtype
from bridge.models.spellings import only_read

__all__ = [
    "CLASSIFIER_UNUSED",
    "TEXT_RULES",
    "VISION_RULES",
    "DualConfig",
    "DualEncoder",
    "EncoderConfig",
    "MeanClassifier",
    "TextConfig",
    "VisionConfig",
    "layer_norm",
    "make_layers",
    "read_classifier",
    "rules_alone",
    "rules_within",
]

# What only training reads; and how text is generated, which old releases of transformers wrote into inner configs.
_UNUSED = frozenset(
    {
        *("attention_dropout", "dropout", "initializer_factor", "logit_scale_init_value"),
        *("bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping"),
        *("encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id"),
        *("forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size"),
        *("num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "prefix", "remove_invalid_values"),
        *("repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature", "tf_legacy_loss"),
        *("tie_encoder_decoder", "top_k", "top_p", "typical_p", "use_bfloat16"),
    }
)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(ModelConfig):
    """The fields that both configs have. Their names are those of config.json, their defaults those of transformers.

    - `hidden_size`: the width d of a token, a multiple of `num_attention_heads`. `intermediate_size`: the width inside
        an MLP.
    - `hidden_act`: one of `ACTIVATIONS`. `layer_norm_eps`: added to the variance in layer norms.
    """

    unused: ClassVar[Collection[str]] = _UNUSED

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """Read the constructor's arguments. An architecture with more fields extends this."""
        for flag in ("is_decoder", "add_cross_attention"):
            fields.one_of(flag, [False], default=False)
        fields.one_of("pruned_heads", [{}], default={})
        counts = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        found: dict[str, Any] = {name: fields.count(name, default=getattr(cls, name)) for name in counts}
        width, heads = found["hidden_size"], found["num_attention_heads"]
        if width % heads:
            fields.refuse("num_attention_heads", heads, f"a divisor of {width}")
        return found | {
            "hidden_act": fields.one_of("hidden_act", list(ACTIVATIONS), default=cls.hidden_act),
            "layer_norm_eps": fields.number("layer_norm_eps", default=cls.layer_norm_eps),
        }


@dataclass(frozen=True, kw_only=True)
class TextConfig(EncoderConfig):
    """The fields of `EncoderConfig`, and `vocab_size` and `max_position_embeddings`, the rows of the embeddings."""

    vocab_size: int = 49408
    max_position_embeddings: int = 77

    @property
    def max_tokens(self) -> int:
        """The number of positions: a text may have that many tokens."""
        return self.max_position_embeddings

    def positions(self, tokens: jax.Array) -> jax.Array:
        """The row of the position embedding for each token: from ids `(seq,)` to `(seq,)`."""
        return jnp.arange(tokens.shape[0])

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """Read the constructor's arguments. An architecture with more fields extends this."""
        rows = ("vocab_size", "max_position_embeddings")
        return super().read(fields) | {name: fields.count(name, default=getattr(cls, name)) for name in rows}


@dataclass(frozen=True, kw_only=True)
class VisionConfig(EncoderConfig):
    """The fields of `EncoderConfig`, and these:

    - `image_size`, `patch_size`: height and width in pixels. `num_channels`: the channels of an image.
    - `labels`: the names of the scores of `logits`; empty without a head.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (32, 32)
    num_channels: int = 3
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """Read the constructor's arguments. An architecture with more fields extends this."""
        image, patch = (fields.pair(name, default=getattr(cls, name)) for name in ("image_size", "patch_size"))
        if any(side < each for side, each in zip(image, patch, strict=True)):
            fields.refuse("patch_size", list(patch), f"at most {list(image)}, the image")
        channels = fields.count("num_channels", default=cls.num_channels)
        labels = fields.labels() if fields.part("head", default=False) else ()
        found = {"image_size": image, "patch_size": patch, "num_channels": channels, "labels": labels}
        return super().read(fields) | found


@dataclass(frozen=True, kw_only=True)
class DualConfig(ModelConfig):
    """The configs of both encoders. A subclass names their classes as `text` and `vision`."""

    unused: ClassVar[Collection[str]] = _UNUSED
    text: ClassVar[type[TextConfig]]
    vision: ClassVar[type[VisionConfig]]

    text_config: Any
    vision_config: Any

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """Read the constructor's arguments; a config that the file does not have gets the defaults."""
        return {
            "text_config": _inside(fields, "text_config", cls.text),
            "vision_config": _inside(fields, "vision_config", cls.vision),
        }


def _inside(fields: Fields, name: str, kind: type[ModelConfig]) -> ModelConfig:
    """The config of one encoder. Old files have each twice, and transformers goes by the second."""
    told = [kind.of(inner) for each in (name, f"{name}_dict") if (inner := fields.inner(each)) is not None]
    return told[-1] if told else kind()


CLASSIFIER_UNUSED = _UNUSED | {"projection_dim", "text_config", "text_config_dict"}
"""Fields of a classifier's config that are about the text encoder, which a classifier does not have."""


def read_classifier(fields: Fields, kind: type[VisionConfig]) -> dict[str, Any]:
    """Read the arguments of a vision config, with labels, from a config.json that is about both encoders."""
    labels = fields.labels() if fields.part("head", default=True) else ()
    return vars(_inside(fields, "vision_config", kind)) | {"labels": labels}


class MeanClassifier(Linear):
    """A score for each label, from the mean of the patches' states.

    **Arguments:** (of the constructor)

    - `config`: a `VisionConfig`.
    - `skipped`: the number of leading tokens that are not patches.
    - `key`: for the initial weights.
    """

    skipped: int = eqx.field(static=True)

    def __init__(self, config: VisionConfig, *, skipped: int, key: jax.Array) -> None:
        super().__init__(config.hidden_size, len(config.labels), key=key)
        self.skipped = skipped

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Shape `(tokens, d)` to `(labels,)`."""
        return super().__call__(x[self.skipped :].mean(0))


def layer_norm(config: EncoderConfig) -> eqx.nn.LayerNorm:
    """A layer norm with the config's width and epsilon."""
    return eqx.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


def make_layers(config: EncoderConfig, *, key: jax.Array) -> Any:
    """All layers of an encoder, stacked, with norms before attention and MLP."""

    def layer(key: jax.Array) -> Layer:
        keys = jax.random.split(key)
        attention = Attention(config.hidden_size, config.num_attention_heads, key=keys[0])
        mlp = MLP(config.hidden_size, config.intermediate_size, config.hidden_act, key=keys[1])
        return Layer(attention, mlp, lambda: layer_norm(config), norm_first=True)

    return stack(layer, config.num_hidden_layers)(key)


class DualEncoder(eqx.Module):
    """A model of both encoders. A call takes one image and one text; use `jax.vmap` for batches.

    **Arguments:** (of the constructor)

    - `config`: a `DualConfig`, the model's `.config`.
    - `text_model`, `vision_model`: encoders, each with a method `vector`.
    - `logit_scale`: the logarithm of the factor of cosines, a number.
    - `logit_bias`: a number that is added to the logits, or `None`.
    """

    text_model: Any
    vision_model: Any
    logit_scale: jax.Array
    logit_bias: jax.Array | None
    config: Any = eqx.field(static=True)

    def __init__(
        self, config: Any, text_model: Any, vision_model: Any, logit_scale: float, logit_bias: float | None = None
    ) -> None:
        self.config, self.text_model, self.vision_model = config, text_model, vision_model
        self.logit_scale = jnp.asarray(logit_scale)
        self.logit_bias = None if logit_bias is None else jnp.asarray(logit_bias)

    def __call__(self, image: jax.Array, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """A logit, shape `()`: how well an image and a text fit. Arguments as for `image` and `text`."""
        return self.logits(self.image(image), self.text(tokens, mask))

    def image(self, image: jax.Array) -> jax.Array:
        """The vector of an image: from `(c, h, w)` to `(p,)`. It is not normalised."""
        return self.vision_model.vector(image)

    def text(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The vector of a text: from ids `(seq,)` to `(p,)`. It is not normalised. Arguments as for a `TextEncoder`."""
        return self.text_model.vector(tokens, mask)

    def logits(self, images: jax.Array, texts: jax.Array) -> jax.Array:
        """Logits of every image with every text: from vectors `(n, p)` and `(m, p)` to `(n, m)`.

        A single vector `(p,)` has no axis in the result.
        """
        dtype = accumulation_dtype(images.dtype)
        unit = [x.astype(dtype) / jnp.linalg.norm(x.astype(dtype), axis=-1, keepdims=True) for x in (images, texts)]
        scores = jnp.inner(*unit) * jnp.exp(self.logit_scale.astype(dtype))
        scores = scores if self.logit_bias is None else scores + self.logit_bias.astype(dtype)
        return scores.astype(images.dtype)


_LAYER_RULES = (
    "encoder.layers.{l}.layer_norm{1|2}.** -> layers.norm{1|2}.**",
    "encoder.layers.{l}.self_attn.{q_proj|k_proj|v_proj|out_proj}.** -> layers.attention.{query|key|value|out}.**",
    "encoder.layers.{l}.mlp.{fc1|fc2}.** -> layers.mlp.{up|down}.**",
    "embeddings.position_ids -> _",  # 0, 1, 2 …
)
TEXT_RULES = (
    *_LAYER_RULES,
    "embeddings.{token|position}_embedding.weight -> embed.{token|position}.weight",
    "final_layer_norm.** -> norm.**",
)
"""The rules of text encoders."""
VISION_RULES = (
    *_LAYER_RULES,
    "embeddings.patch_embedding.** -> embed.patches.**",
    "embeddings.position_embedding.weight -> embed.position",
)
"""The rules of image encoders."""


def rules_within(name: str, rules: Iterable[str]) -> list[str]:
    """The rules of an encoder inside a model; both the model and the checkpoint call it `name`."""
    pairs = [rule.split(" -> ") for rule in rules]
    return [f"{name}.{key} -> {leaf if leaf == '_' else f'{name}.{leaf}'}" for key, leaf in pairs]


def rules_alone(name: str, rules: Iterable[str]) -> list[str]:
    """The rules of an encoder alone. Its keys begin with `name` in files of the Hub, but not in memory."""
    rules = list(rules)
    return [*(f"{name}.{rule}" for rule in rules), *only_read(rules)]
