"""`eqx-bridge revert`: a converted checkpoint as it was before, bit for bit."""

from __future__ import annotations

import argparse

import bridge
from bridge.cli.arguments import Commands, add_json
from bridge.cli.written import add_target, tell


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "revert",
        help="a converted checkpoint as it was",
        description="Writes what was converted with its own keys, dtypes, files and metadata, bit for bit.",
    )
    parser.add_argument("converted", metavar="CONVERTED", help="a folder that eqx-bridge convert wrote")
    add_target(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Revert, and say what was written."""
    report = bridge.revert(arguments.converted, arguments.target, overwrite=arguments.overwrite)
    tell(report, arguments.target, as_json=arguments.json)
    return 0
