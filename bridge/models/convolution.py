"""What convolutional encoders of images share: norms over channels, stages of blocks, the way through them, a head.

    class MyModel(ConvEncoder):
        def __init__(self, config, *, key):
            keys = jax.random.split(key, 3)
            stem = eqx.nn.Conv2d(3, 8, 4, 4, key=keys[0])
            stage = Stage(None, lambda key: MyBlock(8, key=key), 5, key=keys[1])
            super().__init__(config, stem, [stage], head=Linear(8, len(config.labels), key=keys[2]))

One image a call, `(c, h, w)`, and so are hidden states: channels come first.
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
"""Of an image's states, `(c, h, w)` to `(c', h', w')`."""


class FrozenBatchNorm(eqx.Module):
    """BatchNorm at inference: by the statistics that training left, which stay as they are.

    They are leaves as weights are, so that a model is one object without a `State`; their gradients are zero. To go on
    training them, use `equinox.nn.BatchNorm`. Statistics and weights meet in float32 at least.

    **Arguments:** (of the constructor)

    - `channels`: how many there are.
    - `eps`: what is added to the variance.
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
        """Shape `(channels, h, w)` to the same."""
        dtype = accumulation_dtype(x.dtype)
        mean, variance = (jax.lax.stop_gradient(each).astype(dtype) for each in (self.running_mean, self.running_var))
        scale = self.weight.astype(dtype) * jax.lax.rsqrt(variance + self.eps)
        offset = self.bias.astype(dtype) - mean * scale
        return (x.astype(dtype) * scale[:, None, None] + offset[:, None, None]).astype(x.dtype)


def activated(name: str, x: jax.Array) -> jax.Array:
    """One of `ACTIVATIONS` of states of any shape, computed in float32 at least and rounded once."""
    return ACTIVATIONS[name](x.astype(accumulation_dtype(x.dtype))).astype(x.dtype)


def pixelwise(call: Transform, x: jax.Array) -> jax.Array:
    """What a norm or an MLP of `(c,)` makes of each pixel's channels: `(c, h, w)` to `(c', h, w)`."""
    return jax.vmap(jax.vmap(call))(x.transpose(1, 2, 0)).transpose(2, 0, 1)


class Stage(eqx.Module):
    """What leads into a stage, then blocks that are alike, stacked, under `jax.lax.scan`.

    **Arguments:** (of the constructor)

    - `first`: what leads into it, where anything does.
    - `block`: makes one of the others of a key.
    - `count`: how many of these there are; none is none.
    - `key`: for their initial weights.
    """

    first: Block | None
    rest: Any  # stacked: each array has an axis (count,) in front; or None

    def __init__(self, first: Block | None, block: Callable[[jax.Array], Block], count: int, *, key: jax.Array) -> None:
        self.first = first
        self.rest = stack(block, count)(key) if count else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Shape `(c, h, w)` to `(c', h', w')`."""
        x = x if self.first is None else self.first(x)
        return x if self.rest is None else jax.lax.scan(lambda x, block: (block(x), None), x, self.rest)[0]


class ConvEncoder(eqx.Module):
    """An encoder of images by convolutions: one image a call, of any size that is large enough, a batch by `jax.vmap`.

    **Arguments:** (of the constructor)

    - `config`: what the model carries as `.config`. Read are `num_channels`, the image's, and `least_size`, the least
      height and width in pixels.
    - `stem`: of an image, `(c, h, w)`, what enters the first stage.
    - `stages`: each a `Stage`.
    - `norm`: what the mean over all pixels goes through, if anything.
    - `head`: of that, what the model was made to say, if it was.
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
        """What enters the first stage and every stage's states, each `(c', h', w')`. Arguments as for a call."""
        check_image(image, type(self).__name__, (self.config.num_channels,), least=self.config.least_size)
        states = [self.stem(image.astype(jax.tree.leaves(self.stem)[0].dtype))]
        for stage in self.stages:
            states.append(stage(states[-1]))
        return tuple(states)

    def pooled(self, hidden: jax.Array) -> jax.Array:
        """The summary `(c',)` of hidden states `(c', h', w')`: the mean of all pixels, normed where there is a norm."""
        mean = hidden.mean((1, 2))
        return mean if self.norm is None else self.norm(mean)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """A score for each label, `(labels,)`. **Raises:** `bridge.BridgeError` where there is no head."""
        if self.head is None:
            name = type(self).__name__
            raise bridge.BridgeError(f"this {name}", "has no head", "Make it with one: Config.from_dict(…, head=True)")
        return self.head(self.pooled(hidden))
