"""`import bridge` is light: a promise to everybody whose program starts with it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("equinox", "huggingface_hub", "jax", "rich", "tensorflow", "torch", "transformers")


def heavy_after(code: str) -> list[str]:
    """Which of the heavy packages a fresh interpreter has loaded after `code`."""
    ask = f"{code}\nimport sys\nprint(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", ask], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_bridge_loads_nothing_heavy() -> None:
    assert heavy_after("import bridge") == []


def test_this_test_can_fail() -> None:
    assert heavy_after("import jax") == ["jax"]
    assert "torch" in heavy_after("import torch")


def test_rules_and_errors_need_no_jax() -> None:
    assert heavy_after("import bridge; bridge.Rule('a.** -> b.**'); bridge.PlanError, bridge.__version__") == []


def test_public_names_are_all_there_and_listed() -> None:
    import bridge

    assert sorted(bridge.__all__) == list(bridge.__all__), "kept in order, so that a diff shows what is new"
    for name in bridge.__all__:
        assert getattr(bridge, name).__doc__, name
    assert set(bridge.__all__) <= set(dir(bridge))
