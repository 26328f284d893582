"""The modules behind the names of a checkpoint: nodes with fields, stacks of alike layers, lists of unlike ones."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from bridge._text import is_index
from bridge.mapping.arrays import ArraySpec

if TYPE_CHECKING:
    from collections.abc import Hashable

_TAKEN = frozenset({"self", "key", "jax", "jnp", "eqx"})
_NO_WORD = re.compile(r"\W")


class TensorNode:
    """One tensor."""

    def __init__(self, spec: ArraySpec) -> None:
        self.shape, self.dtype = spec.shape, spec.dtype

    @property
    def form(self) -> Hashable:
        """What is the same in modules of one class: the number of axes, and the dtype."""
        return len(self.shape), self.dtype.name

    @property
    def sizes(self) -> tuple[int, ...]:
        """The extents."""
        return self.shape


class Stack:
    """`count` modules that are alike."""

    def __init__(self, module: Module, count: int) -> None:
        self.module, self.count = module, count

    @property
    def form(self) -> Hashable:
        """The module's; how many there are is an argument."""
        return "stack", self.module.form

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many there are, then the module's."""
        return self.count, *self.module.sizes


class Modules:
    """Modules that are not alike, by their numbers from 0 on."""

    def __init__(self, modules: list[Module]) -> None:
        self.modules = modules

    @property
    def form(self) -> Hashable:
        """That of each."""
        return "list", tuple(module.form for module in self.modules)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Those of each, one after the other."""
        return tuple(size for module in self.modules for size in module.sizes)


Field: TypeAlias = "TensorNode | Module | Stack | Modules"


class Module:
    """What has a name and fields. `path` is where it stands first, with `{}` for the number in a stack."""

    def __init__(self, path: tuple[str, ...], fields: Mapping[str, Field]) -> None:
        self.path, self.fields = path, fields

    @cached_property
    def form(self) -> Hashable:
        """What makes its class: fields and their forms."""
        return tuple((name, field.form) for name, field in self.fields.items())

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """All extents and counts inside, in order."""
        return tuple(size for field in self.fields.values() for size in field.sizes)


class _NameTree:
    """The names below a node, and the tensor that is called like the node itself, if there is one."""

    __slots__ = ("below", "spec")

    def __init__(self) -> None:
        self.below: dict[str, _NameTree] = {}
        self.spec: ArraySpec | None = None


def module_tree(specs: Mapping[str, ArraySpec]) -> Module:
    """The modules of all keys. A tensor whose name is also the beginning of others has the empty name there."""
    root = _NameTree()
    for name, spec in specs.items():
        node = root
        for segment in name.split("."):
            found = node.below.get(segment)
            if found is None:
                found = node.below[segment] = _NameTree()
            node = found
        node.spec = spec
    return _module((), root)


def _module(path: tuple[str, ...], node: _NameTree) -> Module:
    fields = {segment: _field((*path, segment), below) for segment, below in node.below.items()}
    if node.spec is not None:
        fields[""] = TensorNode(node.spec)
    return Module(path, fields)


def _field(path: tuple[str, ...], node: _NameTree) -> Field:
    if node.spec is not None and not node.below:
        return TensorNode(node.spec)
    numbers = sorted(int(segment) for segment in node.below if is_index(segment))
    children = [node.below.get(str(number)) for number in range(len(numbers))]
    whole = [child for child in children if child is not None and child.spec is None]
    if not whole or len(whole) < len(node.below) or node.spec is not None:
        return _module(path, node)
    modules = [_module((*path, str(n)), child) for n, child in enumerate(whole)]
    first = modules[0]
    if len(modules) > 1 and all(each.form == first.form and each.sizes == first.sizes for each in modules):
        return Stack(_module((*path, "{}"), whole[0]), len(modules))
    return Modules(modules)


def field_name(segment: str) -> str:
    """A segment as the name of a Python attribute."""
    name = _NO_WORD.sub("_", segment) or "value"
    if name[0].isdigit():
        name = f"n{name}"
    return f"{name}_" if keyword.iskeyword(name) or name in _TAKEN or name.startswith("__") else name
