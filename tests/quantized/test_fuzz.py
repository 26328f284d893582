"""Whatever keys, shapes and configs a file holds: an answer, or a `CheckpointError`. Never anything else."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import CheckpointError
from bridge.quantized import find
from bridge.quantized.formats import FORMATS
from tests.quantized.stored import Spec, whole

DTYPES = [
    np.dtype(t)
    for t in (
        "u1",
        "i1",
        "i4",
        "u4",
        "f2",
        "f4",
        "i8",
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e8m0fnu,
    )
]
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 16, 32, 64, 96, 128]), max_size=4).map(tuple)
JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 200) | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    *(
        "bits",
        "num_bits",
        "group_size",
        "sym",
        "desc_act",
        "checkpoint_format",
        "format",
        "version",
        "zero_point",
        "mode",
    ),
    *("weight_block_size", "config_groups", "ignore", "targets", "weights", "block_structure", "symmetric", "strategy"),
    *(
        "dynamic",
        "transform_config",
        "sparsity_config",
        "modules_to_not_convert",
        "exclude_modules",
        "packing_format",
        "m",
    ),
)
SENSIBLE = {
    "bits": st.sampled_from([2, 3, 4, 5, 8]),
    "num_bits": st.sampled_from([2, 3, 4, 8]),
    "group_size": st.sampled_from([-1, 0, 1, 8, 16, 32, 64]),
    "weight_block_size": st.just([128, 128]),
    "config_groups": st.builds(
        lambda bits, group: {"g": {"targets": ["Linear"], "weights": {"num_bits": bits, "group_size": group}}},
        st.sampled_from([3, 4, 8]),
        st.sampled_from([None, 8, 16, 32]),
    ),
}


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[dict[str, Spec], dict[str, Any]]:
    """Modules that nearly are of one format, and a config that nearly says so."""
    method = draw(st.sampled_from(sorted(FORMATS)))
    tensors: dict[str, Spec] = {}
    for base in draw(st.lists(st.sampled_from(["m", "n", "m.self_attn"]), max_size=2, unique=True)):
        chosen = FORMATS[draw(st.just(method) | st.sampled_from(sorted(FORMATS)))]
        stored = draw(st.sampled_from(chosen.stored))
        rows, columns = draw(st.sampled_from([(8, 64), (64, 8), (0, 8), (32, 32)]))
        likely = [
            (),
            (1,),
            (rows,),
            (rows, 1),
            (rows, 2),
            (rows, columns),
            (columns, rows),
            (16,),
            (2,),
            (columns,),
            (1, rows),
        ]
        shapes = st.sampled_from(likely) | SHAPES
        tensors[base + stored.head] = Spec(draw(st.sampled_from(sorted(stored.dtypes, key=str))), draw(shapes))
        for endings in stored.roles.values():
            if draw(st.integers(0, 3)):
                tensors[base + draw(st.sampled_from(endings))] = Spec(draw(st.sampled_from(DTYPES)), draw(shapes))
    fields: dict[str, Any] = {"quant_method": draw(st.just(method) | JUNK)}
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=6, unique=True)):
        fields[name] = draw(SENSIBLE[name] if name in SENSIBLE and draw(st.integers(0, 3)) else JUNK)
    section = draw(st.sampled_from(["quantization_config", "quantization", "compression_config", "nothing"]))
    return tensors, {section: fields}


@settings(max_examples=300)
@given(checkpoints(), st.sampled_from([0, 1, 2]))
def test_an_answer_or_an_error_of_ours(checkpoint: tuple[dict[str, Spec], dict[str, Any]], fill: int):
    tensors, config = checkpoint
    names, forms = list(tensors), list(dict.fromkeys(tensors.values()))
    columns = names, [forms.index(spec) for spec in tensors.values()], forms
    try:
        found = find(*columns, config)
        if found.needs:
            values = {key: _filled(tensors[key].shape, tensors[key].dtype, fill) for key in found.needs}
            found = find(*columns, config, values=values)
        for tensor in found.tensors.values():
            box = whole(tensor.form.shape)
            parts: list[np.ndarray] = []
            for key, inner in zip(tensor.parts, tensor.form.view.boxes(box), strict=True):
                assert all(0 <= r.start <= r.stop <= n for r, n in zip(inner, tensors[key].shape, strict=True))
                parts.append(_filled(tuple(map(len, inner)), tensors[key].dtype, fill))
            tensor.form.view.values(box, parts, np.empty(tensor.form.shape, np.float32))
    except CheckpointError as error:
        said = str(error)
    else:
        said = ""
    assert not said or said.isprintable()


def _filled(shape: tuple[int, ...], dtype: np.dtype, fill: int) -> np.ndarray:
    made = np.zeros(shape, dtype)
    made[...] = fill
    return made
