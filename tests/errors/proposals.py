"""Rules that are to be proposed for no model."""

from __future__ import annotations

import pytest

import bridge
from tests.errors.reading import good
from tests.errors.situations import situation


@situation("suggest: no model")
def _(patch: pytest.MonkeyPatch) -> None:
    bridge.suggest(good(), None)
