"""RoBERTa and XLM-RoBERTa against transformers: small random ones of odd sizes, padding anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
from bridge.models.roberta import Config, Roberta, rules

pytestmark = pytest.mark.torch

ODD: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
}
TEXT = np.array([3, 1, 9, 17, 1, 1, 30, 2, 11, 5, 1, 1], np.int32)  # 1 is padding: inside, too
MASK = np.array([1] * 10 + [0] * 2, np.int32)


def saved(folder: Path, kind: str = "RobertaModel", **fields: Any) -> Any:
    """A random model that transformers saved, as it is there."""
    import torch
    import transformers

    torch.manual_seed(0)
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**ODD | fields)
    config._attn_implementation = "eager"
    model = model_class(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(folder)
    return model


def loaded(folder: Path, *, pooler: bool = True, **options: Any) -> Roberta:
    config = Config.from_file(folder / "config.json", pooler=pooler)
    like = eqx.filter_eval_shape(Roberta, config, key=jax.random.key(0))
    return bridge.load(folder, like, rules(config), **options)


@eqx.filter_jit
def run(model: Roberta, tokens: jax.Array, mask: jax.Array, types: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    states = model.hidden_states(tokens, mask, types)
    return states, None if model.pooler is None else model.pooled(states[-1])


def compare(ours: Roberta, model: Any, tokens: np.ndarray = TEXT, mask: np.ndarray = MASK) -> None:
    """Every layer's hidden states, of padding too, and what the pooler makes of the last."""
    import torch

    types = np.arange(len(tokens), dtype=np.int32) % ours.config.type_vocab_size
    with torch.no_grad():
        inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": types}
        inputs = {name: torch.tensor(array)[None] for name, array in inputs.items()}
        expected = model(**inputs, output_hidden_states=True)
    states, pooled = run(ours, jnp.asarray(tokens), jnp.asarray(mask), jnp.asarray(types))
    assert len(states) == len(expected.hidden_states) == ours.config.num_hidden_layers + 1
    for state, wanted in zip(states, expected.hidden_states, strict=True):
        assert np.abs(np.asarray(state) - wanted[0].numpy()).max() < 1e-5
    if pooled is not None:
        assert np.abs(np.asarray(pooled) - expected.pooler_output[0].numpy()).max() < 1e-5


@pytest.mark.parametrize("kind", ["RobertaModel", "XLMRobertaModel"])
@pytest.mark.parametrize("pad", [1, 0, 5])
def test_every_layer_equals_transformers(tmp_path: Path, kind: str, pad: int):
    model = saved(tmp_path, kind, pad_token_id=pad, type_vocab_size=3)
    ours = loaded(tmp_path)
    assert ours.config.pad_token_id == pad
    compare(ours, model)


@pytest.mark.parametrize(("kind", "pooler"), [("RobertaForMaskedLM", False), ("XLMRobertaForMultipleChoice", True)])
def test_the_encoder_of_another_model_loads(tmp_path: Path, kind: str, pooler: bool):
    model = saved(tmp_path, kind)
    compare(loaded(tmp_path, pooler=pooler, allow_unexpected=["classifier.**"]), model.roberta)


def test_old_files_load_too(tmp_path: Path):
    """`position_ids` were once a tensor, and the head of pre-training stood beside the encoder."""
    model = saved(tmp_path)
    tensors = {f"roberta.{key}": value for key, value in load_file(tmp_path / "model.safetensors").items()}
    tensors["roberta.embeddings.position_ids"] = np.arange(20)[None]
    tensors["lm_head.decoder.weight"] = np.zeros((31, 24), np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    compare(loaded(tmp_path), model)


def test_what_we_save_transformers_loads(tmp_path: Path):
    from transformers import RobertaModel

    saved(tmp_path)
    tuned = jax.tree.map(lambda x: x * 1.5, loaded(tmp_path))
    bridge.save(tuned, tmp_path / "tuned", rules(tuned.config))
    (tmp_path / "tuned" / "config.json").write_text((tmp_path / "config.json").read_text())
    model, report = RobertaModel.from_pretrained(
        tmp_path / "tuned", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values())
    compare(tuned, model.eval())


def test_a_text_that_fills_every_position(tmp_path: Path):
    model, tokens = saved(tmp_path), np.arange(2, 20, dtype=np.int32)
    ours = loaded(tmp_path)
    assert ours.config.max_tokens == len(tokens) == 18
    compare(ours, model, tokens, np.ones(18, np.int32))
    with pytest.raises(bridge.BridgeError) as caught:
        ours(jnp.zeros(19, jnp.int32))
    assert str(caught.value) == "Roberta got 19 tokens and has positions for 18: cut the text."


def test_without_a_pooler_the_model_says_so(tmp_path: Path):
    saved(tmp_path, "RobertaForMaskedLM")
    with pytest.raises(bridge.BridgeError) as caught:
        loaded(tmp_path, pooler=False).pooled(jnp.zeros((1, 24)))
    assert str(caught.value) == "this Roberta has no pooler. Make it with one: Config.from_dict(…, pooler=True)."


@pytest.mark.parametrize("pad", [-1, 19, 31, True])
def test_padding_without_a_row_is_refused(pad: Any):
    with pytest.raises(bridge.CheckpointError, match="field 'pad_token_id' is "):
        Config.from_dict(ODD | {"pad_token_id": pad})


def test_a_bert_is_not_taken_for_a_roberta():
    with pytest.raises(bridge.CheckpointError) as caught:
        Config.from_dict(ODD | {"model_type": "bert"})
    assert str(caught.value) == (
        '\'config.json\': field \'model_type\' is "bert"; this model implements "roberta" or "xlm-roberta".'
    )
