"""`eqx-bridge recorder`: the program that records a PyTorch model's run, for an environment that has PyTorch."""

from __future__ import annotations

import argparse
from importlib.resources import files

from bridge.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "recorder",
        help="print record.py, which records a PyTorch model's run",
        description="Prints one file that needs PyTorch alone: eqx-bridge recorder > record.py. Its record(model, "
        "inputs, 'run.safetensors') writes what eqx-bridge check compares a port with.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the file."""
    print(files("bridge.checking").joinpath("record.py.txt").read_text(encoding="utf-8"), end="")
    return 0
