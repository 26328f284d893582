"""The recorder as its users have it: a file of its own, imported beside PyTorch."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`record` of the printed file."""
    path = tmp_path_factory.mktemp("recorder") / "record.py"
    path.write_text(files("bridge.checking").joinpath("record.py.txt").read_text(encoding="utf-8"))
    return _imported(path).record


def _imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("record", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["record"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
