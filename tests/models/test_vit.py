"""ViT: images and patches that are no squares, with and without heads, keys in old spelling and new."""

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
from bridge.models.vit import Config, ViT, rules
from tests.errors.promised import text_of
from tests.models.contract import Case, Contract

ODD: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": [9, 14],  # one row and two columns are left over
    "patch_size": [4, 3],
}


class ImageContract(Contract):
    """For models of images."""

    @classmethod
    def example(cls, config: Any, seed: int = 1) -> tuple[np.ndarray, ...]:
        shape = (config.num_channels, *np.broadcast_to(np.asarray(config.image_size), 2))
        return (np.random.default_rng(seed).standard_normal(shape).astype(np.float32),)

    @staticmethod
    def run(model: Any, *example: jax.Array) -> dict[str, jax.Array]:
        found = {"states": model.hidden_states(*example), "last": model(*example)}
        if model.head is not None:
            return {"states": found["states"], "logits": model.logits(found["last"])}
        return found if model.pooler is None else found | {"pooled": model.pooled(found["last"])}

    @staticmethod
    def judge(model: Any, *example: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        with torch.no_grad():
            out = model(torch.tensor(example[0])[None], output_hidden_states=True)
        found = {"last": out.get("last_hidden_state"), "pooled": out.get("pooler_output"), "logits": out.get("logits")}
        found = {name: x[0] for name, x in found.items() if x is not None}
        return {name: x.float().numpy() for name, x in (found | {"states": torch.cat(out.hidden_states)}).items()}


@pytest.mark.torch
class TestViT(ImageContract):
    model_type = "vit"
    kind = "ViTModel"
    variants = {
        "odd": ODD,
        "square, one channel": ODD
        | {"image_size": 8, "patch_size": 2, "num_channels": 1, "intermediate_size": 24, "hidden_act": "gelu_new"},
        "no biases, another pooler, one layer": ODD
        | {
            "qkv_bias": False,
            "layer_norm_eps": 1e-3,
            "pooler_output_size": 7,
            "pooler_act": "relu",
            "num_hidden_layers": 1,
            "hidden_act": "silu",
        },
    }
    refused = {"hidden_act": "swish", "pooler_act": "softmax", "patch_size": [4, 3, 2], "num_attention_heads": 5}

    def test_names_of_old_and_new_are_one_model(self, first: Case, tmp_path: Path):
        """The Hub's names, which transformers writes; and those that it has in memory, which it writes on request."""
        first.theirs.save_pretrained(tmp_path, save_original_format=False)
        hub, memory = (load_file(folder / "model.safetensors").keys() for folder in (first.folder, tmp_path))
        assert "encoder.layer.0.attention.attention.query.weight" in hub
        assert "layers.0.attention.q_proj.weight" in memory
        assert eqx.tree_equal(first.ours, bridge.models.from_pretrained(tmp_path))

    def test_saved_by_rules_the_keys_are_the_hubs(self, first: Case, tmp_path: Path):
        bridge.save(first.ours, tmp_path, rules(first.ours.config))
        keys = [load_file(folder / "model.safetensors").keys() for folder in (first.folder, tmp_path)]
        assert keys[0] == keys[1]

    def test_the_encoder_of_a_pretrained_model_loads(self, tmp_path: Path):
        fields = ODD | {"image_size": 8, "patch_size": 4, "encoder_stride": 4}
        theirs = self.saved(tmp_path, "ViTForMaskedImageModeling", **fields)
        ours = bridge.models.from_pretrained(tmp_path)
        self.compare(ours, theirs.vit, *self.example(theirs.config))


@pytest.mark.torch
class TestViTForImageClassification(ImageContract):
    model_type = "vit"
    kind = "ViTForImageClassification"
    variants = {"five labels": ODD | {"num_labels": 5}}
    refused = {"id2label": 3}

    def test_a_classifier_that_nobody_wants_is_left_behind_only_by_name(self, first: Case):
        config = Config.from_file(first.folder / "config.json", pooler=False)
        like = eqx.filter_eval_shape(ViT, config, key=jax.random.key(0))
        plan = bridge.plan(first.folder, like, rules(config))
        assert set(plan.unexpected) == {"classifier.weight", "classifier.bias"}
        assert bridge.plan(first.folder, like, rules(config), allow_unexpected=["classifier.**"]).ok
        assert bridge.models.from_pretrained(first.folder).head is not None
        assert bridge.models.from_pretrained(first.folder, allow_unexpected=["classifier.**"]).head is None


@pytest.mark.parametrize("image", [jnp.zeros((3, 14, 9)), jnp.zeros((1, 3, 9, 14)), jnp.zeros((3, 9, 14), jnp.uint8)])
def test_an_image_that_is_not_prepared_is_an_error(image: jax.Array):
    model = eqx.filter_eval_shape(ViT, Config.from_dict(ODD), key=jax.random.key(0))
    with pytest.raises(bridge.BridgeError) as caught:
        model(image)
    problem = (
        f"an image of shape {image.shape} and dtype {image.dtype} does not fit ViT, which takes (3, 9, 14) of floats"
    )
    assert caught.value.statement == problem


def test_a_head_that_is_not_there_is_an_error():
    model = eqx.filter_eval_shape(ViT, Config.from_dict(ODD, pooler=False), key=jax.random.key(0))
    for call, head in ((model.pooled, "pooler"), (model.logits, "head")):
        with pytest.raises(bridge.BridgeError) as caught:
            call(jnp.zeros((9, 24)))
        assert str(caught.value) == text_of(f"models: ViT without a {head}")


REFUSED: dict[str, dict[str, Any]] = {
    ('"swish", expected "gelu" or "gelu_new" or "gelu_pytorch_tanh" or "quick_gelu" or "relu" or "silu"'): {
        "hidden_act": "swish"
    },
    "[4, 3, 2], expected a whole number from 1 up, or two of them": {"patch_size": [4, 3, 2]},
    "[9, true], expected a whole number from 1 up, or two of them": {"image_size": [9, True]},
    "0, expected a whole number from 1 up, or two of them": {"image_size": 0},
    "[10, 3], expected at most [9, 14], the image": {"patch_size": [10, 3]},
    "1, expected true or false": {"qkv_bias": 1},
    "5, expected a divisor of 24": {"num_attention_heads": 5},
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_value_that_is_not_implemented_is_refused(text: str):
    (field,) = REFUSED[text]
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_dict(ODD | REFUSED[text])
    assert str(caught.value).startswith(f"'config.json': field '{field}' is {text}. ")


def test_labels_are_counted():
    assert Config.from_dict(ODD, head=True).num_labels == 2
    assert Config.from_dict(ODD | {"num_labels": 7}, head=True).num_labels == 7
    assert Config.from_dict(ODD | {"id2label": {"0": "a", "1": "b", "2": "c"}}, head=True).num_labels == 3
    assert Config.from_dict(ODD | {"id2label": {"0": "a"}}).num_labels == 0
    with pytest.raises(bridge.CheckpointError, match="field 'id2label' is 3"):
        Config.from_dict(ODD | {"id2label": 3}, head=True)
