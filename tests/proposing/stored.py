"""Checkpoints of published sizes on disk: a header, and as many bytes as it claims, none of which are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path

from tests.proposing.folded import Entry

_BYTES = {"F32": 4, "I64": 8, "BOOL": 1, "U8": 1, "BF16": 2, "F8_E4M3": 1}


def store(folder: Path, entries: Sequence[Entry], config: dict[str, object] | None = None) -> Path:
    """A folder with a sparse `model.safetensors`, and a config.json where one is given."""
    header: dict[str, object] = {}
    start = 0
    for entry in sorted(entries):
        stop = start + prod(entry.shape) * _BYTES[entry.dtype]
        header[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + start)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def in_fp8(entries: Sequence[Entry]) -> tuple[list[Entry], dict[str, object]]:
    """The same model as DeepSeek publishes it: weights in FP8, a scale for each block of 128 x 128; and its config."""
    found: list[Entry] = []
    for entry in entries:
        if entry.name.endswith("_proj.weight") or "proj_with" in entry.name:
            rows, columns = (-(-n // 128) for n in entry.shape)
            found += [
                Entry(entry.name, "F8_E4M3", entry.shape),
                Entry(f"{entry.name}_scale_inv", "F32", (rows, columns)),
            ]
        else:
            found.append(entry)
    quantization = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    }
    return found, {"quantization_config": quantization, "torch_dtype": "bfloat16"}
