"""Ports with one mistake each: the models of `bridge.models`, held against runs of transformers.

A mistake is planted in the rules, in the model's code or in its config. `names` are the layers of which one has to be
reported first; where a rule is at fault, the rules that are printed, pasted in front of the others, must make the check
pass.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bridge
import bridge.models
from bridge.checking.counterparts import counterparts
from bridge.checking.recording import Recording
from bridge.checking.whole_events import Beside
from bridge.checking.whole_run import judge
from bridge.checking.whole_try import try_run
from bridge.models._pretrained import architecture
from bridge.models.rope import RotaryAngles

SMALL = {
    "vocab_size": 67,
    "hidden_size": 32,
    "intermediate_size": 32,  # as wide as the model: what is exchanged or turned over has the same shape
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = SMALL | {"num_key_value_heads": 4}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("LlamaForCausalLM", GROUPED),
    "mistral": ("MistralForCausalLM", GROUPED | {"sliding_window": 5}),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "qwen3": ("Qwen3ForCausalLM", GROUPED | {"head_dim": 8}),
    "gemma3": (
        "Gemma3ForCausalLM",
        GROUPED
        | {"num_hidden_layers": 8, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5}
        | {"sliding_window_pattern": 3},
    ),
    "mixtral": ("MixtralForCausalLM", GROUPED | EXPERTS),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        GROUPED | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": 67, "n_embd": 32, "n_inner": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    ),
    "bert": ("BertModel", SMALL),
    "roberta": ("RobertaModel", SMALL),
    "vit": (
        "ViTModel",
        {name: size for name, size in SMALL.items() if name not in ("vocab_size", "max_position_embeddings")}
        | {"image_size": 16, "patch_size": 4},
    ),
}


@dataclass(frozen=True)
class Port:
    """A recorded model of transformers, and ours of the same files."""

    name: str
    folder: Path
    rules: tuple[str, ...]
    config: Any
    kind: Any
    like: Any

    def loaded(self, rules: Sequence[str], like: Any = None) -> tuple[Any, bridge.Plan]:
        """A model by other rules, or of another config, and its plan."""
        like = self.like if like is None else like
        plan = bridge.plan(self.folder, like, list(rules))
        return bridge.load(self.folder, like, plan), plan

    def check(self, model: Any, plan: bridge.Plan) -> Any:
        """What `bridge.check` says."""
        return bridge.check(self.folder / "run.safetensors", model, plan)


@dataclass(frozen=True)
class Mistake:
    """A port that is wrong.

    - `names`: of the layers that may be named; one of them is at fault.
    - `by_rule`: whether other rules make it right.
    """

    rules: tuple[str, ...]
    names: frozenset[str]
    by_rule: bool = True
    config: Any = None
    code: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    changed: Callable[[Any], Any] = lambda like: like


def port(name: str, folder: Path, record: Callable[..., Any], dtype: str = "float32") -> Port:
    """A random model of transformers, saved and recorded in a folder."""
    import torch
    import transformers

    kind, fields = ARCHITECTURES[name]
    torch.manual_seed(0)
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**fields)
    config._attn_implementation = "eager"
    model = model_class(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = model.to(getattr(torch, dtype)).eval()
    model.save_pretrained(folder)
    record(model, _inputs(name, config, model.dtype), folder / "run.safetensors")
    module, kind, found = architecture(folder)
    like = abstract(kind, found, getattr(jnp, dtype))
    plan = bridge.plan(folder, like, module.rules(found))
    return Port(name, folder, tuple(str(rule) for rule in plan.rules), found, kind, like)


def abstract(kind: Any, config: Any, dtype: Any) -> Any:
    """A model without values, its floats of a dtype."""
    made = eqx.filter_eval_shape(lambda: kind(config, key=jax.random.key(0)))

    def one(leaf: Any) -> Any:
        is_float = isinstance(leaf, jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return jax.ShapeDtypeStruct(leaf.shape, dtype) if is_float else leaf

    return jax.tree.map(one, made)


def _inputs(name: str, config: Any, dtype: Any) -> dict[str, Any]:
    import torch

    rng = np.random.default_rng(1)
    if name == "vit":
        shape = (2, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.tensor(rng.normal(size=shape).astype(np.float32)).to(dtype)}
    ids = rng.integers(3, config.vocab_size, (2, 13))
    return {"input_ids": torch.tensor(ids)}


def mistakes(port: Port) -> dict[str, Mistake]:
    """Every mistake that the architecture can have."""
    return {name: found for name, make in _KINDS.items() if (found := make(port)) is not None}


def _exchanged(port: Port, one: str, other: str, *names: str) -> Mistake | None:
    """The keys of two leaves exchanged, wherever their layers stand: on the leaf side, or among the parts of an axis."""
    rules: list[str] = []
    for rule in port.rules:
        key, _, leaf = rule.partition(" -> ")
        parts = f"({one}|{other}|"
        if parts in key:
            key = key.replace(parts, f"({other}|{one}|")
        else:
            leaf = re.sub(rf"\b({one}|{other})\b", lambda found: other if found[0] == one else one, leaf)
        rules.append(f"{key} -> {leaf}")
    found = Mistake(tuple(rules), frozenset({*names, one, other}))
    return found if found.rules != port.rules and _plans(port, found) else None


def _plans(port: Port, found: Mistake) -> bool:
    return bridge.plan(port.folder, port.like, list(found.rules)).ok


def _edited(port: Port, ending: str, edit: Callable[[bridge.Rule], str | None]) -> Mistake | None:
    """Each rule of a leaf whose name ends so, edited."""
    edits: dict[str, str] = {}
    names: set[str] = set()
    for text in port.rules:
        rule = bridge.Rule(text)
        if rule.leaf is not None and str(rule.leaf.name).endswith(ending):
            edits[text] = edit(rule) or text
            names.add(_inner(str(rule.leaf.name).rpartition(".")[0]))
    found = Mistake(tuple(edits.get(text, text) for text in port.rules), frozenset(names))
    return found if found.rules != port.rules and _plans(port, found) else None


def _turned(rule: bridge.Rule) -> str | None:
    """A matrix the other way round."""
    key, leaf = rule.keys[0], rule.leaf
    assert leaf is not None
    if leaf.axes is not None:
        *lead, a, b = map(str, leaf.axes)
        return f"{key} -> {leaf.name} [{' '.join([*lead, b, a])}]"
    stays = [index.name for index in leaf.name.indices()]
    lead = [index.name for index in key.name.indices() if index.name not in stays]
    sizes = " ".join(f"{name}={size}" for name, size in rule.sizes)
    return f"{key} [x y] -> {leaf} [{' '.join([*lead, 'y', 'x'])}]" + (f" ; {sizes}" if sizes else "")


def _with(option: str) -> Callable[[bridge.Rule], str]:
    return lambda rule: f"{rule}{' ' if rule.sizes else ' ; '}{option}"


def _swap_q_k(port: Port) -> Mistake | None:
    inner = ("attention.query", "attention.key", "attention", "attention.query_norm", "attention.key_norm")
    return _exchanged(port, "query", "key", *inner)


def _swap_gate_up(port: Port) -> Mistake | None:
    inner = ("mlp", "mlp.gate", "mlp.up", "mlp.experts", "mlp.experts.gate", "mlp.experts.up")
    return _exchanged(port, "gate", "up", *inner)


def _swap_norms(port: Port) -> Mistake | None:
    pair = ("before_attention", "before_mlp") if port.name == "gemma3" else ("norm1", "norm2")
    return _exchanged(port, *pair)


def _transposed(port: Port) -> Mistake | None:
    return _edited(port, "attention.out.weight", _turned)


def _scaled(port: Port) -> Mistake | None:
    return _edited(port, "attention.value.weight" if port.name != "gpt2" else "mlp.up.weight", _with("scale=0.5"))


def _plus_one(port: Port) -> Mistake | None:
    return _edited(port, "before_mlp.weight" if port.name == "gemma3" else "norm2.weight", _with("add=1.0"))


def _norm_without_one(port: Port) -> Mistake | None:
    """Gemma's norms as a port has them that knows no 1 + weight."""
    if port.name != "gemma3":
        return None
    gemma = importlib.import_module("bridge.models.gemma3")

    def plain(node: Any) -> Any:
        if not isinstance(node, gemma.Norm):
            return node
        norm = eqx.filter_eval_shape(lambda: eqx.nn.RMSNorm(node.weight.shape[-1], node.eps, use_bias=False))
        return eqx.tree_at(lambda norm: norm.weight, norm, node.weight)

    def changed(like: Any) -> Any:
        return jax.tree.map(plain, like, is_leaf=lambda node: isinstance(node, gemma.Norm))

    norms = (
        "before_attention",
        "after_attention",
        "before_mlp",
        "after_mlp",
        "attention.query_norm",
        "attention.key_norm",
    )
    return Mistake(port.rules, frozenset(norms), changed=changed)


def _layers_out_of_order(port: Port) -> Mistake | None:
    rules = tuple(rule.replace("{l}", "{l[0,2,1]}") for rule in port.rules)
    inside = {_inner(str(bridge.Rule(rule).leaf.name).rpartition(".")[0]) for rule in rules if "[0,2,1]" in rule}
    found = Mistake(rules, frozenset({"", "layers", *inside}))
    return found if rules != port.rules and _plans(port, found) else None


@contextlib.contextmanager
def _pairs() -> Iterator[None]:
    """Rotary positions that turn neighbours, and not the halves of a head."""

    def turned(self: RotaryAngles, x: jax.Array) -> jax.Array:
        first, second = x[..., ::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
        cos, sin = self.cos[:, None, :], self.sin[:, None, :]
        both = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
        return both.reshape(x.shape).astype(x.dtype)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RotaryAngles, "__call__", turned)
        yield


def _rope_in_pairs(port: Port) -> Mistake | None:
    if not hasattr(port.config, "rope"):
        return None
    # With norms of queries and keys their weights would have to be laid out otherwise too.
    plain = not any("query_norm" in rule for rule in port.rules)
    return Mistake(port.rules, frozenset({"attention", "attention.query", "attention.key"}), by_rule=plain, code=_pairs)


def _epsilon(port: Port) -> Mistake | None:
    for field in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"):
        if hasattr(port.config, field):
            config = replace(port.config, **{field: 0.3})
            names = (
                "norm",
                "norm1",
                "norm2",
                "embed.norm",
                "before_attention",
                "attention.query_norm",
                "attention.key_norm",
            )
            return Mistake(port.rules, frozenset(names), by_rule=False, config=config)
    return None


def _activation(port: Port) -> Mistake | None:
    field = next((field for field in ("hidden_act", "activation_function") if hasattr(port.config, field)), None)
    if field is None:
        return None
    config = replace(port.config, **{field: "relu"})
    return Mistake(port.rules, frozenset({"mlp", "mlp.experts"}), by_rule=False, config=config)


_KINDS: Mapping[str, Callable[[Port], Mistake | None]] = {
    "q and k exchanged": _swap_q_k,
    "a square turned over": _transposed,
    "gate and up exchanged": _swap_gate_up,
    "a factor too many": _scaled,
    "a norm with 1 too many": _plus_one,
    "norms without 1 +": _norm_without_one,
    "norms exchanged": _swap_norms,
    "layers out of order": _layers_out_of_order,
    "rotary pairs for halves": _rope_in_pairs,
    "another epsilon": _epsilon,
    "another activation": _activation,
}


@dataclass(frozen=True)
class Verdict:
    """What a check said of a mistake: whether it was seen, the layer named first, whether its rules repair it."""

    seen: bool
    named: bool
    repaired: bool | None
    text: str


def verdict(port: Port, mistake: Mistake) -> Verdict:
    """Check a wrong port; and, where rules are printed, the port by them."""
    like = mistake.changed(_like(port, mistake))
    with mistake.code():
        model, plan = port.loaded(mistake.rules, like)
        check = port.check(model, plan)
        first = check.first
        if first is None:
            return Verdict(False, False, None, str(check))
        named = _inner(first.name) in mistake.names
        repaired = None
        if mistake.by_rule:
            repaired = first.rule is not None and _repairs(port, mistake, like, first)
        return Verdict(True, named, repaired, str(check))


def moves(port: Port, mistake: Mistake) -> bool:
    """Whether a mistake moves the output further than a run that is right may be off there."""
    model, plan = port.loaded(port.rules)
    right = _last(port, model, plan)
    with mistake.code():
        model, plan = port.loaded(mistake.rules, mistake.changed(_like(port, mistake)))
        wrong = _last(port, model, plan)
    assert wrong.event.error is not None
    return wrong.event.error > right.limit


def _last(port: Port, model: Any, plan: bridge.Plan) -> Any:
    recording = Recording.read(port.folder / "run.safetensors")
    pairs = counterparts(recording, model, plan)
    beside, trace = Beside(recording, pairs), try_run(recording, pairs, model)
    assert not isinstance(trace, str)
    return [one for one in judge(beside, beside.events(trace)).events if one.event.error is not None][-1]


def _repairs(port: Port, mistake: Mistake, like: Any, first: Any) -> bool:
    """Whether the rules of what is reported first, in place of those of the same leaves, make it agree."""
    printed = first.rule.splitlines()
    leaves = {str(bridge.Rule(text).leaf.name) for text in printed}
    others = [text for text in mistake.rules if str(bridge.Rule(text).leaf.name) not in leaves]
    try:
        model, plan = port.loaded([*printed, *others], like)
    except bridge.BridgeError:
        return False
    if mistake.rules != port.rules:  # the rules were wrong, and are right: so are all values
        right, _ = port.loaded(port.rules)
        pairs = zip(jax.tree.leaves(model), jax.tree.leaves(right), strict=True)
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)
    again = port.check(model, plan).first
    return again is None or (_inner(again.name), again.index) != (_inner(first.name), first.index)


def _like(port: Port, mistake: Mistake) -> Any:
    if mistake.config is None:
        return port.like
    (dtype,) = {leaf.dtype for leaf in jax.tree.leaves(port.like) if isinstance(leaf, jax.ShapeDtypeStruct)}
    return abstract(port.kind, mistake.config, dtype)


def _inner(name: str) -> str:
    """A layer's name without the stack that it is in."""
    for stack in ("layers.local", "layers.full", "layers.tail", "layers"):
        if name == stack:
            return "layers"
        if name.startswith(f"{stack}."):
            return name[len(stack) + 1 :]
    return name
