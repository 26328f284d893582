"""The docstring of every public name stands alone: it says what goes in and what comes out, and its example runs."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
import bridge.models
import bridge.quantized
from tests.checking.by_hand import record_linear
from tests.models.random_model import random_model

ALIASES = {"Adapters", "AllowMissing", "Dtype", "Layouts", "OpenOptions", "Progress", "RuleLike", "Rules", "Source"}
KITS = (
    *("attention", "config", "convolution", "decoder", "disentangled", "dual", "embedding", "encoder", "experts"),
    *("heads", "layers", "pooling", "resize", "rope", "spellings"),
)
ON_TOP = ("classify", "images", "sentence", "text")  # what is made of models
EXAMPLE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def public() -> Iterator[tuple[str, Any]]:
    """Every public name that is no mere name of a type."""
    for name in bridge.__all__:
        if name not in ALIASES:
            yield f"bridge.{name}", getattr(bridge, name)
    for name in bridge.models.__all__:
        yield f"bridge.models.{name}", getattr(bridge.models, name)
    yield "bridge.quantized.dequantize", bridge.quantized.dequantize


def of_kits() -> Iterator[tuple[str, Any]]:
    """Every class and function of the kits."""
    for kit in KITS:
        module = import_module(f"bridge.models.{kit}")
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"bridge.models.{kit}.{name}", value


def examples() -> Iterator[Any]:
    for name, value in [*public(), *of_kits()]:
        for example in EXAMPLE.findall(inspect.getdoc(value) or ""):
            yield pytest.param(name, example, id=name)


def reader() -> dict[str, Any]:
    """What a reader's program has when it comes to an example: files in the current folder, imports, a model."""
    like = eqx.filter_eval_shape(eqx.nn.Linear, 3, 2, key=jax.random.key(0))
    model = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    bridge.save(model, "model.safetensors")
    assert model.bias is not None
    record_linear(np.asarray(model.weight), np.asarray(model.bias), "run.safetensors")
    fields = {"model_type": "llama", "vocab_size": 50, "hidden_size": 8, "intermediate_size": 12}
    fields |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
    llama = import_module("bridge.models.llama")
    config = llama.Config.from_dict(fields)
    bridge.save(random_model(llama.Llama, config), "meta-llama/Llama-3.2-1B", llama.rules(config))
    Path("meta-llama/Llama-3.2-1B/config.json").write_text(json.dumps(fields))
    return {"Path": Path, "bridge": bridge, "eqx": eqx, "jax": jax, "jnp": jnp, "np": np, "like": like, "model": model}


@pytest.mark.parametrize(("name", "example"), list(examples()))
def test_an_example_runs(name: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = reader()
    module = import_module(name.rpartition(".")[0])
    exec(compile(example, name, "exec", dont_inherit=True), {**vars(module), **names})


@pytest.mark.parametrize(("name", "value"), [pytest.param(*each, id=each[0]) for each in public()])
def test_every_public_name_has_an_example(name: str, value: Any) -> None:
    assert EXAMPLE.search(inspect.getdoc(value) or ""), f"help({name}) shows no example"


FUNCTIONS = [pytest.param(*each, id=each[0]) for each in public() if inspect.isfunction(each[1])]


@pytest.mark.parametrize(("name", "function"), FUNCTIONS)
def test_every_argument_is_explained(name: str, function: Any) -> None:
    text = inspect.getdoc(function) or ""
    absent = [parameter for parameter in inspect.signature(function).parameters if f"`{parameter}`" not in text]
    assert absent == [], f"help({name}) does not say what these are"
    assert "**Arguments:**" in text
    assert "**Returns:**" in text
    assert "**Raises:**" in text


def test_every_name_of_the_kits_says_what_it_is() -> None:
    assert [name for name, value in of_kits() if not inspect.getdoc(value)] == []


def test_the_page_of_the_kits_names_everything() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "kits.md").read_text()
    for kit in KITS:
        assert f"`bridge.models.{kit}`" in page
        for name in import_module(f"bridge.models.{kit}").__all__:
            assert re.search(rf"\b{name}\b", page), f"{kit}.{name}"


def test_no_model_imports_a_private_module() -> None:
    """A page of code that people copy must work where they put it."""
    folder = Path(bridge.models.__file__).parent
    models = [p for p in folder.glob("*.py") if not p.name.startswith("_") and p.stem not in KITS + ON_TOP]
    assert {"llama", "bert", "vit", "gpt2"} <= {path.stem for path in models}
    private = re.compile(r"^\s*(?:from|import) bridge[\w.]*\._\w+|import .*\b_\w+", re.MULTILINE)
    assert {p.name: private.findall(p.read_text()) for p in models if private.search(p.read_text())} == {}
    assert private.search("from bridge.models._pretrained import ARCHITECTURES")
