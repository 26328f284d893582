"""What every situation says now, and which places in the source that came by."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import pytest

from bridge import BridgeError
from bridge.cli.terminal import UsageError
from tests.errors import (  # noqa: F401 - they register
    adapters,
    checking,
    converted,
    folders,
    hub,
    images,
    layouts,
    limits,
    models,
    natures,
    partly,
    planning,
    processes,
    programs,
    proposals,
    quantized,
    reading,
    remote,
    reports,
    rules,
    saving,
    texts_in_out,
    torchfile,
    traces,
)
from tests.errors.promised import Told
from tests.errors.sites import Site, sites, tracing
from tests.errors.situations import SITUATIONS, UNTIL, Provoke


class Outcome(NamedTuple):
    told: Mapping[str, Told]
    errors: Mapping[str, BridgeError]
    reached: frozenset[Site]


@cache
def outcome() -> Outcome:
    """What every situation says, and by which places of the source it came."""
    told: dict[str, Told] = {}
    errors: dict[str, BridgeError] = {}
    with tracing(sites()) as reached:
        for name, provoke in SITUATIONS.items():
            said, error = say(provoke)
            if isinstance(error, BridgeError):
                errors[name] = error
            ours, until, _theirs = said.text.partition(UNTIL[name]) if UNTIL[name] else (said.text, "", "")
            told[name] = said._replace(text=ours + until)
    return Outcome(told, errors, frozenset(reached))


def say(provoke: Provoke) -> tuple[Told, Exception | None]:
    """The text of one situation, in a folder of its own, whose name is left out, and its error."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            provoke(patch)
        except (BridgeError, UsageError) as error:
            text = str(error)
            for place in (os.path.realpath(folder), folder):
                text = text.replace(f"{place}/", "").replace(place, ".")
            text = re.sub(r"(127\.0\.0\.1|localhost):\d+", "127.0.0.1:8000", text)  # ports are whichever are free
            return Told(type(error).__name__, text), error
    return Told("nothing", "no error was raised"), None
