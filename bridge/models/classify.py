"""Labels for texts and images: an encoder with a classification head, and its tokenizer or image processor.

classifier = TextClassifier.from_pretrained("distilbert/distilbert-base-uncased-finetuned-sst-2-english")
classifier("a good film")  # {"label": "POSITIVE", "score": 0.99…, "scores": {…}}

classifier = ImageClassifier.from_pretrained("google/vit-base-patch16-224")
classifier("cat.jpg")  # {"label": "tabby, tabby cat", …}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import jax
import jax.numpy as jnp
import numpy as np

import bridge
from bridge.models import from_pretrained
from bridge.models._beside import OPENING, optional_json, tokenizer_of
from bridge.models._compiled import compiled
from bridge.models._pretrained import architecture
from bridge.models.encoder import TextEncoder
from bridge.models.images import ImageProcessor

if TYPE_CHECKING:
    import os

    from PIL.Image import Image

__all__ = ["ImageClassifier", "TextClassifier", "classifier"]

_SHORTEST = 16  # tokens that the shortest text is padded to


class TextClassifier:
    """Classifies texts or their tokens. A call takes one text.

    **Arguments:**

    - `model`: an encoder of `bridge.models` with a head for sequence or token classification.
    - `tokenizer`: the bytes of its `tokenizer.json`.
    - `independent`: whether a text may have several labels: each label then has a probability of its own (sigmoid
        instead of softmax).

    **Raises:** `bridge.CheckpointError` for a model without such a head, and for a file that is no tokenizer.
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
        """A classifier from a checkpoint with a tokenizer.json. Arguments as for `bridge.models.from_pretrained`."""
        with bridge.open(source, **{name: options[name] for name in OPENING if name in options}) as ckpt:
            config = optional_json(ckpt, "config.json")
            tokenizer = ckpt.beside("tokenizer.json")
        several = isinstance(config, Mapping) and config.get("problem_type") == "multi_label_classification"
        return cls(from_pretrained(source, **options), tokenizer, independent=several)

    def __call__(self, text: str) -> dict[str, Any]:
        """Classify a text.

        **Returns:** a dict. For text classification it has the best `label`, its `score`, and `scores`, a dict with the
        probability of every label. For token classification it has `tokens`, a list with `start` and `end` in the
        text, `label` and `score` for each token; special tokens are left out.
        """
        encoded = self.tokenizer.encode(text)
        seq = max(_SHORTEST, 1 << (len(encoded.ids) - 1).bit_length())
        seq = min(seq, self.model.config.max_tokens or seq)
        rows = (encoded.ids, encoded.attention_mask, encoded.type_ids)
        tokens, mask, types = (jnp.asarray(np.pad(np.asarray(row, np.int32), (0, seq - len(row)))) for row in rows)
        scores = np.asarray(_scores(self.model, tokens, mask, types, self.independent))
        if not self.of_tokens:
            return _named(self.labels, scores)
        tokens = [
            {"start": start, "end": end, "label": self.labels[int(row.argmax())], "score": float(row.max())}
            for (start, end), row, special in zip(encoded.offsets, scores, encoded.special_tokens_mask, strict=False)
            if not special
        ]
        return {"tokens": tokens}


class ImageClassifier:
    """Classifies images. A call takes one image.

    **Arguments:**

    - `model`: an image model of `bridge.models` with a classification head.
    - `processor`: the processor that prepares images for it.
    - `independent`: whether an image may have several labels: each label then has a probability of its own (sigmoid
        instead of softmax).

    **Raises:** `bridge.CheckpointError` for a model without such a head.
    """

    def __init__(self, model: Any, processor: ImageProcessor, *, independent: bool = False) -> None:
        _check_labels(type(model), model.config)
        self.model, self.processor, self.labels = model, processor, model.config.labels
        self.independent = independent or len(self.labels) == 1

    @classmethod
    def from_pretrained(cls, source: Any, **options: Any) -> Self:
        """A classifier from a checkpoint with its processor. Arguments as for `bridge.models.from_pretrained`."""
        ckpt = bridge.open(source, **{name: options[name] for name in OPENING if name in options})
        try:
            left = options.get("allow_unexpected", ())
            _, kind, config = architecture(
                ckpt, ignore=options.get("ignore", ()), left_behind=[left] if isinstance(left, str) else left
            )
            _check_labels(kind, config)  # before anything is read for nothing
            said, processor = optional_json(ckpt, "config.json"), ImageProcessor.from_pretrained(ckpt)
        finally:
            if ckpt is not source:
                ckpt.close()
        several = isinstance(said, Mapping) and said.get("problem_type") == "multi_label_classification"
        return cls(from_pretrained(source, **options), processor, independent=several)

    def __call__(self, image: Image | np.ndarray | str | os.PathLike[str]) -> dict[str, Any]:
        """Classify an image.

        **Returns:** a dict with the best `label`, its `score`, and `scores`, a dict with every label's probability.
        """
        pixels = jnp.asarray(self.processor(image))
        return _named(self.labels, np.asarray(_image_scores(self.model, pixels, self.independent)))


def classifier(source: Any, **options: Any) -> TextClassifier | ImageClassifier:
    """A `TextClassifier` or an `ImageClassifier`, as the checkpoint's config.json says. Arguments as for
    `bridge.models.from_pretrained`.
    """
    ckpt = bridge.open(source, **{name: options[name] for name in OPENING if name in options})
    try:
        _, kind, _ = architecture(ckpt, ignore=options.get("ignore", ()))
    finally:
        if ckpt is not source:
            ckpt.close()
    of_images = not issubclass(kind, TextEncoder) and not hasattr(kind, "prefill")
    return (ImageClassifier if of_images else TextClassifier).from_pretrained(source, **options)


def _check_labels(kind: type, config: Any) -> None:
    if issubclass(kind, TextEncoder) or not getattr(config, "labels", ()):
        raise bridge.CheckpointError(
            f"this {kind.__name__}",
            "has no head that classifies images",
            "Name a checkpoint whose config.json has a class like ViTForImageClassification in 'architectures'",
        )


def _named(labels: tuple[str, ...], scores: np.ndarray) -> dict[str, Any]:
    best = int(scores.argmax())
    named = dict(zip(labels, map(float, scores), strict=True))
    return {"label": labels[best], "score": float(scores[best]), "scores": named}


@compiled
def _image_scores(model: Any, pixels: jax.Array, independent: bool) -> jax.Array:
    """Probabilities, `(labels,)`."""
    return _probabilities(model.logits(model(pixels)), independent)


@compiled
def _scores(model: Any, tokens: jax.Array, mask: jax.Array, types: jax.Array, independent: bool) -> jax.Array:
    """Probabilities: `(labels,)`, or `(seq, labels)`."""
    return _probabilities(model.logits(model(tokens, mask, types), mask), independent)


def _probabilities(logits: jax.Array, independent: bool) -> jax.Array:
    logits = logits.astype(jnp.float32)
    return jax.nn.sigmoid(logits) if independent else jax.nn.softmax(logits, axis=-1)
