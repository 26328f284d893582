"""Equinox models of well-known Hub architectures, each one file: modules, `Config`, `rules(config)`.

    model = bridge.models.from_pretrained("meta-llama/Llama-3.2-1B")
    logits = model(tokens)  # (seq,) -> (seq, vocab)
    tokens = bridge.models.generate(model, tokens, 20)

A call takes one example; use `jax.vmap` for a batch. A decoder's `model(tokens)` gives logits `(seq, vocab)`, and
`model.hidden_states(tokens)` gives `(layers + 1, seq, d)`. A text encoder's `model(tokens, mask)` gives `(seq, d)`. An
image encoder's `model(image)` gives `(tokens, d)` for an image `(c, h, w)`.

The models use only public names of `bridge`, as your own models would. `import bridge.models` imports no model;
`from bridge.models import llama` imports one architecture.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.models._generate import generate as generate
    from bridge.models._pretrained import from_pretrained as from_pretrained

_HOMES = {"from_pretrained": "_pretrained", "generate": "_generate"}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bridge.models' has no attribute {name!r}")
    value = getattr(import_module(f"bridge.models.{home}"), name)
    globals()[name] = value
    return value
