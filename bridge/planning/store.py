"""A plan as JSON: what was asked, of which keys, for which leaves. Its index maps are proven anew when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from bridge._dtypes import dtype_label, labelled
from bridge._errors import BridgeError, PlanError
from bridge._text import quote
from bridge.mapping.pattern import NamePattern, NamePatterns
from bridge.mapping.template import Spec, Template
from bridge.planning.lossy import USED_UP, Quantization
from bridge.planning.plan import Plan, PlanRequest, make_plan
from bridge.planning.policy import DtypePolicy
from bridge.planning.set_aside import set_aside
from bridge.rules.rule import Rule

_VERSION = 1
_AGAIN = "Make it again"


def plan_to_json(plan: Plan) -> str:
    """One JSON document."""
    plan_specs = {key: _spec(spec.dtype, spec.shape) for key, spec in plan.specs.items()}
    document = {
        "version": _VERSION,
        "ok": plan.ok,
        "source": plan.source,
        "model": plan.model,
        "rules": [str(rule) for rule in plan.rules],
        "keys": plan_specs,
        "leaves": {name: _spec(spec.dtype, spec.shape) for name, spec in plan.leaves.items()},
        "fills": dict(plan.fills),
        "allow_missing": list(plan.request.allow_missing.texts),
        "allow_unexpected": list(plan.request.allow_unexpected.texts),
        "dtype": _policy(plan.request.dtype),
        "missing": list(plan.missing),
        "unexpected": list(plan.unexpected),
        "mismatched": [
            [leaf, key, _spec(a.dtype, a.shape), _spec(b.dtype, b.shape)] for leaf, key, a, b in plan.mismatched
        ],
        "casts": [[cast.leaf, dtype_label(cast.stored), dtype_label(cast.dtype)] for cast in plan.casts],
        "lossy": [list(lossy) for lossy in plan.lossy],
        "quantized": _quantized(plan),
        "adapters": {
            "asked": [list(each) for each in plan.request.adapters],
            "keys": {key: list(texts) for key, texts in plan.merged.items()},
        },
        "warnings": list(plan.warnings),
        "set_aside": dict(set_aside(plan)),
        "nbytes": plan.nbytes,
        "peak_nbytes": plan.peak_nbytes,
    }
    return json.dumps(document, ensure_ascii=False)


def plan_from_json(text: str) -> Plan:
    """The plan that `plan_to_json` wrote. **Raises:** `PlanError` for what is none."""
    try:
        document = cast("dict[str, Any]", json.loads(text))
        _check_types(document)
        if document["version"] != _VERSION:
            version = quote(str(document["version"]))[1:-1]
            raise PlanError("this plan", f"is of version {version}, this release reads {_VERSION}", _AGAIN)
        adapters = document.get("adapters", {})
        request = PlanRequest(
            _rules(document),
            DtypePolicy.of(document["dtype"]),
            NamePatterns.of(document["allow_missing"]),
            NamePatterns.of(document["allow_unexpected"]),
            quantized=document.get("quantized", {}).get("asked", "dequantize"),
            adapters=tuple((str(name), float(weight)) for name, weight in adapters.get("asked", ())),
        )
        specs = {key: _read(entry) for key, entry in document["keys"].items()}
        # The leaves have the dtypes that were settled then, so no policy is asked again.
        leaves = {name: _read(entry) for name, entry in document["leaves"].items()}
        model = Template(leaves, fills=document["fills"], kind=document["model"])
        settled = request._replace(dtype=DtypePolicy())
        plan = make_plan(specs, model, settled, source=document["source"])
        costs = {
            name: document[name] for name in ("nbytes", "peak_nbytes")
        }  # they depend on where the leaves were to go
        stored = document.get("quantized", {}).get("keys", {})
        quantized = {key: Quantization(*map(str, said)) for key, said in stored.items() if key in specs}
        warnings = tuple(map(str, document.get("warnings", ())))
        aside = {str(leaf): str(layer) for leaf, layer in document.get("set_aside", {}).items()}
        merged = {key: tuple(map(str, said)) for key, said in adapters.get("keys", {}).items() if key in specs}
        return replace(
            plan,
            request=request,
            quantized=quantized,
            warnings=warnings,
            set_aside=aside,
            merged=merged,
            **costs,
        )
    except BridgeError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError, ArithmeticError) as error:
        raise PlanError("this", f"is not a plan that to_json wrote: {type(error).__name__}: {error}", _AGAIN) from error


def _quantized(plan: Plan) -> dict[str, Any]:
    asked = plan.request.quantized
    return {
        "asked": asked if isinstance(asked, str) else dict(asked),
        "keys": {key: list(said) for key, said in plan.quantized.items()},
    }


def _rules(document: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a plan. Of keys that a layer uses up, 0.1 spelled only where they went."""
    rules = [Rule(text) for text in document["rules"]]
    consumed = {key for key, reason in document["lossy"] if reason == USED_UP}
    for number, rule in enumerate(rules):
        pattern = NamePattern(rule.keys[0].name)
        found = {key for key in consumed if pattern.match(key) is not None}
        if found and rule.leaf is not None and not rule.leaf.axes:
            rules[number] = Rule(f"{rule.keys[0]} -> _ ; zeros=true")
        consumed -= found
    return tuple(rules)


def _spec(dtype: np.dtype, shape: tuple[int, ...]) -> list[Any]:
    return [dtype_label(dtype), *shape]


def _read(entry: list[Any]) -> Spec:
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in entry[1:]):
        raise ValueError(f"{entry[1:]} is not a shape")
    return Spec(labelled(entry[0]), tuple(entry[1:]))


def _check_types(document: Mapping[str, Any]) -> None:
    """What Python would take for something else, or only trip over later."""
    if not (isinstance(document["source"], str) and isinstance(document["model"], str)):
        raise TypeError("source and model are texts")
    for name in ("rules", "allow_missing", "allow_unexpected"):
        if not (isinstance(document[name], list) and all(isinstance(text, str) for text in document[name])):
            raise TypeError(f"{name} is a list of texts")
    asked = document.get("quantized", {}).get("asked", "dequantize")
    if not (isinstance(asked, dict) or asked in ("dequantize", "keep")):
        raise TypeError("quantized is 'dequantize', 'keep' or an object")
    numbers = (*document["fills"].values(), document["nbytes"], document["peak_nbytes"])
    if not all(type(value) is int and abs(value) < 1 << 63 for value in numbers):
        raise TypeError("fills and costs are whole numbers")


def _policy(policy: DtypePolicy) -> Any:
    def name(wanted: np.dtype | str | None) -> str | None:
        return str(wanted) if isinstance(wanted, np.dtype) else wanted

    return {pattern: name(w) for pattern, w in policy.by_leaf} if policy.by_leaf else name(policy.default)
