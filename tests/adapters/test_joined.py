"""What a plan says of adapters, what it keeps, and what is told where they do not meet the base."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
from tests.adapters.write import adapter, peft

CASES = Path(__file__).parent / "cases"
BASE, PLAIN, SAVED = CASES / "base", CASES / "plain", CASES / "saved_bias"
Q = "model.layers.{0..1}.self_attn.q_proj.weight"


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def base(folder: Path, **tensors: np.ndarray) -> Path:
    """A checkpoint; `__` in a name is a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name.replace("__", "."): values for name, values in tensors.items()}, folder / "model.safetensors")
    return folder


def test_the_plan_shows_each_merge_folded() -> None:
    shown = str(bridge.plan(BASE, adapters=[PLAIN]))
    assert f"\n  {Q} += 2.0 · B @ A (r=4)" in shown
    half = str(bridge.plan(BASE, adapters=[(PLAIN, 0.5), SAVED]))
    assert f"\n  {Q} += 1.0 · B @ A (r=4), from '{PLAIN}/'" in half
    assert f"\n  {Q} += 1.66667 · B @ A (r=3), from '{SAVED}/'" in half
    assert "\n  lm_head.weight is the adapter's own, from" in half


def test_the_way_back_writes_merged_weights(tmp_path: Path) -> None:
    plan = bridge.plan(BASE, adapters=[PLAIN])
    assert {lossy.key for lossy in plan.lossy} == set(plan.merged)
    assert {lossy.reason for lossy in plan.lossy} == {"merged with an adapter: saved as it is merged"}
    merged = bridge.load(BASE, rules=plan, adapters=[PLAIN])
    bridge.save(merged, tmp_path / "out", plan)
    again = load_file(tmp_path / "out" / "model.safetensors")
    assert all(again[key].tobytes() == np.asarray(values).tobytes() for key, values in merged.items())


def test_a_plan_is_kept_with_its_adapters() -> None:
    plan = bridge.plan(BASE, adapters=[(PLAIN, 0.5)])
    kept = bridge.Plan.from_json(plan.to_json())
    assert kept == plan
    assert str(kept) == str(plan)
    assert kept.lossy == plan.lossy
    assert json.loads(plan.to_json())["adapters"]["asked"] == [[f"{PLAIN}/", 0.5]]
    assert kept != bridge.plan(BASE, adapters=[PLAIN])
    assert kept != bridge.plan(BASE)


def test_rules_alone_say_nothing_of_adapters() -> None:
    plan = bridge.plan(BASE, adapters=[PLAIN])
    assert plan.rules == bridge.plan(BASE).rules
    assert bridge.plan(BASE, rules=plan.rules, adapters=[PLAIN]) == plan


def test_a_plan_with_adapters_is_not_carried_out_without() -> None:
    plan = bridge.plan(BASE, adapters=[(PLAIN, 0.5)])
    with pytest.raises(bridge.PlanError) as caught:
        bridge.load(BASE, rules=plan)
    assert str(caught.value) == (
        f"the plan merges adapters, but none are given. Give adapters=[('{PLAIN}/', 0.5)] again, or make a plan without adapters."
    )
    one, other = (bridge.load(BASE, rules=rules, adapters=[(PLAIN, 0.5)]) for rules in (plan, None))
    assert all(np.asarray(one[key]).tobytes() == np.asarray(other[key]).tobytes() for key in other)


def test_other_adapters_than_the_plans_are_merged_as_given() -> None:
    plan = bridge.plan(BASE, adapters=[PLAIN])
    one, other = (bridge.load(BASE, rules=rules, adapters=[(PLAIN, -1)]) for rules in (plan, None))
    assert all(np.asarray(one[key]).tobytes() == np.asarray(other[key]).tobytes() for key in other)


def test_several_are_summed_in_order() -> None:
    loaded = {name: bridge.load(BASE, adapters=chosen) for name, chosen in (("both", [PLAIN, PLAIN]), ("none", []))}
    twice = bridge.load(BASE, adapters=(PLAIN, 2))
    for key, values in loaded["both"].items():
        np.testing.assert_allclose(np.asarray(values), np.asarray(twice[key]), rtol=0, atol=1e-5)
    key = "model.layers.0.self_attn.q_proj.weight"
    assert np.abs(np.asarray(loaded["both"][key]) - np.asarray(loaded["none"][key])).max() > 0.1


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """The base and both adapters are called `adapter_model.safetensors`."""
    save_file({"m.weight": ones(3, 2)}, tmp_path / "adapter_model.safetensors")
    loras = [
        adapter(tmp_path / name, peft({"m": (ones(1, 2), n * ones(3, 1))}), r=1) for name, n in (("a", 4), ("b", 8))
    ]
    merged = bridge.load(tmp_path / "adapter_model.safetensors", adapters=loras)["m.weight"]
    assert np.asarray(merged).tolist() == [[49.0, 49.0]] * 3


def test_an_open_adapter_stays_open() -> None:
    with bridge.open(PLAIN) as ckpt:
        one = bridge.load(BASE, adapters=ckpt)
        two = bridge.load(BASE, adapters=[PLAIN / "adapter_model.safetensors"])
        assert all(np.asarray(one[key]).tobytes() == np.asarray(two[key]).tobytes() for key in two)
        assert ckpt["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"].shape == (4, 24)


def test_a_converted_checkpoint_is_merged_and_reverts_to_its_base(tmp_path: Path) -> None:
    bridge.convert(BASE, tmp_path / "converted", adapters=[PLAIN, (SAVED, 1)])
    merged, converted = bridge.load(BASE, adapters=[PLAIN, SAVED]), bridge.load(tmp_path / "converted")
    assert merged.keys() == converted.keys()
    assert all(np.asarray(merged[key]).tobytes() == np.asarray(converted[key]).tobytes() for key in merged)
    bridge.revert(tmp_path / "converted", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (BASE / "model.safetensors").read_bytes()
    with pytest.raises(bridge.PlanError, match="is a converted form, whose keys are a model's leaves"):
        bridge.load(tmp_path / "converted", adapters=[PLAIN])


def test_what_meets_nothing_is_one_report() -> None:
    tensors = {f"model.layers.{n}.self_attn.z_proj": (ones(4, 16), ones(16, 4)) for n in range(2)}
    tensors |= {f"model.layers.{n}.mlp.up_proj": (ones(4, 20), ones(24, 4)) for n in range(2)}
    plan = planned(BASE, tensors)
    assert not plan.ok
    assert str(plan).split("\n\n")[1].splitlines()[1:] == [
        "  conflict    base_model.model.model.layers.{0..1}.mlp.up_proj.lora_A.weight",
        "              of adapter 'lora/', for 'model.layers.{0..1}.mlp.up_proj.weight': it is [24, 16], B @ A is [24, 20]",
        "  conflict    base_model.model.model.layers.{0..1}.self_attn.z_proj.lora_A.weight",
        "              of adapter 'lora/', for 'model.layers.{0..1}.self_attn.z_proj.weight': the base has no such key: the adapter may be of another base",
    ]


def planned(source: Path, factors: dict[str, tuple[np.ndarray, np.ndarray]], **fields: object) -> bridge.Plan:
    """The plan of a base with an adapter that is called `lora/`."""
    return bridge.plan(source, adapters=[adapter(Path("lora"), peft(factors), **fields)])


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def conflicts(plan: bridge.Plan) -> list[str]:
    return [conflict.text.partition(": ")[2] for conflict in plan.problems.conflicts]


def test_a_rank_that_the_config_does_not_say() -> None:
    plan = planned(BASE, {"model.layers.0.self_attn.q_proj": (ones(3, 16), ones(16, 3))})
    assert conflicts(plan) == ["the config says r=4, the factors have 3"]


def test_a_square_weight_goes_as_the_flag_says(tmp_path: Path) -> None:
    a, b = np.float32([[1, 2]]), np.float32([[3], [5]])
    source = base(tmp_path / "base", m__weight=np.zeros((2, 2), np.float32))
    for flag, expected in ((False, b @ a), (True, (b @ a).T)):
        lora = adapter(tmp_path / str(flag), peft({"m": (a, b)}), r=1, lora_alpha=1, fan_in_fan_out=flag)
        assert np.array_equal(np.asarray(bridge.load(source, adapters=lora)["m.weight"]), expected)


def test_a_square_weight_beside_others_that_go_the_other_way(tmp_path: Path) -> None:
    source = base(tmp_path / "base", m__weight=ones(2, 2), n__weight=ones(2, 3))
    factors = peft({"m": (ones(1, 2), ones(2, 1)), "n": (ones(1, 2), ones(3, 1))})
    plan = bridge.plan(source, adapters=adapter(tmp_path / "lora", factors, r=1))
    said = "it is square, and other weights are not stored as fan_in_fan_out says: nothing tells how this one is"
    assert conflicts(plan) == [said]
    assert bridge.plan(source, adapters=adapter(tmp_path / "lora", factors, r=1, fan_in_fan_out=True)).ok


def test_square_experts_are_ambiguous(tmp_path: Path) -> None:
    source = base(tmp_path / "base", m__w=ones(2, 4, 4))
    plan = planned(source, {"m": (ones(4, 4), ones(4, 4))}, r=2, target_parameters=["m.w"])
    assert conflicts(plan) == ["no one parameter of that module has a shape that says it is meant"]


def test_an_embedding_that_is_the_head_too(tmp_path: Path) -> None:
    """Training changed the one, merging would change both."""
    source = base(tmp_path / "base", model__embed_tokens__weight=ones(6, 4))
    factors = {
        "base_model.model.model.embed_tokens.lora_embedding_A": ones(2, 6),
        "base_model.model.model.embed_tokens.lora_embedding_B": ones(4, 2),
    }
    causal = adapter(tmp_path / "causal", factors, r=2, task_type="CAUSAL_LM")
    said = "the base has no head of its own, so its head is this tensor, and training changed one of the two"
    assert conflicts(bridge.plan(source, adapters=causal)) == [said]
    other = adapter(tmp_path / "other", factors, r=2, task_type="FEATURE_EXTRACTION")
    assert bridge.plan(source, adapters=other).ok
    (source / "config.json").write_text('{"tie_word_embeddings": false}')
    assert bridge.plan(source, adapters=causal).ok


def test_what_is_no_sum_has_no_part_of_it() -> None:
    plan = bridge.plan(BASE, adapters=[(SAVED, 0.5)])
    assert set(conflicts(plan)) == {"the adapter replaces it, so a weight cannot apply: give the adapter without one"}
    again = bridge.plan(BASE, adapters=[PLAIN, SAVED, SAVED])
    assert set(conflicts(again)) == {"another adapter changes it too, and they cannot be added"}


def test_a_vocabulary_that_has_grown(tmp_path: Path) -> None:
    source = base(tmp_path / "base", lm_head__weight=ones(6, 4), m__weight=ones(3, 3))
    lora = adapter(tmp_path / "lora", {"base_model.model.lm_head.weight": 2 * ones(8, 4)})
    assert bridge.load(source, adapters=lora)["lm_head.weight"].shape == (8, 4)
    narrow = adapter(tmp_path / "narrow", {"base_model.model.lm_head.weight": 2 * ones(6, 5)})
    assert conflicts(bridge.plan(source, adapters=narrow)) == ["it is [6, 4], the adapter's is [6, 5]"]


def test_only_floats_are_merged(tmp_path: Path) -> None:
    source = base(tmp_path / "base", m__weight=np.zeros((3, 3), ml_dtypes.float8_e4m3fn))
    plan = bridge.plan(source, adapters=adapter(tmp_path / "lora", peft({"m": (ones(1, 3), ones(3, 1))}), r=1))
    assert conflicts(plan) == ["it is stored in float8_e4m3fn, its factors in float32: only floats are merged"]


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        (7, "adapters '7' are not a list. Give a list of folders, files or Hub repos"),
        ([7], "adapter '7' is not an adapter. Give a folder, a file or a Hub repo, or a pair of one and its weight"),
        ([("x", "y")], "is not an adapter. Give a folder"),
        ([("x", float("nan"))], "adapter 'x' has the weight nan. Give a finite number"),
        (["nowhere/at/all"], "'nowhere/at/all' does not exist"),
    ],
)
def test_an_argument_that_means_none(adapters: object, said: str) -> None:
    with pytest.raises(bridge.BridgeError) as caught:
        bridge.plan(BASE, adapters=adapters)  # type: ignore[arg-type]
    assert said in str(caught.value)
