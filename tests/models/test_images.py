"""Images prepared as transformers prepares them with pillow, bit for bit; and what they are classified as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bridge
from bridge.cli.main import main
from bridge.models import vit
from bridge.models.classify import ImageClassifier
from bridge.models.images import ImageProcessor
from tests.models.random_model import random_model

SHAPES = [(41, 67), (90, 30), (16, 16), (7, 9)]
"""Wide, tall, square, and smaller than what is cut out."""
EDGES = {"height": 20, "width": 24}
FILES: dict[str, dict[str, Any]] = {
    "ViT, its size a number": {"image_processor_type": "ViTFeatureExtractor", "size": 20},
    "ViT, nothing left out": {
        "image_processor_type": "ViTImageProcessorFast",
        "size": EDGES,
        "resample": 0,
        "do_convert_rgb": None,
        "data_format": "channels_first",
        "device": None,
        "disable_grouping": None,
    },
    "CLIP": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 24, "crop_size": 20, "resample": 3},
    "CLIP, of odd sizes": {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 13},
        "crop_size": {"height": 15, "width": 19},
        "do_convert_rgb": True,
    },
    "CLIP, cut alone": {"image_processor_type": "CLIPImageProcessor", "do_resize": False, "crop_size": 21},
    "SigLIP": {"image_processor_type": "SiglipImageProcessor", "size": EDGES, "rescale_factor": 0.00784},
    "SigLIP, its size a number": {"image_processor_type": "SiglipImageProcessorFast", "size": 21, "resample": 1},
    "DINOv2": {
        "image_processor_type": "BitImageProcessor",
        "size": {"shortest_edge": 25},
        "crop_size": {"height": 22, "width": 22},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 4,
    },
    "ConvNeXt, cut": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 21}, "crop_pct": 0.9},
    "ConvNeXt, of 384": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 384, "resample": 5},
    "ConvNeXt, as it is": {"image_processor_type": "ConvNextImageProcessor", "do_resize": False},
    "not rescaled": {"image_processor_type": "ViTImageProcessor", "size": 20, "do_rescale": False},
    "not normalised": {"image_processor_type": "ViTImageProcessor", "size": 20, "do_normalize": False},
}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Random, and smooth enough for filters to matter."""
    rng = np.random.default_rng(height * width)
    small = rng.integers(0, 256, (max(2, height // 4), max(2, width // 4), 4), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def theirs(data: dict[str, Any]) -> Any:
    """transformers' own, the one that computes with pillow."""
    import transformers

    kind = data.get("image_processor_type") or data["feature_extractor_type"]
    for end in ("ImageProcessorFast", "FeatureExtractor", "ImageProcessor"):
        kind = kind.removesuffix(end)
    return getattr(transformers, f"{kind}ImageProcessorPil").from_dict(data)


@pytest.mark.torch
@pytest.mark.parametrize("what", FILES)
def test_the_bits_of_transformers(what: str):
    ours, judge = ImageProcessor.from_dict(FILES[what]), theirs(FILES[what])
    for shape in SHAPES:
        image = picture(*shape)
        expected = judge(image, return_tensors="np")["pixel_values"][0]
        found = ours(image)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        np.testing.assert_array_equal(ours(np.asarray(image)), found)


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_other_modes_become_rgb(mode: str):
    data = {"image_processor_type": "CLIPImageProcessor", "size": 20, "crop_size": 20}
    image = picture(30, 40, mode)
    expected = theirs(data)(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(ImageProcessor.from_dict(data)(image), expected)


@pytest.mark.torch
def test_arrays_of_other_channels():
    """What is transparent in an array transformers rounds otherwise than pillow: by one of 255 at most."""
    data = {"image_processor_type": "BitImageProcessor", "do_resize": False, "crop_size": 20}
    data |= {"do_normalize": False, "do_rescale": False}
    ours, judge = ImageProcessor.from_dict(data), theirs(data)
    rgba = np.asarray(picture(20, 20, "RGBA"))
    assert np.ptp(rgba[..., 3]) > 100
    expected = judge(rgba, return_tensors="np")["pixel_values"][0]
    assert np.abs(ours(rgba) - expected.astype(np.float32)).max() <= 1
    grey = np.asarray(picture(20, 20, "L"))
    np.testing.assert_array_equal(ours(grey), judge(grey[..., None], return_tensors="np")["pixel_values"][0])
    np.testing.assert_array_equal(ours(grey[..., None]), ours(grey))


def test_a_file_is_turned_upright(tmp_path: Path):
    ours = ImageProcessor(rescale=1.0)
    image = picture(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(ours(tmp_path / "a.png"), ours(np.rot90(np.asarray(image), -1)))
    image.save(tmp_path / "b.png")
    np.testing.assert_array_equal(ours(str(tmp_path / "b.png")), ours(image))


@pytest.mark.parametrize(
    ("model_type", "fields", "as_if"),
    [
        ("vit", {"size": 20}, "ViTImageProcessor"),
        ("dinov2", {"size": {"shortest_edge": 25}, "crop_size": 22}, "BitImageProcessor"),
        ("resnet", {"size": 224, "crop_pct": 0.875}, "ConvNextImageProcessor"),
        ("convnext", {}, "ConvNextImageProcessor"),
        ("siglip", {}, "SiglipImageProcessor"),
        ("clip", {}, "CLIPImageProcessor"),
    ],
)
def test_an_old_file_is_of_its_model(model_type: str, fields: dict[str, Any], as_if: str):
    fields |= IMAGENET
    named = ImageProcessor.from_dict({"image_processor_type": as_if, **fields})
    assert ImageProcessor.from_dict(fields, model_type=model_type) == named


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"image_processor_type": "DetrImageProcessor"}, "'image_processor_type' is \"DetrImageProcessor\""),
        ({"feature_extractor_type": "BeitFeatureExtractor"}, "'feature_extractor_type' is \"BeitFeatureExtractor\""),
        ({}, "'image_processor_type' is null"),
        ({"size": {"shortest_edge": 20, "longest_edge": 90}}, "'size.longest_edge' is 90"),
        ({"size": {"height": 20}}, "lacks field 'size.width'"),
        ({"size": 100_000}, "'size' is 100000"),
        ({"do_center_crop": True, "crop_size": {"shortest_edge": 20}}, "'crop_size' is"),
        ({"do_center_crop": True}, "lacks field 'crop_size'"),
        ({"resample": 6}, "'resample' is 6"),
        ({"image_mean": [0.5]}, "'image_mean' is [0.5]"),
        ({"image_mean": "x"}, "'image_mean' is \"x\""),
        ({"image_std": [0.5, 0, 1]}, "'image_std' is"),
        ({"do_pad": True}, "'do_pad' is true"),
        ({"data_format": "channels_last"}, "'data_format' is"),
        ({"do_flip": True}, "'do_flip' is true"),
        ({"image_processor_type": "ConvNextImageProcessor", "size": {"height": 20, "width": 20}}, "'size' is"),
        ({"image_processor_type": "ConvNextImageProcessor", "do_center_crop": True}, "'do_center_crop' is true"),
    ],
)
def test_what_is_not_implemented_is_named(fields: dict[str, Any], named: str):
    typed = {"image_processor_type": "ViTImageProcessor"} if fields and "feature_extractor_type" not in fields else {}
    with pytest.raises(bridge.CheckpointError) as error:
        ImageProcessor.from_dict(typed | fields)
    assert named in str(error.value)
    assert "preprocessor_config.json" in str(error.value)


def test_a_field_that_changes_nothing_is_ignored():
    data = {"image_processor_type": "ViTImageProcessor", "do_flip": True}
    assert ImageProcessor.from_dict(data, ignore=["do_flip"]).resize == (224, 224)


def test_what_is_no_image(tmp_path: Path):
    ours = ImageProcessor()
    (tmp_path / "a.png").write_bytes(b"no image")
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    picture(9, 9).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])
    for name in ("a.png", "a.eps", "cut.png", "none.png"):
        with pytest.raises(bridge.BridgeError, match=r"cannot be read as an image"):
            ours(tmp_path / name)
    for array in (np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 0, 3), np.uint8)):
        with pytest.raises(bridge.BridgeError, match=r"an array of shape .* cannot be read as an image"):
            ours(array)
    with pytest.raises(bridge.BridgeError, match="an image cannot be of type list"):
        ours([[0]])  # pyright: ignore[reportArgumentType]
    strict = ImageProcessor.from_dict({"image_processor_type": "ViTImageProcessor", "do_convert_rgb": False})
    assert strict(picture(9, 9)).shape == (3, 224, 224)
    with pytest.raises(bridge.BridgeError, match="an image of mode L"):
        strict(picture(9, 9, "L"))


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture(40, 40).save(tmp_path / "a.png")
    for most in (1000, 100):  # pillow warns, then refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        with pytest.raises(bridge.BridgeError, match="cannot be read as an image"):
            ImageProcessor()(tmp_path / "a.png")


# ---- labels

FIELDS: dict[str, Any] = {
    "model_type": "vit",
    "architectures": ["ViTForImageClassification"],
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "image_size": 16,
    "patch_size": 8,
    "id2label": {"0": "cat", "1": "dog", "2": "newt"},
}
PREPARED = {"image_processor_type": "ViTImageProcessor", "size": 16}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    config = vit.Config.from_dict(FIELDS, pooler=False, head=True)
    bridge.save(random_model(vit.ViT, config), folder, vit.rules(config))
    (folder / "config.json").write_text(json.dumps(FIELDS))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    picture(40, 30).save(folder / "a.png")
    return folder


@pytest.mark.torch
def test_the_labels_that_transformers_gives(classifier: Path, capsys: pytest.CaptureFixture[str]):
    import torch
    import transformers

    ours = ImageClassifier.from_pretrained(classifier)
    assert ours.model.config.labels == ours.labels == ("cat", "dog", "newt")
    found = ours(classifier / "a.png")
    model = transformers.ViTForImageClassification.from_pretrained(classifier)
    pixels = theirs(PREPARED)(Image.open(classifier / "a.png"), return_tensors="pt")
    with torch.no_grad():
        expected = model(**pixels).logits[0].softmax(0)
    np.testing.assert_allclose(list(found["scores"].values()), expected.numpy(), atol=1e-6)
    assert found["label"] == model.config.id2label[int(expected.argmax())]
    path = str(classifier / "a.png")
    assert main(["classify", str(classifier), path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"image": path, **found}]
    assert main(["classify", str(classifier), path]) == 0
    assert found["label"] in capsys.readouterr().out


def test_where_files_lie(classifier: Path, tmp_path: Path):
    """transformers 5 may write what prepares images into processor_config.json, and that comes first."""
    with bridge.open(classifier) as ckpt:
        assert ImageProcessor.from_pretrained(ckpt) == ImageProcessor.from_file(classifier / "preprocessor_config.json")
        assert len(ckpt) > 0  # still open
    (tmp_path / "model.safetensors").write_bytes((classifier / "model.safetensors").read_bytes())
    with pytest.raises(bridge.CheckpointError, match=r"preprocessor_config.json' does not exist"):
        ImageProcessor.from_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPARED))
    nested = {"image_processor": PREPARED | {"size": 18}, "processor_class": "CLIPProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert ImageProcessor.from_pretrained(tmp_path).resize == (18, 18)
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    assert ImageProcessor.from_pretrained(tmp_path).resize == (16, 16)


def test_labels_that_do_not_exclude_each_other(classifier: Path, tmp_path: Path):
    for path in classifier.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(FIELDS | {"problem_type": "multi_label_classification"}))
    several = ImageClassifier.from_pretrained(tmp_path)("".join((str(tmp_path), "/a.png")))["scores"]
    one = ImageClassifier.from_pretrained(classifier)(classifier / "a.png")["scores"]
    odds = np.array([score / (1 - score) for score in several.values()])
    np.testing.assert_allclose(odds / odds.sum(), list(one.values()), rtol=1e-4)


def test_a_model_without_labels(classifier: Path, tmp_path: Path):
    config = vit.Config.from_dict(FIELDS, pooler=False)
    bridge.save(random_model(vit.ViT, config), tmp_path, vit.rules(config))
    (tmp_path / "config.json").write_text(json.dumps(FIELDS))
    with pytest.raises(bridge.CheckpointError, match="this ViT has no head that classifies images"):
        ImageClassifier.from_pretrained(tmp_path)
