"""CLIP: both encoders and either alone, texts that end in old ways and new, configs of old files and new."""

from __future__ import annotations

from typing import Any

import pytest

import bridge
from bridge.models.clip import Config, TextConfig, VisionConfig, parts_of
from tests.models.dual_contract import LABELS, TEXT, VISION, DualClassifierContract, DualContract


@pytest.mark.torch
class TestCLIP(DualContract):
    model_type = "clip"
    kind = "CLIPModel"
    variants = {
        "odd": {"text_config": TEXT, "vision_config": VISION, "projection_dim": 7},
        "an old text's end, other activations": {
            "text_config": TEXT | {"eos_token_id": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-3},
            "vision_config": VISION | {"hidden_act": "gelu", "num_channels": 1},
            "projection_dim": 24,
        },
    }
    refused = {
        "text_config.hidden_act": "swish",
        "vision_config.patch_size": 12,
        "text_config.num_attention_heads": 5,
        "vision_config.mystery_factor": 2.0,
        "text_config.is_decoder": True,
    }
    alone = {
        "CLIPTextModel": TEXT,
        "CLIPTextModelWithProjection": TEXT | {"projection_dim": 5, "eos_token_id": 2},
        "CLIPVisionModel": VISION,
        "CLIPVisionModelWithProjection": VISION | {"projection_dim": 5},
    }


@pytest.mark.torch
class TestCLIPForImageClassification(DualClassifierContract):
    model_type = "clip"
    kind = "CLIPForImageClassification"
    variants = {"three labels": {"text_config": TEXT, "vision_config": VISION, "id2label": LABELS}}


# What openai/clip-vit-base-patch32 says inside its config, as transformers 4.16 wrote it.
NULL = """architectures bad_words_ids cross_attention_hidden_size decoder_start_token_id finetuning_task prefix torch_dtype
forced_bos_token_id forced_eos_token_id problem_type sep_token_id task_specific_params tokenizer_class"""
FALSE = """add_cross_attention do_sample early_stopping is_decoder is_encoder_decoder output_attentions use_bfloat16
output_hidden_states output_scores remove_invalid_values return_dict_in_generate tie_encoder_decoder torchscript"""
ZERO = """attention_dropout bos_token_id chunk_size_feed_forward diversity_penalty dropout encoder_no_repeat_ngram_size
min_length no_repeat_ngram_size"""
ONE = """initializer_factor length_penalty num_beam_groups num_beams num_return_sequences pad_token_id repetition_penalty
temperature top_p"""
OLD: dict[str, Any] = {
    name: value for names, value in ((NULL, None), (FALSE, False), (ZERO, 0), (ONE, 1)) for name in names.split()
}
OLD |= {"_name_or_path": "", "eos_token_id": 2, "hidden_act": "quick_gelu", "initializer_range": 0.02, "top_k": 50}
OLD |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}, "max_length": 20}
OLD |= {"layer_norm_eps": 1e-05, "num_hidden_layers": 12, "projection_dim": 512, "pruned_heads": {}}
OLD |= {"return_dict": True, "tie_word_embeddings": True, "transformers_version": "4.16.0.dev0"}
OLD_TEXT = OLD | {"model_type": "clip_text_model", "hidden_size": 512, "intermediate_size": 2048}
OLD_TEXT |= {"num_attention_heads": 8, "max_position_embeddings": 77, "vocab_size": 49408}
OLD_VISION = OLD | {"model_type": "clip_vision_model", "hidden_size": 768, "intermediate_size": 3072}
OLD_VISION |= {"num_attention_heads": 12, "image_size": 224, "patch_size": 32}


def test_configs_of_the_hub_are_understood():
    outer = {"model_type": "clip", "architectures": ["CLIPModel"], "initializer_factor": 1.0, "projection_dim": 512}
    outer |= {"logit_scale_init_value": 2.6592, "text_config_dict": None, "vision_config_dict": None}
    config = Config.from_dict(outer | {"text_config": OLD_TEXT, "vision_config": OLD_VISION})
    assert config.text_config == TextConfig(eos_token_id=2, projection_dim=512)
    assert config.vision_config == VisionConfig(projection_dim=512)


def test_of_configs_that_are_there_twice_the_second_counts():
    """As in laion/CLIP-ViT-H-14-laion2B-s32B-b79K, where it leaves out what ends a text."""
    second = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24}
    config = Config.from_dict(
        {"text_config": OLD_TEXT, "text_config_dict": second | {"hidden_act": "gelu"}, "projection_dim": 1024}
    )
    assert config.text_config == TextConfig(**second, hidden_act="gelu", projection_dim=1024)
    assert config.vision_config == VisionConfig(projection_dim=1024)
    with pytest.raises(bridge.CheckpointError, match=r"field 'text_config_dict\.mystery' is 2,"):
        Config.from_dict({"text_config_dict": {"mystery": 2}})
    ignored = Config.from_dict({"text_config_dict": {"mystery": 2}}, ignore=["text_config_dict.mystery"])
    assert ignored == Config.from_dict({})


def test_whether_there_is_a_projection_the_keys_say():
    assert parts_of(["text_projection.weight"]) == parts_of(["visual_projection.weight"]) == {"projection": True}
    assert parts_of(["text_model.final_layer_norm.weight"]) == {"projection": False}
    assert TextConfig.from_dict({"projection_dim": 768}).projection_dim == 0
    assert TextConfig.from_dict({"projection_dim": 768}, projection=True).projection_dim == 768
