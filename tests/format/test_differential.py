"""We accept what the reference reader accepts, refuse what it refuses, and see the same. `scripts/fuzz` runs long."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge import _errors
from tests.craft import craft, ours, reference
from tests.format.judge import disagreement
from tests.format.mutants import mutant


@given(st.randoms(use_true_random=False, note_method_calls=False))
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_we_and_the_reference_agree(tmp_path: Path, rng: random.Random):
    path = tmp_path / "x.safetensors"
    path.write_bytes(mutant(rng).content)
    assert disagreement(path) is None


def test_mutants_reach_both_verdicts(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    verdicts = []
    for seed in range(400):
        path.write_bytes(mutant(random.Random(seed)).content)
        verdicts.append(reference(path) is not None)
    assert 80 < sum(verdicts) < 320


def test_a_disagreement_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.safetensors"
    path.write_bytes(craft('{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4)))
    assert disagreement(path) is None
    header = ours(path)

    def refuse(_path: Path) -> None:
        raise _errors.CheckpointError("'x'", "is refused")

    monkeypatch.setattr("tests.format.judge.ours", refuse)
    assert disagreement(path) == "the reference accepts it, we say: 'x' is refused"
    path.write_bytes(craft("{", bytes(4)))
    monkeypatch.setattr("tests.format.judge.ours", lambda _path: header)
    assert disagreement(path) == "the reference refuses it, we accept it"
