"""Every abuse of a header is stopped by its rule, in these words; the reference reader is the second judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import _errors
from tests.attacks.header_cases import LENGTHS, TILING, TYPE_CASES, Abuse
from tests.attacks.json_cases import DIGITS, JSON_CASES, ONCE_CASES
from tests.craft import ours, reference

ABUSES = [*LENGTHS, *TILING, *TYPE_CASES, *JSON_CASES, *DIGITS, *ONCE_CASES]


@pytest.mark.parametrize("abuse", ABUSES, ids=lambda abuse: abuse.name)
def test_abuse_is_stopped(abuse: Abuse, tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(abuse.content)
    with pytest.raises(_errors.CheckpointError) as caught:
        ours(path)
    assert str(caught.value) == f"'x.safetensors'{abuse.message}"
    assert (reference(path) is not None) == abuse.reference_accepts


def test_names_are_unique():
    assert len({abuse.name for abuse in ABUSES}) == len(ABUSES)


def test_only_names_that_stand_twice_are_judged_stricter_than_by_the_reference():
    assert {abuse.rule for abuse in ABUSES if abuse.reference_accepts} == {"no name stands twice in one object"}
