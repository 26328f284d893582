"""No test outside this folder repeats a whole text: it asks `text_of`, or for the words that it is about.

So a text changes in two places, its source and `texts.txt`.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.errors.promised import read

TESTS = Path(__file__).parents[1]
SHORTEST = 20
"""Fewer letters are no whole text."""

CASES = {
    "key 'a' in 'x.safetensors' is gone. Fetch it again.",
    "a header of 8 bytes is cut off. Fetch it again.",
    "this Bert has no head. Make it with one.",
}


class Texts(NamedTuple):
    """Without names and numbers, the shortest first; and all in one text."""

    masked: list[str]
    together: str


def test_no_test_repeats_a_text():
    texts = masked(text for _kind, text in read().values() if not text.endswith(" "))  # the others are cut off there
    found = [
        f"{path.relative_to(TESTS.parent)}:{line}: {literal}"
        for path in sorted(TESTS.rglob("*.py"))
        if path.parent != TESTS / "errors"
        for line, literal in copies(path.read_text(), texts)
    ]
    assert not found, "take these from texts.txt, by text_of:\n" + "\n".join(found)


def test_copies_are_found():
    """Whole, in a longer text, in pieces, with other names and numbers, with values in quotes and without."""
    cases = masked(CASES)
    for source in (
        '''x = "key 'a' in 'x.safetensors' is gone. Fetch it again."''',
        """x = f("error: a header of 8 bytes " "is cut off. Fetch it again.\\n")""",
        '''x = "a header of 1,000 bytes is cut off. Fetch it again."''',
        '''x = f"key 'b' in '{path}/y.safetensors' is gone. Fetch it again."''',
        '''x = f"this {name} has no {part}. Make it with one."''',
    ):
        assert len(list(copies(source, cases))) == 1, source
    for source in (
        '''match = "in 'x.safetensors' is gone"''',
        '''x = "key 'a' in 'x.safetensors' is lost. Fetch it again."''',
        '''x = f"this {name}"''',
        '''x = f"{text}. {advice}"''',
    ):
        assert not list(copies(source, cases)), source


def copies(source: str, texts: Texts) -> Iterator[tuple[int, str]]:
    """Line and literal wherever a literal of a Python source holds one of the texts, up to names and numbers."""
    for line, literal in literals(ast.parse(source)):
        if len(literal) < SHORTEST:
            continue
        parts = mask(literal).split("\0")
        if len(parts) == 1:
            shorter = texts.masked[: bisect_right(texts.masked, len(parts[0]), key=len)]
            if any(text in parts[0] for text in shorter):
                yield line, literal.replace("\0", "{}")
        elif max(parts, key=len) in texts.together:  # which most are not, and patterns are slow
            pattern = re.compile(".{1,90}".join(map(re.escape, parts)))
            if any(2 * sum(map(len, parts)) > len(text) and pattern.fullmatch(text) for text in texts.masked):
                yield line, literal.replace("\0", "{}")


def literals(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text that a source spells, with a zero character for each value that an f-string puts in."""
    if isinstance(tree, ast.JoinedStr):
        yield tree.lineno, "".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in tree.values)
    elif isinstance(tree, ast.Constant):
        if isinstance(tree.value, str):
            yield tree.lineno, tree.value
    else:
        for child in ast.iter_child_nodes(tree):
            yield from literals(child)


def masked(texts: Iterable[str]) -> Texts:
    each = sorted({mask(text) for text in texts}, key=len)
    return Texts(each, "\n".join(each))


def mask(text: str) -> str:
    """The text without what stands in quotes, and without numbers."""
    return re.sub(r"\d[\d,.]*\d|\d", "0", re.sub(r"'[^'\n]*'", "''", text))
