"""An adapter by itself is a checkpoint like any other; what is saved by its rules is what PEFT reads."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
from tests.adapters.write import adapter, peft

CASES = Path(__file__).parent / "cases"
AT = "base_model.model.model.layers.{l}.self_attn.*_proj"
RULES = [f"{AT}.lora_A.weight -> *.a", f"{AT}.lora_B.weight -> *.b"]


def test_factors_stacked_over_layers() -> None:
    like = {
        name: {"a": jax.ShapeDtypeStruct((2, 4, 16), jnp.float32), "b": jax.ShapeDtypeStruct((2, n, 4), jnp.float32)}
        for name, n in (("q", 16), ("v", 8))
    }
    loaded = bridge.load(CASES / "plain", like, RULES, allow_unexpected=["**.down_proj.**"])
    with bridge.open(CASES / "plain") as ckpt:
        for name in like:
            for side, key in (("a", "lora_A"), ("b", "lora_B")):
                at = f"base_model.model.model.layers.{{}}.self_attn.{name}_proj.{key}.weight"
                expected = np.stack([ckpt[at.format(n)] for n in range(2)])
                assert np.asarray(loaded[name][side]).tobytes() == expected.tobytes()


def test_a_folder_of_an_adapter_is_its_tensors(tmp_path: Path) -> None:
    lora = adapter(tmp_path / "lora", peft({"m": (np.ones((4, 2), "f4"), np.ones((3, 4), "f4"))}))
    assert set(bridge.load(lora)) == {"base_model.model.m.lora_A.weight", "base_model.model.m.lora_B.weight"}
    (lora / "adapter_config.json").unlink()
    with pytest.raises(bridge.CheckpointError, match=r"holds only 'adapter_model\.safetensors'"):
        bridge.load(lora)


def test_saved_and_merged_again(tmp_path: Path) -> None:
    """What was loaded, changed and saved by its rules is an adapter that changes the base so."""
    loaded = bridge.load(CASES / "plain", None, [*RULES, "**.down_proj.** -> _"])
    assert set(loaded) == {"q.a", "q.b", "v.a", "v.b"}
    tuned = {key: 2 * values if key.endswith(".b") else values for key, values in loaded.items()}
    bridge.save(tuned, tmp_path / "lora" / "adapter_model.safetensors", RULES)
    said = json.loads((CASES / "plain" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(said))
    one = bridge.load(CASES / "base", adapters=[tmp_path / "lora"])
    two = bridge.load(CASES / "base", adapters=[(CASES / "plain", 2)])
    for key in (f"model.layers.{n}.self_attn.{name}_proj.weight" for n in range(2) for name in "qv"):
        assert np.asarray(one[key]).tobytes() == np.asarray(two[key]).tobytes()
