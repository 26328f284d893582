"""`eqx-bridge convert`: a checkpoint in the form of a model's own leaves, which loads without rules."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import bridge
from bridge._dtypes import DTYPES
from bridge._text import quote
from bridge.cli.arguments import Commands, add_json, add_source, open_options
from bridge.cli.like import like
from bridge.cli.plan import add_mapping
from bridge.cli.terminal import UsageError, on_terminal
from bridge.cli.written import add_target, tell

if TYPE_CHECKING:
    import numpy as np


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "convert",
        help="a checkpoint in the form of a model's own leaves",
        description="Writes a folder of ordinary safetensors that loads into the model without rules, in milliseconds, "
        "and that eqx-bridge revert turns back.",
    )
    add_source(parser)
    add_target(parser)
    add_mapping(parser)  # a model that takes no memory has no values for leaves that are missing: none may be
    parser.add_argument(
        "--dtype", metavar="DTYPE", help="of floating leaves, as in bf16; or 'checkpoint'. Default: each leaf's own"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    wanted = None if arguments.dtype is None else dtype(arguments.dtype)
    report = bridge.convert(
        arguments.source,
        arguments.target,
        like(arguments.like),
        None if arguments.rules is None else bridge.load_rules(arguments.rules),
        dtype=wanted,
        allow_unexpected=arguments.allow_unexpected,
        quantized=arguments.quantized,
        adapters=arguments.adapter,
        overwrite=arguments.overwrite,
        progress=on_terminal(),
        **open_options(arguments),
    )
    tell(report, arguments.target, as_json=arguments.json)
    return 0


def dtype(spelling: str) -> np.dtype | str:
    """The dtype that a text means: safetensors' name or numpy's, in any case. **Raises:** `UsageError`."""
    if spelling == "checkpoint":
        return spelling
    known = {name.lower(): row.numpy for row in DTYPES.values() for name in (row.name, row.numpy.name)}
    if spelling.lower() not in known:
        raise UsageError(f"--dtype {quote(spelling)} is no dtype. Give bf16, f16 or f32, float32 …, or 'checkpoint'.")
    return known[spelling.lower()]
