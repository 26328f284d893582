"""Sentence embeddings: a BERT, the mean over its tokens, vectors of length one (https://arxiv.org/abs/1908.10084)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bridge
from bridge.models.bert import Bert

_TEXTS = 32  # in a batch
_SHORTEST = 16  # tokens that the shortest batch is padded to


class SentenceEncoder:
    """Texts to unit vectors, by the recipe on the model card of all-MiniLM-L6-v2.

    **Arguments:**

    - `bert`: the encoder. It needs no pooler.
    - `tokenizer`: the path of a `tokenizer.json`, read by the `tokenizers` library.
    - `max_tokens`: what is longer is cut. 256 is what that model was made for.

    **Raises:** `bridge.BridgeError` where the library is not installed; `bridge.CheckpointError` where the file is not
    there, or is none of its own.

    ```python
    encoder = SentenceEncoder(model, "all-MiniLM-L6-v2/tokenizer.json")
    cat, kitten = encoder(["a cat", "a kitten"])
    similarity = cat @ kitten
    ```
    """

    def __init__(self, bert: Bert, tokenizer: str | os.PathLike[str], *, max_tokens: int = 256) -> None:
        self.bert = bert
        self.tokenizer = _tokenizer(os.fspath(tokenizer))
        # The file may ask for the lengths of another use: the one of all-MiniLM-L6-v2 pads to 128 and cuts there.
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(min(max_tokens, bert.config.max_tokens))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts. **Returns:** f32, shape `(len(texts), d)`; rows have length one."""
        if isinstance(texts, str):
            raise bridge.BridgeError(
                "SentenceEncoder", "takes a list of texts, and got one text", "Write encoder([text])[0]"
            )
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        vectors = np.empty((len(ids), self.bert.config.hidden_size), np.float32)
        by_length = sorted(range(len(ids)), key=lambda n: len(ids[n]))  # neighbours need little padding
        for start in range(0, len(ids), _TEXTS):
            batch = by_length[start : start + _TEXTS]
            tokens, mask = self._padded([ids[n] for n in batch])
            vectors[batch] = np.asarray(_embed(self.bert, jnp.asarray(tokens), jnp.asarray(mask)), np.float32)[
                : len(batch)
            ]
        return vectors

    def _padded(self, ids: Sequence[Sequence[int]]) -> tuple[jax.Array, jax.Array]:
        """Tokens and their mask, shape `(texts, seq)`, both powers of two: each new shape would be compiled anew."""
        seq = max(_SHORTEST, _power_of_two(max(map(len, ids))))
        shape = (_power_of_two(len(ids)), min(seq, self.bert.config.max_tokens))
        tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
        for row, each in enumerate(ids):
            tokens[row, : len(each)], mask[row, : len(each)] = each, True
        return jnp.asarray(tokens), jnp.asarray(mask)


@eqx.filter_jit
def _embed(bert: Bert, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Shapes `(texts, seq)` to `(texts, d)`."""
    return jax.vmap(lambda ids, shown: _pooled(bert(ids, shown), shown))(tokens, mask)


def _pooled(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of `(seq, d)` where the mask is true, at length one. The floors are the recipe's own."""
    weights = mask.astype(hidden.dtype)
    mean = weights @ hidden / jnp.maximum(weights.sum(), 1e-9)
    return mean / jnp.maximum(jnp.linalg.norm(mean), 1e-12)


def _power_of_two(n: int) -> int:
    """The least that is not below `n`."""
    return 1 << max(0, n - 1).bit_length()


def _tokenizer(path: str) -> Any:
    try:
        from tokenizers import Tokenizer  # an extra: other models do without
    except ImportError as e:
        raise bridge.BridgeError(
            "tokenizing", "needs the 'tokenizers' library", "Install it: pip install 'eqx-bridge[demo]'"
        ) from e
    if not os.path.isfile(path):
        raise bridge.CheckpointError(f"'{path}'", "is not there", "Name the tokenizer.json of the checkpoint")
    try:
        return Tokenizer.from_file(path)
    except Exception as e:  # the library raises no other
        raise bridge.CheckpointError(f"'{path}'", f"is no tokenizer that can be read: {e}", "Fetch it again") from e
