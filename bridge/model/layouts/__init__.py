"""What PyTorch calls the parameters of each Equinox layer, and how it shapes them: one file a family.

A new layout is a function from a layer to a `Layout`, a row in the table, and a subclass of the contract test. Layers
that are not here (`Linear`, `LayerNorm`, `GroupNorm`, `Embedding`) have in PyTorch the same names and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx

from bridge.mapping.template import branch_names
from bridge.model.layouts.activation import prelu
from bridge.model.layouts.attention import multihead_attention
from bridge.model.layouts.conv import conv, conv_transpose
from bridge.model.layouts.layout import Layout, parsed
from bridge.model.layouts.norm import batch_norm, rms_norm
from bridge.model.layouts.own import Layouts, OwnLayout, check_fits, own_layout_of, own_layouts
from bridge.model.layouts.recurrent import gru_cell, lstm_cell
from bridge.model.layouts.wrapped import spectral_norm, weight_norm
from bridge.rules.syntax import Side, literal

_LAYERS: tuple[tuple[type, Callable[[Any], Layout]], ...] = (
    (eqx.nn.Conv, conv),
    (eqx.nn.ConvTranspose, conv_transpose),
    (eqx.nn.RMSNorm, rms_norm),
    (eqx.nn.BatchNorm, batch_norm),
    (eqx.nn.MultiheadAttention, multihead_attention),
    (eqx.nn.LSTMCell, lstm_cell),
    (eqx.nn.GRUCell, gru_cell),
    (eqx.nn.PReLU, prelu),
)
_WRAPPERS: tuple[tuple[type, Callable[[Any, Layout], Layout]], ...] = (
    (eqx.nn.WeightNorm, weight_norm),
    (eqx.nn.SpectralNorm, spectral_norm),
)


def layout_of(layer: Any, own: Sequence[OwnLayout] = ()) -> Layout:
    """The layout of a layer, by its type or a base of it; an empty one where names and shapes are PyTorch's.

    Those that a user gives go before ours: their rules take the place of ours, the names of a layer's state stay.
    """
    found = own_layout_of(layer, own)
    if found is not None:
        ours = layout_of(layer)
        return Layout((*found.rules, *_as_they_are(found.rules, ours.rules)), shown=ours.shown, fills=ours.fills)
    for kind, make in _LAYERS:
        if isinstance(layer, kind):
            return make(layer)
    for kind, wrap in _WRAPPERS:
        if isinstance(layer, kind):
            return wrap(layer, layout_of(layer.layer, own))
    return Layout()


def _as_they_are(own: Sequence[str], ours: Sequence[str]) -> Iterator[str]:
    """Rules for names that our layout would shape and the user's does not: what a plan says of them holds for both."""
    said = {name for text in own for name in _key_names(text)}
    for name in dict.fromkeys(name for text in ours for name in _key_names(text)):
        if name not in said:
            yield f"{Side(literal(name))} [...] -> {Side(literal(name))} [...]"


def _key_names(text: str) -> Iterator[str]:
    rule = parsed(text)
    yield from (name for side in range(len(rule.keys)) for name in branch_names(rule, side))


__all__ = ["Layout", "Layouts", "OwnLayout", "check_fits", "layout_of", "own_layout_of", "own_layouts", "parsed"]
