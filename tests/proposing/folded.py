"""Keys with dtypes and shapes as a folded text, and back: `h.{0..11}.ln_1.weight F32 [768]`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

from bridge._text import fold

FOLDER = Path(__file__).parent / "corpus"
_LINE = re.compile(r"(\S+) (\w+) \[([\d ]*)\]")
_RANGES = re.compile(r"\{([\d.,]+)\}")


class Entry(NamedTuple):
    """A key as a header has it."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def written(title: str, entries: Iterable[Entry]) -> str:
    """The text of a checkpoint's keys; order is of no meaning, as in a file."""
    kinds: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for entry in entries:
        kinds.setdefault((entry.dtype, entry.shape), []).append(entry.name)
    lines = [
        f"{folded} {dtype} [{' '.join(map(str, shape))}]"
        for (dtype, shape), names in kinds.items()
        for folded, _ in fold(names)
    ]
    return "\n".join([f"# {title}", *sorted(lines)]) + "\n"


def read(text: str) -> Iterator[Entry]:
    """The keys of a text."""
    for line in text.splitlines():
        if not line.startswith("#"):
            found = _LINE.fullmatch(line)
            assert found, line
            shape = tuple(map(int, found[3].split()))
            pieces = _RANGES.split(found[1])
            for numbers in product(*map(_numbers, pieces[1::2])):
                middle = [text for pair in zip(map(str, numbers), pieces[2::2], strict=True) for text in pair]
                yield Entry("".join([pieces[0], *middle]), found[2], shape)


def _numbers(ranges: str) -> Iterator[int]:
    for part in ranges.split(","):
        first, _, last = part.partition("..")
        yield from range(int(first), int(last or first) + 1)


@cache
def checkpoint(name: str) -> tuple[Entry, ...]:
    """The keys of one architecture of the corpus."""
    return tuple(read((FOLDER / f"{name}.txt").read_text()))


def names() -> list[str]:
    """All architectures."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))
