"""`eqx-bridge inspect`: what is in a checkpoint. Reads headers only."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

import bridge
from bridge._dtypes import dtype_label
from bridge._text import fold, human_nbytes, plural, printable, template
from bridge.cli.arguments import Commands, add_json, add_source, open_options
from bridge.cli.terminal import out, shown, table
from bridge.converted import is_converted

if TYPE_CHECKING:
    from bridge.format.table import Table
    from bridge.source.quantized import QuantizedTensor


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "inspect",
        help="what is in a checkpoint",
        description="Files, metadata and tensors of a checkpoint. Reads headers only, no weights.",
    )
    add_source(parser)
    add_json(parser)
    parser.add_argument("--verify", action="store_true", help="read the files and check their sha256")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show what is there."""
    with bridge.open(arguments.source, **open_options(arguments)) as ckpt:
        if arguments.json:
            print(json.dumps(_document(ckpt)))
        else:
            _show(ckpt)
    return 0


def _meant(ckpt: bridge.Checkpoint) -> tuple[Mapping[str, QuantizedTensor], Table, str]:
    """The quantised weights, the tensors that are meant, and why there are none where that cannot be told."""
    if is_converted(ckpt.metadata):
        return {}, ckpt.specs, ""
    try:
        found = ckpt.quantized
        return found, found.table() if found else ckpt.specs, ""
    except bridge.CheckpointError as error:  # what is stored can be shown all the same
        return {}, ckpt.specs, str(error)


def _document(ckpt: bridge.Checkpoint) -> dict[str, object]:
    tensors = {
        key: {
            "dtype": dtype_label(spec.dtype),
            "shape": list(spec.shape),
            "nbytes": spec.nbytes,
            "file": spec.file,
        }
        for key, spec in ckpt.specs.items()
        if key not in ckpt.refused
    }
    found, specs, problem = _meant(ckpt)
    quantized = {
        key: {
            "format": tensor.format,
            "bits": tensor.bits,
            "dtype": dtype_label(tensor.dtype),
            "shape": list(tensor.shape),
            "parts": list(tensor.parts),
        }
        for key, tensor in found.items()
    }
    document: dict[str, object] = {
        "files": [{"name": name, "nbytes": ckpt.file_nbytes(name)} for name in ckpt.files],
        "tensors": tensors,
        "quantized": quantized,
        "parameters": _count(specs),
        "nbytes": sum(spec.nbytes for spec in ckpt.specs.values()),
        "metadata": ckpt.metadata,
    }
    document |= {"refused": dict(ckpt.refused)} if ckpt.refused else {}
    document |= {"skipped": ckpt.skipped} if ckpt.skipped else {}
    return document | {"problem": problem} if problem else document


def _count(specs: Table) -> int:
    """How many values all tensors have that can be read."""
    return sum(prod(spec.shape) for key, spec in specs.items() if key not in specs.refused)


def _parameters(count: int) -> str:
    """As people say it: billions with one digit; `--json` has all of them."""
    return f"{count / 1e9:.1f} B parameters" if count >= 1e9 else plural(count, "parameter")


def _show(ckpt: bridge.Checkpoint) -> None:
    console = out()
    found, specs, problem = _meant(ckpt)
    parameters = _count(specs)
    nbytes = sum(spec.nbytes for spec in ckpt.specs.values())
    console.print(shown(ckpt.source), style="bold", soft_wrap=True)
    formats = Counter(tensor.format for tensor in found.values())
    counts = [plural(len(ckpt), "tensor"), _parameters(parameters), *(shown(name) for name in formats)]
    counts += [human_nbytes(nbytes), f"in {plural(len(ckpt.files), 'file')}"]
    console.print(", ".join(counts), soft_wrap=True)
    if problem:
        console.print(printable(problem), soft_wrap=True)
    if ckpt.commit:
        console.print(f"commit {shown(ckpt.commit)}", soft_wrap=True)
    console.print()
    files = ((shown(name), human_nbytes(ckpt.file_nbytes(name))) for name in ckpt.files)
    table(console, ("file", " bytes"), files)
    if ckpt.metadata:
        console.print()
        table(console, ("metadata", ""), ((shown(name), shown(value)) for name, value in ckpt.metadata.items()))
    console.print()
    if found:
        headings = ("quantised weight", "format", "dtype", "shape", " count", " bytes")
        table(console, headings, _quantized_rows(found, specs))
        console.print()
    table(console, ("tensor", "dtype", "shape", " count", " bytes"), _rows(ckpt))
    for heading, found in (("cannot be read", ckpt.refused), ("no tensor", ckpt.skipped)):
        if found:
            console.print()
            table(console, (heading, ""), ((shown(name), printable(text)) for name, text in found.items()))


def _rows(ckpt: bridge.Checkpoint) -> Iterator[tuple[str, ...]]:
    for label, specs in _folded((key, spec) for key, spec in ckpt.specs.items() if key not in ckpt.refused):
        first, nbytes = specs[0], sum(spec.nbytes for spec in specs)
        count = f"{len(specs):,}" if len(specs) > 1 else ""
        yield shown(label), dtype_label(first.dtype), str(list(first.shape)), count, human_nbytes(nbytes)


def _quantized_rows(
    found: Mapping[str, QuantizedTensor], specs: Mapping[str, bridge.TensorSpec]
) -> Iterator[tuple[str, ...]]:
    groups: dict[str, list[str]] = {}
    for key, tensor in found.items():
        groups.setdefault(tensor.format, []).append(key)
    for name, keys in groups.items():
        for label, members in _folded((key, specs[key]) for key in keys):
            first, nbytes = members[0], sum(spec.nbytes for spec in members)
            count = f"{len(members):,}" if len(members) > 1 else ""
            yield (
                shown(label),
                shown(name),
                dtype_label(first.dtype),
                str(list(first.shape)),
                count,
                human_nbytes(nbytes),
            )


def _folded(items: Iterable[tuple[str, bridge.TensorSpec]]) -> Iterator[tuple[str, list[bridge.TensorSpec]]]:
    """Tensors whose names differ only in indices, under one label where dtype and shape are the same."""
    groups: dict[tuple[object, ...], dict[str, bridge.TensorSpec]] = {}
    for key, spec in items:
        groups.setdefault((template(key)[0], spec.dtype, spec.shape), {})[key] = spec
    for members in groups.values():
        for label, keys in fold(members):
            yield label, [members[key] for key in keys]
