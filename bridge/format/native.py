"""How a file says that it holds a model's own leaves, as `bridge.convert` writes them."""

from __future__ import annotations

import re
from collections.abc import Mapping

MARK = "eqx-bridge.converted"
"""The name in `__metadata__` whose value is the version of the converted form."""
BESIDE = "eqx-bridge.beside"
"""The name in `__metadata__` whose value is a JSON list: the record of the conversion, the originals."""
COMMIT = "eqx-bridge.commit"
"""The name in `__metadata__` whose value is the Hub commit that was converted, where it came from the Hub."""
RECORD = "bridge.json"
ORIGINALS = "bridge.original"  # a safetensors file, but of no model: what ends in .safetensors may be taken for one
_BESIDE_NAME = re.compile(r"bridge(-\w+)*\.(json|original)", re.ASCII)


def is_native(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this metadata is of the converted form."""
    return MARK in metadata


def is_beside(name: object) -> bool:
    """Whether `name` is one that convert gives to a file beside the leaves: metadata may say anything."""
    return isinstance(name, str) and _BESIDE_NAME.fullmatch(name) is not None
