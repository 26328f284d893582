"""`convert`: a checkpoint in a model's own leaves; `revert`: the way back to the files that it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from bridge._errors import CheckpointError, PlanError, SaveError
from bridge._text import quote
from bridge.api.content import LeftOut
from bridge.api.load import AllowMissing, OpenOptions, Rules, Source, kept_value, opened, planned, request_of
from bridge.api.progress import Progress, fetch, reporting
from bridge.api.save import SaveReport
from bridge.converted import is_converted
from bridge.converted.record import lost_keys
from bridge.converted.restore import restore
from bridge.converted.write import write_converted
from bridge.place.work import in_flight
from bridge.source.checkpoint import open_checkpoint
from bridge.target.commit import Target

if TYPE_CHECKING:
    from bridge.model.layouts import Layouts

_DEFAULT_NBYTES = 48 << 20
"""What leaves are made in: more makes nothing faster, but where a tensor is larger and transposed."""


def convert(
    source: Source,
    target: str | os.PathLike[str],
    like: Any = None,
    rules: Rules = None,
    *,
    dtype: Any = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    layouts: Layouts | None = None,
    max_host_bytes: int | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
    **options: Unpack[OpenOptions],
) -> SaveReport:
    """Write a checkpoint in the form of a model's own leaves. `bridge.load(target, like)` then needs no rules.

    **Arguments:** as for `bridge.load`, and

    - `target`: a folder, made if need be.
    - `overwrite`: replace a checkpoint that stands there.

    - `max_host_bytes`: memory to make leaves in, 48 MiB by default: a checkpoint may be larger than memory.
        A transposed tensor that is larger than this is read again for each part of it.

    **Returns:** a `SaveReport`.

    **Raises:** `CheckpointError`, `PlanError`, `RuleError` as `bridge.load` does; `SaveError` for the target.

    ```python
    bridge.convert("model.safetensors", "converted", like)
    model = bridge.load("converted", like)
    bridge.revert("converted", "original")
    ```
    """
    place = Target(target, overwrite=overwrite)
    if place.single:
        raise SaveError(f"{quote(str(target))} is one file: the converted form is a folder, name one")
    with opened(source, options) as stored:
        if is_converted(stored.metadata):
            raise PlanError(f"{quote(stored.source)} is converted already: load it as it is, or revert it first")
        request = request_of(rules, dtype, allow_missing, allow_unexpected, quantized=quantized)
        ckpt, plan, model = planned(stored, like, rules, request, layouts)
        plan.check()
        kept = {name: np.asarray(kept_value(name, plan, model)) for name in plan.kept}
        fetched = fetch(ckpt, ckpt.files, progress, after=plan.nbytes)
        with reporting(progress, "converting", before=fetched) as report:
            max_nbytes = in_flight(max_host_bytes, _DEFAULT_NBYTES)
            files, nbytes = write_converted(place, ckpt, plan, kept, max_nbytes=max_nbytes, report=report)
        lost = lost_keys(ckpt)
    left_out = [each for each in plan.lossy if each.key not in lost]
    return SaveReport(files, nbytes, tuple(LeftOut(*each) for each in (*left_out, *lost.items())))


def revert(converted: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False) -> SaveReport:
    """Write what was converted as it was: keys, dtypes, files and metadata, bit for bit.

    Of what torch.save had written, the keys with their dtypes, shapes and bits come back as safetensors: `model.pth` as
    `model.safetensors`. Tensors that share memory there have each their own.

    **Arguments:**

    - `converted`: a folder that `bridge.convert` wrote.
    - `target`: a folder, made if need be; for a checkpoint of one file also a name that ends in `.safetensors`.
    - `overwrite`: replace a checkpoint that stands in the target.

    Files keep their names where the target is empty; over another checkpoint they may get others. Several files that
    had no index get one.

    **Returns:** a `SaveReport`.

    **Raises:** `CheckpointError` where `converted` is no such folder; `SaveError` for the target.
    """
    place = Target(target, overwrite=overwrite)
    with open_checkpoint(converted) as ckpt:
        if not is_converted(ckpt.metadata):
            raise CheckpointError(f"{quote(ckpt.source)} was not written by convert: name a folder that was")
        return SaveReport(*restore(ckpt, place), ())
