"""MPNet: a BERT whose layers also look at how far tokens are apart (https://arxiv.org/abs/2004.09297).

    model = bridge.models.from_pretrained("sentence-transformers/all-mpnet-base-v2")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap

All layers share one table of distances. Positions skip padding, as RoBERTa's do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bridge.models import bert, roberta
from bridge.models.attention import AttentionContext
from bridge.models.bert import parts_of as parts_of
from bridge.models.config import Fields
from bridge.models.heads import HEAD_RULES, masked_lm_rules
from bridge.models.spellings import only_read

_BUCKETS, _FARTHEST = 32, 128


@dataclass(frozen=True)
class Config(roberta.Config):
    """The fields of `roberta.Config`. There are no token types."""

    model_types = ("mpnet",)
    unused: ClassVar[Collection[str]] = frozenset({"attention_probs_dropout_prob", "hidden_dropout_prob"})

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        fields.one_of("relative_attention_num_buckets", [_BUCKETS], default=_BUCKETS)
        fields.one_of("pad_token_id", [1], default=1)  # transformers takes no other, whatever the file says
        return super().read(fields) | {"type_vocab_size": 0, "pad_token_id": 1}


class MPNet(bert.Bert):
    """The encoder: `bert.Bert`, and a table of distances.

    **Arguments:** (of the constructor) as of `bert.Bert`.
    """

    distance: eqx.nn.Embedding  # (buckets, heads)

    def __init__(self, config: Config, *, key: jax.Array) -> None:
        key, key_distance = jax.random.split(key)
        super().__init__(config, key=key)
        self.distance = eqx.nn.Embedding(_BUCKETS, config.num_attention_heads, key=key_distance)

    def context(self, tokens: jax.Array, mask: jax.Array) -> AttentionContext:
        """The mask, and what is added to the scores of each pair of tokens."""
        by_pair = self.distance.weight[buckets(tokens.shape[0])]  # (seq, seq, heads)
        return AttentionContext(mask, bias=jnp.moveaxis(by_pair, -1, 0))


def buckets(seq: int) -> np.ndarray:
    """The row of the table for each pair of tokens, shape `(seq, seq)`: of queries, of keys.

    Half of the rows are for keys behind the query. Near distances have a row each, farther ones share rows by their
    logarithm, in float32 as PyTorch computes it (https://arxiv.org/abs/1910.10683).
    """
    distance = np.arange(seq)[None, :] - np.arange(seq)[:, None]
    half, exact = _BUCKETS // 2, _BUCKETS // 4
    far = np.maximum(np.abs(distance), 1).astype(np.float32) / np.float32(exact)
    logarithm = np.log(far) / np.float32(math.log(_FARTHEST / exact)) * np.float32(half - exact)
    shared = np.minimum(exact + logarithm.astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(np.abs(distance) < exact, np.abs(distance), shared)


HEAD_KEYS: Mapping[str, str] = roberta.HEAD_KEYS
"""A key of each head that there is."""

_RULES = (
    "embeddings.{word|position}_embeddings.weight -> embed.{token|position}.weight",
    "embeddings.LayerNorm.** -> embed.norm.**",
    "encoder.relative_attention_bias.** -> distance.**",
    "encoder.layer.{l}.attention.attn.{q|k|v|o}.** -> layers.attention.{query|key|value|out}.**",
    "encoder.layer.{l}.attention.LayerNorm.** -> layers.norm1.**",
    "encoder.layer.{l}.intermediate.dense.** -> layers.mlp.up.**",
    "encoder.layer.{l}.output.dense.** -> layers.mlp.down.**",
    "encoder.layer.{l}.output.LayerNorm.** -> layers.norm2.**",
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `MPNetModel` and for models that hold it as `mpnet.`.

    A head of pre-training (`lm_head.`) that the model does not have is dropped. A head that a model was fine-tuned for
    is not: name it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    today = [*_RULES, "pooler.dense.** -> pooler.**" if config.pooler else "pooler.** -> _"]
    old = ["embeddings.position_ids -> _"]
    encoder = [*today, *only_read([*old, *(f"mpnet.{rule}" for rule in (*today, *old))])]
    if config.head == "masked_lm":
        return [*encoder, *masked_lm_rules("lm_head")]
    if config.head == "sequence_classification":
        return [*encoder, "classifier.{dense|out_proj}.** -> head.{dense|out}.**", "lm_head.** -> _"]
    return [*encoder, *HEAD_RULES.get(config.head, ()), "lm_head.** -> _"]
