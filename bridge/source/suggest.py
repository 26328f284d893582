"""Names that are close to a wrong one."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Collection, Iterable

from bridge._text import plural, quote

_LIMIT = 300  # difflib is slow: it looks only at the names that share most with the wrong one


def closest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `names` that look like `name`, the closest first. Quick for 100,000 names."""
    segments = set(name.split("."))

    def shared(other: str) -> tuple[int, int]:
        return len(segments.intersection(other.split("."))), -abs(len(other) - len(name))

    candidates = heapq.nlargest(_LIMIT, (n for n in names if len(n) <= 2 * len(name) + 8), key=shared)
    return difflib.get_close_matches(name[:500], candidates, n=count, cutoff=0.6)


def unknown(key: object, names: Collection[str], source: str, unlisted: str | None = None) -> tuple[str, str, str]:
    """What to say of a key that a source does not have: subject, problem and advice.

    `unlisted` is the file that has it, where the index has not.
    """
    text = key if isinstance(key, str) else repr(key)
    subject, problem = f"key {quote(text)}", f"is not in {quote(source)} ({plural(len(names), 'key')})"
    if unlisted is not None:
        return subject, f"{problem}, whose index leaves it out", f"Open its files as a list: {quote(unlisted)} holds it"
    near = closest(text, names)
    advice = f"Did you mean {' or '.join(map(quote, near))}?" if near else "Take one that `keys()` lists"
    return subject, problem, advice
