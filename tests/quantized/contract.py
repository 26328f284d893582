"""What every format keeps. A new one is a subclass with a table of cases."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.quantized import QuantizedForm
from tests.quantized.stored import Tensors, assert_same, found_in, read, whole

DTYPES = (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16))
Shape = tuple[int, ...]


class Case(NamedTuple):
    """One way in which a format is written.

    - `name`: for pytest.
    - `config`: the object in config.json.
    - `make`: random stored tensors for a logical shape, with every code and with extreme scales.
    - `reference`: the formula, written plainly: stored tensors and the shape, to float32.
    - `step`: what the extents of a shape must be multiples of.
    - `label`: what the plan calls it; `{in}` stands for the last extent.
    - `batch`: whether there is an axis before the matrix.
    - `modelopt`: the object in hf_quant_config.json.
    """

    name: str
    config: Mapping[str, Any]
    make: Callable[[np.random.Generator, Shape], Tensors]
    reference: Callable[[Tensors, Shape], np.ndarray]
    step: Shape = (1, 1)
    batch: bool = False
    modelopt: Mapping[str, Any] | None = None
    key: str = "m.weight"
    least: int = 1


class FormatContract:
    """Subclass it and give `cases`."""

    cases: ClassVar[tuple[Case, ...]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases, ids=[case.name for case in self.cases])

    def made(self, case: Case, shape: Shape, seed: int = 0) -> tuple[Tensors, Any, np.ndarray]:
        tensors = case.make(np.random.default_rng(seed), shape)
        found = found_in(tensors, case.config, modelopt=case.modelopt)
        assert list(found.tensors) == [case.key]
        assert found.consumed == set(tensors)
        tensor = found.tensors[case.key]
        assert tensor.form.shape == shape
        with np.errstate(all="ignore"):
            return tensors, tensor, case.reference(tensors, shape).astype(np.float32)

    def shape(self, case: Case, rows: int, columns: int) -> Shape:
        """About that large, as far as the format allows it."""
        sizes = [max(-(-n // step), 1) * step for n, step in zip((rows, columns), case.step[-2:], strict=True)]
        sizes[1] = max(sizes[1], -(-case.least // case.step[-1]) * case.step[-1])
        return (3, *sizes) if case.batch else tuple(sizes)

    # ---- the contract

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_the_whole_is_the_references(self, case: Case, dtype: np.dtype):
        for rows, columns in ((1, 1), (37, 131), (190, 700)):
            tensors, tensor, expected = self.made(case, self.shape(case, rows, columns))
            with np.errstate(all="ignore"):
                assert_same(read(tensor, tensors, dtype), expected.astype(dtype))

    def test_a_box_is_that_box_of_the_whole(self, case: Case):
        @settings(max_examples=12)
        @given(data=st.data())
        def check(data: st.DataObject) -> None:
            shape = self.shape(case, data.draw(st.integers(1, 150)), data.draw(st.integers(1, 300)))
            tensors, tensor, expected = self.made(case, shape, seed=data.draw(st.integers(0, 5)))
            box = tuple(range(a, b) for a, b in (sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in shape))
            dtype = data.draw(st.sampled_from(DTYPES))
            cut = expected[tuple(slice(r.start, r.stop) for r in box)]
            with np.errstate(all="ignore"):
                assert_same(read(tensor, tensors, dtype, box), cut.astype(dtype))

        check()

    def test_bands_at_the_grain_share_no_code(self, case: Case):
        """Cut at its grain, the heaviest part is cut too."""
        shape = self.shape(case, 300, 700)
        _, tensor, _ = self.made(case, shape)
        view = tensor.form.view
        assert len(view.grain) == len(shape)
        for axis, (extent, grain) in enumerate(zip(shape, view.grain, strict=True)):
            cuts = [*range(0, extent, grain), extent]
            before = [whole(shape)[i] for i in range(len(shape))]
            spans: list[list[range]] = []
            for start, stop in pairwise(cuts[:9]):
                before[axis] = range(start, stop)
                spans.append(list(view.boxes(tuple(before))[0]))
            for first, second in pairwise(spans):
                assert any(a.stop <= b.start for a, b in zip(first, second, strict=True)), (axis, first, second)

    def test_what_is_alike_is_one_object(self, case: Case):
        tensors = case.make(np.random.default_rng(0), self.shape(case, 64, 128))
        two = {f"{i}.{key}": array for i in range(2) for key, array in tensors.items()}
        found = found_in(two, case.config, modelopt=case.modelopt)
        first, second = found.tensors.values()
        assert first.form is second.form
        assert isinstance(first.form, QuantizedForm)
        assert hash(first.form.view) == hash(self.made(case, first.form.shape)[1].form.view)

    def test_scratch_is_bounded(self, case: Case):
        tensors, tensor, _ = self.made(case, self.shape(case, 512, 2048))
        read(tensor, tensors)  # tables that are made once
        box = whole(tensor.form.shape)
        parts = [tensors[key] for key in tensor.parts]
        out = np.empty(tensor.form.shape, ml_dtypes.bfloat16)
        tracemalloc.start()
        tensor.form.view.values(box, parts, out)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= 4 << 20

    def test_no_element_is_no_work(self, case: Case):
        tensors, tensor, _ = self.made(case, self.shape(case, 64, 128))
        for axis in range(len(tensor.form.shape)):
            box = list(whole(tensor.form.shape))
            box[axis] = range(1, 1)
            assert read(tensor, tensors, box=tuple(box)).size == 0
