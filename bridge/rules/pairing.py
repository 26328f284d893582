"""How the choices of a rule's sides meet: which label of one is which label of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.rules.check import PairedChoice, Pairing, parts_of
from bridge.rules.options import fail
from bridge.rules.syntax import Choice, JoinedParts, Side

_AnyChoice = Choice | JoinedParts


def pair_choices(text: str, keys: Sequence[Side], leaf: Side) -> Pairing:
    """Pair the choices of the key sides with the leaf side's.

    **Raises:** `RuleError`, pointing at a choice of `text` that has no counterpart, or several.
    """
    sides = (*keys, leaf)
    columns = [_met(text, key, leaf) for key in keys]
    pairs: list[PairedChoice] = []
    for number, mine in enumerate(_choices(leaf)):
        theirs = [met[number] for met, _ in columns]
        # Branches are numbered as the first key side writes them.
        orders = [_leaf_order(mine, other) for other in theirs]
        first = orders[0]
        labels: list[tuple[str, ...]] = []
        for other, order in zip(theirs, orders, strict=True):
            back = {leaf: other.labels[branch] for branch, leaf in enumerate(order)}
            labels.append(tuple(back[leaf] for leaf in first))
        held = (*theirs, mine)
        parts = tuple(c if isinstance(c, JoinedParts) else None for c in held)
        pairs.append(
            PairedChoice((*labels, first), parts, tuple(_place(s, c) for s, c in zip(sides, held, strict=True)))
        )
    return (*pairs, *_alone(text, keys, [left for _, left in columns]))


def _met(text: str, key: Side, leaf: Side) -> tuple[list[_AnyChoice], list[Choice]]:
    """For each choice of the leaf side the key side's, and the choices of the key's name that stand there alone.

    Choices of the same labels meet first, in their order, then those of the same length.
    """
    left, wanted = _choices(key), _choices(leaf)
    chosen: dict[int, _AnyChoice] = {}
    for same in (True, False):
        open_ = [(number, mine) for number, mine in enumerate(wanted) if number not in chosen]
        if not same:
            _check_labels(text, [mine for _, mine in open_], left)
        for kind in dict.fromkeys(_kind(mine, same=same) for _, mine in open_):
            ours = [(number, mine) for number, mine in open_ if _kind(mine, same=same) == kind]
            theirs = [other for other in left if _kind(other, same=same) == kind]
            if len(theirs) > len(ours):
                _many(text, theirs, [mine for _, mine in ours])
            for (number, _), other in zip(ours, theirs, strict=False):
                chosen[number] = other
            left = [other for other in left if not any(other is one for one in chosen.values())]
    for number, mine in enumerate(wanted):
        if number not in chosen:
            fail(
                text,
                mine.at,
                "this choice has no counterpart with as many parts on the key side",
                "Write the same choice on both sides",
            )
    for other in left:
        if isinstance(other, JoinedParts):
            fail(
                text,
                other.at,
                "this choice has no counterpart with as many parts on the leaf side",
                "Write the same choice on both sides",
            )
    return [chosen[number] for number in range(len(wanted))], [c for c in left if isinstance(c, Choice)]


def _kind(choice: _AnyChoice, *, same: bool) -> object:
    """What choices of both sides have in common that meet."""
    return frozenset(choice.labels) if same else len(choice.labels)


def _check_labels(text: str, leaf: Sequence[_AnyChoice], key: Sequence[_AnyChoice]) -> None:
    """An axis is cut by labels, so a label that the other side lacks is no other one's place."""
    for mine in leaf:
        for other in key:
            if not (isinstance(mine, JoinedParts) or isinstance(other, JoinedParts)) or not set(mine.labels) & set(
                other.labels
            ):
                continue
            ours = [label for label in mine.labels if label not in other.labels]
            theirs = [label for label in other.labels if label not in mine.labels]
            where = ((ours, "leaf"), (theirs, "key"))
            shown = " and ".join(
                [
                    f"{_shown(found)} {'is' if len(found) == 1 else 'are'} only on the {side} side"
                    for found, side in where
                    if found
                ]
            )
            fail(
                text,
                mine.at,
                f"labels of an axis are paired by name, but {shown}",
                "Name all of them on both sides",
            )


def _shown(labels: Sequence[str]) -> str:
    return ", ".join(f"'{label}'" for label in labels)


def _many(text: str, key: Sequence[_AnyChoice], leaf: Sequence[_AnyChoice]) -> None:
    """More choices of the key side than of the leaf side could meet."""
    shown = " and ".join(map(str, key))
    fail(
        text,
        leaf[0].at,
        f"this choice could pair with {shown} on the key side",
        "Write a rule for each label of one of them",
    )


def _alone(text: str, keys: Sequence[Side], left: Sequence[Sequence[Choice]]) -> Iterator[PairedChoice]:
    """The choices that stand on the key side alone, in every term of a sum as many, of as many labels."""
    first = left[0]
    for other in left[1:]:
        if [len(choice.labels) for choice in other] != [len(choice.labels) for choice in first]:
            odd = (other or first)[0]
            fail(
                text,
                odd.at,
                "a choice without counterpart on the leaf side is in only some terms of a sum",
                "Write it in each term",
            )
    for held in zip(*left, strict=True):
        places = tuple(_place(side, choice) for side, choice in zip(keys, held, strict=True))
        yield PairedChoice((*(choice.labels for choice in held), ()), (None,) * (len(keys) + 1), (*places, None))


def _place(side: Side, choice: _AnyChoice) -> int | None:
    """The place of `choice` among those of the side's name."""
    names = [piece for piece in side.name.pieces() if isinstance(piece, Choice)]
    return next((n for n, piece in enumerate(names) if piece is choice), None)


def _leaf_order(leaf: _AnyChoice, key: _AnyChoice) -> tuple[str, ...]:
    """The leaf's labels in the order of the key's: by label where an axis tells, else by position."""
    if set(leaf.labels) == set(key.labels) and (isinstance(leaf, JoinedParts) or isinstance(key, JoinedParts)):
        return key.labels
    return leaf.labels


def _choices(side: Side) -> list[_AnyChoice]:
    """The choices of a side: those of its name, then those of its axes."""
    return [piece for piece in side.name.pieces() if isinstance(piece, Choice)] + parts_of(side)
