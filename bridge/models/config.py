"""The config of a model: what its config.json says, each field taken once and checked, and what is left over refused.

@dataclass(frozen=True, kw_only=True)
class Config(ModelConfig):
    model_types = ("my_model",)

    hidden_size: int

    @classmethod
    def read(cls, fields):
        return {"hidden_size": fields.count("hidden_size")}

config = Config.from_file("my-model/config.json")
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from bridge.models._fields import Fields as Fields
from bridge.models._json import read_json
from bridge.models.layers import ACTIVATIONS
from bridge.models.rope import Rope

__all__ = ["DecoderConfig", "Fields", "ModelConfig"]


@dataclass(frozen=True)
class ModelConfig:
    """What every config has: it is made of a config.json, or not at all.

    An architecture subclasses it with its fields, a `read` that takes them, and says:

    - `model_types`: what its config.json has as `model_type`; the first is the name in our files.
    - `classes`: where a `model_type` has several configs, the classes of transformers that this one is of.
    - `unused`: fields that are known to change nothing.
    - `defaults`: what transformers takes for fields that a file leaves out. Null is not left out.
    """

    model_types: ClassVar[tuple[str, ...]]
    classes: ClassVar[tuple[str, ...]] = ()
    unused: ClassVar[Collection[str]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, ignore: Collection[str] = (), name: str = "config.json", **parts: bool | str
    ) -> Self:
        """The config of what a config.json says.

        **Arguments:**

        - `data`: the fields, as transformers writes them, or wrote them in earlier releases.
        - `ignore`: fields that are known to change nothing.
        - `name`: what messages call the file.
        - `parts`: whether the model shall have a part that no config.json speaks of and some checkpoints lack:
            `pooler=False`; or which head, `head="token_classification"`. Which there are, the architecture says.

        **Raises:** `bridge.CheckpointError` that names a field which is absent, unknown, or of a value that is not
        implemented.
        """
        return cls.of(Fields(data, name=name, ignore=ignore, parts=parts))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, ignore: Collection[str] = (), **parts: bool | str) -> Self:
        """The config of a config.json file. Arguments and errors as for `from_dict`."""
        return cls.from_dict(read_json(path), ignore=ignore, name=os.fspath(path), **parts)

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """The config of fields, of which none is left over."""
        fields.fill(cls.defaults)
        fields.one_of("model_type", cls.model_types, default=cls.model_types[0])
        fields.one_of("is_encoder_decoder", [False], default=False)
        config = cls(**cls.read(fields))
        fields.done(cls.unused)
        return config

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes, of fields. Each architecture's own."""
        raise NotImplementedError


# Fields that only training reads, or that older releases of transformers read and computed the same.
_UNUSED = frozenset(
    {
        *("attention_dropout", "cache_implementation", "hidden_dropout", "is_decoder", "pretraining_tp"),
        "max_sequence_length",  # of Llama's first conversions
        *("output_router_logits", "router_aux_loss_coef", "router_jitter_noise"),
    }
)


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(ModelConfig):
    """What decoders of the Llama line have in common in their config.json, whose names the fields have.

    - `hidden_size`: the width, d. `intermediate_size`: the width inside an MLP.
    - `num_attention_heads` queries, `num_key_value_heads` keys and values of width `head_dim`.
    - `max_position_embeddings`: how many tokens the model was trained for; more can be computed.
    - `rope`: how positions turn heads. `hidden_act`: one of `ACTIVATIONS`. `rms_norm_eps`: what norms add to the mean
        square.
    - `tie_word_embeddings`: whether the embeddings are the head too.

    An architecture with more fields extends `read` and, where layers see a window only, `window`.
    """

    activation: ClassVar[str] = "hidden_act"
    """What config.json calls the activation."""
    unused: ClassVar[Collection[str]] = _UNUSED

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope: Rope
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """What the constructor takes. An architecture with more fields takes them too."""
        width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
        positions = fields.count("max_position_embeddings")
        kv_heads = fields.count("num_key_value_heads", default=heads)
        if heads % kv_heads:
            fields.refuse("num_key_value_heads", kv_heads, f"a divisor of {heads}")
        head_dim = fields.count("head_dim", default=max(1, width // heads))
        if head_dim % 2:
            fields.refuse("head_dim", head_dim, "an even number: rotary positions turn pairs of values")
        return {
            "vocab_size": fields.count("vocab_size"),
            "hidden_size": width,
            "intermediate_size": fields.count("intermediate_size"),
            "num_hidden_layers": fields.count("num_hidden_layers"),
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "max_position_embeddings": positions,
            "hidden_act": fields.one_of(cls.activation, list(ACTIVATIONS), default=cls.hidden_act),
            "rms_norm_eps": fields.number("rms_norm_eps", default=cls.rms_norm_eps),
            "tie_word_embeddings": fields.flag("tie_word_embeddings", default=cls.tie_word_embeddings),
            **cls.read_rope(fields, positions),
        }

    @classmethod
    def read_rope(cls, fields: Fields, positions: int) -> dict[str, Any]:
        """How positions turn heads, as far as `positions`."""
        return {"rope": Rope.of(fields, theta=10_000.0, positions=positions)}

    @property
    def window(self) -> int | tuple[int | None, ...] | None:
        """How many tokens back a layer sees, itself included; `None`: all. A tuple: layer by layer."""
        return None
