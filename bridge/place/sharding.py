"""What a `sharding` argument means for every leaf."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import jax.tree_util as jtu
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.template import Spec
from bridge.model.template import Model

Placement = Sharding | None
"""Where a leaf goes; `None` is JAX's default device."""


def placements(sharding: Any, leaves: Mapping[str, Spec], model: Model | None) -> dict[str, Placement]:
    """The sharding of every leaf.

    **Arguments:**

    - `sharding`: a `jax.Device` or `Sharding`; a pytree prefix of them; `(mesh, {pattern: PartitionSpec})`, or only the
        mapping under `jax.set_mesh`; a function `(name, spec) -> Sharding`; `None` takes what an abstract or a
        committed leaf of the template carries.
    - `leaves`: the leaves' specs.
    - `model`: the template, if there is one.

    **Raises:** `PlanError` for what is none of these, a pattern that matches no leaf, or a sharding that JAX refuses
    for a leaf.
    """
    found = {name: _concrete(name, leaves[name], one) for name, one in _resolve(sharding, leaves, model).items()}
    for name, placement in found.items():
        if placement is not None:
            _check(name, leaves[name], placement)
    return found


def spanned(where: Mapping[str, Placement]) -> tuple[int, ...]:
    """The processes that have parts of the arrays that are spread over several."""
    spread = [one for one in where.values() if one is not None and not one.is_fully_addressable]
    return tuple(sorted({device.process_index for one in spread for device in one.device_set}))


def _resolve(sharding: Any, leaves: Mapping[str, Spec], model: Model | None) -> dict[str, Placement]:
    if sharding is None:
        return {name: _own(name, model) for name in leaves}
    if isinstance(sharding, jax.Device | Sharding):
        return {name: _sharding(name, sharding) for name in leaves}
    if isinstance(sharding, tuple) and len(sharding) == 2 and isinstance(sharding[0], Mesh):
        return _by_pattern(sharding[0], sharding[1], leaves)
    if (
        isinstance(sharding, Mapping)
        and all(isinstance(spec, PartitionSpec) for spec in sharding.values())
        and sharding
    ):
        mesh = jax.sharding.get_mesh()
        if mesh.empty:
            raise PlanError(
                "sharding", "is a mapping of patterns without a mesh", "Give (mesh, {...}), or call jax.set_mesh(mesh)"
            )
        return _by_pattern(mesh, sharding, leaves)
    if isinstance(sharding, Mesh | AbstractMesh):
        raise PlanError("sharding", "is a mesh alone", "Give (mesh, {pattern: PartitionSpec})")
    if callable(sharding) and not isinstance(sharding, Mapping):
        function = cast("Callable[[str, Spec], Any]", sharding)
        return {name: _sharding(name, function(name, spec)) for name, spec in leaves.items()}
    return _by_prefix(sharding, leaves, model)


def _sharding(name: str, value: Any) -> Placement:
    """One leaf's placement. **Raises:** `PlanError` for what is none."""
    if value is None or isinstance(value, Sharding):
        return value
    if isinstance(value, jax.Device):
        return SingleDeviceSharding(value)
    raise PlanError(
        f"sharding of leaf {quote(name)}",
        f"is of type {type(value).__name__}",
        "Give a jax.Device or a jax.sharding.Sharding",
    )


def _own(name: str, model: Model | None) -> Placement:
    """What the template's leaf carries: a concrete array that is nowhere in particular carries nothing."""
    value = None if model is None else model.arrays[name].value
    if isinstance(value, jax.ShapeDtypeStruct):
        return value.sharding
    return value.sharding if isinstance(value, jax.Array) and value.committed else None


def _by_pattern(mesh: Mesh, specs: Any, leaves: Mapping[str, Spec]) -> dict[str, Placement]:
    """The first pattern that matches a leaf says how it is partitioned; what none matches is replicated."""
    if not isinstance(specs, Mapping):
        raise PlanError(
            "sharding", f"is a pair of a mesh and {type(specs).__name__}", "Give (mesh, {pattern: PartitionSpec})"
        )
    for text, spec in specs.items():
        if not isinstance(spec, PartitionSpec):
            raise PlanError(
                f"sharding: pattern {quote(text)}", f"stands for {spec!r}", "Give a jax.sharding.PartitionSpec"
            )
    patterns = [(text, NamePatterns.of(text), spec) for text, spec in specs.items()]
    unused = dict.fromkeys(specs)
    found: dict[str, Placement] = {}
    for name, leaf in leaves.items():
        chosen = PartitionSpec()
        for text, names, spec in patterns:
            if name in names:
                chosen = spec
                unused.pop(text, None)
                break
        found[name] = _named(name, leaf, mesh, chosen)
    for text, names, _ in patterns:
        if text in unused and not any(name in names for name in leaves):
            raise PlanError(f"sharding: pattern {quote(text)}", "matches no leaf", "Take a name that print(plan) lists")
    return found


def _by_prefix(sharding: Any, leaves: Mapping[str, Spec], model: Model | None) -> dict[str, Placement]:
    """A pytree prefix of the template, with a device or sharding at its leaves."""

    def stops(node: Any) -> bool:
        return node is None or isinstance(node, jax.Device | Sharding)

    like = model.like if model is not None else dict(leaves)
    try:
        spread = jtu.tree_map(
            lambda one, below: jtu.tree_map(lambda _: _OpaquePlacement(one), below), sharding, like, is_leaf=stops
        )
    except (ValueError, TypeError) as error:
        raise PlanError(
            "sharding",
            f"is not a prefix of the template: {error}",
            "Give a tree of shardings that begins as the template does, or (mesh, {pattern: PartitionSpec})",
        ) from error
    flat = jtu.tree_leaves(spread, is_leaf=lambda node: isinstance(node, _OpaquePlacement))
    places = {name: model.arrays[name].place if model else n for n, name in enumerate(leaves)}
    return {name: _sharding(name, flat[place].value) for name, place in places.items()}


class _OpaquePlacement:
    """A placement as an opaque leaf: `None` would vanish from a tree."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _named(name: str, leaf: Spec, mesh: Mesh, spec: PartitionSpec) -> NamedSharding:
    """A `NamedSharding`. **Raises:** `PlanError` where JAX knows none."""
    parts = [spec[n] for n in range(len(spec))]
    axes = [axis for part in parts for axis in (part if isinstance(part, tuple) else (part,)) if axis is not None]
    twice = next((axis for axis in axes if axes.count(axis) > 1), None)
    if twice is not None:  # JAX's own error for it has no public type
        raise _refused(name, leaf, spec, f"it names mesh axis {twice!r} twice")
    try:
        return NamedSharding(mesh, spec)
    except (ValueError, TypeError) as error:
        raise _refused(name, leaf, spec, error) from error


def _concrete(name: str, leaf: Spec, placement: Placement) -> Placement:
    """A sharding over real devices: what is traced under a mesh carries only the mesh's axes."""
    if not isinstance(placement, NamedSharding) or not isinstance(placement.mesh, AbstractMesh):
        return placement
    if placement.mesh.empty:
        return None
    mesh = jax.sharding.get_mesh()
    if mesh.empty or mesh.abstract_mesh.shape != placement.mesh.shape:
        axes = dict(placement.mesh.shape)
        raise _refused(
            name, leaf, placement.spec, f"its mesh {axes} has no devices", "Call jax.set_mesh(mesh) with some"
        )
    return NamedSharding(mesh, placement.spec, memory_kind=placement.memory_kind)


def _check(name: str, spec: Spec, placement: Sharding) -> None:
    shown = placement.spec if isinstance(placement, NamedSharding) else placement
    try:
        if isinstance(placement, NamedSharding) and len(placement.spec) > len(spec.shape):
            raise ValueError(f"it partitions {len(placement.spec)} axes of an array that has {len(spec.shape)}")
        placement.shard_shape(spec.shape)
    except (ValueError, TypeError) as error:
        raise _refused(name, spec, shown, error) from error


def _refused(
    name: str, leaf: Spec, spec: object, reason: object, advice: str = "Give a sharding that its shape can have"
) -> PlanError:
    return PlanError(f"leaf {quote(name)}", f"of shape {leaf.shape} cannot have the sharding {spec}: {reason}", advice)
