"""The models of bridge.models, and the rules that come with them, against the keys of the corpus."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from typing import Any

import equinox as eqx
import jax

from bridge.model.template import take_apart
from bridge.models._pretrained import ARCHITECTURES
from bridge.planning.plan import PlanRequest, make_plan
from bridge.rules.rule import rules_of
from tests.proposing.folded import FOLDER, checkpoint
from tests.proposing.judge import Pair, specs_of


@cache
def configs() -> dict[str, Any]:
    """The configurations of those architectures of the corpus, as transformers writes them."""
    return json.loads((FOLDER / "configs.json").read_text())


def own(name: str) -> tuple[Pair, Any]:
    """A checkpoint and the model of bridge.models that it fills, with its abstract self."""
    data, entries = configs()[name], checkpoint(name)
    file, _, kind = ARCHITECTURES[data["model_type"]].partition(".")
    module = import_module(f"bridge.models.{file}")
    parts = module.parts_of([entry.name for entry in entries]) if hasattr(module, "parts_of") else {}
    config = module.Config.from_dict(data, **parts)
    like = eqx.filter_eval_shape(getattr(module, kind), config, key=jax.random.key(0))
    template, rules = take_apart(like).template, rules_of(module.rules(config))
    specs = specs_of(entries)
    plan = make_plan(specs, template, PlanRequest(rules), source=name)
    plan.check()
    return Pair(name, specs, rules, template, plan), like
