"""`plan.rules`: concrete rules, few, and all that a plan is."""

from __future__ import annotations

import re

import numpy as np
import pytest

from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.rules.rule import Rule

LAYERS = 32
SHAPES = {
    "self_attn.q_proj.weight": (8, 8),
    "self_attn.k_proj.weight": (4, 8),
    "self_attn.v_proj.weight": (4, 8),
    "self_attn.o_proj.weight": (8, 8),
    "mlp.gate_proj.weight": (16, 8),
    "mlp.up_proj.weight": (16, 8),
    "mlp.down_proj.weight": (8, 16),
    "input_layernorm.weight": (8,),
    "post_attention_layernorm.weight": (8,),
}
OUTER = {"embed_tokens.weight": (20, 8), "norm.weight": (8,)}
RULES = [
    "model.embed_tokens.** -> embed.**",
    "model.norm.** -> norm.**",
    "model.layers.{l}.self_attn.*_proj.** -> layers.attn.*.**",
    "model.layers.{l}.mlp.*_proj.** -> layers.mlp.*.**",
    "model.layers.{l}.input_layernorm.** -> layers.norm1.**",
    "model.layers.{l}.post_attention_layernorm.** -> layers.norm2.**",
    "lm_head.weight -> embed.weight ; tie=true",
]
F4 = np.dtype("f4")


def specs() -> dict[str, Spec]:
    found = {f"model.layers.{n}.{name}": Spec(F4, shape) for n in range(LAYERS) for name, shape in SHAPES.items()}
    return (
        found
        | {f"model.{name}": Spec(F4, shape) for name, shape in OUTER.items()}
        | {"lm_head.weight": Spec(F4, (20, 8))}
    )


def listed(name: str) -> str:
    """The leaf of a model of one's own names."""
    for old, new in ((r"self_attn\.(\w)_proj", r"attn.\1"), (r"mlp\.(\w+)_proj", r"mlp.\1")):
        name = re.sub(old, new, name)
    return name.replace("input_layernorm", "norm1").replace("post_attention_layernorm", "norm2")


def llama(kind: str) -> tuple[Plan, Template]:
    """A Llama of 32 layers in a model whose layers are a list or a stack."""
    outer = {"embed.weight": Spec(F4, (20, 8)), "norm.weight": Spec(F4, (8,))}
    if kind == "stack":
        inner = {f"layers.{listed(name)}": Spec(F4, (LAYERS, *shape)) for name, shape in SHAPES.items()}
        rules = RULES
    else:
        inner = {f"layers.{n}.{listed(m)}": Spec(F4, s) for n in range(LAYERS) for m, s in SHAPES.items()}
        rules = [rule.replace("-> layers.", "-> layers.{l}.") for rule in RULES]
    model = Template(outer | inner)
    return make_plan(specs(), model, PlanRequest(tuple(map(Rule, rules))), source="llama"), model


@pytest.mark.parametrize("kind", ["stack", "list"])
def test_a_llama_of_32_layers_has_few_of_them(kind: str):
    plan, model = llama(kind)
    assert plan.ok, plan
    assert len(plan.rules) <= 14
    assert not any("*" in str(rule) for rule in plan.rules)
    assert make_plan(specs(), model, PlanRequest(plan.rules), source="llama") == plan
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("kind", ["stack", "list"])
def test_a_family_of_leaves_is_few_blocks(kind: str):
    plan, _ = llama(kind)
    assert len(plan.blocks) <= len(SHAPES) + len(OUTER) + 1
    assert sum(len(block) for block in plan.blocks) == len(specs())


def test_a_number_that_is_a_place_of_a_stack_is_spelled():
    keys = {"a.0.w": Spec(F4, (2,)), "b.w": Spec(F4, (2,))}
    model = Template({"w": Spec(F4, (2, 2))})
    plan = make_plan(keys, model, PlanRequest((Rule("a.{l}.w -> w.{l}"), Rule("b.w -> w.1"))), source="x")
    assert plan.ok, plan
    assert make_plan(keys, model, PlanRequest(plan.rules), source="x") == plan
    assert any("[1] ..." in str(rule) for rule in plan.rules)


@pytest.mark.parametrize(
    ("kind", "turn"), [("stack", "layers.attn.q.weight [n[0] o i]"), ("list", "layers.0.attn.q.weight [o i]")]
)
def test_plans_are_compared_by_columns_as_they_are_row_by_row(kind: str, turn: str):
    plan, model = llama(kind)
    rules = (Rule(f"model.layers.0.self_attn.q_proj.weight [i o] -> {turn}"), *plan.rules)
    turned = make_plan(specs(), model, PlanRequest(rules), source="llama")
    for other in (make_plan(specs(), model, PlanRequest(plan.rules), source="llama"), turned):
        again = make_plan(dict(reversed(specs().items())), model, PlanRequest(other.rules), source="llama")
        assert again == other  # its keys are numbered otherwise
        assert (plan == other) is (plan == again) is (other is not turned)
