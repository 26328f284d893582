"""The contract for convolutional encoders, whose states are images: each of its own shape."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from tests.models.contract import Contract

SIZE = (29, 22)


class ConvContract(Contract):
    """For models of images whose states are `(c, h, w)`."""

    @classmethod
    def example(cls, config: Any, seed: int = 1) -> tuple[np.ndarray, ...]:
        shape = (config.num_channels, *SIZE)
        return (np.random.default_rng(seed).standard_normal(shape).astype(np.float32),)

    @staticmethod
    def run(model: Any, *example: jax.Array) -> dict[str, jax.Array]:
        states = model.hidden_states(*example)
        found = {f"stage {n}": state for n, state in enumerate(states)}
        if model.head is not None:
            return found | {"logits": model.logits(model(*example))}
        return found | {"last": model(*example), "pooled": model.pooled(states[-1])}

    @staticmethod
    def judge(model: Any, *example: np.ndarray) -> dict[str, np.ndarray]:
        import torch

        with torch.no_grad():
            out = model(torch.tensor(example[0], dtype=model.dtype)[None], output_hidden_states=True)
        found = {f"stage {n}": state for n, state in enumerate(out.hidden_states)}
        if "logits" in out:
            found["logits"] = out.logits
        else:
            found |= {"last": out.last_hidden_state, "pooled": out.pooler_output.flatten(1)}
        return {name: x[0].float().numpy() for name, x in found.items()}
