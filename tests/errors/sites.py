"""The places in `bridge/` where the text of an error is made, found in its source, and which of them a run came by.

A place is a `raise`, or a `return`, of an error of ours; a call of a function that only raises (`-> NoReturn`), which is given a text;
a text that is put into a variable called `problem`, for a `raise` that follows.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
ERRORS = (
    "BridgeError",
    "CheckpointError",
    "UnknownKeyError",
    "TieError",
    "RuleError",
    "PlanError",
    "SaveError",
    "UsageError",
)
INNER = ("_RefusedError", "DoesNotFitError", "UntiedError")  # become other errors where they are caught


class Site(NamedTuple):
    """Lines `first` to `last` of a file; `text` is the statement, on one line."""

    file: str
    first: int
    last: int
    text: str


def sites() -> list[Site]:
    """All places, file by file."""
    return [site for path in sorted((ROOT / "bridge").rglob("*.py")) for site in sites_of(path)]


def sites_of(path: Path) -> Iterator[Site]:
    """The places of one file."""
    tree = ast.parse(path.read_text())
    raising = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns is not None and ast.unparse(node.returns) == "NoReturn"
    } | {"fail", "refuse"}
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and _is_site(node, raising):
            assert node.end_lineno is not None
            name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
            yield Site(name, node.lineno, node.end_lineno, " ".join(ast.unparse(node).split()))


def _is_site(node: ast.stmt, raising: set[str]) -> bool:
    match node:
        case ast.Raise(exc=ast.Call(func=function)) | ast.Return(value=ast.Call(func=function)):
            return _last(function) in (*ERRORS, *INNER)
        case ast.Expr(value=ast.Call(func=function)):
            return _last(function) in raising
        case ast.Assign(targets=[target], value=value):
            first, text = (target, value)
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                first, text = target.elts[0], value.elts[0]
            return isinstance(first, ast.Name) and first.id == "problem" and _is_text(text)
    return False


def _last(function: ast.expr) -> str:
    return ast.unparse(function).rsplit(".", 1)[-1]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


@contextmanager
def tracing(found: list[Site]) -> Generator[set[Site]]:
    """The places among `found` that run meanwhile, in any thread."""
    by_line: dict[tuple[str, int], Site] = {}
    for site in found:
        by_line |= {(str(ROOT / site.file), line): site for line in range(site.first, site.last + 1)}
    watched: dict[CodeType, bool] = {}
    reached: set[Site] = set()

    def interesting(code: CodeType) -> bool:
        if code not in watched:
            lines = {line for _, _, line in code.co_lines() if line is not None}
            watched[code] = any((code.co_filename, line) in by_line for line in lines)
        return watched[code]

    def local(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        if event == "line" and (site := by_line.get((frame.f_code.co_filename, frame.f_lineno))) is not None:
            reached.add(site)
        return local

    def enter(frame: FrameType, _event: str, _argument: Any) -> Callable[..., Any] | None:
        return local if interesting(frame.f_code) else None

    before = sys.gettrace()
    sys.settrace(enter)
    threading.settrace(enter)
    try:
        yield reached
    finally:
        sys.settrace(before)
        threading.settrace(before)  # pyright: ignore[reportArgumentType]
