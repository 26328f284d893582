"""A repo of three files of weights with an index, as large models have them."""

from __future__ import annotations

import json
from collections.abc import Callable

import jax
import numpy as np
from safetensors.numpy import save

from tests.hub.server import Fault, Hub, Request

RNG = np.random.default_rng(0)
FILES: dict[str, dict[str, np.ndarray]] = {
    "model-00001-of-00003.safetensors": {
        "vision.weight": RNG.standard_normal((300, 200), np.float32),
        "vision.bias": RNG.standard_normal(300, np.float32),
    },
    "model-00002-of-00003.safetensors": {
        f"text.layers.{n}.weight": RNG.standard_normal((100, 200), np.float32) for n in range(4)
    },
    "model-00003-of-00003.safetensors": {"head.weight": RNG.standard_normal((500, 100), np.float32)},
}
TENSORS = {key: tensor for held in FILES.values() for key, tensor in held.items()}
WEIGHTS = {name: save(held) for name, held in FILES.items()}
INDEX = {"metadata": {}, "weight_map": {key: name for name, held in FILES.items() for key in held}}
REPO = {
    "config.json": b'{"model_type": "made_up"}',
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    **WEIGHTS,
}
VISION, TEXT, HEAD = FILES
HEAD_NBYTES = 16 << 10


def like(prefix: str) -> dict[str, jax.ShapeDtypeStruct]:
    """A template of some tensors, under their own names."""
    return {key: jax.ShapeDtypeStruct(t.shape, t.dtype) for key, t in TENSORS.items() if key.startswith(prefix)}


def whole_like() -> dict[str, jax.ShapeDtypeStruct]:
    """A template of all of them."""
    return like("")


def same(model: dict[str, jax.Array]) -> bool:
    """Whether a loaded model is what the files hold, bit for bit."""
    return bool(model) and all(np.asarray(value).tobytes() == TENSORS[key].tobytes() for key, value in model.items())


def once(fault: Fault, where: Callable[[Request], bool], *, times: int = 1) -> Callable[[Request], Fault | None]:
    """A fault of the first `times` requests that `where` holds for."""
    left = [fault] * times

    def failing(request: Request) -> Fault | None:
        return left.pop() if left and where(request) else None

    return failing


def served(hub: Hub, request: Request) -> bytes | None:
    """The file of weights that a request to the CDN is for."""
    return hub.blob(request.path.split("?")[0].rpartition("/")[2]) if request.server == "cdn" else None


def whole(hub: Hub) -> list[bytes]:
    """The files of weights that were asked for whole."""
    return [content for r in hub.weights() if r.range is None and (content := served(hub, r)) is not None]
