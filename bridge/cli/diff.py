"""`eqx-bridge diff`: two checkpoints, element by element."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import bridge
from bridge._errors import NoRootError
from bridge._text import printable
from bridge.cli.arguments import Commands, add_json, add_open_options, open_options
from bridge.cli.options import spoken
from bridge.cli.terminal import ascii_json, out

if TYPE_CHECKING:
    from bridge.api.load import OpenOptions


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "diff",
        help="what differs between two checkpoints",
        description="Compares keys, dtypes, shapes and every bit; metadata and the split into files may differ. "
        "Exit status 1 if anything differs.",
    )
    for name in ("a", "b"):
        parser.add_argument(name, metavar=name.upper(), help="a file, a folder, a URL or a Hub repo")
    add_open_options(parser, "A or B")
    parser.add_argument(
        "--values", action="store_true", help="compare what quantised weights mean, and not how they are stored"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, and say what differs."""
    options = open_options(arguments)
    with _opened(arguments.a, options) as a, _opened(arguments.b, options) as b:
        diff = bridge.diff(a, b, values=arguments.values)
    if arguments.json:
        print(ascii_json(diff.to_json()))
    else:
        console = out()
        for line in str(diff).split("\n"):
            console.print(printable(spoken(line)), soft_wrap=True)
    return 0 if diff.equal else 1


def _opened(source: str, options: OpenOptions) -> bridge.Checkpoint:
    """One of the two. The root that is named is that of a file of torch.save; the other one may be safetensors."""
    try:
        return bridge.open(source, **options)
    except NoRootError:
        return bridge.open(source, **{**options, "root": None})
