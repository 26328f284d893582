"""RoBERTa and XLM-RoBERTa: positions that skip padding, wherever it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from bridge.models.roberta import Config, Roberta
from tests.models.contract import Case
from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}


class TestRoberta(EncoderContract):
    model_type = "roberta"
    kind = "RobertaModel"
    prefix = "roberta"
    variants = {
        "plain": ODD,
        "padding is 5, many types, square": ODD
        | {"pad_token_id": 5, "type_vocab_size": 3, "intermediate_size": 24, "num_hidden_layers": 1},
    }
    refused = {
        "hidden_act": "swish",
        "is_decoder": True,
        "position_embedding_type": "relative_key",
        "pad_token_id": 19,  # no position is left
    }

    def test_old_files_load_too(self, first: Case, tmp_path: Path):
        """`position_ids` were once a tensor, and the head of pre-training stood beside the encoder."""
        tensors = {f"roberta.{key}": value for key, value in load_file(first.folder / "model.safetensors").items()}
        tensors["roberta.embeddings.position_ids"] = np.arange(20)[None]
        tensors["lm_head.decoder.weight"] = np.zeros((31, 24), np.float32)
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((first.folder / "config.json").read_bytes())
        self.compare(bridge.models.from_pretrained(tmp_path), first.theirs, *first.example)

    @pytest.mark.parametrize("kind", ["RobertaForMaskedLM", "XLMRobertaForMaskedLM"])
    def test_the_encoder_of_a_pretrained_model_loads(self, tmp_path: Path, kind: str):
        theirs = self.saved(tmp_path, kind, **ODD)
        ours = bridge.models.from_pretrained(tmp_path)
        assert isinstance(ours, Roberta)
        self.compare(ours, theirs.roberta, *self.example(theirs.config))


@pytest.mark.parametrize("pad", [-1, 19, 31, True])
def test_padding_without_a_row_is_refused(pad: Any):
    with pytest.raises(bridge.CheckpointError, match="field 'pad_token_id' is "):
        Config.from_dict(ODD | {"pad_token_id": pad})


def test_a_bert_is_not_taken_for_a_roberta():
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_dict(ODD | {"model_type": "bert"})
    assert caught.value.statement == (
        '\'config.json\': field \'model_type\' is "bert", expected "roberta" or "xlm-roberta"'
    )


class TestXLMRoberta(EncoderContract):
    """Under its own name."""

    model_type = "xlm-roberta"
    kind = "XLMRobertaModel"
    prefix = "roberta"
    heads = ("ForMaskedLM", "ForSequenceClassification")
    variants = {"plain": ODD | {"num_hidden_layers": 2}}
    refused = {"hidden_act": "swish", "pad_token_id": 19}
