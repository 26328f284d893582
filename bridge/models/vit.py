"""ViT: an encoder of images, cut into patches that are its tokens, norms before attention and MLP.

    model = bridge.models.from_pretrained("google/vit-base-patch16-224")
    hidden = model(image)  # (c, h, w) -> (tokens, d), the class token first; a batch by jax.vmap
    scores = model.logits(hidden)  # (num_labels,)

For inference: dropout is left out. All layers are one stacked module under `jax.lax.scan`. Source:
https://arxiv.org/abs/2010.11929.
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
from bridge.models.embedding import PatchEmbedding
from bridge.models.encoder import FirstToken, ImageEncoder, Layer, stack
from bridge.models.layers import ACTIVATIONS, MLP
from bridge.models.spellings import only_read

_POOLER_ACTIVATIONS = {**ACTIVATIONS, "tanh": jnp.tanh}

# Fields that only training reads, and the stride of the head that was pre-trained on hidden patches.
_UNUSED = frozenset({"attention_probs_dropout_prob", "encoder_stride", "hidden_dropout_prob"})


@dataclass(frozen=True)
class Config(ModelConfig):
    """What makes one ViT differ from another. The names are those of config.json.

    - `hidden_size`: the width, d. `num_attention_heads` divides it. `intermediate_size`: the width inside an MLP.
    - `image_size`, `patch_size`: height and width in pixels. `num_channels`: of the image.
    - `qkv_bias`: whether query, key and value have a bias.
    - `hidden_act`, `pooler_act`: the MLP's and the pooler's activation. `layer_norm_eps`: what layer norms add to the
      variance.
    - `pooler_output_size`: the width of what `ViT.pooled` gives; 0 where there is no pooler.
    - `labels`: the names of what `ViT.logits` gives; `()` where there is no head. Checkpoints of
      `ViTForImageClassification` have one, and no pooler: no config.json says so.
    """

    model_types = ("vit",)
    unused: ClassVar[Collection[str]] = _UNUSED

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    num_channels: int = 3
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    pooler_act: str = "tanh"
    pooler_output_size: int = 0
    labels: tuple[str, ...] = ()

    @property
    def num_labels(self) -> int:
        """How many labels there are; 0 where there is no head."""
        return len(self.labels)

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
        if width % heads:
            fields.refuse("num_attention_heads", heads, f"a divisor of {width}")
        image, patch = (fields.pair(name, default=getattr(cls, name)) for name in ("image_size", "patch_size"))
        if any(side < each for side, each in zip(image, patch, strict=True)):
            fields.refuse("patch_size", list(patch), f"at most {list(image)}, the image")
        pooled = fields.count("pooler_output_size", default=width)
        return {
            "hidden_size": width,
            "num_hidden_layers": fields.count("num_hidden_layers"),
            "num_attention_heads": heads,
            "intermediate_size": fields.count("intermediate_size"),
            "image_size": image,
            "patch_size": patch,
            "num_channels": fields.count("num_channels", default=cls.num_channels),
            "qkv_bias": fields.flag("qkv_bias", default=cls.qkv_bias),
            "hidden_act": fields.one_of("hidden_act", list(ACTIVATIONS), default=cls.hidden_act),
            "layer_norm_eps": fields.number("layer_norm_eps", default=cls.layer_norm_eps),
            "pooler_act": fields.one_of("pooler_act", list(_POOLER_ACTIVATIONS), default=cls.pooler_act),
            "pooler_output_size": pooled if fields.part("pooler", default=True) else 0,
            "labels": fields.labels() if fields.part("head", default=False) else (),
        }


class ViT(ImageEncoder):
    """The encoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width, key_embed, key_layers, key_pooler, key_head = config.hidden_size, *jax.random.split(key, 4)

        def norm() -> eqx.nn.LayerNorm:
            return eqx.nn.LayerNorm(width, config.layer_norm_eps)

        def layer(key: jax.Array) -> Layer:
            keys = jax.random.split(key)
            attention = Attention(width, config.num_attention_heads, qkv_bias=config.qkv_bias, key=keys[0])
            mlp = MLP(width, config.intermediate_size, config.hidden_act, key=keys[1])
            return Layer(attention, mlp, norm, norm_first=True)

        embed = PatchEmbedding(
            width,
            channels=config.num_channels,
            image_size=config.image_size,
            patch_size=config.patch_size,
            key=key_embed,
        )
        layers = stack(layer, config.num_hidden_layers)(key_layers)
        pooler = head = None
        if config.pooler_output_size:
            activation = _POOLER_ACTIVATIONS[config.pooler_act]
            pooler = FirstToken(width, config.pooler_output_size, activation, key=key_pooler)
        if config.num_labels:
            head = FirstToken(width, config.num_labels, key=key_head)
        super().__init__(config, embed, layers, norm=norm(), pooler=pooler, head=head)


_ENCODER = (
    "embeddings.cls_token [1 1 d] -> embed.cls [d]",
    "embeddings.position_embeddings [1 n d] -> embed.position [n d]",
    "embeddings.patch_embeddings.projection.** -> embed.patches.**",
    "encoder.layer.{l}.layernorm_{before|after}.** -> layers.{norm1|norm2}.**",
    "encoder.layer.{l}.attention.attention.{query|key|value}.** -> layers.attention.{query|key|value}.**",
    "encoder.layer.{l}.attention.output.dense.** -> layers.attention.out.**",
    "encoder.layer.{l}.{intermediate|output}.dense.** -> layers.mlp.{up|down}.**",
    "layernorm.** -> norm.**",
)
_RENAMED = (  # how transformers 5 names them in memory, and writes them if asked not to use the Hub's names
    "layers.{l}.layernorm_{before|after}.** -> layers.{norm1|norm2}.**",
    "layers.{l}.attention.{q|k|v}_proj.** -> layers.attention.{query|key|value}.**",
    "layers.{l}.attention.o_proj.** -> layers.attention.out.**",
    "layers.{l}.mlp.{fc1|fc2}.** -> layers.mlp.{up|down}.**",
    "embeddings.mask_token -> _",  # what stood for hidden patches in pre-training
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `ViTModel` and for models that hold it as `vit.`.

    The head that a model was pre-trained with on hidden patches (`decoder.`) is dropped. A classifier that the config
    does not ask for is not: name it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    hub = [*_ENCODER, "pooler.dense.** -> pooler.**" if config.pooler_output_size else "pooler.** -> _"]
    others = only_read([*_RENAMED, *(f"vit.{rule}" for rule in (*hub, *_RENAMED))])
    return [*hub, *others, "classifier.** -> head.**", "decoder.** -> _"]


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Which parts a checkpoint of these keys has, and no config.json says: keywords of `Config.from_dict`."""
    names = {key.removeprefix("vit.") for key in keys}
    return {"pooler": "pooler.dense.weight" in names, "head": "classifier.weight" in names}
