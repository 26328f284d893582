"""What a report advises, followed to the letter: it never ends in a plan that is ok and wrong.

A reader who knows nothing pastes every rule that is printed, where it says, and allows what it says may be allowed,
until nothing new is advised. Hundreds of models are called as one project calls them and stored as another does.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from tests.planning.namings import LAYERS, NAMINGS, arrays

F32 = np.float32
PREFIXES = ("", "_orig_mod.")
WAYS = [(own, to, *rest) for own, to, rest in product(NAMINGS, NAMINGS, product(range(2), range(2))) if own != to]
SAMPLED = WAYS[::7]


class Case(NamedTuple):
    """A checkpoint, a model, and which key is which leaf, `None` for the whole of it or the layer."""

    tensors: dict[str, np.ndarray]
    like: dict[str, Any]
    truth: dict[str, list[str]]


def case(own: str, to: str, prefix: int, stacked: int, *, square: bool = False) -> Case:
    """Keys as `own` calls them, leaves as `to` does."""
    sizes = {"width": 4, "wide": 4 if square else 6, "vocabulary": 9, "positions": 9 if square else 7}
    tensors: dict[str, np.ndarray] = {}
    leaves: dict[str, Any] = {}
    truth: dict[str, list[str]] = {}
    start = 0
    for key, leaf in zip(arrays(own, **sizes), arrays(to, **sizes), strict=True):
        layers = range(LAYERS) if "{}" in key.name else range(1)
        names = [PREFIXES[prefix] + key.name.replace("{}", str(n)) for n in layers]
        for name in names:
            count = int(np.prod(key.shape))
            tensors[name] = np.arange(start, start + count, dtype=F32).reshape(key.shape)
            start += count
        if "{}" in leaf.name and stacked:
            leaves[leaf.name.replace(".{}", "")] = jax.ShapeDtypeStruct((LAYERS, *leaf.shape), F32)
            truth[leaf.name.replace(".{}", "")] = names
        else:
            own_names = [leaf.name.replace("{}", str(n)) for n in layers]
            leaves |= dict.fromkeys(own_names, jax.ShapeDtypeStruct(leaf.shape, F32))
            truth |= {name: [key_name] for name, key_name in zip(own_names, names, strict=True)}
    return Case(tensors, leaves, truth)


# Reading a report

QUOTED = r'"(?:[^"\\]|\\.)*"'
RULES = re.compile(
    rf"if so, (?:the rule is|the rules are|one rule says it for [\d,]+ leaves:) ({QUOTED}(?:, {QUOTED})*)(, before all others)?"
)
ALLOWED = re.compile(
    rf"if (?:it is|they are) not needed: allow_unexpected=\[({QUOTED})\]|if the model computes (?:it|them): allow_unexpected=\[({QUOTED})\]"
)
TOLD = re.compile(
    r"did you mean '.*'(?: …)? \(unused, .*\)\?"
    r"|sent to '.*' by the rule '.*'|'.*' has no place for it: its shape is .*"
    # Conditions that are not so here: every leaf has its key.
    r"|(?:if (?:it is|they are) new|to keep other values there): allow_missing=\[.*\]"
)
WHOLE = re.compile(rf"  take it away with the rule ({QUOTED})")
OTHERS = re.compile(rf"(?:if it is stored transposed, say so|to drop them on purpose): ({QUOTED})")


class Advice(NamedTuple):
    """What a report says to do."""

    first: list[str]
    rules: list[str]
    allowed: list[str]


def advice(text: str) -> Advice:
    """The advice of a printed report. A line that is no known sentence fails."""
    found = Advice([], [], [])
    for line in text.partition("\n\n")[2].splitlines()[1:]:
        inner = line.removeprefix(" " * 14)
        if inner == line:
            found.rules.extend(ast.literal_eval(whole[1]) for whole in [WHOLE.fullmatch(line)] if whole)
            continue
        rules, allowed, other = RULES.fullmatch(inner), ALLOWED.fullmatch(inner), OTHERS.fullmatch(inner)
        if rules:
            pasted = [ast.literal_eval(quoted) for quoted in re.findall(QUOTED, rules[1])]
            (found.first if rules[2] else found.rules).extend(pasted)
        elif allowed:
            found.allowed.append(ast.literal_eval(allowed[1] or allowed[2]))
        elif other:
            found.rules.append(ast.literal_eval(other[1]))
        else:
            assert TOLD.fullmatch(inner), inner
    return found


def followed(path: Path, like: dict[str, Any]) -> tuple[bridge.Plan, list[str], list[str]]:
    """The plan that all advice ends in, its rules, and what was allowed."""
    rules: list[str] = []
    found = Advice([], [], [])
    plan = bridge.plan(path, like, rules)
    for _ in range(8):
        if plan.ok:
            return plan, rules, []
        found = advice(str(plan))
        more = [*found.first, *(rule for rule in found.rules if rule not in rules)]
        if not more:
            break
        again = [*found.first, *rules, *(rule for rule in found.rules if rule not in rules)]
        assert again != rules
        rules = again
        plan = bridge.plan(path, like, rules)
    if not plan.missing and not plan.mismatched:
        return bridge.plan(path, like, rules, allow_unexpected=found.allowed), rules, found.allowed
    return plan, rules, []


def wrong(plan: bridge.Plan, truth: dict[str, list[str]]) -> Iterator[str]:
    """Keys that the plan takes to another leaf than theirs."""
    for block in plan.blocks:
        for term in block.terms:
            for key, leaf in zip(term.keys, block.leaves, strict=True):
                if key not in truth[leaf]:
                    yield f"{key} -> {leaf}"


def check(tmp_path: Path, made: Case) -> bool:
    """Follow the advice; what is ok is right to the last element, and nothing that is filled is filled wrongly."""
    path = tmp_path / "model.safetensors"
    save_file(made.tensors, path)
    plan, rules, allowed = followed(path, made.like)
    assert not [*wrong(plan, made.truth)], (rules, [*wrong(plan, made.truth)])
    if plan.ok:
        model = bridge.load(path, made.like, rules, allow_unexpected=allowed)
        for leaf, keys in made.truth.items():
            parts = [made.tensors[key] for key in keys]
            expected = np.stack(parts) if model[leaf].ndim > parts[0].ndim else parts[0]
            np.testing.assert_array_equal(np.asarray(model[leaf]), expected, strict=True)
    return plan.ok


@pytest.mark.parametrize("square", [False, True])
def test_no_advice_ends_in_a_wrong_model(tmp_path: Path, square: bool):
    for way in SAMPLED[square::2]:
        check(tmp_path, case(*way, square=square))


# A wrapper, or another spelling of parameters, over the same names: the advice is all that is needed.


def in_layers(key: str, wrapper: str) -> str:
    """A key whose layers are wrapped each."""
    return re.sub(r"\.(\d+)\.", rf".\1.{wrapper}.", key, count=1)


WRAPPED: dict[str, Callable[[str], str]] = {
    "DataParallel": lambda key: f"module.{key}",
    "torch.compile": lambda key: f"_orig_mod.{key}",
    "both": lambda key: f"module._orig_mod.{key}",
    "a model within": lambda key: f"model.{key}",
    "checkpointed layers": lambda key: in_layers(key, "_checkpoint_wrapped_module"),
    "FSDP": lambda key: "_fsdp_wrapped_module." + in_layers(key, "_fsdp_wrapped_module"),
    "PEFT": lambda key: re.sub(r"\.(\w+)$", r".default.\1", key),
    "TensorFlow": lambda key: key[:-6] + "gamma" if key.endswith("weight") and "norm" in key.lower() else key,
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_one_change_of_names_is_advised_and_right(tmp_path: Path, wrapper: str):
    for number, naming in enumerate([*NAMINGS][::2]):
        made = case(naming, naming, 0, number % 2)
        names = {key: WRAPPED[wrapper](key) for key in made.tensors}
        tensors = {names[key]: tensor for key, tensor in made.tensors.items()}
        truth = {leaf: [names[key] for key in keys] for leaf, keys in made.truth.items()}
        assert check(tmp_path, Case(tensors, made.like, truth)), naming


def test_this_test_can_fail(tmp_path: Path):
    made = case("plain", "plain", 1, 0)
    q, k = "layers.0.attn.q.weight", "layers.0.attn.k.weight"
    swapped = {**made.truth, q: made.truth[k], k: made.truth[q]}
    with pytest.raises(AssertionError):
        check(tmp_path, Case(made.tensors, made.like, swapped))
