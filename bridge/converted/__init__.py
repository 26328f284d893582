"""The converted form: a checkpoint in a model's own leaves. It loads without rules and, on the CPU, without a copy.

model.safetensors       the leaves, aligned so that they can be mapped; its metadata say that it is converted
bridge.json             the plan, the headers and the index of the files that it came from
bridge.original         what the leaves cannot give back bit for bit: dropped keys, rounded ones, terms of sums
"""

from __future__ import annotations

from collections.abc import Mapping

MARK = "eqx-bridge.converted"
"""The name in `__metadata__` whose value is the version of the converted form."""
COMMIT = "eqx-bridge.commit"
"""The name in `__metadata__` whose value is the Hub commit that was converted, where it came from the Hub."""
RECORD = "bridge.json"
ORIGINALS = "bridge.original"  # a safetensors file, but of no model: what ends in .safetensors may be taken for one


def is_converted(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this metadata is of the converted form."""
    return MARK in metadata
