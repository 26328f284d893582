"""The layers of an Equinox model that can be looked at alone, and how many axes each has of its own."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax

from bridge.model.template import is_array, joined, modules_of

WRAPPERS = (eqx.nn.WeightNorm, eqx.nn.SpectralNorm)
"""Layers that have another inside, and are looked at as one."""
NORMS = (eqx.nn.LayerNorm, eqx.nn.RMSNorm, eqx.nn.GroupNorm, eqx.nn.BatchNorm)
CONVS = (eqx.nn.Conv, eqx.nn.ConvTranspose)
CELLS = (eqx.nn.GRUCell, eqx.nn.LSTMCell)
KNOWN = (eqx.nn.Linear, *CONVS, *NORMS, eqx.nn.Embedding, eqx.nn.MultiheadAttention, *CELLS, *WRAPPERS)


def layers_of(like: Any) -> dict[str, Any]:
    """The modules that hold arrays themselves, by name, outermost first; what is inside a layer that is looked at as
    one is not among them.
    """
    found: dict[str, Any] = {}
    inside: list[str] = []
    for name, module in modules_of(like):
        if any(name.startswith(f"{outer}." if outer else "") and name != outer for outer in inside):
            continue
        if isinstance(module, WRAPPERS):
            inside.append(name)
        if isinstance(module, KNOWN) or any(is_array(value) for value in vars(module).values()):
            found[name] = module
    return found


def main_leaf(layer: Any) -> tuple[str, int] | None:
    """The leaf that says which layer of PyTorch's this is, and how many axes it has where nothing is stacked; `None`
    for layers of one's own.
    """
    match layer:
        case eqx.nn.Linear() | eqx.nn.Embedding():
            return "weight", 2
        case eqx.nn.Conv() | eqx.nn.ConvTranspose():
            return "weight", layer.num_spatial_dims + 2
        case eqx.nn.LayerNorm() | eqx.nn.RMSNorm():
            return "weight", len(layer.shape)
        case eqx.nn.GroupNorm():
            return "weight", 1
        case eqx.nn.BatchNorm():
            return ("weight" if layer.weight is not None else "running_mean"), 1
        case eqx.nn.GRUCell() | eqx.nn.LSTMCell():
            return "weight_ih", 2
        case eqx.nn.MultiheadAttention():
            return "query_proj.weight", 2
        case eqx.nn.WeightNorm() | eqx.nn.SpectralNorm():
            inner = main_leaf(layer.layer)
            return None if inner is None else (joined("layer", inner[0]), inner[1])
        case _:
            return None


def at_index(layer: Any, index: tuple[int, ...]) -> Any:
    """One layer of a stack: its arrays at one place of the leading axes."""
    if not index:
        return layer
    return jax.tree.map(lambda leaf: leaf[index] if is_array(leaf) else leaf, layer)
