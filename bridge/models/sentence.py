"""Sentence embeddings: an encoder of text, a pooling of its tokens' states, and normalised vectors.

    encoder = SentenceEncoder.from_pretrained("sentence-transformers/all-mpnet-base-v2")
    cat, kitten = encoder(["a cat", "a kitten"])

Source: https://arxiv.org/abs/1908.10084.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bridge
from bridge.models import from_pretrained
from bridge.models._beside import OPENING, optional_json, tokenizer_of
from bridge.models._compiled import compiled
from bridge.models.config import Fields
from bridge.models.encoder import TextEncoder
from bridge.models.pooling import Dense, Pooling, modules_of, normalized

_TEXTS = 32  # in a batch
_SHORTEST = 16  # tokens that the shortest batch is padded to
_MEAN = Pooling(("mean",))


class _Recipe(eqx.Module):
    """What makes a vector of tokens: the encoder, pooling, layers behind it, perhaps length one."""

    model: Any
    pooling: Pooling
    dense: tuple[Dense, ...]
    normalize: bool = eqx.field(static=True)

    def __call__(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        x = self.pooling(self.model(tokens, mask), mask)
        for layer in self.dense:
            x = layer(x)
        return normalized(x) if self.normalize else x


class SentenceEncoder:
    """Makes vectors of texts. The defaults are those of all-MiniLM-L6-v2: the mean of the states, scaled to length one.

    **Arguments:**

    - `model`: an encoder of `bridge.models`. It needs no pooler.
    - `tokenizer`: the path of a `tokenizer.json`, or its bytes; the `tokenizers` library reads it.
    - `max_tokens`: longer texts are cut to this number of tokens. all-MiniLM-L6-v2 was made for 256.
    - `pooling`: how the states of a text become one vector. `dense`: layers after the pooling. `normalize`: whether to
        scale vectors to length one.

    **Raises:** `bridge.BridgeError` if `tokenizers` is not installed; `bridge.CheckpointError` if the file does not
    exist or is no tokenizer.

    ```python
    encoder = SentenceEncoder(model, "all-MiniLM-L6-v2/tokenizer.json")
    cat, kitten = encoder(["a cat", "a kitten"])
    similarity = cat @ kitten
    ```
    """

    def __init__(
        self,
        model: Any,
        tokenizer: str | os.PathLike[str] | bytes,
        *,
        max_tokens: int = 256,
        pooling: Pooling = _MEAN,
        dense: Sequence[Dense] = (),
        normalize: bool = True,
    ) -> None:
        self.model = model
        self.recipe = _Recipe(model, pooling, tuple(dense), normalize)
        self.tokenizer = _tokenizer(tokenizer)
        most = getattr(model.config, "max_tokens", None)
        self.max_tokens = max_tokens if most is None else min(max_tokens, most)
        # The file may ask for the lengths of another use: the one of all-MiniLM-L6-v2 pads to 128 and cuts there.
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.max_tokens)

    @classmethod
    def from_pretrained(cls, source: Any, **options: Any) -> Self:
        """A model of sentence-transformers, as its `modules.json`, `1_Pooling/config.json` and
        `sentence_bert_config.json` say. Without these files: the mean of the states, scaled to length one.

        **Arguments:**

        - `source`: a folder, a Hub repo id, or anything else that `bridge.open` takes, with a tokenizer.json beside it.
        - `options`: keywords of `bridge.models.from_pretrained`.

        **Raises:** the errors of `bridge.models.from_pretrained`; `bridge.CheckpointError` for an unknown module.
        """
        opening = {name: options[name] for name in OPENING if name in options}
        with bridge.open(source, **opening) as ckpt:
            listed = optional_json(ckpt, "modules.json")
            name = f"{ckpt.source.rstrip('/')}/modules.json"
            modules = [("Transformer", ""), ("Pooling", None), ("Normalize", "")]
            modules = modules if listed is None else modules_of(listed, name=name)
            pooling, dense = _MEAN, list[Dense]()
            for kind, path in modules:
                if kind == "Pooling" and path is not None:
                    pooling = Pooling.of(_fields(ckpt, f"{path}/config.json"))
                if kind == "Dense":
                    dense.append(_dense(source, path or "", _fields(ckpt, f"{path}/config.json"), opening))
            said = optional_json(ckpt, "sentence_bert_config.json") or {}
            most = said.get("max_seq_length") if isinstance(said, dict) else None
            tokenizer = ckpt.beside("tokenizer.json")
        model = from_pretrained(source, **options)
        if not isinstance(model, TextEncoder):
            raise bridge.CheckpointError(
                f"'{name.removesuffix('/modules.json')}'",
                f"is a {type(model).__name__}, which is not an encoder of text",
                "Name one, such as sentence-transformers/all-MiniLM-L6-v2",
            )
        longest = most if isinstance(most, int) and most > 0 else model.longest
        normalize = any(kind == "Normalize" for kind, _ in modules)
        return cls(model, tokenizer, max_tokens=longest, pooling=pooling, dense=dense, normalize=normalize)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed a list of texts. **Returns:** float32, shape `(len(texts), d)`; rows have length one if `normalize`."""
        if isinstance(texts, str):
            raise bridge.BridgeError(
                "SentenceEncoder", "takes a list of texts, but got one text", "Write encoder([text])[0]"
            )
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        rows: list[np.ndarray] = [np.empty(0, np.float32)] * len(ids)
        by_length = sorted(range(len(ids)), key=lambda n: len(ids[n]))  # neighbours need little padding
        for start in range(0, len(ids), _TEXTS):
            batch = by_length[start : start + _TEXTS]
            made = np.asarray(_embed(self.recipe, *self._padded([ids[n] for n in batch])), np.float32)
            for number, vector in zip(batch, made, strict=False):
                rows[number] = vector
        return np.stack(rows) if rows else np.empty((0, self.model.config.hidden_size), np.float32)

    def _padded(self, ids: Sequence[Sequence[int]]) -> tuple[jax.Array, jax.Array]:
        """Tokens and their mask, shape `(texts, seq)`, both powers of two: each new shape would be compiled anew."""
        seq = max(_SHORTEST, _power_of_two(max(map(len, ids))))
        shape = (_power_of_two(len(ids)), min(seq, self.max_tokens))
        tokens, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
        for row, each in enumerate(ids):
            tokens[row, : len(each)], mask[row, : len(each)] = each, True
        return jnp.asarray(tokens), jnp.asarray(mask)


@compiled
def _embed(recipe: _Recipe, tokens: jax.Array, mask: jax.Array) -> jax.Array:
    """Shapes `(texts, seq)` to `(texts, d)`."""
    return jax.vmap(recipe)(tokens, mask)


def _power_of_two(n: int) -> int:
    """The least that is not below `n`."""
    return 1 << max(0, n - 1).bit_length()


def _fields(ckpt: bridge.Checkpoint, path: str) -> Fields:
    name = f"{ckpt.source.rstrip('/')}/{path}"
    return Fields(optional_json(ckpt, path) or {}, name=name)


def _dense(source: Any, path: str, fields: Fields, opening: dict[str, Any]) -> Dense:
    """A layer with its weights, which lie in a folder of their own."""
    like = eqx.filter_eval_shape(Dense, fields, key=jax.random.key(0))
    folder = f"{opening['subfolder']}/{path}" if opening.get("subfolder") else path
    return bridge.load(source, like, **{**opening, "subfolder": folder})


def _tokenizer(tokenizer: str | os.PathLike[str] | bytes) -> Any:
    if isinstance(tokenizer, bytes):
        return tokenizer_of(tokenizer, name="tokenizer.json")
    path = os.fspath(tokenizer)
    if not os.path.isfile(path):
        raise bridge.CheckpointError(f"'{path}'", "does not exist", "Name the tokenizer.json of the checkpoint")
    return tokenizer_of(Path(path).read_bytes(), name=path)
