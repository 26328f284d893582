"""SigLIP: both encoders and either alone, an encoder of images that makes no vectors, configs of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bridge
import bridge.models
from bridge.models.siglip import Config, TextConfig, VisionConfig
from tests.models.dual_contract import LABELS, TEXT, VISION, DualClassifierContract, DualContract


@pytest.mark.torch
class TestSigLIP(DualContract):
    model_type = "siglip"
    kind = "SiglipModel"
    variants = {
        "odd": {
            "text_config": TEXT | {"projection_size": 16, "hidden_act": "relu", "layer_norm_eps": 1e-3},
            "vision_config": VISION | {"num_channels": 2},
        },
    }
    refused = {
        "text_config.hidden_act": "swish",
        "vision_config.patch_size": 12,
        "vision_config.num_attention_heads": 5,
        "text_config.mystery_factor": 2.0,
        "text_config.projection_size": 15,
        "vision_config.vision_use_head": 1,
    }
    alone = {"SiglipTextModel": TEXT, "SiglipVisionModel": VISION}

    def test_an_encoder_of_images_that_makes_no_vectors(self, tmp_path: Path):
        self.saved(tmp_path, "SiglipVisionModel", **VISION, vision_use_head=False)
        ours = bridge.models.from_pretrained(tmp_path)
        assert ours.config == VisionConfig.from_dict(VISION, pooler=False)
        with pytest.raises(bridge.BridgeError, match="this SigLIPVision has no pooler"):
            ours.pooled(ours.embed.position)


@pytest.mark.torch
class TestSiglipForImageClassification(DualClassifierContract):
    model_type = "siglip"
    kind = "SiglipForImageClassification"
    variants = {
        "three labels": {"text_config": TEXT | {"projection_size": 16}, "vision_config": VISION, "id2label": LABELS},
        "without what makes vectors": {"vision_config": VISION | {"vision_use_head": False}, "id2label": LABELS},
    }


def test_configs_of_the_hub_are_understood():
    """google/siglip-base-patch16-224, whose encoders are told by nothing, and google/siglip2-so400m-patch14-384."""
    nothing = {
        "text_config": {"model_type": "siglip_text_model"},
        "vision_config": {"model_type": "siglip_vision_model"},
    }
    base = Config.from_dict(nothing | {"model_type": "siglip", "initializer_factor": 1.0, "torch_dtype": "float32"})
    assert base == Config(text_config=TextConfig(), vision_config=VisionConfig()) == Config.from_dict({})
    sizes: dict[str, Any] = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
    }
    inner = {
        "attention_dropout": 0.0,
        "hidden_act": "gelu_pytorch_tanh",
        "layer_norm_eps": 1e-06,
        "torch_dtype": "float32",
    }
    text = inner | sizes | {"vocab_size": 256000, "projection_size": 1152, "bos_token_id": 49406, "pad_token_id": 1}
    images = inner | sizes | {"image_size": 384, "patch_size": 14, "num_channels": 3, "vision_use_head": True}
    large = Config.from_dict({"text_config": text, "vision_config": images})
    assert large.text_config == TextConfig(**sizes, vocab_size=256000, projection_size=1152)
    assert large.vision_config == VisionConfig(**sizes, image_size=(384, 384), patch_size=(14, 14))


def test_whether_there_are_vectors_can_be_chosen():
    assert not VisionConfig.from_dict({"vision_use_head": True}, pooler=False).vision_use_head
    assert VisionConfig.from_dict({"vision_use_head": False}, pooler=True) == VisionConfig()
