"""How keys may lie in leaves: every way, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from bridge.mapping.arrays import ArrayTable
from bridge.proposing.atom import Atom
from bridge.proposing.fits import fits
from bridge.proposing.fold import folded, key_infos
from bridge.proposing.spelling import Spelling, all_values
from tests.proposing.trees import Shapes, layers, plan, specs


def atom(shapes: Shapes) -> Atom:
    table = ArrayTable.of(specs(shapes))
    (found,) = folded(table, key_infos(table))
    return found


def spelled(keys: Shapes, leaves: Shapes) -> list[str]:
    """All ways as rules, each of which is proven."""
    key, leaf = atom(keys), atom(leaves)
    texts = [str(Spelling(key, leaf, fit, all_values([key]))) for fit in fits(key, leaf)]
    plans = [plan(keys, leaves, [text]) for text in texts]
    assert all(made.ok for made in plans), "\n".join(map(str, plans))
    assert all(one != other for n, one in enumerate(plans) for other in plans[n + 1 :]), texts
    return texts


@pytest.mark.parametrize(
    ("key", "leaf", "rules"),
    [
        ((4, 6), (4, 6), ["k -> l"]),
        ((4, 6), (6, 4), ["k [o i] -> l [i o]"]),
        ((4, 4), (4, 4), ["k -> l", "k [o i] -> l [i o]"]),
        ((8, 6), (2, 4, 6), ["k [(o i) k] -> l [o i k]"]),
        ((8, 6), (6, 2, 4), ["k [(o i) k] -> l [k o i]"]),
        ((1, 5, 6), (5, 6), ["k [1 o i] -> l [o i]"]),
        ((1, 1, 6), (6,), ["k [1 1 o] -> l [o]"]),
        ((6,), (6, 1, 1), ["k [o] -> l [o 1 1]"]),
        ((2, 3, 6), (6, 6), ["k [o i k] -> l [(o i) k]", "k [o i k] -> l [k (o i)]"]),
        ((8, 3, 5, 5), (5, 5, 3, 8), ["k [o i h w] -> l [h w i o]"]),
        ((4, 6), (4, 7), []),
        ((), (), ["k -> l"]),
    ],
)
def test_axes(key: tuple[int, ...], leaf: tuple[int, ...], rules: list[str]) -> None:
    assert spelled({"k": key}, {"l": leaf}) == rules


@pytest.mark.parametrize(
    ("keys", "leaves", "rules"),
    [
        (layers(3, "h.{}.", {"w": (4, 6)}), {"w": (3, 4, 6)}, ["h.{l}.w -> w"]),
        (layers(3, "h.{}.", {"w": (4, 6)}), {"w": (3, 6, 4)}, ["h.{l}.w [o i] -> w [l i o]"]),
        (layers(3, "h.{}.", {"w": (4, 6)}), {"w": (4, 3, 6)}, ["h.{l}.w [o i] -> w [o l i]"]),
        (layers(3, "h.{}.", {"w": (4,)}), layers(3, "l.{}.", {"w": (4,)}), ["h.{l}.w -> l.{l}.w"]),
        ({f"h.{n}.w": (4,) for n in range(1, 4)}, {"w": (3, 4)}, ["h.{l[1:]}.w -> w"]),
        ({f"h.{n}.w": (4,) for n in range(1, 4)}, layers(3, "l.{}.", {"w": (4,)}), ["h.{l[1:]}.w -> l.{l}.w"]),
        ({"w": (3, 4)}, layers(3, "l.{}.", {"w": (4,)}), ["w [e d] -> l.{e}.w [d]"]),
        (
            {f"h.{n}.e.{e}.w": (4,) for n in range(3) for e in range(2)},
            {"w": (3, 2, 4)},
            ["h.{l}.e.{i}.w -> w"],
        ),
        (
            {f"h.{n}.experts.{e}.w": (4,) for n in range(3) for e in range(2)},
            layers(3, "l.{}.", {"w": (2, 4)}),
            ["h.{l}.experts.{e}.w -> l.{l}.w"],
        ),
    ],
)
def test_numbers(keys: Shapes, leaves: Shapes, rules: list[str]) -> None:
    assert spelled(keys, leaves) == rules


def test_height_and_width_of_a_kernel_do_not_change_places() -> None:
    for text in spelled({"k": (8, 4, 3, 3)}, {"l": (3, 3, 4, 8)}):
        assert text == "k [o i h w] -> l [h w i o]"


def test_equal_extents_leave_several_ways() -> None:
    rules = spelled(layers(4, "h.{}.", {"w": (4, 4)}), {"w": (4, 4, 4)})
    assert rules[0] == "h.{l}.w -> w"
    assert len(rules) == 6


def test_names_of_axes_are_none_of_the_numbers() -> None:
    keys = {f"h.{n}.i.{e}.w": (4, 5, 6) for n in range(3) for e in range(2)}
    for text in spelled(keys, {"w": (3, 2, 6, 5, 4)}):
        assert text == "h.{l}.i.{i}.w [o k a] -> w [l i a k o]"


def test_shapes_repeat_and_counts_are_looked_at_first() -> None:
    assert fits(atom({"k": (2, 6)}), atom({"l": (3, 5)})) == []
    assert np.prod(atom(layers(3, "h.{}.", {"w": (2,)})).extents) == 3
