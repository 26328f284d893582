"""A model to start from, as Python: Equinox classes for the modules of a checkpoint, and rules beside them.

What headers tell is there: modules, fields, stacks, shapes as arguments of constructors. What they do not tell, the
forward passes, raise `NotImplementedError`.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from math import prod

from bridge._text import printable
from bridge.mapping.arrays import ArraySpec
from bridge.proposing.compress import briefly
from bridge.proposing.meanings import role_of, snake
from bridge.proposing.toml import quoted
from bridge.proposing.tree import Field, Module, Modules, Stack, TensorNode, field_name, module_tree
from bridge.rules.syntax import escaped

_WORD = re.compile(r"[a-z0-9]+")
_ONE = {"layers": "Layer", "h": "Block", "blocks": "Block", "experts": "Expert", "stages": "Stage", "layer": "Layer"}
_HEAD = '''"""Equinox modules for {source}, to start from: fields and shapes from its headers.

The forward passes are yours. RULES say which key is which leaf; what they do not name goes by its own name.

    model = bridge.load(source, eqx.filter_eval_shape(make), RULES)
"""

import equinox as eqx
import jax
import jax.numpy as jnp
'''


def skeleton_text(source: str, specs: Mapping[str, ArraySpec], dropped: Sequence[str]) -> str:
    """The file. `dropped` are rules for keys that no field holds; `specs` the others."""
    classes = _Classes(module_tree(specs))
    rules = [*briefly(list(_rules(classes.root, (), ()))), *dropped]
    lines = [_HEAD.format(source=printable(source).replace("\\", "/").replace('"', "'"))]
    made = classes.call(classes.root, {}, "jax.random.key(0)")
    lines += [line for text in classes.texts.values() for line in ("", *text, "")]
    lines += ["", "def make():", f"    return {made}", "", ""]
    lines += ["RULES = [", *(f"    {quoted(rule)}," for rule in rules), "]"]
    return "\n".join(lines)


class _Classes:
    """The classes of a tree: modules with the same fields are of one, and their extents are its arguments."""

    def __init__(self, root: Module) -> None:
        self.root = root
        self.members: dict[Hashable, list[Module]] = {}
        self.texts: dict[Hashable, list[str]] = {}
        self._collect(root)
        self.turned = any(map(_is_turned, _modules(root)))
        self.taken: set[str] = set()
        self.names: dict[Hashable, str] = {}
        self.arguments = {form: self._arguments(form) for form in self.members}

    def _collect(self, module: Module) -> None:
        """The modules of each class."""
        for field in module.fields.values():
            for inner in _inside(field):
                self._collect(inner)
        self.members.setdefault(module.form, []).append(module)

    def _arguments(self, form: Hashable) -> list[str]:
        """For each extent inside a module of this class its argument: one for those that are always equal."""
        members = self.members[form]
        columns = list(zip(*(member.sizes for member in members), strict=True))
        named: dict[tuple[int, ...], str] = {}
        for column in columns:
            if column not in named:
                named[column] = (
                    f"n{column[0]}" if f"n{column[0]}" not in named.values() else f"n{column[0]}_{len(named)}"
                )
        return [named[column] for column in columns]

    def call(self, module: Module, outer: Mapping[int, str], key: str) -> str:
        """The expression that makes a module, in which its extents are what `outer` calls them, or numbers.

        The class is written where it was not yet, after those that stand inside.
        """
        if module.form not in self.names:
            self.names[module.form] = _class_name(module, self.taken)
            self.texts[module.form] = list(self.text(module.form))
            self.texts[module.form] = self.texts.pop(module.form)
        names = self.arguments[module.form]
        given: dict[str, str] = {}
        for place, (name, size) in enumerate(zip(names, module.sizes, strict=True)):
            given.setdefault(name, outer.get(place, str(size)))
        values = ", ".join(f"{name}={value}" for name, value in given.items())
        return f"{self.names[module.form]}({values}{', ' if values else ''}key={key})"

    def text(self, form: Hashable) -> Iterator[str]:
        """One class."""
        module, names = self.members[form][0], self.arguments[form]
        arguments = "".join(f"{name}, " for name in dict.fromkeys(names))
        yield f"class {self.names[form]}(eqx.Module):"
        made: list[str] = []
        place = 0
        for segment, field in module.fields.items():
            here = dict(enumerate(names[place : place + len(field.sizes)]))
            place += len(field.sizes)
            kind, value = self.field(segment, field, here, f"keys[{len(made)}]")
            yield f"    {field_name(segment)}: {kind}"
            made.append(f"        self.{field_name(segment)} = {value}")
        yield ""
        yield f"    def __init__(self, {arguments}*, key):"
        if any("keys[" in line for line in made):
            yield f"        keys = jax.random.split(key, {len(made)})"
        yield from made
        yield ""
        yield "    def __call__(self, x):"
        yield f"        # {printable('.'.join(module.path)) or 'all'}: {', '.join(map(printable, module.fields))}"
        yield "        raise NotImplementedError"

    def field(self, segment: str, field: Field, here: Mapping[int, str], key: str) -> tuple[str, str]:
        """The type of a field, and the expression that makes it."""
        if isinstance(field, TensorNode):
            return "jax.Array", f"jnp.zeros({_tuple(here.values())}{_dtype(field)})"
        if isinstance(field, Stack):
            inner = {place - 1: name for place, name in here.items() if place}
            kind, value = self.module(segment, field.module, inner, "key")
            return f"{kind}  # stacked", f"eqx.filter_vmap(lambda key: {value})(jax.random.split({key}, {here[0]}))"
        if isinstance(field, Modules):
            values: list[str] = []
            place = 0
            for n, module in enumerate(field.modules):
                inner = {m: here[place + m] for m in range(len(module.sizes))}
                place += len(module.sizes)
                values.append(self.module(segment, module, inner, f"jax.random.fold_in({key}, {n})")[1])
            return "list", f"[{', '.join(values)}]"
        return self.module(segment, field, here, key)

    def module(self, segment: str, module: Module, here: Mapping[int, str], key: str) -> tuple[str, str]:
        """A layer of `eqx.nn`, where that is what it is, or a class of the file."""
        layer = None if self.turned and _is_matrix(module) else _layer(segment, module, list(here.values()), key)
        if layer is not None:
            return layer
        made = self.call(module, here, key)
        return self.names[module.form], made


def _layer(segment: str, module: Module, names: Sequence[str], key: str) -> tuple[str, str] | None:
    """The layer of `eqx.nn` that has just these arrays; `None` where none does, or several may."""
    shapes = {name: field.shape for name, field in module.fields.items() if isinstance(field, TensorNode)}
    if len(shapes) < len(module.fields) or "weight" not in shapes or not shapes.keys() <= {"weight", "bias"}:
        return None
    place, extents = 0, dict[str, list[str]]()
    for name, shape in shapes.items():
        extents[name] = list(names[place : place + len(shape)])
        place += len(shape)
    weight, size = shapes["weight"], extents["weight"]
    bias = "" if "bias" in shapes else ", use_bias=False"
    if len(weight) == 1 and _is_norm(segment):
        return (
            ("eqx.nn.LayerNorm", f"eqx.nn.LayerNorm({size[0]})")
            if not bias
            else (
                "eqx.nn.RMSNorm",
                f"eqx.nn.RMSNorm({size[0]}{bias})",
            )
        )
    if "bias" in shapes and (not weight or shapes["bias"] != weight[:1]):
        return None
    if len(weight) == 2 and role_of(segment) in ("emb", "pos", "type") and bias:
        return "eqx.nn.Embedding", f"eqx.nn.Embedding({size[0]}, {size[1]}, key={key})"
    if len(weight) == 2:
        return "eqx.nn.Linear", f"eqx.nn.Linear({size[1]}, {size[0]}{bias}, key={key})"
    if len(weight) in (3, 4, 5) and prod(weight):
        kind = f"eqx.nn.Conv{len(weight) - 2}d"
        return kind, f"{kind}({size[1]}, {size[0]}, {_tuple(size[2:])}{bias}, key={key})"
    return None


def _is_norm(segment: str) -> bool:
    return "norm" in role_of(segment) or "norm" in snake(segment) or snake(segment).startswith("ln")


def _is_matrix(module: Module) -> bool:
    weight = module.fields.get("weight")
    return isinstance(weight, TensorNode) and len(weight.shape) == 2 and "bias" in module.fields


def _is_turned(module: Module) -> bool:
    """Whether a bias says that the weight's second axis is the output, as in transformers' `Conv1D`."""
    weight, bias = module.fields.get("weight"), module.fields.get("bias")
    if not (isinstance(weight, TensorNode) and isinstance(bias, TensorNode) and len(weight.shape) == 2):
        return False
    return bias.shape == weight.shape[1:] and weight.shape[0] != weight.shape[1]


def _inside(field: Field) -> Sequence[Module]:
    if isinstance(field, TensorNode):
        return ()
    return [field] if isinstance(field, Module) else [field.module] if isinstance(field, Stack) else field.modules


def _modules(module: Module) -> Iterator[Module]:
    yield module
    for field in module.fields.values():
        for inner in _inside(field):
            yield from _modules(inner)


def _class_name(module: Module, taken: set[str]) -> str:
    words = [segment for segment in module.path if segment != "{}" and not segment.isdigit()]
    last = words[-1] if words else "Model"
    numbered = bool(module.path) and (module.path[-1] == "{}" or module.path[-1].isdigit())
    name = _ONE.get(last, "") if numbered else ""
    name = name or "".join(word.capitalize() for word in _WORD.findall(snake(last))) or "Part"
    name = f"N{name}" if name[0].isdigit() else name
    found, count = name, 2
    while found in taken or found in ("None", "True", "False"):
        found, count = f"{name}{count}", count + 1
    taken.add(found)
    return found


def _tuple(names: Iterable[str]) -> str:
    items = list(names)
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _dtype(field: TensorNode) -> str:
    return f', "{field.dtype.name}"' if field.dtype.kind in "biu" else ""


def _rules(field: Field, key: tuple[str, ...], leaf: tuple[str, ...]) -> Iterator[str]:
    """A flat rule for each array, also for those that go by their own names."""
    if isinstance(field, TensorNode):
        yield f"{'.'.join(key) or chr(39) * 2} -> {'.'.join(leaf)}"
    elif isinstance(field, Stack):
        letter = next(c for c in "lijknm" if f"{{{c}}}" not in key)
        yield from _rules(field.module, (*key, f"{{{letter}}}"), leaf)
    elif isinstance(field, Modules):
        for n, module in enumerate(field.modules):
            yield from _rules(module, (*key, str(n)), (*leaf, str(n)))
    else:
        for segment, inner in field.fields.items():
            yield from _rules(inner, (*key, escaped(segment)) if segment else key, (*leaf, field_name(segment)))
