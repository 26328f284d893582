"""Which layer of `eqx.nn` owns each leaf: it tells what PyTorch's tensor means, and which way round it is."""

from __future__ import annotations

from typing import Any

from bridge.model.template import equinox_in_use, joined, modules_of, walk


def kinds_of(like: Any) -> dict[str, str]:
    """For each leaf that a layer of `eqx.nn` owns the name of the layer's type: `Linear`, `Conv`, `LayerNorm` …

    A subclass counts as what it is a kind of. Leaves are called as in `take_apart`.
    """
    eqx = equinox_in_use()
    if eqx is None:
        return {}
    types = [eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose, eqx.nn.Embedding, eqx.nn.LayerNorm, eqx.nn.RMSNorm]
    types += [eqx.nn.GroupNorm, eqx.nn.BatchNorm, eqx.nn.PReLU, eqx.nn.LSTMCell, eqx.nn.GRUCell]
    found: dict[str, str] = {}
    for name, module in modules_of(like):
        kind = next((each.__name__ for each in types if isinstance(module, each)), None)
        if kind is not None:
            found |= {joined(name, leaf.name): kind for leaf in walk(module).leaves}
    return found
