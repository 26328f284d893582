"""`bridge.check` on ports of transformers' models, right ones and wrong ones."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import bridge
import bridge.models
from bridge.checking.whole import WholeRun
from tests.checking.models import MODELS, inputs, torch_model

pytestmark = pytest.mark.torch
Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(record: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A folder for each model: what transformers saves, and a run."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            model = torch_model(name)
            model.save_pretrained(made[name])
            record(model, inputs(name), made[name] / "run.safetensors")
        return made[name]

    return folder


def ported(
    folder: Path, name: str, rules: list[str] | None = None, *, without: str = " no rule ", **options: Any
) -> tuple[Any, bridge.Plan]:
    """The model of `bridge.models`, loaded with rules that go before its own, `without` those of a text."""
    like = bridge.models.from_pretrained(folder)
    own = importlib.import_module(f"bridge.models.{name}").rules(like.config)
    kept = [rule for rule in own if without not in str(rule)]
    plan = bridge.plan(folder, like, [*(rules or []), *kept], **options)
    return bridge.load(folder, like, plan, **options), plan


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the whole run, which others look at, and which takes seconds."""
    monkeypatch.setattr("bridge.checking.check.run_whole", lambda *_: WholeRun("was left out"))


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", MODELS)
def test_layers_of_a_right_port_agree(folders: Folders, name: str) -> None:
    model, plan = ported(folders(name), name)
    check = bridge.check(folders(name) / "run.safetensors", model, plan, skip=["embed"] if name == "vit" else ())
    if name != "gemma3":
        assert check.ok, str(check)
    else:  # its embedding multiplies inside; the model does so afterwards, which only the whole run shows
        assert [layer.name for layer in check.layers if layer.status == "departs"] == ["embed"]
        assert check.first is not None
        assert check.first.rule is None
    modules = {layer.module for layer in check.layers}
    recorded = {at for at, m in torch_model(name).named_modules() if list(m.parameters(recurse=False))}
    assert modules - {None} >= recorded - {"embeddings", "lm_head"}


def test_a_module_that_ends_elsewhere_is_not_compared(folders: Folders) -> None:
    model, plan = ported(folders("gemma3"), "gemma3")
    check = bridge.check(folders("gemma3") / "run.safetensors", model, plan)
    assert check.ok, str(check)
    (embed,) = [layer for layer in check.layers if layer.name == "embed"]
    assert embed.status == "not compared"
    assert embed.reason == "it ends elsewhere in PyTorch: what comes after it takes in both the same"


@pytest.mark.usefixtures("alone")
def test_a_stack_says_which_layer_and_the_rule_is_of_the_stack(folders: Folders) -> None:
    rule = "model.layers.{l[1]}.self_attn.q_proj.weight [o i] -> layers.attention.query.weight [l i o]"
    model, plan = ported(folders("llama"), "llama", [rule.replace("{l[1]}", "{l}")])
    check = bridge.check(folders("llama") / "run.safetensors", model, plan)
    assert not check.ok
    assert check.first is not None
    assert (check.first.name, check.first.index) == ("layers.attention.query", (0,))
    assert check.first.module == "model.layers.0.self_attn.q_proj"
    assert check.first.rule == "model.layers.{l}.self_attn.q_proj.weight [o i] -> layers.attention.query.weight [l o i]"
    repaired, again = ported(folders("llama"), "llama", [check.first.rule])
    assert bridge.check(folders("llama") / "run.safetensors", repaired, again).ok


@pytest.mark.usefixtures("alone")
def test_a_split_that_is_transposed(folders: Folders) -> None:
    rule = "transformer.h.{l}.attn.c_attn.weight [m (q|k|v)] -> layers.attention.{query|key|value}.weight [l m _]"
    model, plan = ported(folders("gpt2"), "gpt2", [rule], without="c_attn.weight")
    check = bridge.check(folders("gpt2") / "run.safetensors", model, plan)
    assert check.first is not None
    assert check.first.rule is not None, str(check)
    assert "[l _ m]" in check.first.rule
    repaired, again = ported(folders("gpt2"), "gpt2", [check.first.rule], without="c_attn.weight")
    assert bridge.check(folders("gpt2") / "run.safetensors", repaired, again).ok


@pytest.mark.usefixtures("alone")
def test_the_report_names_layer_module_and_rule(folders: Folders) -> None:
    model, plan = ported(folders("llama"), "llama", ["model.norm.weight -> norm.weight ; add=1.0"])
    text = str(bridge.check(folders("llama") / "run.safetensors", model, plan))
    head, first, explained, reason, rule, *_ = text.splitlines()
    assert head.startswith("Llama against '")
    assert head.endswith("(LlamaForCausalLM): 1 layer of 21 departs")
    assert first.startswith("  departs       norm   PyTorch's 'model.norm'   off by ")
    assert explained.strip() == "rounding explains 5.5 ulps;"
    assert reason.strip() == (
        "with -1 added to 'weight' it agrees: a recorded input and output determine it. The rule:"
    )
    assert rule.strip() == "model.norm.weight -> norm.weight"


@pytest.mark.usefixtures("alone")
def test_a_model_in_bfloat16_agrees_with_a_run_in_float32(folders: Folders) -> None:
    model, plan = ported(folders("llama"), "llama", dtype=jnp.bfloat16)
    check = bridge.check(folders("llama") / "run.safetensors", model, plan)
    assert [layer for layer in check.layers if layer.status != "agrees"] == [], str(check)


@pytest.mark.usefixtures("alone")
def test_a_run_of_another_checkpoint_departs(folders: Folders, record: Callable[..., Any], tmp_path: Path) -> None:
    other = torch_model("llama")
    torch.nn.init.normal_(other.model.layers[1].mlp.up_proj.weight)
    record(other, inputs("llama"), tmp_path / "run.safetensors")
    model, plan = ported(folders("llama"), "llama")
    check = bridge.check(tmp_path / "run.safetensors", model, plan)
    assert check.first is not None
    assert str(check.first) == "layers.mlp.up[1]"
    assert "must be of the same checkpoint" in check.first.reason


def test_names_that_no_layer_has(folders: Folders) -> None:
    model, plan = ported(folders("llama"), "llama")
    run = folders("llama") / "run.safetensors"
    with pytest.raises(bridge.PlanError, match="skip= names 'heads', which is not a layer of the model"):
        bridge.check(run, model, plan, skip="heads")
    with pytest.raises(bridge.PlanError, match=r"call= names 'mlp', which is not a module of the model"):
        bridge.check(run, model, plan, call={"mlp": print})
    with pytest.raises(bridge.PlanError, match="plan is of type NoneType, expected a Plan"):
        bridge.check(run, model, None)  # type: ignore[arg-type]


class Gate(eqx.Module):
    """A layer of one's own, with a weight that no layer of Equinox holds."""

    scale: jax.Array

    def gated(self, x: jax.Array) -> jax.Array:
        return x * jax.nn.sigmoid(x @ self.scale)[..., None]


class Own(eqx.Module):
    first: eqx.nn.Linear
    gate: Gate


class TorchGate(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x @ self.scale)[..., None]


def own_port(record: Callable[..., Any], folder: Path, *shape: int) -> tuple[Path, Any, bridge.Plan]:
    """A recording of an input of a shape, and the model with its plan."""
    torch.manual_seed(0)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate = torch.nn.Linear(4, 4), TorchGate()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gate(self.first(x))

    model = Model().eval()
    save_file(model.state_dict(), folder / "model.safetensors")
    record(model, torch.randn(*shape), folder / "run.safetensors")
    like = Own(eqx.nn.Linear(4, 4, key=jax.random.key(0)), Gate(jnp.zeros(4)))
    plan = bridge.plan(folder / "model.safetensors", like)
    return folder / "run.safetensors", bridge.load(folder / "model.safetensors", like, plan), plan


@pytest.fixture(scope="module")
def own(record: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, bridge.Plan]:
    return own_port(record, tmp_path_factory.mktemp("own"), 3, 5, 4)


def test_a_function_that_could_not_be_tried_is_not_passed_over(record: Callable[..., Any], tmp_path: Path) -> None:
    """Though the layer agrees in the run. Of a layer of PyTorch's own sixteen rows are kept."""

    def rows(layer: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(jax.vmap(layer))(x)

    def trace(model: Own, x: jax.Array) -> jax.Array:
        return model.gate.gated(rows(model.first, x))

    for examples, status in ((3, "agrees"), (4, "not compared")):
        run, model, plan = own_port(record, tmp_path, examples, 5, 4)
        check = bridge.check(run, model, plan, call={"first": rows}, skip=["gate"], trace=trace)
        (first,) = [layer for layer in check.layers if layer.name == "first"]
        assert (first.status, check.ok) == (status, status == "agrees"), str(check)
    assert "not kept whole: record a smaller input" in first.reason
    wrong = bridge.check(*own_port(record, tmp_path, 3, 5, 4), call={"first": lambda _, x: x}, trace=trace)
    assert str(wrong.first) == "first"
    assert bridge.check(run, model, plan, skip=["gate"], trace=trace).ok


@pytest.mark.usefixtures("alone")
def test_a_layer_of_one_s_own_is_not_ok_until_it_is_called_or_skipped(own: tuple[Path, Any, bridge.Plan]) -> None:
    run, model, plan = own
    check = bridge.check(run, model, plan)
    assert not check.ok
    assert check.first is None
    assert check.covered == pytest.approx(20 / 24)
    (gate,) = [layer for layer in check.layers if layer.name == "gate"]
    assert (gate.status, gate.module) == ("not compared", "gate")
    assert "give call= a function for it, or trace=" in gate.reason
    assert bridge.check(run, model, plan, skip=["gate"]).ok
    called = bridge.check(run, model, plan, call={"gate": lambda gate, x: gate.gated(x)})
    assert called.ok, str(called)
    assert called.covered == 1
    wrong = bridge.check(run, model, plan, call={"gate": lambda gate, x: x})
    assert wrong.first is not None
    assert wrong.first.name == "gate"


@pytest.mark.usefixtures("alone")
def test_json(own: tuple[Path, Any, bridge.Plan]) -> None:
    run, model, plan = own
    content = json.loads(bridge.check(run, model, plan).to_json())
    assert content["ok"] is False
    assert content["first"] is None
    assert [layer["name"] for layer in content["layers"]] == ["first", "gate"]
    assert np.isclose(content["covered"], 20 / 24)


def test_a_model_that_is_no_module(own: tuple[Path, Any, bridge.Plan]) -> None:
    run, _, plan = own
    with pytest.raises(bridge.PlanError, match="the model to check is of type dict, and has no modules"):
        bridge.check(run, {"a": jnp.zeros(3)}, plan)


def test_a_template_is_no_model(own: tuple[Path, Any, bridge.Plan]) -> None:
    run, model, plan = own
    with pytest.raises(bridge.PlanError, match="is abstract, but a check computes with its values"):
        bridge.check(run, eqx.filter_eval_shape(lambda: model), plan)
