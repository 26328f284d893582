"""What config.json files of decoders say beside the sizes: what changes nothing is taken, what changes numbers refused."""

from __future__ import annotations

from typing import Any

import pytest

import bridge
from bridge.models import gemma3, gpt2, llama, mistral, mixtral, qwen2, qwen3
from bridge.models.rope import Rope

SIZES: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "max_position_embeddings": 64,
}
GPT2 = {"vocab_size": 31, "n_positions": 20, "n_embd": 24, "n_layer": 2, "n_head": 3}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
DECODERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gemma3": (gemma3, SIZES | {"head_dim": 8, "sliding_window_pattern": 2}),
    "gpt2": (gpt2, GPT2),
    "llama": (llama, SIZES),
    "mistral": (mistral, SIZES),
    "mixtral": (mixtral, SIZES | EXPERTS),
    "qwen2": (qwen2, SIZES),
    "qwen3": (qwen3, SIZES | {"head_dim": 8}),
}
# What transformers 4 wrote for a model inside another, or of one that was trained with other arguments of generation.
WRITTEN_OUT: dict[str, Any] = {
    **dict.fromkeys(("add_cross_attention", "do_sample", "early_stopping", "is_decoder", "is_encoder_decoder"), False),
    **dict.fromkeys(("output_scores", "remove_invalid_values", "return_dict_in_generate", "tf_legacy_loss"), False),
    **dict.fromkeys(("tie_encoder_decoder", "torchscript", "use_bfloat16"), False),
    **dict.fromkeys(("bad_words_ids", "begin_suppress_tokens", "cross_attention_hidden_size", "prefix"), None),
    **dict.fromkeys(("decoder_start_token_id", "exponential_decay_length_penalty", "suppress_tokens"), None),
    **dict.fromkeys(("encoder_no_repeat_ngram_size", "min_length", "no_repeat_ngram_size"), 0),
    **dict.fromkeys(("length_penalty", "repetition_penalty", "temperature", "top_p", "typical_p"), 1.0),
    **dict.fromkeys(("num_beam_groups", "num_beams", "num_return_sequences"), 1),
    "diversity_penalty": 0.0,
    "max_length": 20,
    "pruned_heads": {},
    "top_k": 50,
}
NOTHING: dict[str, dict[str, Any]] = {
    "written out": WRITTEN_OUT,
    "more than one end": {"eos_token_id": [1, 2], "bos_token_id": None, "pad_token_id": 0},
    "of tools": {
        "transformers.js_config": {"kv_cache_dtype": "float16"},
        "unsloth_fixed": True,
        "unsloth_version": "2025.1.1",
    },
    "kernels": {"attn_implementation": "flash_attention_2", "_flash_attn_2_enabled": True},
    "a decoder": {"is_decoder": True},
    "biases that are not there": {"mlp_bias": False, "attention_bias": False},
    "no scaling": {"rope_scaling": None},
}
ROPES: dict[str, tuple[dict[str, Any], Rope]] = {
    "old": ({"rope_theta": 500_000, "rope_scaling": {"type": "linear", "factor": 2}}, Rope(5e5, "linear", 2.0)),
    "both names": (
        {"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2.0}},
        Rope(1e4, "linear", 2.0),
    ),
    "not asked for": (
        {"rope_scaling": {"type": "linear", "factor": 2.0, "original_max_position_embeddings": 8}},
        Rope(1e4, "linear", 2.0),
    ),
    "dynamic": (
        {"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 8}},
        Rope(1e4, "dynamic", 2.0, original_max_position_embeddings=64),
    ),
    "today": ({"rope_theta": 9.0, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, Rope(5e5)),
    "today, theta outside": ({"rope_theta": 5e5, "rope_parameters": {"rope_type": "default"}}, Rope(5e5)),
    "empty": ({"rope_theta": 5e5, "rope_scaling": {}}, Rope(5e5)),
}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "part of a head": ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}),
    "axes of images": ("qwen2", {"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}),
    "said twice": ("llama", {"rope_parameters": {"factor": 2.0}, "rope_scaling": {"factor": 2.0}}),
    "a factor of no scaling": ("llama", {"rope_scaling": {"rope_type": "default", "factor": 2.0}}),
    "a window that may not be used": ("mistral", {"use_sliding_window": False}),
    "sliding layers without a window": ("qwen2", {"layer_types": ["sliding_attention"] * 4}),
    "types that do not alternate": ("gemma3", {"layer_types": ["full_attention", "sliding_attention"] * 2}),
    "both ways": ("gemma3", {"use_bidirectional_attention": True}),
    "soft caps": ("gemma3", {"final_logit_softcapping": 30.0}),
    "biases": ("mistral", {"attention_bias": True}),
    "heads that were cut out": ("gpt2", {"pruned_heads": {"0": [1]}}),
    "another sequence": ("gpt2", {"add_cross_attention": True}),
}


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("what", NOTHING)
def test_what_changes_nothing_is_taken(kind: str, what: str):
    module, fields = DECODERS[kind]
    assert module.Config.from_dict(fields | NOTHING[what]) == module.Config.from_dict(fields)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("what", ROPES)
def test_ropes_in_every_spelling(kind: str, what: str):
    module, fields = DECODERS[kind]
    said, rope = ROPES[what]
    assert module.Config.from_dict(fields | said).rope == rope


def test_the_first_yarn():
    said = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "finetuned": True}
    rope = llama.Config.from_dict(SIZES | {"rope_scaling": said}).rope
    del said["finetuned"]
    assert rope == llama.Config.from_dict(SIZES | {"rope_scaling": said}).rope


@pytest.mark.parametrize("what", REFUSED)
def test_what_changes_numbers_is_refused_by_name(what: str):
    kind, said = REFUSED[what]
    module, fields = DECODERS[kind]
    with pytest.raises(bridge.CheckpointError) as caught:
        module.Config.from_dict(fields | said)
    assert any(f"field '{field}" in str(caught.value) for field in said)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_windows_of_qwen(kind: str):
    module, fields = DECODERS[kind]
    used = {"use_sliding_window": True, "sliding_window": 5}
    mixed = ["full_attention", "sliding_attention"] * 2
    windows = {
        (None, None, None, None): [{"use_sliding_window": False, "sliding_window": 5, "max_window_layers": 1}, used],
        (None, None, None, 5): [used | {"max_window_layers": 3}, used | {"max_window_layers": 3, "layer_types": None}],
        (5, 5, 5, 5): [used | {"max_window_layers": 0}],
        (None, 5, None, 5): [used | {"max_window_layers": 0, "layer_types": mixed}],
    }
    for expected, configs in windows.items():
        for said in configs:
            assert module.Config.from_dict(fields | said).windows == expected, said
