"""The checkpoints that are loaded: Llama's names and shapes, in four files with an index, made once and kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

DTYPES = {"BF16": np.dtype(ml_dtypes.bfloat16), "F32": np.dtype(np.float32)}
MANIFEST = "bench.json"
CORNER = 64
"""Values at each end of a tensor that are compared."""
_FILES = 4
_VERSION = 1


@dataclass(frozen=True)
class Llama:
    """The sizes of a model; `layers` copies of nine tensors and three beside them."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Key to shape, in the order of a state dict."""
        kv = self.hidden // self.heads * self.kv_heads
        layer = {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
            "input_layernorm": (self.hidden,),
            "post_attention_layernorm": (self.hidden,),
        }
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab, self.hidden)}
        for number in range(self.layers):
            found |= {f"model.layers.{number}.{name}.weight": shape for name, shape in layer.items()}
        return found | {"model.norm.weight": (self.hidden,), "lm_head.weight": (self.vocab, self.hidden)}

    def config(self) -> dict[str, object]:
        """What transformers wants to know."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "tie_word_embeddings": False,
        }


LLAMAS = {
    "tiny": Llama(hidden=64, intermediate=128, layers=2, heads=4, kv_heads=2, vocab=128),
    "quick": Llama(hidden=512, intermediate=1408, layers=8, heads=8, kv_heads=4, vocab=8000),  # 0.06 GB in bf16
    "half": Llama(hidden=1024, intermediate=2816, layers=16, heads=16, kv_heads=8, vocab=32000),  # 0.5 GB
    "large": Llama(hidden=2560, intermediate=6912, layers=26, heads=20, kv_heads=5, vocab=32000),  # 3.9 GB
}
SMALL = {
    "small": {"tiny": (2, 5), "quick": (100, 100), "half": (1000, 100)},
    "experts": {"tiny": (2, 5), "quick": (20, 100), "half": (200, 100)},
}
"""Layers and experts of the checkpoints of many tensors, 1 KiB each."""
MANY = {"tiny": 2, "quick": 400, "half": 4000}
"""Layers of the checkpoint of many tensors that is saved: five tensors each, of 64 values."""


class Place(NamedTuple):
    """Where a tensor's bytes lie."""

    file: str
    offset: int
    shape: tuple[int, ...]


class Leaf(NamedTuple):
    """One array of the model: the tensors that it is stacked of, over as many axes as `stacked` says."""

    keys: tuple[str, ...]
    shape: tuple[int, ...]
    stacked: bool


@dataclass(frozen=True)
class Work:
    """A checkpoint of the bench. **Arguments:** the folder, what it holds, and where."""

    folder: Path
    kind: str
    name: str
    dtype: np.dtype
    places: Mapping[str, Place]

    @classmethod
    def read(cls, folder: Path) -> Work:
        """The work that was made in `folder`."""
        made = json.loads((folder / MANIFEST).read_text())
        from bench import deepseek, quantized  # they import this module

        for kind in (deepseek, quantized):
            if made["kind"] in kind.KINDS:
                return kind.read(folder, made)
        places = {key: Place(file, offset, tuple(shape)) for key, (file, offset, shape) in made["places"].items()}
        return cls(folder, made["kind"], made["name"], DTYPES[made["dtype"]], places)

    def tiny(self) -> Work:
        """The same in a few kilobytes; it stands beside this one."""
        return made(
            self.folder.parent, self.kind, "tiny", next(n for n, dtype in DTYPES.items() if dtype == self.dtype)
        )

    @property
    def paths(self) -> list[Path]:
        """The files of weights, in order."""
        return [self.folder / name for name in sorted({place.file for place in self.places.values()})]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(prod(place.shape) for place in self.places.values()) * self.dtype.itemsize

    def leaves(self) -> dict[str, Leaf]:
        """The model's arrays by name: layers (and experts) are one array each."""
        grouped: dict[str, list[str]] = {}
        for key in self.places:
            grouped.setdefault(leaf_name(key), []).append(key)
        found: dict[str, Leaf] = {}
        for name, keys in grouped.items():
            shape = self.places[keys[0]].shape
            if self.kind in SMALL:
                found[name] = Leaf(tuple(keys), (*SMALL[self.kind][self.name], *shape), stacked=True)
            else:
                stacked = name.startswith("layers.")
                found[name] = Leaf(tuple(keys), (len(keys), *shape) if stacked else shape, stacked)
        return found

    def corners(self, key: str) -> np.ndarray:
        """The first and the last values of one tensor."""
        values = self.values(key)
        return np.concatenate([values.flat[:CORNER], values.flat[-CORNER:]])

    def values(self, key: str) -> np.ndarray:
        """One tensor, as a map of its file."""
        file, offset, shape = self.places[key]
        return np.memmap(self.folder / file, self.dtype, mode="r", offset=offset, shape=shape)


def leaf_name(key: str) -> str:
    """The model's name for a key: `model.layers.3.mlp.up_proj.weight` is a part of `layers.mlp.up_proj.weight`."""
    words = [word for word in key.split(".") if not word.isdigit() and word != "model"]
    return ".".join({"embed_tokens": "embed", "lm_head": "head"}.get(word, word) for word in words)


def made(cache: Path, kind: str, name: str, dtype: str) -> Work:
    """The work, made unless it stands there.

    **Arguments:** `kind` is `"llama"`, `"many"`, one of `SMALL`, or a quantised format.
    """
    folder = cache / f"{kind}-{name}-{dtype.lower()}-v{_VERSION}"
    if not (folder / MANIFEST).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _make(folder, kind, name, dtype)
    return Work.read(folder)


def _make(folder: Path, kind: str, name: str, dtype: str) -> None:
    from bench import deepseek, quantized  # they import this module

    for other in (deepseek, quantized):
        if kind in other.KINDS:
            other.make(folder, kind, name)
            return
    if kind in SMALL:
        layers, experts = SMALL[kind][name]
        tensors: dict[str, tuple[int, ...]] = {
            f"h.{layer}.e.{expert}.w": (1024 // DTYPES[dtype].itemsize,)
            for layer in range(layers)
            for expert in range(experts)
        }
        files = {"model.safetensors": tensors}
    elif kind == "many":
        tensors = {f"model.layers.{layer}.{each}.w": (64,) for layer in range(MANY[name]) for each in "abcde"}
        files = {"model.safetensors": tensors}
    else:
        tensors = LLAMAS[name].tensors()
        files = {f"model-{n + 1:05}-of-{_FILES:05}.safetensors": part for n, part in enumerate(_split(tensors))}
        index = {"metadata": {}, "weight_map": {key: file for file, part in files.items() for key in part}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        config = LLAMAS[name].config() | {"dtype": {"BF16": "bfloat16", "F32": "float32"}[dtype]}
        (folder / "config.json").write_text(json.dumps(config))
    places: dict[str, Place] = {}
    for file, part in files.items():
        offsets = _write(folder / file, part, dtype)
        places |= {key: Place(file, offsets[key], part[key]) for key in part}
    ordered = {key: places[key] for key in tensors}
    # Last: an interrupted making is done again.
    manifest = {"kind": kind, "name": name, "dtype": dtype, "places": ordered}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _split(tensors: Mapping[str, tuple[int, ...]]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Files of about the same length, as savers cut a state dict."""
    total, done = sum(map(prod, tensors.values())), 0
    parts: list[dict[str, tuple[int, ...]]] = [{} for _ in range(_FILES)]
    for key, shape in tensors.items():
        parts[min(done * _FILES // total, _FILES - 1)][key] = shape
        done += prod(shape)
    yield from parts


def _write(path: Path, tensors: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, int]:
    """One file as safetensors writes it, keys in order of their names; returns where each tensor starts."""
    itemsize, header, start = DTYPES[dtype].itemsize, {}, 0
    for key in sorted(tensors):
        stop = start + prod(tensors[key]) * itemsize
        header[key] = {"dtype": dtype, "shape": tensors[key], "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    pool = np.random.default_rng(0).standard_normal(1 << 22, np.float32) * np.float32(0.02)
    pool = pool.astype(DTYPES[dtype])
    shift = 0
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for key in header:
            # Every tensor starts elsewhere in one pool of normal values: quick to make, and no two are alike.
            count, shift = prod(tensors[key]), shift + 4099
            values = np.roll(pool, shift % pool.size) if count >= pool.size else pool[shift % (pool.size - count) :]
            for done in range(0, count, pool.size):
                file.write(values[: min(count - done, pool.size)].tobytes())
        file.flush()
        os.fsync(file.fileno())
    return {key: 8 + len(head) + entry["data_offsets"][0] for key, entry in header.items()}
