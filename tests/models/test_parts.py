"""Heads and poolers: of pre-training they may be absent, of fine-tuning they are missed; wherever their keys lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from bridge.models import bert, esm
from tests.models.random_model import random_model

FIELDS: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
OF_TOKENS = {"architectures": ["BertForTokenClassification"]}
HEAD = "cls.predictions."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The tensors of a BERT with a pooler and the head of pre-training."""
    config = bert.Config.from_dict(FIELDS, head="masked_lm")
    folder = tmp_path_factory.mktemp("bert")
    bridge.save(random_model(bert.Bert, config), folder, bert.rules(config))
    return load_file(folder / "model.safetensors")


@pytest.fixture
def without(made: dict[str, np.ndarray], tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint of those tensors without some."""

    def write(*gone: str, **fields: Any) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(FIELDS | fields))
        kept = {key: value for key, value in made.items() if not key.startswith(gone)} if gone else made
        save_file(kept, tmp_path / "model.safetensors")
        return tmp_path

    return write


def missing(source: Any) -> set[str]:
    with pytest.raises(bridge.PlanError) as caught:
        bridge.models.from_pretrained(source)
    return set(caught.value.missing)


def test_a_head_of_pre_training_may_be_absent(without: Callable[..., Path]):
    model = bridge.models.from_pretrained(without(HEAD))
    assert model.head is None
    assert model.pooler is not None


def test_it_may_not_be_there_in_part(without: Callable[..., Path]):
    """Of a head whose first layer has gone astray nothing is left out in silence."""
    assert missing(without(f"{HEAD}transform.dense")) == {"head.dense.weight", "head.dense.bias"}
    assert missing(without(f"{HEAD}bias", f"{HEAD}decoder.bias")) == {"head.bias"}


def test_a_head_of_fine_tuning_is_missed(without: Callable[..., Path]):
    assert missing(without(HEAD, **OF_TOKENS)) == {"head.weight", "head.bias"}


def adapter(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """What PEFT writes for modules that were trained as a whole."""
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "r": 1,
        "target_modules": ["query"],
        "modules_to_save": ["classifier", "pooler", "cls"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    lora = "encoder.layer.0.attention.self.query.lora_{}.weight"
    factors = {lora.format("A"): np.zeros((1, 8), np.float32), lora.format("B"): np.zeros((8, 1), np.float32)}
    every = {f"base_model.model.{key}": value for key, value in (factors | tensors).items()}
    save_file(every, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_may_bring_what_the_base_lacks(made: dict[str, np.ndarray], without: Callable[..., Path]):
    whole = bridge.models.from_pretrained(without())
    base = without(HEAD, "pooler")
    pooler = {key: value for key, value in made.items() if key.startswith("pooler")}
    head = {key: value for key, value in made.items() if key.startswith(HEAD)}
    bare = bridge.models.from_pretrained(base)
    assert (bare.head, bare.pooler) == (None, None)
    both = bridge.models.from_pretrained(base, adapters=[adapter(base / "both", pooler | head)])
    assert eqx.tree_equal(both, whole)
    one = bridge.models.from_pretrained(base, adapters=[adapter(base / "one", pooler)])
    assert one.head is None
    assert eqx.tree_equal(one.pooler, whole.pooler)


def test_an_adapter_may_bring_a_head_of_fine_tuning(without: Callable[..., Path]):
    base = without(HEAD, **OF_TOKENS)
    rng = np.random.default_rng(0)
    head = {"classifier.weight": rng.random((2, 8), np.float32), "classifier.bias": rng.random(2, np.float32)}
    model = bridge.models.from_pretrained(base, adapters=[adapter(base / "a", head)])
    np.testing.assert_array_equal(model.head.weight, head["classifier.weight"])


def test_what_lies_in_a_part_that_was_not_opened_is_missed(made: dict[str, np.ndarray], without: Callable[..., Path]):
    """All but head and pooler lies in the first of two files: the model of that file alone is not whole."""
    folder = without()
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    second = {key: value for key, value in made.items() if key.startswith((HEAD, "pooler"))}
    save_file({key: value for key, value in made.items() if key not in second}, folder / names[0])
    save_file(second, folder / names[1])
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {key: names[key in second] for key in made}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole = bridge.models.from_pretrained(folder)
    assert whole.head is not None
    assert whole.pooler is not None
    assert {name.partition(".")[0] for name in missing(folder / names[0])} == {"head", "pooler"}
    (folder / "model.safetensors.index.json").unlink()  # then nothing tells
    assert bridge.models.from_pretrained(folder / names[0]).head is None


@pytest.mark.parametrize("gone", [(), (HEAD,), ("pooler",)])
def test_a_converted_form_has_its_parts(without: Callable[..., Path], gone: tuple[str, ...]):
    folder = without(*gone)
    model = bridge.models.from_pretrained(folder)
    bridge.convert(folder, folder / "converted", model, bert.rules(model.config))
    (folder / "converted/config.json").write_bytes((folder / "config.json").read_bytes())
    again = bridge.models.from_pretrained(folder / "converted")
    assert again.config == model.config
    assert eqx.tree_equal(again, model)


def test_a_converted_form_has_its_layer_of_contacts(tmp_path: Path):
    fields = FIELDS | {"model_type": "esm", "architectures": ["EsmModel"], "position_embedding_type": "rotary"}
    config = esm.Config.from_dict(fields, contacts=True)
    model = random_model(esm.Esm, config)
    bridge.save(model, tmp_path, esm.rules(config))
    bridge.convert(tmp_path, tmp_path / "converted", model, esm.rules(config))
    (tmp_path / "converted/config.json").write_text(json.dumps(fields))
    assert eqx.tree_equal(bridge.models.from_pretrained(tmp_path / "converted"), model)
