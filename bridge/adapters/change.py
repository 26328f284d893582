"""What an adapter says, before anybody has looked at a base: changes of modules and tensors."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class LowRank(NamedTuple):
    """`W += scale · B @ A`.

    - `module`: whose weight; `depth`: how many layers of wrappers the factors lie in, for several of one module.
    - `a`, `b`, `magnitude`: the adapter's keys; the last one for DoRA.
    - `rank`: what the config says, `None` where nothing does.
    - `embedding`: the factors are those of an embedding.
    - `flipped`: the config says that the weight is stored as `(in, out)`.
    - `parameter`: the weight may be any parameter of the module, of several experts even.
    """

    module: str
    a: str
    b: str
    scale: float
    rank: int | None = None
    magnitude: str | None = None
    embedding: bool = False
    flipped: bool = False
    parameter: bool = False
    depth: int = 0


class AddedBias(NamedTuple):
    """`bias += scale · b`."""

    module: str
    key: str
    scale: float


class Replaced(NamedTuple):
    """The tensor `target` of the base is the adapter's own."""

    target: str
    key: str


class ReplacedRows(NamedTuple):
    """Some rows of a module's weight are the adapter's own."""

    module: str
    key: str
    indices: tuple[int, ...]


Change: TypeAlias = LowRank | AddedBias | Replaced | ReplacedRows
