"""Keys decided on together: bundles hold what they say, and a plan made by bundles is the plan made key by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge._text import template
from bridge.mapping import folding
from bridge.mapping.folding import Bundle, bundles
from bridge.mapping.keys import KeyTable
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, Request, make_plan
from bridge.rules.rule import Rule

F4 = np.dtype("f4")
SEGMENTS = st.sampled_from(
    ["a", "b_c", "w1", "0", "1", "7", "10", "007", "-1", "1e3", "", "{}", "{l}", "ß", "\0", "٣", "9" * 18, "9" * 19]
)
NAMES = st.lists(SEGMENTS, min_size=1, max_size=4).map(".".join)


def table(names: Sequence[str], shapes: Sequence[tuple[int, ...]] = ((2,),)) -> KeyTable:
    return KeyTable.of({name: Spec(F4, shapes[n % len(shapes)]) for n, name in enumerate(names)})


def check(keys: KeyTable) -> list[Bundle]:
    """Every key once, in bundles of what its template says and of one shape."""
    items = list(bundles(keys))
    seen = [n for item in items for n in (item.keys.numbers.tolist() if isinstance(item, Bundle) else [item])]
    assert sorted(seen) == list(range(len(keys)))
    found = [item for item in items if isinstance(item, Bundle)]
    for bundle in found:
        assert len(bundle.keys) >= folding.FEW
        for key, numbers in zip(bundle.keys, bundle.numbers.tolist(), strict=True):
            assert template(key) == (bundle.text, tuple(numbers))
        assert len(bundle.keys.shapes()) == 1
    return found


@given(st.lists(NAMES, unique=True, max_size=60))
def test_bundles_are_what_templates_say(names: list[str]):
    keys = table(names)
    alone = [item for item in bundles(keys) if not isinstance(item, Bundle)]
    together = {bundle.text for bundle in check(keys)}
    assert not together.intersection(template(keys.names[n])[0] for n in alone)


def test_items_stand_in_the_order_of_their_first_keys():
    items = list(bundles(table([f"{word}.{n}" for n in range(9) for word in "ab"] + ["c", "d.1"])))
    assert [int(item.keys.numbers[0]) if isinstance(item, Bundle) else item for item in items] == [0, 1, 18, 19]


def test_shapes_are_kept_apart():
    found = check(table([f"h.{n}.w" for n in range(40)], [(2,), (3,), (2,)]))
    assert sorted(len(bundle.keys) for bundle in found) == [13, 27]


def test_a_name_with_a_line_in_it_makes_all_go_one_by_one():
    assert check(table([f"h.{n}.w" for n in range(40)] + ["a\nb.0"])) == []


def test_names_may_be_long():
    long = [".".join(["x" * 300, *"a" * 300, str(n)]) for n in range(folding.FEW)]
    assert [len(bundle.keys) for bundle in check(table([f"h.{n}.w" for n in range(40)] + long))] == [40, folding.FEW]


def test_a_probe_is_a_key_of_numbers_that_stand_nowhere_else():
    (bundle,) = check(table([f"h.{n}.w{10**17}.{n + 1}" for n in range(9)]))
    key, columns = bundle.probe
    assert template(key)[0] == bundle.text
    assert template(key)[1] == tuple(columns)
    assert not any(str(number) in bundle.text for number in columns)


CASES: dict[str, tuple[list[str], Mapping[str, tuple[int, ...]] | None]] = {
    "inferred": ([], {"h.w": (12, 2), "h.b": (12, 2)}),
    "stacked by a rule": (["h.{l}.** -> x.**"], {"x.w": (12, 2), "x.b": (12, 2)}),
    "a number in the rule": (["h.0.w -> first", "h.{l}.** -> x.**"], {"first": (2,), "x.w": (12, 2), "x.b": (12, 2)}),
    "part of a segment is a number": (["h.1*.w -> one.*.w"], {f"one.{n}.w": (2,) for n in ("", 0, 1)}),
    "a star takes a number": (
        ["h.*.w -> n.*.w", "h.{l}.b -> b"],
        {f"n.{n}.w": (2,) for n in range(12)} | {"b": (12, 2)},
    ),
    "a star takes a number into a word": (["h.*.w -> n_*.w"], {f"n_{n}.w": (2,) for n in range(12)}),
    "a number becomes text": (["h.{l}.w -> x{l}"], {f"x{n}": (2,) for n in range(12)}),
    "selections": (["h.{l[3:]}.w -> late", "h.{l}.** -> x.**"], {"late": (9, 2), "x.w": (3, 2), "x.b": (12, 2)}),
    "from the end": (["h.{l[:-2]}.w -> early"], {"early": (10, 2)}),
    "composed": (["h.{(g i)}.w -> g.{g}.w ; i=4"], {f"g.{n}.w": (4, 2) for n in range(3)}),
    "dropped": (["h.{l}.b -> _", "h.{l}.w -> w"], {"w": (12, 2)}),
    "dropped in part": (
        ["h.{l}.w [a[:1]] -> w [l a]", "h.{l}.w [a[1:]] -> _", "h.{l}.b -> b"],
        {"w": (12, 1), "b": (12, 2)},
    ),
    "copied": (["h.{l}.w -> v ; copy=true", "h.{l}.w -> w"], {"v": (12, 2), "w": (12, 2)}),
    "summed": (["h.{l}.w + h.{l}.b -> s"], {"s": (12, 2)}),
    "chosen": (["h.{l}.{w|b} -> x.{v|c}"], {"x.v": (12, 2), "x.c": (12, 2)}),
    "joined": (["h.{l}.{w|b} [_] -> j [l (w|b)]"], {"j": (12, 4)}),
    "no model": (["h.{l}.w -> x.w"], None),
    "twice": (["h.{l}.w -> x", "h.{l}.b -> x"], {"x": (12, 2)}),
    "a list of layers": (["h.{l}.** -> layers.{l}.**"], {f"layers.{n}.{p}": (2,) for n in range(12) for p in "wb"}),
    "too short": (["h.{l}.w -> x"], {"x": (10, 2)}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("hole", [False, True])
def test_together_or_one_by_one_is_the_same(case: str, hole: bool, monkeypatch: pytest.MonkeyPatch):
    rules, leaves = CASES[case]
    specs = {f"h.{n}.{part}": Spec(F4, (2,)) for n in range(12) for part in "wb" if not (hole and n == 5)}

    def plan() -> Plan:
        model = None if leaves is None else Template({name: Spec(F4, shape) for name, shape in leaves.items()})
        return make_plan(specs, model, Request(tuple(map(Rule, rules))), source="x")

    together = plan()
    monkeypatch.setattr(folding, "FEW", 1 << 60)
    alone = plan()
    assert together == alone
    # A bundle that has to be taken apart goes before what stands among its keys.
    assert sorted(together.texts) == sorted(alone.texts)
    assert sorted(str(together).splitlines()) == sorted(str(alone).splitlines())
