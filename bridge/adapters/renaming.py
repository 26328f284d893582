"""A base's names for what an adapter calls otherwise: `transformer.h.0` where the checkpoint has `h.0`."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import NamedTuple

from bridge.adapters.change import Change, Replaced


class Prefix(NamedTuple):
    """How the base calls what the adapter calls otherwise: some leading segments less, or more."""

    less: str = ""
    more: str = ""

    def __call__(self, name: str) -> str:
        """The base's name."""
        return self.more + (name[len(self.less) :] if name.startswith(self.less) else name)


def renaming(changes: Iterable[Change], modules: Set[str]) -> Prefix:
    """The one change of prefix by which most modules are found; none where none is needed."""
    wanted = {change.target.rpartition(".")[0] if isinstance(change, Replaced) else change.module for change in changes}
    firsts = {name.partition(".")[0] for name in modules if name}
    leading = {
        ".".join(name.split(".")[:count]) + "." for name in wanted for count in (1, 2) if name.count(".") >= count
    }
    ways = [
        Prefix(),
        *(Prefix(less=one) for one in sorted(leading)),
        *(Prefix(more=f"{p}.") for p in sorted(firsts)),
    ]
    return max(ways, key=lambda way: sum(way(name) in modules for name in wanted))
