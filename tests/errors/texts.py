"""`texts.txt`: every error that a user can meet, verbatim. `python -m tests.errors` writes it anew; review the change.

# room: what is the case
CheckpointError
    'x.safetensors' holds …
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
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
    layouts,
    limits,
    models,
    natures,
    partly,
    planning,
    processes,
    programs,
    quantized,
    reading,
    remote,
    reports,
    rules,
    saving,
    torchfile,
    traces,
)
from tests.errors.sites import Site, sites, tracing
from tests.errors.situations import SITUATIONS, UNTIL, Provoke

TEXTS = Path(__file__).parent / "texts.txt"


class Told(NamedTuple):
    kind: str
    text: str


class Outcome(NamedTuple):
    told: Mapping[str, Told]
    reached: frozenset[Site]


@cache
def outcome() -> Outcome:
    """What every situation says, and by which places of the source it came."""
    told: dict[str, Told] = {}
    with tracing(sites()) as reached:
        for name, provoke in SITUATIONS.items():
            said = say(provoke)
            ours, until, _theirs = said.text.partition(UNTIL[name]) if UNTIL[name] else (said.text, "", "")
            told[name] = said._replace(text=ours + until)
    return Outcome(told, frozenset(reached))


def say(provoke: Provoke) -> Told:
    """The error of one situation, in a folder of its own, whose name is left out."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            provoke(patch)
        except (BridgeError, UsageError) as error:
            text = str(error)
            for place in (os.path.realpath(folder), folder):
                text = text.replace(f"{place}/", "").replace(place, ".")
            text = re.sub(r"(127\.0\.0\.1|localhost):\d+", "127.0.0.1:8000", text)  # ports are whichever are free
            return Told(type(error).__name__, text)
    return Told("nothing", "no error was raised")


def read() -> dict[str, Told]:
    """The texts that are promised."""
    found: dict[str, Told] = {}
    for block in TEXTS.read_text().split("# ")[1:] if TEXTS.exists() else ():
        name, kind, *lines = block.rstrip("\n").split("\n")
        found[name] = Told(kind, "\n".join(line[4:] for line in lines))
    return found


def write(told: Mapping[str, Told]) -> None:
    """Promise these texts."""
    blocks = [
        "\n".join([f"# {name}", said.kind, *(f"    {line}" for line in said.text.split("\n")), ""])
        for name, said in sorted(told.items())
    ]
    TEXTS.write_text("\n".join(blocks))
