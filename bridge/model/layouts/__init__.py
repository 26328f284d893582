"""What PyTorch calls the parameters of each Equinox layer, and how it shapes them: one file a family.

A new layout is a function from a layer to a `Layout`, a row in the table, and a subclass of the contract test. Layers
that are not here (`Linear`, `LayerNorm`, `GroupNorm`, `Embedding`) have in PyTorch the same names and shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx

from bridge.model.layouts.activation import prelu
from bridge.model.layouts.attention import multihead_attention
from bridge.model.layouts.conv import conv, conv_transpose
from bridge.model.layouts.layout import Layout, parsed
from bridge.model.layouts.norm import batch_norm, rms_norm
from bridge.model.layouts.recurrent import gru_cell, lstm_cell
from bridge.model.layouts.wrapped import spectral_norm, weight_norm

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


def layout_of(layer: Any) -> Layout:
    """The layout of a layer, by its type or a base of it; an empty one where names and shapes are PyTorch's."""
    for kind, make in _LAYERS:
        if isinstance(layer, kind):
            return make(layer)
    for kind, wrap in _WRAPPERS:
        if isinstance(layer, kind):
            return wrap(layer, layout_of(layer.layer))
    return Layout()


__all__ = ["Layout", "layout_of", "parsed"]
