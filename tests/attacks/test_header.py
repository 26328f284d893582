"""Every abuse of a header is stopped by its rule, in these words; the reference reader is the second judge."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge import _errors
from bridge.format import strict_json
from tests.attacks.header_cases import LENGTHS, TILING, TYPE_CASES, Abuse
from tests.attacks.json_cases import DIGITS, JSON_CASES, ONCE_CASES
from tests.craft import craft, entry, ours, reference
from tests.errors.promised import text_of

ABUSES = [*LENGTHS, *TILING, *TYPE_CASES, *JSON_CASES, *DIGITS, *ONCE_CASES]


@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.name)
def test_abuse_is_stopped(abuse: Abuse, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(abuse.content)
    with pytest.raises(_errors.CheckpointError) as caught:
        ours(path)
    assert str(caught.value) == text_of(f"header: {abuse.name}")
    assert (reference(path) is not None) == abuse.reference_accepts


def test_names_are_unique():
    assert len({abuse.name for abuse in ABUSES}) == len(ABUSES)


def test_only_names_that_stand_twice_are_judged_stricter_than_by_the_reference():
    assert {abuse.rule for abuse in ABUSES if abuse.reference_accepts} == {"no name stands twice in one object"}


def test_a_header_that_takes_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A hundred megabytes of brackets become gigabytes of lists."""

    def full(_text: str) -> None:
        raise MemoryError

    path = tmp_path / "x.safetensors"
    path.write_bytes(craft("{ }"))
    monkeypatch.setattr(strict_json, "_DECODER", SimpleNamespace(decode=full))
    with pytest.raises(_errors.CheckpointError) as caught:
        ours(path)
    assert str(caught.value) == text_of("header: more memory than there is")


def test_the_size_cap_comes_before_the_memory(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as f:
        f.write((10**11).to_bytes(8, "little"))
        f.truncate(10**12)  # sparse: nothing on the disk
    tracemalloc.start()
    try:
        with pytest.raises(_errors.CheckpointError, match="claims a header of 100,000,000,000 bytes"):
            ours(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("spelled", [(",", ":"), (", ", ": "), (",\n ", " :")])
def test_a_hundred_thousand_tensors(spelled: tuple[str, str], tmp_path: Path):
    """0.1 s as writers spell them, 0.6 s as nobody does; a test asserts no time, but would hang on a quadratic check."""
    count = 100_000
    path = tmp_path / "x.safetensors"
    header = {f"layers.{n}.weight": entry("F32", [1], 4 * n, 4 * n + 4) for n in range(count)}
    path.write_bytes(craft(json.dumps(header, separators=spelled), bytes(4 * count)))
    tensors = ours(path).tensors
    assert len(tensors) == count
    assert tensors[f"layers.{count - 1}.weight"].offset == path.stat().st_size - 4
