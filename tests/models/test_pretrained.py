"""`from_pretrained`: which model a checkpoint is, in which dtype, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from bridge.models import bert, llama
from bridge.models._architectures import ARCHITECTURES, CLASSES
from bridge.models.decoder import Decoder
from tests.errors.promised import text_of
from tests.models.random_model import random_model

FIELDS = {
    "model_type": "llama",
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that we made and saved ourselves."""
    folder = tmp_path_factory.mktemp("llama")
    config = llama.Config.from_dict(FIELDS)
    model = random_model(llama.Llama, config)
    bridge.save(model, folder, llama.rules(config))
    (folder / "config.json").write_text(json.dumps(FIELDS))
    return folder


@pytest.fixture
def changed(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of it, with other fields and other tensors."""

    def change(edit: Callable[[dict[str, np.ndarray]], object] | None = None, **fields: Any) -> Path:
        tensors = load_file(made / "model.safetensors")
        if edit is not None:
            edit(tensors)
        save_file(tensors, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(FIELDS | fields))
        return tmp_path

    return change


def dtypes(model: Any) -> set[np.dtype]:
    return {leaf.dtype for leaf in jax.tree.leaves(model)}


def message(kind: type[Exception], source: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        bridge.models.from_pretrained(source, **options)
    return str(caught.value)


def test_the_class_that_is_asked_for_is_the_class_or_a_base_of_it(made: Path):
    for asked in (llama.Llama, Decoder, None):
        assert type(bridge.models.from_pretrained(made, model_class=asked)) is llama.Llama
    assert message(bridge.CheckpointError, made, model_class=bert.Bert) == (
        f"'{made}/' is a Llama by its config.json, expected a Bert. Give model_class=Llama, or leave model_class out."
    )


def test_a_folder_a_file_and_an_open_checkpoint_are_the_same_model(made: Path):
    folder = bridge.models.from_pretrained(made)
    assert isinstance(folder, llama.Llama)
    assert folder.config == llama.Config.from_dict(FIELDS)
    with bridge.open(made) as ckpt:
        for other in (str(made / "model.safetensors"), ckpt):
            assert eqx.tree_equal(folder, bridge.models.from_pretrained(other))
        ckpt[next(iter(ckpt))]  # still open


def test_the_hubs_cache_is_a_source(made: Path, tmp_path: Path):
    commit = "0" * 40
    snapshot = tmp_path / "models--org--name" / "snapshots" / commit / "sub"
    shutil.copytree(made, snapshot)
    (tmp_path / "models--org--name" / "refs").mkdir()
    (tmp_path / "models--org--name" / "refs" / "main").write_text(commit)
    model = bridge.models.from_pretrained("org/name", subfolder="sub", cache_dir=tmp_path, local_files_only=True)
    assert eqx.tree_equal(model, bridge.models.from_pretrained(made))


def test_a_converted_checkpoint_is_a_source(made: Path, tmp_path: Path):
    model = bridge.models.from_pretrained(made)
    bridge.convert(made, tmp_path / "converted", model, llama.rules(model.config))
    shutil.copy(made / "config.json", tmp_path / "converted")
    assert eqx.tree_equal(model, bridge.models.from_pretrained(tmp_path / "converted"))


def test_the_dtype_is_the_stored_one_unless_another_is_asked_for(changed: Callable[..., Path]):
    def halve(tensors: dict[str, np.ndarray]) -> None:
        tensors.update({key: value.astype(jnp.bfloat16) for key, value in tensors.items()})

    low = changed(halve, torch_dtype="float32")
    assert dtypes(bridge.models.from_pretrained(low)) == {jnp.dtype(jnp.bfloat16)}
    assert dtypes(bridge.models.from_pretrained(low, dtype=jnp.float32)) == {jnp.dtype(jnp.float32)}


def test_several_stored_dtypes_are_not_chosen_from(changed: Callable[..., Path]):
    def halve_one(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(jnp.bfloat16)

    mixed = changed(halve_one)
    assert message(bridge.CheckpointError, mixed) == (
        text_of("models: weights in two dtypes").replace("'m/'", f"'{mixed}/'")
    )
    assert dtypes(bridge.models.from_pretrained(mixed, dtype=jnp.bfloat16)) == {jnp.dtype(jnp.bfloat16)}
    assert len(dtypes(bridge.models.from_pretrained(mixed, dtype="checkpoint"))) == 2


def test_an_architecture_that_is_not_here_is_named(changed: Callable[..., Path]):
    folder = changed(model_type="mamba")
    assert message(bridge.CheckpointError, folder) == (
        f"'{folder}/config.json': model_type 'mamba' is not supported; supported are {', '.join(ARCHITECTURES)}. "
        "Load the weights into a model of your own, with bridge.load and rules."
    )
    assert "lacks field 'model_type'" in message(bridge.CheckpointError, changed(model_type=None))


def test_a_config_that_is_absent_or_broken_is_named(made: Path, changed: Callable[..., Path]):
    folder = changed()
    (folder / "config.json").write_text("{")
    assert message(bridge.CheckpointError, folder).startswith(f"'{folder}/config.json' is not JSON: ")
    (folder / "config.json").write_text("[]")
    text = text_of("models: a config that is a list").replace("'config.json'", f"'{folder}/config.json'")
    assert message(bridge.CheckpointError, folder) == text
    (folder / "config.json").unlink()
    assert f"{folder}/config.json" in message(bridge.CheckpointError, folder)


def test_weights_of_another_architecture_are_told_with_the_field(changed: Callable[..., Path]):
    bert_fields = {name: FIELDS[name] for name in FIELDS if name != "model_type"}
    folder = changed(model_type="bert", **bert_fields)
    with pytest.raises(bridge.PlanError) as caught:
        bridge.models.from_pretrained(folder)
    text = str(caught.value)
    assert text.startswith(f"'{folder}/config.json': its field 'model_type' says ")
    assert "none of the 21 keys" in text
    assert len(caught.value.unexpected) == 21
    assert caught.value.missing


def test_the_advice_for_a_prefix_loads_the_model(changed: Callable[..., Path]):
    def wrap(tensors: dict[str, np.ndarray]) -> None:
        for key in list(tensors):
            tensors[f"model.net.{key}"] = tensors.pop(key)

    folder = changed(wrap)
    text = message(bridge.PlanError, folder)
    assert f"'{folder}/': every key begins with 'model.net.', and the rest is a Llama's." in text
    assert 'bridge.load(…, ("model.net.** -> **", rules(config)))' in text
    config = llama.Config.from_dict(FIELDS)
    like = eqx.filter_eval_shape(llama.Llama, config, key=jax.random.key(0))
    found = bridge.load(folder, like, ("model.net.** -> **", llama.rules(config)))
    assert eqx.tree_equal(found, bridge.models.from_pretrained(changed()))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_weights_of_8_bits_without_scales_are_refused_by_name(changed: Callable[..., Path], dtype: str):
    def narrow(tensors: dict[str, np.ndarray]) -> None:
        for key in tensors:
            tensors[key] = tensors[key].astype(getattr(ml_dtypes, dtype))

    folder = changed(narrow)
    text = message(bridge.CheckpointError, folder)
    assert text.startswith(f"'{folder}/' stores weights in {dtype} without scales, '")
    kept = bridge.models.from_pretrained(folder, dtype="checkpoint")
    assert kept.embed.weight.dtype == getattr(ml_dtypes, dtype)


def test_ties_that_differ_name_both_keys_and_the_field(changed: Callable[..., Path]):
    folder = changed(tie_word_embeddings=True)
    text = message(bridge.CheckpointError, folder)
    assert text.startswith(f"'{folder}/config.json': its field 'tie_word_embeddings' ")
    assert "'lm_head.weight' and 'model.embed_tokens.weight' differ" in text
    assert bridge.models.from_pretrained(changed(tie_word_embeddings=False)).head is not None  # as it advises


def test_a_head_that_is_not_there_names_the_field(changed: Callable[..., Path]):
    def drop(tensors: dict[str, np.ndarray]) -> None:
        del tensors["lm_head.weight"]

    assert "its field 'tie_word_embeddings' is false or absent" in message(bridge.PlanError, changed(drop))
    assert bridge.models.from_pretrained(changed(drop, tie_word_embeddings=True)).head is None  # as it advises


def test_a_field_may_be_ignored_by_name(changed: Callable[..., Path]):
    folder = changed(rope_parameters={"rope_type": "default", "mystery": 1}, other=2)
    assert 'ignore=["rope_parameters.mystery"]' in message(bridge.CheckpointError, folder)
    assert "field 'other' is 2" in message(bridge.CheckpointError, folder, ignore=["rope_parameters.mystery"])
    bridge.models.from_pretrained(folder, ignore=["rope_parameters.mystery", "other"])


def test_ties_are_what_the_config_says_or_an_error(changed: Callable[..., Path]):
    def tie(tensors: dict[str, np.ndarray]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]

    tied = bridge.models.from_pretrained(changed(tie, tie_word_embeddings=True))  # stored twice
    assert tied.head is None
    once = changed(lambda tensors: tensors.pop("lm_head.weight"), tie_word_embeddings=True)
    assert bridge.models.from_pretrained(once).head is None
    other = changed(lambda tensors: tensors.pop("model.embed_tokens.weight"), tie_word_embeddings=True)
    assert bridge.models.from_pretrained(other).embed.weight.shape == (11, 8)
    differ = changed(tie_word_embeddings=True)
    assert "lm_head.weight" in message(bridge.CheckpointError, differ)
    headless = changed(lambda tensors: tensors.pop("lm_head.weight"))
    assert "head.weight" in message(bridge.PlanError, headless)
    assert bridge.models.from_pretrained(changed(tie)).head is not None  # equal by chance, and two leaves


def test_what_may_be_missing_or_left_over_is_named(changed: Callable[..., Path]):
    folder = changed(lambda tensors: tensors.update(extra=np.zeros(3, np.float32)))
    assert "extra" in message(bridge.PlanError, folder)
    bridge.models.from_pretrained(folder, allow_unexpected=["extra"])
    folder = changed(lambda tensors: tensors.pop("model.norm.weight"))
    model = bridge.models.from_pretrained(
        folder, allow_missing={"norm.weight": lambda name, spec: jnp.ones(spec.shape)}
    )
    assert bool((model.norm.weight == 1).all())


def test_shardings_and_progress_go_on_to_load(made: Path):
    seen: list[tuple[int, int]] = []
    device = jax.devices()[0]
    model = bridge.models.from_pretrained(
        made, sharding=device, max_host_bytes=1 << 20, progress=lambda done, nbytes: seen.append((done, nbytes))
    )
    assert model.norm.weight.sharding == jax.sharding.SingleDeviceSharding(device)
    assert seen[-1][0] == seen[-1][1] > 0


def test_minilm_with_the_pooler_that_its_file_holds(minilm: Path):
    model = bridge.models.from_pretrained(minilm)
    assert isinstance(model, bert.Bert)
    assert model.pooler is not None


def test_a_bert_without_pooler_has_none(tmp_path: Path):
    fields = {**FIELDS, "model_type": "bert", "type_vocab_size": 2}
    config = bert.Config.from_dict(fields, pooler=False)
    bridge.save(random_model(bert.Bert, config), tmp_path, bert.rules(config))
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert bridge.models.from_pretrained(tmp_path).pooler is None


def test_every_architecture_in_the_table_is_there():
    for model_type, home in (*ARCHITECTURES.items(), *CLASSES.items()):
        file, _, kind = home.partition(".")
        module = __import__(f"bridge.models.{file}", fromlist=[kind])
        assert issubclass(getattr(module, kind), eqx.Module), model_type
        assert callable(module.rules)
        assert callable(module.Config.from_dict)


def test_loading_and_running_imports_neither_torch_nor_other_architectures(made: Path):
    code = (
        "import sys, bridge\n"
        f"model = bridge.models.from_pretrained({str(made)!r})\n"
        "bridge.models.generate(model, [1, 2], 3)\n"
        "print(sorted({'torch', 'transformers', 'bridge.models.bert'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stderr, done.stdout) == ("", "[]\n")
