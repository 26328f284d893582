"""`Check`: what was compared, and the first layer that departs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from bridge._text import plural, quote, ranges, safe

AGREES, DEPARTS, NOT_COMPARED = "agrees", "departs", "not compared"
HOW = "give trace=fn, a function of the model and of what PyTorch's took"
"""What to do where the run was not compared."""
GAVE = "what the model gives was not compared"
"""That its layers were, and its output was not."""
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a check.

    - `name`, `index`: the Equinox module, and its index in its stack; `()` if it is not stacked.
    - `module`: the PyTorch module; `None` if none was found.
    - `status`: `"agrees"`, `"departs"` or `"not compared"`.
    - `ulps`: how far the layer alone is off, in units of its dtype's rounding; `None` if it was not compared alone, or
        if it departs in the whole run.
    - `reason`: why it departs or was not compared.
    - `rule`: a rule that makes it agree, ready to paste; `None` if none was found.
    """

    name: str
    index: tuple[int, ...]
    module: str | None
    status: str
    ulps: float | None = None
    reason: str = ""
    rule: str | None = None

    def __str__(self) -> str:
        place = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return f"{self.name or 'the model'}{place}"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of `bridge.check`: a port compared with a recording. `print(check)` shows it, with advice.

    - `ok`: whether no layer departs, at least one was compared, and every layer that a rule fills was compared, is
        named by `skip=`, or is right by what the whole run shows.
    - `covered`: the share of the loaded parameters whose layers were compared, from 0 to 1.
    - `layers`: every `Layer`, in PyTorch's order of execution.
    - `first`: the first layer that departs; `None` if none does.
    - `whole`: the result of the whole run, in words. Only the whole run shows a wrong name.
    - `ran`: whether the whole run was compared, with what the model gives. If not, each layer may agree although names
        are exchanged.
    - `skipped`: what the recorder could not record: pairs of a name and the reason.

    ```python
    plan = bridge.plan("model.safetensors", like)
    check = bridge.check("run.safetensors", bridge.load("model.safetensors", like, plan), plan)
    assert check.ok and check.ran and check.covered == 1 and check.first is None, str(check)
    ```
    """

    model: str
    source: str
    kind: str
    layers: tuple[Layer, ...]
    ok: bool
    covered: float
    first: Layer | None = None
    whole: str = ""
    ran: bool = False
    skipped: tuple[tuple[str, str], ...] = ()
    left: frozenset[tuple[str, tuple[int, ...]]] = field(default_factory=frozenset[tuple[str, "tuple[int, ...]"]])
    """Layers that need not be compared: those of `skip=`, and those that are right by what the run shows."""

    def to_json(self) -> str:
        """The check as one JSON document."""
        layers = [
            {
                "name": one.name,
                "index": list(one.index),
                "module": one.module,
                "status": one.status,
                "ulps": one.ulps,
                "reason": one.reason,
                "rule": one.rule,
            }
            for one in self.layers
        ]
        content = {
            "ok": self.ok,
            "covered": self.covered,
            "first": None if self.first is None else str(self.first),
            "whole": self.whole,
            "ran": self.ran,
            "layers": layers,
            "skipped": [list(pair) for pair in self.skipped],
        }
        return json.dumps(content)

    def __str__(self) -> str:
        return safe("\n".join(self._lines()))

    def _lines(self) -> Iterator[str]:
        by_status = {status: [one for one in self.layers if one.status == status] for status in _ORDER}
        departs, others = by_status[DEPARTS], by_status[NOT_COMPARED]
        if self.ok and self.ran:
            verdict = "it agrees"
        elif self.ok and GAVE in self.whole:
            verdict = f"each layer agrees, but {GAVE}"
        elif self.ok:
            verdict = (
                "each layer agrees alone, but the run as a whole was not compared, and only that shows a wrong name: "
                f"{HOW}"
            )
        elif departs:
            verdict = f"{plural(len(departs), 'layer')} of {len(self.layers)} {_verb(departs)}"
        elif not by_status[AGREES]:
            verdict = "nothing was compared"
        else:
            verdict = f"{plural(len([one for one in others if not self._is_left(one)]), 'layer')} not compared"
        yield f"{self.model} against {quote(self.source)} ({self.kind}): {verdict}"
        if self.first is not None:
            departs = [self.first, *(one for one in departs if one is not self.first)]
        yield from _entries(DEPARTS, departs)
        yield from _entries(NOT_COMPARED, [one for one in others if not self._is_left(one)])
        yield from _entries("left out", [one for one in others if self._is_left(one)])
        if by_status[AGREES]:
            count = plural(len(by_status[AGREES]), "layer")
            yield f"  agrees        {count}; compared layers have {self.covered:.1%} of the parameters"
        yield f"  the whole run {self.whole}"
        for name, why in self.skipped[:_SHOWN]:
            yield f"  not recorded  {quote(name)}: {why}"

    def _is_left(self, one: Layer) -> bool:
        return (one.name, one.index) in self.left


_ORDER = (DEPARTS, NOT_COMPARED, AGREES)


def _verb(layers: list[Layer]) -> str:
    return "departs" if len(layers) == 1 else "depart"


def _entries(title: str, layers: list[Layer]) -> Iterator[str]:
    """Layers of one name with one reason together."""
    groups: dict[tuple[str, str, str | None], list[Layer]] = {}
    for one in layers:
        groups.setdefault((one.name, one.reason, one.rule), []).append(one)
    for (_, reason, rule), members in list(groups.items())[:_SHOWN]:
        module = members[0].module
        most = max((one.ulps for one in members if one.ulps is not None), default=None)
        off = f"   off by {most:.3g} ulps" if most is not None and title == DEPARTS else ""
        yield f"  {title:<13} {_named(members)}" + ("" if module is None else f"   PyTorch's {quote(module)}") + off
        for line in reason.replace("; ", ";\n").splitlines():
            yield f"                {line}"
        if rule is not None:
            yield from (f"                  {line}" for line in rule.splitlines())
    if len(groups) > _SHOWN:
        yield f"  … and {len(groups) - _SHOWN:,} more: check.layers has them all"


def _named(members: list[Layer]) -> str:
    """Layers of one name: `layers.mlp.up[0..11]`."""
    if len(members) == 1 or any(len(one.index) != 1 for one in members):
        more = f" and {len(members) - 1} more of its stack" if len(members) > 1 else ""
        return f"{members[0]}{more}"
    return f"{members[0].name}[{ranges(one.index[0] for one in members)}]"
