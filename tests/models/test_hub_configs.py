"""The config.json of well-known checkpoints, field by field as the Hub holds them: each is understood."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

import bridge
from bridge.models import gpt2, mixtral, modernbert, qwen3_moe, roberta, vit
from bridge.models._pretrained import ARCHITECTURES
from tests.attacks.configs import CONFIGS

TEXT: dict[str, Any] = {
    "attention_probs_dropout_prob": 0.1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "type_vocab_size": 1,
}
HUB: dict[str, tuple[Any, dict[str, Any]]] = {
    "FacebookAI/roberta-base": (
        roberta,
        TEXT | {"architectures": ["RobertaForMaskedLM"], "model_type": "roberta", "vocab_size": 50265},
    ),
    "FacebookAI/xlm-roberta-base": (
        roberta,
        TEXT
        | {
            "architectures": ["XLMRobertaForMaskedLM"],
            "model_type": "xlm-roberta",
            "output_past": True,
            "position_embedding_type": "absolute",
            "transformers_version": "4.17.0.dev0",
            "use_cache": True,
            "vocab_size": 250002,
        },
    ),
    "google/vit-base-patch16-224-in21k": (
        vit,
        {
            "architectures": ["ViTModel"],
            "attention_probs_dropout_prob": 0.0,
            "encoder_stride": 16,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "hidden_size": 768,
            "image_size": 224,
            "initializer_range": 0.02,
            "intermediate_size": 3072,
            "layer_norm_eps": 1e-12,
            "model_type": "vit",
            "num_attention_heads": 12,
            "num_channels": 3,
            "num_hidden_layers": 12,
            "patch_size": 16,
            "qkv_bias": True,
            "transformers_version": "4.13.0.dev0",
        },
    ),
    "openai-community/gpt2": (
        gpt2,
        {
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1,
            "bos_token_id": 50256,
            "embd_pdrop": 0.1,
            "eos_token_id": 50256,
            "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-05,
            "model_type": "gpt2",
            "n_ctx": 1024,
            "n_embd": 768,
            "n_head": 12,
            "n_layer": 12,
            "n_positions": 1024,
            "resid_pdrop": 0.1,
            "summary_activation": None,
            "summary_first_dropout": 0.1,
            "summary_proj_to_labels": True,
            "summary_type": "cls_index",
            "summary_use_proj": True,
            "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
            "vocab_size": 50257,
        },
    ),
    "answerdotai/ModernBERT-base": (
        modernbert,
        {
            "architectures": ["ModernBertForMaskedLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 50281,
            "classifier_activation": "gelu",
            "classifier_bias": False,
            "classifier_dropout": 0.0,
            "classifier_pooling": "mean",
            "cls_token_id": 50281,
            "decoder_bias": True,
            "deterministic_flash_attn": False,
            "embedding_dropout": 0.0,
            "eos_token_id": 50282,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 160000.0,
            "gradient_checkpointing": False,
            "hidden_activation": "gelu",
            "hidden_size": 768,
            "initializer_cutoff_factor": 2.0,
            "initializer_range": 0.02,
            "intermediate_size": 1152,
            "layer_norm_eps": 1e-05,
            "local_attention": 128,
            "local_rope_theta": 10000.0,
            "max_position_embeddings": 8192,
            "mlp_bias": False,
            "mlp_dropout": 0.0,
            "model_type": "modernbert",
            "norm_bias": False,
            "norm_eps": 1e-05,
            "num_attention_heads": 12,
            "num_hidden_layers": 22,
            "pad_token_id": 50283,
            "position_embedding_type": "absolute",
            "reference_compile": False,
            "repad_logits_with_grad": False,
            "sep_token_id": 50282,
            "sparse_pred_ignore_index": -100,
            "sparse_prediction": False,
            "torch_dtype": "float32",
            "transformers_version": "4.47.0.dev0",
            "vocab_size": 50368,
        },
    ),
    "mistralai/Mixtral-8x7B-v0.1": (
        mixtral,
        {
            "architectures": ["MixtralForCausalLM"],
            "attention_dropout": 0.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 4096,
            "initializer_range": 0.02,
            "intermediate_size": 14336,
            "max_position_embeddings": 32768,
            "model_type": "mixtral",
            "num_attention_heads": 32,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 32,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "output_router_logits": False,
            "rms_norm_eps": 1e-05,
            "rope_theta": 1000000.0,
            "router_aux_loss_coef": 0.02,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.36.0.dev0",
            "use_cache": True,
            "vocab_size": 32000,
        },
    ),
    "Qwen/Qwen3-30B-A3B": (
        qwen3_moe,
        {
            "architectures": ["Qwen3MoeForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 151643,
            "decoder_sparse_step": 1,
            "eos_token_id": 151645,
            "head_dim": 128,
            "hidden_act": "silu",
            "hidden_size": 2048,
            "initializer_range": 0.02,
            "intermediate_size": 6144,
            "max_position_embeddings": 40960,
            "max_window_layers": 48,
            "mlp_only_layers": [],
            "model_type": "qwen3_moe",
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "num_attention_heads": 32,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "output_router_logits": False,
            "rms_norm_eps": 1e-06,
            "rope_scaling": None,
            "rope_theta": 1000000.0,
            "router_aux_loss_coef": 0.001,
            "sliding_window": None,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "transformers_version": "4.51.0",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": 151936,
        },
    ),
}


@pytest.mark.parametrize("repo", HUB)
def test_a_config_of_the_hub_is_understood(repo: str):
    module, fields = HUB[repo]
    config = module.Config.from_dict(fields)
    asked = {name: value for name, value in fields.items() if hasattr(config, name) and name != "model_type"}
    assert len(asked) >= 7
    for name, value in asked.items():
        found = getattr(config, name)
        assert found == ((value, value) if isinstance(found, tuple) else value), name


TEXTS = ("albert", "bert", "deberta", "deberta-v2", "distilbert", "electra", "esm", "mpnet", "roberta", "xlm-roberta")
CHANGES_NOTHING: dict[str, Any] = {
    "_name_or_path": "somebody/something",
    "_num_labels": 3,
    "add_cross_attention": False,
    "architectures": None,
    "bos_token_id": 0,
    "do_sample": False,  # files of the first releases hold fields of all that there was, as these
    "dtype": "float16",
    "eos_token_ids": 0,
    "finetuning_task": "mnli",
    "gradient_checkpointing": False,
    "is_decoder": False,
    "length_penalty": 1,
    "max_length": 20,
    "num_beams": 1,
    "num_return_sequences": 1,
    "output_past": True,
    "position_embedding_type": "absolute",
    "problem_type": "multi_label_classification",
    "pruned_heads": {},
    "repetition_penalty": 1.0,
    "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0.1"},
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "torch_dtype": None,
    "transformers.js_config": {"use_external_data_format": {"model.onnx": 1}},
    "use_bfloat16": False,
    "use_cache": True,
}
CHANGES_NUMBERS: dict[str, Any] = {
    "add_cross_attention": True,
    "is_decoder": True,
    "is_encoder_decoder": True,
    "position_embedding_type": "relative_key",
    "pruned_heads": {"2": [0]},
}


def config_of(kind: str, **more: Any) -> Any:
    module = import_module("bridge.models." + ARCHITECTURES[kind].partition(".")[0])
    parts = {name: more.pop(name) for name in ("head", "pooler") if name in more}
    return module.Config.from_dict(CONFIGS[kind] | more, **parts)


@pytest.mark.parametrize("kind", TEXTS)
def test_what_real_files_say_beside_the_model_changes_nothing(kind: str):
    assert config_of(kind, **CHANGES_NOTHING) == config_of(kind)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("field", CHANGES_NUMBERS)
def test_what_changes_the_numbers_is_refused(kind: str, field: str):
    with pytest.raises(bridge.CheckpointError, match=f"field '{field}'"):
        config_of(kind, **{field: CHANGES_NUMBERS[field]})


@pytest.mark.parametrize("kind", TEXTS)
def test_labels_are_those_that_have_names(kind: str):
    names = {"0": "no", "2": "perhaps", "1": "yes"}  # JSON keeps no order, and 10 stands before 2
    found = config_of(kind, head="token_classification", id2label=names, num_labels=2, label2id={"no": 0})
    assert found.labels == ("no", "yes", "perhaps")
    assert config_of(kind, head="token_classification", id2label=None, num_labels=1).labels == ("LABEL_0",)
    assert config_of(kind, id2label={"3": "odd"}).labels == ()  # nobody asks


@pytest.mark.parametrize("kind", ["albert", "bert", "deberta", "deberta-v2"])
def test_what_classifies_by_a_pooler_misses_it(kind: str):
    assert config_of(kind, head="sequence_classification", pooler=False).pooler
    assert not config_of(kind, head="token_classification", pooler=False).pooler
