"""`eqx-bridge suggest`: rules for a model, proposed from headers, as TOML; or a model to start from, as Python."""

from __future__ import annotations

import argparse
import json

import bridge
from bridge.cli.adapters import add_adapters
from bridge.cli.arguments import Commands, add_json, add_source, open_options
from bridge.cli.like import like
from bridge.cli.mapping import add_allowed, add_like
from bridge.cli.terminal import UsageError, ascii_json


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "suggest",
        help="rules for a model, proposed from headers",
        description="Proposes which tensor is which array of a model, from names, structure, counts and shapes, and "
        "prints rules as TOML: what is certain as rules, guesses as comments that say what else fits and why.",
    )
    add_source(parser)
    add_like(parser, required=False)
    parser.add_argument("--rules", metavar="FILE", help="rules that are known already, as TOML: these come first")
    parser.add_argument(
        "--skeleton",
        action="store_true",
        help="where there is no model yet: Equinox classes for these tensors to start from, and their rules, as Python",
    )
    add_allowed(parser)
    add_adapters(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print rules, or a model."""
    if arguments.skeleton == (arguments.like is not None):
        raise UsageError("give --like pkg.module:make for rules, or --skeleton for a model to start from")
    if arguments.skeleton:
        return _skeleton(arguments)
    rules = None if arguments.rules is None else bridge.load_rules(arguments.rules)
    found = bridge.suggest(
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
        document = {
            "rules": list(map(str, found.rules)),
            "certain": list(map(str, found.certain)),
            "doubtful": found.doubtful,
            "unmatched": found.unmatched,
            "left": found.left,
        }
        print(ascii_json(json.dumps(document)))
    else:
        print(found)
    return 0


def _skeleton(arguments: argparse.Namespace) -> int:
    from bridge.api.skeleton import skeleton  # few ask for it

    print(skeleton(arguments.source, quantized=arguments.quantized, **open_options(arguments)))
    return 0
