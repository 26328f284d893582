"""DINOv2, with registers and without: images of the config's size and of others, MLPs of both kinds, the classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import bridge
import bridge.models
from bridge.models.dinov2 import Config, Dinov2, rules
from bridge.models.resize import bicubic, bicubic_weights
from tests.models.contract import Case
from tests.models.test_vit import ImageContract

ODD: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "mlp_ratio": 2,
    "image_size": 13,  # a row and a column of pixels are left over
    "patch_size": 4,
}
OTHER = (3, 9, 21)  # fewer rows of patches, and more columns


def image_of(shape: tuple[int, ...], seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Dinov2Contract(ImageContract):
    """For both architectures."""

    @staticmethod
    def run(model: Any, *example: jax.Array) -> dict[str, jax.Array]:
        found = ImageContract.run(model, *example)
        return found if model.head is not None else found | {"pooled": model.pooled(found["last"])}

    refused = {"hidden_act": "swish", "patch_size": [4, 6], "num_attention_heads": 5, "mlp_ratio": -1}

    def test_an_image_of_another_size_has_positions_as_in_transformers(self, first: Case):
        self.compare(first.ours, first.theirs, image_of(OTHER))

    def test_names_of_old_and_new_are_one_model(self, first: Case, tmp_path: Path):
        """The Hub's names, which transformers writes; and those that it has in memory, which it writes on request."""
        first.theirs.save_pretrained(tmp_path, save_original_format=False)
        hub, memory = (load_file(folder / "model.safetensors").keys() for folder in (first.folder, tmp_path))
        assert hub != memory
        assert eqx.tree_equal(first.ours, bridge.models.from_pretrained(tmp_path))

    def test_saved_by_rules_the_keys_are_the_hubs(self, each: Case, tmp_path: Path):
        bridge.save(each.ours, tmp_path, rules(each.ours.config))
        keys = [load_file(folder / "model.safetensors").keys() for folder in (each.folder, tmp_path)]
        assert keys[0] == keys[1]


@pytest.mark.torch
class TestDinov2(Dinov2Contract):
    model_type = "dinov2"
    kind = "Dinov2Model"
    variants = {
        "odd": ODD,
        "gated, no mask, no biases, one channel": ODD
        | {
            "use_swiglu_ffn": True,
            "use_mask_token": False,
            "qkv_bias": False,
            "num_channels": 1,
            "layer_norm_eps": 1e-3,
            "num_hidden_layers": 1,
        },
    }


@pytest.mark.torch
class TestDinov2WithRegisters(Dinov2Contract):
    model_type = "dinov2_with_registers"
    kind = "Dinov2WithRegistersForImageClassification"
    variants = {"gated, three registers": ODD | {"use_swiglu_ffn": True, "num_register_tokens": 3, "num_labels": 5}}


@pytest.mark.torch
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("new", [(3, 11), (12, 7), (5, 9)])
def test_a_grid_is_interpolated_as_in_torch(new: tuple[int, int], antialias: bool):
    import torch

    grid = np.random.default_rng(2).standard_normal((5, 9, 2))
    rows, columns = (bicubic_weights(*each, antialias=antialias) for each in zip((5, 9), new, strict=True))
    tensor = torch.tensor(grid).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(tensor, new, mode="bicubic", align_corners=False, antialias=antialias)[
        0
    ].permute(1, 2, 0)
    found = np.einsum("yh,xw,hwd->yxd", rows, columns, grid)
    assert np.abs(found - expected.numpy()).max() < 1e-12
    single = bicubic(jnp.asarray(grid, jnp.float32), new, antialias=antialias)
    assert np.abs(np.asarray(single) - found).max() < 1e-6


@pytest.mark.parametrize("antialias", [False, True])
def test_of_as_many_places_each_is_its_own(antialias: bool):
    np.testing.assert_array_equal(bicubic_weights(6, 6, antialias=antialias), np.eye(6))


@pytest.mark.parametrize("image", [jnp.zeros((3, 3, 9)), jnp.zeros((1, 9, 9)), jnp.zeros((3, 9, 9), jnp.uint8)])
def test_an_image_that_is_not_prepared_is_an_error(image: jax.Array):
    model = eqx.filter_eval_shape(Dinov2, Config.from_dict(ODD), key=jax.random.key(0))
    with pytest.raises(bridge.BridgeError) as caught:
        model(image)
    assert caught.value.statement == (
        f"an image of shape {image.shape} and dtype {image.dtype} does not fit Dinov2, which takes (3, h, w) of floats, h from 4 "
        "and w from 4 up"
    )
