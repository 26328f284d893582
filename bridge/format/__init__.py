"""The safetensors format: header, index, specs. Knows bytes and JSON, no files and no weights."""

from __future__ import annotations

from bridge.format.header import Header, read_header
from bridge.format.index import Index, parse_index
from bridge.format.spec import TensorSpec

__all__ = ["Header", "Index", "TensorSpec", "parse_index", "read_header"]
