"""DINOv2: a ViT that was trained without labels, whose layers have scales, and whose positions fit images of any size.

    model = bridge.models.from_pretrained("facebook/dinov2-base")
    hidden = model(image)  # (c, h, w) -> (tokens, d), the class token first; a batch by jax.vmap
    vector = model.pooled(hidden)  # (d,), the class token's

For inference: dropout and stochastic depth are left out. All layers are one stacked module under `jax.lax.scan`.
Source: https://arxiv.org/abs/2304.07193.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models.attention import Attention, AttentionContext
from bridge.models.config import Fields, ModelConfig
from bridge.models.embedding import PatchEmbedding, check_image
from bridge.models.encoder import ImageEncoder, stack
from bridge.models.layers import ACTIVATIONS, MLP, Linear, accumulation_dtype
from bridge.models.resize import bicubic
from bridge.models.spellings import only_read

# Fields that only training reads, or that say what a backbone of transformers hands on.
_UNUSED = frozenset(
    {
        *("attention_probs_dropout_prob", "drop_path_rate", "hidden_dropout_prob", "layerscale_value"),
        *("apply_layernorm", "out_features", "out_indices", "reshape_hidden_states", "stage_names"),
    }
)


@dataclass(frozen=True)
class Config(ModelConfig):
    """What makes one DINOv2 differ from another. The names are those of config.json.

    - `hidden_size`: the width, d. `num_attention_heads` divides it. `mlp_ratio`: how many times wider an MLP is inside.
    - `use_swiglu_ffn`: whether MLPs are gated, by `silu`; they are two thirds as wide then.
    - `image_size`, `patch_size`: height and width in pixels. There are positions for images of that size, a square of
      patches; for others they are interpolated. `num_channels`: of the image.
    - `qkv_bias`: whether query, key and value have a bias.
    - `hidden_act`: the MLP's activation. `layer_norm_eps`: what layer norms add to the variance.
    - `use_mask_token`: whether the checkpoint has what stood for hidden patches in pre-training.
    - `labels`: what the scores of `logits` are called; none where there is no head.
    - `num_register_tokens`: see `bridge.models.dinov2_with_registers`.
    """

    model_types = ("dinov2",)
    unused: ClassVar[Collection[str]] = _UNUSED
    antialias: ClassVar[bool] = False
    """How positions are interpolated where an image is smaller."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    mlp_ratio: float = 4.0
    use_swiglu_ffn: bool = False
    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (14, 14)
    num_channels: int = 3
    qkv_bias: bool = True
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    use_mask_token: bool = True
    labels: tuple[str, ...] = ()
    num_register_tokens: int = 0

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
        if width % heads:
            fields.refuse("num_attention_heads", heads, f"a divisor of {width}")
        image, patch = (fields.pair(name, default=getattr(cls, name)) for name in ("image_size", "patch_size"))
        rows, columns = image[0] // patch[0], image[1] // patch[1]
        if rows != columns or not rows:
            fields.refuse(
                "patch_size",
                list(patch),
                f"a patch that fits equally often into the height and the width of {list(image)}, the image",
            )
        ratio = fields.number("mlp_ratio", default=cls.mlp_ratio)
        if width * ratio >= 1 << 31:
            fields.refuse("mlp_ratio", ratio, f"a number whose product with {width} is below 2**31")
        return {
            "hidden_size": width,
            "num_hidden_layers": fields.count("num_hidden_layers"),
            "num_attention_heads": heads,
            "mlp_ratio": ratio,
            "use_swiglu_ffn": fields.flag("use_swiglu_ffn", default=cls.use_swiglu_ffn),
            "image_size": image,
            "patch_size": patch,
            "num_channels": fields.count("num_channels", default=cls.num_channels),
            "qkv_bias": fields.flag("qkv_bias", default=cls.qkv_bias),
            "hidden_act": fields.one_of("hidden_act", list(ACTIVATIONS), default=cls.hidden_act),
            "layer_norm_eps": fields.number("layer_norm_eps", default=cls.layer_norm_eps),
            "use_mask_token": fields.flag("use_mask_token", default=cls.use_mask_token),
            "labels": fields.labels() if fields.part("head", default=False) else (),
        }


class Embedding(PatchEmbedding):
    """Patches of an image of any size, behind the class token and registers, which have no positions.

    **Arguments:** (of the constructor)

    - `config`: a `Config`.
    - `key`: for the initial weights.
    """

    mask: jax.Array | None  # (d,), for hidden patches: pre-training alone reads it
    registers: jax.Array | None  # (registers, d)
    grid: tuple[int, int] = eqx.field(static=True)
    antialias: bool = eqx.field(static=True)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key, key_registers = jax.random.split(key)
        width, image, patch = config.hidden_size, config.image_size, config.patch_size
        super().__init__(width, channels=config.num_channels, image_size=image, patch_size=patch, key=key)
        self.mask = jnp.zeros(width) if config.use_mask_token else None
        shape = (config.num_register_tokens, width)
        self.registers = jax.random.normal(key_registers, shape) if config.num_register_tokens else None
        self.grid = (image[0] // patch[0], image[1] // patch[1])
        self.antialias = config.antialias

    def __call__(self, image: jax.Array) -> jax.Array:
        """Shape `(c, h, w)` to `(tokens, d)`, in the embedding's dtype: class token, registers, patches row by row."""
        assert self.cls is not None
        patches = self.patches(image.astype(self.position.dtype))
        width, rows, columns = patches.shape
        positions = self.position[1:]
        if (rows, columns) != self.grid:
            grid = positions.reshape(*self.grid, width)
            positions = bicubic(grid, (rows, columns), antialias=self.antialias).reshape(-1, width)
        patches = patches.reshape(width, -1).T + positions
        registers = [] if self.registers is None else [self.registers]
        return jnp.concatenate([(self.cls + self.position[0])[None], *registers, patches])


class FusedMLP(eqx.Module):
    """An MLP gated by `silu`; one product gives what gates and what is gated. Arguments as for `Embedding`."""

    up: Linear  # to both, one behind the other
    down: Linear

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width, keys = config.hidden_size, jax.random.split(key)
        inside = -(-int(int(width * config.mlp_ratio) * 2 / 3) // 8) * 8
        self.up, self.down = Linear(width, 2 * inside, key=keys[0]), Linear(inside, width, key=keys[1])

    def __call__(self, x: jax.Array) -> jax.Array:
        """One token, `(d,)` to `(d,)`."""
        y = self.up(x)
        gate, up = jnp.split(y.astype(accumulation_dtype(y.dtype)), 2)
        return self.down((jax.nn.silu(gate) * up).astype(x.dtype))


class Layer(eqx.Module):
    """Attention, then an MLP, each of the normed input, scaled, and added to it. Arguments as for `Embedding`."""

    attention: Attention
    norm1: eqx.nn.LayerNorm
    scale1: jax.Array  # (d,)
    mlp: MLP | FusedMLP
    norm2: eqx.nn.LayerNorm
    scale2: jax.Array  # (d,)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        width, key_attention, key_mlp = config.hidden_size, *jax.random.split(key)
        self.attention = Attention(width, config.num_attention_heads, qkv_bias=config.qkv_bias, key=key_attention)
        inside = int(width * config.mlp_ratio)
        self.mlp = (
            FusedMLP(config, key=key_mlp)
            if config.use_swiglu_ffn
            else MLP(width, inside, config.hidden_act, key=key_mlp)
        )
        self.norm1, self.norm2 = (eqx.nn.LayerNorm(width, config.layer_norm_eps) for _ in range(2))
        self.scale1, self.scale2 = jnp.ones(width), jnp.ones(width)

    def __call__(self, x: jax.Array, context: AttentionContext) -> jax.Array:
        """`(seq, d)` to `(seq, d)`."""
        x = x + self.scale1[None] * self.attention(jax.vmap(self.norm1)(x), context)
        return x + self.scale2[None] * jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))


class Classifier(Linear):
    """Of the class token's state and the mean of the patches' a score for each label. Arguments as for `Embedding`."""

    skipped: int = eqx.field(static=True)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        super().__init__(2 * config.hidden_size, len(config.labels), key=key)
        self.skipped = 1 + config.num_register_tokens

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Shape `(tokens, d)` to `(labels,)`."""
        return super().__call__(jnp.concatenate([x[0], x[self.skipped :].mean(0)]))


class Dinov2(ImageEncoder):
    """The encoder. See `bridge.models` for what can be called; images may be of any size from a patch up.

    **Arguments:** (of the constructor)

    - `config`: a `Config`, which the model carries.
    - `key`: for the initial weights.
    """

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key_embed, key_layers, key_head = jax.random.split(key, 3)
        layers = stack(lambda key: Layer(config, key=key), config.num_hidden_layers)(key_layers)
        norm = eqx.nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        head = Classifier(config, key=key_head) if config.labels else None
        super().__init__(config, Embedding(config, key=key_embed), layers, norm=norm, head=head)

    def embedded(self, image: jax.Array) -> jax.Array:
        """What enters the first layer, `(tokens, d)`, in the model's dtype."""
        check_image(image, type(self).__name__, (self.config.num_channels,), least=self.config.patch_size)
        return self.embed(image)

    def pooled(self, hidden: jax.Array) -> jax.Array:
        """The class token's state, `(d,)`, of hidden states `(tokens, d)`."""
        return hidden[0]


_ENCODER = (
    "embeddings.cls_token [1 1 d] -> embed.cls [d]",
    "embeddings.mask_token [1 d] -> embed.mask [d]",
    "embeddings.register_tokens [1 r d] -> embed.registers [r d]",
    "embeddings.position_embeddings [1 n d] -> embed.position [n d]",
    "embeddings.patch_embeddings.projection.** -> embed.patches.**",
    "encoder.layer.{l}.norm{1|2}.** -> layers.norm{1|2}.**",
    "encoder.layer.{l}.layer_scale{1|2}.lambda1 -> layers.scale{1|2}",
    "encoder.layer.{l}.attention.attention.{query|key|value}.** -> layers.attention.{query|key|value}.**",
    "encoder.layer.{l}.attention.output.dense.** -> layers.attention.out.**",
    "layernorm.** -> norm.**",
)
_MLP = ("encoder.layer.{l}.mlp.{fc1|fc2}.** -> layers.mlp.{up|down}.**",)
_FUSED = ("encoder.layer.{l}.mlp.weights_{in|out}.** -> layers.mlp.{up|down}.**",)
_RENAMED = (  # how transformers 5 names them in memory, and writes them if asked not to use the Hub's names
    "encoder.layer.{l}.attention.{q|k|v|o}_proj.** -> layers.attention.{query|key|value|out}.**",
    "encoder.layer.{l}.mlp.{gate|up}_proj.weight [_ m] -> layers.mlp.up.weight [(gate|up) m]",
    "encoder.layer.{l}.mlp.{gate|up}_proj.bias [_] -> layers.mlp.up.bias [(gate|up)]",
    "encoder.layer.{l}.mlp.down_proj.** -> layers.mlp.down.**",
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `Dinov2Model`, and for `Dinov2ForImageClassification`, which holds it as `dinov2.`.

    Saved by rules alone, a model with a head has the names of the latter.
    """
    encoder = [*_ENCODER, *(_FUSED if config.use_swiglu_ffn else _MLP)]
    held, renamed = ([f"{config.model_types[0]}.{rule}" for rule in each] for each in (encoder, _RENAMED))
    first, second = (held, encoder) if config.labels else (encoder, held)
    return [*first, "classifier.** -> head.**", *only_read([*second, *_RENAMED, *renamed])]


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Whether a checkpoint of these keys has a head: a keyword of `Config.from_dict`."""
    return {"head": "classifier.weight" in keys}
