"""Mistakes that are planted in ports: in their rules here, in the model's code and config in `mistakes_code`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import bridge
from tests.checking import mistakes_code
from tests.checking.ports import Mistake, Port, inner


def mistakes(port: Port) -> dict[str, Mistake]:
    """Every mistake that the architecture can have."""
    return {name: found for name, make in _KINDS.items() if (found := make(port)) is not None}


def _exchanged(port: Port, one: str, other: str, *names: str) -> Mistake | None:
    """The keys of two leaves exchanged, wherever their layers stand: on the leaf side, or among the parts of an axis.
    Where only one of them has a bias, those of the weights alone.
    """
    for ending in ("", ".weight"):
        rules = tuple(_with_exchange(rule, one, other) if ending in rule else rule for rule in port.rules)
        found = Mistake(rules, frozenset({*names, one, other}))
        if found.rules != port.rules and _plans(port, found):
            return found
    return None


def _with_exchange(rule: str, one: str, other: str) -> str:
    key, _, leaf = rule.partition(" -> ")
    if re.search(rf"\({one}\|{other}[|)]", key):  # parts of an axis
        key = key.replace(f"({one}|{other}", f"({other}|{one}")
    else:
        leaf = re.sub(rf"\b({one}|{other})\b", lambda found: other if found[0] == one else one, leaf)
    return f"{key} -> {leaf}"


def _plans(port: Port, found: Mistake) -> bool:
    return bridge.plan(port.folder, port.like, list(found.rules)).ok


def _edited(port: Port, ending: str | tuple[str, ...], edit: Callable[[bridge.Rule], str | None]) -> Mistake | None:
    """Each rule of a leaf whose name ends so, edited."""
    edits: dict[str, str] = {}
    names: set[str] = set()
    for text in port.rules:
        rule = bridge.Rule(text)
        if rule.leaf is not None and str(rule.leaf.name).endswith(ending):
            edits[text] = edit(rule) or text
            names.add(inner(str(rule.leaf.name).rpartition(".")[0]))
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


def _swap_statistics(port: Port) -> Mistake | None:
    """BatchNorm's mean and variance."""
    names = {inner(rule.rpartition(".")[0]) for rule in (rule.rpartition("-> ")[2] for rule in port.rules)}
    return _exchanged(port, "running_mean", "running_var", *(name for name in names if name.endswith("norm")))


def _swap_convolutions(port: Port) -> Mistake | None:
    """The two of a block that have one shape, with their norms."""
    if port.name != "resnet_basic":
        return None

    def made(rule: str) -> list[str]:
        key, _, leaf = rule.partition(" -> ")
        if ".rest." not in leaf:
            return [rule]
        return [f"{key.replace('{c}', c)} -> {leaf.replace('{c}', other)}" for c, other in ("01", "10")]

    names = [f"convs.{c}{part}" for c in "01" for part in ("", ".conv", ".norm")]
    return Mistake(tuple(each for rule in port.rules for each in made(rule)), frozenset(names))


def _swap_scales(port: Port) -> Mistake | None:
    return _exchanged(port, "scale1", "scale2", "layers")


def _swap_distances(port: Port) -> Mistake | None:
    return _exchanged(port, "pos_key", "pos_query", "attention.pos_key", "attention.pos_query", "attention")


def _axes_of_a_convolution(port: Port) -> Mistake | None:
    """Height and width of each square kernel exchanged."""

    def turned(rule: bridge.Rule) -> str | None:
        key, leaf = rule.keys[0], rule.leaf
        assert leaf is not None
        stays = [index.name for index in leaf.name.indices()]
        lead = [index.name for index in key.name.indices() if index.name not in stays]
        if leaf.axes is not None:
            *lead, a, b = map(str, leaf.axes)
            return f"{key} -> {leaf.name} [{' '.join([*lead, b, a])}]"
        return f"{key} [o i x y] -> {leaf} [{' '.join([*lead, 'o', 'i', 'y', 'x'])}]"

    return _edited(port, ("patches.weight", "conv.weight"), turned)


def _transposed(port: Port) -> Mistake | None:
    return _edited(port, "attention.out.weight", _turned)


def _scaled(port: Port) -> Mistake | None:
    ending = {"gpt2": "mlp.up.weight", "convnext": "up.weight", "convnextv2": "up.weight"}
    endings = (ending.get(port.name, ("attention.value.weight", "convs.0.conv.weight")), "attention.out.weight")
    each = (_edited(port, one, _with("scale=0.5")) for one in endings)
    return next((found for found in each if found is not None), None)


def _plus_one(port: Port) -> Mistake | None:
    ending = {"gemma3": "before_mlp.weight", "convnext": "rest.norm.weight", "convnextv2": "rest.norm.weight"}
    return _edited(port, ending.get(port.name, ("norm2.weight", "convs.1.norm.weight")), _with("add=1.0"))


def _layers_out_of_order(port: Port) -> Mistake | None:
    names = {"{l}": "{l[0,2,1]}", "{l[1:]}": "{l[2,1]}", "{b}": "{b[0,2,1]}", "{b[1:]}": "{b[2,1]}"}
    found = {rule: re.sub(r"\{[lb](\[1:\])?\}", lambda met: names[met[0]], rule) for rule in port.rules}
    rules = tuple(found.values())
    leaves = [bridge.Rule(rule).leaf for rule, made in found.items() if made != rule]
    inside = {inner(str(leaf.name).rpartition(".")[0]) for leaf in leaves if leaf is not None}
    found = Mistake(rules, frozenset({"", "layers", "stages.0", "stages.0.rest", *inside}))
    return found if rules != port.rules and _plans(port, found) else None


_KINDS: Mapping[str, Callable[[Port], Mistake | None]] = {
    "q and k exchanged": _swap_q_k,
    "a square turned over": _transposed,
    "gate and up exchanged": _swap_gate_up,
    "a factor too many": _scaled,
    "a norm with 1 too many": _plus_one,
    "norms without 1 +": mistakes_code.norm_without_one,
    "norms exchanged": _swap_norms,
    "mean and variance exchanged": _swap_statistics,
    "convolutions exchanged": _swap_convolutions,
    "height and width exchanged": _axes_of_a_convolution,
    "scales of layers exchanged": _swap_scales,
    "scales of layers left out": mistakes_code.without_scales,
    "distances' keys and queries exchanged": _swap_distances,
    "distances the other way": mistakes_code.distances_backwards,
    "another window": mistakes_code.window,
    "the scale of logits left out": mistakes_code.without_logit_scale,
    "layers out of order": _layers_out_of_order,
    "rotary pairs for halves": mistakes_code.rope_in_pairs,
    "another epsilon": mistakes_code.epsilon,
    "another activation": mistakes_code.activation,
}
