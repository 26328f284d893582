"""Convolutions. Equinox gives a bias unit axes, and flips the kernel of a transposed one to run it as a plain one."""

from __future__ import annotations

import equinox as eqx

from bridge.model.layouts.layout import Layout, spatial


def conv(layer: eqx.nn.Conv) -> Layout:
    """Weight: as in PyTorch. Bias: `(out,)` there, `(out, 1, …)` here."""
    return Layout((_bias(layer.num_spatial_dims),))


def conv_transpose(layer: eqx.nn.ConvTranspose) -> Layout:
    """Weight: `(in, out/groups, k…)` there, `(out, in/groups, k…)` with the kernel flipped here."""
    kernel = spatial(layer.num_spatial_dims)
    if layer.groups == 1:
        weight = f'weight [i o {kernel}] -> weight [o i {kernel}] ; flip="{kernel}"'
    else:
        weight = f'weight [(g i) o {kernel}] -> weight [(g o) i {kernel}] ; g={layer.groups} flip="{kernel}"'
    return Layout((weight, _bias(layer.num_spatial_dims)))


def _bias(ndim: int) -> str:
    return f"bias [o] -> bias [o{' 1' * ndim}]"
