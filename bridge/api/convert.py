"""`convert`: a checkpoint in a model's own leaves; `revert`: the way back to the files that it came from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bridge._errors import CheckpointError, PlanError, SaveError
from bridge._text import quote
from bridge.api.content import LeftOut
from bridge.api.kept import kept_parts, kept_value
from bridge.api.load import open_keywords, opened
from bridge.api.planned import also_opened, planned, request_of
from bridge.api.progress import fetch, reporting
from bridge.api.save import SaveReport
from bridge.api.ties import ties_named
from bridge.converted import is_converted
from bridge.converted.record import lost_keys
from bridge.converted.restore import restore
from bridge.converted.write import write_converted
from bridge.place.work import in_flight
from bridge.source.checkpoint import open_checkpoint
from bridge.target.commit import Target

if TYPE_CHECKING:
    from bridge.api.arguments import Adapters, AllowMissing, Dtype, Layouts, Progress, Rules, Source

_DEFAULT_NBYTES = 48 << 20
"""What leaves are made in: more makes nothing faster, but where a tensor is larger and transposed."""


def convert(
    source: Source,
    target: str | os.PathLike[str],
    like: Any = None,
    rules: Rules = None,
    *,
    dtype: Dtype | Mapping[str, Dtype] | None = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    adapters: Adapters = (),
    layouts: Layouts | None = None,
    max_host_bytes: int | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> SaveReport:
    """Write a checkpoint in the form of a model's own leaves. `bridge.load(target, like)` then needs no rules.

    **Arguments:**

    - `source`: a `.safetensors` file, a list of files, a folder, an fsspec URL, a repo on the Hub (`"org/name"`, where
        no such path exists), or a `Checkpoint` that is open. `bridge.open` says more.
    - `target`: a folder, made if need be.
    - `like`: the model to fill, concrete or abstract (`eqx.filter_eval_shape`), a pair `(model, state)`, or any pytree
        of arrays or `jax.ShapeDtypeStruct`. `None` makes a flat dict of what the rules name.
    - `rules`: which key is which leaf. A list of rules or texts, nested as `(text, [rules])`; a dict `{old: new}`; a
        text of one rule or of several lines; a path to a TOML file; or a `Plan`, which holds as it is where it was made
        for the same keys, the same leaves and the same question, and is proven again elsewhere. What rules leave is
        matched by name.
    - `dtype`: `None` for each leaf's own, `"checkpoint"` for what is stored, a dtype for all floating leaves, or a
        mapping of leaf patterns to these. A cast to a narrower dtype is listed in the plan; a value that does not fit,
        or would become infinite, is an error when it is read.
    - `allow_missing`: patterns of leaves that may be absent, or filled in part, and keep the template's values; or
        a mapping of patterns to functions `(name, spec) -> array` that make one, whole.
    - `allow_unexpected`: patterns of keys that may be left over.
    - `quantized`: what becomes of weights that are stored as codes and scales. `"dequantize"`, the default: they are
        keys of their own, whatever their parts are called, and have values in each leaf's dtype. `"keep"`: codes and
        scales are keys, as they are stored; so they are with `dtype="checkpoint"`, and where a rule names one of them.
        A mapping: what stands in config.json as `quantization_config`, where the checkpoint has none; with
        `"as": "keep"` where wanted.
    - `adapters`: LoRA adapters to merge on the way: folders, files or repos on the Hub, PEFT's, kohya's or diffusers';
        each alone or as a pair of it and a weight, `("org/my-lora", 0.5)`.
    - `layouts`: layers of your own, `{MyLinear: "weight [o i] -> w [i o]"}`: for a type of layer a rule, or several,
        from PyTorch's names to the layer's leaves, both as the layer itself calls them. They go before ours.
    - `max_host_bytes`: bytes of memory to make leaves in, 48 MiB by default: a checkpoint may be larger than memory.
        A transposed tensor that is larger than this is read again for each part of it.
    - `overwrite`: replace a checkpoint that stands in the target.
    - `progress`: `None` is silent, `True` shows a bar, a function gets `(done_nbytes, nbytes)`.
    - `revision`, `token`, `cache_dir`, `local_files_only`: of a repo on the Hub a branch, tag or commit; a token, or
        `False` for none; where files are kept; whether to stay off the network.
    - `subfolder`, `variant`: a folder in the source; `"fp16"` for `model.fp16.safetensors`.
    - `verify`: read all files and check their sha256 against the Hub's cache or a sidecar `<file>.sha256`.
    - `root`, `modules`: of files of torch.save, the path of the dict that is meant, such as `"model_ema"`; whether to
        read whole modules too, by their attributes.

    **Returns:** a `SaveReport`.

    **Raises:** `PlanError` where keys and leaves do not meet, and for a source that is converted already; `RuleError`
    for a rule; `CheckpointError` for what reading finds; `SaveError` for the target.

    ```python
    bridge.convert("model.safetensors", "converted", like)
    model = bridge.load("converted", like)  # in milliseconds, whatever the size
    ```
    """
    place = Target(target, overwrite=overwrite)
    if place.single:
        raise SaveError(
            quote(str(target)), "is the name of a file, but the converted form is a folder", "Name a folder"
        )
    options = open_keywords(revision, subfolder, variant, token, cache_dir, local_files_only, verify, root, modules)
    with opened(source, **options) as stored, also_opened(adapters, options) as own:
        if is_converted(stored.metadata):
            raise PlanError(quote(stored.source), "is converted already", "Load it as it is, or revert it first")
        request = request_of(rules, dtype, allow_missing, allow_unexpected, quantized=quantized, adapters=own)
        ckpt, plan, model = planned(stored, like, rules, request, layouts, own)
        plan.check()
        max_nbytes = in_flight(max_host_bytes, plan.leaves, _DEFAULT_NBYTES)
        kept = {name: np.asarray(kept_value(name, plan, model)) for name in plan.kept}
        parts = kept_parts(plan, model)
        fetched = fetch(ckpt, ckpt.files, progress, after=plan.nbytes)
        with reporting(progress, "converting", before=fetched) as report, ties_named(plan):
            files, nbytes = write_converted(place, ckpt, plan, kept, parts, max_nbytes=max_nbytes, report=report)
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

    ```python
    bridge.convert("model.safetensors", "converted", like)
    bridge.revert("converted", "original")
    assert bridge.diff("original", "model.safetensors").equal
    ```
    """
    place = Target(target, overwrite=overwrite)
    with open_checkpoint(converted) as ckpt:
        if not is_converted(ckpt.metadata):
            raise CheckpointError(quote(ckpt.source), "was not written by convert", "Name a folder that was")
        return SaveReport(*restore(ckpt, place), ())
