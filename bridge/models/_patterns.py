"""Patterns of `allow_unexpected`, for keys that decide which parts a model has."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def matches(pattern: str, key: str) -> bool:
    """Whether a pattern of `allow_unexpected` matches a key."""
    return _segments_match(pattern.split("."), key.split("."))


def _segments_match(pattern: Sequence[str], key: Sequence[str]) -> bool:
    if not pattern or not key:
        return all(segment == "**" for segment in pattern) and not key
    if pattern[0] == "**":
        return _segments_match(pattern[1:], key) or _segments_match(pattern, key[1:])
    return fnmatchcase(key[0], pattern[0]) and _segments_match(pattern[1:], key[1:])
