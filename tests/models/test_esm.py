"""ESM: rotary and learned positions, letters that are hidden."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import bridge
from bridge.models.esm import Config, Esm
from tests.models.contract import Case, compiled
from tests.models.encoder_contract import EncoderContract

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "pad_token_id": 1,
    "mask_token_id": 30,
}


class TestEsm(EncoderContract):
    model_type = "esm"
    kind = "EsmModel"
    prefix = "esm"
    computed = ("inv_freq",)
    variants = {
        "absolute, normed": ODD | {"position_embedding_type": "absolute", "emb_layer_norm_before": True},
        "rotary, token dropout": ODD | {"position_embedding_type": "rotary", "token_dropout": True},
    }
    refused = {"is_decoder": True, "is_folding_model": True}
    heads = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")

    def test_contacts(self, each: Case):
        import torch

        tokens, mask = each.example
        tokens[[5, 10]] = 30, 2  # a hidden letter, and the end
        expected = each.theirs.predict_contacts(torch.tensor(tokens)[None], torch.tensor(mask)[None])[0]
        found = compiled(lambda model, *inputs: {"contacts": model.contacts(*inputs)}, each.ours, tokens, mask)
        assert np.abs(np.asarray(found["contacts"]) - expected.detach().numpy()).max() < 1e-5

    def test_without_the_layer_there_are_no_contacts(self, first: Case):
        without = Esm(Config.from_file(first.folder / "config.json", contacts=False), key=jax.random.key(0))
        with pytest.raises(bridge.BridgeError, match="has no contact head"):
            without.contacts(first.example[0])
