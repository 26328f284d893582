"""What a user's type checker and editor know of `bridge`: pyright, strict, over `typed_program.py`; and signatures."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_overloads

import pytest

import bridge
import bridge.models
from bridge.api.load import open_keywords

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).parent / "typed_program.py"
REMARK = re.compile(r"  # (revealed|error): (.+)$")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[tuple[str, str]]]:
    """What pyright says of each line."""
    return checked(tmp_path_factory.mktemp("pyright"), PROGRAM.read_text())


def checked(folder: Path, program: str) -> dict[int, list[tuple[str, str]]]:
    (folder / "program.py").write_text(program)
    settings = {"include": ["program.py"], "extraPaths": [str(ROOT)], "typeCheckingMode": "strict"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    said: dict[int, list[tuple[str, str]]] = {}
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        revealed = re.fullmatch(r'Type of ".*" is "(.*)"', each["message"], re.DOTALL)
        shown = each["severity"] == "information" and revealed
        remark = ("revealed", revealed[1]) if shown else (each["severity"], each.get("rule", each["message"]))
        said.setdefault(each["range"]["start"]["line"] + 1, []).append(remark)
    return said


def test_pyright_says_what_the_program_expects(found: dict[int, list[tuple[str, str]]]) -> None:
    lines = PROGRAM.read_text().splitlines()
    remarks = {number: REMARK.search(line) for number, line in enumerate(lines, start=1)}
    expected = {number: [(remark[1], remark[2])] for number, remark in remarks.items() if remark}
    assert len(expected) > 30
    assert found == expected


def test_that_test_can_fail(tmp_path: Path) -> None:
    program = "import bridge\nreveal_type(bridge.load('x'))\nbridge.load(3)\n"
    assert checked(tmp_path, program) == {
        2: [("revealed", "dict[str, Array]")],
        3: [("error", "reportArgumentType")],
    }


OPENING: list[Callable[..., Any]] = [
    *(bridge.plan, bridge.load, bridge.convert, bridge.suggest, bridge.models.from_pretrained),
    *get_overloads(bridge.load),
    *get_overloads(bridge.models.from_pretrained),
]


@pytest.mark.parametrize("function", OPENING, ids=lambda f: f"{f.__name__}")
def test_what_opens_a_source_shows_the_keywords_of_open(function: Callable[..., Any]) -> None:
    """In `help` and in an editor, each with its default."""
    options = dict(inspect.signature(bridge.open).parameters)
    del options["source"]
    shown = inspect.signature(function).parameters
    for name, parameter in options.items():
        assert shown[name].default == parameter.default, name
        assert shown[name].annotation == parameter.annotation, name
    assert [name for name in shown if name in options] == list(options)
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in shown.values())
    assert set(options) == set(bridge.OpenOptions.__annotations__)


def test_the_keywords_of_open_keep_their_order_on_the_way() -> None:
    """They are handed on by position."""
    options = list(inspect.signature(bridge.open).parameters)[1:]
    assert open_keywords(*options) == {name: name for name in options}  # type: ignore[arg-type]
    for function in (bridge.plan, bridge.load, bridge.convert, bridge.suggest):
        handed = re.findall(r"\bopen_keywords\((.*?)\)", inspect.getsource(function), re.DOTALL)
        assert [re.findall(r"\w+", names) for names in handed] == [options], function.__name__


def test_aliases_can_be_used_where_a_program_runs() -> None:
    for alias in (bridge.Source, bridge.Rules, bridge.RuleLike, bridge.Dtype, bridge.Progress, bridge.AllowMissing):
        assert alias | None  # as in an annotation that Python evaluates
