"""The rules that a plan came to, written for just what they did: what `Plan.rules` holds and reads back."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.mapping.relate import Relation, Slot
from bridge.mapping.send import Sent
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axes, Axis, Factor, Index, Name, Side


def respell(relation: Relation) -> Iterator[str]:
    """The texts of the rules behind a relation, one for each way that its keys came."""
    for slots in _ways(relation):
        senders = [relation.senders[slot] for slot in slots]
        for sents in zip(*senders, strict=False):
            yield _text(relation, slots, list(sents))


def _ways(relation: Relation) -> Iterator[list[Slot]]:
    """Slots that stand in one rule: the terms of a sum together, each branch that no axis holds apart."""
    shaped = relation.layout is not None and relation.layout.branches > 1
    if shaped:
        firsts: dict[tuple[int, int], Slot] = {}
        for slot in relation.slots:
            firsts.setdefault((slot.term, slot.side), slot)
        yield [firsts[key] for key in sorted(firsts)]
        return
    for branch in dict.fromkeys(slot.branch for slot in relation.slots):
        yield sorted(slot for slot in relation.slots if slot.branch == branch)


def _text(relation: Relation, slots: list[Slot], sents: list[Sent]) -> str:
    rule = relation.rule
    own = rule is not None and rule is sents[0].rule
    taken = set() if own else {i.name for sent in sents for i in (*sent.key_name.indices(), *_leaf(sent).indices())}
    names = {index.name for side in rule.keys for index in _axis_names(side.axes)} if rule else set[str]()
    new = {name: _free(name, taken | names) for name in names if name in taken}
    keys = [Side(s.key_name, _renamed(rule.keys[slot.side].axes, new) if rule else None) for slot, s in zip(slots, sents, strict=True)]
    leaf = Side(_leaf_name(relation, slots[0], sents[0], own=own), _renamed(rule.leaf.axes, new) if rule and rule.leaf else None)
    sizes = {new.get(name, name): size for name, size in rule.sizes} if rule and (own or rule.leaf and rule.leaf.axes) else {}
    sizes |= dict(sents[0].rule.sizes)
    options: dict[str, object] = dict(sizes)
    if relation.scale != 1:
        options["scale"] = repr(relation.scale)
    if relation.add != 0:
        options["add"] = repr(relation.add)
    if relation.flip:
        options["flip"] = '"' + " ".join(new.get(name, name) for name in relation.flip) + '"'
    options |= {flag: "true" for flag in ("tie", "copy") if getattr(relation, flag)}
    text = " + ".join(map(str, keys)) + " -> " + str(leaf)
    text += " ; " + " ".join(f"{name}={value}" for name, value in options.items()) if options else ""
    return str(Rule(text))


def _leaf(sent: Sent) -> Name:
    assert sent.leaf_name is not None
    return sent.leaf_name


def _leaf_name(relation: Relation, slot: Slot, sent: Sent, *, own: bool) -> Name:
    """The leaf's name with the indices that the target had: a layout's name gives way to what it fills."""
    name, rule = _leaf(sent), relation.rule
    if own or rule is None or rule.leaf is None:
        return name
    local = rule.keys[slot.side].name.segments
    outer = name.segments[: len(name.segments) - len(local)]
    inner = rule.leaf.name.segments
    if rule.leaf.axes is None:
        inner = tuple((s,) for s in relation.leaves[slot.branch].split(".")[-len(inner) :])
    return Name((*outer, *inner))


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
