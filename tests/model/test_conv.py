"""Convolutions, plain and transposed."""

from __future__ import annotations

import equinox as eqx
import pytest
import torch

from tests.model.contract import Case, LayoutContract

ROW, IMAGE, VOLUME = (4, 9), (4, 9, 9), (4, 7, 7, 7)


def conv(name: str, ndim: int, shape: tuple[int, ...], **options) -> Case:
    """A case of equal options on both sides; square in channels and kernel unless they say otherwise."""
    options = {"in_channels": 4, "out_channels": 4, "kernel_size": 3} | options
    ours = {"use_bias" if name == "bias" else name: value for name, value in options.items()}
    return Case(
        name,
        lambda: getattr(torch.nn, f"Conv{ndim}d")(**options),
        lambda key: getattr(eqx.nn, f"Conv{ndim}d")(**ours, key=key),
        (shape,),
    )


def transposed(name: str, ndim: int, shape: tuple[int, ...], **options) -> Case:
    options = {"in_channels": 4, "out_channels": 4, "kernel_size": 3} | options
    ours = {"use_bias" if name == "bias" else name: value for name, value in options.items()}
    return Case(
        name,
        lambda: getattr(torch.nn, f"ConvTranspose{ndim}d")(**options),
        lambda key: getattr(eqx.nn, f"ConvTranspose{ndim}d")(**ours, key=key),
        (shape,),
    )


class TestConv(LayoutContract):
    cases = (
        conv("1d", 1, ROW, stride=2, padding=1),
        conv("1d, depthwise", 1, ROW, groups=4, dilation=2),
        conv("2d", 2, IMAGE),
        conv("2d, all options", 2, IMAGE, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2, kernel_size=(3, 2)),
        conv("2d, without bias", 2, IMAGE, bias=False),
        conv("3d", 3, VOLUME, stride=2, padding=1),
        conv("3d, groups", 3, VOLUME, groups=2),
    )

    def call_torch(self, module, *args):
        return module(args[0][None])[0]

    @pytest.mark.torch
    def test_the_general_class_has_the_layout_too(self):
        from bridge.model.layouts import layout_of

        class Own(eqx.nn.Conv2d):
            pass

        import jax

        assert layout_of(Own(1, 1, 1, key=jax.random.key(0))).rules == ("bias [o] -> bias [o 1 1]",)


class TestConvTranspose(LayoutContract):
    cases = (
        transposed("1d", 1, ROW, stride=3, padding=1, output_padding=2),
        transposed("1d, depthwise", 1, ROW, groups=4),
        transposed("2d", 2, IMAGE),
        transposed(
            "2d, all options",
            2,
            IMAGE,
            stride=(2, 3),
            padding=(1, 0),
            output_padding=(1, 2),
            dilation=(1, 2),
            groups=2,
            kernel_size=(3, 2),
        ),
        transposed("2d, more channels out", 2, IMAGE, out_channels=6, groups=2),
        transposed("2d, without bias", 2, IMAGE, bias=False),
        transposed("3d", 3, (4, 3, 3, 3), stride=2),
        transposed("3d, groups", 3, (4, 3, 3, 3), groups=2),
    )

    def call_torch(self, module, *args):
        return module(args[0][None])[0]
