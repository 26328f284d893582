"""Activations with parameters."""

from __future__ import annotations

from typing import Any

import equinox as eqx

from bridge.model.layouts.layout import Layout


def prelu(layer: eqx.nn.PReLU) -> Layout:
    """PyTorch: `weight` of shape `(1,)` or `(channels,)`. Equinox: whatever broadcasts, so often `(channels, 1, 1)`.

    The leaf does not say how many of its axes are a stack's. Each reading is a rule; the indices that arrive choose.
    """
    slope: Any = layer.negative_slope
    shape = getattr(slope, "shape", ())
    rules = ["weight [1] -> negative_slope []"]
    for start in range(len(shape)):
        own = shape[start:]
        wide = [axis for axis, extent in enumerate(own) if extent != 1]
        if len(wide) <= 1:
            channels = wide[0] if wide else 0
            rules.append(
                f"weight [c] -> negative_slope [{' '.join('c' if n == channels else '1' for n in range(len(own)))}]"
            )
    return Layout(tuple(rules))
