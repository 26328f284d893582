"""Layers of `eqx.nn`: their type says what PyTorch's tensors are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

from bridge.mapping.template import Spec
from bridge.model.kinds import kinds_of
from bridge.model.template import take_apart
from bridge.planning.plan import PlanRequest, make_plan
from bridge.proposing import propose
from bridge.rules.rule import rules_of
from tests.proposing.trees import Shapes

KEY = jax.random.key(0)
BN = {"bn.weight": (8,), "bn.bias": (8,), "bn.running_mean": (8,), "bn.running_var": (8,), "bn.num_batches_tracked": ()}


def norm(mode: str) -> Callable[[], Any]:
    return lambda: eqx.nn.make_with_state(lambda: {"norm": eqx.nn.BatchNorm(8, "batch", mode=mode)})()


@pytest.mark.parametrize(
    ("make", "keys"),
    [
        (lambda: {"lstm": eqx.nn.LSTMCell(5, 4, key=KEY)}, {"rnn.weight_ih_l0": (16, 5), "rnn.weight_hh_l0": (16, 4), "rnn.bias_ih_l0": (16,), "rnn.bias_hh_l0": (16,)}),
        (lambda: {"gru": eqx.nn.GRUCell(5, 4, key=KEY)}, {"rnn.weight_ih_l0": (12, 5), "rnn.weight_hh_l0": (12, 4), "rnn.bias_ih_l0": (12,), "rnn.bias_hh_l0": (12,)}),
        (lambda: {"conv": eqx.nn.Conv2d(3, 8, 3, key=KEY)}, {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,)}),
        (lambda: {"upsample": eqx.nn.ConvTranspose2d(8, 8, 3, key=KEY)}, {"net.upsample.weight": (8, 8, 3, 3), "net.upsample.bias": (8,)}),
        (lambda: {"norm": eqx.nn.LayerNorm(8)}, {"net.ln.weight": (8,), "net.ln.bias": (8,)}),
        (norm("ema"), BN),
        (norm("batch"), BN),
    ],
)  # fmt: skip
def test_layers(make: Callable[[], Any], keys: Shapes) -> None:
    like = eqx.filter_eval_shape(make)
    template = take_apart(like).template
    specs = {name: Spec(np.dtype("int64" if name.endswith("tracked") else "float32"), s) for name, s in keys.items()}
    proposal = propose(specs, template, kinds_of(like))
    rules = [pair.rule for pair in proposal.pairs] + [drop.rule for drop in proposal.drops]
    assert (proposal.unmatched, proposal.left) == ((), ())
    assert not any("[" in rule for rule in rules)
    made = make_plan(specs, template, PlanRequest(rules_of(rules)), source="the test's")
    assert made.ok, str(made)
    assert [pair.rule for pair in proposal.pairs if pair.doubt] == []


def test_kinds_are_the_types_of_equinox() -> None:
    class Mine(eqx.nn.Linear):
        pass

    like = {"a": Mine(3, 2, key=KEY), "b": [eqx.nn.Embedding(3, 2, key=KEY)], "c": np.zeros(2)}
    assert kinds_of(like) == {"a.weight": "Linear", "a.bias": "Linear", "b.0.weight": "Embedding"}
