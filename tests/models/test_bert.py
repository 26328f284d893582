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
from bridge.models.bert import ACTIVATIONS, Bert, Config, rules

pytestmark = pytest.mark.torch

ODD = {"vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
TEXT = (
    "It is for people who write models in JAX and want published weights in them, and for those who serve such models "
    "and do not want PyTorch in the image. You say in one line which keys are which leaves. From the files' headers "
    "alone it proves that every element arrives exactly once, and only then reads a weight."
)
VARIANTS: dict[str, dict[str, Any]] = {
    "odd": ODD,
    "one layer, heads of one": ODD | {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 8},
    "square": ODD | {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 12, "num_attention_heads": 2},
    "types and eps": ODD | {"type_vocab_size": 5, "layer_norm_eps": 1e-3},
    **{f"{name} activation": ODD | {"hidden_act": name} for name in ACTIVATIONS},
}


def loaded(folder: Path, *, pooler: bool = True, **options: Any) -> Bert:
    config = Config.from_file(folder / "config.json", pooler=pooler)
    like = eqx.filter_eval_shape(Bert, config, key=jax.random.key(0))
    return bridge.load(folder, like, rules(config), **options)


def saved(folder: Path, kind: str, **fields: Any) -> Any:
    """A random model that transformers saved, as it is there."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**fields, max_position_embeddings=20)
    config._attn_implementation = "eager"
    model = getattr(transformers, kind)(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases and norms too: their defaults hide mistakes
    model.eval().save_pretrained(folder)
    return model


def theirs(model: Any, tokens: np.ndarray, mask: np.ndarray, types: np.ndarray | None = None) -> Any:
    import torch

    with torch.no_grad():
        return model(
            torch.tensor(tokens)[None],
            torch.tensor(mask)[None],
            None if types is None else torch.tensor(types)[None],
            output_hidden_states=True,
        )


def assert_close(ours: Any, expected: Any) -> None:
    """Within 1e-5, as far as f32 carries; in f64 what remains is a mistake."""
    assert ours.dtype == expected.numpy().dtype
    tolerance = {4: 1e-5, 8: 1e-11}[ours.dtype.itemsize]
    assert np.abs(np.asarray(ours) - expected.numpy()).max() < tolerance


@eqx.filter_jit
def run(bert: Bert, *example: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    last = bert(*example)
    return last, bert.hidden_states(*example), None if bert.pooler is None else bert.pooled(last)


def compare(ours: Bert, model: Any, *example: np.ndarray) -> None:
    """Every layer's hidden states, of padding too, and what the pooler makes of the last."""
    expected = theirs(model, *example)
    last, states, pooled = run(ours, *map(jnp.asarray, example))
    assert len(states) == len(expected.hidden_states) == ours.config.num_hidden_layers + 1
    for state, wanted in zip(states, expected.hidden_states, strict=True):
        assert_close(state, wanted[0])
    assert_close(last, expected.last_hidden_state[0])
    if pooled is not None:
        assert_close(pooled, expected.pooler_output[0])


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
    compare(trained, reference, *encoded(minilm, text, padding))


def test_where_all_is_padding_nothing_is_nan(trained: Bert, reference: Any):
    compare(trained, reference, np.arange(4, dtype=np.int32), np.zeros(4, np.int32))


def test_in_float64_512_tokens_with_holes_equal_transformers(x64: None, minilm: Path):
    """Nonsense of full length: in f32 both sides round by more than 1e-5 there, in f64 nothing is left to doubt."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(minilm, attn_implementation="eager", dtype=torch.float64).eval()
    rng = np.random.default_rng(3)
    tokens, mask = rng.integers(0, 30522, 512, np.int32), rng.integers(0, 2, 512, np.int32)
    compare(loaded(minilm, dtype=np.float64), model, tokens, mask, rng.integers(0, 2, 512, np.int32))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("double", [False, True])
def test_random_models_equal_transformers(tmp_path: Path, name: str, double: bool, request: pytest.FixtureRequest):
    if double:
        request.getfixturevalue("x64")
    model = saved(tmp_path, "BertModel", **VARIANTS[name])
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, model.config.vocab_size, 11, np.int32)
    types = rng.integers(0, model.config.type_vocab_size, 11, np.int32)
    ours = loaded(tmp_path, dtype=np.float64 if double else None)
    compare(ours, model.double() if double else model, tokens, np.array([1] * 9 + [0] * 2, np.int32), types)


def test_layers_are_one_stacked_module(trained: Bert, minilm: Path):
    assert trained.layers.attention.query.weight.shape == (6, 384, 384)
    with bridge.open(minilm) as ckpt:
        for n in range(6):
            stored = ckpt[f"encoder.layer.{n}.attention.self.query.weight"]
            assert np.asarray(trained.layers.attention.query.weight[n]).tobytes() == stored.tobytes()


def test_the_first_releases_names_load_too(tmp_path: Path):
    (tmp_path / "old").mkdir()
    model = saved(tmp_path, "BertModel", **ODD)
    tensors = {
        "bert." + key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in load_file(tmp_path / "model.safetensors").items()
    }
    tensors["bert.embeddings.position_ids"] = np.arange(20)[None]
    tensors["cls.seq_relationship.weight"] = np.zeros((2, 24), np.float32)
    save_file(tensors, tmp_path / "old" / "model.safetensors")
    (tmp_path / "old" / "config.json").write_text((tmp_path / "config.json").read_text())
    compare(loaded(tmp_path / "old"), model, np.arange(9, dtype=np.int32), np.ones(9, np.int32))


@pytest.mark.parametrize(("kind", "pooler"), [("BertForPreTraining", True), ("BertForMaskedLM", False)])
def test_the_encoder_of_a_pretrained_model_loads(tmp_path: Path, kind: str, pooler: bool):
    model = saved(tmp_path, kind, **ODD)
    tokens, mask = np.arange(9, dtype=np.int32), np.ones(9, np.int32)
    compare(loaded(tmp_path, pooler=pooler), model.bert, tokens, mask)


def test_a_pooler_that_the_file_lacks_is_missed(tmp_path: Path):
    saved(tmp_path, "BertForMaskedLM", **ODD)
    with pytest.raises(bridge.PlanError) as caught:
        loaded(tmp_path)
    assert set(caught.value.missing) == {"pooler.weight", "pooler.bias"}


def test_a_pooler_that_nobody_wants_is_dropped(trained: Bert, minilm: Path):
    without = loaded(minilm, pooler=False)
    tokens = jnp.arange(5)
    assert bool((without(tokens) == trained(tokens)).all())
    with pytest.raises(bridge.BridgeError, match="this Bert has no pooler"):
        without.pooled(without(tokens))


def test_a_fine_tuned_head_is_left_behind_only_by_name(tmp_path: Path):
    saved(tmp_path, "BertForSequenceClassification", **ODD)
    with pytest.raises(bridge.PlanError) as caught:
        loaded(tmp_path)
    assert set(caught.value.unexpected) == {"classifier.weight", "classifier.bias"}
    assert isinstance(loaded(tmp_path, allow_unexpected=["classifier.**"]), Bert)


def test_a_batch_is_a_vmap(trained: Bert):
    tokens = jnp.arange(24).reshape(3, 8)
    mask = jnp.array([[1] * 8, [1] * 5 + [0] * 3, [1] + [0] * 7])
    batch = eqx.filter_jit(lambda bert, *batch: jax.vmap(bert)(*batch))(trained, tokens, mask)
    assert batch.shape == (3, 8, 384)
    for row in range(3):
        alone = trained(tokens[row], mask[row].astype(bool))
        assert float(jnp.abs(batch[row] - alone).max()) < 1e-5


def test_more_tokens_than_positions_is_an_error(trained: Bert):
    with pytest.raises(bridge.BridgeError) as caught:
        trained(jnp.zeros(513, jnp.int32))
    assert str(caught.value) == "Bert got 513 tokens and has positions for 512: cut the text."


def test_bfloat16_is_as_near_to_the_truth_as_torch_is(tmp_path: Path):
    import torch

    model = saved(tmp_path, "BertModel", **ODD)
    tokens, mask = np.arange(20, dtype=np.int32), np.ones(20, np.int32)
    truth = theirs(model, tokens, mask).last_hidden_state[0].numpy()
    torchs = theirs(model.to(torch.bfloat16), tokens, mask).last_hidden_state[0].float().numpy()
    ours = loaded(tmp_path, dtype=jnp.bfloat16)(jnp.asarray(tokens))
    assert ours.dtype == jnp.bfloat16
    assert np.abs(np.asarray(ours, np.float32) - truth).mean() < 1.5 * np.abs(torchs - truth).mean()


@pytest.mark.parametrize("by_plan", [True, False])
def test_what_we_save_transformers_loads(tmp_path: Path, by_plan: bool):
    from transformers import BertModel

    saved(tmp_path, "BertModel", **ODD)
    tuned = jax.tree.map(lambda x: x * 1.5, loaded(tmp_path))
    how = rules(tuned.config)
    bridge.save(tuned, tmp_path / "tuned", bridge.plan(tmp_path, tuned, how) if by_plan else how)
    (tmp_path / "tuned" / "config.json").write_text((tmp_path / "config.json").read_text())
    model, report = BertModel.from_pretrained(tmp_path / "tuned", attn_implementation="eager", output_loading_info=True)
    assert not any(report.values())
    compare(tuned, model.eval(), np.arange(9, dtype=np.int32), np.ones(9, np.int32))


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
