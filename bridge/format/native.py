"""How a file says that it holds a model's own leaves, as `bridge.convert` writes them."""

from __future__ import annotations

from collections.abc import Mapping

MARK = "eqx-bridge.converted"
"""The name in `__metadata__` whose value is the version of the converted form."""
BESIDE = "eqx-bridge.beside"
"""The name in `__metadata__` whose value is a JSON list: the record of the conversion, the originals."""


def is_native(metadata: Mapping[str, str]) -> bool:
    """Whether a file with this metadata is of the converted form."""
    return MARK in metadata
