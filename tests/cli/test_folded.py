"""How names fold: modules that are alike, by what they are called below and what that is, in the order of the model."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from bridge._text import fold
from bridge.cli.folded import folded


def labels(*items: tuple[str, object]) -> list[str]:
    return [label for label, _ in folded(items)]


def test_layers_fold_in_the_order_of_their_numbers() -> None:
    """A file's own order is that of texts: 10 before 2."""
    names = sorted(f"h.{n}.{part}" for n in range(12) for part in ("fc.weight", "fc.bias"))
    found = dict(folded((name, part) for name in names for part in [name[-4:]]))
    assert list(found) == ["h.{0..11}.fc.bias", "h.{0..11}.fc.weight"]
    assert found["h.{0..11}.fc.bias"] == [f"h.{n}.fc.bias" for n in range(12)]


def test_modules_of_other_kinds_do_not_fold_because_a_shape_is_the_same() -> None:
    """T5: each block has an attention and an MLP, and both have a norm."""
    items = [
        (f"block.{b}.layer.{n}.{name}", "square" if "norm" not in name else "wide")
        for b in range(3)
        for n, names in enumerate((("attn.q", "attn.k", "norm"), ("mlp.wi", "mlp.wo", "norm")))
        for name in names
    ]
    assert labels(*items) == [
        "block.{0..2}.layer.0.attn.q",
        "block.{0..2}.layer.0.attn.k",
        "block.{0..2}.layer.0.norm",
        "block.{0..2}.layer.1.mlp.wi",
        "block.{0..2}.layer.1.mlp.wo",
        "block.{0..2}.layer.1.norm",
    ]


def test_one_module_that_has_more_is_not_set_apart() -> None:
    """T5: the first block has the relative positions of all of them."""
    items = [(f"block.{b}.{name}", "same") for b in range(3) for name in "qkvo"]
    items.insert(1, ("block.0.bias", "table"))
    assert labels(*items) == ["block.{0..2}.q", "block.0.bias", "block.{0..2}.k", "block.{0..2}.v", "block.{0..2}.o"]


def test_blocks_of_other_widths_stay_apart() -> None:
    """A UNet: a norm that happens to be as wide in two blocks says nothing about them."""
    widths = {0: [1, 2], 1: [2, 2], 2: [2, 2]}
    items = [(f"up.{b}.{name}", width) for b, pair in widths.items() for name, width in zip("ab", pair, strict=True)]
    assert labels(*items) == ["up.0.a", "up.0.b", "up.{1..2}.a", "up.{1..2}.b"]


def test_modules_keep_together() -> None:
    items = [("head.weight", 1), ("h.1.a", 1), ("h.0.a", 1), ("embed.weight", 1), ("h.0.b", 2), ("h.1.b", 2)]
    assert labels(*items) == ["head.weight", "h.{0..1}.a", "h.{0..1}.b", "embed.weight"]


def test_a_name_may_end_where_another_goes_on() -> None:
    assert labels(("a", 1), ("a.b", 1), ("a.0", 1), ("a..b", 1), ("", 1)) == ["a", "a.b", "a.0", "a..b", ""]


NAMES = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "10", "", "{}"]), min_size=1, max_size=5).map(".".join)


@given(st.dictionaries(NAMES, st.integers(0, 2), max_size=30))
def test_every_name_is_under_one_label_that_says_it(items: dict[str, int]) -> None:
    rows = list(folded(items.items()))
    assert sorted(name for _, names in rows for name in names) == sorted(items)
    for label, names in rows:
        assert [label] == [text for text, _ in fold(names)]
        assert len({items[name] for name in names}) == 1


def test_many_names_and_deep_ones_take_no_time() -> None:
    names = [f"h.{n % 5000}.{n // 5000}.w" for n in range(50_000)] + [".".join("a" * 5000)]
    started = time.process_time()
    assert len(list(folded((name, hash(name) % 7) for name in names))) > 100
    assert time.process_time() - started < 10
