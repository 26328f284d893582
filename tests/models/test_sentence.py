"""Sentence embeddings against the model card's recipe, in torch and transformers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest

import bridge
from bridge.models.bert import Bert, Config, rules
from bridge.models.sentence import SentenceEncoder
from tests.errors.promised import text_of

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread, slowly, while the rain outside does not stop and the radio plays.",
    "Zwei Wörter",
    "",
    "日本語 and 🙂 and \u0000 and [MASK]",
    "word " * 300,
    *(f"sentence {n} " * n for n in range(1, 30)),
]


@pytest.fixture(scope="module")
def bert(minilm: Path) -> Bert:
    config = Config.from_file(minilm / "config.json", pooler=False)
    like = eqx.filter_eval_shape(Bert, config, key=jax.random.key(0))
    return bridge.load(minilm, like, rules(config))


@pytest.fixture(scope="module")
def encoder(bert: Bert, minilm: Path) -> SentenceEncoder:
    return SentenceEncoder(bert, minilm / "tokenizer.json")


def recipe(folder: Path, sentences: list[str], max_tokens: int) -> np.ndarray:
    """The model card's own lines, by transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder)
    encoded = tokenizer(sentences, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
    with torch.no_grad():
        token_embeddings = model(**encoded)[0]
    mask = encoded["attention_mask"].unsqueeze(-1).expand(token_embeddings.size()).float()
    mean = torch.sum(token_embeddings * mask, 1) / torch.clamp(mask.sum(1), min=1e-9)
    return torch.nn.functional.normalize(mean, p=2, dim=1).numpy()


@pytest.mark.torch
def test_embeddings_equal_the_model_cards_recipe(encoder: SentenceEncoder, minilm: Path):
    ours, theirs = encoder(SENTENCES), recipe(minilm, SENTENCES, 256)
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape == (len(SENTENCES), 384)
    assert np.abs(ours - theirs).max() < 1e-5


@pytest.mark.torch
@pytest.mark.parametrize("max_tokens", [7, 512])
def test_other_lengths_cut_where_transformers_cuts(bert: Bert, minilm: Path, max_tokens: int):
    encoder = SentenceEncoder(bert, minilm / "tokenizer.json", max_tokens=max_tokens)
    sentences = ["word " * 600, "short"]
    assert np.abs(encoder(sentences) - recipe(minilm, sentences, max_tokens)).max() < 1e-5


def test_rows_have_length_one_and_stand_in_the_order_given(encoder: SentenceEncoder):
    together = encoder(SENTENCES)
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-6
    for n in (0, 5, 30):
        assert np.abs(encoder([SENTENCES[n]])[0] - together[n]).max() < 1e-5


def test_no_text_is_no_row(encoder: SentenceEncoder):
    assert encoder([]).shape == (0, 384)


def test_one_text_is_not_taken_for_its_letters(encoder: SentenceEncoder):
    with pytest.raises(bridge.BridgeError) as caught:
        encoder("a cat")
    assert str(caught.value) == text_of("sentences: one text")


def test_a_tokenizer_that_is_absent_or_broken_is_named(bert: Bert, tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(bridge.CheckpointError) as caught:
        SentenceEncoder(bert, path)
    assert str(caught.value) == text_of("sentences: no tokenizer").replace("'tokenizer.json'", f"'{path}'")
    path.write_text("{}")
    with pytest.raises(bridge.CheckpointError, match="cannot be read as a tokenizer"):
        SentenceEncoder(bert, path)


def test_without_the_library_the_error_names_the_extra(bert: Bert, minilm: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(bridge.BridgeError) as caught:
        SentenceEncoder(bert, minilm / "tokenizer.json")
    assert str(caught.value) == text_of("sentences: without the library")
