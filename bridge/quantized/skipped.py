"""Modules that a config says were left alone, and that are quantised all the same: worth a warning, no more.

Keys decide whether a module is quantised. The lists name modules as the runtime has them, in one of four grammars.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping

from bridge._text import plural, quote
from bridge.quantized.config import QuantizationConfig, is_tame, texts
from bridge.quantized.format import QuantizedFormat
from bridge.quantized.logical import Logical


def warnings(tensors: Mapping[str, Logical], format_: QuantizedFormat, config: QuantizationConfig) -> tuple[str, ...]:
    """A sentence for each list that names modules with quantised keys."""
    told: list[str] = []
    for field in format_.skipped:
        entries = [e for e in texts(config.fields.get(field)) if e]
        if not entries:
            continue
        skips = _matcher(field, entries)
        found = [module for module in map(_module, tensors) if skips(module)]
        if found:
            told.append(
                f"{field} names {plural(len(found), 'module')} with quantised keys, such as {quote(found[0])}: "
                "they are read as quantised"
            )
    return tuple(told)


def _module(key: str) -> str:
    """`a.b.weight` is of `a.b`; a parameter of another name stands for itself."""
    return key.removesuffix(".weight")


def _matcher(field: str, entries: list[str]) -> Callable[[str], bool]:
    """Whether a module is named: exactly, or as the grammar of that field has it."""
    plain = {e for e in entries if re.fullmatch(r"[\w.]+", e)}
    others = [e for e in entries if e not in plain]
    if field == "ignore":  # compressed-tensors: exact, or "re:" and a regex; class names say nothing here
        patterns = [e[3:] for e in others if e.startswith("re:")]
        inside = False
    elif field == "exclude_modules":  # ModelOpt: globs
        patterns = [fnmatch.translate(e) for e in others]
        inside = False
    else:  # transformers: a regex from the start to a dot, or the end of a name
        patterns = [rf"(?:{e})\." for e in others]
        inside = True
    regex = _joined(patterns)

    def skips(module: str) -> bool:
        if module in plain or (regex is not None and regex.match(module) is not None):
            return True
        if not inside:
            return False
        segments = module.split(".")
        ends = range(1, len(segments))
        return any(".".join(segments[:end]) in plain or ".".join(segments[end:]) in plain for end in ends)

    return skips


def _joined(patterns: list[str]) -> re.Pattern[str] | None:
    # Somebody else's regexes, which only a warning depends on.
    good = [f"(?:{pattern})" for pattern in patterns if is_tame(pattern)]
    return re.compile("|".join(good)) if good else None
