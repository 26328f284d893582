"""Whatever stands in an adapter's config, or in its keys: it is merged, or is an error of ours."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import bridge
from tests.adapters.write import adapter, config, peft
from tests.attacks.any_text import FEW, folder, ours, texts, values  # noqa: F401 - a fixture

FACTORS = peft({"l.0": (np.ones((4, 3), "f4"), np.ones((3, 4), "f4"))})
FIELDS = sorted({*json.loads((Path(__file__).parent / "cases/plain/adapter_config.json").read_text()), "new"})
SUFFIXES = ["lora_A.weight", "lora_B.weight", "lora_A", "lora_B.bias", "lora_embedding_A", "lora_magnitude_vector"]
SUFFIXES += ["weight", "bias", "token_adapter.trainable_tokens_delta", "base_layer.weight", "modules_to_save.default.w"]
SUFFIXES += [
    "alpha",
    "lora_down.weight",
    "lora_up.weight",
    "hada_w1_a",
    "lora_A.default.weight",
    "base_layer.lora_A.weight",
]
KEYS = st.builds(
    "{}{}.{}".format, st.sampled_from(["base_model.model.", "", "unet."]), texts, st.sampled_from(SUFFIXES)
)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def fits(key: str) -> bool:
    """Whether a file may have such a key."""
    return "\0" not in key and not any(0xD800 <= ord(character) < 0xE000 for character in key)


def merged(tensors: dict[str, np.ndarray], fields: dict[str, Any], weight: float = 1) -> None:
    with tempfile.TemporaryDirectory(dir=".") as name:
        lora = adapter(Path(name), tensors)
        (lora / "adapter_config.json").write_text(json.dumps(fields))
        ours(lambda: str(bridge.plan("x.safetensors", adapters=(lora, weight))))
        ours(lambda: bridge.load("x.safetensors", adapters=(lora, weight)))


@FEW
@given(st.dictionaries(st.sampled_from(FIELDS), values, max_size=4))
def test_any_field(fields: dict[str, Any]) -> None:
    merged(FACTORS, config(**fields))


@FEW
@given(values)
def test_any_document(document: Any) -> None:
    merged(FACTORS, document)


@FEW
@given(st.dictionaries(KEYS, SHAPES, min_size=1, max_size=5), st.booleans(), st.sampled_from([1, 0.5, -1e300]))
def test_any_keys_and_shapes(shapes: dict[str, tuple[int, ...]], dora: bool, weight: float) -> None:
    tensors = {key: np.ones(shape, np.float32) for key, shape in shapes.items() if fits(key)}
    said = config(use_dora=dora, trainable_token_indices=[0, 1], target_parameters=["w"])
    if tensors:
        merged(tensors, said, weight)
