"""ALBERT: a BERT whose layers all have the same weights, and narrow embeddings (https://arxiv.org/abs/1909.11942).

    model = bridge.models.from_pretrained("albert/albert-base-v2")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap

The one layer stands once in the model, and runs `num_hidden_layers` times under `jax.lax.scan`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from bridge.models import bert, electra
from bridge.models.config import Fields
from bridge.models.heads import HEAD_RULES
from bridge.models.spellings import only_read


@dataclass(frozen=True)
class Config(electra.Config):
    """The fields of `electra.Config`."""

    model_types = ("albert",)
    unused: ClassVar[Collection[str]] = frozenset(
        {
            *("attention_probs_dropout_prob", "classifier_dropout_prob", "down_scale_factor"),
            *("gap_size", "hidden_dropout_prob", "layers_to_keep", "net_structure_type", "num_memory_blocks"),
        }
    )
    defaults: ClassVar[Mapping[str, Any]] = {"hidden_act": "gelu_new"}
    classifier_activation: ClassVar[None] = None
    lm_activation: ClassVar[str | None] = None

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        for field in ("num_hidden_groups", "inner_group_num"):
            fields.one_of(field, [1], default=1)
        pooler = fields.part("pooler", default=True)
        taken = super().read(fields)
        return taken | {"pooler": pooler or taken["head"] == "sequence_classification"}

    @property
    def projects(self) -> bool:
        """ALBERT's embeddings always go through a layer."""
        return True


class Albert(bert.Bert):
    """The encoder: `bert.Bert`, with one layer for all."""

    __init__ = bert.Bert.__init__

    @staticmethod
    def make_layers(config: Any, key: jax.Array) -> Any:
        """The one layer."""
        return bert.layer(config, key=key)

    def through(self, x: jax.Array, context: Any, *, every: bool) -> tuple[jax.Array, jax.Array | None]:
        """The same layer again and again."""

        def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array | None]:
            x = self.layers(x, context)
            return x, x if every else None

        return jax.lax.scan(step, x, None, length=self.config.num_hidden_layers)


HEAD_KEYS: Mapping[str, str] = {
    "masked_lm": "predictions.dense.weight",
    "question_answering": "qa_outputs.weight",
    "sequence_classification": "classifier.weight",
    "token_classification": "classifier.weight",
}
"""A key of each head that there is."""

_LAYER = "encoder.albert_layer_groups.0.albert_layers.0"
_RULES = (
    "embeddings.{word|position|token_type}_embeddings.weight -> embed.{token|position|type}.weight",
    "embeddings.LayerNorm.** -> embed.norm.**",
    "encoder.embedding_hidden_mapping_in.** -> embed.project.**",
    f"{_LAYER}.attention.{{query|key|value|dense}}.** -> layers.attention.{{query|key|value|out}}.**",
    f"{_LAYER}.attention.LayerNorm.** -> layers.norm1.**",
    f"{_LAYER}.{{ffn|ffn_output}}.** -> layers.mlp.{{up|down}}.**",
    f"{_LAYER}.full_layer_layer_norm.** -> layers.norm2.**",
)


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `AlbertModel` and for models that hold it as `albert.`.

    Heads of pre-training that the model does not have are dropped. A head that a model was fine-tuned for is not: name
    it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    today = [*_RULES, "pooler.** -> pooler.**" if config.pooler else "pooler.** -> _"]
    old = ["embeddings.position_ids -> _"]
    encoder = [*today, *only_read([*old, *(f"albert.{rule}" for rule in (*today, *old))])]
    order = "sop_classifier.** -> _"  # whether sentences follow each other: asked in pre-training alone
    if config.head != "masked_lm":
        return [*encoder, *HEAD_RULES.get(config.head, ()), "predictions.** -> _", order]
    return [
        *encoder,
        "predictions.dense.** -> head.dense.**",
        "predictions.LayerNorm.** -> head.norm.**",
        "predictions.bias -> head.bias",
        "predictions.decoder.bias -> head.bias ; tie=true",
        "predictions.decoder.weight -> embed.token.weight ; tie=true",
        order,
    ]


def parts_of(keys: Iterable[str]) -> dict[str, bool]:
    """Which parts a checkpoint of these keys has, and no config.json says: keywords of `Config.from_dict`."""
    return {"pooler": any(key.endswith("pooler.weight") for key in keys)}
