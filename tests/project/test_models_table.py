"""The table of `scripts/models` in docs/models.md: what a run has not measured stays."""

from __future__ import annotations

import pytest

from bench.models_table import BEGIN, COLUMNS, END, PAGE, published, read, written

NOTE = "Measured with jax 1."


def row(name: str, **cells: str) -> dict[str, str]:
    return dict.fromkeys(COLUMNS, "–") | {"name": name} | cells


def page(*rows: dict[str, str]) -> str:
    return f"# Models\n\n{BEGIN}\n\n{written(rows, NOTE)}\n{END}\n\nMore.\n"


def test_the_page_has_a_table_that_can_be_read():
    text = PAGE.read_text()
    rows, note = read(text.partition(BEGIN)[2].partition(END)[0])
    assert len(rows) > 10
    assert published(text, {}, note) == text


def test_rows_that_were_not_measured_stay_and_new_ones_come_in_order():
    before = page(row("`bert`, `B`", states="1"), row("`vit`, `V`", states="2"))
    after = published(before, {"`llama`, `L`": row("`llama`, `L`", states="3")}, NOTE)
    assert after == page(row("`bert`, `B`", states="1"), row("`llama`, `L`", states="3"), row("`vit`, `V`", states="2"))


def test_a_cell_that_was_not_measured_stays():
    before = page(row("`bert`, `B`", states="1", load="0.9"))
    after = published(before, {"`bert`, `B`": row("`bert`, `B`", states="4")}, NOTE)
    assert after == page(row("`bert`, `B`", states="4", load="0.9"))


def test_one_note_stands_under_all():
    bert, vit = row("`bert`, `B`", states="1"), row("`vit`, `V`", states="2")
    with pytest.raises(ValueError, match=r"the other rows say: Measured with jax 1\. Measure all"):
        published(page(bert, vit), {"`vit`, `V`": vit}, "Measured with jax 2.")
    after = published(
        page(bert, vit), {"`vit`, `V`": vit}, "Measured with jax 2.", coming=["`bert`, `B`", "`vit`, `V`"]
    )
    assert after == page(vit).replace(NOTE, "Measured with jax 2.")


def test_a_table_of_other_columns_is_not_mixed():
    with pytest.raises(ValueError, match="other columns"):
        published(page().replace("variants", "cases"), {}, NOTE)
