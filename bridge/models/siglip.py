"""SigLIP: an encoder of images and one of text as in CLIP, trained so that each pair has a probability of its own.

    model = bridge.models.from_pretrained("google/siglip-base-patch16-224")
    images = jax.vmap(model.image)(images)  # (n, c, h, w) -> (n, d)
    texts = jax.vmap(model.text)(tokens)  # (m, 64) -> (m, d)
    scores = jax.nn.sigmoid(model.logits(images, texts))  # (n, m): does the text fit the image

The last token's state is the text's, so texts are padded as in training: to `model.config.text_config.max_tokens`, and
without a mask. SigLIP 2 for images of one size is the same model. Either encoder alone is a model too:
`model.vector(tokens)`, `model.vector(image)`; and that of images may have a classifier: `model.logits(model(image))`.
For inference: dropout is left out. All layers are one stacked module under `jax.lax.scan`. Sources:
https://arxiv.org/abs/2303.15343, https://arxiv.org/abs/2502.14786.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax

from bridge.models import dual
from bridge.models.attention import Attention, AttentionContext, dot_product_attention
from bridge.models.config import Fields
from bridge.models.dual import layer_norm, make_layers
from bridge.models.embedding import PatchEmbedding, TextEmbedding
from bridge.models.encoder import ImageEncoder, TextEncoder
from bridge.models.layers import MLP, Linear


@dataclass(frozen=True, kw_only=True)
class TextConfig(dual.TextConfig):
    """The fields of `dual.TextConfig`, and `projection_size`: the width of vectors, d where the file has none."""

    model_types = ("siglip_text_model",)

    vocab_size: int = 32000
    max_position_embeddings: int = 64
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    projection_size: int = 768

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        found = super().read(fields)
        return found | {"projection_size": fields.count("projection_size", default=found["hidden_size"])}


@dataclass(frozen=True, kw_only=True)
class VisionConfig(dual.VisionConfig):
    """The fields of `dual.VisionConfig`, and `vision_use_head`: whether there is what makes a vector of states."""

    model_types = ("siglip_vision_model",)

    patch_size: tuple[int, int] = (16, 16)
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    vision_use_head: bool = True

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        told = fields.flag("vision_use_head", default=cls.vision_use_head)
        return super().read(fields) | {"vision_use_head": fields.part("pooler", default=told)}


@dataclass(frozen=True, kw_only=True)
class Config(dual.DualConfig):
    """What makes one SigLIP differ from another: the configs of both encoders."""

    model_types = ("siglip",)
    text = TextConfig
    vision = VisionConfig

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes: vectors of texts as wide as those of images."""
        found = super().read(fields)
        width, wanted = found["text_config"].projection_size, found["vision_config"].hidden_size
        if width != wanted:
            fields.refuse("text_config.projection_size", width, f"{wanted}, the width of images' vectors")
        return found


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(VisionConfig):
    """What `SiglipForImageClassification` has: the config of both encoders, and labels."""

    model_types = ("siglip",)
    classes = ("SiglipForImageClassification",)
    unused = dual.CLASSIFIER_UNUSED

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        return dual.read_classifier(fields, VisionConfig)


class LastToken(Linear):
    """A linear layer of the last token's state: `(seq, d)` to `(out_features,)`."""

    def __init__(self, in_features: int, out_features: int, *, key: jax.Array) -> None:
        super().__init__(in_features, out_features, key=key)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Of hidden states `(seq, d)`."""
        return super().__call__(x[-1])


class SigLIPText(TextEncoder):
    """The encoder of text, which looks both ways.

    **Arguments:** (of the constructor)

    - `config`: a `TextConfig`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: TextConfig, *, key: jax.Array) -> None:
        keys, width = jax.random.split(key, 3), config.hidden_size
        embed = TextEmbedding(width, tokens=config.vocab_size, positions=config.max_position_embeddings, key=keys[0])
        pooler = LastToken(width, config.projection_size, key=keys[2])
        super().__init__(config, embed, make_layers(config, key=keys[1]), norm=layer_norm(config), pooler=pooler)

    def vector(self, tokens: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """The vector of a text, `(projection_size,)`. Arguments as for a call."""
        return self.pooled(self(tokens, mask))


class AttentionPooling(eqx.Module):
    """A token of its own, the probe, that looks at all others, and an MLP: `(seq, d)` to `(d,)`.

    **Arguments:** (of the constructor)

    - `config`: a `VisionConfig`.
    - `key`: for the initial weights.
    """

    probe: jax.Array  # (d,)
    attention: Attention
    norm: eqx.nn.LayerNorm
    mlp: MLP

    def __init__(self, config: VisionConfig, *, key: jax.Array) -> None:
        keys, width = jax.random.split(key, 3), config.hidden_size
        self.probe = jax.random.normal(keys[0], (width,))
        self.attention = Attention(width, config.num_attention_heads, key=keys[1])
        self.norm = layer_norm(config)
        self.mlp = MLP(width, config.intermediate_size, config.hidden_act, key=keys[2])

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Of hidden states `(seq, d)`."""
        (q, _), (_, kv) = (self.attention.project(x, None) for x in (self.probe[None], hidden))
        (seen,) = dot_product_attention(q, kv, AttentionContext(), scale=self.attention.scale)
        x = self.attention.out(seen)
        return x + self.mlp(self.norm(x))


class SigLIPVision(ImageEncoder):
    """The encoder of images. There is no class token.

    **Arguments:** (of the constructor)

    - `config`: a `VisionConfig`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: VisionConfig, *, key: jax.Array) -> None:
        keys = jax.random.split(key, 4)
        embed = PatchEmbedding(
            config.hidden_size,
            channels=config.num_channels,
            image_size=config.image_size,
            patch_size=config.patch_size,
            class_token=False,
            key=keys[0],
        )
        pooler = AttentionPooling(config, key=keys[2]) if config.vision_use_head else None
        head = dual.MeanClassifier(config, skipped=0, key=keys[3]) if config.labels else None
        layers = make_layers(config, key=keys[1])
        super().__init__(config, embed, layers, norm=layer_norm(config), pooler=pooler, head=head)

    def vector(self, image: jax.Array) -> jax.Array:
        """The vector of an image, `(d,)`. Argument as for a call. **Raises:** as `pooled`."""
        return self.pooled(self(image))


class SigLIP(dual.DualEncoder):
    """Both encoders, `text_model` and `vision_model`.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        keys = jax.random.split(key)
        text, vision = SigLIPText(config.text_config, key=keys[0]), SigLIPVision(config.vision_config, key=keys[1])
        super().__init__(config, text, vision, logit_scale=2.3026, logit_bias=-10.0)


_TEXT = (*dual.TEXT_RULES, "head.** -> pooler.**")
_VISION = (*dual.VISION_RULES, "post_layernorm.** -> norm.**")
_POOLING = (
    "head.probe [1 1 d] -> pooler.probe [d]",
    "head.attention.in_proj_weight [(query|key|value) m] -> pooler.attention.{query|key|value}.weight [_ m]",
    "head.attention.in_proj_bias [(query|key|value)] -> pooler.attention.{query|key|value}.bias [_]",
    "head.attention.out_proj.** -> pooler.attention.out.**",
    "head.layernorm.** -> pooler.norm.**",
    "head.mlp.{fc1|fc2}.** -> pooler.mlp.{up|down}.**",
)


def rules(config: Config | TextConfig | VisionConfig) -> list[str]:
    """Which key is which leaf, for `SiglipModel`, for either of its encoders alone, and for that of images with a
    classifier, as its config says.
    """
    if isinstance(config, TextConfig):
        return dual.rules_alone("text_model", _TEXT)
    images = config if isinstance(config, VisionConfig) else config.vision_config
    vision = (*_VISION, *(_POOLING if images.vision_use_head else ["head.** -> _"]))
    if isinstance(config, VisionConfig):
        return [*dual.rules_alone("vision_model", vision), *(["classifier.** -> head.**"] if config.labels else [])]
    return [
        *dual.rules_within("text_model", _TEXT),
        *dual.rules_within("vision_model", vision),
        "logit_{scale|bias} [1] -> logit_{scale|bias} []",
    ]
