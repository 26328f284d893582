"""What every architecture must show against transformers. A new one subclasses `DecoderContract` or `Contract`.

    class TestLlama(DecoderContract):
        model_type = "llama"
        kind = "LlamaForCausalLM"
        variants = {"plain": ODD, "tied": ODD | {"tie_word_embeddings": True}}
        refused = {"hidden_act": "swish"}

`scripts/models` measures the same cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bridge
import bridge.models
from bridge.models._pretrained import architecture

TOKENS = 13  # more than any window of the variants
NEW = 24
EXAMPLES = 16  # in bf16: one says little where the output is a few numbers
NEAR = 1.15  # a model's error in bf16, in those of transformers; both against f32


@dataclass(frozen=True)
class Case:
    """One variant: the model of transformers, the folder where it saved itself, and what we loaded from there."""

    folder: Path
    theirs: Any
    ours: Any
    example: tuple[np.ndarray, ...]


_BUILT: dict[type, dict[str, Case]] = {}


class Contract:
    """Subclass it, and say:

    - `model_type`, and the name of transformers' class, `kind`.
    - `variants`: fields of its config by what they show. The first one should be the plainest.
    - `refused`: fields and values, in the file, that the architecture does not implement. A dot leads into an object.
    - `computed`: what buffers end in that transformers saves and we compute.
    - `run` and `judge`: what is compared, ours and theirs, by name.
    """

    model_type: ClassVar[str]
    kind: ClassVar[str]
    variants: ClassVar[Mapping[str, Mapping[str, Any]]]
    refused: ClassVar[Mapping[str, Any]] = {}
    computed: ClassVar[tuple[str, ...]] = ()

    # ---- what a family of architectures says once

    @staticmethod
    def run(model: Any, *example: jax.Array) -> dict[str, jax.Array]:
        """Everything that is compared. Compiled by the contract."""
        raise NotImplementedError

    @staticmethod
    def judge(model: Any, *example: np.ndarray) -> dict[str, np.ndarray]:
        """The same from transformers, f32."""
        raise NotImplementedError

    @classmethod
    def example(cls, config: Any, seed: int = 1) -> tuple[np.ndarray, ...]:
        """The arguments of a call, others for every seed."""
        return (np.random.default_rng(seed).integers(0, config.vocab_size, TOKENS, np.int32),)

    # ---- the cases

    @classmethod
    def case(cls, variant: str, folder: Path) -> Case:
        """A random model that transformers saved, and ours of the same files."""
        theirs = cls.saved(folder, **cls.variants[variant])
        return Case(folder, theirs, bridge.models.from_pretrained(folder), cls.example(theirs.config))

    @classmethod
    def saved(cls, folder: Path, kind: str | None = None, **fields: Any) -> Any:
        """A model of transformers, all of it random: what norms and biases start with hides mistakes."""
        import torch
        import transformers

        torch.manual_seed(0)
        model_class = getattr(transformers, kind or cls.kind)
        config = model_class.config_class(**fields)
        config._attn_implementation = "eager"
        model = model_class(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.eval().save_pretrained(folder)
        return model

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every variant for tests that want `each`; only the first for those that want `first`."""
        variants = list(self.variants)
        if "each" in metafunc.fixturenames:
            metafunc.parametrize("each", variants, indirect=True)
        if "first" in metafunc.fixturenames:
            metafunc.parametrize("first", variants[:1], indirect=True)
        if "refusal" in metafunc.fixturenames:
            metafunc.parametrize("refusal", list(self.refused))

    @pytest.fixture
    def each(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
        """A variant, built once for all tests of the class."""
        built = _BUILT.setdefault(type(self), {})
        if request.param not in built:
            built[request.param] = self.case(request.param, tmp_path_factory.mktemp("case"))
        return built[request.param]

    first = each

    @classmethod
    def compare(cls, ours: Any, theirs: Any, *example: np.ndarray) -> None:
        """Everything, within 1e-5, as far as f32 carries; in f64 what remains is a mistake."""
        expected = cls.judge(theirs, *example)
        found = compiled(cls.run, ours, *example)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            assert value.dtype == expected[name].dtype
            assert value.shape == expected[name].shape
            tolerance = {4: 1e-5, 8: 1e-11}[value.dtype.itemsize]
            assert np.abs(np.asarray(value) - expected[name]).max() < tolerance, name

    @classmethod
    def in_bfloat16(cls, case: Case) -> Any:
        """The model of transformers in bfloat16."""
        import torch

        return type(case.theirs).from_pretrained(case.folder, attn_implementation="eager", dtype=torch.bfloat16).eval()

    @classmethod
    def errors_in_bfloat16(cls, case: Case, folder: Path) -> dict[str, float]:
        """Our mean error over that of transformers, of the same weights in bfloat16, both against f32."""
        low = cls.in_bfloat16(case)
        low.save_pretrained(folder)
        model = bridge.models.from_pretrained(folder)
        assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.bfloat16)}
        ours, theirs = dict[str, Any](), dict[str, Any]()
        for seed in range(EXAMPLES):
            example = cls.example(case.theirs.config, seed)
            found, expected = compiled(cls.run, model, *example), cls.judge(low, *example)
            for name, truth in cls.judge(case.theirs, *example).items():
                assert found[name].dtype == jnp.bfloat16
                ours[name] = ours.get(name, 0) + np.abs(np.asarray(found[name], np.float32) - truth).mean()
                theirs[name] = theirs.get(name, 0) + np.abs(expected[name] - truth).mean()
        return {name: float(ours[name] / theirs[name]) for name in ours}

    @classmethod
    def lost(cls, report: Mapping[str, Any]) -> list[Any]:
        """What transformers misses in a file, or does not know."""
        return [key for keys in report.values() for key in keys if not str(key).endswith(cls.computed)]

    # ---- the promises

    def test_every_layer_and_the_output_equal_transformers(self, each: Case):
        self.compare(each.ours, each.theirs, *each.example)

    def test_the_model_is_complete_and_carries_its_config(self, each: Case):
        module, _, config = architecture(each.folder)
        assert each.ours.config == config
        plan = bridge.plan(each.folder, each.ours, module.rules(config))
        with bridge.open(each.folder) as ckpt:
            assert plan.ok
            assert set(plan.keys) == {key for key in ckpt if not key.endswith(self.computed)}

    @pytest.mark.parametrize("by_plan", [True, False])
    def test_saved_back_transformers_has_the_same_model(self, each: Case, tmp_path: Path, by_plan: bool):
        rules = architecture(each.folder)[0].rules(each.ours.config)
        bridge.save(each.ours, tmp_path, bridge.plan(each.folder, each.ours, rules) if by_plan else rules)
        (tmp_path / "config.json").write_bytes((each.folder / "config.json").read_bytes())
        again, report = type(each.theirs).from_pretrained(
            tmp_path, attn_implementation="eager", output_loading_info=True
        )
        assert not self.lost(report)
        stored, tensors = each.theirs.state_dict(), again.state_dict()
        assert tensors.keys() == stored.keys()
        assert all(tensor.equal(stored[name]) for name, tensor in tensors.items())
        expected = self.judge(each.theirs, *each.example)
        for name, value in self.judge(again.eval(), *each.example).items():
            assert np.abs(value - expected[name]).max() < 1e-6  # PyTorch rounds by where in memory a tensor begins

    def test_bfloat16_is_as_near_to_the_truth_as_transformers(self, first: Case, tmp_path: Path):
        for name, ratio in self.errors_in_bfloat16(first, tmp_path).items():
            assert ratio < NEAR, name

    def test_a_batch_is_a_vmap(self, first: Case):
        batch = [np.stack([x, np.roll(x, 1)]) for x in first.example]
        rows = [compiled(self.run, first.ours, *(x[n] for x in batch)) for n in range(2)]
        both = compiled(lambda model, *b: jax.vmap(lambda *one: self.run(model, *one))(*b), first.ours, *batch)
        for name, value in both.items():
            expected = np.stack([row[name] for row in rows])
            assert np.abs(np.asarray(value) - expected).max() < 1e-5

    def test_a_key_too_few_and_a_key_too_many(self, first: Case, tmp_path: Path):
        tensors = load_file(first.folder / "model.safetensors")
        lost = sorted(tensors)[0]
        save_file({"lost." + lost if k == lost else k: v for k, v in tensors.items()}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_bytes((first.folder / "config.json").read_bytes())
        with pytest.raises(bridge.PlanError) as caught:
            bridge.models.from_pretrained(tmp_path)
        assert caught.value.missing
        assert caught.value.unexpected == ("lost." + lost,)

    def test_a_field_that_nobody_knows_is_refused(self, first: Case, tmp_path: Path):
        assert "field 'mystery_factor' is 2.0" in refusal_of(first.folder, tmp_path, "mystery_factor", 2.0)

    def test_a_value_that_is_not_implemented_is_refused(self, first: Case, tmp_path: Path, refusal: str):
        field = refusal.partition("=")[0]
        assert f"field '{field}' is " in refusal_of(first.folder, tmp_path, field, self.refused[refusal])


class DecoderContract(Contract):
    """For models of text: hidden states, logits, and what they generate."""

    @staticmethod
    def run(model: Any, *example: jax.Array) -> dict[str, jax.Array]:
        return {"states": model.hidden_states(*example), "logits": model(*example)}

    @staticmethod
    def judge(model: Any, *example: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        with torch.no_grad():
            out = model(torch.tensor(example[0])[None], output_hidden_states=True)
        states = torch.stack([state[0] for state in out.hidden_states])
        return {"states": states.float().numpy(), "logits": out.logits[0].float().numpy()}

    def test_greedy_decoding_equals_transformers_token_for_token(self, each: Case):
        expected = greedy(each.theirs, each.example[0])
        found = bridge.models.generate(each.ours, each.example[0], NEW)
        np.testing.assert_array_equal(found, expected)


def greedy(model: Any, tokens: np.ndarray, new: int = NEW) -> np.ndarray:
    """What transformers makes follow, the prompt included."""
    import torch

    ids = torch.tensor(tokens)[None]
    with torch.no_grad():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=-1,
            pad_token_id=0,
        )
    return out[0].numpy()


def compiled(run: Any, model: Any, *example: np.ndarray) -> dict[str, jax.Array]:
    """In full precision on every device."""
    with jax.default_matmul_precision("highest"):
        return eqx.filter_jit(run)(model, *map(jnp.asarray, example))


def refusal_of(folder: Path, empty: Path, field: str, value: Any) -> str:
    """What is said to a checkpoint whose config has another value in a field."""
    (empty / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    *path, last = field.split(".")
    inner = config
    for name in path:
        inner = inner[name]
    inner[last] = value
    (empty / "config.json").write_text(json.dumps(config))
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.models.from_pretrained(empty)
    return str(caught.value)
