"""Nothing that plans or reads asks what kind of view a key has: a new format adds a view and changes no line here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridge

ROOT = Path(bridge.__file__).parent
PLANNING = sorted(path for room in ("rules", "mapping", "planning") for path in (ROOT / room).glob("*.py"))
READING = sorted(path for room in ("stream", "place") for path in (ROOT / room).glob("*.py"))
PROTOCOL = {"grain", "boxes", "values"}
STORAGE = {"strides", "parts", "is_plain"}


def faults(source: str, *, planning: bool) -> Iterator[str]:
    """What a module does with views beyond asking whether there is one, and what the protocol says."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "bridge.format.view":
            yield from (
                f"imports {alias.name}" for alias in node.names if planning or alias.name not in {"Box", "View"}
            )
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"isinstance", "type"}:
            yield from (f"asks for the kind: {ast.unparse(node)}" for part in ast.walk(node) if is_view(part, parents))
        elif is_view(node, parents) and (planning or not is_allowed(node, parents)):
            yield f"uses a view: {ast.unparse(parents[node])}"
        elif (
            planning and isinstance(node, ast.Attribute) and node.attr in STORAGE and "form" in ast.unparse(node.value)
        ):
            yield f"knows storage: {ast.unparse(node)}"


def is_view(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether an expression is a form's view; `array.view(dtype)` is a call."""
    if not isinstance(node, ast.Attribute) or node.attr != "view":
        return False
    parent = parents[node]
    return not (isinstance(parent, ast.Call) and parent.func is node)


def is_allowed(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a view is only compared with None, told from others, or asked what the protocol says."""
    parent = parents[node]
    if isinstance(parent, ast.Compare):
        return all(isinstance(op, ast.Is | ast.IsNot) for op in parent.ops) and "None" in ast.unparse(parent)
    if isinstance(parent, ast.Call):
        return isinstance(parent.func, ast.Name) and parent.func.id == "id"
    return isinstance(parent, ast.Attribute) and parent.attr in PROTOCOL


@pytest.mark.parametrize("path", PLANNING, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_planning_knows_no_views(path: Path):
    assert list(faults(path.read_text(), planning=True)) == []


@pytest.mark.parametrize("path", READING, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_reading_knows_the_protocol_alone(path: Path):
    assert list(faults(path.read_text(), planning=False)) == []


@pytest.mark.parametrize(
    "text",
    [
        "if isinstance(form.view, Scaled): pass",
        "if type(tensor.form.view) is Scaled: pass",
        "if form.view == scaled: pass",
        "form.view.block_size",
        "from bridge.format.view import Scaled",
    ],
)
def test_this_test_can_fail(text: str):
    assert list(faults(text, planning=False))


def test_the_protocol_is_used():
    """There is something to hold."""
    used = [path for path in READING if ".view is not None" in path.read_text()]
    assert used
