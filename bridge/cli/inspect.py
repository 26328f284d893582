"""`eqx-bridge inspect`: what is in a checkpoint. Reads headers only."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import bridge
from bridge._dtypes import dtype_label
from bridge._text import human_nbytes, plural, printable, quote
from bridge.cli.arguments import Commands, add_json, add_source, open_options
from bridge.cli.folded import folded
from bridge.cli.options import spoken
from bridge.cli.terminal import out, shown, table
from bridge.converted import is_converted
from bridge.mapping.pattern import NamePatterns
from bridge.source.suggest import closest

if TYPE_CHECKING:
    from bridge.source.quantized import QuantizedTensor


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "inspect",
        help="what is in a checkpoint",
        description="Files, metadata and tensors of a checkpoint. Reads headers only, no weights.",
    )
    add_source(parser)
    parser.add_argument(
        "--keys",
        metavar="PATTERN",
        action="append",
        default=[],
        help="only these, as in **.q_proj.* (may be given again)",
    )
    add_json(parser)
    parser.add_argument("--verify", action="store_true", help="read the files and check their sha256")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show what is there."""
    with bridge.open(arguments.source, **open_options(arguments)) as ckpt:
        found = contents(ckpt, arguments.keys)
        if arguments.json:
            print(json.dumps(_document(ckpt, found)))
        else:
            _show(ckpt, found, some=bool(arguments.keys))
    return 0


class Contents(NamedTuple):
    """What is shown of a checkpoint: what is stored and can be read, the weights that are meant, and the rest."""

    specs: Mapping[str, bridge.TensorSpec]
    quantized: Mapping[str, QuantizedTensor]
    meant: Mapping[str, bridge.TensorSpec]
    refused: Mapping[str, str]
    skipped: Mapping[str, str]
    problem: str  # why nobody can tell which weights are meant

    @property
    def parameters(self) -> int:
        """How many values the tensors have that are meant."""
        return sum(prod(spec.shape) for spec in self.meant.values())

    @property
    def nbytes(self) -> int:
        """How many bytes are stored."""
        return sum(spec.nbytes for spec in self.specs.values())


def contents(ckpt: bridge.Checkpoint, texts: Sequence[str]) -> Contents:
    """What a checkpoint holds under names that `texts` match; all of it where there are none.

    **Raises:** `RuleError` for a text that is no pattern; `CheckpointError` where none matches.
    """
    quantized, meant, problem = {}, ckpt.specs, ""
    if not is_converted(ckpt.metadata):
        try:
            quantized = ckpt.quantized
            meant = quantized.table() if quantized else ckpt.specs
        except bridge.CheckpointError as error:  # what is stored can be shown all the same
            quantized, problem = {}, str(error)
    patterns = NamePatterns.of(texts)
    refused = {key: why for key, why in ckpt.refused.items() if not texts or key in patterns}
    found = Contents(
        {key: spec for key, spec in ckpt.specs.items() if key not in ckpt.refused and (not texts or key in patterns)},
        {key: tensor for key, tensor in quantized.items() if not texts or key in patterns},
        {key: spec for key, spec in meant.items() if key not in meant.refused and (not texts or key in patterns)},
        refused,
        {} if texts else ckpt.skipped,
        problem,
    )
    if texts and not found.specs and not found.meant and not refused:
        near = closest(texts[0], ckpt.specs)
        advice = f"Did you mean {' or '.join(map(quote, near))}?" if near else "List all of them: leave --keys out"
        raise bridge.CheckpointError(quote(ckpt.source), f"has no key {' or '.join(map(quote, texts))}", advice)
    return found


def _document(ckpt: bridge.Checkpoint, contents: Contents) -> dict[str, object]:
    document: dict[str, object] = {
        "files": [{"name": name, "nbytes": ckpt.file_nbytes(name)} for name in ckpt.files],
        "tensors": {
            key: {"dtype": dtype_label(spec.dtype), "shape": list(spec.shape), "nbytes": spec.nbytes, "file": spec.file}
            for key, spec in contents.specs.items()
        },
        "quantized": {
            key: {
                "format": tensor.format,
                "bits": tensor.bits,
                "dtype": dtype_label(tensor.dtype),
                "shape": list(tensor.shape),
                "parts": list(tensor.parts),
            }
            for key, tensor in contents.quantized.items()
        },
        "parameters": contents.parameters,
        "nbytes": contents.nbytes,
        "metadata": ckpt.metadata,
    }
    document |= {"refused": dict(contents.refused)} if contents.refused else {}
    document |= {"skipped": dict(contents.skipped)} if contents.skipped else {}
    return document | {"problem": contents.problem} if contents.problem else document


def _parameters(count: int) -> str:
    """As people say it: billions with one digit; `--json` has all of them."""
    return f"{count / 1e9:.1f} B parameters" if count >= 1e9 else plural(count, "parameter")


def _show(ckpt: bridge.Checkpoint, contents: Contents, *, some: bool) -> None:
    console = out()
    console.print(shown(ckpt.source), style="bold", soft_wrap=True)
    formats = Counter(tensor.format for tensor in contents.quantized.values())
    tensors = f"{len(contents.specs):,} of {plural(len(ckpt), 'tensor')}" if some else plural(len(ckpt), "tensor")
    counts = [tensors, _parameters(contents.parameters), *(shown(name) for name in formats)]
    counts += [human_nbytes(contents.nbytes), f"in {plural(len(ckpt.files), 'file')}"]
    console.print(", ".join(counts), soft_wrap=True)
    if contents.problem:
        console.print(printable(spoken(contents.problem)), soft_wrap=True)
    if ckpt.commit:
        console.print(f"commit {shown(ckpt.commit)}", soft_wrap=True)
    console.print()
    files = ((shown(name), human_nbytes(ckpt.file_nbytes(name))) for name in ckpt.files)
    table(console, ("file", " bytes"), files)
    if ckpt.metadata:
        console.print()
        table(console, ("metadata", ""), ((shown(name), shown(value)) for name, value in ckpt.metadata.items()))
    console.print()
    if contents.quantized:
        headings = ("quantised weight", "format", "dtype", "shape", " count", " bytes")
        table(console, headings, _quantized_rows(contents))
        console.print()
    table(console, ("tensor", "dtype", "shape", " count", " bytes"), _rows(contents.specs))
    for heading, found in (("cannot be read", contents.refused), ("no tensor", contents.skipped)):
        if found:
            console.print()
            rows = ((shown(name), printable(spoken(text))) for name, text in found.items())
            table(console, (heading, ""), rows)


def _rows(specs: Mapping[str, bridge.TensorSpec]) -> Iterator[tuple[str, ...]]:
    for label, keys in folded((key, (spec.dtype, spec.shape)) for key, spec in specs.items()):
        yield shown(label), *_columns([specs[key] for key in keys])


def _quantized_rows(contents: Contents) -> Iterator[tuple[str, ...]]:
    found = contents.quantized
    rows = folded((key, (tensor.format, tensor.dtype, tensor.shape)) for key, tensor in found.items())
    for label, keys in rows:
        yield shown(label), shown(found[keys[0]].format), *_columns([contents.meant[key] for key in keys])


def _columns(specs: Sequence[bridge.TensorSpec]) -> tuple[str, ...]:
    """Dtype, shape, count and bytes of tensors that are alike."""
    first, nbytes = specs[0], sum(spec.nbytes for spec in specs)
    count = f"{len(specs):,}" if len(specs) > 1 else ""
    return dtype_label(first.dtype), str(list(first.shape)), count, human_nbytes(nbytes)
