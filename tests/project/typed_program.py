"""A user's program, for pyright in its strict mode: nothing here is run. `test_types.py` reads the remarks.

A line's `# revealed: T` is what pyright says of its `reveal_type`; `# error: RULE` is the one error that it finds there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, reveal_type

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bridge
from bridge.models import llama
from bridge.models.decoder import DecoderConfig, Layer, causal_attention, gated_mlp, rms_norm


class Net(eqx.Module):
    linear: eqx.nn.Linear


def spans(done: int, nbytes: int) -> None: ...


def loads(net: Net, state: eqx.nn.State, flat: dict[str, jax.Array], anything: Any, path: Path) -> None:
    rules: bridge.Rules = ["a.** -> b.**", bridge.Rule("c -> d", add=1.0), ("e.** -> f.**", ["g -> h"]), {"i": "j"}]
    reveal_type(bridge.load("model.safetensors", net))  # revealed: Net
    reveal_type(bridge.load(path, net, rules, dtype=jnp.bfloat16, progress=spans))  # revealed: Net
    reveal_type(bridge.load(["a.safetensors", "b.safetensors"], (net, state)))  # revealed: tuple[Net, State]
    reveal_type(bridge.load("org/name", flat, revision="main", token=False))  # revealed: dict[str, Array]
    reveal_type(bridge.load("model.safetensors"))  # revealed: dict[str, Array]
    reveal_type(bridge.load("model.safetensors", rules={"a": "b"}, dtype="checkpoint"))  # revealed: dict[str, Array]
    reveal_type(bridge.load("model.safetensors", anything))  # revealed: Any
    # Equinox does not say what this gives, so the program does.
    like = cast("Net", eqx.filter_eval_shape(Net, jax.random.key(0)))  # pyright: ignore[reportUnknownMemberType]
    reveal_type(bridge.load("model.safetensors", like, "a -> b"))  # revealed: Net

    adapters: bridge.Adapters = ["org/my-lora", (path, 0.5), bridge.open("other/")]
    reveal_type(bridge.load("model.safetensors", net, adapters=adapters))  # revealed: Net
    reveal_type(bridge.load("model.safetensors", adapters=("org/my-lora", 0.5)))  # revealed: dict[str, Array]

    bridge.load("model.safetensors", net, adapters=[3])  # error: reportArgumentType
    bridge.load("model.safetensors", net, 3)  # error: reportArgumentType
    bridge.load("model.safetensors", net, dytpe=jnp.float32)  # error: reportCallIssue
    bridge.load(3, net)  # error: reportArgumentType
    bridge.load("model.safetensors", net, progress=lambda done: None)  # error: reportArgumentType


def plans(net: Net) -> None:
    fills: bridge.AllowMissing = {"rope.*": lambda name, spec: np.zeros(spec.shape, spec.dtype)}
    plan = bridge.plan("model.safetensors", net, Path("rules.toml"), allow_missing=fills, dtype={"a.*": "float32"})
    reveal_type(plan)  # revealed: Plan
    reveal_type(plan.ok)  # revealed: bool
    reveal_type(plan.missing)  # revealed: tuple[str, ...]
    reveal_type(plan.rules)  # revealed: tuple[Rule, ...]
    reveal_type(bridge.load("model.safetensors", net, plan))  # revealed: Net
    reveal_type(bridge.save(net, "out", plan, max_shard_size="1GB").files)  # revealed: tuple[str, ...]
    reveal_type(bridge.convert("model.safetensors", "out", net, local_files_only=True))  # revealed: SaveReport
    reveal_type(bridge.diff("a", "b").equal)  # revealed: bool
    bridge.plan("model.safetensors", net, revison="main")  # error: reportCallIssue
    bridge.save(net, 3)  # error: reportArgumentType


def opens(source: bridge.Source, options: bridge.OpenOptions) -> None:
    with bridge.open(source, **options) as ckpt:
        reveal_type(ckpt["key"].shape)  # revealed: tuple[Any, ...]
        reveal_type(ckpt.specs["key"].nbytes)  # revealed: int
        reveal_type(ckpt.metadata)  # revealed: dict[str, str]
    bridge.load(source, **options)
    bridge.open(source, subfolder=3)  # error: reportArgumentType


def models(tokens: jax.Array) -> None:
    reveal_type(bridge.models.from_pretrained("meta-llama/Llama-3.2-1B"))  # revealed: Any
    model = bridge.models.from_pretrained("meta-llama/Llama-3.2-1B", model_class=llama.Llama, dtype=jnp.float32)
    reveal_type(model)  # revealed: Llama
    reveal_type(model(tokens))  # revealed: Array
    reveal_type(bridge.models.generate(model, tokens, 20))  # revealed: Array
    reveal_type(llama.Config.from_file("config.json"))  # revealed: Config
    reveal_type(llama.rules(llama.Config.from_file("config.json")))  # revealed: list[str]
    bridge.models.from_pretrained(3)  # error: reportArgumentType
    bridge.models.generate(model, tokens)  # error: reportCallIssue


def of_the_kits(config: DecoderConfig, key: jax.Array) -> None:
    layer = Layer(causal_attention(config, key=key), gated_mlp(config, key=key), lambda: rms_norm(config))
    reveal_type(layer.attention.query.weight)  # revealed: Array
    causal_attention(config)  # error: reportCallIssue


def errors() -> None:
    try:
        bridge.load("model.safetensors")
    except bridge.PlanError as error:
        reveal_type(error.missing)  # revealed: tuple[str, ...]
    except (bridge.CheckpointError, bridge.RuleError, bridge.SaveError) as error:
        reveal_type(error)  # revealed: CheckpointError | RuleError | SaveError
