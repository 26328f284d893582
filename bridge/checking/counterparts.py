"""Which module of PyTorch's each layer of the model is: from the plan's blocks, and where their keys are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np

from bridge.checking.columns import ColumnMatch as ColumnMatch
from bridge.checking.columns import part_of
from bridge.checking.layers import layers_of, main_leaf
from bridge.checking.matching import Match, match
from bridge.checking.pieces import LayerElements, pieces_of
from bridge.checking.recording import Recording
from bridge.mapping.arrays import Numbers
from bridge.model.template import joined, modules_of, take_apart
from bridge.planning.plan import Plan
from bridge.stream.gather import HostLeaf, gather, pieces

Address = tuple[str, tuple[int, ...]]
"""A layer: its name, and its index in the stack."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """What PyTorch has for one layer. No `parts`: nothing, and `reason` says why.

    `pieces` are the keys of each leaf, by its name in the layer. `differs` says which key was
    found by its name only, because its values are others.
    """

    name: str
    index: tuple[int, ...]
    parts: tuple[ColumnMatch, ...]
    reason: str = ""
    pieces: Mapping[str, Sequence[LayerElements]] = field(default_factory=dict[str, "Sequence[LayerElements]"])
    differs: str = ""

    @property
    def module(self) -> str | None:
        """The torch module, the first where several are joined."""
        return self.parts[0].module if self.parts else None

    @property
    def taken(self) -> Numbers | None:
        """The columns of the module's input that the layer takes; `None`: all."""
        return self.parts[0].taken if self.parts else None

    @property
    def columns(self) -> Numbers | None:
        """The columns of its output that are the layer's; `None`: all."""
        return self.parts[0].theirs if self.parts else None


class Counterparts(NamedTuple):
    """Layers with arrays of their own, and the modules that hold several of them, each by name and index."""

    layers: Mapping[Address, Counterpart]
    composites: Mapping[Address, Counterpart]
    modules: Mapping[str, Any]
    """The Equinox modules by name, stacks as they are."""
    tensors: Mapping[str, np.ndarray]
    """The tensor of each key."""
    strange: Sequence[str] = ()
    """Keys of matrices whose values the recorded model does not have."""
    known: int = 0
    """How many matrices it has."""


def counterparts(recording: Recording, model: Any, plan: Plan) -> Counterparts:
    """Pair a model's layers with the recorded modules.

    **Arguments:**

    - `model`: the loaded model, or the pair `(model, state)`.
    - `plan`: the plan that it was loaded by.
    """
    parts = take_apart(model)
    leaves = {name: [HostLeaf(np.asarray(jax.device_get(leaf.value)))] for name, leaf in parts.arrays.items()}
    held = {key: found for key, found in pieces(plan.blocks).items() if all(piece.leaf in leaves for piece in found)}
    tensors = {key: gather(found, leaves, plan.specs[key].dtype) for key, found in held.items()}
    inexact = {entry.key for entry in plan.lossy} | {*plan.quantized}
    # What was added or multiplied was rounded, and does not come back as it was.
    inexact |= {key for block in plan.blocks if block.changes_values for term in block.terms for key in term.keys}
    matched = match(recording, tensors, inexact)
    own = layers_of(model)
    depths = _depths(own, parts.template.leaves)
    found = pieces_of(plan.blocks, depths)
    owners = owners_of(recording)
    layers: dict[Address, Counterpart] = {}
    for name, layer in own.items():
        for one in _layer(name, layer, own, found, matched, owners, recording):
            layers[one.name, one.index] = one
    holding = {at: _holders(one, matched, owners) for at, one in layers.items()}
    layers = _around_others(_without_split_attention(layers, own, recording), own, recording, holding)
    modules = dict(modules_of(model))
    exact = [key for key, tensor in tensors.items() if tensor.ndim > 1 and key not in inexact]
    strange = [key for key in exact if key in matched.reasons]
    found = composites(layers, modules, recording)
    return Counterparts(layers, found, modules, tensors, strange, len(exact) - len(strange))


def owners_of(recording: Recording) -> dict[str, str]:
    """Which module has a parameter, by each name that the parameter has."""
    found: dict[str, str] = {}
    for name, module in recording.modules.items():
        owner = name.partition(".parametrizations.")[0]  # modules that only compute a parameter of another
        owner = owner if owner in recording.modules else name
        for local, full in module.params.items():
            found[full] = owner
            found |= {joined(alias, local): owner for alias in module.aliases}
    return found


def _depths(own: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, int | None]:
    """The leaves of layers, each with the number of axes in front that are a stack's."""
    known: dict[str, int] = {}
    for name, layer in own.items():
        main = main_leaf(layer)
        if main is not None and joined(name, main[0]) in leaves:
            known[name] = len(leaves[joined(name, main[0])].shape) - main[1]
    found: dict[str, int | None] = {}
    for name, layer in own.items():
        main = main_leaf(layer)
        depth = known.get(name, 0) if main is not None else _depth_beside(name, known)
        for leaf in leaves:
            local = leaf[len(name) + bool(name) :]
            if leaf.startswith(f"{name}." if name else "") and (main is not None or "." not in local):
                found[leaf] = depth
    return found


def _depth_beside(name: str, known: Mapping[str, int]) -> int | None:
    """How deep a layer of the user's own lies in stacks: as deep as those in it, or beside it."""
    if not name:
        return 0
    for outer in (name, *(name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)), ""):
        beside = [depth for other, depth in known.items() if other.startswith(f"{outer}." if outer else "")]
        if beside:
            return min(beside)
    return None


def _layer(
    name: str,
    layer: Any,
    own: Mapping[str, Any],
    found: Mapping[str, Mapping[tuple[int, ...], Sequence[LayerElements]]],
    matched: Match,
    owners: Mapping[str, str],
    recording: Recording,
) -> Iterator[Counterpart]:
    """The counterparts of one layer, for each index of its stack."""
    inside = [leaf for leaf in found if leaf.startswith(f"{name}." if name else "")]
    if main_leaf(layer) is None:
        inside = [leaf for leaf in inside if "." not in leaf[len(name) + bool(name) :]]
    by_index: dict[tuple[int, ...], dict[str, Sequence[LayerElements]]] = {}
    for leaf in inside:
        local = leaf[len(name) + 1 :] if name else leaf
        for index, held in found[leaf].items():
            by_index.setdefault(index, {})[local] = held
    main = main_leaf(layer)
    for index in sorted(by_index):
        held = by_index[index]
        first = main[0] if main is not None and main[0] in held else next(iter(held))
        parts, reasons = [], []
        for piece in held[first]:
            place = matched.place(piece.key, piece.index_map)
            owner = owners.get(place.param) if place is not None else None
            if place is None or owner is None:
                reasons.append(matched.reasons.get(piece.key, f"no module of the recording has '{piece.key}'"))
            else:
                parts.append(part_of(layer, piece, place, owner, recording))
        if reasons or not parts:
            yield Counterpart(name, index, (), reasons[0] if reasons else "no key fills it", held)
        else:
            keys = {piece.key for some in held.values() for piece in some}
            differs = next((matched.reasons[key] for key in sorted(keys & {*matched.reasons})), "")
            yield Counterpart(name, index, _once(parts), "", held, differs)


def _once(parts: Sequence[ColumnMatch]) -> tuple[ColumnMatch, ...]:
    """Parts of one module that fill all of it stand once (terms of a sum)."""
    found: list[ColumnMatch] = []
    for part in parts:
        if not any(one.module == part.module and one.own is None and part.own is None for one in found):
            found.append(part)
    return tuple(found)


def _without_split_attention(
    layers: Mapping[Address, Counterpart], own: Mapping[str, Any], recording: Recording
) -> dict[Address, Counterpart]:
    """Attention is one layer where it is one in PyTorch too; else its four projections are."""
    whole = {
        name
        for (name, _), one in layers.items()
        if isinstance(own[name], eqx.nn.MultiheadAttention)
        and one.module is not None
        and recording.modules[one.module].torch_kind == "MultiheadAttention"
    }
    found: dict[Address, Counterpart] = {}
    for (name, index), one in layers.items():
        if isinstance(own[name], eqx.nn.MultiheadAttention) and name not in whole:
            continue
        if name.rpartition(".")[0] in whole:
            continue
        found[name, index] = one
    return found


def _holders(one: Counterpart, matched: Match, owners: Mapping[str, str]) -> set[str]:
    """The torch modules that hold what fills the leaves of a layer."""
    places = [matched.place(piece.key, piece.index_map) for held in one.pieces.values() for piece in held]
    return {owners[place.param] for place in places if place is not None and place.param in owners}


def _around_others(
    layers: Mapping[Address, Counterpart],
    own: Mapping[str, Any],
    recording: Recording,
    holding: Mapping[Address, set[str]],
) -> dict[Address, Counterpart]:
    """A layer of the user's own that holds others besides arrays is the module that holds the counterparts of all, and
    of no other layer.
    """
    called = {call.module for call in recording.calls}
    counting = {name for name, module in recording.modules.items() if module.params and name in called}
    found = dict(layers)
    for at, one in layers.items():
        name, index = at
        if main_leaf(own[name]) is not None or not one.parts:
            continue
        inside = [
            part.module
            for (other, place), held in layers.items()
            if other.startswith(f"{name}." if name else "") and other != name and place[: len(index)] == index
            for part in held.parts
        ]
        torch = {*inside, *holding[at]}
        root = _ancestor(torch, called) if inside else None
        if root is not None and (name == "" or below(root, counting) - {root} <= torch):
            found[at] = replace(one, parts=(ColumnMatch(root, one.parts[0].place),))
    return found


def composites(
    layers: Mapping[Address, Counterpart], modules: Mapping[str, Any], recording: Recording
) -> dict[Address, Counterpart]:
    """For each module that holds layers the torch module that holds their counterparts, and no other layer."""
    found: dict[Address, Counterpart] = {}
    called = {call.module for call in recording.calls}
    counting = {name for name, module in recording.modules.items() if module.params and name in called}
    for parent in modules:
        if any(name == parent for name, _ in layers):
            continue
        inside = [one for (name, _), one in layers.items() if name.startswith(f"{parent}." if parent else "")]
        by_index: dict[tuple[int, ...], list[Counterpart]] = {}
        depth = min((len(one.index) for one in inside), default=0)
        for one in inside:
            by_index.setdefault(one.index[:depth], []).append(one)
        here: dict[Address, Counterpart] = {}
        for index, members in by_index.items():
            torch = {part.module for one in members for part in one.parts}
            root = _ancestor(torch, called)
            if not torch or root is None:
                continue
            if parent == "" or below(root, counting) <= torch:
                place = next(part.place for one in members for part in one.parts)
                here[parent, index] = Counterpart(parent, index, (ColumnMatch(root, place),))
        # Experts of one tensor are one module in PyTorch, and no module each.
        if len({one.module for one in here.values()}) == len(here):
            found |= here
    return found


def below(root: str, names: set[str]) -> set[str]:
    """Those of some modules that are this one, or below it."""
    return {name for name in names if name == root or name.startswith(f"{root}." if root else "")}


def _ancestor(names: set[str], called: set[str]) -> str | None:
    """The innermost called module above all of these, or one of them."""
    if not names:
        return None
    paths = [name.split(".") if name else [] for name in sorted(names)]
    common = paths[0]
    for path in paths[1:]:
        same = 0
        while same < min(len(common), len(path)) and common[same] == path[same]:
            same += 1
        common = common[:same]
    while common and ".".join(common) not in called:
        common = common[:-1]
    name = ".".join(common)
    return name if name in called else None
