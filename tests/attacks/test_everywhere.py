"""Files that are valid and hostile all the same: whatever is done with them, it works or is refused in our words.

Shapes that no array can have, keys that are no names, metadata that claims to be ours. An error of any other kind than
our own, or a terminal command on the terminal, is a finding.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import bridge
from bridge.cli.main import main
from tests.craft import craft, entry, ours

GOOD = entry("F32", [2], 0, 8)
OURS = {"eqx-bridge.converted": "1"}
BESIDE = {"eqx-bridge.beside": '["bridge.json", "bridge.original"]'}

FILES = {
    "seventy axes": craft({"a": entry("F32", [1] * 70, 0, 4)}, bytes(4)),
    "sixty-five axes and nothing in them": craft({"a": entry("F32", [1] * 64 + [0], 0, 0)}),
    "an extent of 2**63 beside an empty one": craft({"a": entry("F32", [0, 2**63], 0, 0)}),
    "an extent of 2**64 - 1 beside an empty one": craft({"a": entry("F32", [0, 2**64 - 1], 0, 0)}),
    "a shape that is too large when its zero is left out": craft({"a": entry("F32", [2**62, 0], 0, 0)}),
    "an empty key": craft({"": GOOD}, bytes(8)),
    "a NUL in a key": craft({"a\0b": GOOD}, bytes(8)),
    "terminal commands in a key": craft({"\x1b[2J\x1b]0;x\x07": GOOD}, bytes(8)),
    "text that runs backwards": craft({"\u202ea": GOOD}, bytes(8)),
    "a key like a rule": craft({"a -> b": GOOD}, bytes(8)),
    "a key like a pattern": craft({"a.{l}.**": GOOD}, bytes(8)),
    "an index of thousands of digits": craft({f"layers.{'9' * 5000}.w": GOOD}, bytes(8)),
    "an index that would need a stack of 10**18": craft(
        {"l.0.w": GOOD, f"l.{10**18 - 1}.w": entry("F32", [2], 8, 16)}, bytes(16)
    ),
    "a key of dots": craft({"." * 10_000: GOOD}, bytes(8)),
    "a key of 200,000 characters": craft({"a" * 200_000: GOOD}, bytes(8)),
    "a key below another": craft({"a": GOOD, "a.b": entry("F32", [2], 8, 16)}, bytes(16)),
    "values in three quarters of a byte": craft({"a": entry("F6_E2M3", [4], 0, 3)}, bytes(3)),
    "booleans that are neither": craft({"a": entry("BOOL", [2], 0, 2)}, b"\x07\x01"),
    "an integer that JAX has no room for": craft({"a": entry("I64", [1], 0, 8)}, struct.pack("<q", 2**40)),
    "data at an odd place": craft({"b": entry("I8", [1], 0, 1), "a": entry("F64", [1], 1, 9)}, bytes(9)),
    "metadata that says converted": craft({"__metadata__": OURS, "a": GOOD}, bytes(8)),
    "metadata that says converted, and by what": craft({"__metadata__": OURS | BESIDE, "a": GOOD}, bytes(8)),
    "terminal commands in metadata": craft({"__metadata__": {"\x1b[2J": "\x07"}, "a": GOOD}, bytes(8)),
    "no tensors": craft("{}"),
}

ALL = "** -> **"


def saved(path: Path) -> None:
    plan = bridge.plan(path, None, ALL, dtype="checkpoint")
    bridge.save(bridge.load(path, None, plan), path.parent / "saved", plan)
    assert bridge.diff(path, path.parent / "saved").equal


def converted(path: Path) -> None:
    bridge.convert(path, path.parent / "converted", None, ALL)
    bridge.load(path.parent / "converted", None)
    bridge.revert(path.parent / "converted", path.parent / "back")
    assert (path.parent / "back" / path.name).read_bytes() == path.read_bytes()


def values(path: Path) -> None:
    with bridge.open(path) as ckpt:
        for key in ckpt:
            ckpt[key]


DONE: dict[str, Callable[[Path], Any]] = {
    "values": values,
    "load": lambda path: bridge.load(path, None),
    "plan": lambda path: bridge.Plan.from_json(bridge.plan(path, None, ALL).to_json()),
    "save": saved,
    "convert": converted,
    "diff": lambda path: bridge.diff(path, path),
}


@pytest.mark.parametrize("name", FILES)
def test_works_or_is_refused_in_our_words(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "x.safetensors"
    path.write_bytes(FILES[name])
    errors: list[bridge.BridgeError] = []
    for do in DONE.values():
        try:
            do(path)
        except bridge.BridgeError as error:
            errors.append(error)
    assert all(str(error).replace("\n", "").isprintable() for error in errors)
    for command in (["inspect"], ["inspect", "--json"], ["diff", str(path)]):
        assert main([*command, str(path)]) in (0, 1)
    output = capsys.readouterr()
    assert set((output.out + output.err).replace("\n", "")).isdisjoint("\0\a\x1b\u202e")


TOO_MANY = "70 axes, where an array has at most 64: save it reshaped"
TOO_LONG = "extents that no array can have, though no elements: leave it out, or save it reshaped"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("seventy axes", TOO_MANY),
        ("an extent of 2**63 beside an empty one", TOO_LONG),
        ("a shape that is too large when its zero is left out", TOO_LONG),
    ],
)
def test_a_shape_that_no_array_has_is_said_before_anything_is_read(name: str, reason: str, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(FILES[name])
    for like in (None, {"a": jax.ShapeDtypeStruct(ours(path).tensors["a"].shape, jnp.float32)}):
        with pytest.raises(bridge.PlanError) as caught:
            bridge.load(path, like)
        told = f"conflict    a\n              would have {reason}" if like is None else f"mismatched  a   'a': {reason}"
        kind = "a flat dict" if like is None else "dict"
        assert str(caught.value) == f"1 problem between '{path}' (1 key) and {kind} (1 leaf)\n  {told}"


def test_keys_that_together_make_such_a_shape(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(craft({f"l.{n}.a": entry("F32", [1] * 64, 4 * n, 4 * n + 4) for n in range(2)}, bytes(8)))
    plan = bridge.plan(path, None, "l.{l}.a -> a")
    assert not plan.ok
    assert "would have 65 axes, where an array has at most 64: save it reshaped" in str(plan)
