"""How a name of the model meets a rule's leaf side, and how many indices the rule says there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge._errors import PlanError
from bridge._text import quote
from bridge._values import NamedTuple
from bridge.mapping.pattern import Pattern
from bridge.mapping.send import Sender
from bridge.mapping.solve import factors
from bridge.mapping.template import Spec
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Hole, Index, Name


class Way(NamedTuple):
    """How a name of the model matches a rule's leaf side, whose holes `axes` are leading axes of the leaf.

    `kept` is the leaf side without them, `fills` the leaf that the name leads to.
    """

    name: str
    kept: Name
    pattern: Pattern
    axes: tuple[Hole, ...]
    texts: tuple[str, ...]
    fills: str
    leaf: Spec


def part(axes: Axes | None) -> str:
    """Which part of a leaf axes with selections speak of; rules that fill all of it are alternatives."""
    return " ".join(str(f) for f in factors(axes or ()) if isinstance(f, Index) and f.selection is not None)


def counted(sender: Sender) -> dict[str, int]:
    """How many positions each index of the key's name has, where its size is an option."""
    sizes = dict(sender.rule.sizes)
    indices = [index for index in sender.name.indices() if index.name in sizes]
    return {i.name: len(i.selection.positions(sizes[i.name])) if i.selection else sizes[i.name] for i in indices}


def whole(way: Way, ways: Sequence[Way], counted: Mapping[str, int]) -> bool:
    """Whether every index that a rule counts is there as often as it says, as an axis or in names."""
    for axis, hole in enumerate(way.axes):
        count = counted.get(hole.indices[0].name) if len(hole.indices) == 1 else None
        if count is not None and way.leaf.shape[axis] != count:
            return False
    for place, variable in enumerate(way.pattern.variables):
        count = counted.get(variable.indices[0].name) if isinstance(variable, Hole) else None
        if count is not None:
            others = way.texts[:place] + way.texts[place + 1 :]
            if len({w.texts[place] for w in ways if w.texts[:place] + w.texts[place + 1 :] == others}) != count:
                return False
    return True


def check_counted(hole: Hole, rule: Rule, way: Way) -> None:
    """How many indices a key's name has is known where a selection counts from the end. **Raises:** `PlanError`."""
    for index in hole.indices:
        if index.selection is not None and not index.selection.bounded and index.name not in dict(rule.sizes):
            raise PlanError(
                f"leaf {quote(way.name)} cannot be saved by the rule '{rule}': '{index}' counts from the end, and the "
                f"model does not say of how many: add their number to the rule, such as '; {index.name}=4'"
            )
