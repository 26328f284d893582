"""What every encoder of text must show against transformers: states under masks, of padding too, and the summary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
import bridge.models
from bridge.models._pretrained import architecture
from tests.errors.promised import text_of
from tests.models.contract import TOKENS, Case, Contract, compiled

LABELS = {0: "good", 1: "bad", 2: "neither"}


class EncoderContract(Contract):
    """For models of text that look both ways. `prefix` is what other models of transformers hold the encoder as."""

    prefix: ClassVar[str]
    pooled: ClassVar[bool] = True
    heads: ClassVar[tuple[str, ...]] = (
        *("ForMaskedLM", "ForQuestionAnswering", "ForSequenceClassification", "ForTokenClassification"),
    )

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        super().pytest_generate_tests(metafunc)
        if "head" in metafunc.fixturenames:
            metafunc.parametrize("head", self.heads)

    @classmethod
    def example(cls, config: Any, seed: int = 1) -> tuple[np.ndarray, ...]:
        """Tokens with padding inside and behind, a mask that hides the latter, and types."""
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, config.vocab_size, TOKENS, np.int32)
        tokens[[3, 4, -2, -1]] = config.pad_token_id
        mask = np.array([1] * (TOKENS - 2) + [0] * 2, np.int32)
        types = getattr(config, "type_vocab_size", 0)
        return (tokens, mask, np.arange(TOKENS) % types) if types else (tokens, mask)

    @staticmethod
    def run(model: Any, *example: jax.Array) -> dict[str, jax.Array]:
        last = model(*example)
        pooled = {} if model.pooler is None else {"pooled": model.pooled(last)}
        return {"states": model.hidden_states(*example), "last": last} | pooled

    @staticmethod
    def judge(model: Any, *example: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: torch.tensor(array)[None] for name, array in zip(names, example, strict=False)}
        with torch.no_grad():
            out = model(**inputs, output_hidden_states=True)
        found = {"states": torch.cat(out.hidden_states), "last": out.last_hidden_state[0]}
        if out.get("pooler_output") is not None:
            found["pooled"] = out.pooler_output[0]
        # bf16 is no dtype of numpy's
        return {name: (x if x.dtype == torch.float64 else x.float()).numpy() for name, x in found.items()}

    def test_a_pooler_is_there_if_the_file_has_one(self, first: Case):
        assert (first.ours.pooler is not None) is self.pooled

    def test_a_text_that_fills_every_position(self, first: Case):
        most = first.ours.config.max_tokens
        tokens = np.arange(2, 2 + most, dtype=np.int32) % first.ours.config.vocab_size
        example = (tokens, np.ones_like(tokens), np.zeros_like(tokens))
        self.compare(first.ours, first.theirs, *example[: len(first.example)])
        with pytest.raises(bridge.BridgeError) as caught:
            first.ours(np.zeros(most + 1, np.int32))
        name = type(first.ours).__name__
        assert str(caught.value) == (
            text_of("models: BERT and too long a text")
            .replace("21 tokens", f"{most + 1} tokens")
            .replace("the 20 ", f"the {most} ")
            .replace("Bert", name)
        )

    def test_without_mask_and_types_nothing_is_hidden_and_all_are_of_type_0(self, first: Case):
        def both(model: Any, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            return model(tokens), model(tokens, jnp.ones(TOKENS, bool), jnp.zeros(TOKENS, jnp.int32))

        untold, told = compiled(both, first.ours, first.example[0])
        np.testing.assert_array_equal(untold, told)

    @classmethod
    def head_case(cls, head: str, folder: Path) -> tuple[Any, Any, np.ndarray, np.ndarray]:
        """A model with a head that transformers saved, ours of the same files, what ours says and what is expected."""
        kind = cls.kind.replace("Model", head)
        named = {"id2label": LABELS} if head.endswith("Classification") else {}
        theirs = cls.saved(folder, kind, **next(iter(cls.variants.values())), **named)
        ours = bridge.models.from_pretrained(folder)
        example = cls.example(theirs.config)
        run = compiled(lambda model, *each: {"logits": model.logits(model(*each), *each[1:2])}, ours, *example)
        return theirs, ours, np.asarray(run["logits"]), cls.judge_head(theirs, *example)

    def test_a_head_says_what_transformers_says(self, tmp_path: Path, head: str):
        theirs, ours, logits, expected = self.head_case(head, tmp_path / "theirs")
        assert logits.shape == expected.shape
        assert np.abs(logits - expected).max() < 1e-5
        if head.endswith("Classification"):
            assert ours.config.labels == tuple(LABELS.values())
        rules = architecture(tmp_path / "theirs")[0].rules(ours.config)
        bridge.save(ours, tmp_path / "ours", rules)
        (tmp_path / "ours/config.json").write_bytes((tmp_path / "theirs/config.json").read_bytes())
        again, report = type(theirs).from_pretrained(
            tmp_path / "ours", attn_implementation="eager", output_loading_info=True
        )
        assert not self.lost(report)
        assert all(tensor.equal(again.state_dict()[name]) for name, tensor in theirs.state_dict().items())

    @staticmethod
    def judge_head(model: Any, *example: np.ndarray) -> np.ndarray:
        """What the head of transformers' model says; of questions both scores of each token."""
        import torch

        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: torch.tensor(array)[None] for name, array in zip(names, example, strict=False)}
        with torch.no_grad():
            out = model(**inputs)
        both = [out.start_logits, out.end_logits] if "start_logits" in out else None
        return (out.logits if both is None else torch.stack(both, -1))[0].numpy()

    def test_a_fine_tuned_head_is_left_behind_only_by_name(self, tmp_path: Path):
        kind = self.kind.replace("Model", "ForTokenClassification")
        theirs = self.saved(tmp_path, kind, **next(iter(self.variants.values())))
        (tmp_path / "config.json").write_text(
            json.dumps(json.loads((tmp_path / "config.json").read_text()) | {"architectures": [self.kind]})
        )
        with pytest.raises(bridge.PlanError) as caught:
            bridge.models.from_pretrained(tmp_path)
        assert set(caught.value.unexpected) == {"classifier.weight", "classifier.bias"}
        ours = bridge.models.from_pretrained(tmp_path, allow_unexpected=["classifier.**"])
        assert ours.pooler is None
        self.compare(ours, getattr(theirs, self.prefix), *self.example(theirs.config))
        with pytest.raises(bridge.BridgeError) as caught:
            ours.pooled(np.zeros((1, 24), np.float32))
        name = type(ours).__name__
        assert str(caught.value) == text_of("models: BERT without a pooler").replace("Bert", name)
