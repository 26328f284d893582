"""`bridge.suggest`, end to end: rules taken away from models must be proposed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from bridge.models import bert, gpt2, llama, mixtral, qwen2, qwen3, qwen3_moe, roberta, vit
from tests.errors.promised import text_of

SIZES = {
    "vocab_size": 96,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ENCODER = {name: value for name, value in SIZES.items() if "key_value" not in name and "tie" not in name}
IMAGES = {name: value for name, value in ENCODER.items() if name.startswith(("hidden", "inter", "num"))}
GPT2 = {"vocab_size": 96, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32}

MODELS: dict[str, tuple[Any, str, Mapping[str, Any]]] = {
    "llama": (llama, "Llama", SIZES),
    "llama, tied, with biases": (llama, "Llama", SIZES | {"tie_word_embeddings": True, "attention_bias": True}),
    "qwen2": (qwen2, "Qwen2", SIZES),
    "qwen3": (qwen3, "Qwen3", SIZES | {"head_dim": 4}),
    "mixtral": (mixtral, "Mixtral", SIZES | EXPERTS),
    "qwen3_moe": (qwen3_moe, "Qwen3MoE", SIZES | EXPERTS | {"head_dim": 4, "moe_intermediate_size": 12}),
    "gpt2": (gpt2, "GPT2", GPT2),
    "bert": (bert, "Bert", ENCODER),
    "roberta": (roberta, "Roberta", ENCODER),
    "vit": (vit, "ViT", {**IMAGES, "image_size": 32, "patch_size": 8}),
}


def saved(folder: Path, name: str) -> tuple[Path, Any, list[str]]:
    """A checkpoint with the Hub's keys, which the model's own rules write; the model, and these rules."""
    module, kind, fields = MODELS[name]
    config = module.Config.from_dict({"model_type": module.Config.model_types[0], **fields})
    like = eqx.filter_eval_shape(lambda: getattr(module, kind)(config, key=jax.random.key(0)))
    rules = module.rules(config)
    model = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    bridge.save(model, folder / "model.safetensors", rules)
    return folder / "model.safetensors", like, rules


@pytest.mark.parametrize("name", MODELS)
def test_the_rules_of_our_models_are_proposed(tmp_path: Path, name: str) -> None:
    path, like, rules = saved(tmp_path, name)
    found = bridge.suggest(path, like)
    assert bridge.plan(path, like, found.rules) == bridge.plan(path, like, rules), str(found)
    assert (found.unmatched, found.left) == ((), ())
    assert len(found.rules) <= 2 * len(rules)
    # Only a fused projection is a guess.
    assert {leaf.split(".")[-2] for leaf in found.doubtful} == ({"query", "key", "value"} if name == "gpt2" else set())


def test_what_is_certain_alone_never_moves_an_element_elsewhere(tmp_path: Path) -> None:
    path, like, rules = saved(tmp_path, "gpt2")
    found = bridge.suggest(path, like)
    whole, sure = (bridge.plan(path, like, each) for each in (rules, found.certain))
    assert set(sure.missing) == set(found.doubtful)
    given = {leaf: {*block.maps(0)} for block in whole.blocks if not block.tie for leaf in block.leaves[:1]}
    for block in sure.blocks:
        assert block.tie or given[block.leaves[0]] == {*block.maps(0)}


class Net(eqx.Module):
    up: eqx.nn.Linear
    mix: jax.Array
    head: eqx.nn.Linear

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(0))
        self.up = eqx.nn.Linear(4, 6, use_bias=False, key=keys[0])
        self.mix = jnp.zeros((4, 4))
        self.head = eqx.nn.Linear(4, 9, use_bias=False, key=keys[1])


@pytest.fixture
def net(tmp_path: Path) -> Path:
    shapes = {
        "fc1.weight": (6, 4),
        "mix.weight": (4, 4),
        "lm_head.weight": (9, 4),
        "rope.inv_freq": (2,),
        "aux.w": (3, 3),
    }
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_the_text_is_toml_and_guesses_are_comments(net: Path, tmp_path: Path) -> None:
    found = bridge.suggest(net, Net())
    text = str(found)
    assert tomllib.loads(text) == {"rules": list(map(str, found.certain))}
    assert text == (
        "rules = [\n"
        '  "fc1.** -> up.**",\n'
        '  "lm_head.** -> head.**",\n'
        '  "rope.inv_freq -> _",  # a buffer that the model computes\n'
        "\n"
        "  # Guesses. Take the # away from those that are right.\n"
        "  # [4, 4] fits in more than one order of its axes, and no other weight tells which\n"
        '  # "mix.weight -> mix",\n'
        "]\n"
        "\n"
        "# Keys without one (a rule 'KEY -> _' drops what is not needed):\n"
        "#   aux.w"
    )
    (tmp_path / "rules.toml").write_text(text)
    assert bridge.load_rules(tmp_path / "rules.toml") == tuple(found.certain)
    (tmp_path / "all.toml").write_text(text.replace('# "', '"'))
    assert set(bridge.load_rules(tmp_path / "all.toml")) == set(found.rules)


def test_what_is_in_doubt_is_not_taken_by_its_own_name(tmp_path: Path) -> None:
    save_file({"mix.weight": np.eye(4, dtype=np.float32)}, tmp_path / "m.safetensors")
    like = {"mix": {"weight": jax.ShapeDtypeStruct((4, 4), np.float32)}}  # or the transpose
    found = bridge.suggest(tmp_path / "m.safetensors", like)
    assert (list(map(str, found.certain)), list(found.doubtful)) == (["mix.weight -> _"], ["mix.weight"])
    assert bridge.plan(tmp_path / "m.safetensors", like, found.certain).missing == ("mix.weight",)
    assert tomllib.loads(str(found)) == {"rules": ["mix.weight -> _"]}
    taken = tomllib.loads(str(found).replace('# "', '"'))["rules"]  # the guess stands in front
    assert bridge.plan(tmp_path / "m.safetensors", like, taken).ok
    assert bridge.plan(tmp_path / "m.safetensors", like, found.rules).ok


def test_guesses_are_named_with_their_reason(net: Path) -> None:
    found = bridge.suggest(net, Net())
    assert list(found.doubtful) == ["mix"]
    assert "more than one order" in found.doubtful["mix"]
    assert found.left == ("aux.w",)
    plan = bridge.plan(net, Net(), found.rules)
    assert plan.unexpected == found.left
    assert plan.missing == ()


def test_rules_that_are_given_come_first_and_are_not_proposed_again(net: Path) -> None:
    given = ["mix.weight [a b] -> mix [b a]", "aux.** -> _"]
    found = bridge.suggest(net, Net(), given)
    assert [str(rule) for rule in found.rules[:2]] == given
    assert (found.doubtful, found.left) == ({}, ())
    assert bridge.plan(net, Net(), found.rules).ok


def test_what_may_be_missing_or_left_over_gets_no_proposal(net: Path) -> None:
    found = bridge.suggest(net, Net(), allow_missing=["mix"], allow_unexpected=["mix.*", "aux.**"])
    assert (found.doubtful, found.unmatched, found.left) == ({}, (), ())


def test_layouts_of_ones_own_are_known(tmp_path: Path) -> None:
    class MyLinear(eqx.Module):
        w: jax.Array

        def __init__(self) -> None:
            self.w = jnp.zeros((4, 4))

    save_file({"net.up_proj.weight": np.zeros((4, 4), np.float32)}, tmp_path / "m.safetensors")
    like = {"up": MyLinear()}
    assert list(bridge.suggest(tmp_path / "m.safetensors", like).doubtful) == ["up.w"]
    found = bridge.suggest(tmp_path / "m.safetensors", like, layouts={MyLinear: "weight [o i] -> w [i o]"})
    assert found.doubtful == {}
    assert list(map(str, found.rules)) == ["net.up_proj.** -> up.**"]


def test_names_that_agree_need_no_rule(tmp_path: Path) -> None:
    save_file({f"layers.{n}.weight": np.zeros((4, 2), np.float32) for n in range(3)}, tmp_path / "m.safetensors")
    like = {"layers": {"weight": jax.ShapeDtypeStruct((3, 4, 2), np.float32)}}
    found = bridge.suggest(tmp_path / "m.safetensors", like)
    assert bridge.plan(tmp_path / "m.safetensors", like, found.rules).ok
    assert (found.doubtful, len(found.rules)) == ({}, 1)


def test_with_adapters_the_keys_are_the_bases(net: Path, tmp_path: Path) -> None:
    factors = {"fc1.lora_A.weight": np.ones((2, 4), np.float32), "fc1.lora_B.weight": np.ones((6, 2), np.float32)}
    save_file({f"base_model.model.{name}": value for name, value in factors.items()}, tmp_path / "lora.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    with_it = bridge.suggest(net, Net(), adapters=tmp_path / "lora.safetensors")
    assert str(with_it) == str(bridge.suggest(net, Net()))


def test_no_model_is_an_error(net: Path) -> None:
    with pytest.raises(bridge.PlanError) as error:
        bridge.suggest(net, None)
    assert str(error.value) == text_of("suggest: no model")
