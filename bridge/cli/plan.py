"""`eqx-bridge plan`: the dry run. What would go where, and what would not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import bridge
from bridge.cli.adapters import add_adapters
from bridge.cli.arguments import Commands, add_json, add_quantized, add_source, open_options
from bridge.cli.like import like
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
    parser.add_argument(
        "--allow-missing",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leaves that may be absent, as in head.** (may be given again)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def add_mapping(parser: argparse.ArgumentParser) -> None:
    """Model and rules."""
    parser.add_argument(
        "--like",
        metavar="PKG.MODULE:MAKE",
        required=True,
        help="a function without arguments that returns the model; it is called without using memory",
    )
    parser.add_argument("--rules", metavar="FILE", help="TOML: rules = ['key -> leaf', …]")
    parser.add_argument(
        "--allow-unexpected",
        metavar="PATTERN",
        action="append",
        default=[],
        help="keys that may be left over, as in **.inv_freq (may be given again)",
    )
    add_quantized(parser)
    add_adapters(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    rules = None if arguments.rules is None else bridge.load_rules(arguments.rules)
    plan = bridge.plan(
        arguments.source,
        like(arguments.like),
        rules,
        allow_missing=arguments.allow_missing,
        allow_unexpected=arguments.allow_unexpected,
        quantized=arguments.quantized,
        adapters=arguments.adapter,
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
    head, *lines = str(plan).split("\n")
    console.print(head, style="bold", soft_wrap=True)
    console.print("\n".join(lines), soft_wrap=True)
