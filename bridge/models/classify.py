"""Texts to labels: an encoder with a head that classifies, and its tokenizer.

classifier = TextClassifier.from_pretrained("distilbert/distilbert-base-uncased-finetuned-sst-2-english")
classifier("a good film")  # {"label": "POSITIVE", "score": 0.99…, "scores": {…}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bridge
from bridge.models import from_pretrained
from bridge.models._beside import OPENING, optional_json, tokenizer_of
from bridge.models.encoder import TextEncoder

__all__ = ["TextClassifier"]

_SHORTEST = 16  # tokens that the shortest text is padded to


class TextClassifier:
    """One text a call.

    **Arguments:**

    - `model`: an encoder of `bridge.models` with a head for sequence or token classification.
    - `tokenizer`: the bytes of its `tokenizer.json`.
    - `independent`: whether labels do not exclude each other: each has a probability of its own.

    **Raises:** `bridge.CheckpointError` for a model without such a head, and a tokenizer that is none.
    """

    def __init__(self, model: Any, tokenizer: bytes, *, independent: bool = False) -> None:
        head = getattr(model.config, "head", "")
        if not isinstance(model, TextEncoder) or not head.endswith("classification"):
            raise bridge.CheckpointError(
                f"this {type(model).__name__}",
                "has no head that classifies texts or tokens",
                (
                    "Name a checkpoint whose config.json has a class like BertForSequenceClassification in "
                    "'architectures'"
                ),
            )
        self.model, self.labels = model, model.config.labels
        self.of_tokens = head == "token_classification"
        self.independent = independent or len(self.labels) == 1
        self.tokenizer = tokenizer_of(tokenizer, name="tokenizer.json")
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(model.longest)

    @classmethod
    def from_pretrained(cls, source: Any, **options: Any) -> Self:
        """A classifier with the tokenizer.json beside it. **Arguments:** of `bridge.models.from_pretrained`."""
        with bridge.open(source, **{name: options[name] for name in OPENING if name in options}) as ckpt:
            config = optional_json(ckpt, "config.json")
            tokenizer = ckpt.beside("tokenizer.json")
        several = isinstance(config, Mapping) and config.get("problem_type") == "multi_label_classification"
        return cls(from_pretrained(source, **options), tokenizer, independent=several)

    def __call__(self, text: str) -> dict[str, Any]:
        """Of a text `label`, `score` and `scores`, which has all labels by name. Of tokens a list `tokens`, each with
        `start` and `end` in the text, `label`, `score`; special tokens are left out.
        """
        encoded = self.tokenizer.encode(text)
        seq = max(_SHORTEST, 1 << (len(encoded.ids) - 1).bit_length())
        seq = min(seq, self.model.config.max_tokens or seq)
        rows = (encoded.ids, encoded.attention_mask, encoded.type_ids)
        tokens, mask, types = (jnp.asarray(np.pad(np.asarray(row, np.int32), (0, seq - len(row)))) for row in rows)
        scores = np.asarray(_scores(self.model, tokens, mask, types, self.independent))
        if not self.of_tokens:
            best = int(scores.argmax())
            named = dict(zip(self.labels, map(float, scores), strict=True))
            return {"label": self.labels[best], "score": float(scores[best]), "scores": named}
        tokens = [
            {"start": start, "end": end, "label": self.labels[int(row.argmax())], "score": float(row.max())}
            for (start, end), row, special in zip(encoded.offsets, scores, encoded.special_tokens_mask, strict=False)
            if not special
        ]
        return {"tokens": tokens}


@eqx.filter_jit
def _scores(model: Any, tokens: jax.Array, mask: jax.Array, types: jax.Array, independent: bool) -> jax.Array:
    """Probabilities: `(labels,)`, or `(seq, labels)`."""
    logits = model.logits(model(tokens, mask, types), mask).astype(jnp.float32)
    return jax.nn.sigmoid(logits) if independent else jax.nn.softmax(logits, axis=-1)
