"""Quantised checkpoints of the bench: random codes and scales, and the first and the last values of each weight.

Those are computed here, element by element by the format's formula, so that whoever reads the files can be judged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bench.work import CORNER, MANIFEST, Place, Work

BF16 = np.dtype(ml_dtypes.bfloat16)
SIZES = {"tiny": (2, 128, 256), "quick": (2, 1024, 1024), "half": (8, 4096, 4096)}
"""Layers of two weights each, and their rows and columns."""
_EXPERTS = {"tiny": (2, 2, 128, 128), "quick": (2, 4, 512, 512), "half": (4, 8, 2048, 4096)}
_GROUP = 128
_NF4 = np.float32(
    [
        *(-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0),
        *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1),
    ]
)
_E2M1 = np.float32([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
Tensors = dict[str, np.ndarray]
Shape = tuple[int, ...]


class Made(NamedTuple):
    """A quantised weight: the stored tensors, by what follows its name; and its first and last values, as float32."""

    tensors: Tensors
    corners: tuple[np.ndarray, np.ndarray]


def fp8(rng: np.random.Generator, shape: Shape) -> Made:
    """Blocks of 128 x 128."""
    codes = rng.integers(0, 254, shape, np.uint8)
    codes[codes == 0x7F] = 0x3F
    scales = _scales(rng, tuple(-(-n // 128) for n in shape)).astype(np.float32)
    stored = codes.view(ml_dtypes.float8_e4m3fn)
    tensors = {".weight": stored, ".weight_scale_inv": scales}
    return Made(tensors, _ends(lambda r, c: stored[r, c].astype(np.float32) * scales[r // 128, c // 128], shape))


def int4(rng: np.random.Generator, shape: Shape) -> Made:
    """Groups of 128, as compressed-tensors packs them."""
    words = _words(rng, (shape[0], shape[1] // 8))
    scales = _scales(rng, (shape[0], shape[1] // _GROUP)).astype(BF16)
    tensors = {".weight_packed": words, ".weight_scale": scales, ".weight_shape": np.array(shape, np.int64)}

    def value(r: int, c: np.ndarray) -> np.ndarray:
        return (_nibbles(words[r, c // 8], c % 8) - 8) * scales[r, c // _GROUP].astype(np.float32)

    return Made(tensors, _ends(value, shape))


def gptq(rng: np.random.Generator, shape: Shape, *, permuted: bool = False) -> Made:
    """Symmetric, groups of 128 of the columns, in order or not."""
    rows, columns = shape
    words = _words(rng, (columns // 8, rows))
    scales = _scales(rng, (columns // _GROUP, rows)).astype(np.float16)
    order = np.arange(columns) // _GROUP
    order = (rng.permutation(order) if permuted else order).astype(np.int32)
    zeros = np.full((columns // _GROUP, rows // 8), 0x77777777, np.int32)
    tensors = {".qweight": words, ".qzeros": zeros, ".scales": scales, ".g_idx": order}

    def value(r: int, c: np.ndarray) -> np.ndarray:
        return ((_nibbles(words[c // 8, r], c % 8) - 8) * scales[order[c], r].astype(np.float32)).astype(np.float16)

    return Made(tensors, _ends(value, shape))


def desc_act(rng: np.random.Generator, shape: Shape) -> Made:
    """GPTQ whose columns are not in the order of their groups."""
    return gptq(rng, shape, permuted=True)


def awq(rng: np.random.Generator, shape: Shape) -> Made:
    """Groups of 128, with zero points."""
    rows, columns = shape
    words, zeros = _words(rng, (columns, rows // 8)), _words(rng, (columns // _GROUP, rows // 8))
    scales = _scales(rng, (columns // _GROUP, rows)).astype(np.float16)

    def value(r: int, c: np.ndarray) -> np.ndarray:
        place = np.intp([0, 4, 1, 5, 2, 6, 3, 7][r % 8])
        code, zero = (_nibbles(packed, place) for packed in (words[c, r // 8], zeros[c // _GROUP, r // 8]))
        return ((code - zero) * scales[c // _GROUP, r].astype(np.float32)).astype(np.float16)

    return Made({".qweight": words, ".qzeros": zeros, ".scales": scales}, _ends(value, shape))


def nf4(rng: np.random.Generator, shape: Shape) -> Made:
    """Blocks of 64."""
    count = prod(shape)
    stored = rng.integers(0, 256, (count // 2, 1), np.uint8)
    largest = _scales(rng, (count // 64,)).astype(np.float32)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": shape}
    tensors = {
        ".weight": stored,
        ".weight.absmax": largest,
        ".weight.quant_map": _NF4,
        ".weight.quant_state.bitsandbytes__nf4": np.frombuffer(json.dumps(state).encode(), np.uint8),
    }

    def value(r: int, c: np.ndarray) -> np.ndarray:
        at = r * shape[1] + c
        byte = stored[at // 2, 0]
        return _NF4[np.where(at % 2, byte & 15, byte >> 4)] * largest[at // 64]

    return Made(tensors, _ends(value, shape))


def mxfp4(rng: np.random.Generator, shape: Shape) -> Made:
    """gpt-oss's experts: `(experts, in, out)` are meant, `(experts, out, groups, 16)` are stored."""
    experts, columns, rows = shape
    blocks = rng.integers(0, 256, (experts, rows, columns // 32, 16), np.uint8)
    scales = rng.integers(110, 125, (experts, rows, columns // 32)).astype(np.uint8)

    def value(e: int, c: int, r: np.ndarray) -> np.ndarray:
        byte, scale = blocks[e, r, c // 32, c % 32 // 2], scales[e, r, c // 32]
        return _E2M1[byte >> 4 if c % 2 else byte & 15] * np.exp2(scale.astype(np.float32) - 127)

    first, last = np.arange(CORNER), np.arange(rows - CORNER, rows)
    corners = value(0, 0, first), value(experts - 1, columns - 1, last)
    return Made({"_blocks": blocks, "_scales": scales}, corners)


class Kind(NamedTuple):
    """A format: how a weight is made, what the config says, what its weights are called."""

    make: Callable[[np.random.Generator, Shape], Made]
    said: Mapping[str, Any]
    names: tuple[str, ...] = ("mlp.up_proj", "mlp.down_proj")
    suffix: str = ".weight"


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": _GROUP, "sym": True, "checkpoint_format": "gptq"}
_INT4 = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": _GROUP}
KINDS = {
    "fp8": Kind(fp8, {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "int4": Kind(
        int4,
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": _INT4}},
        },
    ),
    "mxfp4": Kind(mxfp4, {"quant_method": "mxfp4"}, ("mlp.experts.gate_up_proj",), ""),
    "gptq": Kind(gptq, {**_GPTQ, "desc_act": False}),
    "desc_act": Kind(desc_act, {**_GPTQ, "desc_act": True}),
    "awq": Kind(awq, {"quant_method": "awq", "bits": 4, "group_size": _GROUP, "version": "gemm", "zero_point": True}),
    "nf4": Kind(nf4, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
}


@dataclass(frozen=True)
class QuantizedWork(Work):
    """A quantised checkpoint; `places` are those of the weights that are meant. `ends`: their first and last values."""

    ends: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored."""
        return sum(path.stat().st_size for path in self.paths)

    def corners(self, key: str) -> np.ndarray:
        """As in `Work`."""
        return self.ends[key]

    def values(self, key: str) -> np.ndarray:
        """There is no array of them."""
        raise NotImplementedError(f"{key} is stored as codes and scales")


def read(folder: Path, manifest: Mapping[str, Any]) -> QuantizedWork:
    """The work that was made in `folder`."""
    places = {key: Place(file, offset, tuple(shape)) for key, (file, offset, shape) in manifest["places"].items()}
    ends = {key: np.frombuffer(bytes.fromhex(text), np.uint16).view(BF16) for key, text in manifest["ends"].items()}
    return QuantizedWork(folder, manifest["kind"], manifest["name"], BF16, places, ends)


def make(folder: Path, kind: str, name: str) -> None:
    """One file, its config, and what is expected of it."""
    from safetensors.numpy import save_file

    rng, (create, said, names, suffix) = np.random.default_rng(0), KINDS[kind]
    layers, *shape = _EXPERTS[name] if kind == "mxfp4" else SIZES[name]
    tensors: Tensors = {}
    places: dict[str, Place] = {}
    ends: dict[str, str] = {}
    for layer in range(layers):
        for module in names:
            at = f"model.layers.{layer}.{module}"
            found, corners = create(rng, tuple(shape))
            tensors |= {f"{at}{part}": array for part, array in found.items()}
            places[f"{at}{suffix}"] = Place("model.safetensors", 0, tuple(shape))
            ends[f"{at}{suffix}"] = np.concatenate(corners).astype(BF16).tobytes().hex()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {"torch_dtype": "bfloat16", "quantization_config": said}
    (folder / "config.json").write_text(json.dumps(config))
    manifest = {"kind": kind, "name": name, "dtype": "BF16", "places": places, "ends": ends}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _scales(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.uniform(0.002, 0.02, shape)


def _words(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return rng.integers(-(2**31), 2**31, shape, np.int32)


def _nibbles(words: np.ndarray, places: Any) -> np.ndarray:
    return (words.view(np.uint32) >> (4 * places).astype(np.uint32) & np.uint32(15)).astype(np.float32)


def _ends(value: Callable[[int, np.ndarray], np.ndarray], shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = shape
    return value(0, np.arange(CORNER)), value(rows - 1, np.arange(columns - CORNER, columns))
