"""Other spellings of a model's keys: what old files hold, or transformers in memory."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["only_read"]


def only_read(rules: Iterable[str]) -> list[str]:
    """Rules for keys that other rules name otherwise: read where they are there, never written."""
    return [rule if rule.endswith("-> _") else f"{rule}{' ' if ';' in rule else ' ; '}alt=true" for rule in rules]
