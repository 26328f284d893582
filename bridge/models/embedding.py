"""The inputs of an encoder's first layer: embeddings of text, patches of an image."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models.layers import Linear, Transform

__all__ = ["PatchEmbedding", "TextEmbedding", "check_image"]


class TextEmbedding(eqx.Module):
    """The sum of embeddings of tokens, positions and token types, normed.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width d of the embeddings.
    - `tokens`, `positions`, `types`: the number of rows of each embedding; 0 for no embedding.
    - `norm`: the norm of the sum, or `None`.
    - `out_size`: the width of the output, if a linear layer follows; `None` for d and no layer.
    - `key`: a PRNG key for the initial weights.

    ```python
    embed = TextEmbedding(8, tokens=100, positions=16, norm=eqx.nn.LayerNorm(8), key=jax.random.key(0))
    x = embed(jnp.array([5, 7]), jnp.arange(2))  # ids and positions (seq,) -> (seq, d)
    ```
    """

    token: eqx.nn.Embedding
    position: eqx.nn.Embedding | None
    type: eqx.nn.Embedding | None
    norm: Transform | None
    project: Linear | None

    def __init__(
        self,
        hidden_size: int,
        *,
        tokens: int,
        positions: int = 0,
        types: int = 0,
        norm: Transform | None = None,
        out_size: int | None = None,
        key: jax.Array,
    ) -> None:
        key, key_project = jax.random.split(key)
        keys = jax.random.split(key, 3)
        self.token = eqx.nn.Embedding(tokens, hidden_size, key=keys[0])
        self.position, self.type = (
            eqx.nn.Embedding(rows, hidden_size, key=k) if rows else None
            for rows, k in zip((positions, types), keys[1:], strict=True)
        )
        self.norm = norm
        self.project = None if out_size is None else Linear(hidden_size, out_size, key=key_project)

    def __call__(
        self, tokens: jax.Array, positions: jax.Array | None = None, types: jax.Array | None = None
    ) -> jax.Array:
        """From arguments `(seq,)` to `(seq, d)`. An argument without an embedding is ignored."""
        x = jax.vmap(self.token)(tokens)
        for embedding, rows in ((self.type, types), (self.position, positions)):
            if embedding is not None and rows is not None:
                x = x + jax.vmap(embedding)(rows)
        x = x if self.norm is None else jax.vmap(self.norm)(x)
        return x if self.project is None else jax.vmap(self.project)(x)


class PatchEmbedding(eqx.Module):
    """The patches of an image as tokens, after a class token if there is one, plus embeddings of their positions.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width d of a token.
    - `channels`: the channels of the image. `image_size`, `patch_size`: height and width in pixels.
    - `class_token`: whether there is a class token.
    - `bias`: whether the projection of patches has a bias.
    - `norm`: the norm of the sum, or `None`.
    - `key`: a PRNG key for the initial weights.

    ```python
    embed = PatchEmbedding(8, channels=3, image_size=(32, 32), patch_size=(16, 16), key=jax.random.key(0))
    x = embed(jnp.ones((3, 32, 32)))  # (c, h, w) -> (5, d): the class token and four patches
    ```
    """

    cls: jax.Array | None  # (d,)
    patches: eqx.nn.Conv2d
    position: jax.Array  # (tokens, d)
    norm: Transform | None

    def __init__(
        self,
        hidden_size: int,
        *,
        channels: int,
        image_size: tuple[int, int],
        patch_size: tuple[int, int],
        class_token: bool = True,
        bias: bool = True,
        norm: Transform | None = None,
        key: jax.Array,
    ) -> None:
        key_cls, key_patches, key_position = jax.random.split(key, 3)
        tokens = class_token + (image_size[0] // patch_size[0]) * (image_size[1] // patch_size[1])
        self.cls = jax.random.normal(key_cls, (hidden_size,)) if class_token else None
        self.patches = eqx.nn.Conv2d(channels, hidden_size, patch_size, patch_size, use_bias=bias, key=key_patches)
        self.position = jax.random.normal(key_position, (tokens, hidden_size))
        self.norm = norm

    def __call__(self, image: jax.Array) -> jax.Array:
        """From an image `(c, h, w)` to `(tokens, d)` in the embedding's dtype: patches row by row."""
        patches = self.patches(image.astype(self.position.dtype))
        patches = patches.reshape(patches.shape[0], -1).T
        tokens = patches if self.cls is None else jnp.concatenate([self.cls[None], patches])
        x = tokens + self.position
        return x if self.norm is None else jax.vmap(self.norm)(x)


def check_image(image: jax.Array, name: str, shape: tuple[int, ...], *, least: tuple[int, int] | None = None) -> None:
    """Check that an image has the shape and the dtype that a model takes.

    **Arguments:**

    - `image`: the argument of the model's call.
    - `name`: the name of the model's class.
    - `shape`: channels, height and width; or channels alone, if any size from `least` up is allowed.
    - `least`: the smallest height and width.

    **Raises:** `bridge.BridgeError` that says what the model takes.
    """
    fits = image.ndim == 3 and image.shape[: len(shape)] == shape
    wanted = f"{shape} of floats"
    if least is not None:
        fits = fits and all(side >= low for side, low in zip(image.shape[1:], least, strict=True))
        wanted = f"({shape[0]}, h, w) of floats, h from {least[0]} and w from {least[1]} up"
    if not fits or not jnp.issubdtype(image.dtype, jnp.floating):
        raise bridge.BridgeError(
            f"an image of shape {image.shape} and dtype {image.dtype}",
            f"does not fit {name}, which takes {wanted}",
            "Prepare it as the checkpoint's preprocessor_config.json says, and use jax.vmap for a batch",
        )
