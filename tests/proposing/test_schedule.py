"""Layers that take turns, and stand in the model as a stack for each kind."""

from __future__ import annotations

from math import prod

import pytest

from tests.proposing.trees import Shapes, certain, check, guessed, layers, of_shapes

LAYER = {"self_attn.q_proj.weight": (6, 4), "mlp.down_proj.weight": (4, 8), "input_layernorm.weight": (4,)}
OWN = {"attn.q.weight": (6, 4), "mlp.down.weight": (4, 8), "norm1.weight": (4,)}


def stacks(**leads: tuple[int, ...]) -> Shapes:
    """A model whose layers are in parts, by the extents of their stacks."""
    return {f"layers.{part}.{name}": (*lead, *shape) for part, lead in leads.items() for name, shape in OWN.items()}


def rules(**parts: str) -> list[str]:
    """The rules for parts, by which layers are whose."""
    return [
        rule
        for part, chosen in parts.items()
        for options in [f" ; i={chosen.partition('=')[2]}"]
        for key, leaf in zip(LAYER, OWN, strict=True)
        for rule in [
            f"model.layers.{chosen.partition('=')[0]}.{key} -> layers.{part}.{leaf}" + options * ("=" in chosen)
        ]
    ]


WAYS = {
    "a tail": (stacks(local=(4, 5), full=(4,), tail=(2,)), rules(tail="{l[24:]}", local="{(g i[:5])}=6", full="{(g i[5])}=6")),
    "none": (stacks(sliding=(3, 2), whole=(3,)), rules(sliding="{(g i[:2])}=3", whole="{(g i[2])}=3")),
    "a first": (stacks(first=(), local=(7, 2), whole=(7,)), rules(first="0", local="{(g i[1:3])}=3", whole="{(g[1:] i[0])}=3")),
    "three": (stacks(a=(3, 2), b=(3,), c=(3,)), rules(a="{(g i[:2])}=4", b="{(g i[2])}=4", c="{(g i[3])}=4")),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_counts_tell_the_schedule(way: str) -> None:
    leaves, wanted = WAYS[way]
    count = sum(prod(shape) for name, shape in leaves.items() if name.endswith("norm1.weight")) // 4
    proposal = check(layers(count, "model.layers.{}.", LAYER), leaves, wanted)
    assert (proposal.unmatched, proposal.left) == ((), ())
    # No header tells whose turn is first.
    assert {leaf.split(".")[1] for pair in proposal.pairs if not pair.doubt for leaf in pair.leaves} <= {
        "first",
        "tail",
    }


def test_of_one_kind_nothing_is_open() -> None:
    proposal = of_shapes(layers(14, "model.layers.{}.", LAYER), stacks(groups=(4, 3), tail=(2,)))
    assert guessed(proposal) == {}
    assert len(certain(proposal)) == 6


def test_counts_that_do_not_agree_propose_nothing() -> None:
    proposal = of_shapes(layers(27, "model.layers.{}.", LAYER), stacks(local=(4, 5), full=(4,), tail=(2,)))
    assert certain(proposal) == {}
