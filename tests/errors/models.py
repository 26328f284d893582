"""Models: configs that they do not implement, and calls that make no sense."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import bridge
import bridge.models
from tests.errors.situations import situation
from tests.save.files import write

SMALL: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
DECODER = SMALL | {"num_key_value_heads": 3}
FIELDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "modernbert", "nomic_bert", "roberta"), SMALL),
    "deberta_v2": SMALL | {"relative_attention": True},
    "llama": DECODER,
    "qwen2": DECODER,
    "mixtral": DECODER | {"num_local_experts": 4},
    "gemma3": DECODER | {"head_dim": 8, "sliding_window": 5},
    "clip": {},
    "siglip": {},
    "gpt2": {"vocab_size": 31, "n_positions": 20, "n_embd": 24, "n_layer": 2, "n_head": 3},
    "vit": {name: SMALL[name] for name in SMALL if "max" not in name and "vocab" not in name}
    | {"image_size": 8, "patch_size": 4},
}
FIELDS["dinov2"] = {name: FIELDS["vit"][name] for name in FIELDS["vit"] if name != "intermediate_size"}
FIELDS["resnet"] = {"hidden_sizes": [4, 8], "depths": [1, 1]}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a count that is none": ("llama", {"vocab_size": 0}),
    "a number that is none": ("llama", {"rms_norm_eps": "1e-5"}),
    "a number from 0 up that is none": ("qwen2", {"max_window_layers": -1}),
    "a field that has to be null": ("gemma3", {"attn_logit_softcapping": 50.0}),
    "types of other layers": ("qwen2", {"layer_types": ["full_attention"]}),
    "an object that is none": ("llama", {"rope_parameters": 2}),
    "two fields that say the same": ("llama", {"rope_parameters": {"factor": 2}, "rope_scaling": {"factor": 2}}),
    "a pair that is none": ("vit", {"patch_size": [1, 2, 3]}),
    "a value that is not implemented": ("llama", {"hidden_act": "swish"}),
    "a field within another": ("llama", {"rope_scaling": {"rope_type": "spiral", "factor": 2}}),
    "a field that nobody knows": ("llama", {"mystery_factor": 2.0}),
    "a field that is absent": ("bert", {"hidden_size": None}),
    "groups of heads": ("llama", {"num_key_value_heads": 2}),
    "an odd head": ("llama", {"head_dim": 7}),
    "factors in the wrong order": (
        "llama",
        {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}},
    ),
    "heads of BERT": ("bert", {"num_attention_heads": 5}),
    "heads of GPT-2": ("gpt2", {"n_head": 5}),
    "heads of ModernBERT": ("modernbert", {"num_attention_heads": 5}),
    "heads of Nomic BERT": ("nomic_bert", {"n_embd": 24, "n_head": 5}),
    "heads of ViT": ("vit", {"num_attention_heads": 5}),
    "heads of DINOv2": ("dinov2", {"num_attention_heads": 5}),
    "patches that are no square": ("dinov2", {"patch_size": [4, 2]}),
    "an MLP without end": ("dinov2", {"mlp_ratio": 1e300}),
    "a bottleneck too narrow": ("resnet", {"hidden_sizes": [4, 3]}),
    "a patch larger than the image": ("vit", {"patch_size": 9}),
    "heads of CLIP": ("clip", {"text_config": {"num_attention_heads": 5}}),
    "a patch larger than CLIP's image": ("clip", {"vision_config": {"patch_size": 300}}),
    "texts whose vectors are not as wide as SigLIP's images": ("siglip", {"text_config": {"projection_size": 8}}),
    "layers without order": (
        "gemma3",
        {"num_hidden_layers": 3, "layer_types": ["full_attention", "sliding_attention", "sliding_attention"]},
    ),
    "two words for tied": ("gemma3", {"text_config": FIELDS["gemma3"], "tie_word_embeddings": False}),
    "more experts than there are": ("mixtral", {"num_experts_per_tok": 5}),
    "windows that are not used": ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}),
    "rows for more distances than there are": ("deberta_v2", {"position_buckets": 40}),
    "a word that nobody knows": ("deberta_v2", {"pos_att_type": "p2p|c2p"}),
    "a convolution without a middle": ("deberta_v2", {"conv_kernel_size": 4}),
    "groups of a convolution": ("deberta_v2", {"conv_groups": 5}),
    "padding without a row": ("roberta", {"pad_token_id": 40}),
}


def config(name: str, **more: Any) -> Any:
    """The config of an architecture, small."""
    return import_module(f"bridge.models.{name}").Config.from_dict(FIELDS[name], **more)


def abstract(name: str, kind: str, **more: Any) -> Any:
    """A model without weights."""
    module = import_module(f"bridge.models.{name}")
    return eqx.filter_eval_shape(getattr(module, kind), config(name, **more), key=jax.random.key(0))


def _refused(what: str) -> None:
    name, fields = REFUSED[what]

    @situation(f"models: {what}")
    def _(patch: pytest.MonkeyPatch) -> None:
        import_module(f"bridge.models.{name}").Config.from_dict(FIELDS[name] | fields)


for each in REFUSED:
    _refused(each)


@situation("models: labels without names")
def _(patch: pytest.MonkeyPatch) -> None:
    import_module("bridge.models.vit").Config.from_dict(FIELDS["vit"] | {"id2label": 3}, head=True)


@situation("models: a config that is a list")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("config.json").write_text("[]")
    import_module("bridge.models.bert").Config.from_file("config.json")


@situation("models: a config that is not there")
def _(patch: pytest.MonkeyPatch) -> None:
    import_module("bridge.models.bert").Config.from_file("config.json")


@situation("models: a config that is no JSON", until="is not JSON: ")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("config.json").write_text("{")
    import_module("bridge.models.bert").Config.from_file("config.json")


def _folder(fields: dict[str, Any], tensors: dict[str, Any]) -> None:
    Path("m").mkdir()
    Path("m/config.json").write_text(json.dumps(fields))
    write(Path("m/model.safetensors"), tensors)


@situation("models: a model_type that is no text")
def _(patch: pytest.MonkeyPatch) -> None:
    _folder({"model_type": 3}, {"a": np.zeros(1, np.float32)})
    bridge.models.from_pretrained("m")


@situation("models: an architecture of somebody else")
def _(patch: pytest.MonkeyPatch) -> None:
    _folder({"model_type": "falcon"}, {"a": np.zeros(1, np.float32)})
    bridge.models.from_pretrained("m")


def _llama(drop: str = "", dtype: Any = None, before: str = "", **fields: Any) -> None:
    """A Llama in a folder, and `from_pretrained` of it."""
    llama = import_module("bridge.models.llama")
    rng = np.random.default_rng(0)
    keys = {key: spec.shape for key, spec in _llama_specs().items() if key != drop}
    tensors = {
        before + key: rng.standard_normal(shape, np.float32).astype(dtype or "f4") for key, shape in keys.items()
    }
    _folder(FIELDS["llama"] | {"model_type": "llama"} | fields, tensors)
    bridge.models.from_pretrained("m", model_class=llama.Llama)


def _llama_specs() -> dict[str, Any]:
    """The keys of a small Llama, as it is saved."""
    model = import_module("bridge.models.llama").Llama(config("llama"), key=jax.random.key(0))
    bridge.save(model, "saved", import_module("bridge.models.llama").rules(model.config))
    with bridge.open("saved") as ckpt:
        return dict(ckpt.specs)


@situation("models: no config.json")
def _(patch: pytest.MonkeyPatch) -> None:
    write(Path("m/model.safetensors"), {"a": np.zeros(1, np.float32)})
    bridge.models.from_pretrained("m")


@situation("models: no model_type")
def _(patch: pytest.MonkeyPatch) -> None:
    _folder({"hidden_size": 3}, {"a": np.zeros(1, np.float32)})
    bridge.models.from_pretrained("m")


@situation("models: the config of diffusers' model")
def _(patch: pytest.MonkeyPatch) -> None:
    _folder({"_class_name": "UNet2DConditionModel"}, {"a": np.zeros(1, np.float32)})
    bridge.models.from_pretrained("m")


@situation("models: no weights")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("config.json").write_text("{}")
    bridge.models.from_pretrained(".")


@situation("models: the weights of another architecture")
def _(patch: pytest.MonkeyPatch) -> None:
    _folder(FIELDS["bert"] | {"model_type": "bert"}, {f"model.layers.{n}.w": np.zeros(99, "f4") for n in range(9)})
    bridge.models.from_pretrained("m")


situation("models: weights behind a prefix")(lambda patch: _llama(before="net."))
situation("models: a tie that is none")(lambda patch: _llama(tie_word_embeddings=True))
situation("models: a head that is not there")(lambda patch: _llama(drop="lm_head.weight"))
situation("models: weights of 8 bits without scales")(lambda patch: _llama(dtype=ml_dtypes.float8_e4m3fn))


@situation("models: another class than asked for")
def _(patch: pytest.MonkeyPatch) -> None:
    _folder(FIELDS["gpt2"] | {"model_type": "gpt2"}, {"a": np.zeros(100, np.float32)})
    bridge.models.from_pretrained("m", model_class=import_module("bridge.models.llama").Llama)


@situation("models: weights in two dtypes")
def _(patch: pytest.MonkeyPatch) -> None:
    model = import_module("bridge.models.gpt2").GPT2(config("gpt2"), key=jax.random.key(0))
    low = eqx.tree_at(lambda m: m.norm.weight, model, model.norm.weight.astype(jnp.bfloat16))
    bridge.save(low, "m", import_module("bridge.models.gpt2").rules(model.config))
    Path("m/config.json").write_text(json.dumps(FIELDS["gpt2"] | {"model_type": "gpt2"}))
    bridge.models.from_pretrained("m")


@situation("models: BERT without a pooler")
def _(patch: pytest.MonkeyPatch) -> None:
    abstract("bert", "Bert", pooler=False).pooled(jnp.zeros((1, 24)))


@situation("models: BERT and too long a text")
def _(patch: pytest.MonkeyPatch) -> None:
    abstract("bert", "Bert")(jnp.zeros(21, jnp.int32))


@situation("models: GPT-2 and too long a text")
def _(patch: pytest.MonkeyPatch) -> None:
    abstract("gpt2", "GPT2").slots(21)


def _generating(what: str, **arguments: Any) -> None:
    given = {"tokens": [1, 2], "max_new_tokens": 3} | arguments

    @situation(f"generate: {what}")
    def _(patch: pytest.MonkeyPatch) -> None:
        bridge.models.generate(None, given.pop("tokens"), given.pop("max_new_tokens"), **given)


_generating("a batch of prompts", tokens=[[1, 2]])
_generating("no number of tokens", max_new_tokens=0)
_generating("a temperature below 0", temperature=-1.0)
_generating("a share above 1", temperature=1.0, top_p=1.5)
_generating("a share without a temperature", top_p=0.5)
_generating("a temperature without a key", temperature=1.0)


@situation("sentences: one text")
def _(patch: pytest.MonkeyPatch) -> None:
    kind = import_module("bridge.models.sentence").SentenceEncoder
    kind.__call__(kind.__new__(kind), "a text")


@situation("sentences: without the library")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "tokenizers", None)
    Path("tokenizer.json").write_text("{}")
    import_module("bridge.models.sentence").SentenceEncoder(None, "tokenizer.json")


@situation("sentences: a tokenizer that is none", until="cannot be read as a tokenizer: ")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("tokenizer.json").write_text("{}")
    import_module("bridge.models.sentence").SentenceEncoder(None, "tokenizer.json")
