"""ViT: an encoder of images, cut into patches that are its tokens, norms before attention and MLP.

    model = bridge.models.from_pretrained("google/vit-base-patch16-224")
    hidden = model(image)  # (c, h, w) -> (tokens, d), the class token first; a batch by jax.vmap
    scores = model.logits(hidden)  # (num_labels,)

For inference: dropout is left out. All layers are one stacked module under `jax.lax.scan`. Source:
https://arxiv.org/abs/2010.11929.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models._activations import ACTIVATIONS
from bridge.models._config import Fields, read_json
from bridge.models._encoder import Attention
from bridge.models._linear import Linear
from bridge.models._spellings import only_read

_POOLER_ACTIVATIONS = {**ACTIVATIONS, "tanh": jnp.tanh}

# Fields that only training reads, and the stride of the head that was pre-trained on hidden patches.
_UNUSED = frozenset({"attention_probs_dropout_prob", "encoder_stride", "hidden_dropout_prob"})


@dataclass(frozen=True)
class Config:
    """What makes one ViT differ from another. The names are those of config.json.

    - `hidden_size`: the width, d. `num_attention_heads` divides it. `intermediate_size`: the width inside an MLP.
    - `image_size`, `patch_size`: height and width in pixels. `num_channels`: of the image.
    - `qkv_bias`: whether query, key and value have a bias.
    - `hidden_act`, `pooler_act`: the MLP's and the pooler's activation. `layer_norm_eps`: what layer norms add to the
      variance.
    - `pooler_output_size`: the width of what `ViT.pooled` gives; 0 where there is no pooler.
    - `num_labels`: the width of what `ViT.logits` gives; 0 where there is no classifier.
    """

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
    num_labels: int = 0

    @property
    def num_tokens(self) -> int:
        """The class token, and as many patches as fit into the image; pixels left over are not seen."""
        (height, width), (down, across) = self.image_size, self.patch_size
        return 1 + (height // down) * (width // across)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        pooler: bool = True,
        classifier: bool = False,
        ignore: Collection[str] = (),
        name: str = "config.json",
    ) -> Config:
        """The config of what a config.json says.

        **Arguments:**

        - `data`: the fields, as transformers writes them.
        - `pooler`: whether the model shall have the pooler. Checkpoints of `ViTForImageClassification` have none.
        - `classifier`: whether it shall have the classifier. They have one.
        - `ignore`: fields that are known to change nothing.
        - `name`: what messages call the file.

        **Raises:** `bridge.CheckpointError` that names a field which is absent, unknown, or of a value that is not
        implemented.
        """
        fields = Fields(data, name=name)
        fields.one_of("model_type", ["vit"], default="vit")
        config = cls(
            hidden_size=fields.count("hidden_size"),
            num_hidden_layers=fields.count("num_hidden_layers"),
            num_attention_heads=fields.count("num_attention_heads"),
            intermediate_size=fields.count("intermediate_size"),
            image_size=fields.pair("image_size", default=cls.image_size),
            patch_size=fields.pair("patch_size", default=cls.patch_size),
            num_channels=fields.count("num_channels", default=cls.num_channels),
            qkv_bias=fields.flag("qkv_bias", default=cls.qkv_bias),
            hidden_act=fields.one_of("hidden_act", list(ACTIVATIONS), default=cls.hidden_act),
            layer_norm_eps=fields.number("layer_norm_eps", default=cls.layer_norm_eps),
            pooler_act=fields.one_of("pooler_act", list(_POOLER_ACTIVATIONS), default=cls.pooler_act),
            pooler_output_size=fields.count("pooler_output_size", default=data["hidden_size"]) if pooler else 0,
            num_labels=fields.labels() if classifier else 0,
        )
        if config.hidden_size % config.num_attention_heads:
            fields.refuse("num_attention_heads", config.num_attention_heads, f"a divisor of {config.hidden_size}")
        if config.num_tokens == 1:
            fields.refuse("patch_size", list(config.patch_size), f"at most {list(config.image_size)}, the image")
        fields.done(unused={*_UNUSED, "pooler_output_size", *ignore})
        return config

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **options: Any) -> Config:
        """The config of a config.json file. Arguments and errors as for `from_dict`."""
        return cls.from_dict(read_json(path), **options, name=os.fspath(path))


class Embed(eqx.Module):
    """An image's patches, each a token, behind the class token; and to each the embedding of its place."""

    cls: jax.Array  # (d,)
    patches: eqx.nn.Conv2d
    position: jax.Array  # (tokens, d)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key_cls, key_patches, key_position = jax.random.split(key, 3)
        self.cls = jax.random.normal(key_cls, (config.hidden_size,))
        self.patches = eqx.nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, config.patch_size, key=key_patches
        )
        self.position = jax.random.normal(key_position, (config.num_tokens, config.hidden_size))

    def __call__(self, image: jax.Array) -> jax.Array:
        """Shape `(c, h, w)` to `(tokens, d)`: patches row by row."""
        patches = self.patches(image)
        patches = patches.reshape(patches.shape[0], -1).T
        return jnp.concatenate([self.cls[None], patches]) + self.position


class Layer(eqx.Module):
    """Attention, then an MLP; each of the normalised input, to which it is added."""

    norm1: eqx.nn.LayerNorm
    attention: Attention
    norm2: eqx.nn.LayerNorm
    up: Linear
    down: Linear
    activation: str = eqx.field(static=True)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        d, inner, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        key_attention, key_up, key_down = jax.random.split(key, 3)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(d, eps), eqx.nn.LayerNorm(d, eps)
        self.attention = Attention(d, config.num_attention_heads, qkv_bias=config.qkv_bias, key=key_attention)
        self.up = Linear(d, inner, key=key_up)
        self.down = Linear(inner, d, key=key_down)
        self.activation = config.hidden_act

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(tokens, d)` to the same."""
        x = x + self.attention(jax.vmap(self.norm1)(x))
        inner = ACTIVATIONS[self.activation](jax.vmap(self.up)(jax.vmap(self.norm2)(x)))
        return x + jax.vmap(self.down)(inner)


class ViT(eqx.Module):
    """The encoder. One image a call; a batch by `jax.vmap`.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    embed: Embed
    layers: Layer  # stacked: each array has an axis (layers,) in front
    norm: eqx.nn.LayerNorm
    pooler: Linear | None
    classifier: Linear | None
    config: Config = eqx.field(static=True)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key_embed, key_layers, *keys = jax.random.split(key, 4)
        self.embed = Embed(config, key=key_embed)
        self.layers = eqx.filter_vmap(lambda k: Layer(config, key=k))(
            jax.random.split(key_layers, config.num_hidden_layers)
        )
        self.norm = eqx.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.pooler, self.classifier = (
            Linear(config.hidden_size, width, key=k) if width else None
            for width, k in zip((config.pooler_output_size, config.num_labels), keys, strict=True)
        )
        self.config = config

    def __call__(self, image: jax.Array) -> jax.Array:
        """The normalised states of the last layer, shape `(tokens, d)`: the class token, then patches row by row.

        **Arguments:**

        - `image`: shape `(config.num_channels, *config.image_size)`, float, scaled as the checkpoint's
          `preprocessor_config.json` says.
        """
        return self._run(image)[0]

    def hidden_states(self, image: jax.Array) -> jax.Array:
        """The embeddings and every layer's states, shape `(layers + 1, tokens, d)`: before the last norm."""
        return self._run(image, every=True)[1]

    def pooled(self, hidden: jax.Array) -> jax.Array:
        """The summary that the class token stands for, `(config.pooler_output_size,)`, of states `(tokens, d)`."""
        if self.pooler is None:
            raise bridge.BridgeError("this ViT has no pooler. Make it with one: Config.from_dict(…, pooler=True).")
        return _POOLER_ACTIVATIONS[self.config.pooler_act](self.pooler(hidden[0]))

    def logits(self, hidden: jax.Array) -> jax.Array:
        """A score for each label, `(config.num_labels,)`, of states `(tokens, d)`."""
        if self.classifier is None:
            raise bridge.BridgeError(
                "this ViT has no classifier. Make it with one: Config.from_dict(…, classifier=True)."
            )
        return self.classifier(hidden[0])

    def _run(self, image: jax.Array, *, every: bool = False) -> tuple[jax.Array, jax.Array]:
        wanted = (self.config.num_channels, *self.config.image_size)
        if image.shape != wanted or not jnp.issubdtype(image.dtype, jnp.floating):
            raise bridge.BridgeError(
                f"ViT takes an image of shape {wanted} and floats, and got {image.shape} of {image.dtype}: "
                "prepare it as the checkpoint's preprocessor_config.json says, and batches by jax.vmap."
            )

        def step(x: jax.Array, layer: Layer) -> tuple[jax.Array, jax.Array | None]:
            x = layer(x)
            return x, x if every else None

        start = self.embed(image.astype(self.embed.cls.dtype))
        last, states = jax.lax.scan(step, start, self.layers)
        return jax.vmap(self.norm)(last), start[None] if states is None else jnp.concatenate([start[None], states])


_ENCODER = (
    "embeddings.cls_token [1 1 d] -> embed.cls [d]",
    "embeddings.position_embeddings [1 n d] -> embed.position [n d]",
    "embeddings.patch_embeddings.projection.** -> embed.patches.**",
    "encoder.layer.{l}.layernorm_{before|after}.** -> layers.{norm1|norm2}.**",
    "encoder.layer.{l}.attention.attention.{query|key|value}.** -> layers.attention.{query|key|value}.**",
    "encoder.layer.{l}.attention.output.dense.** -> layers.attention.out.**",
    "encoder.layer.{l}.{intermediate|output}.dense.** -> layers.{up|down}.**",
    "layernorm.** -> norm.**",
)
_RENAMED = (  # how transformers 5 names them in memory, and writes them if asked not to use the Hub's names
    "layers.{l}.layernorm_{before|after}.** -> layers.{norm1|norm2}.**",
    "layers.{l}.attention.{q|k|v}_proj.** -> layers.attention.{query|key|value}.**",
    "layers.{l}.attention.o_proj.** -> layers.attention.out.**",
    "layers.{l}.mlp.{fc1|fc2}.** -> layers.{up|down}.**",
    "embeddings.mask_token -> _",  # what stood for hidden patches in pre-training
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `ViTModel` and for models that hold it as `vit.`.

    The head that a model was pre-trained with on hidden patches (`decoder.`) is dropped. A classifier that the config
    does not ask for is not: name it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    hub = [*_ENCODER, "pooler.dense.** -> pooler.**" if config.pooler_output_size else "pooler.** -> _"]
    others = only_read([*_RENAMED, *(f"vit.{rule}" for rule in (*hub, *_RENAMED))])
    return [*hub, *others, "classifier.** -> classifier.**", "decoder.** -> _"]


def told_by(keys: Iterable[str]) -> dict[str, Any]:
    """What no config.json says, and the keys of a checkpoint do: keywords of `Config.from_dict`."""
    names = {key.removeprefix("vit.") for key in keys}
    return {"pooler": "pooler.dense.weight" in names, "classifier": "classifier.weight" in names}
