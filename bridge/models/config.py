"""The config of a model, read from its config.json: each field is read once and checked; an unknown field is an error.

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
    """The base class of every config. It is made from a complete and valid config.json, or raises an error.

    An architecture subclasses it with the fields of its config, a method `read`, and these class attributes:

    - `model_types`: the values of `model_type` in its config.json; the first is used in files that we write.
    - `classes`: the classes of transformers that this config belongs to, if a `model_type` has several configs.
    - `unused`: fields that change nothing in the model.
    - `defaults`: the values that transformers assumes for absent fields. A field with null is not absent.
    """

    model_types: ClassVar[tuple[str, ...]]
    classes: ClassVar[tuple[str, ...]] = ()
    unused: ClassVar[Collection[str]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, ignore: Collection[str] = (), name: str = "config.json", **parts: bool | str
    ) -> Self:
        """Make a config from the fields of a config.json.

        **Arguments:**

        - `data`: the fields, as transformers writes them, or wrote them in earlier releases.
        - `ignore`: unknown fields that change nothing in the model.
        - `name`: the name of the file in messages.
        - `parts`: choices that no config.json mentions: whether the model has a part that some checkpoints lack,
            `pooler=False`; or which head it has, `head="token_classification"`. They depend on the architecture.

        **Raises:** `bridge.CheckpointError` that names a field which is absent, unknown, or has a value that is not
        implemented.
        """
        return cls.of(Fields(data, name=name, ignore=ignore, parts=parts))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, ignore: Collection[str] = (), **parts: bool | str) -> Self:
        """Make a config from a config.json file. Arguments and errors as for `from_dict`."""
        return cls.from_dict(read_json(path), ignore=ignore, name=os.fspath(path), **parts)

    @classmethod
    def of(cls, fields: Fields) -> Self:
        """Make a config from `fields`. A field that `read` did not read is an error."""
        fields.fill(cls.defaults)
        fields.one_of("model_type", cls.model_types, default=cls.model_types[0])
        fields.one_of("is_encoder_decoder", [False], default=False)
        config = cls(**cls.read(fields))
        fields.done(cls.unused)
        return config

    @classmethod
    def read(cls, fields: Fields) -> dict[str, Any]:
        """Read the constructor's arguments from fields. Each architecture has its own."""
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
    """The fields that Llama and similar decoders share, with their names in config.json.

    - `hidden_size`: the width d of a token. `intermediate_size`: the width inside an MLP.
    - `num_attention_heads`: the number of query heads. `num_key_value_heads`: the number of key and value heads. Each
        has the width `head_dim`.
    - `max_position_embeddings`: the number of tokens that the model was trained for; a longer text is no error.
    - `rope`: the rotary positions. `hidden_act`: one of `ACTIVATIONS`. `rms_norm_eps`: added to the mean square in
        norms.
    - `tie_word_embeddings`: whether the embeddings are also the head.

    An architecture with more fields extends `read`. If its layers attend to a window, it overrides `window`.
    """

    activation: ClassVar[str] = "hidden_act"
    """The name of the activation's field in config.json."""
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
        """Read the constructor's arguments. An architecture with more fields extends this."""
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
        """Read the rotary positions; `positions` is `max_position_embeddings`."""
        return {"rope": Rope.of(fields, theta=10_000.0, positions=positions)}

    @property
    def window(self) -> int | tuple[int | None, ...] | None:
        """To how many tokens a token attends, counted back from itself; `None`: all. A tuple: one entry a layer."""
        return None
