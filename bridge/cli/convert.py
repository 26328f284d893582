"""`eqx-bridge convert`: a checkpoint in the form of a model's own leaves, which loads without rules."""

from __future__ import annotations

import argparse

import bridge
from bridge.cli.arguments import Commands, add_json, add_source, open_options
from bridge.cli.like import like, values
from bridge.cli.mapping import add_mapping, mapping_options
from bridge.cli.terminal import on_terminal
from bridge.cli.written import add_target, tell


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
    add_mapping(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Convert, and say what was written."""
    options = mapping_options(arguments)
    template, made = like(arguments.like), values(arguments.like)
    report = bridge.convert(
        arguments.source,
        arguments.target,
        template,
        **options,
        allow_missing=dict.fromkeys(arguments.allow_missing, made),
        overwrite=arguments.overwrite,
        progress=on_terminal(),
        **open_options(arguments),
    )
    tell(report, arguments.target, as_json=arguments.json)
    return 0
