"""What the type of a tree's node says of it, and whether Equinox is there to be asked.

A tree holds the modules of Equinox only where somebody has imported it. Plain trees do without: importing it takes
longer than all that a small load does.
"""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

import jax
import numpy as np

ARRAYS = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)


def equinox_in_use() -> ModuleType | None:
    """Equinox, if the program has imported it."""
    if "equinox" not in sys.modules:
        return None
    import equinox as eqx  # waits where another thread is still at it

    return eqx


# Models have many nodes of few types, and asking JAX's abstract classes takes time.
@cache
def kind_of(kind: type) -> str:
    """What a node of this type is to the walk: an `"index"` into a state, a `"state"`, a `"module"`, an `"array"`."""
    eqx = equinox_in_use()
    # By its bases: `issubclass` would ask all classes that derive from `eqx.Module`, a hundred of them, one by one.
    bases = kind.__mro__
    if eqx is not None and (eqx.Module in bases or eqx.nn.State in bases):
        return "index" if eqx.nn.StateIndex in bases else "state" if eqx.nn.State in bases else "module"
    return "array" if issubclass(kind, ARRAYS) else ""


@cache
def hidden(kind: type) -> tuple[str] | None:
    """The attribute of a module that PyTorch's names do not show."""
    eqx = equinox_in_use()
    if eqx is None:
        return None
    names = {eqx.nn.Sequential: "layers", eqx.nn.Shared: "pytree"}
    return next(((name,) for base, name in names.items() if base in kind.__mro__), None)
