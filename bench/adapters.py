"""A LoRA adapter that is merged while the model loads."""

from __future__ import annotations

import json

import numpy as np

from bench.ours import RULES, Run, flattened, like
from bench.work import Work

FOLDER, _RANK = "lora", 16


def make_adapter(work: Work) -> None:
    """Factors of every projection of every layer, in float32, as PEFT saves them.

    B's first and last row are zeros: there a merged weight is the base's, which the bench compares.
    """
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    factors: dict[str, np.ndarray] = {}
    for key, place in work.places.items():
        if "_proj" in key:
            rows, columns = place.shape
            a, b = (rng.standard_normal(shape, np.float32) for shape in ((_RANK, columns), (rows, _RANK)))
            b[[0, -1]] = 0
            at = f"base_model.model.{key.removesuffix('.weight')}"
            factors |= {f"{at}.lora_A.weight": a, f"{at}.lora_B.weight": b * np.float32(0.001)}
    folder = work.folder / FOLDER
    folder.mkdir(exist_ok=True)
    save_file(factors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 2 * _RANK}
    (folder / "adapter_config.json").write_text(json.dumps(said))


def merged(work: Work) -> Run:
    """`bridge.load` with the adapter on top, into stacked leaves of the stored dtype."""
    import jax

    import bridge

    template, rules, lora = like(work), RULES[work.kind], work.folder / FOLDER
    if not lora.exists():  # of the same work in small
        make_adapter(work)
    return lambda: flattened(jax.block_until_ready(bridge.load(work.folder, template, rules, adapters=[lora])))
