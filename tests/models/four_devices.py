"""Each encoder spread over four devices, by every axis that four divides: python -m tests.models.four_devices FOLDER."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

import bridge
import bridge.models
from bridge.models._pretrained import ARCHITECTURES
from bridge.models.encoder import TextEncoder
from tests.attacks.configs import CONFIGS
from tests.models.random_model import random_model

KINDS = (
    *("albert", "bert", "clip", "convnext", "deberta-v2", "dinov2", "distilbert", "electra", "esm", "modernbert"),
    *("mpnet", "nomic_bert", "resnet", "roberta", "siglip", "vit"),
)
IMAGE = jnp.asarray(np.random.default_rng(1).standard_normal((3, 32, 32)), jnp.float32)
TOKENS = jnp.asarray([3, 7, 5, 9, 4, 30, 1], jnp.int32)


def example(model: Any) -> tuple[jax.Array, ...]:
    """What a model is called with: an image, tokens, or both."""
    if hasattr(model, "vision_model"):
        return IMAGE, TOKENS
    return (TOKENS,) if isinstance(model, TextEncoder) else (IMAGE,)


def patterns(plan: bridge.Plan) -> dict[str, PartitionSpec]:
    """For each matrix, and each kernel, the last but one of the axes that four divides: most are rows."""
    found: dict[str, PartitionSpec] = {}
    for name, spec in plan.leaves.items():
        axes = [axis for axis, size in enumerate(spec.shape) if size % 4 == 0]
        if len(spec.shape) > 1 and axes:
            found[name] = PartitionSpec(*("x" if axis == axes[-2:][0] else None for axis in range(len(spec.shape))))
    return found


def saved(kind: str, folder: Path) -> Any:
    """The rules of a model of random weights above 0, as variances are, which is saved by them."""
    file, _, name = ARCHITECTURES[kind].partition(".")
    module = import_module(f"bridge.models.{file}")
    configs = [each for each in vars(module).values() if kind in getattr(each, "model_types", ())]
    config = configs[0].from_dict({"model_type": kind} | CONFIGS[kind])
    model = jax.tree.map(jnp.abs, random_model(getattr(module, name), config))
    bridge.save(model, folder, module.rules(config))
    (folder / "config.json").write_text(json.dumps({"model_type": kind} | CONFIGS[kind]))
    return module.rules


def main() -> None:
    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    run = eqx.filter_jit(lambda model, *args: model(*args))
    for kind in KINDS:
        folder = Path(sys.argv[1]) / kind
        rules = saved(kind, folder)
        one = bridge.models.from_pretrained(folder)
        chosen = patterns(bridge.plan(folder, one, rules(one.config)))
        four = bridge.models.from_pretrained(folder, sharding=(mesh, chosen))
        leaves = jax.tree.leaves(eqx.filter(four, eqx.is_array))
        spread = sum(leaf.addressable_shards[0].data.size < leaf.size for leaf in leaves)
        assert spread == len(chosen) > 1, (kind, spread, chosen)
        got, expected = (np.asarray(run(model, *example(one))) for model in (four, one))
        assert np.isfinite(expected).all(), kind
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max(), kind
        print(kind)


if __name__ == "__main__":
    main()
