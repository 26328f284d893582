"""The table of `scripts/models` in `docs/models.md`: written, read again, and filled row by row."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "models.md"
BEGIN, END = "<!-- models: written by scripts/models -->", "<!-- models: end -->"
COLUMNS: Mapping[str, str] = {
    "name": "`model_type`, class of transformers",
    "variants": "variants",
    "states": "max \\|Δ\\| hidden states",
    "output": "max \\|Δ\\| output",
    "heads": "heads: max \\|Δ\\| logits",
    "tokens": "greedy tokens that agree",
    "bfloat16": "error in bfloat16",
    "load": "load, time",
    "memory": "load, peak memory",
    "first": "import to first output",
}


def written(rows: Iterable[Mapping[str, str]], note: str) -> str:
    """The table, and under it what it was measured with."""
    head = f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * len(COLUMNS)}"
    lines = (f"| {' | '.join(row[cell] for cell in COLUMNS)} |" for row in rows)
    return "\n".join([head, *lines, "", note, ""])


def read(text: str) -> tuple[dict[str, dict[str, str]], str]:
    """The rows of a table, by name, and its note. **Raises:** `ValueError` for a table of other columns."""
    lines = [line for line in text.splitlines() if line.strip()]
    table = [line for line in lines if line.startswith("|")]
    cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in table if not line.startswith("|---")]
    if cells and cells[0] != list(COLUMNS.values()):
        raise ValueError(f"the table has other columns than {', '.join(COLUMNS)}")
    rows = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in cells[1:]}
    return rows, next((line for line in lines if not line.startswith("|")), "")


def published(page: str, rows: Mapping[str, Mapping[str, str]], note: str, *, coming: Collection[str] = ()) -> str:
    """The page with what was measured in its table. Rows and cells that were not measured stay as they are; but what
    was measured with something else, and is coming anew, goes: one note stands under all.

    **Raises:** `ValueError` where other rows were measured with something else.
    """
    before, _, rest = page.partition(BEGIN)
    inside, _, after = rest.partition(END)
    old, said = read(inside)
    if said != note:
        old = {name: row for name, row in old.items() if name in rows or name not in coming}
        if not old.keys() <= rows.keys():
            raise ValueError(f"the other rows say: {said} Measure all of them")
    every = old | {name: {**old.get(name, {}), **_told(row, old.get(name))} for name, row in rows.items()}
    text = written((every[name] for name in sorted(every, key=str.lower)), note)
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def _told(row: Mapping[str, str], before: Mapping[str, str] | None) -> dict[str, str]:
    """The cells that say something, or stand for the first time."""
    return {cell: value for cell, value in row.items() if value != "–" or before is None}
