"""The run as a whole: what a layer alone cannot show, named and repaired."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import bridge
from bridge.checking.counterparts import Counterparts, counterparts
from bridge.checking.kept import Kept
from bridge.checking.recording import Recording
from bridge.checking.whole_align import RunArray, Wanted, distance, view
from bridge.checking.whole_events import AlignedCalls
from bridge.checking.whole_try import try_run
from bridge.tracing.trace import Trace
from tests.checking.mistakes import mistakes
from tests.checking.planted import verdict
from tests.checking.ports import Port, port

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def llama(record: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Port:
    return port("llama", tmp_path_factory.mktemp("llama"), record)


@pytest.mark.parametrize("mistake", ["q and k exchanged", "another activation"])
def test_a_mistake_that_no_layer_shows_alone_is_named_and_repaired(llama: Port, mistake: str) -> None:
    """`scripts/mutants_check` has all of them, for every architecture."""
    found = verdict(llama, mistakes(llama)[mistake])
    assert found.named, found.text
    assert found.repaired is not False, found.text
    assert ("the parent's own code" in found.text) == (mistake == "another activation")


@pytest.fixture(scope="module")
def run(llama: Port) -> tuple[Recording, Counterparts, Trace]:
    """The right port on the recorded input."""
    model, plan = llama.loaded(llama.rules)
    recording = Recording.read(llama.folder / "run.safetensors")
    pairs = counterparts(recording, model, plan)
    trace = try_run(recording, pairs, model)
    assert isinstance(trace, Trace)
    return recording, pairs, trace


def test_the_run_is_compared_in_rows_and_with_a_trace_of_ones_own_too(
    run: tuple[Recording, Counterparts, Trace],
) -> None:
    recording, pairs, own = run
    full = bridge.trace(own.fn, own.model, *own.args)
    sizes = [sum(met.value.size for call in trace.calls for met in call.marks.values()) for trace in (own, full)]
    assert sizes[0] < sizes[1]
    beside = AlignedCalls(recording, pairs)
    mine, theirs = ([(e.at, e.side, e.error is None) for e in beside.events(trace)] for trace in (own, full))
    assert mine == theirs
    (errors, others) = ([e.error for e in beside.events(trace) if e.error is not None] for trace in (own, full))
    np.testing.assert_allclose(errors, others, atol=1e-6)


def test_a_model_that_is_called_otherwise_is_told_what_to_do(run: tuple[Recording, Counterparts, Trace]) -> None:
    recording, pairs, trace = run
    said = try_run(recording, pairs, {"model": trace.model})
    assert isinstance(said, str)
    assert "give trace=fn, a function of the model and of what PyTorch's took" in said


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((2, 3, 4), (2, 3, 4)),
        ((3, 4), (1, 3, 4)),
        ((2, 3, 2, 2), (2, 3, 4)),
        ((2, 12), (2, 3, 4)),
        ((5, 2, 4), (2, 5, 4)),
        ((3, 4), (2, 3, 4)),
        ((2, 5, 5, 3), (2, 3, 5, 5)),
    ],
)
def test_shapes_that_hold_the_same(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    found = view(shape, wanted)
    assert found is not None
    assert found(array).shape == wanted
    np.testing.assert_array_equal(np.unique(found(array)), np.unique(array))


@pytest.mark.parametrize(("shape", "wanted"), [((2, 3), (4,)), ((4, 3, 4), (4, 4, 3)), ((6, 4), (2, 5, 4)), ((), (2,))])
def test_shapes_that_do_not(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    assert view(shape, wanted) is None


def test_height_and_width_of_a_square_stay_in_their_order() -> None:
    array = np.arange(150).reshape(2, 5, 5, 3)
    found = view(array.shape, (2, 3, 5, 5))
    assert found is not None
    np.testing.assert_array_equal(found(array), array.transpose(0, 3, 1, 2))
    assert view((5, 2, 5, 3), (2, 3, 5, 5)) is None  # nothing says which of them is the height


def test_what_must_be_of_all_examples_is_not_repeated_for_them() -> None:
    assert view((2,), (2, 2)) is not None
    assert view((2,), (2, 2), shared=False) is None


def test_columns_of_a_module_are_those_of_a_layer() -> None:
    theirs = np.random.default_rng(0).normal(size=(2, 5, 6))
    kept = Kept(theirs.shape, theirs.dtype, theirs.reshape(10, 6)[[0, 9, 8]], whole=False)
    wanted = Wanted(kept, None, np.array([4, 1]))
    layer = theirs[..., [4, 1]]
    found = wanted.view(layer.shape)
    assert found is not None
    got, want = wanted.pair(RunArray(layer, layer.shape).rows(found, kept))
    np.testing.assert_array_equal(got, want)
    assert got.shape == (3, 2)


def test_distances() -> None:
    x = np.array([3.0, 4.0])
    assert distance(x, x) == 0
    assert distance(2 * x, x) == pytest.approx(1)
    assert distance(np.array([np.nan, 4.0]), x) == np.inf
    assert distance(np.array([np.nan, 4.0]), np.array([np.nan, 4.0])) == 0
    assert distance(np.ones(2), np.zeros(2)) == np.inf


def test_trials_run_the_compiled_program_again(run: tuple[Recording, Counterparts, Trace]) -> None:
    _, _, trace = run
    compiled = trace.program._compiled._cache_size()
    twice = trace.again(jax.tree.map(lambda leaf: leaf, trace.model))
    assert trace.program._compiled._cache_size() == compiled == 1
    np.testing.assert_array_equal(twice.result, trace.result)
