"""ViT against transformers: small random ones of odd sizes, images and patches that are no squares."""

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
from bridge.models.vit import Config, ViT, rules

torch_is_judge = pytest.mark.torch

ODD: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "image_size": [9, 14],  # one row and two columns are left over
    "patch_size": [4, 3],
}
VARIANTS: dict[str, dict[str, Any]] = {
    "odd": {},
    "square, one channel": {"image_size": 8, "patch_size": 2, "num_channels": 1, "intermediate_size": 24},
    "no biases": {"qkv_bias": False, "layer_norm_eps": 1e-3},
    "another pooler": {"pooler_output_size": 7, "pooler_act": "relu"},
    "gelu_new": {"hidden_act": "gelu_new", "num_hidden_layers": 1},
    "silu": {"hidden_act": "silu", "num_hidden_layers": 1},
}


def saved(folder: Path, kind: str = "ViTModel", **fields: Any) -> Any:
    """A random model that transformers saved, as it is there."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(**ODD | fields)
    config._attn_implementation = "eager"
    model = getattr(transformers, kind)(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    return model


def loaded(folder: Path, *, pooler: bool = True, classifier: bool = False, **options: Any) -> ViT:
    config = Config.from_file(folder / "config.json", pooler=pooler, classifier=classifier)
    like = eqx.filter_eval_shape(ViT, config, key=jax.random.key(0))
    return bridge.load(folder, like, rules(config), **options)


def picture(config: Any) -> np.ndarray:
    shape = (config.num_channels, *np.broadcast_to(np.asarray(config.image_size), 2))
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@eqx.filter_jit
def run(model: ViT, image: jax.Array) -> tuple[jax.Array | None, ...]:
    last = model(image)
    pooled = None if model.pooler is None else model.pooled(last)
    logits = None if model.classifier is None else model.logits(last)
    return last, model.hidden_states(image), pooled, logits


def compare(ours: ViT, model: Any) -> None:
    """Every layer's hidden states, the normalised last, and what the heads make of it."""
    import torch

    image = picture(ours.config)
    with torch.no_grad():
        expected = model(torch.tensor(image)[None], output_hidden_states=True)
    last, states, pooled, logits = run(ours, jnp.asarray(image))
    assert states is not None
    assert len(states) == len(expected.hidden_states) == ours.config.num_hidden_layers + 1
    pairs = [*zip(states, expected.hidden_states, strict=True)]
    if "logits" in expected:
        pairs.append((logits, expected.logits))
    else:
        pairs += [(last, expected.last_hidden_state), (pooled, expected.pooler_output)]
    for mine, wanted in pairs:
        assert mine.shape == wanted.shape[1:]
        assert np.abs(np.asarray(mine) - wanted[0].numpy()).max() < 1e-5


@torch_is_judge
@pytest.mark.parametrize("name", VARIANTS)
def test_every_layer_equals_transformers(tmp_path: Path, name: str):
    compare_with = saved(tmp_path, **VARIANTS[name])
    compare(loaded(tmp_path), compare_with)


@torch_is_judge
@pytest.mark.parametrize("labels", [2, 5])
def test_a_classifier_equals_transformers(tmp_path: Path, labels: int):
    model = saved(tmp_path, "ViTForImageClassification", num_labels=labels)
    ours = loaded(tmp_path, pooler=False, classifier=True)
    assert ours.config.num_labels == labels
    compare(ours, model)


@torch_is_judge
def test_the_encoder_of_a_pretrained_model_loads(tmp_path: Path):
    model = saved(tmp_path, "ViTForMaskedImageModeling", image_size=8, patch_size=4, encoder_stride=4)
    ours, image = loaded(tmp_path, pooler=False), picture(model.config)
    import torch

    with torch.no_grad():
        expected = model.vit(torch.tensor(image)[None]).last_hidden_state[0].numpy()
    assert np.abs(np.asarray(ours(jnp.asarray(image))) - expected).max() < 1e-5


@torch_is_judge
def test_a_classifier_that_nobody_wants_is_left_behind_only_by_name(tmp_path: Path):
    saved(tmp_path, "ViTForImageClassification")
    with pytest.raises(bridge.PlanError) as caught:
        loaded(tmp_path, pooler=False)
    assert set(caught.value.unexpected) == {"classifier.weight", "classifier.bias"}
    assert loaded(tmp_path, pooler=False, allow_unexpected=["classifier.**"]).classifier is None


@torch_is_judge
def test_names_of_old_and_new_are_one_model(tmp_path: Path):
    """The Hub's names, which transformers writes; and those that it has in memory, which it writes on request."""
    model = saved(tmp_path / "hub")
    model.save_pretrained(tmp_path / "memory", save_original_format=False)
    hub, memory = (load_file(tmp_path / name / "model.safetensors").keys() for name in ("hub", "memory"))
    assert "encoder.layer.0.attention.attention.query.weight" in hub
    assert "layers.0.attention.q_proj.weight" in memory
    assert eqx.tree_equal(loaded(tmp_path / "hub"), loaded(tmp_path / "memory"))
    compare(loaded(tmp_path / "memory"), model)


@torch_is_judge
@pytest.mark.parametrize("by_plan", [True, False])
def test_what_we_save_transformers_loads(tmp_path: Path, by_plan: bool):
    from transformers import ViTModel

    saved(tmp_path)
    tuned = jax.tree.map(lambda x: x * 1.5, loaded(tmp_path))
    how = rules(tuned.config)
    bridge.save(tuned, tmp_path / "tuned", bridge.plan(tmp_path, tuned, how) if by_plan else how)
    assert (
        load_file(tmp_path / "tuned" / "model.safetensors").keys() == load_file(tmp_path / "model.safetensors").keys()
    )
    (tmp_path / "tuned" / "config.json").write_text((tmp_path / "config.json").read_text())
    model, report = ViTModel.from_pretrained(tmp_path / "tuned", attn_implementation="eager", output_loading_info=True)
    assert not any(report.values())
    compare(tuned, model.eval())


@torch_is_judge
def test_bfloat16_is_as_near_to_the_truth_as_torch_is(tmp_path: Path):
    import torch

    model = saved(tmp_path)
    image = picture(model.config)
    with torch.no_grad():
        truth = model(torch.tensor(image)[None]).last_hidden_state[0].numpy()
        torchs = model.to(torch.bfloat16)(torch.tensor(image)[None]).last_hidden_state[0].float().numpy()
    ours = loaded(tmp_path, dtype=jnp.bfloat16)(jnp.asarray(image))
    assert ours.dtype == jnp.bfloat16
    assert np.abs(np.asarray(ours, np.float32) - truth).mean() < 1.5 * np.abs(torchs - truth).mean()


@torch_is_judge
def test_a_batch_is_a_vmap(tmp_path: Path):
    saved(tmp_path)
    model = loaded(tmp_path)
    images = jnp.asarray(np.random.default_rng(2).standard_normal((2, 3, 9, 14), np.float32))
    batch = jax.vmap(model)(images)
    assert batch.shape == (2, 9, 24)
    assert float(jnp.abs(batch[1] - model(images[1])).max()) < 1e-5


@pytest.mark.parametrize("image", [jnp.zeros((3, 14, 9)), jnp.zeros((1, 3, 9, 14)), jnp.zeros((3, 9, 14), jnp.uint8)])
def test_an_image_that_is_not_prepared_is_an_error(image: jax.Array):
    model = eqx.filter_eval_shape(ViT, Config.from_dict(ODD), key=jax.random.key(0))
    with pytest.raises(bridge.BridgeError) as caught:
        model(image)
    assert str(caught.value) == (
        f"ViT takes an image of shape (3, 9, 14) and floats, and got {image.shape} of {image.dtype}: prepare it as the "
        "checkpoint's preprocessor_config.json says, and batches by jax.vmap."
    )


def test_a_head_that_is_not_there_is_an_error():
    model = eqx.filter_eval_shape(ViT, Config.from_dict(ODD, pooler=False), key=jax.random.key(0))
    for call, head in ((model.pooled, "pooler"), (model.logits, "classifier")):
        with pytest.raises(bridge.BridgeError) as caught:
            call(jnp.zeros((9, 24)))
        assert str(caught.value) == (f"this ViT has no {head}. Make it with one: Config.from_dict(…, {head}=True).")


REFUSED: dict[str, dict[str, Any]] = {
    '"swish"; this model implements "gelu" or "gelu_new" or "gelu_pytorch_tanh" or "relu" or "silu"': {
        "hidden_act": "swish"
    },
    "[4, 3, 2]; this model implements a whole number from 1 up, or two of them": {"patch_size": [4, 3, 2]},
    "[9, true]; this model implements a whole number from 1 up, or two of them": {"image_size": [9, True]},
    "0; this model implements a whole number from 1 up, or two of them": {"image_size": 0},
    "[10, 3]; this model implements at most [9, 14], the image": {"patch_size": [10, 3]},
    "1; this model implements true or false": {"qkv_bias": 1},
    "5; this model implements a divisor of 24": {"num_attention_heads": 5},
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_value_that_is_not_implemented_is_refused(text: str):
    (field,) = REFUSED[text]
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_dict(ODD | REFUSED[text])
    assert str(caught.value) == f"'config.json': field '{field}' is {text}."


def test_labels_are_counted():
    assert Config.from_dict(ODD, classifier=True).num_labels == 2
    assert Config.from_dict(ODD | {"num_labels": 7}, classifier=True).num_labels == 7
    assert Config.from_dict(ODD | {"id2label": {"0": "a", "1": "b", "2": "c"}}, classifier=True).num_labels == 3
    assert Config.from_dict(ODD | {"id2label": {"0": "a"}}).num_labels == 0
    with pytest.raises(bridge.CheckpointError, match="field 'id2label' is 3"):
        Config.from_dict(ODD | {"id2label": 3}, classifier=True)
