"""Every case of the rule language from a file into arrays: what the reader does is what the index maps say."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import bridge
from tests.mapping import test_axes, test_choices, test_names
from tests.mapping.oracle import Case, tensors

CASES = [*test_names.CASES, *test_axes.CASES, *test_choices.CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_file_to_arrays(case: Case, tmp_path: Path):
    arrays = tensors(case.shapes)
    expected = {name: np.asarray(leaf) for name, leaf in case.leaves(arrays).items()}
    save_file(arrays, tmp_path / "model.safetensors")
    like = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in expected.items()}
    loaded = bridge.load(tmp_path, like, list(case.rules))
    assert loaded.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_array_equal(np.asarray(loaded[name]), leaf, err_msg=name, strict=True)


def test_no_two_cases_have_one_title():
    titles = [case.title for case in CASES]
    assert len(set(titles)) == len(titles)
