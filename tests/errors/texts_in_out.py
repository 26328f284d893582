"""Texts and images in and out: tokenizers, chat templates, heads, pooling, prompts, pixels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import bridge
from bridge.models import bert, distilbert, esm, llama, qwen3_moe
from bridge.models._chat import rendered
from bridge.models.classify import ImageClassifier, TextClassifier
from bridge.models.config import Fields
from bridge.models.images import ImageProcessor
from bridge.models.pooling import Pooling
from bridge.models.rope import Rope
from bridge.models.sentence import SentenceEncoder
from bridge.models.text import TextGenerator
from tests.errors.models import DECODER, SMALL
from tests.errors.situations import situation
from tests.models.random_model import random_model
from tests.save.files import write

SAID = [{"role": "user", "content": "a"}]


def tokenizer() -> bytes:
    """Every word is `a`."""
    return Tokenizer(WordLevel({"a": 0}, unk_token="a")).to_str().encode()


def encoder(**fields: Any) -> Any:
    """A BERT."""
    return random_model(bert.Bert, bert.Config.from_dict(SMALL | fields))


@situation("texts: a chat template without its library")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "jinja2", None)
    rendered("{{ 1 }}", {}, SAID, name="m/chat_template.jinja")


@situation("texts: a chat template that refuses")
def _(patch: pytest.MonkeyPatch) -> None:
    rendered("{{ raise_exception('no tools') }}", {}, SAID, name="m/chat_template.jinja")


@situation("texts: a chat template without end")
def _(patch: pytest.MonkeyPatch) -> None:
    endless = "{% for i in range(99999) %}{{ 'x' * 999 }}{% endfor %}"
    rendered(endless, {}, SAID, name="m/chat_template.jinja")


@situation("texts: a model that classifies nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    TextClassifier(encoder(), tokenizer())


@situation("texts: a model that is no decoder")
def _(patch: pytest.MonkeyPatch) -> None:
    TextGenerator(encoder(), tokenizer())


def generator() -> TextGenerator:
    """A Llama."""
    return TextGenerator(random_model(llama.Llama, llama.Config.from_dict(DECODER)), tokenizer())


@situation("texts: a prompt that is too long")
def _(patch: pytest.MonkeyPatch) -> None:
    long = generator()
    patch.setattr(long, "_tokens", lambda prompt, *, raw: [0] * 21)
    list(long.stream("a", 3))


@situation("texts: an empty prompt")
def _(patch: pytest.MonkeyPatch) -> None:
    list(generator().stream("", 3))


@situation("texts: a decoder to embed with")
def _(patch: pytest.MonkeyPatch) -> None:
    config = llama.Config.from_dict(DECODER)
    bridge.save(random_model(llama.Llama, config), "m", llama.rules(config))
    Path("m/config.json").write_text(json.dumps({"model_type": "llama", **DECODER}))
    Path("m/tokenizer.json").write_bytes(tokenizer())
    SentenceEncoder.from_pretrained("m")


@situation("texts: no way of pooling")
def _(patch: pytest.MonkeyPatch) -> None:
    Pooling.of(Fields({"word_embedding_dimension": 8}, name="m/1_Pooling/config.json"))


@situation("texts: a module that is not known")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("m").mkdir()
    write(Path("m/model.safetensors"), {"a": np.zeros(1, np.float32)})
    Path("m/modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.CNN", "path": ""}]))
    SentenceEncoder.from_pretrained("m")


@situation("models: contacts of an ESM without that layer")
def _(patch: pytest.MonkeyPatch) -> None:
    fields = SMALL | {"position_embedding_type": "rotary"}
    random_model(esm.Esm, esm.Config.from_dict(fields, contacts=False)).contacts([0, 1])


@situation("models: heads of DistilBERT")
def _(patch: pytest.MonkeyPatch) -> None:
    sizes = {"vocab_size": 31, "dim": 24, "n_layers": 2, "n_heads": 5, "hidden_dim": 40, "max_position_embeddings": 20}
    distilbert.Config.from_dict(sizes)


@situation("models: factors of a longrope for another head")
def _(patch: pytest.MonkeyPatch) -> None:
    said = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}
    Rope.of(Fields({"rope_scaling": said}), theta=10_000.0, positions=64).frequencies(16)


@situation("models: factors that are no numbers")
def _(patch: pytest.MonkeyPatch) -> None:
    said = {"rope_type": "longrope", "short_factor": ["1"], "long_factor": [2.0]}
    Rope.of(Fields({"rope_scaling": said}), theta=10_000.0, positions=64)


@situation("images: a model that classifies none")
def _(patch: pytest.MonkeyPatch) -> None:
    ImageClassifier(encoder(), ImageProcessor())


@situation("images: without the library")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "PIL", None)
    ImageProcessor()("a.png")


@situation("images: nothing that says how they are prepared")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("m").mkdir()
    write(Path("m/model.safetensors"), {"a": np.zeros(1, np.float32)})
    ImageProcessor.from_pretrained("m")


@situation("images: a number")
def _(patch: pytest.MonkeyPatch) -> None:
    ImageProcessor()(3)  # pyright: ignore[reportArgumentType]


@situation("images: an array of floats")
def _(patch: pytest.MonkeyPatch) -> None:
    ImageProcessor()(np.zeros((4, 5, 3), np.float32))


@situation("images: a file that is none", until="cannot be read as an image: ")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("a.png").write_bytes(b"no image")
    ImageProcessor()("a.png")


@situation("images: grey where red, green and blue are asked for")
def _(patch: pytest.MonkeyPatch) -> None:
    ImageProcessor(rgb=False)(np.zeros((4, 5), np.uint8))


def _prepared(what: str, **fields: Any) -> None:
    @situation(f"images: {what}")
    def _(patch: pytest.MonkeyPatch) -> None:
        ImageProcessor.from_dict({"image_processor_type": "ConvNextImageProcessor", **fields})


_prepared("a processor that is not known", image_processor_type="DetrImageProcessor")
_prepared("a size that is too large", size=100_000)
_prepared("ConvNeXt's height and width", size={"height": 9, "width": 9})
_prepared("a mean of one channel", image_mean=[0.5])


@situation("images: a shorter edge to cut out")
def _(patch: pytest.MonkeyPatch) -> None:
    data = {"image_processor_type": "CLIPImageProcessor", "crop_size": {"shortest_edge": 9}}
    ImageProcessor.from_dict(data)


@situation("sentences: no tokenizer")
def _(patch: pytest.MonkeyPatch) -> None:
    SentenceEncoder(None, "tokenizer.json")


@situation("models: layers that are no numbers")
def _(patch: pytest.MonkeyPatch) -> None:
    qwen3_moe.Config.from_dict(DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2, "mlp_only_layers": ["0"]})
