"""`--adapter`: what is merged into the checkpoint on the way."""

from __future__ import annotations

import argparse
import os


def add_adapters(parser: argparse.ArgumentParser) -> None:
    """`--adapter`."""
    parser.add_argument(
        "--adapter",
        metavar="PATH[=WEIGHT]",
        action="append",
        default=[],
        type=adapter,
        help="a LoRA adapter to merge, a folder, a file or a repo on the Hub; its changes times a number: "
        "org/my-lora=0.5 (may be given again)",
    )


def adapter(text: str) -> tuple[str, float]:
    """What `--adapter` means: a source and its weight. A path may have an equals sign itself."""
    source, equals, number = text.rpartition("=")
    if not equals or os.path.exists(text):
        return text, 1.0
    try:
        return source, float(number)
    except ValueError:
        return text, 1.0
