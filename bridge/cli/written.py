"""What `convert` and `revert` share: where they write, and what they say of it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from bridge._text import fold, human_nbytes, plural, printable
from bridge.cli.options import spoken
from bridge.cli.terminal import out, shown

if TYPE_CHECKING:
    from bridge import SaveReport

_BESIDE = "kept beside the leaves, which do not hold it as it was:"
_LOST = "not kept:"


def add_target(parser: argparse.ArgumentParser) -> None:
    """TARGET and whether it may be replaced."""
    parser.add_argument("target", metavar="TARGET", help="a folder, made if need be")
    parser.add_argument("--overwrite", action="store_true", help="replace a checkpoint that stands there")


def tell(report: SaveReport, target: str, *, as_json: bool) -> None:
    """Which files were written, and what is not in their tensors as it was."""
    if as_json:
        left_out = [{"name": name, "reason": reason} for name, reason in report.left_out]
        files = list(report.files)
        print(json.dumps({"target": target, "files": files, "nbytes": report.nbytes, "left_out": left_out}))
        return
    console = out()
    counts = f"{plural(len(report.files), 'file')}, {human_nbytes(report.nbytes)}"
    console.print(f"{shown(target)}: {counts}", style="bold", soft_wrap=True)
    for name in report.files:
        console.print(f"  {shown(name)}", soft_wrap=True)
    reasons: dict[str, dict[str, list[str]]] = {_BESIDE: {}, _LOST: {}}
    for name, reason in report.left_out:
        heading = _LOST if reason.startswith(_LOST) else _BESIDE
        reasons[heading].setdefault(reason.removeprefix(_LOST), []).append(name)
    for heading, by_reason in reasons.items():
        if by_reason:
            console.print(heading)
        for reason, names in by_reason.items():
            for label, _ in fold(names):
                console.print(f"  {printable(label)}: {printable(spoken(reason.strip()))}", soft_wrap=True)
