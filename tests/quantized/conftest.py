"""A Hub of our own, for quantised repos."""

from __future__ import annotations

from tests.hub.conftest import hub as hub
