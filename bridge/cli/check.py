"""`eqx-bridge check`: a port held against a recorded run of the PyTorch model."""

from __future__ import annotations

import argparse

import bridge
from bridge.cli.arguments import Commands, add_json, add_source, open_options
from bridge.cli.like import function, like, values
from bridge.cli.mapping import add_mapping, mapping_options
from bridge.cli.options import spoken
from bridge.cli.terminal import ascii_json, out


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "check",
        help="whether a port computes what the PyTorch model did",
        description="Loads SOURCE into the model and compares it, layer by layer, with a run that record.py (see "
        "eqx-bridge recorder) wrote. Exit status 0 only if every layer agrees.",
    )
    parser.add_argument("recording", metavar="RECORDING", help="the file that record(model, inputs, file) wrote")
    add_source(parser)
    add_mapping(parser)
    parser.add_argument(
        "--skip",
        metavar="PATTERN",
        action="append",
        default=[],
        help="layers that need not be compared, as in head.** (may be given again)",
    )
    parser.add_argument(
        "--trace",
        metavar="MODULE:RUN",
        help="how the model is run where that is not jax.vmap(model)(input): a function of the model and of what "
        "PyTorch's took, as pkg.module:run or path/to/file.py:run",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load, compare, and say which layer departs first."""
    options, where = mapping_options(arguments), open_options(arguments)
    model = like(arguments.like)
    what = "a function of the model and of what PyTorch's took"
    trace = function(arguments.trace, "--trace", what) if arguments.trace else None
    with bridge.open(arguments.source, **where) as ckpt:
        missing = dict.fromkeys(arguments.allow_missing, values(arguments.like))
        plan = bridge.plan(ckpt, model, **options, allow_missing=missing, **where)
        plan.check()
        loaded = bridge.load(ckpt, model, plan, adapters=options["adapters"], **where)
        check = bridge.check(arguments.recording, loaded, plan, skip=arguments.skip, trace=trace)
    if arguments.json:
        print(ascii_json(check.to_json()))
    else:
        console = out()
        head, *lines = spoken(str(check)).split("\n")
        console.print(head, style="bold", soft_wrap=True)
        console.print("\n".join(lines), soft_wrap=True)
    return 0 if check.ok else 1
