"""Normalisations. LayerNorm and GroupNorm are as in PyTorch; what differs is what RMSNorm has and BatchNorm counts."""

from __future__ import annotations

import equinox as eqx

from bridge.model.layouts.layout import Layout

COUNTED = 1 << 30
"""A counter so large that `momentum**counter` is 0 in float32.

In mode "batch" Equinox keeps `running * (1 - momentum**counter)`. PyTorch keeps the statistics themselves: they are the
same numbers where the power is 0, at inference and in all further training. A counter of PyTorch's own
`num_batches_tracked` would scale them.
"""


def rms_norm(layer: eqx.nn.RMSNorm) -> Layout:
    """As in PyTorch, which has no bias."""
    return Layout(hints={"bias": "PyTorch's RMSNorm has no bias: eqx.nn.RMSNorm(…, use_bias=False)"})


def batch_norm(layer: eqx.nn.BatchNorm) -> Layout:
    """Running statistics live in the `State`. `num_batches_tracked` may be absent: old checkpoints lack it."""
    if layer.mode == "batch":
        return Layout(
            # Some writers have no scalars; what is saved without their checkpoint is PyTorch's scalar.
            rules=tuple(f"num_batches_tracked {a} -> num_batches_tracked [] ; add={COUNTED}" for a in ("[]", "[1]")),
            shown={
                "batch_state_index.0": "running_mean",
                "batch_state_index.1": "running_var",
                "batch_counter": "num_batches_tracked",
            },
            fills={"num_batches_tracked": COUNTED},
        )
    return Layout(
        rules=("running_mean [c] -> running_mean [c]", "num_batches_tracked [] -> _ ; zeros=true"),
        shown={"ema_state_index.0": "running_mean", "ema_state_index.1": "running_var"},
        fills={"ema_first_time_index": 0},  # False: the statistics are there
    )
