"""`eqx-bridge leaves`: what a model is made of, by the names that rules use."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge._dtypes import dtype_label
from bridge._text import human_nbytes, plural
from bridge.cli.arguments import Commands, add_json
from bridge.cli.folded import folded
from bridge.cli.like import like
from bridge.cli.mapping import add_like
from bridge.cli.terminal import out, shown, table
from bridge.mapping.template import branch_names

if TYPE_CHECKING:
    from bridge import Spec
    from bridge.mapping.template import Template


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "leaves",
        help="the leaves of a model",
        description="Names, dtypes and shapes of a model's leaves, the layer that each belongs to, and what PyTorch "
        "calls and shapes it where that is otherwise. No checkpoint is looked at.",
    )
    add_like(parser)
    add_json(parser)
    parser.set_defaults(run=run)


class _ListedLeaf(NamedTuple):
    """A leaf's spec, the type of the layer that has it, and the rules of that layer's layout which fill it."""

    spec: Spec
    layer: str
    layout: tuple[str, ...]


def run(arguments: argparse.Namespace) -> int:
    """List the leaves."""
    model = like(arguments.like)
    from bridge.model.template import modules_of, take_apart  # imports JAX, and a wrong spelling is told before

    template = take_apart(model).template
    leaves = _leaves(template, modules_of(model))
    if arguments.json:
        print(json.dumps(_document(leaves)))
    else:
        _show(template.kind, leaves)
    return 0


def _leaves(template: Template, modules: list[tuple[str, Any]]) -> dict[str, _ListedLeaf]:
    """All leaves by name, in the order of the model."""
    kinds = {name: type(module).__name__ for name, module in modules}  # of several at one name the innermost
    layouts: dict[str, list[str]] = {}
    for placed in template.placed:
        for rule in placed.rules if placed.tied_at is None and not placed.whole else ():
            for name in branch_names(rule, -1) if rule.leaf is not None else ():
                texts = layouts.setdefault(placed.leaf(name), [])
                texts += [str(rule)] if str(rule) not in texts else []
    return {
        name: _ListedLeaf(spec, _owner(name, kinds), tuple(layouts.get(name, ())))
        for name, spec in template.leaves.items()
    }


def _owner(name: str, kinds: Mapping[str, str]) -> str:
    """The type of the innermost module around a leaf."""
    while name:
        name = name.rpartition(".")[0]
        if name in kinds:
            return kinds[name]
    return ""


def _document(leaves: Mapping[str, _ListedLeaf]) -> dict[str, object]:
    return {
        "leaves": {
            name: {
                "dtype": dtype_label(leaf.spec.dtype),
                "shape": list(leaf.spec.shape),
                "layer": leaf.layer,
                "layout": list(leaf.layout),
            }
            for name, leaf in leaves.items()
        },
        "parameters": sum(prod(leaf.spec.shape) for leaf in leaves.values()),
        "nbytes": sum(leaf.spec.nbytes for leaf in leaves.values()),
    }


def _show(kind: str, leaves: Mapping[str, _ListedLeaf]) -> None:
    console = out()
    console.print(shown(kind), style="bold", soft_wrap=True)
    count = sum(prod(leaf.spec.shape) for leaf in leaves.values())
    nbytes = sum(leaf.spec.nbytes for leaf in leaves.values())
    counts = (plural(len(leaves), "leaf"), plural(count, "parameter"), human_nbytes(nbytes))
    console.print(", ".join(counts), soft_wrap=True)
    console.print()
    table(console, ("leaf", "dtype", "shape", "layer", " count", "layout"), _rows(leaves))


def _rows(leaves: Mapping[str, _ListedLeaf]) -> Iterator[tuple[str, ...]]:
    for label, names in folded(leaves.items()):
        leaf = leaves[names[0]]
        count = f"{len(names):,}" if len(names) > 1 else ""
        dtype, shape = dtype_label(leaf.spec.dtype), str(list(leaf.spec.shape))
        yield shown(label), dtype, shape, shown(leaf.layer), count, "; ".join(map(shown, leaf.layout))
