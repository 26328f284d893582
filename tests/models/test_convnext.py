"""ConvNeXt and its second version: stages of different widths, with scales and without, with a head and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from safetensors.numpy import load_file

import bridge
from bridge.models.convnext import Config, ConvNext, rules
from tests.models.contract import Case
from tests.models.conv_contract import ConvContract

ODD: dict[str, Any] = {"num_stages": 2, "hidden_sizes": [6, 10], "depths": [1, 3], "patch_size": 3}


class ConvNextContract(ConvContract):
    """For both versions."""

    def test_saved_by_rules_the_keys_are_the_hubs(self, each: Case, tmp_path: Path):
        bridge.save(each.ours, tmp_path, rules(each.ours.config))
        keys = [load_file(folder / "model.safetensors").keys() for folder in (each.folder, tmp_path)]
        assert keys[0] == keys[1]


@pytest.mark.torch
class TestConvNext(ConvNextContract):
    model_type = "convnext"
    kind = "ConvNextModel"
    variants = {"odd": ODD}
    refused = {"hidden_act": "swish", "depths": [1, 2, 3], "layer_scale_init_value": -1}


@pytest.mark.torch
class TestConvNextForImageClassification(ConvNextContract):
    model_type = "convnext"
    kind = "ConvNextForImageClassification"
    variants = {
        "no scales, one channel": ODD
        | {"layer_scale_init_value": 0.0, "num_channels": 1, "num_labels": 5, "layer_norm_eps": 1e-3}
    }
    refused = {"patch_size": [3, 0]}


@pytest.mark.torch
class TestConvNextV2(ConvNextContract):
    model_type = "convnextv2"
    kind = "ConvNextV2ForImageClassification"
    variants = {"odd": ODD | {"num_labels": 4}}
    refused = {"depths": [1]}


@pytest.mark.parametrize("image", [jnp.zeros((3, 5, 9)), jnp.zeros((1, 9, 9)), jnp.zeros((3, 9, 9), jnp.uint8)])
def test_an_image_that_is_not_prepared_is_an_error(image: jax.Array):
    model = eqx.filter_eval_shape(ConvNext, Config.from_dict(ODD), key=jax.random.key(0))
    with pytest.raises(bridge.BridgeError) as caught:
        model(image)
    assert caught.value.statement == (
        f"an image of shape {image.shape} and dtype {image.dtype} does not fit ConvNext, which takes (3, h, w) of floats, h from 6 "
        "and w from 6 up"
    )
