"""A config.json is understood, or refused by the name of the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.models.bert import Config
from tests.errors.promised import text_of

FIELDS: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}


def refusal(**fields: Any) -> str:
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_dict(FIELDS | fields)
    return str(caught.value)


def test_a_config_of_sizes_alone_has_berts_defaults():
    assert Config.from_dict(FIELDS) == Config(31, 24, 3, 3, 40, 20, 2, "gelu", 1e-12, pooler=True)


def test_minilms_config(minilm: Path):
    config = Config.from_file(minilm / "config.json")
    assert config == Config(30522, 384, 6, 12, 1536, 512)
    assert Config.from_file(minilm / "config.json", pooler=False).pooler is False


def test_a_part_that_the_architecture_does_not_have_is_no_keyword():
    with pytest.raises(TypeError, match="this model has no part 'decoder' that could be chosen"):
        Config.from_dict(FIELDS, pooler=False, decoder=True)


@pytest.mark.torch
def test_what_transformers_writes_is_understood(tmp_path: Path):
    from transformers import BertConfig

    BertConfig(num_labels=7, classifier_dropout=0.1).save_pretrained(tmp_path)
    assert Config.from_file(tmp_path / "config.json").vocab_size == BertConfig().vocab_size


REFUSED: dict[str, dict[str, Any]] = {
    ('"swish", expected "gelu" or "gelu_new" or "gelu_pytorch_tanh" or "quick_gelu" or "relu" or "silu"'): {
        "hidden_act": "swish"
    },
    '"relative_key", expected "absolute"': {"position_embedding_type": "relative_key"},
    "true, expected false": {"is_decoder": True},
    "1, expected false": {"add_cross_attention": 1},
    '"roberta", expected "bert"': {"model_type": "roberta"},
    '{"0": [1]}, expected {}': {"pruned_heads": {"0": [1]}},
    "0, expected a whole number from 1 up": {"num_hidden_layers": 0},
    '"24", expected a whole number from 1 up': {"hidden_size": "24"},
    "true, expected a whole number from 1 up": {"vocab_size": True},
    "5, expected a divisor of 24": {"num_attention_heads": 5},
    "0, expected a number above 0": {"layer_norm_eps": 0},
    "NaN, expected a number above 0": {"layer_norm_eps": float("nan")},
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_value_that_is_not_implemented_is_refused(text: str):
    (field,) = REFUSED[text]
    assert refusal(**REFUSED[text]).startswith(f"'config.json': field '{field}' is {text}. ")


def test_a_field_that_nobody_knows_is_refused_unless_it_is_ignored():
    assert refusal(rope_scaling={"type": "linear"}) == (
        "'config.json': field 'rope_scaling' is {\"type\": \"linear\"}, and this model does not know it. "
        'Give ignore=["rope_scaling"] if it changes nothing.'
    )
    assert Config.from_dict(FIELDS | {"rope_scaling": 1}, ignore=["rope_scaling"]) == Config.from_dict(FIELDS)
    assert Config.from_dict(FIELDS | {"rope_scaling": None, "_private": 1}) == Config.from_dict(FIELDS)


def test_names_and_values_are_safe_to_print():
    assert refusal(**{"a\x1b[31m": "\x1b]0;"}).isprintable()


@pytest.mark.parametrize("field", sorted(FIELDS.keys() - {"model_type"}))
def test_a_size_that_is_absent_is_not_guessed(field: str):
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_dict({name: value for name, value in FIELDS.items() if name != field})
    assert str(caught.value) == text_of("models: a field that is absent").replace("'hidden_size'", f"'{field}'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds [1], not an object of fields."),
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
        ("[" * 200_000, "is not JSON: maximum recursion depth exceeded"),
        ("\xff", "is not JSON: "),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path: Path, text: str, message: str):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_file(path)
    assert str(caught.value).startswith(f"'{path}' {message}")


def test_a_file_that_is_absent_is_named(tmp_path: Path):
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_file(tmp_path / "config.json")
    assert str(caught.value) == text_of("models: a config that is not there").replace(
        "'config.json'", f"'{tmp_path}/config.json'"
    )


def test_errors_name_the_file_they_came_from(tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FIELDS | {"hidden_size": 0}))
    with pytest.raises(bridge.CheckpointError, match="hidden_size") as caught:
        Config.from_file(path)
    assert str(caught.value).startswith(f"'{path}': field ")
