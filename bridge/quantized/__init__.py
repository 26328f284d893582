"""Quantised checkpoints: which stored tensors belong together, and what they mean. Knows numpy; no files, no rules.

    found = find(*table.columns(), config)          # keys, specs and the object in config.json
    if found.needs:                                 # a few small tensors decide: read them, ask again
        found = find(*table.columns(), config, values={key: read(key) for key in found.needs})

`found.tensors` maps each key that is meant to its `Logical`: `form.shape` and `form.dtype`, `parts` (stored keys) and
`form.view`, which says of a box of the tensor which boxes of its parts it needs, and makes its values of them:

    boxes = tensor.form.view.boxes(box)             # one for each of tensor.parts, the heaviest first
    tensor.form.view.values(box, parts, out)        # fills out: float32, bfloat16 or float16

Who reads a checkpoint so takes `found.consumed` out of its keys, and puts `found.tensors` in. `values` raises a
`CheckpointError` that begins with a verb ("has zero points …") where what is stored contradicts the config: raise
`tensor.explained(error)` from it. What a user says in `quantized={…}` goes into `config` as its
`"quantization_config"`. A module whose parts a rule names is taken out of `found.tensors`, and its keys are plain.

`dequantize` is for layers that keep codes and scales on the device; it alone needs JAX.

A format is one file, with a `FORMAT` and one or more views (`view.Chunked`), and a line in `formats.py`. Its test
subclasses the contract in `tests/quantized/contract.py`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from bridge.quantized.find import find, may_hold
from bridge.quantized.logical import Logical, QuantizedForm, QuantizedKeys
from bridge.quantized.view import Box, QuantizedView, Shape

if TYPE_CHECKING:
    from bridge.quantized.device import dequantize as dequantize

__all__ = [
    "Box",
    "Logical",
    "QuantizedForm",
    "QuantizedKeys",
    "QuantizedView",
    "Shape",
    "dequantize",
    "find",
    "may_hold",
]


def __getattr__(name: str) -> object:
    if name != "dequantize":
        raise AttributeError(f"module 'bridge.quantized' has no attribute {name!r}")
    return import_module("bridge.quantized.device").dequantize  # imports JAX
