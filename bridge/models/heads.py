"""Heads of text encoders: a label of the text, a label of each token, an answer to a question, or masked words.

`architectures` in config.json names the head, for example `BertForTokenClassification`; `wanted` reads this field. The
model has it as `head`, and `model.logits(hidden)` calls it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from bridge.models._patterns import matches
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
"""The head for each ending of a transformers class's name."""


class Classifier(Linear):
    """A score for each label from the pooler's vector, `(d,)` to `(labels,)`, as in BERT."""

    def __init__(self, hidden_size: int, labels: int, *, key: jax.Array) -> None:
        super().__init__(hidden_size, labels, key=key)


class FirstTokenClassifier(eqx.Module):
    """A score for each label from the first token's state, with two linear layers, as in RoBERTa.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width d of a state and of the first layer's output. `labels`: the number of labels.
    - `activation`: the function between the two layers.
    - `key`: a PRNG key for the initial weights.
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
        """From states `(seq, d)` to `(labels,)`."""
        return self.out(self.activation(self.dense(hidden[0])))


class TokenClassifier(Linear):
    """A score for each label from each token's state. For questions the labels are an answer's start and end."""

    def __init__(self, hidden_size: int, labels: int, *, key: jax.Array) -> None:
        super().__init__(hidden_size, labels, key=key)

    def __call__(self, x: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """From states `(seq, d)` to `(seq, labels)`."""
        return jax.vmap(super().__call__)(x)


class MaskedLM(eqx.Module):
    """A score for each token of the vocabulary from each token's state: a product with the embedding's rows.

    **Arguments:** (of the constructor)

    - `hidden_size`: the width of states. `embedding_size`: the width of the embedding's rows.
    - `vocab_size`: the number of these rows.
    - `activation`: one of `ACTIVATIONS`, after the linear layer.
    - `norm`: the norm after the activation.
    - `dense_bias`, `bias`: whether the linear layer has a bias, and whether the scores have one.
    - `key`: a PRNG key for the initial weights.
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
        """From states `(seq, d)` to `(seq, vocab)`. `rows`: the rows of the embedding, shape `(vocab, e)`."""
        x = jax.vmap(lambda x: self.norm(ACTIVATIONS[self.activation](self.dense(x))))(hidden)
        scores = jnp.einsum("se,ve->sv", x, rows, preferred_element_type=accumulation_dtype(x.dtype))
        scores = scores if self.bias is None else scores + self.bias.astype(scores.dtype)[None]
        return scores.astype(x.dtype)


HEAD_RULES: Mapping[str, Sequence[str]] = {
    "question_answering": ("qa_outputs.** -> head.**",),
    "sequence_classification": ("classifier.** -> head.**",),
    "token_classification": ("classifier.** -> head.**",),
}
"""The rules of heads whose keys are the same in all architectures. `dense` and `out_proj` are RoBERTa's own."""


def masked_lm_rules(name: str, *, norm: str = "layer_norm") -> list[str]:
    """The rules of a `MaskedLM` whose keys begin with `name`, with RoBERTa's names."""
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
    """Make the head that a config asks for, or `None`.

    **Arguments:**

    - `config`: an object with `head`, `labels`, `hidden_size`, `vocab_size` and `hidden_act`.
    - `norm`: the norm of a `MaskedLM`, as wide as the embedding's rows.
    - `activation`: the activation of a `FirstTokenClassifier`; with `None`, texts get a `Classifier`.
    - `lm_activation`: the activation of a `MaskedLM`, by default `hidden_act`.
    - `embedding_size`: the width of the embedding's rows, by default that of states.
    - `lm_bias`: whether a `MaskedLM` has biases.
    - `key`: a PRNG key for the initial weights.
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
    """Read the fields `head` and `labels` of a config: which head there is, and its labels."""
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
    """Which head a model gets: one of the values of `HEADS`, or `""` for none.

    The head of pre-training is left out if the checkpoint has none of its keys, as in files of sentence-transformers.
    If it has some of them, the others are missing keys. For any other head, all its keys are required.

    **Arguments:**

    - `architectures`: the field of config.json, a list of names of classes.
    - `keys`: the keys of the checkpoint.
    - `head_keys`: for each head of the architecture, one of its keys; a list if that key has several names.
    - `left_behind`: patterns of keys that the caller does not need. If one matches the head's key, there is no head.
    """
    names = [name for name in architectures if isinstance(name, str)] if isinstance(architectures, list) else []
    head = next((head for name in names for end, head in HEADS.items() if name.endswith(end)), "")
    named = head_keys.get(head, ())
    own = [named] if isinstance(named, str) else named
    roots = {key.partition(".")[0] for key in own}  # cls, lm_head
    if not own or (head == "masked_lm" and not any(key.partition(".")[0] in roots for key in keys)):
        return ""
    return "" if any(matches(pattern, key) for pattern in left_behind for key in own) else head
