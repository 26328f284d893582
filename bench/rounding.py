"""`scripts/mutants_check --rounding`: how far right recurrent layers and attention are from PyTorch's, and wrong ones.

The distances are those of `bridge.checking.measure`, of layers alone; the limits of its `steps` come from them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KINDS = ("GRU", "LSTM", "attention", "linear and GELU")
SIZES, LENGTHS, GAINS = (8, 64, 256), (4, 32, 256), (1.0, 3.0)
LIMITS = {"GRU": (128, 16), "LSTM": (128, 16), "attention": (256, 24), "linear and GELU": (256, 24)}
"""Those of `bridge.checking.measure`, for float32 and for shorter dtypes."""
DTYPES = ("float32", "bfloat16", "float16")


def measured(record: Callable[..., Any], say: Callable[[str], None]) -> str:
    """The table: of each kind and dtype the farthest right layer, and the nearest wrong one."""
    lines = [
        "| | right, median | right, at most | two rows exchanged, at least | limit | seen |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        for dtype in DTYPES:
            found = [_distances(record, *case) for case in _cases(kind, dtype)]
            right, wrong = sorted(pair[0] for pair in found), sorted(pair[1] for pair in found)
            limit = LIMITS[kind][dtype != "float32"]
            seen = f"{sum(one > limit for one in wrong)} of {len(wrong)}"
            cells = [f"{right[len(right) // 2]:.3g}", f"{right[-1]:.3g}", f"{wrong[0]:.3g}", f"{limit:g}", seen]
            lines.append(f"| {kind}, {dtype} | {' | '.join(cells)} |")
            say(lines[-1])
    return "\n".join(lines)


def _cases(kind: str, dtype: str) -> Iterator[tuple[str, str, int, int, float]]:
    for size in SIZES:
        for length in LENGTHS:
            for gain in GAINS:
                yield kind, dtype, size, length, gain


def _distances(
    record: Callable[..., Any], kind: str, dtype: str, size: int, length: int, gain: float
) -> tuple[float, float]:
    """Of a right layer, and of one with two rows exchanged."""
    import equinox as eqx
    import jax.numpy as jnp
    import numpy as np
    import torch
    from safetensors.torch import save_file

    import bridge

    torch.manual_seed(size * length)
    theirs, ours = _pair(kind, size, getattr(jnp, dtype))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(gain)
    theirs = theirs.to(getattr(torch, dtype)).eval()
    with tempfile.TemporaryDirectory() as folder:
        weights, run = Path(folder, "model.safetensors"), Path(folder, "run.safetensors")
        save_file(dict(theirs.state_dict()), weights)
        record(theirs, torch.randn(2, length, size).to(getattr(torch, dtype)), run, limit=1 << 30)
        plan = bridge.plan(weights, ours)
        right = bridge.load(weights, ours, plan)

        def turned(leaf: Any) -> Any:
            return leaf.at[np.array([0, 1])].set(leaf[np.array([1, 0])])

        wrong = eqx.tree_at(_weight, right, replace_fn=turned)
        call = {"layer": lambda layer, x: layer(x)} if kind == "linear and GELU" else None
        found = [bridge.check(run, model, plan, call=call).layers[0].ulps for model in (right, wrong)]
    assert None not in found
    return float(found[0] or 0), float(found[1] or 0)


def _weight(model: Any) -> Any:
    """The weight whose rows are exchanged: of a cell the one that shows least."""
    layer = model.layer
    if hasattr(layer, "output_proj"):
        return layer.output_proj.weight
    return layer.weight_hh if hasattr(layer, "weight_hh") else layer.weight


def _pair(kind: str, size: int, dtype: Any) -> tuple[Any, Any]:
    """The layer of torch.nn in a module that gives it what it takes, and Equinox's."""
    import equinox as eqx
    import jax
    import torch

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            makes: dict[str, Callable[[], Any]] = {
                "GRU": lambda: torch.nn.GRU(size, size, batch_first=True),
                "LSTM": lambda: torch.nn.LSTM(size, size, batch_first=True),
                "attention": lambda: torch.nn.MultiheadAttention(size, 4, batch_first=True),
                "linear and GELU": lambda: _Gelu(size),
            }
            self.layer = makes[kind]()

        def forward(self, x: Any) -> Any:
            return self.layer(x, x, x)[0] if kind == "attention" else self.layer(x)

    class _Gelu(torch.nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(size, size) / size**0.5)

        def forward(self, x: Any) -> Any:
            return torch.nn.functional.gelu(torch.nn.functional.linear(x, self.weight))

    class Own(eqx.Module):
        weight: jax.Array

        def __call__(self, x: jax.Array) -> jax.Array:
            return jax.nn.gelu(x.astype(self.weight.dtype) @ self.weight.T, approximate=False)

    class Ours(eqx.Module):
        layer: Any

    def made() -> Any:
        key = jax.random.key(0)
        match kind:
            case "GRU":
                layer: Any = eqx.nn.GRUCell(size, size, dtype=dtype, key=key)
            case "LSTM":
                layer = eqx.nn.LSTMCell(size, size, dtype=dtype, key=key)
            case "attention":
                biases = dict.fromkeys([f"use_{name}_bias" for name in ("query", "key", "value", "output")], True)
                layer = eqx.nn.MultiheadAttention(4, size, **biases, dtype=dtype, key=key)
            case _:
                layer = Own(jax.numpy.zeros((size, size), dtype))
        return Ours(layer)

    return Theirs(), eqx.filter_eval_shape(made)
