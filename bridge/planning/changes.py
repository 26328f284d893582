"""One change of names that explains many: a prefix that is another, a wrapper's segment that is one too many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from bridge._text import plain
from bridge.planning.likeness import Numbered, contradict, is_wrapper
from bridge.rules.syntax import Hole, Index, Name, Segment, Side, Wild

_PAIRS = 50_000  # of names that end alike; looking at more would take longer than a report may
_TELLS = 2  # modules that a prefix must explain, where it is no wrapper's
_LETTERS = "ijklmnop"

Names = tuple[str, ...]


class NameChange(NamedTuple):
    """A change of names as rules, most particular first, and the key template of each leaf template it explains."""

    rules: tuple[str, ...]
    explains: dict[str, str]


class _PrefixChange(NamedTuple):
    key: Names
    leaf: Names


def changes(wanted: Iterable[str], unused: Iterable[str], numbered: Numbered) -> list[NameChange]:
    """The fewest changes that explain what is missing by what is unused; none where two would do it equally well."""
    open_, free = dict.fromkeys(wanted), dict.fromkeys(unused)
    prefixes: list[tuple[_PrefixChange, dict[str, str]]] = []
    while open_ and free:
        found = _by_prefix(open_, free)
        wrapped = _by_wrapper(open_, free)
        best = _best(found, numbered)
        if wrapped is not None and (best is None or len(wrapped.explains) > len(best[1])):
            return [wrapped]
        if best is None:
            break
        prefixes.append(best)
        for leaf, key in best[1].items():
            del open_[leaf]
            free.pop(key, None)
    if not prefixes:
        return []
    # A prefix may begin with another: the longer one has to be tried first, and both stand together.
    prefixes.sort(key=lambda entry: -len(entry[0].key))
    together = any(a is not b and _begins(a[0].key, b[0].key) for a in prefixes for b in prefixes)
    made = [NameChange((_prefix_rule(prefix),), explains) for prefix, explains in prefixes]
    if not together:
        return made
    return [NameChange(tuple(c.rules[0] for c in made), {leaf: key for c in made for leaf, key in c.explains.items()})]


def _begins(longer: Names, shorter: Names) -> bool:
    return longer[: len(shorter)] == shorter


# Prefixes


def _by_prefix(wanted: Iterable[str], unused: Iterable[str]) -> dict[_PrefixChange, dict[str, str]]:
    """For each change of prefix what it explains."""
    ends: dict[Names, list[Names]] = {}
    for key in unused:
        segments = tuple(key.split("."))
        for depth in (1, 2):
            ends.setdefault(_end(segments, depth), []).append(segments)
    found: dict[_PrefixChange, dict[str, str]] = {}
    looked = 0
    for leaf in wanted:
        segments = tuple(leaf.split("."))
        for key in ends.get(_end(segments, 2), ()):
            looked += 1
            if looked > _PAIRS:
                return found
            prefix = _stripped(key, segments)
            if prefix.key != prefix.leaf:
                found.setdefault(prefix, {})[leaf] = ".".join(key)
    return found


def _end(segments: Names, depth: int) -> Names:
    """The last segments of a name that are no indices."""
    return tuple(segment for segment in segments[-4:] if segment != "{}")[-depth:]


def _stripped(key: Names, leaf: Names) -> _PrefixChange:
    """What is left of two names without the end that they share; an index of the key may be an axis of the leaf."""
    at, to = len(key), len(leaf)
    while at and to:
        if key[at - 1] == leaf[to - 1]:
            at, to = at - 1, to - 1
        elif key[at - 1] == "{}" and at < len(key):
            at -= 1
        else:
            break
    return _PrefixChange(key[:at], leaf[:to])


def _best(
    found: dict[_PrefixChange, dict[str, str]], numbered: Numbered
) -> tuple[_PrefixChange, dict[str, str]] | None:
    """The change that explains most, if no other explains the same as well."""
    ranked = sorted(found.items(), key=lambda entry: (-len(entry[1]), len(entry[0].key) + len(entry[0].leaf)))
    for prefix, explains in ranked:
        rivals = [p for p, e in ranked if p != prefix and len(e) >= len(explains) and not e.keys().isdisjoint(explains)]
        if rivals or not _tells(prefix, explains):
            continue
        key, leaf = (numbered.likeness(".".join((*side, "_", "weight"))) for side in prefix)
        if not contradict(key.words, leaf.words):
            return prefix, explains
    return None


def _tells(prefix: _PrefixChange, explains: dict[str, str]) -> bool:
    """Whether a change is a wrapper's alone, or more than the name of one module."""
    if is_wrapper(prefix.key) and is_wrapper(prefix.leaf):
        return True
    ends = {tuple(leaf.split("."))[len(prefix.leaf) : -1] for leaf in explains}
    return len({end for end in ends if any(segment != "{}" for segment in end)}) >= _TELLS


def _prefix_rule(prefix: _PrefixChange) -> str:
    letters = [*_LETTERS]
    key, leaf = _segments(prefix.key, letters), _segments(prefix.leaf, letters)
    deep = (Wild(deep=True),)
    return f"{Side(Name((*key, deep)))} -> {Side(Name((*leaf, deep)))}"


def _segments(names: Sequence[str], letters: Sequence[str]) -> tuple[Segment, ...]:
    """Segments of a template as those of a rule, its indices called i, j, k …"""
    free = iter(letters)
    return tuple([(Hole((Index(next(free)),)),) if name == "{}" else (plain(name),) if name else () for name in names])


# Wrappers


def _by_wrapper(wanted: Iterable[str], unused: Iterable[str]) -> NameChange | None:
    """A segment that stands in every key that is unused and in no leaf."""
    leaves = {tuple(s for s in leaf.split(".") if s != "{}"): leaf for leaf in wanted}
    keys = {key: tuple(key.split(".")) for key in unused}
    known = {segment for leaf in leaves for segment in leaf}
    best: tuple[int, str, dict[str, str]] = (0, "", {})
    for wrapper in dict.fromkeys(_segments_of(keys.values())):
        if wrapper in known or not is_wrapper([wrapper]):
            continue
        explains: dict[str, str] = {}
        for key, segments in keys.items():
            bare = tuple(s for s in segments if s not in ("{}", wrapper))
            if wrapper in segments and bare in leaves:
                explains.setdefault(leaves[bare], key)
        best = max(best, (len(explains), wrapper, explains), key=lambda entry: entry[0])
    count, wrapper, explains = best
    if not count:
        return None
    deepest = max(keys[key].count(wrapper) for key in explains.values())
    deep, text = Name(((Wild(deep=True),),)), Name(((wrapper,),))
    rules = [f"{deep}.{f'.{deep}.'.join([str(text)] * n)}.{deep} -> {'.'.join([str(deep)] * (n + 1))}"
             for n in range(deepest, 0, -1)]  # fmt: skip
    return NameChange(tuple(rules), explains)


def _segments_of(names: Iterable[Names]) -> Iterator[str]:
    for segments in names:
        yield from (segment for segment in segments if segment != "{}")
