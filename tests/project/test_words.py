"""One thing, one word: a short glossary, and words that `bridge/` does not use because it has another for the thing."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST = 30

# In names of classes, functions and variables: what is not said, and what is.
IN_NAMES = {
    "arr": "array",
    "bundle": "block",
    "hollow": "known_holes",
    "idx": "index",
    "meeting": "SaveGroup",
    "native": "converted",
    "prover": "BlockBuilder",
    "relation": "LeafEquation",
    "sender": "BoundRule",
    "serialise": "save",
    "spent": "consumed",
    "tmp": "what it is for",
    "uncut": "whole",
}
# In texts: docstrings, comments, messages.
IN_TEXTS = {
    r"dimensions?": "axis",
    r"native form": "converted form",
    r"parameter names?": "key",
    r"shard files?": "file",
    r"tensor names?": "key",
    r"weights? files?": "file",
}
# Whose word it is.
THEIRS = {"scale_attn_by_inverse_layer_idx": "config.json of GPT-2"}
# A class of one of these names could be anything: say what it is a part of, what holds, what runs.
NO_CLASS = {"Held", "Part", "Parts", "Piece", "Pieces", "Rows", "Runs"}


def tokens(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, kind and text of the names, texts and comments of a file."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], "name", token.string
        elif token.type in (tokenize.STRING, tokenize.COMMENT):
            yield token.start[0], "text", token.string


def wrong(source: str) -> list[str]:
    """What a file says otherwise than the rest."""
    found: list[str] = []
    for line, kind, text in tokens(source):
        if text in THEIRS:
            continue
        if kind == "name":
            words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)}
            found += [f"{line}: {text}: say {IN_NAMES[word]}" for word in sorted(words & IN_NAMES.keys())]
        else:
            said = (word for word in IN_TEXTS if re.search(rf"\b{word}\b", text, re.IGNORECASE))
            found += [f"{line}: {word!r} in a text: say {IN_TEXTS[word]}" for word in said]
    return found


def classes(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Where each class is defined, by its name without leading underscores."""
    found: dict[str, list[str]] = {}
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name.lstrip("_"), []).append(path)
    return found


def ambiguous(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Names of several classes, and names that could be anything."""
    return {name: paths for name, paths in found.items() if len(paths) > 1 or name in NO_CLASS}


def test_one_thing_has_one_word() -> None:
    found = {p.relative_to(ROOT).as_posix(): wrong(p.read_text()) for p in sorted((ROOT / "bridge").rglob("*.py"))}
    assert "bridge/mapping/solve.py" in found
    assert {path: each for path, each in found.items() if each} == {}


def test_the_name_of_a_class_means_one_thing() -> None:
    """Each port has its own `Config` and `Block`: `bridge/models` is left out."""
    paths = {p.relative_to(ROOT).as_posix(): p for p in sorted((ROOT / "bridge").rglob("*.py"))}
    sources = {path: p.read_text() for path, p in paths.items() if not path.startswith("bridge/models/")}
    assert len(classes(sources)) > 300
    assert ambiguous(classes(sources)) == {}


@pytest.mark.parametrize(
    "source",
    ["known_idx = 1", "class NativeForm: ...", '"""The tensor name."""', "x = 1  # two dimensions"],
)
def test_that_test_can_fail(source: str) -> None:
    assert len(wrong(source)) == 1


def test_classes_of_one_name_are_found() -> None:
    sources = {"a.py": "class Leaf: ...\nclass One: ...", "b.py": "class _Leaf: ...", "c.py": "class _Runs: ..."}
    assert ambiguous(classes(sources)) == {"Leaf": ["a.py", "b.py"], "Runs": ["c.py"]}


def test_the_glossary_is_short() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    words = page.partition("## Words\n")[2].partition("\n## ")[0]
    listed = re.findall(r"\*(\w+)\*", words.partition("|")[0])
    rows = re.findall(r"^\| ([^|]+?) \|", words, re.MULTILINE)[1:]  # the first is the heading
    assert len(listed) > 10
    assert "concrete rule" in rows
    assert len(listed) + len(rows) <= MOST
    assert len({*listed, *rows}) == len(listed) + len(rows)
