"""`texts.txt`: every error that a user can meet, verbatim. `python -m tests.errors` writes it anew; review the change.

# room: what is the case
CheckpointError
    'x.safetensors' holds …

Other tests compare with it by `text_of`: no text stands in a second place.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

TEXTS = Path(__file__).parent / "texts.txt"


class Told(NamedTuple):
    kind: str
    text: str


@cache
def read() -> Mapping[str, Told]:
    """The texts that are promised."""
    found: dict[str, Told] = {}
    for block in TEXTS.read_text().split("# ")[1:] if TEXTS.exists() else ():
        name, kind, *lines = block.rstrip("\n").split("\n")
        found[name] = Told(kind, "\n".join(line[4:] for line in lines))
    return found


def text_of(name: str) -> str:
    """The text of a situation."""
    return read()[name].text


def write(told: Mapping[str, Told]) -> None:
    """Promise these texts."""
    blocks = [
        "\n".join([f"# {name}", said.kind, *(f"    {line}" for line in said.text.split("\n")), ""])
        for name, said in sorted(told.items())
    ]
    TEXTS.write_text("\n".join(blocks))
