"""Rules bound to names: wildcards and the choices of names are settled, and every name is a row of numbers.

The first rule that matches a key takes it. A rule that selects elements takes those and no others; one that copies
takes nothing. Keys that no rule takes go by their own names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from bridge.mapping.bound import FRESH, BoundRule, NameChoices, NameRows, WildcardTaken, carried, present, resolved
from bridge.mapping.names import Family, NameIndex, NameMatch, matched
from bridge.mapping.pattern import MARK, IndexColumns, Mask, NamePattern, encoded
from bridge.rules.check import all_indices, shaped_branch
from bridge.rules.rule import Rule
from bridge.rules.syntax import Hole, Index, Name, NamePiece, Wild

INFERENCE = Rule("** -> **")
"""What holds for keys that no rule takes: a leaf's own name is its key."""


class Binder:
    """One rule, ready to match names."""

    def __init__(self, rule: Rule, number: int) -> None:
        self.rule, self.number = rule, number
        self.sizes = dict(rule.sizes)
        self.keys = [side.name for side in rule.keys]
        self.patterns = [NamePattern(name) for name in self.keys]
        sides = rule.keys if rule.leaf is None else (*rule.keys, rule.leaf)
        taken = {index.name for side in sides for index in all_indices(side)}
        self.fresh = [name for name in FRESH if name not in taken]
        self.deeps = [[piece.deep for piece in name.pieces() if isinstance(piece, Wild)] for name in self.keys]
        self.selects = [any(isinstance(f, Index) and f.selection is not None for f in s.factors()) for s in rule.keys]
        self.bound: dict[tuple[object, ...], BoundRule] = {}
        segments = rule.leaf.name.segments if rule.leaf is not None else ()
        # An index carries over as an index where it is a whole segment on both sides, else as text.
        whole = {deep: [len(s) == 1 for s in segments for p in s if _is_wild(p, deep=deep)] for deep in (False, True)}
        self.carries_index = [_carries_index(name, whole if rule.leaf is not None else None) for name in self.keys]
        # An index within a segment of the leaf's name is part of a text there, so each number is a name of its own.
        within = [piece for segment in segments if len(segment) > 1 for piece in segment if isinstance(piece, Hole)]
        self.embedded = sorted({index.name for hole in within for index in hole.indices})
        holes = [piece for segment in segments for piece in segment if isinstance(piece, Hole)]
        self.limits = [hole for hole in holes if any(index.selection for index in hole.indices)]

        leaf = rule.leaf
        plain = leaf is not None and leaf.axes is None and len(rule.keys) == 1 and not (rule.tie or rule.copy)
        pieces = [piece for side in sides for piece in side.name.pieces()]
        # Whether all it does is to write what wildcards took into a name.
        self.renames = plain and all(isinstance(piece, str | Wild) for piece in pieces)

    def renamed(self, texts: Sequence[str]) -> str:
        """The leaf's name with what the wildcards took; for a rule that `renames`."""
        assert self.rule.leaf is not None
        pairs = list(zip(texts, self.deeps[0], strict=True))
        left = {deep: iter([text for text, wild in pairs if wild is deep]) for deep in (True, False)}
        text = ""
        for segment in self.rule.leaf.name.segments:
            if segment and isinstance(segment[0], Wild) and segment[0].deep:
                text += next(left[True])
            else:
                text += "".join([piece if isinstance(piece, str) else next(left[False]) for piece in segment]) + "."
        return text[:-1]

    def prepare(self, index: NameIndex) -> None:
        """Fix what a selection may count from the end: the indices of the names that match."""
        for side, name in enumerate(self.keys):
            if all(i.selection is None or i.selection.bounded for i in name.indices()):
                continue
            self.keys[side] = resolved(name, present(name, index, self.sizes) | self.sizes)
            self.patterns[side] = NamePattern(self.keys[side])

    def take(self, family: Family, side: int) -> Mask | None:
        """Bind the names of a family that one key side matches; says which it took."""
        match = matched(self.patterns[side], family, self.sizes)
        if match is None:
            return None
        taken = self.bind(match, side)
        if taken is None or match.mask is None:
            return taken
        found = match.mask.copy()
        found[match.mask] = taken
        return found

    def bind(self, match: NameMatch, side: int) -> Mask | None:
        """Bind what a key side matched, unless an index lies outside of the leaf's selection."""
        count = len(match.family.ids)
        accepted = np.ones(count, bool)
        for hole in self.limits:
            if any(index.name in match.columns for index in hole.indices):
                accepted &= encoded(hole, self.sizes, match.columns, count) >= 0
        if not accepted.any():
            return None
        hard = [
            at + n
            for (text, at), carries in zip(match.wilds, self.carries_index[side], strict=True)
            for n in range(0 if carries else text.count(MARK))
        ]
        embedded = [name for name in self.embedded if name in match.columns]
        if not hard and not embedded:
            self.part(match, side, None if accepted.all() else accepted, {}, ())
            return accepted
        texts = np.stack([*(match.family.numbers[:, c] for c in hard), *(match.columns[n] for n in embedded)], axis=1)
        for row in np.unique(texts[accepted], axis=0).tolist():
            fixed = tuple(zip(embedded, row[len(hard) :], strict=True))
            rows = accepted & (texts == row).all(axis=1)
            self.part(match, side, rows, dict(zip(hard, row, strict=False)), fixed)
        return accepted

    def part(
        self,
        match: NameMatch,
        side: int,
        rows: Mask | None,
        hard: Mapping[int, int],
        fixed: tuple[tuple[str, int], ...],
    ) -> None:
        """Bind some rows of a match, in which the numbers that are text are the same: `hard` by column, and `fixed`."""
        family, columns = match.family, match.columns
        if rows is not None:
            family, columns = family.at(rows), {name: column[rows] for name, column in columns.items()}
        fresh = iter(self.fresh)
        taken: list[WildcardTaken] = []
        found: IndexColumns = {}
        for (text, at), carries, deep in zip(match.wilds, self.carries_index[side], self.deeps[side], strict=True):
            # What `**` took ends in a dot, unless it took no segment at all; what `*` took never does.
            shown = text.removesuffix(".") if deep else text
            pieces = carried(shown, at, family, fresh, found) if carries else (_written(shown, at, hard),)
            taken.append(pieces if text else None)
        bound = NameRows(family.ids, columns | found if found else columns)
        for picks in self.picks(match.labels, side):
            open_ = tuple([None if pair.shaped else pick for pair, pick in zip(self.rule.pairing, picks, strict=True)])
            self.rule_for(side, tuple(taken), open_, fixed, match.labels).add(
                side, shaped_branch(self.rule.pairing, picks), bound
            )

    def rule_for(
        self,
        side: int,
        taken: tuple[WildcardTaken, ...],
        picks: tuple[int | None, ...],
        fixed: tuple[tuple[str, int], ...],
        labels: Sequence[str],
    ) -> BoundRule:
        """The bound rule with these settled."""
        dropped = tuple(labels) if self.rule.leaf is None else ()
        key = (taken, picks, fixed, dropped)
        found = self.bound.get(key)
        if found is None:
            settled = NameChoices(self.rule, self.sizes, taken, tuple(self.deeps[side]), picks, fixed, dropped)
            found = self.bound[key] = BoundRule(self.number, self.keys, settled)
        return found

    def picks(self, labels: Sequence[str], side: int) -> Iterator[tuple[int, ...]]:
        """The branches that a name takes part in: its labels settle some choices, an axis holds all of the others."""
        options: list[Sequence[int]] = []
        for pair in self.rule.pairing:
            at = pair.places[side]
            options.append(range(pair.branches) if at is None else (pair.labels[side].index(labels[at]),))
        return product(*options)


def _written(text: str, at: int, numbers: Mapping[int, int]) -> str:
    """What a wildcard took as text; its numbers stand in `numbers` by column, from `at` on."""
    parts = text.split(MARK)
    shown = [*(str(numbers[at + n]) for n in range(len(parts) - 1)), ""]
    return "".join(a + b for a, b in zip(parts, shown, strict=True))


def _is_wild(piece: NamePiece, *, deep: bool) -> bool:
    return isinstance(piece, Wild) and piece.deep is deep


def _carries_index(name: Name, whole: Mapping[bool, Sequence[bool]] | None) -> list[bool]:
    """For each wildcard of a key's name whether its numbers carry over as indices; `whole` is None for a drop."""
    left = None if whole is None else {deep: iter(found) for deep, found in whole.items()}
    return [
        len(segment) == 1 if left is None else next(left[piece.deep]) and len(segment) == 1
        for segment in name.segments
        for piece in segment
        if isinstance(piece, Wild)
    ]


class Bindings:
    """What a checkpoint's keys are bound to: rules, in their order, and names that a rule renames and no more.

    `used` are the rules that matched any key, by number. What no rule takes is bound by `INFERENCE`, with the number
    behind the last rule.
    """

    __slots__ = ("renamed", "rules", "used")

    def __init__(self, rules: list[BoundRule], renamed: list[RenamedKeys], used: set[int]) -> None:
        self.rules, self.renamed, self.used = rules, renamed, used


def bind_keys(
    rules: Sequence[Rule], keys: NameIndex, leaf: Callable[[str], int | None] = lambda name: None
) -> Bindings:
    """Bind all keys. `leaf` gives the number of a leaf at whose name nothing else stands, -1 for no name of the
    model, `None` for other names.
    """
    binders = [Binder(rule, number) for number, rule in enumerate((*rules, INFERENCE))]
    for binder in binders:
        binder.prepare(keys)
    numeric = any(pattern.numeric for binder in binders for pattern in binder.patterns)
    renamed = [RenamedKeys(binder.rule, binder.number, [], [], {}) for binder in binders]
    used: set[int] = set()
    for family in keys.families.values():
        if not family.numbers.shape[1] and _rename(family, binders, renamed, leaf):
            continue
        for part in family.singles() if numeric and family.numbers.shape[1] else (family,):
            _bind_family(part, binders, used)
    found = [each for each in renamed if each.keys or each.lost]
    used |= {each.number for each in found}
    return Bindings([bound for binder in binders for bound in binder.bound.values()], found, used)


class RenamedKeys:
    """Names without numbers that a rule sends to leaves, one by one: there is nothing in them to fold.

    `keys` go to `leaves`; those in `lost` to names that the model does not have.
    """

    __slots__ = ("keys", "leaves", "lost", "number", "rule")

    def __init__(self, rule: Rule, number: int, keys: list[int], leaves: list[int], lost: dict[int, str]) -> None:
        self.rule, self.number, self.keys, self.leaves, self.lost = rule, number, keys, leaves, lost


def _rename(
    family: Family, binders: Sequence[Binder], renamed: Sequence[RenamedKeys], leaf: Callable[[str], int | None]
) -> bool:
    """Send a name without numbers where the first rule that matches sends it, if that is all it does."""
    for binder, into in zip(binders, renamed, strict=True):
        found = next((match for pattern in binder.patterns if (match := pattern.find(family.text))), None)
        if found is None:
            continue
        name = binder.renamed(found.groups()) if binder.renames else ""
        number = leaf(name) if binder.renames else None
        if number is None:
            return False
        if number < 0:
            into.lost[int(family.ids[0])] = name
        else:
            into.keys.append(int(family.ids[0]))
            into.leaves.append(number)
        return True
    return False


def _bind_family(family: Family, binders: Sequence[Binder], used: set[int]) -> None:
    """Every name of a family to the first rule that takes it."""
    begun: Mask | None = None  # names of which a rule has selected elements: they are not left over
    for binder in binders:
        if binder.rule is INFERENCE and begun is not None:
            family, begun = family.at(~begun), None
        if not len(family.ids):
            return
        left = np.arange(len(family.ids))  # names that no side of this rule has taken
        gone = np.zeros(len(family.ids), bool)
        for side in range(len(binder.keys)):
            taken = binder.take(family if len(left) == len(family.ids) else family.at(left), side)
            if taken is None:
                continue
            used.add(binder.number)
            rows, left = left[taken], left[~taken]
            if binder.selects[side] and not binder.rule.copy:
                begun = np.zeros(len(family.ids), bool) if begun is None else begun
                begun[rows] = True
            gone[rows] = not binder.rule.copy and not binder.selects[side]
            if not len(left):
                break
        if gone.any():
            family, begun = family.at(~gone), None if begun is None else begun[~gone]
