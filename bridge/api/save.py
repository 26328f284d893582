"""`save`: a model into files that PyTorch and transformers read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bridge._dtypes import DTYPES, dtype_name
from bridge._errors import CheckpointError, PlanError, SaveError
from bridge._text import quote
from bridge.api.content import Content, LeftOut
from bridge.api.files import SaveFiles, write_alone
from bridge.api.progress import reporting
from bridge.api.stacks import stack_remarks
from bridge.api.together import write_together
from bridge.format.table import collector_off
from bridge.mapping.template import Template
from bridge.model.template import take_apart
from bridge.place.local import processes
from bridge.place.save_group import SaveGroup
from bridge.planning.plan import Plan
from bridge.rules.rule import rules_of
from bridge.source.checkpoint import Checkpoint, open_checkpoint
from bridge.target.commit import Target, is_one_file
from bridge.target.files import parse_nbytes

if TYPE_CHECKING:
    from bridge.api.arguments import Dtype, Layouts, Progress, Rules, Source


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What `bridge.save` wrote.

    - `files`: the names of the files in the target, including the index.
    - `nbytes`: the total size of these files in bytes.
    - `left_out`: leaves and keys that were not saved, or not with their own values, each with the reason.
    - `remarks`: texts about other things to check: stacks that were saved as stacks, keys that come from the base.

    ```python
    report = bridge.save(model, "saved.safetensors")
    assert report.files == ("saved.safetensors",)
    assert report.nbytes > 0 and report.left_out == ()
    ```
    """

    files: tuple[str, ...]
    nbytes: int
    left_out: tuple[LeftOut, ...]
    remarks: tuple[str, ...] = ()


@collector_off(many=True)
def save(
    model: Any,
    target: str | os.PathLike[str],
    rules_or_plan: Rules = None,
    *,
    base: Source | None = None,
    leave_out: Sequence[str] | str = (),
    layouts: Layouts | None = None,
    dtype: Dtype | None = None,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    verify: bool = False,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
) -> SaveReport:
    """Save a model under PyTorch's keys: the mapping of `bridge.load`, applied backwards.

    **Arguments:**

    - `model`: the model, or a `(model, state)` pair. If it is sharded over several processes, all of them call `save`,
        and each writes the shards of its own devices.
    - `target`: a folder, created if it does not exist; or a name that ends in `.safetensors`, for one file.
    - `rules_or_plan`: a `Plan` writes every key that it read, in the dtype that it read. Rules, as for `bridge.load`,
        write every leaf under the key that a load would read, in the leaf's dtype. A leaf that neither names is written
        under its own name, in PyTorch's layout of its layer. Leaves that are copies of one key are written once; it is
        an error if their values differ.
    - `base`: a checkpoint, usually the one that was loaded; anything that `bridge.open` takes. Every key that no leaf
        is saved as is copied from it, bit for bit: keys that the plan dropped, and keys that it allowed to be left
        over. Elements of a key that no leaf holds are copied too. The tensors are distributed over files as in the
        base, with its file names and metadata. Rules are planned against the base first, so its keys keep its dtypes.
    - `leave_out`: patterns of leaves that are not written.
    - `layouts`: layouts for layers of your own, `{MyLinear: "weight [o i] -> w [i o]"}`: for a layer type one rule or
        several, from PyTorch's names to the layer's leaves. A `Plan` already contains them; new leaves need them.
    - `dtype`: `None` for the dtypes described above, `"model"` for those of the leaves, or a dtype for all floating
        tensors.
    - `max_shard_size`: the largest size of a file: a number of bytes, or a text such as `"5GB"` or `"500MiB"`. A larger
        tensor gets a file of its own. With a `base` this has no effect.
    - `metadata`: the `__metadata__` of the files, by default `{"format": "pt"}`, or that of the base.
    - `overwrite`: replace a checkpoint in the target. At every moment the target holds the whole old one or the whole
        new one.
    - `progress`: `None` shows nothing, `True` shows a bar, a function is called with `(done_nbytes, nbytes)`.
    - `verify`: read every file back from the disk and compare it with the model before the rename. The lengths of files
        are always checked.

    **Returns:** a `SaveReport`.

    **Raises:** `SaveError` for a target that cannot be written, and if one of several saving processes fails or dies;
    `PlanError` if model and rules do not fit.

    ```python
    plan = bridge.plan("model.safetensors", like)
    model = bridge.load("model.safetensors", like, plan)
    report = bridge.save(model, "tuned.safetensors", plan)
    ```
    """
    parts = take_apart(model, layouts)
    leaves = {name: leaf.value for name, leaf in parts.arrays.items()}
    team = processes(leaves)
    with ExitStack() as stack:
        group = stack.enter_context(SaveGroup(team)) if team else None
        # The target comes first: of several processes the one that commits looks at it, for all.
        place = Target(target, overwrite=overwrite) if group is None or group.is_leader else None
        _check_leaves(leaves, model)
        rules = rules_or_plan if isinstance(rules_or_plan, Plan) else rules_of(rules_or_plan)
        ckpt = None if base is None else stack.enter_context(_opened(base))
        content = Content.of(parts.template, leaves, rules, target, leave_out, dtype, ckpt)
        if group is None:
            content.check_copies(leaves)
        limit = parse_nbytes(max_shard_size)
        single = Path(target).name if is_one_file(target) else None
        files = SaveFiles.of(content, leaves, _metadata(metadata, content), limit=limit, single=single)
        with reporting(progress, "writing") as report:
            if group is None:
                assert place is not None
                names, nbytes = write_alone(place, files, report, verify=verify)
            else:
                names, nbytes = write_together(group, place, Path(target), files, report, verify=verify)
    return SaveReport(
        names, nbytes, tuple(content.not_written(leaves)), tuple(_remarks(model, parts.template, content))
    )


def _opened(base: Source) -> AbstractContextManager[Checkpoint]:
    """The base, closed afterwards if it was not open before."""
    return nullcontext(base) if isinstance(base, Checkpoint) else open_checkpoint(base)


def _metadata(given: Mapping[str, str] | None, content: Content) -> dict[str, str]:
    if given is not None:
        return _text_only(given)
    return {"format": "pt"} if content.base is None else content.base.metadata


def _remarks(model: Any, template: Template, content: Content) -> Iterator[str]:
    yield from stack_remarks(model, template, content)
    if content.base is not None:
        yield from content.base.remarks()


def _text_only(metadata: Mapping[str, str]) -> dict[str, str]:
    """What safetensors can keep. **Raises:** `SaveError`."""
    for name, value in metadata.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise SaveError(
                f"metadata {name!r}",
                f"is {value!r} ({type(value).__name__}), but safetensors keeps only text",
                f"Write {str(value)!r}",
            )
    return dict(metadata)


def _check_leaves(leaves: Mapping[str, Any], model: Any) -> None:
    """All arrays have values to save. **Raises:** `PlanError`."""
    if not leaves:
        raise PlanError(
            "the model to save",
            f"is a {type(model).__name__} without arrays",
            "Give a model, or the pair (model, state)",
        )
    for name, value in leaves.items():
        problem = _problem(value)
        if problem is not None:
            raise PlanError(f"leaf {quote(name)}", *problem)


def _problem(value: Any) -> tuple[str, str] | None:
    """Why an array cannot be saved, and what to do."""
    if isinstance(value, jax.ShapeDtypeStruct):
        return "is a shape without values", "Give a model that has arrays"
    if isinstance(value, jax.Array) and value.is_deleted():
        return "was deleted, as a donated array is", "Save the model that took its place"
    try:
        packed = DTYPES[dtype_name(np.dtype(value.dtype))].packed
    except CheckpointError:
        return f"is {value.dtype}, a dtype that safetensors has no name for", "Cast it before saving"
    if packed:
        return f"is {value.dtype}, which files pack and this release does not write", "Cast it before saving"
    return None
