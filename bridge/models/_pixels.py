"""An image as pillow has it: opened, in RGB, resized; and as numbers: cropped."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

import bridge
from bridge.models._json import safe

if TYPE_CHECKING:
    from PIL.Image import Image

# Those that are pictures: of the others pillow knows, one is a program, and run by another program.
_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def opened(image: Any, *, rgb: bool) -> Image:
    """An image in RGB: one of pillow's, an array of bytes `(h, w)` or `(h, w, c)`, or a file, which is turned upright.

    **Raises:** `bridge.BridgeError` for what is no image; without pillow; without `rgb`, for other modes.
    """
    try:
        from PIL import Image
    except ImportError as e:
        raise bridge.BridgeError(
            "preparing images", "needs the 'pillow' library", "Install it: pip install 'eqx-bridge[vision]'"
        ) from e
    if isinstance(image, str | os.PathLike):
        picture = _read(os.fspath(image))
    elif isinstance(image, np.ndarray):
        picture = _of_array(image)
    elif isinstance(image, Image.Image):
        picture = image
    else:
        raise bridge.BridgeError(
            "an image",
            f"cannot be of type {type(image).__name__}",
            "Give a path, an image of pillow, or an array of uint8 and shape (h, w, c)",
        )
    if not rgb and picture.mode != "RGB":
        raise bridge.BridgeError(
            f"an image of mode {picture.mode}",
            'is not in RGB, and preprocessor_config.json says "do_convert_rgb": false',
            'Convert it: image.convert("RGB")',
        )
    return _in_rgb(picture)


def _in_rgb(picture: Image) -> Image:
    """What is transparent on white."""
    from PIL import Image

    if "A" not in picture.getbands() and picture.info.get("transparency") is None:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _of_array(array: np.ndarray) -> Image:
    from PIL import Image

    shape = array.shape[:2] if array.ndim == 3 and array.shape[2] == 1 else array.shape
    if array.dtype != np.uint8 or 0 in shape or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise bridge.BridgeError(
            f"an array of shape {array.shape} and dtype {array.dtype}",
            "cannot be read as an image",
            "Give uint8 of shape (h, w), or (h, w, c) with 1, 3 or 4 channels",
        )
    return Image.fromarray(array.reshape(shape))


def _read(path: str) -> Image:
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as file:
                return ImageOps.exif_transpose(file)  # reads all of it
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise bridge.BridgeError(
            f"'{safe(path)}'", f"cannot be read as an image: {safe(str(e))}", "Check the file"
        ) from e


def resized(picture: Image, size: tuple[int, int], resample: int) -> Image:
    """To height and width `size`, by one of pillow's filters."""
    from PIL import Image

    height, width = size
    return picture.resize((width, height), Image.Resampling(resample))


def cropped(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of an image `(c, h, w)`, of height and width `size`; zeros around one that is smaller."""
    for axis, wanted in zip((1, 2), size, strict=True):
        more = wanted - pixels.shape[axis]
        if more > 0:
            around = [(0, 0)] * 3
            around[axis] = (more - more // 2, more // 2)
            pixels = np.pad(pixels, around)
        else:
            start = -more // 2
            pixels = pixels[(slice(None),) * axis + (slice(start, start + wanted),)]
    return pixels
