"""Names into atoms."""

from __future__ import annotations

import numpy as np

from bridge.mapping.arrays import ArrayTable
from bridge.proposing.atom import Atom
from bridge.proposing.fold import folded, key_infos
from tests.proposing.trees import Shapes, layers, specs


def fold(shapes: Shapes) -> list[Atom]:
    table = ArrayTable.of(specs(shapes))
    atoms = folded(table, key_infos(table))
    assert sorted(name for atom in atoms for name in atom.names(table)) == sorted(shapes)
    return atoms


def shown(shapes: Shapes) -> list[str]:
    return [atom.shown for atom in fold(shapes)]


def test_layers_that_are_alike_are_one_name() -> None:
    assert shown(layers(3, "h.{}.", {"w": (2, 2), "b": (2,)})) == ["h.{0..2}.w", "h.{0..2}.b"]


def test_experts_are_numbers_below_numbers() -> None:
    (atom,) = fold({f"h.{n}.e.{e}.w": (2,) for n in range(3) for e in range(2)})
    assert (atom.shown, atom.extents, atom.elements) == ("h.{0..2}.e.{0..1}.w", (3, 2), 12)


def test_numbers_of_unlike_layers_are_names() -> None:
    assert shown({"0.w": (3, 4), "1.w": (4,), "2.w": (5, 3)}) == ["0.w", "1.w", "2.w"]


def test_numbers_with_gaps_are_names() -> None:
    assert shown({"mlp.0.w": (2, 2), "mlp.2.w": (2, 2)}) == ["mlp.0.w", "mlp.2.w"]


def test_a_layer_with_more_than_the_others_is_still_one_of_them() -> None:
    blocks = layers(3, "b.{}.", {"conv1.w": (4, 4), "conv2.w": (4, 4), "bn.w": (4,)}) | {"b.0.down.w": (4, 4)}
    assert shown(blocks) == ["b.{0..2}.conv1.w", "b.{0..2}.conv2.w", "b.{0..2}.bn.w", "b.0.down.w"]


def test_a_layer_of_another_shape_stands_by_itself() -> None:
    blocks = layers(3, "b.{}.", {"conv1.w": (4, 4), "conv2.w": (4, 4), "bn.w": (4,)}) | {"b.0.conv1.w": (4, 2)}
    assert set(shown(blocks)) == {"b.0.conv1.w", "b.{1..2}.conv1.w", "b.{0..2}.conv2.w", "b.{0..2}.bn.w"}


def test_dense_layers_before_those_with_experts() -> None:
    shapes = layers(5, "h.{}.", {"q": (2, 2), "k": (2, 2), "v": (2, 2)})
    shapes |= {f"h.{n}.mlp": (4, 2) for n in range(2)} | {f"h.{n}.e.{e}": (4, 2) for n in range(2, 5) for e in range(3)}
    assert shown(shapes)[3:] == ["h.{0..1}.mlp", "h.{2..4}.e.{0..2}"]


def test_a_number_at_the_end_of_a_word_is_an_index_where_a_layer_hangs_below() -> None:
    layer = {"q.kernel": (2, 2), "k.kernel": (2, 3), "v.kernel": (2, 4)}
    assert shown(layers(2, "layers_{}.", layer)) == [f"layers_{{0..1}}.{name}" for name in layer]
    assert shown({"conv1.w": (2, 2), "conv2.w": (2, 2)}) == ["conv1.w", "conv2.w"]


def test_numbers_from_one() -> None:
    (atom,) = fold({f"block.{n}.w": (2,) for n in range(1, 5)})
    assert np.array_equal(atom.columns[0], [1, 2, 3, 4])


def test_many_names_fold_in_columns() -> None:
    shapes = {f"h.{n}.e.{e}.{w}": (4, 2) for n in range(40) for e in range(64) for w in ("up", "down", "gate")}
    assert len(fold(shapes)) == 3
