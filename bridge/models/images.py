"""Prepares images for a model, as its preprocessor_config.json says, with numpy and pillow only.

processor = ImageProcessor.from_pretrained("google/vit-base-patch16-224")
pixels = processor("cat.jpg")  # float32 (c, h, w); a batch by np.stack
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import bridge
from bridge.models._beside import OPENING, optional_json
from bridge.models._fields import Fields
from bridge.models._json import read_json, safe

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageProcessor"]

_CLIP = {
    "crop_size": 224,
    "do_center_crop": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": {"shortest_edge": 224},
}
_HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_SQUARE = {"size": {"height": 224, "width": 224}}

# What transformers takes for fields that a file leaves out, by the type of processor.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "Bit": _CLIP,
    "CLIP": _CLIP,
    "ConvNext": {**_HALVES, "crop_pct": 224 / 256, "resample": 3, "size": {"shortest_edge": 384}},
    "Siglip": {**_HALVES, **_SQUARE, "resample": 3},
    "ViT": {**_HALVES, **_SQUARE, "default_to_square": True, "resample": 2},
}
_TYPES = {
    f"{kind}{end}": kind
    for kind in _DEFAULTS
    for end in ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
}
# Old files name no type: the model does.
_BY_MODEL = {
    "clip": "CLIP",
    "clip_vision_model": "CLIP",
    "convnext": "ConvNext",
    "dinov2": "Bit",
    "dinov2_with_registers": "Bit",
    "resnet": "ConvNext",
    "siglip": "Siglip",
    "siglip_vision_model": "Siglip",
    "vit": "ViT",
}
# Fields that say where a processor of transformers computes, what it wraps its result in, and what it gets.
_UNUSED = frozenset(
    {
        *("device", "disable_grouping", "feature_extractor_type", "image_processor_type", "image_seq_length"),
        *("input_data_format", "pad_size", "processor_class", "return_tensors"),
    }
)
_MOST = 1 << 13  # pixels of an edge: a config of a few bytes asks for no more memory than that


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """The steps that prepare an image for a model. `from_pretrained` reads them from a checkpoint's config.

    - `resize`: the new height and width, or the new length of the shorter edge; `None`: no resizing.
    - `resample`: the filter by pillow's number: 2 is bilinear, 3 is bicubic.
    - `crop`: the height and width of a crop from the middle; a smaller image is padded with zeros. `None`: no crop.
    - `rescale`: the factor of pixels, which are 0 to 255. `mean`, `std`: for each channel the mean, which is
        subtracted, and the standard deviation, by which the result is divided.
    - `rgb`: whether to convert images of other modes to RGB, with transparent pixels on white. If not, such images are
        an error.

    ```python
    processor = ImageProcessor(resize=256, crop=(224, 224), rescale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = processor(np.zeros((480, 640, 3), np.uint8))  # (3, 224, 224)
    ```
    """

    resize: int | tuple[int, int] | None = None
    resample: int = 2
    crop: tuple[int, int] | None = None
    rescale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    rgb: bool = True

    @classmethod
    def from_pretrained(cls, source: Any, *, ignore: Collection[str] = (), **options: Any) -> Self:
        """The processor of a checkpoint, from its preprocessor_config.json or the `image_processor` of its
        processor_config.json.

        **Arguments:**

        - `source`: a folder, a Hub repo id, or anything else that `bridge.open` takes.
        - `ignore`: unknown fields that change nothing.
        - `options`: keywords of `bridge.open`.

        **Raises:** `bridge.CheckpointError` if there is no such file, and for an unknown type of processor, field or
        value.
        """
        ckpt = bridge.open(source, **{name: options[name] for name in OPENING if name in options})
        try:
            folder, config = ckpt.source.rstrip("/"), optional_json(ckpt, "config.json")
            kind = config.get("model_type") if isinstance(config, Mapping) else None
            whole = optional_json(ckpt, "processor_config.json")
            if isinstance(whole, Mapping) and isinstance(whole.get("image_processor"), Mapping):
                name = f"{folder}/processor_config.json"
                return cls.from_dict(whole["image_processor"], ignore=ignore, name=name, model_type=kind)
            data, name = optional_json(ckpt, "preprocessor_config.json"), f"{folder}/preprocessor_config.json"
        finally:
            if ckpt is not source:
                ckpt.close()
        if data is None:
            raise bridge.CheckpointError(
                f"'{safe(name)}'",
                "does not exist: it says how images are prepared for the model",
                "Fetch it too, or give an ImageProcessor of your own",
            )
        return cls.from_dict(data, ignore=ignore, name=name, model_type=kind)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, ignore: Collection[str] = (), model_type: str | None = None
    ) -> Self:
        """Make a processor from a preprocessor_config.json. Arguments and errors as for `from_dict`."""
        return cls.from_dict(read_json(path), ignore=ignore, name=os.fspath(path), model_type=model_type)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        ignore: Collection[str] = (),
        name: str = "preprocessor_config.json",
        model_type: str | None = None,
    ) -> Self:
        """Make a processor from the fields of a preprocessor_config.json.

        **Arguments:**

        - `data`: the fields, as transformers writes them, or wrote them in earlier releases.
        - `ignore`: unknown fields that change nothing.
        - `name`: the name of the file in messages.
        - `model_type`: the `model_type` of config.json, for files that name no type of processor.

        **Raises:** `bridge.CheckpointError` that names a field which is unknown or has a value that is not implemented.
        """
        if isinstance(data, Mapping):  # null is what a file leaves out
            data = {field: value for field, value in data.items() if value is not None}
        fields = Fields(data, name=name, ignore=ignore, advice="Correct the field, or make an ImageProcessor yourself")
        both = ("image_processor_type", "feature_extractor_type")
        told = next((field for field in both if field in data), both[0])
        kind = _TYPES.get(str(data[told])) if told in data else _BY_MODEL.get(str(model_type))
        if kind is None:
            fields.refuse(told, data.get(told), " or ".join(f"{each}ImageProcessor" for each in _DEFAULTS))
        fields.fill(_DEFAULTS[kind])
        return cls(**_steps(kind, fields))

    def __call__(self, image: Image | np.ndarray | str | os.PathLike[str]) -> np.ndarray:
        """Prepare one image.

        **Arguments:**

        - `image`: an image of pillow, a uint8 array of shape (h, w, c) or (h, w), or the path of a file. The image of a
          file is rotated as its EXIF data say.

        **Returns:** a float32 array of shape (c, h, w).

        **Raises:** `bridge.BridgeError` for an argument that is no image, and if pillow is not installed.
        """
        from bridge.models._pixels import cropped, opened, resized  # pillow is an extra

        picture = opened(image, rgb=self.rgb)
        if self.resize is not None:
            picture = resized(picture, self._size(picture.height, picture.width), self.resample)
        pixels = np.moveaxis(np.asarray(picture), -1, 0)
        if self.crop is not None:
            pixels = cropped(pixels, self.crop)
        # The order of roundings is transformers', so that the bits are, too.
        scaled = pixels if self.rescale is None else pixels.astype(np.float64) * self.rescale
        made = scaled.astype(np.float32)
        if self.mean is not None and self.std is not None:
            mean, std = (np.array(each, np.float32)[:, None, None] for each in (self.mean, self.std))
            made = (made - mean) / std
        return np.ascontiguousarray(made)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of these is resized to."""
        if isinstance(self.resize, tuple):
            return self.resize
        short = self.resize or 0
        longer = int(short * max(height, width) / min(height, width))
        return (longer, short) if width <= height else (short, longer)


def _steps(kind: str, fields: Fields) -> dict[str, Any]:
    """What the constructor takes, of the fields of a processor of a kind."""
    square = fields.flag("default_to_square", default=False)
    size, crop = _size(fields, "size", square=square), None
    resize = fields.flag("do_resize", default=True)
    if kind == "ConvNext":
        if isinstance(size, tuple):
            fields.refuse("size", dict(zip(("height", "width"), size, strict=True)), "an object with 'shortest_edge'")
        share = fields.number("crop_pct")
        if size >= 384:  # as a whole, whatever its shape
            size = (size, size)
        else:
            size, crop = min(_MOST, int(size / share)), (size, size) if resize else None
        fields.one_of("do_center_crop", [False], default=False)
    elif fields.flag("do_center_crop", default=False):
        crop = _size(fields, "crop_size", square=True)
        if not isinstance(crop, tuple):
            fields.refuse("crop_size", {"shortest_edge": crop}, "a whole number, or 'height' and 'width'")
    rescale = fields.number("rescale_factor", default=1 / 255)
    mean, std = fields.numbers("image_mean", signed=True), fields.numbers("image_std")
    normalize = fields.flag("do_normalize", default=True)
    for field, each in (("image_mean", mean), ("image_std", std)):
        if normalize and len(each) != 3:
            fields.refuse(field, list(each), "three numbers, for red, green and blue")
    resample = fields.one_of("resample", range(6), default=2)
    steps = {
        "resize": size if resize else None,
        "resample": resample,
        "crop": crop,
        "rescale": rescale if fields.flag("do_rescale", default=True) else None,
        "mean": mean if normalize else None,
        "std": std if normalize else None,
        "rgb": fields.flag("do_convert_rgb", default=True),
    }
    for field in ("do_pad", "use_square_size"):
        fields.one_of(field, [False], default=False)
    fields.one_of("data_format", ["channels_first"], default="channels_first")
    fields.done({*_UNUSED, "crop_size"})
    return steps


def _size(fields: Fields, field: str, *, square: bool) -> int | tuple[int, int]:
    """Height and width, or the shorter edge."""
    inner = fields.object_or_none(field)
    if inner is None:
        edge = _edge(fields, field)
        return (edge, edge) if square else edge
    size = (
        _edge(inner, "shortest_edge") if inner.has("shortest_edge") else (_edge(inner, "height"), _edge(inner, "width"))
    )
    inner.done()
    return size


def _edge(fields: Fields, field: str) -> int:
    edge = fields.count(field)
    if edge > _MOST:
        fields.refuse(field, edge, f"at most {_MOST}")
    return edge
