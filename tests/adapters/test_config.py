"""PEFT's config, read strictly; its patterns, without running them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bridge
from bridge.adapters.config import AdapterConfig
from bridge.adapters.patterns import ModulePattern
from tests.adapters.write import adapter, config, peft

CASES = Path(__file__).parent / "cases"


def read(**fields: Any) -> AdapterConfig:
    return AdapterConfig.of(config(**fields), subject="'adapter_config.json'")


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": "LOHA"},
        {"peft_type": None},
        *(
            {"init_lora_weights": start}
            for start in ("pissa", "pissa_niter_16", "olora", "corda", "lora_ga", "loftq", 7)
        ),
        *({field: True} for field in ("use_qalora", "use_bdlora", "not_known_yet")),
        *({field: {"x": 1}} for field in ("kasa_config", "arrow_config", "monteclora_config", "loftq_config")),
        {"layer_replication": [[0, 4]]},
        {"alora_invocation_tokens": [1]},
        {"velora_config": {"num_groups": 4}},
        {"bias": "some"},
        {"r": 0},
        {"r": True},
        {"r": 10**9},
        {"r": "4"},
        {"lora_alpha": "8"},
        {"lora_alpha": None},
        {"use_dora": 1},
        {"rank_pattern": [4]},
        {"rank_pattern": {"q": 0}},
        {"rank_pattern": {"q": 4.5}},
        {"alpha_pattern": {"q": "x"}},
        {"trainable_token_indices": 7},
        {"trainable_token_indices": [-1]},
        {"trainable_token_indices": {"embed": [1.0]}},
    ],
    ids=str,
)
def test_refused_by_the_name_of_its_field(fields: dict[str, Any]) -> None:
    with pytest.raises(bridge.CheckpointError) as caught:
        read(**fields)
    assert str(caught.value).startswith(f"'adapter_config.json': {next(iter(fields))} ")


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal", "eva", "mica", "true"])
def test_ways_to_begin_that_leave_the_base_alone(start: Any) -> None:
    assert read(init_lora_weights=start).r == 4


def test_fields_that_say_nothing_may_have_any_value() -> None:
    said = {
        "target_modules": ["q"],
        "lora_dropout": 0.5,
        "peft_version": "9",
        "modules_to_save": ["x"],
        "revision": "main",
    }
    assert read(**said, unknown=None, other=False, third=[], fourth={}) == read()


def test_every_field_of_the_cases_is_known() -> None:
    for name in ("plain", "saved_bias"):
        assert bridge.plan(CASES / "base", adapters=CASES / name).ok


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({}, 2.0),
        ({"use_rslora": True}, 4.0),
        ({"rank_pattern": {"q_proj": 2}}, 4.0),
        ({"alpha_pattern": {"q_proj": 2}}, 0.5),
        (
            {"rank_pattern": {r"layers.\d+.q_proj": 1, "q_proj": 2}, "alpha_pattern": {"proj": 1, "q_proj|k_proj": 3}},
            3.0,
        ),
        ({"rank_pattern": {"h.layers.0.q_proj": 1}}, 2.0),
    ],
    ids=str,
)
def test_scales(fields: dict[str, Any], scale: float) -> None:
    assert read(lora_alpha=8, **fields).scale("model.layers.0.q_proj", 1.0) == scale
    assert read(lora_alpha=8, **fields).scale("model.layers.0.q_proj", -0.5) == -0.5 * scale


PIECES = st.sampled_from(["a", "ab", "q_proj", "1", "12", ".", r"\.", r"\d+", "x-y"])
NAMES = st.lists(st.sampled_from(["a", "ab", "q_proj", "1", "12", ".", "b", "x-y", "٣"]), max_size=8).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(PIECES, min_size=1, max_size=4), min_size=1, max_size=3), st.booleans(), st.booleans(), NAMES)
def test_patterns_match_as_the_expression_would(branches: list[list[str]], start: bool, end: bool, name: str) -> None:
    text = "|".join("^" * start + "".join(pieces) + "$" * end for pieces in branches)
    assert ModulePattern(text).matches(name) == (re.match(rf"(.*\.)?({text})$", name) is not None)


@pytest.mark.parametrize(
    "text",
    ["(a+)+$", "a*", "a+", "[ab]", "a{9}", "(?=a)", r"\w+", r"\d", "a||b", "", "a^b", "a$b", "^", "a" * 1001, "ä"],
)
def test_other_expressions_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        ModulePattern(text)
    with pytest.raises(bridge.CheckpointError, match=r"a regular expression with .*, which bridge does not run"):
        read(rank_pattern={text: 2})


def test_no_pattern_takes_long() -> None:
    """What an engine of expressions would try for longer than anybody lives."""
    pattern, name = ModulePattern(r"\d+." * 200 + "x"), "1" * 1000
    began = time.process_time()
    assert not pattern.matches(name)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("base_model.model.m.lora_E", "is not a known tensor of an adapter: 'lora_E'"),
        ("base_model.model.m.lora_A.weight", "has no lora_B beside it"),
        ("base_model.model.m.lora_embedding_B", "has no lora_embedding_A beside it"),
        ("base_model.model.m.token_adapter.trainable_tokens_delta", "does not say which rows"),
        ("base_model.model.m.base_layer.out_proj.lora_A.weight", "is of a MultiheadAttention"),
    ],
)
def test_keys_that_say_too_little(name: str, said: str, tmp_path: Path) -> None:
    lora = adapter(tmp_path / "lora", {name: np.ones((1, 2), "f4")})
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.plan(CASES / "base", adapters=lora)
    assert said in str(caught.value)
    assert name in str(caught.value)


def test_an_adapters_name_may_stand_in_its_keys(tmp_path: Path) -> None:
    """As exports of a training loop have it."""
    factors = peft({"model.norm_": (np.ones((4, 16), "f4"), np.ones((16, 4), "f4"))})
    named = {
        key.replace(".weight", ".default.weight").replace("norm_", "layers.0.self_attn.q_proj"): v
        for key, v in factors.items()
    }
    plan = bridge.plan(CASES / "base", adapters=adapter(tmp_path / "lora", named))
    assert plan.merged == {"model.layers.0.self_attn.q_proj.weight": ("+= 1.0 · B @ A (r=4)",)}


def test_dora_that_only_one_side_says(tmp_path: Path) -> None:
    factors = peft({"model.layers.0.self_attn.q_proj": (np.ones((4, 16), "f4"), np.ones((16, 4), "f4"))})
    with pytest.raises(bridge.CheckpointError, match="has no lora_magnitude_vector, but use_dora is true"):
        bridge.plan(CASES / "base", adapters=adapter(tmp_path / "lora", factors, use_dora=True))
    factors["base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"] = np.ones(16, "f4")
    with pytest.raises(bridge.CheckpointError, match="is DoRA's, but use_dora is not true"):
        bridge.plan(CASES / "base", adapters=adapter(tmp_path / "lora", factors))


def test_peft_keys_without_a_config(tmp_path: Path) -> None:
    lora = adapter(tmp_path / "lora", peft({"m": (np.ones((4, 16), "f4"), np.ones((16, 4), "f4"))}))
    (lora / "adapter_config.json").unlink()
    with pytest.raises(bridge.CheckpointError, match=r"has PEFT's keys, but no adapter_config\.json"):
        bridge.plan(CASES / "base", adapters=lora)
