"""The recipe of docs/checking.md, word for word: a recording in a repo's tests proves a port of the Hub's weights."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
import pytest
from safetensors.numpy import save

import bridge
from bridge.cli.main import main
from tests.checking.by_hand import record_linear
from tests.hub.server import Hub

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "checking.md").read_text()
PROJECT = """
import equinox as eqx
import jax

RULES = ["weight -> weight", "bias -> bias"]

def make():
    return eqx.nn.Linear(4, 3, key=jax.random.key(0))
"""
WEIGHT = np.random.default_rng(0).normal(size=(3, 4)).astype("f4")
BIAS = np.arange(3, dtype="f4")


@pytest.fixture
def project(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repo with a port and its recording, and the weights on the Hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_project", raising=False)
    hub.add("org/name", {"model.safetensors": save({"weight": WEIGHT, "bias": BIAS})}, revision="0123abc")
    Path("my_project.py").write_text(PROJECT)
    Path("rules.toml").write_text('rules = ["weight -> weight", "bias -> bias"]')
    Path("tests").mkdir()
    record_linear(WEIGHT, BIAS, "tests/run.safetensors")
    return tmp_path


def of_the_page() -> tuple[str, list[str]]:
    """The test, and the command of the workflow."""
    (test,) = re.findall(r"```\n(def test_the_port_computes_what_pytorch_did.*?)```", PAGE, re.DOTALL)
    (line,) = re.findall(r"- run: (eqx-bridge check .*)", PAGE)
    return test, shlex.split(line)[1:]


def test_the_recipe_is_right_and_sees_another_port(project: Path) -> None:
    import my_project  # type: ignore[import-not-found]

    test, words = of_the_page()
    names: dict[str, Any] = {"bridge": bridge, "eqx": eqx, "my_project": my_project}
    exec(test, names)
    names["test_the_port_computes_what_pytorch_did"]()
    assert main(words) == 0
    record_linear(WEIGHT[::-1].copy(), BIAS, "tests/run.safetensors")
    with pytest.raises(AssertionError, match="departs"):
        names["test_the_port_computes_what_pytorch_did"]()
    assert main(words) == 1
