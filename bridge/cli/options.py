"""The library speaks of Python's keywords, `overwrite=True`. On the command line they are options, `--overwrite`."""

from __future__ import annotations

import re
import shlex

from bridge._text import printable

_FLAGS = ("overwrite", "modules", "local_files_only", "verify")
_VALUES = (
    "adapters",
    "allow_missing",
    "allow_unexpected",
    "cache_dir",
    "dtype",
    "max_host_bytes",
    "quantized",
    "revision",
    "root",
    "rules",
    "subfolder",
    "token",
    "trace",
    "variant",
)

_QUOTED = r"(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)"  # a name: whatever stands in it is no keyword of ours
_KEYWORD = rf"(?<![\w.`'\"-])(`?)({'|'.join((*_FLAGS, *_VALUES))})=(?!=)"
_TEXT = re.compile(f"{_QUOTED}|{_KEYWORD}")

_LISTS = re.compile(r"plan\.missing, plan\.unexpected and plan\.mismatched have them all")

_CLOSING = {"[": "]", "{": "}", "(": ")"}
_SINGULAR = {"adapters": "--adapter"}
_WEIGHED = re.compile(r"""\(('[^']*|"[^"]*)['"], ([-+.\w]+)\)""")
_STRING = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_WORD = re.compile(r"[\w.…-]+")


def spoken(text: str) -> str:
    """A text of the library as the command line says it.

    Keywords become options, and their values what one types in a shell: `allow_unexpected=["**.inv_freq"]` becomes
    `--allow-unexpected '**.inv_freq'`. What stands in single quotes is a name, and stays.
    """
    pieces: list[str] = []
    at = 0
    while match := _TEXT.search(text, at):
        pieces.append(text[at : match.start()])
        at = match.end()
        if match[2] is None:
            pieces.append(match[0])
            continue
        value, at = _value(text, at)
        pieces.append(_option(match[2], value))
        if match[1] and text[at : at + 1] == "`":  # `token=` in backticks, without a value
            at += 1
    return _LISTS.sub("--json has them all", "".join([*pieces, text[at:]]))


def _value(text: str, start: int) -> tuple[str, int]:
    """The value that begins at `start`, as it is written, and where it ends."""
    first = text[start : start + 1]
    if first in ("'", '"'):
        end = _string_end(text, start)
    elif first in _CLOSING:
        end = _bracket_end(text, start)
    else:
        word = _WORD.match(text, start)
        end = start if word is None else start + len(word[0].rstrip("."))
    return text[start:end], end


def _string_end(text: str, start: int) -> int:
    """Behind the quote that closes the one at `start`; the end of the text where none does."""
    at = start + 1
    while at < len(text) and text[at] != text[start]:
        at += 2 if text[at] == "\\" else 1
    return min(at + 1, len(text))


def _bracket_end(text: str, start: int) -> int:
    """Behind the bracket that closes the one at `start`."""
    at, open_brackets = start, 0
    while at < len(text):
        if text[at] in "'\"":
            at = _string_end(text, at)
            continue
        open_brackets += (text[at] in _CLOSING) - (text[at] in _CLOSING.values())
        at += 1
        if not open_brackets:
            break
    return at


def _option(keyword: str, written: str) -> str:
    """An option with its value, ready to paste."""
    name = _SINGULAR.get(keyword) or f"--{keyword.replace('_', '-')}"
    if keyword in _FLAGS:
        return name
    values = _typed(keyword, written)
    return " ".join(f"{name} {value}" for value in values) if values else name


def _typed(keyword: str, written: str) -> list[str]:
    """The values as one types them; several where the option may be given again."""
    if keyword == "adapters":
        written = _WEIGHED.sub(r"\1=\2'", written)
    if written.startswith("{"):
        return [_shell(_by_pattern(written) if keyword == "dtype" else _json(written))]
    texts = [_plain(text) for text in _STRING.findall(written)] if written[:1] in ("'", '"', "[") else [written]
    return [_shell(text) for text in texts if text != "…" and (text or written)]


def _plain(literal: str) -> str:
    """What a text in quotes says. Escapes of what cannot be printed stay."""
    return re.sub(r"""\\([\\'"])""", r"\1", literal[1:-1])


def _by_pattern(written: str) -> str:
    """`{'norm.**': 'f32'}` as `--dtype` takes it, `norm.**=f32`."""
    return re.sub(r"['\"]", "", written[1:-1]).replace(": ", "=")


def _json(written: str) -> str:
    """A Python dict as JSON, for a reader."""
    return re.sub(r"'([^']*)'", r'"\1"', written).replace(": False", ": false").replace(": True", ": true")


def _shell(text: str) -> str:
    """As a shell takes it, and safe to print."""
    return text if re.fullmatch(r"[\w.…-]+", text, re.ASCII) else shlex.quote(printable(text))
