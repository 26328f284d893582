"""`eqx-bridge plan`: the dry run. What would go where, and what would not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import bridge
from bridge.cli.arguments import Commands, add_json, add_source, open_options
from bridge.cli.like import like
from bridge.cli.mapping import add_mapping, mapping_options
from bridge.cli.options import spoken
from bridge.cli.terminal import ascii_json, out

if TYPE_CHECKING:
    from bridge import Plan


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "plan",
        help="what would go where in a model",
        description="The dry run: proves from headers alone where each tensor goes. Exit status 1 if keys and leaves "
        "do not meet.",
    )
    add_source(parser)
    add_mapping(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    options = mapping_options(arguments)
    plan = bridge.plan(
        arguments.source,
        like(arguments.like),
        **options,
        allow_missing=arguments.allow_missing,
        **open_options(arguments),
    )
    if arguments.json:
        print(ascii_json(plan.to_json()))
    else:
        show(plan)
    return 0 if plan.ok else 1


def show(plan: Plan) -> None:
    """A plan for people; its own text is safe to print."""
    console = out()
    head, *lines = spoken(str(plan)).split("\n")
    console.print(head, style="bold", soft_wrap=True)
    console.print("\n".join(lines), soft_wrap=True)
