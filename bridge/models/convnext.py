"""ConvNeXt: wide depthwise convolutions, an MLP of each pixel behind them (https://arxiv.org/abs/2201.03545).

    model = bridge.models.from_pretrained("facebook/convnext-tiny-224")
    hidden = model(image)  # (c, h, w) -> (c', h', w'); a batch by jax.vmap
    scores = model.logits(hidden)  # (labels,)

For inference: stochastic depth is left out. The blocks of a stage are stacked under `jax.lax.scan`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models.config import Fields, ModelConfig
from bridge.models.convolution import ConvEncoder, Stage, activated, pixelwise
from bridge.models.layers import ACTIVATIONS, Linear, accumulation_dtype
from bridge.models.spellings import only_read

# Fields that only training reads, that say what a backbone of transformers hands on, or how large images were.
_UNUSED = frozenset({"drop_path_rate", "image_size", "out_features", "out_indices", "stage_names"})
_EPS = 1e-6  # of all norms but the last one


@dataclass(frozen=True)
class Config(ModelConfig):
    """What makes one ConvNeXt differ from another. The names are those of config.json.

    - `hidden_sizes`, `depths`: of each stage the channels, and how many blocks it has.
    - `patch_size`: height and width in pixels of what the stem makes one of. `num_channels`: of the image.
    - `hidden_act`: the MLP's activation. `layer_norm_eps`: what the last norm adds to the variance.
    - `scaled`: whether blocks have a scale for each channel: where `layer_scale_init_value` is above 0.
    - `labels`: what the scores of `logits` are called; none where there is no head.
    """

    model_types = ("convnext",)
    unused: ClassVar[Collection[str]] = _UNUSED
    responsive: ClassVar[bool] = False
    """Whether MLPs have a global response norm: ConvNeXt V2."""

    hidden_sizes: tuple[int, ...]
    depths: tuple[int, ...]
    patch_size: tuple[int, int] = (4, 4)
    num_channels: int = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    scaled: bool = True
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        stages = fields.count("num_stages", default=4)
        return {
            "hidden_sizes": fields.wholes("hidden_sizes", default=(96, 192, 384, 768), least=1, count=stages),
            "depths": fields.wholes("depths", default=(3, 3, 9, 3), least=1, count=stages),
            "patch_size": fields.pair("patch_size", default=cls.patch_size),
            "num_channels": fields.count("num_channels", default=cls.num_channels),
            "hidden_act": fields.one_of("hidden_act", list(ACTIVATIONS), default=cls.hidden_act),
            "layer_norm_eps": fields.number("layer_norm_eps", default=cls.layer_norm_eps),
            "labels": fields.labels() if fields.part("head", default=False) else (),
        } | cls.read_scaled(fields)

    @classmethod
    def read_scaled(cls, fields: Fields) -> dict[str, Any]:
        """Whether blocks have scales."""
        return {"scaled": fields.number("layer_scale_init_value", default=1e-6, zero=True) > 0}

    @property
    def least_size(self) -> tuple[int, int]:
        """The least height and width of an image: one pixel of the last stage."""
        halved = 1 << (len(self.depths) - 1)
        return self.patch_size[0] * halved, self.patch_size[1] * halved


class Stem(eqx.Module):
    """Patches that are pixels from here on, and their norm. Arguments of the constructor as for `ConvNext`."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.LayerNorm

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width, patch = config.hidden_sizes[0], config.patch_size
        self.conv = eqx.nn.Conv2d(config.num_channels, width, patch, patch, key=key)
        self.norm = eqx.nn.LayerNorm(width, _EPS)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(c, h, w)` to `(hidden_sizes[0], h', w')`."""
        return pixelwise(self.norm, self.conv(x))


class Halving(eqx.Module):
    """A norm, and of two by two pixels one.

    **Arguments:** (of the constructor)

    - `ins`, `outs`: channels.
    - `key`: for the initial weights.
    """

    norm: eqx.nn.LayerNorm
    conv: eqx.nn.Conv2d

    def __init__(self, ins: int, outs: int, *, key: jax.Array) -> None:
        self.norm = eqx.nn.LayerNorm(ins, _EPS)
        self.conv = eqx.nn.Conv2d(ins, outs, 2, 2, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(ins, h, w)` to `(outs, h / 2, w / 2)`."""
        return self.conv(pixelwise(self.norm, x))


class ResponseNorm(eqx.Module):
    """Each channel by how large it is in the whole image, beside the others (https://arxiv.org/abs/2301.00808).

    **Arguments:** (of the constructor)

    - `channels`: how many there are.
    """

    weight: jax.Array
    bias: jax.Array

    def __init__(self, channels: int) -> None:
        self.weight, self.bias = jnp.zeros(channels), jnp.zeros(channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(channels, h, w)` to the same."""
        wide = x.astype(accumulation_dtype(x.dtype))
        size = jnp.sqrt(jnp.sum(wide**2, axis=(1, 2), keepdims=True))
        share = size / (size.mean() + 1e-6)
        weight, bias = (each.astype(wide.dtype)[:, None, None] for each in (self.weight, self.bias))
        return (weight * (wide * share) + bias + wide).astype(x.dtype)


class Block(eqx.Module):
    """A depthwise convolution of seven by seven, a norm, an MLP of each pixel; added to what they were made of.

    **Arguments:** (of the constructor)

    - `config`: a `Config`.
    - `width`: channels.
    - `key`: for the initial weights.
    """

    conv: eqx.nn.Conv2d
    norm: eqx.nn.LayerNorm
    up: Linear
    response: ResponseNorm | None
    down: Linear
    scale: jax.Array | None  # (width,)
    activation: str = eqx.field(static=True)

    def __init__(self, config: Config, width: int, *, key: jax.Array) -> None:
        keys = jax.random.split(key, 3)
        self.conv = eqx.nn.Conv2d(width, width, 7, padding=3, groups=width, key=keys[0])
        self.norm = eqx.nn.LayerNorm(width, _EPS)
        self.up, self.down = Linear(width, 4 * width, key=keys[1]), Linear(4 * width, width, key=keys[2])
        self.response = ResponseNorm(4 * width) if config.responsive else None
        self.scale = jnp.ones(width) if config.scaled else None
        self.activation = config.hidden_act

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(width, h, w)` to the same."""
        y = pixelwise(lambda x: activated(self.activation, self.up(self.norm(x))), self.conv(x))
        y = pixelwise(self.down, y if self.response is None else self.response(y))
        return x + (y if self.scale is None else self.scale[:, None, None] * y)


class ConvNext(ConvEncoder):
    """The encoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key_stem, key_head, *keys = jax.random.split(key, 2 + 2 * len(config.depths))
        ins, stages = config.hidden_sizes[0], list[Stage]()
        for outs, depth in zip(config.hidden_sizes, config.depths, strict=True):
            halving = Halving(ins, outs, key=keys.pop()) if stages else None
            stages.append(Stage(halving, lambda key, outs=outs: Block(config, outs, key=key), depth, key=keys.pop()))
            ins = outs
        norm = eqx.nn.LayerNorm(ins, config.layer_norm_eps)
        head = Linear(ins, len(config.labels), key=key_head) if config.labels else None
        super().__init__(config, Stem(config, key=key_stem), stages, norm=norm, head=head)


_ENCODER = (
    "embeddings.patch_embeddings.** -> stem.conv.**",
    "embeddings.layernorm.** -> stem.norm.**",
    "encoder.stages.{s}.downsampling_layer.{0|1}.** -> stages.{s}.first.{norm|conv}.**",
    "encoder.stages.{s}.layers.{b}.dwconv.** -> stages.{s}.rest.conv.**",
    "encoder.stages.{s}.layers.{b}.layernorm.** -> stages.{s}.rest.norm.**",
    "encoder.stages.{s}.layers.{b}.pwconv{1|2}.** -> stages.{s}.rest.{up|down}.**",
    "encoder.stages.{s}.layers.{b}.layer_scale_parameter -> stages.{s}.rest.scale",
    "encoder.stages.{s}.layers.{b}.grn.{weight|bias} [1 1 1 d] -> stages.{s}.rest.response.{weight|bias} [b d]",
    "layernorm.** -> norm.**",
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `ConvNextModel`, and for `ConvNextForImageClassification`, which holds it as
    `convnext.`. Saved by rules alone, a model with a head has the names of the latter.
    """
    held = [f"{config.model_types[0]}.{rule}" for rule in _ENCODER]
    first, second = (held, _ENCODER) if config.labels else (_ENCODER, held)
    return [*first, "classifier.** -> head.**", *only_read(second)]


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Whether a checkpoint of these keys has a head: a keyword of `Config.from_dict`."""
    return {"head": "classifier.weight" in keys}
