"""What encoders of text were made to say: a label of the whole text, one of each token, an answer, hidden words.

`architectures` in config.json names it, `BertForTokenClassification`, say, and `wanted` reads that; a model carries it
as `head`, and `model.logits(hidden)` asks it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models.config import Fields
from bridge.models.layers import ACTIVATIONS, Linear, Transform, accumulation_dtype

__all__ = [
    "HEADS",
    "HEAD_RULES",
    "Classifier",
    "FirstTokenClassifier",
    "MaskedLM",
    "TokenClassifier",
    "masked_lm_rules",
    "read_head",
    "text_head",
    "wanted",
]

HEADS: Mapping[str, str] = {
    "ForMaskedLM": "masked_lm",
    "ForPreTraining": "masked_lm",
    "ForQuestionAnswering": "question_answering",
    "ForSequenceClassification": "sequence_classification",
    "ForTokenClassification": "token_classification",
}
"""What the name of a class of transformers ends in, and which head that is."""


class Classifier(Linear):
    """Of the pooler's summary `(d,)` a score for each label: `(labels,)`. BERT's."""

    def __init__(self, hidden_size: int, labels: int, *, key: jax.Array) -> None:
        super().__init__(hidden_size, labels, key=key)


class FirstTokenClassifier(eqx.Module):
    """Of the first token's state a score for each label, by way of a layer as wide as the state. RoBERTa's.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width, d. `labels`: how many there are.
    - `activation`: between both layers.
    - `key`: for the initial weights.
    """

    dense: Linear
    out: Linear
    activation: Transform = eqx.field(static=True)

    def __init__(self, hidden_size: int, labels: int, activation: Transform, *, key: jax.Array) -> None:
        keys = jax.random.split(key)
        self.dense = Linear(hidden_size, hidden_size, key=keys[0])
        self.out = Linear(hidden_size, labels, key=keys[1])
        self.activation = activation

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Shape `(seq, d)` to `(labels,)`."""
        return self.out(self.activation(self.dense(hidden[0])))


class TokenClassifier(Linear):
    """Of each token's state a score for each label. With two labels, for questions: where an answer starts and ends."""

    def __init__(self, hidden_size: int, labels: int, *, key: jax.Array) -> None:
        super().__init__(hidden_size, labels, key=key)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Shape `(seq, d)` to `(seq, labels)`."""
        return jax.vmap(super().__call__)(x)


class MaskedLM(eqx.Module):
    """Of each token's state a score for each token of the vocabulary: the embedding's own rows, and a bias.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width of states. `embedding_size`: that of the embedding's rows.
    - `vocab_size`: how many rows it has.
    - `activation`: one of `ACTIVATIONS`.
    - `norm`: what a state goes through behind that.
    - `dense_bias`, `bias`: whether the layer has a bias, and whether scores have one.
    - `key`: for the initial weights.
    """

    dense: Linear
    norm: Transform
    bias: jax.Array | None  # (vocab,)
    activation: str = eqx.field(static=True)

    def __init__(
        self,
        hidden_size: int,
        embedding_size: int,
        vocab_size: int,
        activation: str,
        norm: Transform,
        *,
        dense_bias: bool = True,
        bias: bool = True,
        key: jax.Array,
    ) -> None:
        self.dense = Linear(hidden_size, embedding_size, use_bias=dense_bias, key=key)
        self.norm, self.activation = norm, activation
        self.bias = jnp.zeros(vocab_size) if bias else None

    def __call__(self, hidden: jax.Array, rows: jax.Array) -> jax.Array:
        """Shape `(seq, d)` to `(seq, vocab)`. `rows`: the embedding's, `(vocab, e)`."""
        x = jax.vmap(lambda x: self.norm(ACTIVATIONS[self.activation](self.dense(x))))(hidden)
        scores = jnp.einsum("se,ve->sv", x, rows, preferred_element_type=accumulation_dtype(x.dtype))
        scores = scores if self.bias is None else scores + self.bias.astype(scores.dtype)[None]
        return scores.astype(x.dtype)


HEAD_RULES: Mapping[str, Sequence[str]] = {
    "question_answering": ("qa_outputs.** -> head.**",),
    "sequence_classification": ("classifier.** -> head.**",),
    "token_classification": ("classifier.** -> head.**",),
}
"""Which key is which leaf, of heads that all architectures call so. `dense` and `out_proj` are RoBERTa's own."""


def masked_lm_rules(name: str, *, norm: str = "layer_norm") -> list[str]:
    """Which key is which leaf of a `MaskedLM` that is called `name` in the checkpoint, as RoBERTa has it."""
    return [
        f"{name}.dense.** -> head.dense.**",
        f"{name}.{norm}.** -> head.norm.**",
        f"{name}.bias -> head.bias",
        f"{name}.decoder.bias -> head.bias ; tie=true",
        f"{name}.decoder.weight -> embed.token.weight ; tie=true",
    ]


def text_head(
    config: Any,
    norm: Transform,
    *,
    activation: Transform | None = None,
    lm_activation: str | None = None,
    embedding_size: int | None = None,
    lm_bias: bool = True,
    key: jax.Array,
) -> Any:
    """The head that a config asks for, or `None`.

    **Arguments:**

    - `config`: of its fields are read `head`, `labels`, `hidden_size`, `vocab_size`, `hidden_act`.
    - `norm`: that of `MaskedLM`, as wide as the embedding's rows.
    - `activation`: that of a `FirstTokenClassifier`; `None` where texts are classified by the pooler's summary.
    - `lm_activation`: that of `MaskedLM`, where it is not `hidden_act`.
    - `embedding_size`: the width of the embedding's rows, where it is not that of states.
    - `lm_bias`: whether `MaskedLM` has biases.
    - `key`: for the initial weights.
    """
    width, labels = config.hidden_size, len(config.labels)
    if not config.head:
        return None
    if config.head == "masked_lm":
        narrow, act = embedding_size or width, lm_activation or config.hidden_act
        return MaskedLM(width, narrow, config.vocab_size, act, norm, dense_bias=lm_bias, bias=lm_bias, key=key)
    if config.head != "sequence_classification":
        return TokenClassifier(width, labels, key=key)
    return (
        Classifier(width, labels, key=key)
        if activation is None
        else FirstTokenClassifier(width, labels, activation, key=key)
    )


def read_head(fields: Fields) -> dict[str, Any]:
    """Which head there is, and its labels: `head` and `labels` of a config."""
    head = fields.head(set(HEADS.values()))
    if head == "masked_lm":
        fields.one_of("tie_word_embeddings", [True], default=True)
    if head == "question_answering":
        return {"head": head, "labels": ("start", "end")}
    return {"head": head, "labels": fields.labels() if head.endswith("classification") else ()}


def wanted(
    architectures: Any,
    keys: Collection[str],
    head_keys: Mapping[str, str | Sequence[str]],
    *,
    left_behind: Iterable[str] = (),
) -> str:
    """Which head a model is to have: `""`, or one of those that `HEADS` names.

    The head of pre-training is left out where none of its keys is there, as in files that sentence-transformers wrote.
    Where some are, the others are missed, as all of any other head are.

    **Arguments:**

    - `architectures`: what config.json says, a list of names of classes.
    - `keys`: of the checkpoint.
    - `head_keys`: for each head that the architecture has, a key of it, in each spelling if there are several.
    - `left_behind`: patterns of keys that the caller does without. One that matches the head's key leaves it behind.
    """
    names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    head = next((head for name in names for end, head in HEADS.items() if name.endswith(end)), "")
    named = head_keys.get(head, ())
    own = [named] if isinstance(named, str) else named
    roots = {key.partition(".")[0] for key in own}  # cls, lm_head
    if not own or (head == "masked_lm" and not any(key.partition(".")[0] in roots for key in keys)):
        return ""
    return "" if any(_matches(pattern, key) for pattern in left_behind for key in own) else head


def _matches(pattern: str, key: str) -> bool:
    """Whether a pattern of `allow_unexpected` matches a key."""
    return _segments_match(pattern.split("."), key.split("."))


def _segments_match(pattern: Sequence[str], key: Sequence[str]) -> bool:
    if not pattern or not key:
        return all(segment == "**" for segment in pattern) and not key
    if pattern[0] == "**":
        return _segments_match(pattern[1:], key) or _segments_match(pattern, key[1:])
    return fnmatchcase(key[0], pattern[0]) and _segments_match(pattern[1:], key[1:])
