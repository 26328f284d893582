"""The light kinds of values, each beside the one of the standard library whose place it takes."""

from __future__ import annotations

import copy
import dataclasses
import pprint
import typing
from dataclasses import field
from typing import Any

import pytest

from bridge import _values


class Ours(_values.NamedTuple):
    name: str
    sizes: tuple[int, ...] = ()
    tie: bool = False


class Theirs(typing.NamedTuple):
    name: str
    sizes: tuple[int, ...] = ()
    tie: bool = False


class Frozen(_values.Value):
    name: str
    sizes: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class FrozenDataclass:
    name: str
    sizes: tuple[int, ...] = ()


class Notes(_values.Record):
    name: str
    seen: list[str] = field(default_factory=list[str])
    upper: str = ""

    def __post_init__(self) -> None:
        self.upper = self.name.upper()


WAYS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("a",), {}),
    (("a", (1, 2)), {}),
    (("a", (1, 2), True), {}),
    ((), {"name": "a"}),
    (("a",), {"tie": True}),
    ((), {"tie": True, "sizes": (3,), "name": "a"}),
]


@pytest.mark.parametrize(("values", "named"), WAYS)
def test_a_named_tuple_is_what_typing_makes(values: tuple[Any, ...], named: dict[str, Any]):
    ours, theirs = Ours(*values, **named), Theirs(*values, **named)
    assert ours == theirs == tuple(ours)
    assert hash(ours) == hash(theirs)
    assert (ours.name, ours.sizes, ours.tie) == (theirs.name, theirs.sizes, theirs.tie)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert ours._replace(sizes=(9,)) == theirs._replace(sizes=(9,))
    assert type(ours._replace(tie=True)) is Ours
    assert ours._fields == theirs._fields == Ours.__match_args__
    assert ours._asdict() == theirs._asdict()
    assert Ours._make(theirs) == ours
    assert copy.deepcopy(ours) == ours
    name, *_ = ours
    assert name == "a"


def test_a_named_tuple_stays_as_it_is():
    with pytest.raises(AttributeError):
        Ours("a").name = "b"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("kind", [Ours, Frozen, Notes])
def test_no_field_is_left_out(kind: Any):
    for wrong in (lambda: kind(), lambda: kind(sizes=(1,)), lambda: kind(tie=True), lambda: kind(seen=[])):
        with pytest.raises(TypeError, match="has the fields"):
            wrong()


@pytest.mark.parametrize("kind", [Ours, Frozen, Notes])
def test_no_field_is_made_up(kind: Any):
    made = kind("a")
    other = made._replace if kind is Ours else lambda **changes: _values.replace(made, **changes)
    for wrong in (
        lambda: kind("a", (), True, 4),
        lambda: kind("a", nmae="b"),
        lambda: kind("a", name="b"),
        lambda: other(nmae="b"),
    ):
        with pytest.raises(TypeError, match="has the fields"):
            wrong()


def test_a_value_is_a_frozen_dataclass():
    ours, theirs = Frozen("a", (1,)), FrozenDataclass("a", (1,))
    assert repr(ours) == repr(theirs).replace("FrozenDataclass", "Frozen")
    assert ours == Frozen(name="a", sizes=(1,)) == copy.deepcopy(ours)
    assert hash(ours) == hash(Frozen("a", (1,)))
    assert ours != Frozen("a")
    assert ours != theirs
    assert _values.replace(ours, name="b") == Frozen("b", (1,))
    for change in (lambda: setattr(ours, "name", "b"), lambda: delattr(ours, "name")):
        with pytest.raises(AttributeError, match="Frozen is frozen: 'name' cannot be"):
            change()
    assert ours.name == "a"


def test_a_value_is_a_dataclass_for_those_who_ask():
    ours, theirs = Frozen("a", (1,)), FrozenDataclass("a", (1,))
    assert dataclasses.is_dataclass(ours)
    assert [f.name for f in dataclasses.fields(ours)] == [f.name for f in dataclasses.fields(theirs)]
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs) == {"name": "a", "sizes": (1,)}
    assert dataclasses.replace(ours, name="b") == Frozen("b", (1,))
    assert pprint.pformat(ours) == repr(ours)


def test_a_record_is_itself_alone():
    first, second = Notes("a"), Notes("a")
    assert first != second
    assert first.upper == "A"
    first.seen.append("x")
    assert second.seen == []
    changed = _values.replace(first, name="b")
    assert (changed.name, changed.upper, changed.seen) == ("b", "B", ["x"])
    assert first.name == "a"
