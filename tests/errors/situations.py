"""Situations that end in an error of ours, by the room that raises it. Each runs in an empty folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Provoke = Callable[[pytest.MonkeyPatch], Any]

UNTIL: dict[str, str] = {}
"""Where the text of a situation goes on in somebody else's words, which change with their releases: what it ends with."""

SITUATIONS: dict[str, Provoke] = {}
"""Name, `room: what is the case`, to a function that gets pytest's monkeypatch and raises a `BridgeError`."""


def situation(name: str, *, until: str = "") -> Callable[[Provoke], Provoke]:
    """Register a function under a name that says what is the case; what follows `until` in its text is not promised."""

    def register(provoke: Provoke) -> Provoke:
        assert name not in SITUATIONS, name
        SITUATIONS[name] = provoke
        UNTIL[name] = until
        return provoke

    return register
