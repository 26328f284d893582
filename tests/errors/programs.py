"""The command line: wrong usage, and what the user's own code raises."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.cli import generate, suggest
from bridge.cli.beside import beside
from bridge.cli.inspect import contents
from bridge.cli.like import like
from bridge.cli.mapping import dtype, dtypes
from bridge.cli.texts import texts_of
from tests.errors.reading import good
from tests.errors.situations import situation

CODE = "NUMBER = 3\n\ndef broken():\n    return {}['absent']\n"


def _like(spelling: str, code: str = CODE) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        Path(f"{spelling.partition(':')[0]}.py").write_text(code)
        like(spelling)

    return provoke


situation("--like: no module and function")(_like("nonsense"))
situation("--like: no such module")(lambda patch: like("texts_nowhere:make"))
situation("--like: a module that needs another")(_like("texts_needs:make", "import texts_nowhere"))
situation("--like: a module that raises")(_like("texts_raises:make", "1 / 0"))
situation("--like: no such function")(_like("texts_without:make"))
situation("--like: no function")(_like("texts_number:NUMBER"))
situation("--like: a function that raises")(_like("texts_broken:broken"))
situation("--like: no such file")(lambda patch: like("texts/nowhere.py:make"))
situation("--dtype: none")(lambda patch: dtype("f99"))
situation("--dtype: two for all leaves")(lambda patch: dtypes(["bf16", "f32"]))


@situation("--like: a file that raises")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("texts").mkdir()
    Path("texts/file_raises.py").write_text("1 / 0\n")
    like("texts/file_raises.py:make")


@situation("inspect: no such key")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        contents(ckpt, ["b"])


@situation("demo: a folder without its config")
def _(patch: pytest.MonkeyPatch) -> None:
    with bridge.open(good()) as ckpt:
        beside(ckpt, "config.json")


situation("suggest: neither a model nor a skeleton")(
    lambda patch: suggest.run(argparse.Namespace(like=None, skeleton=False))
)
situation("generate: no number of tokens to make")(
    lambda patch: generate.run(argparse.Namespace(max_new_tokens=0, top_p=None, temperature=None))
)
situation("generate: a share and nothing to draw")(
    lambda patch: generate.run(argparse.Namespace(max_new_tokens=3, top_p=0.5, temperature=None))
)


@situation("embed: no text")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "stdin", None)
    texts_of(argparse.Namespace(texts=[]))
