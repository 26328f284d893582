"""Equinox models of well-known Hub architectures, each one file: modules, `Config`, `rules(config)`.

    model = bridge.models.from_pretrained("meta-llama/Llama-3.2-1B")
    logits = model(tokens)  # (seq,) -> (seq, vocab)
    tokens = bridge.models.generate(model, tokens, 20)

One example a call, a batch by `jax.vmap`. Decoders: `model(tokens)` are logits `(seq, vocab)`,
`model.hidden_states(tokens)` is `(layers + 1, seq, d)`. Encoders: `model(tokens, mask)` is `(seq, d)`;
of images, `model(image)` is `(tokens, d)`, for an image `(c, h, w)`.

They use the public names of `bridge` only, as your own models would. Nothing is imported here, so that
`import bridge.models` stays light; a single architecture is `from bridge.models import llama`.
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
