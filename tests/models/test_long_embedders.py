"""ModernBERT and Nomic BERT as sentence-transformers use them: whole repos, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.cli.main import main
from bridge.models.sentence import SentenceEncoder
from tests.models.contract import Contract
from tests.models.test_modernbert import ODD as MODERN
from tests.models.test_nomic_bert import ODD as NOMIC
from tests.models.test_text import write_tokenizer

pytestmark = pytest.mark.torch

TEXTS = ["search_query: a b", "a b c d e f g h i j k l m n o p q r s t u v w x y z", "c"]


@pytest.mark.parametrize(
    ("kind", "fields", "mode"), [("ModernBertModel", MODERN, "cls"), ("NomicBertModel", NOMIC, "mean")]
)
def test_a_repo_of_sentence_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, fields: dict[str, Any], mode: str
):
    import torch

    theirs = Contract.saved(tmp_path, kind, **fields)
    write_tokenizer(tmp_path)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    listed = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    (tmp_path / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 24, "pooling_mode_cls_token": mode == "cls"}
    said["pooling_mode_mean_tokens"] = mode == "mean"
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(said))
    encoder = SentenceEncoder.from_pretrained(tmp_path)
    assert encoder.max_tokens == fields["max_position_embeddings"]  # as in training, where nothing else says it
    vectors = encoder(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = encoder.tokenizer.encode(text).ids
        assert len(ids) <= fields["max_position_embeddings"]
        with torch.no_grad():
            states = theirs(torch.tensor([ids])).last_hidden_state[0]
        pooled = states[0] if mode == "cls" else states.mean(0)
        assert np.abs(vector - (pooled / pooled.norm()).numpy()).max() < 1e-5
    assert main(["embed", str(tmp_path), *TEXTS, "--json"]) == 0
    np.testing.assert_array_equal(np.float32(json.loads(capsys.readouterr().out)["vectors"]), vectors)
