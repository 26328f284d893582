"""Attention. PyTorch packs the query, key and value projections one below the other where their inputs are as wide."""

from __future__ import annotations

import equinox as eqx

from bridge.model.layouts.layout import Layout

_PACKED = "in_proj_weight [(q|k|v) m] -> {query|key|value}_proj.weight [_ m]"
_SEPARATE = tuple(f"{name[0]}_proj_weight [o m] -> {name}_proj.weight [o m]" for name in ("query", "key", "value"))
_OTHERS = (
    "in_proj_bias [(q|k|v)] -> {query|key|value}_proj.bias [_]",
    "out_proj.weight [o m] -> output_proj.weight [o m]",
    "out_proj.bias [o] -> output_proj.bias [o]",
)
_HINT = "eqx.nn.MultiheadAttention has no biases by default: "


def multihead_attention(layer: eqx.nn.MultiheadAttention) -> Layout:
    """`in_proj_weight`, or `q_proj_weight` and its like; `in_proj_bias` packs in both cases; `out_proj`."""
    as_wide = layer.query_size == layer.key_size == layer.value_size
    return Layout(
        rules=((_PACKED,) if as_wide else ()) + _SEPARATE + _OTHERS,
        hints={
            "in_proj_bias": _HINT + "use_query_bias=True, use_key_bias=True, use_value_bias=True",
            "out_proj.bias": _HINT + "use_output_bias=True",
        },
    )
