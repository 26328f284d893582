"""The rules that a plan came to, written for just what they did: what `Plan.rules` holds and reads back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bridge._text import is_index
from bridge.mapping.land import Landed
from bridge.mapping.pattern import OPEN, Codec
from bridge.mapping.relate import Relation, Slot
from bridge.mapping.sent import Sent
from bridge.rules.check import all_indices
from bridge.rules.options import Options
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Axis, Factor, Hole, Index, Name, Parts, Piece, Segment, Side, joined


def respell(relation: Relation, slots: Sequence[Slot], arrived: Sequence[Landed]) -> str:
    """The rule that says just what these keys do in these slots of a relation: one `Landed` for each term of a sum."""
    rule, sents = relation.rule, [landed.sent for landed in arrived]
    own = rule is not None and rule is sents[0].rule
    taken = set[str]() if own else {i.name for s in sents for i in (*s.key_name.indices(), *s.leaf_name.indices())}
    names = {index.name for side in rule.keys for index in _axis_names(side.axes)} if rule else set[str]()
    new = {name: _free(name, taken | names) for name in names if name in taken}
    keys = [
        Side(_key_name(relation, slot, sent, own=own), _renamed(rule.keys[slot.side].axes, new) if rule else None)
        for slot, sent in zip(slots, sents, strict=True)
    ]
    leaf_name = _leaf_name(relation, slots[0], arrived[0], own=own)
    leaf = Side(leaf_name, _renamed(rule.leaf.axes, new) if rule and rule.leaf else None)
    sizes = {new.get(name, name): size for name, size in rule.sizes} if rule and (own or leaf.axes) else {}
    spelled = {word for side in (*keys, leaf) for word in _words(side)}
    options = Options(
        tuple(sorted((name, size) for name, size in (sizes | dict(sents[0].rule.sizes)).items() if name in spelled)),
        relation.scale,
        relation.add,
        tuple(new.get(name, name) for name in relation.flip),
        relation.tie,
        relation.copy,
    )
    text = " + ".join(map(str, keys)) + f" -> {leaf}"
    return str(Rule(f"{text} ; {options}" if options else text))


def spelled(name: Name, values: Mapping[str, int]) -> str:
    """A name with the numbers of its indices, as far as `values` and the name itself say them."""
    counts = dict.fromkeys(values, OPEN)
    segments: list[Segment] = []
    for segment in name.segments:
        pieces: list[Piece] = []
        for piece in segment:
            number = None
            if isinstance(piece, Hole) and all(index.name in values for index in piece.indices):
                number = Codec.of(piece, counts).encode([values[index.name] for index in piece.indices])
            pieces.append(piece if number is None else str(number))
        segments.append(joined(pieces))
    if all(isinstance(piece, str) for segment in segments for piece in segment):
        return ".".join("".join(map(str, segment)) for segment in segments)
    return str(Name(tuple(segments)))


def _words(side: Side) -> Iterator[str]:
    """What options of a rule can speak of."""
    yield from (index.name for index in all_indices(side))
    yield from (label for factor in side.factors() if isinstance(factor, Parts) for label in factor.labels)


def _key_name(relation: Relation, slot: Slot, sent: Sent, *, own: bool) -> Name:
    """The key's name. A number in a layout's own name, as in `parametrizations.weight.0._u`, is no index."""
    if own or relation.rule is None:
        return sent.key_name
    local = relation.rule.keys[slot.side].name.segments
    ends = zip(reversed(sent.leaf_name.segments), reversed(local), strict=False)
    numbers = {hole: text for hole, text in ends if hole and isinstance(hole[0], Hole) and isinstance(text[0], str)}
    return Name(tuple(numbers.get(segment, segment) for segment in sent.key_name.segments))


def _leaf_name(relation: Relation, slot: Slot, landed: Landed, *, own: bool) -> Name:
    """The leaf's name with the indices that the target had: a layout's name gives way to what it fills."""
    name, rule, real = landed.sent.leaf_name, relation.rule, relation.leaves[slot.branch]
    if own or rule is None or rule.leaf is None:
        return _real(name, landed.name, real)
    local = len(rule.keys[slot.side].name.segments)
    inner = rule.leaf.name.segments
    if rule.leaf.axes is None:
        inner = tuple((s,) for s in real.split(".")[-len(inner) :])
    # Where the layer stands by the key's name; a tied copy stands elsewhere than the leaf.
    place, tail = landed.name.split(".")[:-local], real.split(".")[-len(inner) :]
    return _real(Name((*name.segments[:-local], *inner)), ".".join([*place, *tail]), real)


def _real(name: Name, alias: str, leaf: str) -> Name:
    """`name` says where `alias` stands, with indices for its numbers; the same for the leaf's own name."""
    if alias == leaf:
        return name
    old, new, segments = alias.split("."), leaf.split("."), list(name.segments)
    while old and new and old[-1] == new[-1]:
        old, new = old[:-1], new[:-1]
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    old, new = old[head:], new[head:]
    for at in range(len(segments) - len(old), -1, -1):
        run = segments[at : at + len(old)]
        if all(map(_spells, run, old)):
            holes = [segment for segment in run if _is_hole(segment)]
            shown: list[Segment] = [holes.pop(0) if is_index(text) and holes else (text,) for text in new]
            return Name((*segments[:at], *shown, *segments[at + len(old) :]) or ((),))
    return name


def _spells(segment: Segment, text: str) -> bool:
    """Whether a segment stands for `text`: an index for a number."""
    return is_index(text) if _is_hole(segment) else segment == ((text,) if text else ())


def _is_hole(segment: Segment) -> bool:
    return len(segment) == 1 and isinstance(segment[0], Hole)


def _axis_names(axes: Axes | None) -> Iterator[Index]:
    for axis in axes or ():
        if isinstance(axis, Axis):
            yield from (factor for factor in axis.factors if isinstance(factor, Index))


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _renamed(axes: Axes | None, new: dict[str, str]) -> Axes | None:
    if axes is None or not new:
        return axes

    def other(factor: Factor) -> Factor:
        return Index(new.get(factor.name, factor.name), factor.selection) if isinstance(factor, Index) else factor

    return tuple(Axis(tuple(map(other, a.factors))) if isinstance(a, Axis) else a for a in axes)
