"""Layers around a layer, which compute one of its weights from others: WeightNorm, SpectralNorm.

Equinox keeps the wrapped layer as `.layer`; PyTorch's names show no such step, and spell the weight by its part in the
computation, in an old way (`weight_v`) and a new one (`parametrizations.weight.original1`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx

from bridge.model.layouts.layout import Layout, parsed, spatial
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Axis, Name, Rest, Side, UnitAxis, literal


def weight_norm(layer: eqx.nn.WeightNorm[Any], inner: Layout) -> Layout:
    """`weight_v`, the directions, are the wrapped layer's weight; `weight_g`, their norms, the wrapper's `g`."""
    weight, rules = layer.weight_name, _complete(layer.layer, inner)
    called = _called(weight, rules)
    # The old names first: PyTorch reads them into both forms.
    spelled = [f"{called}_v", f"parametrizations.{called}.original1"]
    norms = [f"{called}_g", f"parametrizations.{called}.original0"]
    if weight not in rules:
        return Layout(_around(rules, {}), {**dict.fromkeys(spelled, f"layer.{weight}"), **dict.fromkeys(norms, "g")})
    axes = _norm_axes(rules[weight], layer.axis)
    return Layout((*_around(rules, {weight: spelled}), *(f"{name} {axes[0]} -> g {axes[1]}" for name in norms if axes)))


def spectral_norm(layer: eqx.nn.SpectralNorm[Any], inner: Layout) -> Layout:
    """`weight_orig` is the wrapped layer's weight; `weight_u` and `weight_v`, the singular vectors, are state."""
    weight, rules = layer.weight_name, _complete(layer.layer, inner)
    called = _called(weight, rules)
    spelled = [f"parametrizations.{called}.original", f"{called}_orig"]
    left, right = ([f"parametrizations.{called}.0._{side}", f"{called}_{side}"] for side in "uv")
    vectors = [f"{name} [o] -> uv_index.0 [o]" for name in left]
    wrapped = layer.layer
    if isinstance(wrapped, eqx.nn.ConvTranspose):
        # The kernel runs backwards here, and so does its part of the vector.
        kernel = spatial(wrapped.num_spatial_dims)
        sizes = " ".join(f"{name}={n}" for name, n in zip(kernel.split(), wrapped.kernel_size, strict=True))
        vectors += [f'{name} [(i {kernel})] -> uv_index.1 [(i {kernel})] ; {sizes} flip="{kernel}"' for name in right]
    else:
        vectors += [f"{name} [x] -> uv_index.1 [x]" for name in right]
    aliases = {} if weight in rules else dict.fromkeys(spelled, f"layer.{weight}")
    return Layout((*_around(rules, {weight: spelled}), *vectors), aliases)


def _called(weight: str, rules: Mapping[str, Rule]) -> str:
    """What PyTorch calls the weight: a user's layout may say."""
    return str(rules[weight].keys[0].name) if weight in rules else weight


def _complete(layer: Any, inner: Layout) -> dict[str, Rule]:
    """By leaf, the rules of the wrapped layer, with those that say nothing but the names."""
    texts: list[str] = []
    if isinstance(layer, eqx.nn.Linear):
        texts = ["weight [o i] -> weight [o i]", "bias [o] -> bias [o]"]
    elif isinstance(layer, eqx.nn.Conv):
        kernel = spatial(layer.num_spatial_dims)
        texts = [f"weight [o i {kernel}] -> weight [o i {kernel}]"]
    rules = map(parsed, (*texts, *inner.rules))
    return {str(rule.leaf.name): rule for rule in rules if rule.leaf is not None}


def _around(rules: Mapping[str, Rule], spelled: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The wrapped layer's rules as the wrapper's own; `spelled` says what the key of a leaf is called instead.

    The weight's own name stays free: PyTorch has no parameter of that name then.
    """
    return tuple(
        _spelled(rule, [Side(literal(name), side.axes) if name else side for side in rule.keys])
        for leaf, rule in rules.items()
        for name in spelled.get(leaf, ("",))
    )


def _spelled(rule: Rule, keys: Iterable[Side]) -> str:
    """The rule's text with other keys, and with its leaf one step down."""
    assert rule.leaf is not None
    leaf = Side(Name((("layer",), *rule.leaf.name.segments)), rule.leaf.axes)
    return str(Rule(f"{' + '.join(map(str, keys))} -> {leaf}", **rule.options()))


def _norm_axes(weight: Rule, axis: int | None) -> tuple[str, str] | None:
    """The axes of the norms in PyTorch and here, which are the weight's, all but one of them 1 wide.

    `None` where PyTorch has no such norm: groups of a transposed convolution share an axis there.
    """
    theirs, ours = weight.keys[0].axes or (), weight.leaf.axes or () if weight.leaf else ()
    if any(isinstance(each, Rest) for each in ours):  # a rename: of PyTorch's shape
        return "[...]", "[...]"
    if axis is None:  # one norm, without axes there
        return "[]", f"[{' '.join('1' for _ in ours)}]"
    return (_only(theirs, ours[axis]), _only(ours, ours[axis])) if ours[axis] in theirs else None


def _only(axes: Axes, kept: Any) -> str:
    return f"[{' '.join(str(axis if axis == kept else Axis((UnitAxis(),))) for axis in axes)}]"
