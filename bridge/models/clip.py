"""CLIP: an encoder of images and one of text, whose vectors are near each other where the text says what is seen.

    model = bridge.models.from_pretrained("openai/clip-vit-base-patch32")
    images = jax.vmap(model.image)(images)  # (n, c, h, w) -> (n, projection_dim)
    texts = jax.vmap(model.text)(tokens)  # (m, seq) -> (m, projection_dim)
    scores = jax.nn.softmax(model.logits(images, texts))  # (n, m): which text is each image's

Either encoder alone is a model too, with its projection or without, as pipelines of diffusers have it:
`model.vector(tokens)`, `model.vector(image)`; and that of images may have a classifier:
`model.logits(model(image))`. For inference: dropout is left out. All layers are one stacked module
under `jax.lax.scan`. Source: https://arxiv.org/abs/2103.00020.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models import dual
from bridge.models.attention import AttentionContext
from bridge.models.config import Fields
from bridge.models.dual import layer_norm, make_layers
from bridge.models.embedding import PatchEmbedding, TextEmbedding
from bridge.models.encoder import ImageEncoder, TextEncoder
from bridge.models.layers import Linear


@dataclass(frozen=True, kw_only=True)
class TextConfig(dual.TextConfig):
    """The fields of `dual.TextConfig`, and these.

    - `eos_token_id`: which token ends a text. 2 stands in old files, and means the one of the highest id.
    - `projection_dim`: the width of vectors; 0 where there is no projection.
    """

    model_types = ("clip_text_model",)

    hidden_size: int = 512
    num_attention_heads: int = 8
    intermediate_size: int = 2048
    eos_token_id: int = 49407
    projection_dim: int = 0

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        end = fields.whole("eos_token_id", default=cls.eos_token_id)
        return {**super().read(fields), "eos_token_id": end, **_read_projection(fields)}


@dataclass(frozen=True, kw_only=True)
class VisionConfig(dual.VisionConfig):
    """The fields of `dual.VisionConfig`, and `projection_dim`: the width of vectors; 0 where there is no projection."""

    model_types = ("clip_vision_model",)

    projection_dim: int = 0

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        return super().read(fields) | _read_projection(fields)


@dataclass(frozen=True, kw_only=True)
class Config(dual.DualConfig):
    """What makes one CLIP differ from another: the configs of both encoders."""

    model_types = ("clip",)
    text = TextConfig
    vision = VisionConfig

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes. Both projections are as wide as the outer config says."""
        fields.part("projection", default=True)
        width = fields.count("projection_dim", default=512)
        return {name: replace(each, projection_dim=width) for name, each in super().read(fields).items()}


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(VisionConfig):
    """What `CLIPForImageClassification` has: the config of both encoders, and labels. There is no projection."""

    model_types = ("clip",)
    classes = ("CLIPForImageClassification",)
    unused = dual.CLASSIFIER_UNUSED

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        fields.part("projection", default=False)
        return dual.read_classifier(fields, VisionConfig)


def _read_projection(fields: Fields) -> dict[str, Any]:
    """The width is in every config. Whether there is a projection no config.json says."""
    width = fields.count("projection_dim", default=512)
    return {"projection_dim": width if fields.part("projection", default=False) else 0}


def _projection(config: TextConfig | VisionConfig, *, key: jax.Array) -> Linear | None:
    width = config.projection_dim
    return Linear(config.hidden_size, width, use_bias=False, key=key) if width else None


class CLIPText(TextEncoder):
    """The encoder of text: each token looks at itself and at those before it.

    **Arguments:** (of the constructor)

    - `config`: a `TextConfig`, which the model carries.
    - `key`: for the initial weights.
    """

    projection: Linear | None

    def __init__(self, config: TextConfig, *, key: jax.Array) -> None:
        keys = jax.random.split(key, 3)
        self.projection = _projection(config, key=keys[2])
        embed = TextEmbedding(
            config.hidden_size, tokens=config.vocab_size, positions=config.max_position_embeddings, key=keys[0]
        )
        super().__init__(config, embed, make_layers(config, key=keys[1]), norm=layer_norm(config))

    def context(self, tokens: jax.Array, mask: jax.Array) -> AttentionContext:
        """What all layers are told: who looks at whom."""
        return AttentionContext(jnp.tri(len(mask), dtype=bool) & mask[None])

    def pooled(self, hidden: jax.Array, tokens: jax.Array) -> jax.Array:  # pyright: ignore[reportIncompatibleMethodOverride]: it asks where a text ends
        """The state of the token that ends the text: of states `(seq, d)` and ids `(seq,)`, `(d,)`."""
        end = self.config.eos_token_id
        return hidden[jnp.argmax(tokens if end == 2 else tokens == end)]  # the first, where padding is the same token

    def vector(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The vector of a text, projected if there is a projection. Arguments as for a call."""
        pooled = self.pooled(self(tokens, mask), tokens)
        return pooled if self.projection is None else self.projection(pooled)


class FirstTokenNorm(eqx.Module):
    """A norm of the first token's state: `(seq, d)` to `(d,)`."""

    norm: eqx.nn.LayerNorm

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Of hidden states `(seq, d)`."""
        return self.norm(hidden[0])


class CLIPVision(ImageEncoder):
    """The encoder of images. The last states are not normed; what `pooled` makes of the class token's is.

    **Arguments:** (of the constructor)

    - `config`: a `VisionConfig`, which the model carries.
    - `key`: for the initial weights.
    """

    projection: Linear | None

    def __init__(self, config: VisionConfig, *, key: jax.Array) -> None:
        keys = jax.random.split(key, 4)
        self.projection = _projection(config, key=keys[2])
        pooler = FirstTokenNorm(layer_norm(config))
        head = dual.MeanClassifier(config, skipped=1, key=keys[3]) if config.labels else None
        embed = PatchEmbedding(
            config.hidden_size,
            channels=config.num_channels,
            image_size=config.image_size,
            patch_size=config.patch_size,
            bias=False,
            norm=layer_norm(config),
            key=keys[0],
        )
        super().__init__(config, embed, make_layers(config, key=keys[1]), pooler=pooler, head=head)

    def vector(self, image: jax.Array) -> jax.Array:
        """The vector of an image, projected if there is a projection. Argument as for a call."""
        pooled = self.pooled(self(image))
        return pooled if self.projection is None else self.projection(pooled)


class CLIP(dual.DualEncoder):
    """Both encoders, `text_model` and `vision_model`.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        keys = jax.random.split(key)
        text, vision = CLIPText(config.text_config, key=keys[0]), CLIPVision(config.vision_config, key=keys[1])
        super().__init__(config, text, vision, logit_scale=2.6592)


_VISION = (
    *dual.VISION_RULES,
    "embeddings.class_embedding -> embed.cls",
    "{pre_layrnorm|post_layernorm}.** -> {embed|pooler}.norm.**",  # the spelling is the checkpoints'
)


def rules(config: Config | TextConfig | VisionConfig) -> list[str]:
    """Which key is which leaf, for `CLIPModel`, for either of its encoders alone, and for that of images with a
    classifier, as its config says.
    """
    if isinstance(config, TextConfig):
        return [*dual.rules_alone("text_model", dual.TEXT_RULES), "text_projection.** -> projection.**"]
    if isinstance(config, VisionConfig):
        beside = "classifier.** -> head.**" if config.labels else "visual_projection.** -> projection.**"
        return [*dual.rules_alone("vision_model", _VISION), beside]
    return [
        *dual.rules_within("text_model", dual.TEXT_RULES),
        *dual.rules_within("vision_model", _VISION),
        "{text|visual}_projection.** -> {text|vision}_model.projection.**",
    ]


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Which parts a checkpoint of these keys has, and no config.json says: keywords of `Config.from_dict`."""
    return {"projection": any(key in ("text_projection.weight", "visual_projection.weight") for key in keys)}
