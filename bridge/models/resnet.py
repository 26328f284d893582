"""ResNet: convolutions whose results are added to what they were made of (https://arxiv.org/abs/1512.03385).

    model = bridge.models.from_pretrained("microsoft/resnet-50")
    hidden = model(image)  # (c, h, w) -> (c', h', w'); a batch by jax.vmap
    scores = model.logits(hidden)  # (labels,)

torchvision's files, and timm's of the same names, have no config.json that says so:

    config = resnet.TORCHVISION["resnet50"]
    like = eqx.filter_eval_shape(resnet.ResNet, config, key=jax.random.key(0))
    model = bridge.load("resnet50.pth", like, resnet.torchvision_rules(config))

For inference: BatchNorm's statistics are leaves. The first block of a stage stands alone, the others are stacked under
`jax.lax.scan`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax

from bridge.models.config import Fields, ModelConfig
from bridge.models.convolution import ConvEncoder, FrozenBatchNorm, Stage, activated
from bridge.models.layers import ACTIVATIONS, Linear
from bridge.models.spellings import only_read

_LAYER_TYPES = ("basic", "bottleneck")


@dataclass(frozen=True)
class Config(ModelConfig):
    """What makes one ResNet differ from another. The names are those of config.json.

    - `embedding_size`: channels behind the stem. `hidden_sizes`, `depths`: of each stage the channels, and how many
      blocks it has.
    - `layer_type`: whether blocks are `"basic"`, two convolutions, or a `"bottleneck"`, three, the middle one of a
      quarter of the channels.
    - `num_channels`: of the image. `hidden_act`: the activation.
    - `downsample_in_first_stage`: whether the first stage halves height and width, as the others do.
      `downsample_in_bottleneck`: whether the first convolution of a bottleneck does so, not the second.
    - `labels`: what the scores of `logits` are called; none where there is no head.
    """

    model_types = ("resnet",)
    unused: ClassVar[Collection[str]] = frozenset({"out_features", "out_indices", "stage_names"})
    least_size: ClassVar[tuple[int, int]] = (1, 1)

    embedding_size: int
    hidden_sizes: tuple[int, ...]
    depths: tuple[int, ...]
    layer_type: str = "bottleneck"
    num_channels: int = 3
    hidden_act: str = "relu"
    downsample_in_first_stage: bool = False
    downsample_in_bottleneck: bool = False
    labels: tuple[str, ...] = ()

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        sizes = fields.wholes("hidden_sizes", default=(256, 512, 1024, 2048), least=1)
        kind = fields.one_of("layer_type", _LAYER_TYPES, default=cls.layer_type)
        least = 4 if kind == "bottleneck" else 1
        if not sizes or min(sizes) < least:
            fields.refuse("hidden_sizes", sizes, f"one number or more, each from {least} up")
        return {
            "embedding_size": fields.count("embedding_size", default=64),
            "hidden_sizes": sizes,
            "depths": fields.wholes("depths", default=(3, 4, 6, 3), least=1, count=len(sizes)),
            "layer_type": kind,
            "num_channels": fields.count("num_channels", default=cls.num_channels),
            "hidden_act": fields.one_of("hidden_act", list(ACTIVATIONS), default=cls.hidden_act),
            "downsample_in_first_stage": fields.flag("downsample_in_first_stage", default=False),
            "downsample_in_bottleneck": fields.flag("downsample_in_bottleneck", default=False),
            "labels": fields.labels() if fields.part("head", default=False) else (),
        }


class ConvNorm(eqx.Module):
    """A convolution without bias, BatchNorm, and an activation where there is one.

    **Arguments:** (of the constructor)

    - `ins`, `outs`: channels. `width`: the kernel's; edges are padded by half of it. `stride`: from pixel to pixel.
    - `activation`: one of `ACTIVATIONS`.
    - `key`: for the initial weights.
    """

    conv: eqx.nn.Conv2d
    norm: FrozenBatchNorm
    activation: str | None = eqx.field(static=True)

    def __init__(
        self, ins: int, outs: int, width: int, *, stride: int = 1, activation: str | None = None, key: jax.Array
    ) -> None:
        self.conv = eqx.nn.Conv2d(ins, outs, width, stride, padding=width // 2, use_bias=False, key=key)
        self.norm, self.activation = FrozenBatchNorm(outs), activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(ins, h, w)` to `(outs, h', w')`."""
        x = self.norm(self.conv(x))
        return x if self.activation is None else activated(self.activation, x)


class Stem(ConvNorm):
    """A wide convolution, and the largest of three by three pixels. Arguments of the constructor as for `Block`."""

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        super().__init__(config.num_channels, config.embedding_size, 7, stride=2, activation=config.hidden_act, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(c, h, w)` to `(embedding_size, h', w')`."""
        return eqx.nn.MaxPool2d(3, 2, padding=1)(super().__call__(x))


class Block(eqx.Module):
    """Convolutions, and what they were made of added to them.

    **Arguments:** (of the constructor)

    - `config`: a `Config`.
    - `ins`, `outs`: channels. `stride`: from pixel to pixel.
    - `key`: for the initial weights.
    """

    convs: list[ConvNorm]
    shortcut: ConvNorm | None
    activation: str = eqx.field(static=True)

    def __init__(self, config: Config, ins: int, outs: int, stride: int = 1, *, key: jax.Array) -> None:
        act, keys = config.hidden_act, jax.random.split(key, 4)
        if config.layer_type == "basic":
            self.convs = [
                ConvNorm(ins, outs, 3, stride=stride, activation="relu", key=keys[0]),
                ConvNorm(outs, outs, 3, key=keys[1]),
            ]
        else:
            inside, strides = outs // 4, (stride, 1) if config.downsample_in_bottleneck else (1, stride)
            self.convs = [
                ConvNorm(ins, inside, 1, stride=strides[0], activation="relu", key=keys[0]),
                ConvNorm(inside, inside, 3, stride=strides[1], activation="relu", key=keys[1]),
                ConvNorm(inside, outs, 1, key=keys[2]),
            ]
        self.shortcut = ConvNorm(ins, outs, 1, stride=stride, key=keys[3]) if ins != outs or stride > 1 else None
        self.activation = act

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(ins, h, w)` to `(outs, h', w')`."""
        y = x
        for conv in self.convs:
            y = conv(y)
        return activated(self.activation, y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(ConvEncoder):
    """The encoder. See `bridge.models` for what can be called.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key_stem, key_stages, key_head = jax.random.split(key, 3)
        ins, stages = config.embedding_size, list[Stage]()
        for outs, depth, key_stage in zip(
            config.hidden_sizes, config.depths, jax.random.split(key_stages, len(config.depths)), strict=True
        ):
            keys = jax.random.split(key_stage)
            first = Block(config, ins, outs, 2 if stages or config.downsample_in_first_stage else 1, key=keys[0])
            stages.append(
                Stage(first, lambda key, outs=outs: Block(config, outs, outs, key=key), depth - 1, key=keys[1])
            )
            ins = outs
        head = Linear(ins, len(config.labels), key=key_head) if config.labels else None
        super().__init__(config, Stem(config, key=key_stem), stages, head=head)


_PARTS = "{convolution|normalization}.**"
_ENCODER = (
    f"embedder.embedder.{_PARTS} -> stem.{{conv|norm}}.**",
    f"encoder.stages.{{s}}.layers.0.shortcut.{_PARTS} -> stages.{{s}}.first.shortcut.{{conv|norm}}.**",
    f"encoder.stages.{{s}}.layers.0.layer.{{c}}.{_PARTS} -> stages.{{s}}.first.convs.{{c}}.{{conv|norm}}.**",
    f"encoder.stages.{{s}}.layers.{{b[1:]}}.layer.{{c}}.{_PARTS} -> stages.{{s}}.rest.convs.{{c}}.{{conv|norm}}.**",
)
_COUNTED = "**.num_batches_tracked -> _ ; zeros=true"  # how many batches there were, which inference does not ask


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `ResNetModel`, for `ResNetForImageClassification`, which holds it as `resnet.`, and
    for torchvision's names.

    Saved by rules alone, a model with a head has the names of the second. `num_batches_tracked` is saved as zeros by a
    plan, and not by rules alone: PyTorch's strict `load_state_dict` does without it.
    """
    held = [f"resnet.{rule}" for rule in _ENCODER]
    first, second = (held, _ENCODER) if config.labels else (_ENCODER, held)
    return [_COUNTED, *first, "classifier.1.** -> head.**", *only_read([*second, *torchvision_rules(config)[1:]])]


def torchvision_rules(config: Config) -> list[str]:
    """Which key is which leaf, by torchvision's names alone, which timm has too."""
    return [
        _COUNTED,
        "conv1.** -> stem.conv.**",
        "bn1.** -> stem.norm.**",
        "layer{s[1:]}.0.downsample.{0|1}.** -> stages.{s}.first.shortcut.{conv|norm}.**",
        "layer{s[1:]}.0.conv{c[1:]}.** -> stages.{s}.first.convs.{c}.conv.**",
        "layer{s[1:]}.0.bn{c[1:]}.** -> stages.{s}.first.convs.{c}.norm.**",
        "layer{s[1:]}.{b[1:]}.conv{c[1:]}.** -> stages.{s}.rest.convs.{c}.conv.**",
        "layer{s[1:]}.{b[1:]}.bn{c[1:]}.** -> stages.{s}.rest.convs.{c}.norm.**",
        "fc.** -> head.**",
    ]


def _torchvision(kind: str, *depths: int) -> Config:
    """One of torchvision's sizes, with the thousand labels of ImageNet."""
    widest = 512 if kind == "basic" else 2048
    fields = {"layer_type": kind, "depths": list(depths), "hidden_sizes": [widest // n for n in (8, 4, 2, 1)]}
    return Config.from_dict(fields | {"num_labels": 1000}, head=True)


TORCHVISION: Mapping[str, Config] = {
    "resnet18": _torchvision("basic", 2, 2, 2, 2),
    "resnet34": _torchvision("basic", 3, 4, 6, 3),
    "resnet50": _torchvision("bottleneck", 3, 4, 6, 3),
    "resnet101": _torchvision("bottleneck", 3, 4, 23, 3),
    "resnet152": _torchvision("bottleneck", 3, 8, 36, 3),
}
"""torchvision's sizes, by its names. Of others labels: `dataclasses.replace(config, labels=("cat", "dog"))`."""


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Whether a checkpoint of these keys has a head: a keyword of `Config.from_dict`."""
    return {"head": not {"classifier.1.weight", "fc.weight"}.isdisjoint(keys)}
