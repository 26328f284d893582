"""The arguments that several commands share."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from bridge._text import quote

if TYPE_CHECKING:
    from bridge import OpenOptions

# "SubParsersAction" is private to argparse; what `add_subparsers` returns is only ever handed on.
Commands = Any


def add_source(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """SOURCE, which may be left out where there is a default; and how to ask the Hub for it."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs=None if default is None else "?",
        default=default,
        help="a .safetensors or .pth file, a folder, a URL, or a repo on the Hub (org/name)"
        + ("" if default is None else f"; without it {default}"),
    )
    add_open_options(parser, "SOURCE")


def add_open_options(parser: argparse.ArgumentParser, what: str) -> None:
    """How `what` is opened: the keywords of `bridge.open`."""
    hub = parser.add_argument_group(f"where {what} is on the Hub")
    hub.add_argument("--revision", metavar="REV", help="a branch, a tag or a commit")
    hub.add_argument("--token", metavar="TOKEN", help="default: the one that you logged in with")
    hub.add_argument("--cache-dir", metavar="DIR", help="default: the Hub's cache")
    hub.add_argument("--local-files-only", action="store_true", help="what is in the cache, without the network")
    parser.add_argument("--subfolder", metavar="DIR", help=f"a folder inside {what}")
    parser.add_argument("--variant", metavar="NAME", help="as in model.NAME.safetensors: fp16")
    saved = parser.add_argument_group(f"where {what} is what torch.save writes (.pth, .pt, .bin, .ckpt)")
    saved.add_argument("--root", metavar="PATH", help="the dict that is meant, as in model_ema; '' for all of them")
    saved.add_argument(
        "--modules", action="store_true", help="read whole modules by their attributes, without their code"
    )


def add_quantized(parser: argparse.ArgumentParser) -> None:
    """`--quantized`."""
    parser.add_argument(
        "--quantized",
        metavar="HOW",
        type=quantized,
        help="weights stored as codes: 'dequantize' (the default), 'keep', or a JSON object that stands for the "
        "quantization_config of a config.json",
    )


def quantized(text: str) -> str | dict[str, Any]:
    """What `--quantized` means. **Raises:** `argparse.ArgumentTypeError`."""
    if text in ("dequantize", "keep"):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{quote(text)} is not 'dequantize', 'keep' or a JSON object")
    return found


def open_options(arguments: argparse.Namespace) -> OpenOptions:
    """The keywords of `bridge.open` that were given."""
    return {
        "revision": arguments.revision,
        "subfolder": arguments.subfolder,
        "variant": arguments.variant,
        "token": arguments.token,
        "cache_dir": arguments.cache_dir,
        "local_files_only": arguments.local_files_only,
        "verify": getattr(arguments, "verify", False),
        "root": arguments.root,
        "modules": arguments.modules,
    }


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
