"""The options of the commands that bring a source and a model together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import bridge
from bridge._dtypes import DTYPES
from bridge._text import quote
from bridge.cli.adapters import add_adapters
from bridge.cli.arguments import add_quantized
from bridge.cli.terminal import UsageError

if TYPE_CHECKING:
    import numpy as np

    from bridge import Rule


class MappingOptions(TypedDict):
    """Keywords that `bridge.plan` and `bridge.convert` share. `allow_missing` is not among them: see `leaf_values`."""

    rules: Sequence[Rule] | None
    dtype: Any
    allow_unexpected: list[str]
    quantized: str | dict[str, Any] | None
    adapters: list[tuple[str, float]]


def add_mapping(parser: argparse.ArgumentParser) -> None:
    """The model, the rules, and what may be otherwise than these say."""
    add_like(parser)
    parser.add_argument("--rules", metavar="FILE", help="TOML: rules = ['key -> leaf', …]")
    add_allowed(parser)
    add_adapters(parser)
    parser.add_argument(
        "--dtype",
        metavar="[PATTERN=]DTYPE",
        action="append",
        default=[],
        help="of floating leaves, as in bf16; 'checkpoint' for what is stored; with a pattern, 'norm.**=f32', of these "
        "leaves (may be given again). Default: each leaf's own",
    )


def add_like(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """`--like`."""
    parser.add_argument(
        "--like",
        metavar="MODULE:MAKE",
        required=required,
        help="a function without arguments that returns the model, as pkg.module:make or path/to/file.py:make; it is "
        "called without using memory",
    )


def add_allowed(parser: argparse.ArgumentParser, *, missing: bool = True) -> None:
    """`--allow-missing`, `--allow-unexpected` and `--quantized`."""
    shown = {"missing": "leaves that may be absent, as in head.**"} if missing else {}
    shown |= {"unexpected": "keys that may be left over, as in **.inv_freq"}
    for name, what in shown.items():
        parser.add_argument(
            f"--allow-{name}", metavar="PATTERN", action="append", default=[], help=f"{what} (may be given again)"
        )
    add_quantized(parser)


def mapping_options(arguments: argparse.Namespace) -> MappingOptions:
    """The keywords that were given. **Raises:** `RuleError` for rules, `UsageError` for a dtype."""
    return {
        "rules": None if arguments.rules is None else bridge.load_rules(arguments.rules),
        "dtype": dtypes(arguments.dtype),
        "allow_unexpected": arguments.allow_unexpected,
        "quantized": arguments.quantized,
        "adapters": arguments.adapter,
    }


def dtypes(spellings: list[str]) -> Any:
    """What `--dtype` means, given once or again. **Raises:** `UsageError`."""
    whole = [spelling for spelling in spellings if "=" not in spelling]
    if len(whole) > 1:
        raise UsageError(f"--dtype is given as {' and as '.join(map(quote, whole))}. Give one of them a pattern.")
    split = [spelling.rpartition("=") for spelling in spellings if "=" in spelling]
    by_pattern = {pattern: dtype(spelling) for pattern, _, spelling in split}
    if not by_pattern:
        return dtype(whole[0]) if whole else None
    return by_pattern | ({"**": dtype(whole[0])} if whole else {})


def dtype(spelling: str) -> np.dtype | str:
    """The dtype that a text means: safetensors' name or numpy's, in any case. **Raises:** `UsageError`."""
    if spelling == "checkpoint":
        return spelling
    known = {name.lower(): row.numpy for row in DTYPES.values() for name in (row.name, row.numpy.name)}
    if spelling.lower() not in known:
        raise UsageError(
            f"--dtype {quote(spelling)} is not a dtype. Give bf16, f16 or f32, float32 …, or 'checkpoint'."
        )
    return known[spelling.lower()]
