"""What the commands on texts share."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bridge.cli.adapters import add_adapters
from bridge.cli.arguments import add_open_options, open_options
from bridge.cli.mapping import add_allowed
from bridge.cli.terminal import UsageError


def add_texts(parser: argparse.ArgumentParser, *, more: str = "") -> None:
    """SOURCE and TEXT …; `more` is what else TEXT may be."""
    parser.add_argument("source", metavar="SOURCE", help="a folder, or a repo on the Hub (org/name)")
    parser.add_argument("texts", metavar="TEXT", nargs="*", help=f"without any: the lines of stdin{more}")
    add_open_options(parser, "SOURCE")
    add_allowed(parser, missing=False)
    add_adapters(parser)


def model_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `bridge.models.from_pretrained` that were given."""
    more = {"allow_unexpected": arguments.allow_unexpected, "quantized": arguments.quantized}
    return {**open_options(arguments), **more, "adapters": arguments.adapter}


def texts_of(arguments: argparse.Namespace) -> list[str]:
    """Those of the command line, else the lines of stdin. **Raises:** `UsageError` where there are none."""
    texts = list(arguments.texts)
    if not texts and sys.stdin is not None and not sys.stdin.isatty():
        texts = [line.rstrip("\n") for line in sys.stdin]
    if not texts:
        raise UsageError("TEXT is missing. Give one or more texts, or a file of lines: < texts.txt.")
    return texts
