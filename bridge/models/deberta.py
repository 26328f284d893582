"""DeBERTa, the first: as v2, with a row for each distance, and queries, keys and values that one product makes.

    model = bridge.models.from_pretrained("microsoft/deberta-base-mnli")
    hidden = model(tokens, mask)  # (seq,), (seq,) -> (seq, d); a batch by jax.vmap
    scores = model.logits(hidden)  # (labels,): model.config.labels says what they are

In its files rows of that product are head by head: a head's queries, its keys, its values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bridge.models import deberta_v2
from bridge.models.config import Fields
from bridge.models.deberta_v2 import HEAD_KEYS as HEAD_KEYS
from bridge.models.deberta_v2 import parts_of as parts_of


@dataclass(frozen=True)
class Config(deberta_v2.Config):
    """The fields of `deberta_v2.Config`. What came with v2 is refused."""

    model_types = ("deberta",)
    key_bias: ClassVar[bool] = False

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes."""
        fields.one_of("talking_head", [False], default=False)
        fields.one_of("position_buckets", [-1, 0], default=-1)
        fields.one_of("share_att_key", [False], default=False)
        fields.one_of("norm_rel_ebd", ["none"], default="none")
        fields.one_of("conv_kernel_size", [0], default=0)
        kinds = fields.words("pos_att_type", ["c2p", "p2c"])  # v1 scales by how many words there are, v2 by these two
        fields.fill({"pos_att_type": sorted(kinds)})
        return super().read(fields)


class Deberta(deberta_v2.DebertaV2):
    """The encoder: `deberta_v2.DebertaV2`, as its config says."""

    __init__ = deberta_v2.DebertaV2.__init__


_SELF = "encoder.layer.{l}.attention.self"


def rules(config: Config) -> list[str]:
    """Which key is which leaf, for `DebertaModel` and for models that hold it as `deberta.`, in old spelling and new.

    Heads of pre-training that the model does not have are dropped. A head that a model was fine-tuned for is not: name
    it in `allow_unexpected=["classifier.**"]` to leave it behind.
    """
    both, heads = "layers.attention.{query|key|value}.weight [(h d) m]", config.num_attention_heads
    attention = [
        f"{_SELF}.in_proj.weight [(h (query|key|value) d) m] -> {both} ; h={heads}",
        f"{_SELF}.{{q|v}}_bias -> layers.attention.{{query|value}}.bias",
        f"{_SELF}.pos_proj.weight -> layers.attention.pos_key.weight",
        f"{_SELF}.pos_q_proj.** -> layers.attention.pos_query.**",
    ]
    return deberta_v2.rules_with(config, attention)
