"""One vector for a text from its tokens' states, as in sentence-transformers: pooling, more layers, normalisation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp

import bridge
from bridge.models.config import Fields
from bridge.models.layers import Linear, accumulation_dtype

__all__ = ["POOLINGS", "Dense", "Pooling", "normalized"]


def _weights(mask: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return mask.astype(accumulation_dtype(dtype))


def _mean(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    weights = _weights(mask, hidden.dtype)
    return weights @ hidden.astype(weights.dtype) / jnp.maximum(weights.sum(), 1e-9)


def _mean_by_root(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    weights = _weights(mask, hidden.dtype)
    return weights @ hidden.astype(weights.dtype) / jnp.sqrt(jnp.maximum(weights.sum(), 1e-9))


def _later_more(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    weights = _weights(mask, hidden.dtype)
    weights = weights * jnp.arange(1, len(mask) + 1, dtype=weights.dtype)
    return weights @ hidden.astype(weights.dtype) / jnp.maximum(weights.sum(), 1e-9)


def _last(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    return hidden[jnp.max(jnp.where(mask, jnp.arange(len(mask)), 0))]


POOLINGS: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cls": lambda hidden, mask: hidden[0],
    "max": lambda hidden, mask: jnp.where(mask[:, None], hidden, -1e9).max(0).astype(hidden.dtype),
    "mean": _mean,
    "mean_sqrt_len": _mean_by_root,
    "weightedmean": _later_more,
    "lasttoken": _last,
}
"""Functions from hidden states `(seq, d)` and a bool mask `(seq,)` to a vector `(d,)`. A `Pooling` joins several in
this order."""

# How 1_Pooling/config.json calls them, where it has a flag for each.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


class Pooling(eqx.Module):
    """One or more of `POOLINGS`, concatenated.

    ```python
    pooling = Pooling(("mean",))
    vector = pooling(jnp.ones((7, 16)), jnp.ones(7, bool))  # (seq, d), (seq,) -> (d,)
    ```
    """

    modes: tuple[str, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, fields: Fields) -> Pooling:
        """The pooling of a `1_Pooling/config.json`. **Raises:** `bridge.CheckpointError` for an unknown field."""
        for field in ("word_embedding_dimension", "embedding_dimension"):
            if fields.has(field):
                fields.count(field)
        fields.one_of("include_prompt", [True], default=True)
        if fields.has("pooling_mode"):
            modes = [fields.one_of("pooling_mode", list(POOLINGS), default="mean")]
        else:
            modes = [mode for flag, mode in _FLAGS.items() if fields.flag(flag, default=False)]
        fields.done()
        if not modes:
            fields.refuse("pooling_mode_mean_tokens", False, "true, or another way of pooling")
        return cls(tuple(mode for mode in POOLINGS if mode in modes))

    def __call__(self, hidden: jax.Array, mask: jax.Array) -> jax.Array:
        """From states `(seq, d)` and a bool mask `(seq,)` to `(len(modes) * d,)`."""
        return jnp.concatenate([POOLINGS[mode](hidden, mask) for mode in self.modes])


_ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "torch.nn.modules.activation.Tanh": jnp.tanh,
    "torch.nn.modules.activation.ReLU": jax.nn.relu,
    "torch.nn.modules.activation.GELU": lambda x: jax.nn.gelu(x, approximate=False),
    "torch.nn.modules.linear.Identity": lambda x: x,
}


class Dense(eqx.Module):
    """A layer after the pooling, in the folder `2_Dense`: a linear layer and an activation.

    **Arguments:** (of the constructor)

    - `fields`: the fields of its config.json.
    - `key`: a PRNG key for the initial weights.
    """

    linear: Linear
    activation: str = eqx.field(static=True)

    def __init__(self, fields: Fields, *, key: jax.Array) -> None:
        sizes = fields.count("in_features"), fields.count("out_features")
        self.linear = Linear(*sizes, use_bias=fields.flag("bias", default=True), key=key)
        name = "activation_function"
        self.activation = fields.one_of(name, list(_ACTIVATIONS), default="torch.nn.modules.activation.Tanh")
        fields.done()

    def __call__(self, x: jax.Array) -> jax.Array:
        """From `(in_features,)` to `(out_features,)`."""
        return _ACTIVATIONS[self.activation](self.linear(x))


def normalized(vector: jax.Array) -> jax.Array:
    """A vector `(d,)` scaled to length one; it is divided by at least 1e-12, as in PyTorch."""
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)


def modules_of(data: object, *, name: str) -> Sequence[tuple[str, str]]:
    """The modules of a modules.json: for each the last word of its type, and its folder.

    **Raises:** `bridge.CheckpointError` if the file is no list, or has an unknown module.
    """
    found: list[tuple[str, str]] = []
    for each in data if isinstance(data, list) else [None]:
        kind, path = (each.get("type"), each.get("path")) if isinstance(each, Mapping) else (None, None)
        last = kind.rpartition(".")[2] if isinstance(kind, str) else ""
        if not isinstance(path, str) or last not in ("Transformer", "Pooling", "Dense", "Normalize"):
            raise bridge.CheckpointError(
                f"'{name}'",
                f"lists {last or 'something'!r}, but only Transformer, Pooling, Dense and Normalize are known",
                "Load the encoder alone: bridge.models.from_pretrained",
            )
        found.append((last, path))
    return found
