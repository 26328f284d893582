"""Names of a checkpoint or a model, folded: modules that are alike are one, in the order in which they stand there."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any

from bridge._text import fold, is_index

_DEEPEST = 64  # segments that are told apart; no model nests that far

Path = tuple[Hashable, ...]
Rows = dict[Path, tuple[Hashable, list[str]]]
"""Where a row stands below its module: what its names have in common, and the names."""


def folded(items: Iterable[tuple[str, Hashable]]) -> Iterator[tuple[str, list[str]]]:
    """Names under labels such as `layers.{0..31}.mlp.up.weight`.

    Modules that differ in an index fold where most of what is below them is called the same, and all of that has the
    same value. So an MLP does not fold with an attention because both have a norm of one shape.

    **Arguments:**

    - `items`: names, and what has to be equal for two of them to be one row: a dtype with a shape.

    **Returns:** a label and its names, row by row. Indices go by their numbers; all else is in the order of `items`.
    """
    tree: dict[str | None, Any] = {}
    for name, value in items:
        node = tree
        for segment in name.split(".", _DEEPEST):
            node = node.setdefault(segment, {})
        node[None] = (name, value)  # a name may end where another one goes on
    for _, names in _rows(tree).values():
        yield from ((label, list(members)) for label, members in fold(names))


def _rows(node: dict[str | None, Any]) -> Rows:
    """What is below a module, its indices folded."""
    rows: Rows = {}
    indices = sorted((segment for segment in node if segment is not None and is_index(segment)), key=int)
    for segment, child in node.items():
        if segment is None:
            name, value = child
            rows[()] = (value, [name])
        elif not is_index(segment):
            rows.update({(segment, *path): row for path, row in _rows(child).items()})
        elif indices:  # all of them stand where the first one does
            for number, group in enumerate(_alike(_rows(node[index]) for index in indices)):
                rows.update({(number, *path): row for path, row in group.items()})
            indices = []
    return rows


def _alike(modules: Iterable[Rows]) -> list[Rows]:
    """Modules that are alike, joined: those that agree with an earlier one name by name, or mostly with the last."""
    groups: list[Rows] = []
    known: dict[Hashable, Rows] = {}
    for rows in modules:
        form = tuple((path, value) for path, (value, _) in rows.items())
        group = known.get(form)
        if group is None:
            group = groups[-1] if groups and _mostly(groups[-1], rows) else None
        if group is None:
            group = {}
            groups.append(group)
        known[form] = group
        for path, (value, names) in rows.items():
            group.setdefault(path, (value, []))[1].extend(names)
    return groups


def _mostly(a: Rows, b: Rows) -> bool:
    """Whether two modules have most of their names in common, and nothing that differs below these."""
    common = a.keys() & b.keys()
    return 2 * len(common) > len(a.keys() | b.keys()) and all(a[path][0] == b[path][0] for path in common)
