"""BERT against transformers: the trained MiniLM, and small random ones of odd sizes and old spellings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

import bridge
from bridge.models.bert import Bert, Config, rules
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
TEXT = (
    "It is for people who write models in JAX and want published weights in them, and for those who serve such models "
    "and do not want PyTorch in the image. You say in one line which keys are which leaves. From the files' headers "
    "alone it proves that every element arrives exactly once, and only then reads a weight."
)


class TestBert(EncoderContract):
    model_type = "bert"
    kind = "BertModel"
    prefix = "bert"
    variants = {
        "odd": ODD,
        "heads of one, three types, relu": ODD
        | {
            "hidden_size": 8,
            "num_attention_heads": 8,
            "type_vocab_size": 3,
            "layer_norm_eps": 1e-5,
            "hidden_act": "relu",
        },
        "square": ODD | {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 12, "num_attention_heads": 2},
        "types, eps, gelu_new": ODD | {"type_vocab_size": 5, "layer_norm_eps": 1e-3, "hidden_act": "gelu_new"},
    }
    refused = {
        "hidden_act": "swish",
        "is_decoder": True,
        "position_embedding_type": "relative_key",
        "num_attention_heads": 5,
    }

    def test_the_first_releases_names_load_too(self, first: Case, tmp_path: Path):
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        tensors = load_file(first.folder / "model.safetensors")
        for new, name in old.items():
            tensors = {key.replace(new, name): value for key, value in tensors.items()}
        tensors = {f"bert.{key}": value for key, value in tensors.items()}
        tensors["bert.embeddings.position_ids"] = np.arange(20)[None]
        tensors["cls.seq_relationship.weight"] = np.zeros((2, 24), np.float32)
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((first.folder / "config.json").read_bytes())
        self.compare(bridge.models.from_pretrained(tmp_path), first.theirs, *first.example)

    @pytest.mark.parametrize(("kind", "pooler"), [("BertForPreTraining", True), ("BertForMaskedLM", False)])
    def test_the_encoder_of_a_pretrained_model_loads(self, tmp_path: Path, kind: str, pooler: bool):
        theirs = self.saved(tmp_path, kind, **ODD)
        ours = bridge.models.from_pretrained(tmp_path)
        assert (ours.pooler is not None) is pooler
        self.compare(ours, theirs.bert, *self.example(theirs.config))

    def test_a_pooler_that_the_file_lacks_is_missed(self, tmp_path: Path):
        self.saved(tmp_path, "BertForMaskedLM", **ODD)
        with pytest.raises(bridge.PlanError) as caught:
            loaded(tmp_path)
        assert set(caught.value.missing) == {"pooler.weight", "pooler.bias"}


def loaded(folder: Path, *, pooler: bool = True, **options: Any) -> Bert:
    config = Config.from_file(folder / "config.json", pooler=pooler)
    like = eqx.filter_eval_shape(Bert, config, key=jax.random.key(0))
    return bridge.load(folder, like, rules(config), **options)


@pytest.fixture(scope="module")
def trained(minilm: Path) -> Bert:
    return loaded(minilm)


@pytest.fixture(scope="module")
def reference(minilm: Path) -> Any:
    from transformers import BertModel

    return BertModel.from_pretrained(minilm, attn_implementation="eager").eval()


@pytest.fixture
def x64() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def encoded(folder: Path, text: str, padding: int) -> tuple[np.ndarray, np.ndarray]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokens = tokenizer.encode(text).ids
    pads = [0] * padding
    return np.array(tokens + pads, np.int32), np.array([1] * len(tokens) + pads, np.int32)


@pytest.mark.parametrize(("text", "padding"), [("", 0), ("A man is eating food.", 0), (TEXT, 0), (TEXT, 60)])
def test_every_layer_of_minilm_equals_transformers(
    trained: Bert, reference: Any, minilm: Path, text: str, padding: int
):
    TestBert.compare(trained, reference, *encoded(minilm, text, padding))


def test_where_all_is_padding_nothing_is_nan(trained: Bert, reference: Any):
    TestBert.compare(trained, reference, np.arange(4, dtype=np.int32), np.zeros(4, np.int32))


def test_in_float64_512_tokens_with_holes_equal_transformers(x64: None, minilm: Path):
    """Nonsense of full length: in f32 both sides round by more than 1e-5 there, in f64 nothing is left to doubt."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(minilm, attn_implementation="eager", dtype=torch.float64).eval()
    rng = np.random.default_rng(3)
    tokens, mask = rng.integers(0, 30522, 512, np.int32), rng.integers(0, 2, 512, np.int32)
    TestBert.compare(loaded(minilm, dtype=np.float64), model, tokens, mask, rng.integers(0, 2, 512, np.int32))


def test_layers_are_one_stacked_module(trained: Bert, minilm: Path):
    assert trained.layers.attention.query.weight.shape == (6, 384, 384)
    with bridge.open(minilm) as ckpt:
        for n in range(6):
            stored = ckpt[f"encoder.layer.{n}.attention.self.query.weight"]
            assert np.asarray(trained.layers.attention.query.weight[n]).tobytes() == stored.tobytes()


def test_a_pooler_that_nobody_wants_is_dropped(trained: Bert, minilm: Path):
    without = loaded(minilm, pooler=False)
    tokens = jnp.arange(5)
    assert bool((without(tokens) == trained(tokens)).all())
    with pytest.raises(bridge.BridgeError, match="this Bert has no pooler"):
        without.pooled(without(tokens))


def test_loading_and_running_never_imports_torch(minilm: Path):
    code = (
        "import sys, jax, equinox as eqx, bridge\n"
        "from bridge.models import bert, sentence\n"
        f"folder = {str(minilm)!r}\n"
        "config = bert.Config.from_file(folder + '/config.json')\n"
        "like = eqx.filter_eval_shape(bert.Bert, config, key=jax.random.key(0))\n"
        "model = bridge.load(folder, like, bert.rules(config))\n"
        "sentence.SentenceEncoder(model, folder + '/tokenizer.json')(['a'])\n"
        "print(sorted({'tensorflow', 'torch', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stderr, done.stdout) == ("", "[]\n")


def test_the_room_itself_is_light():
    code = "import sys, bridge.models; print(sorted({'equinox', 'jax', 'tokenizers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stderr, done.stdout) == ("", "[]\n")
