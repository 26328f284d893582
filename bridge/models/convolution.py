"""What convolutional encoders of images share: norms over channels, stages of blocks, a head.

    class MyModel(ConvEncoder):
        def __init__(self, config, *, key):
            keys = jax.random.split(key, 3)
            stem = eqx.nn.Conv2d(3, 8, 4, 4, key=keys[0])
            stage = Stage(None, lambda key: MyBlock(8, key=key), 5, key=keys[1])
            super().__init__(config, stem, [stage], head=Linear(8, len(config.labels), key=keys[2]))

A call takes one image `(c, h, w)`. Hidden states have channels first too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models.embedding import check_image
from bridge.models.layers import ACTIVATIONS, Linear, Transform, accumulation_dtype, stack

__all__ = ["ConvEncoder", "FrozenBatchNorm", "Stage", "activated", "pixelwise"]

Block = Callable[[jax.Array], jax.Array]
"""A function from an image's states `(c, h, w)` to `(c', h', w')`."""


class FrozenBatchNorm(eqx.Module):
    """BatchNorm at inference: it normalises by the stored statistics and does not change them.

    The statistics are leaves, like the weights, so a model needs no `State`; their gradients are zero. To train them
    further, use `equinox.nn.BatchNorm`. The norm is computed in float32, or in float64 for a float64 model.

    **Arguments:** (of the constructor)

    - `channels`: the number of channels.
    - `eps`: added to the variance.
    """

    weight: jax.Array
    bias: jax.Array
    running_mean: jax.Array
    running_var: jax.Array
    eps: float = eqx.field(static=True)

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        self.weight, self.bias = jnp.ones(channels), jnp.zeros(channels)
        self.running_mean, self.running_var = jnp.zeros(channels), jnp.ones(channels)
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        """From states `(channels, h, w)` to the same shape."""
        dtype = accumulation_dtype(x.dtype)
        mean, variance = (jax.lax.stop_gradient(each).astype(dtype) for each in (self.running_mean, self.running_var))
        scale = self.weight.astype(dtype) * jax.lax.rsqrt(variance + self.eps)
        offset = self.bias.astype(dtype) - mean * scale
        return (x.astype(dtype) * scale[:, None, None] + offset[:, None, None]).astype(x.dtype)


def activated(name: str, x: jax.Array) -> jax.Array:
    """One of `ACTIVATIONS` on states of any shape, computed in float32 (or float64) and rounded once."""
    return ACTIVATIONS[name](x.astype(accumulation_dtype(x.dtype))).astype(x.dtype)


def pixelwise(call: Transform, x: jax.Array) -> jax.Array:
    """Apply a norm or an MLP to the channels `(c,)` of each pixel: `(c, h, w)` to `(c', h, w)`."""
    return jax.vmap(jax.vmap(call))(x.transpose(1, 2, 0)).transpose(2, 0, 1)


class Stage(eqx.Module):
    """A first block, then equal blocks, stacked, under `jax.lax.scan`.

    **Arguments:** (of the constructor)

    - `first`: the first block, which may change the shape; or `None`.
    - `block`: a function that makes one of the equal blocks from a PRNG key.
    - `count`: the number of equal blocks; may be 0.
    - `key`: a PRNG key for their initial weights.
    """

    first: Block | None
    rest: Any  # stacked: each array has an axis (count,) in front; or None

    def __init__(self, first: Block | None, block: Callable[[jax.Array], Block], count: int, *, key: jax.Array) -> None:
        self.first = first
        self.rest = stack(block, count)(key) if count else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """From states `(c, h, w)` to `(c', h', w')`."""
        x = x if self.first is None else self.first(x)
        return x if self.rest is None else jax.lax.scan(lambda x, block: (block(x), None), x, self.rest)[0]


class ConvEncoder(eqx.Module):
    """A convolutional encoder of images. A call takes one image of at least a given size; use `jax.vmap` for a batch.

    **Arguments:** (of the constructor)

    - `config`: the model's `.config`. It must have `num_channels`, the channels of an image, and `least_size`, the
      smallest height and width in pixels.
    - `stem`: a function from an image `(c, h, w)` to the input of the first stage.
    - `stages`: a list of `Stage`s.
    - `norm`: the norm of the mean over all pixels, or `None`.
    - `head`: a linear layer from the normed mean to scores, or `None`.
    """

    stem: Block
    stages: list[Stage]
    norm: Transform | None
    head: Linear | None
    config: Any = eqx.field(static=True)

    def __init__(
        self,
        config: Any,
        stem: Block,
        stages: list[Stage],
        *,
        norm: Transform | None = None,
        head: Linear | None = None,
    ) -> None:
        self.config, self.stem, self.stages, self.norm, self.head = config, stem, stages, norm, head

    def __call__(self, image: jax.Array) -> jax.Array:
        """The last stage's states, `(c', h', w')`.

        **Arguments:**

        - `image`: shape `(config.num_channels, h, w)`, float, scaled as the checkpoint's `preprocessor_config.json`
          says.
        """
        return self.hidden_states(image)[-1]

    def hidden_states(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """The input of the first stage and every stage's states, each `(c', h', w')`. Arguments as for a call."""
        check_image(image, type(self).__name__, (self.config.num_channels,), least=self.config.least_size)
        states = [self.stem(image.astype(jax.tree.leaves(self.stem)[0].dtype))]
        for stage in self.stages:
            states.append(stage(states[-1]))
        return tuple(states)

    def pooled(self, hidden: jax.Array) -> jax.Array:
        """The mean over all pixels of hidden states `(c', h', w')`, normed if there is a norm: shape `(c',)`."""
        mean = hidden.mean((1, 2))
        return mean if self.norm is None else self.norm(mean)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """A score for each label, `(labels,)`. **Raises:** `bridge.BridgeError` if there is no head."""
        if self.head is None:
            name = type(self).__name__
            raise bridge.BridgeError(f"this {name}", "has no head", "Make it with one: Config.from_dict(…, head=True)")
        return self.head(self.pooled(hidden))
