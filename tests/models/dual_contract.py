"""What two encoders whose vectors are compared must show against transformers: together, and either alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from bridge.cli.main import main
from bridge.models._pretrained import architecture
from bridge.models.classify import ImageClassifier, classifier
from bridge.models.dual import DualEncoder
from bridge.models.images import ImageProcessor
from tests.models.contract import Case, Contract, compiled
from tests.models.test_vit import ImageContract

IMAGES, TEXTS, SEQ = 2, 3, 11
LABELS = {0: "good", 1: "bad", 2: "neither"}
TEXT: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 13,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 29,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 28,
    "image_size": 11,  # two columns and two rows are left over
    "patch_size": 3,
}


def some_images(config: Any, rng: np.random.Generator) -> np.ndarray:
    shape = (IMAGES, config.num_channels, config.image_size, config.image_size)
    return rng.standard_normal(shape).astype(np.float32)


def some_texts(config: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of one length each, padding behind; two have the token that ends them, one has it twice."""
    tokens = rng.integers(3, 28, (TEXTS, SEQ), np.int32)
    tokens[0, [4, 6]] = tokens[1, -1] = 29
    tokens[2, 7:] = config.pad_token_id
    return tokens, (tokens != config.pad_token_id).astype(np.int32)


class DualContract(Contract):
    """For models of images and texts. `alone`: classes of transformers that hold one encoder."""

    alone: ClassVar[Mapping[str, Mapping[str, Any]]]

    @classmethod
    def example(cls, config: Any, seed: int = 1) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(seed)
        return (some_images(config.vision_config, rng), *some_texts(config.text_config, rng))

    @staticmethod
    def run(model: Any, *example: jax.Array) -> dict[str, jax.Array]:
        images, tokens, masks = example
        of_images, of_texts = jax.vmap(model.image)(images), jax.vmap(model.text)(tokens, masks)
        return {
            "image states": jax.vmap(model.vision_model.hidden_states)(images),
            "text states": jax.vmap(model.text_model.hidden_states)(tokens, masks),
            "images": of_images,
            "texts": of_texts,
            "logits": model.logits(of_images, of_texts),
        }

    @staticmethod
    def judge(model: Any, *example: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        images, tokens, masks = map(torch.tensor, example)
        with torch.no_grad():
            out = model(tokens, images, masks, output_hidden_states=True)
        found = {
            "image states": torch.stack(out.vision_model_output.hidden_states, 1),
            "text states": torch.stack(out.text_model_output.hidden_states, 1),
            "images": out.vision_model_output.pooler_output,
            "texts": out.text_model_output.pooler_output,
            "logits": out.logits_per_image,
        }
        return {name: value.float().numpy() for name, value in found.items()}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        super().pytest_generate_tests(metafunc)
        if "one" in metafunc.fixturenames:
            metafunc.parametrize("one", list(self.alone))

    def test_names_in_memory_and_of_old_files_are_read(self, first: Case, tmp_path: Path):
        first.theirs.save_pretrained(tmp_path, save_original_format=False)
        tensors = load_file(tmp_path / "model.safetensors")
        for name in ("text_model", "vision_model"):
            tensors[f"{name}.embeddings.position_ids"] = np.arange(4)[None]
        save_file(tensors, tmp_path / "model.safetensors")
        ours = bridge.models.from_pretrained(tmp_path)
        assert all(map(np.array_equal, jax.tree.leaves(ours), jax.tree.leaves(first.ours)))

    def test_a_text_too_long_is_an_error(self, first: Case):
        with pytest.raises(bridge.BridgeError, match="14 tokens are more than the 13 that"):
            first.ours.text(np.zeros(14, np.int32))

    def test_either_encoder_alone_equals_transformers_and_goes_back(self, one: str, tmp_path: Path):
        theirs = self.saved(tmp_path / "theirs", one, **self.alone[one])
        ours = bridge.models.from_pretrained(tmp_path / "theirs")
        rng = np.random.default_rng(0)
        text = "Text" in one
        example = some_texts(theirs.config, rng) if text else (some_images(theirs.config, rng),)
        found = compiled(lambda model, *each: {"vectors": jax.vmap(model.vector)(*each)}, ours, *example)["vectors"]
        expected = vectors_of(theirs, *example)
        assert found.shape == expected.shape
        assert np.abs(np.asarray(found) - expected).max() < 1e-5
        module, kind, config = architecture(tmp_path / "theirs")
        assert (type(ours), ours.config) == (kind, config)
        bridge.save(ours, tmp_path / "ours", module.rules(config))
        keys = load_file(tmp_path / "ours/model.safetensors").keys()
        assert all(key.startswith(("text_", "vision_", "visual_")) for key in keys)  # as the Hub has them
        (tmp_path / "ours/config.json").write_bytes((tmp_path / "theirs/config.json").read_bytes())
        again, report = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True)
        assert not self.lost(report)
        stored = theirs.state_dict()
        assert all(tensor.equal(stored[name]) for name, tensor in again.state_dict().items())
        back = bridge.models.from_pretrained(tmp_path / "ours")
        assert all(map(np.array_equal, jax.tree.leaves(back), jax.tree.leaves(ours)))


class DualClassifierContract(ImageContract):
    """For the encoder of images alone, with a classifier."""

    refused = {"vision_config.hidden_act": "swish", "vision_config.patch_size": 12, "id2label": 3}

    @classmethod
    def example(cls, config: Any, seed: int = 1) -> tuple[np.ndarray, ...]:
        return (some_images(config.vision_config, np.random.default_rng(seed))[0],)

    def test_labels_go_on_images_in_python_and_on_the_command_line(
        self, first: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        for path in first.folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        size = first.theirs.config.vision_config.image_size
        prepared = {"image_processor_type": "SiglipImageProcessor", "size": {"height": size, "width": size}}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(prepared))
        picture = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / "a.png")
        ours = classifier(tmp_path)
        assert isinstance(ours, ImageClassifier)
        found = ours(tmp_path / "a.png")
        pixels = ImageProcessor.from_pretrained(tmp_path)(picture)
        logits = self.judge(first.theirs, pixels)["logits"]
        expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert list(found["scores"]) == list(LABELS.values())
        assert np.abs(np.asarray(list(found["scores"].values())) - expected).max() < 1e-5
        assert main(["classify", str(tmp_path), str(tmp_path / "a.png"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["label"] == found["label"] == LABELS[int(logits.argmax())]

    def test_a_classifier_that_nobody_wants_is_left_behind_only_by_name(self, first: Case):
        alone = bridge.models.from_pretrained(first.folder, allow_unexpected=["classifier.**"])
        assert (alone.head, alone.config.labels) == (None, ())
        assert first.ours.head is not None

    def test_a_converted_checkpoint_is_the_same_model(self, first: Case, tmp_path: Path):
        rules = architecture(first.folder)[0].rules(first.ours.config)
        bridge.convert(first.folder, tmp_path, first.ours, rules)
        (tmp_path / "config.json").write_bytes((first.folder / "config.json").read_bytes())
        again = bridge.models.from_pretrained(tmp_path)
        assert again.config == first.ours.config
        assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(first.ours)))

    def test_of_the_same_config_the_model_of_both_encoders_is_another(self, first: Case, tmp_path: Path):
        """`architectures` says which."""
        fields = json.loads((first.folder / "config.json").read_text())
        fields["architectures"] = [first.theirs.config_class.__name__.replace("Config", "Model")]
        (tmp_path / "config.json").write_text(json.dumps(fields))
        (tmp_path / "model.safetensors").write_bytes((first.folder / "model.safetensors").read_bytes())
        _, kind, config = architecture(tmp_path)
        assert issubclass(kind, DualEncoder)
        assert config.vision_config.labels == ()


def vectors_of(model: Any, *example: np.ndarray) -> np.ndarray:
    """Of one encoder of transformers: projected, if it has a projection."""
    import torch

    with torch.no_grad():
        out = model(*map(torch.tensor, example))
    return next(out[name] for name in ("text_embeds", "image_embeds", "pooler_output") if name in out).numpy()
