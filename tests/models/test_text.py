"""Texts in and out: chat templates, streams of tokens, labels, the vectors of sentence-transformers; and the commands."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

import bridge
import bridge.models
from bridge.cli.main import main
from bridge.models import bert, llama
from bridge.models._chat import rendered, template_of
from bridge.models.classify import TextClassifier
from bridge.models.sentence import SentenceEncoder
from bridge.models.text import TextGenerator
from tests.models.random_model import random_model

WORDS = ["<pad>", "<s>", "</s>", "<user>", "<bot>", *"abcdefghijklmnopqrstuvwxyz"]
CHAT = "{{ bos_token }}{% for m in messages %}{{ '<user> ' + m['content'] }}{% endfor %}{% if add_generation_prompt %} <bot>{% endif %}"
BOS = {"__type": "AddedToken", "content": "<s>", "special": True}
DECODER: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}
ENCODER: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}


def write_tokenizer(folder: Path) -> None:
    """A word a token."""
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>", "<user>", "<bot>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))


def write(folder: Path, module: Any, kind: type, fields: dict[str, Any], **parts: Any) -> Path:
    """A random model with its tokenizer."""
    config = module.Config.from_dict(fields, **parts)
    bridge.save(random_model(kind, config), folder, module.rules(config))
    (folder / "config.json").write_text(json.dumps(fields))
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write(tmp_path_factory.mktemp("decoder"), llama, llama.Llama, DECODER)
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": BOS, "chat_template": CHAT}))
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fields = ENCODER | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"}}
    return write(tmp_path_factory.mktemp("c"), bert, bert.Bert, fields, head="sequence_classification")


# ---- chat templates


@pytest.mark.torch
def test_a_template_says_what_transformers_makes_of_it(decoder: Path):
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast.from_pretrained(decoder)
    message = [{"role": "user", "content": "a b"}]
    with bridge.open(decoder) as ckpt:
        found = template_of(ckpt)
    assert found is not None
    ours = rendered(*found, message, name="x")
    assert ours == theirs.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert ours == "<s><user> a b <bot>"


def test_a_file_of_its_own_comes_first(tmp_path: Path, decoder: Path):
    save_file({"w": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    with bridge.open(tmp_path) as ckpt:
        assert template_of(ckpt) is None
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content | tojson }}")
    with bridge.open(tmp_path) as ckpt:
        found = template_of(ckpt)
    assert found is not None
    assert rendered(*found, [{"role": "user", "content": "ü"}], name="x") == '"ü"'


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system messages') }}",
        "{% for",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__base__ }}",
        "{{ 1 / 0 }}",
        "{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
        "{{ undefined.name }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_an_error(template: str):
    with pytest.raises(bridge.CheckpointError, match="its chat template fails"):
        rendered(template, {}, [{"role": "user", "content": "a"}], name="x")


# ---- what follows


def test_a_stream_is_what_generate_gives(decoder: Path):
    generator = TextGenerator.from_pretrained(decoder)
    tokens = generator.tokenizer.encode("a b c").ids
    expected = bridge.models.generate(generator.model, np.array(tokens), 12)[len(tokens) :]
    assert "".join(generator.stream("a b c", 12, raw=True)) == generator.tokenizer.decode(np.asarray(expected))
    key = jax.random.key(3)
    drawn = bridge.models.generate(generator.model, np.array(tokens), 12, temperature=0.9, top_p=0.8, key=key)
    found = "".join(generator.stream("a b c", 12, temperature=0.9, top_p=0.8, key=key, raw=True))
    assert found == generator.tokenizer.decode(np.asarray(drawn)[len(tokens) :])


def test_it_stops_where_generation_config_says(decoder: Path, tmp_path: Path):
    for path in decoder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    generator = TextGenerator.from_pretrained(decoder)
    tokens = generator.tokenizer.encode("a b c").ids
    third = int(bridge.models.generate(generator.model, np.array(tokens), 3)[-1])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [third]}))
    stopped = TextGenerator.from_pretrained(tmp_path)
    assert stopped.stops == {third}
    assert len(list(stopped.stream("a b c", 9, raw=True))) <= 2


def test_a_prompt_that_is_empty_or_too_long(decoder: Path):
    generator = TextGenerator.from_pretrained(decoder)
    with pytest.raises(bridge.BridgeError, match="prompt of 65 tokens is longer than the 64"):
        list(generator.stream("a " * 64, 3, raw=True))
    generator.tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    with pytest.raises(bridge.BridgeError, match="the prompt is empty"):
        list(generator.stream("", 3, raw=True))


def test_the_command_generates(decoder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", str(decoder), "a b", "--max-new-tokens", "5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["text"] == "".join(TextGenerator.from_pretrained(decoder).stream("a b", 5))
    assert main(["generate", str(decoder), "a b", "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out == document["text"] + "\n"
    assert main(["generate", str(decoder), "a", "--top-p", "0.5"]) == 2
    assert "has no effect without --temperature" in capsys.readouterr().err
    assert main(["generate", str(decoder), "a", "--temperature", "1", "--seed", "4", "--max-new-tokens", "2"]) == 0


# ---- labels


def test_a_classifier_says_labels(classifier: Path, capsys: pytest.CaptureFixture[str]):
    ours = TextClassifier.from_pretrained(classifier)
    found = ours("a b c")
    tokens = np.array(ours.tokenizer.encode("a b c").ids)
    logits = np.asarray(ours.model.logits(ours.model(tokens)))
    np.testing.assert_allclose(list(found["scores"].values()), np.exp(logits) / np.exp(logits).sum(), rtol=1e-5)
    assert found["label"] == ["no", "yes"][logits.argmax()]
    assert main(["classify", str(classifier), "a b c", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"text": "a b c", **found}]
    assert main(["classify", str(classifier), "a b c", "d"]) == 0
    assert found["label"] in capsys.readouterr().out


def test_labels_of_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    fields = ENCODER | {"architectures": ["BertForTokenClassification"], "id2label": {"0": "O", "1": "PER"}}
    write(tmp_path, bert, bert.Bert, fields, head="token_classification", pooler=False)
    found = TextClassifier.from_pretrained(tmp_path)("ab b c")["tokens"]
    assert [(each["start"], each["end"]) for each in found if each["end"] != 2] == [(3, 4), (5, 6)]
    assert main(["classify", str(tmp_path), "b c"]) == 0
    assert capsys.readouterr().out.count("\n") == 3


def test_what_classifies_nothing_is_said_so(decoder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["classify", str(decoder), "a"]) == 1
    assert "this Llama has no head that classifies" in capsys.readouterr().err
    assert main(["embed", str(decoder), "a"]) == 1
    assert "is a Llama, which is not an encoder of text" in capsys.readouterr().err


def test_a_classifier_generates_nothing(classifier: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["generate", str(classifier), "a"]) == 1
    assert "this Bert is not a decoder" in capsys.readouterr().err


# ---- vectors


@pytest.mark.parametrize("mode", ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "lasttoken"])
def test_pooling_as_sentence_transformers_says(tmp_path: Path, mode: str):
    """Its own formulas, written plainly; a layer behind, and no unit length."""
    write(tmp_path, bert, bert.Bert, ENCODER, pooler=False)
    kinds = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense")]
    listed = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    (tmp_path / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 8, f"pooling_mode_{mode}": True, "pooling_mode_weightedmean_tokens": True}
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(said))
    (tmp_path / "2_Dense").mkdir()
    name = "torch.nn.modules.activation.Tanh"
    dense = {"in_features": 16, "out_features": 3, "bias": True, "activation_function": name}
    (tmp_path / "2_Dense/config.json").write_text(json.dumps(dense))
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((3, 16)).astype("f4"), rng.standard_normal(3).astype("f4")
    save_file({"linear.weight": weight, "linear.bias": bias}, tmp_path / "2_Dense/model.safetensors")
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 4}))
    encoder = SentenceEncoder.from_pretrained(tmp_path)
    for text, vector in zip(["a b", "a b c d e f g"], encoder(["a b", "a b c d e f g"]), strict=True):
        ids = encoder.tokenizer.encode(text).ids
        assert len(ids) == min(len(text.split()) + 1, 4)
        x = np.asarray(encoder.model(np.array(ids)))
        pooled = {
            "cls_token": x[0],
            "max_tokens": x.max(0),
            "mean_tokens": x.mean(0),
            "mean_sqrt_len_tokens": x.sum(0) / np.sqrt(len(x)),
            "lasttoken": x[-1],
        }[mode]
        steps = np.arange(1, len(x) + 1)
        later = (steps[:, None] * x).sum(0) / steps.sum()
        both = np.concatenate([later, pooled] if mode == "lasttoken" else [pooled, later])
        np.testing.assert_allclose(vector, np.tanh(weight @ both + bias), atol=1e-5)


def test_a_module_that_is_not_known(tmp_path: Path):
    write(tmp_path, bert, bert.Bert, ENCODER, pooler=False)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "x.CNN", "path": ""}]))
    with pytest.raises(bridge.CheckpointError, match="lists 'CNN'"):
        SentenceEncoder.from_pretrained(tmp_path)


def test_the_command_embeds(
    minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    texts = ["a cat", "a kitten", "the stock market"]
    assert main(["embed", str(minilm), *texts, "--json", "--out", str(tmp_path / "v.npy")]) == 0
    document = json.loads(capsys.readouterr().out)
    vectors = np.load(tmp_path / "v.npy")
    np.testing.assert_array_equal(np.float32(document["vectors"]), vectors)
    assert vectors[0] @ vectors[1] > 2 * vectors[0] @ vectors[2]
    assert main(["embed", str(minilm), *texts]) == 0
    assert f"{vectors[0] @ vectors[1]:.2f}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("a cat\na kitten\n"))
    assert main(["embed", str(minilm), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == ["a cat", "a kitten"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["embed", str(minilm)]) == 2
    assert "TEXT is missing" in capsys.readouterr().err
