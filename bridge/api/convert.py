"""`convert`: a checkpoint stored as a model's own leaves; `revert`: back to the original files."""

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
    """Write a checkpoint that stores a model's own leaves. `bridge.load(target, like)` then needs no rules.

    **Arguments:**

    - `source`: a `.safetensors` file, a list of files, a folder, an fsspec URL, a repo on the Hub (`"org/name"`, where
        no such path exists), or a `Checkpoint` that is open. `bridge.open` says more.
    - `target`: a folder; it is created if it does not exist.
    - `like`: the model to fill, concrete or abstract (`eqx.filter_eval_shape`), a pair `(model, state)`, or any pytree
        of arrays or `jax.ShapeDtypeStruct`. `None` makes a flat dict of what the rules name.
    - `rules`: which key is which leaf. A list of rules or texts, nested as `(text, [rules])`; a dict `{old: new}`; a
        text of one rule or of several lines; a path to a TOML file; or a `Plan`, which holds as it is where it was made
        for the same keys, the same leaves and the same question, and is proven again elsewhere. What rules leave is
        matched by name.
    - `dtype`: `None` for each leaf's own, `"checkpoint"` for what is stored, a dtype for all floating leaves, or a
        mapping of leaf patterns to these. A cast to a narrower dtype is listed in the plan; a value that does not fit,
        or would become infinite, is an error when it is read.
    - `allow_missing`: patterns of leaves that may have no key, or keys for a part only; they keep the values of
        `like`. Or a mapping of patterns to functions `(name, spec) -> array`, which make such a leaf as a whole.
    - `allow_unexpected`: patterns of keys that no leaf needs.
    - `quantized`: how to treat weights that are stored as codes and scales. With `"dequantize"`, the default, each such
        weight is one key, and its values get the dtype of the leaf. With `"keep"`, codes and scales are keys as they
        are stored; the same holds for `dtype="checkpoint"`, and for a weight of which a rule names a part. A mapping is
        the `quantization_config` of a checkpoint whose config.json has none; add `"as": "keep"` to keep codes.
    - `adapters`: LoRA adapters to merge during the load: folders, files or Hub repos in the layouts of PEFT, kohya or
        diffusers, one or a list. A pair adds a weight: `("org/my-lora", 0.5)`.
    - `layouts`: layouts for layers of your own, `{MyLinear: "weight [o i] -> w [i o]"}`: for a layer type one rule or
        several, from PyTorch's names to the layer's leaves, both relative to the layer. They precede the built-in
        layouts.
    - `max_host_bytes`: how many bytes of memory the leaves are made in, 48 MiB by default: a checkpoint may be larger
        than the memory. A larger tensor that is transposed is read again for each of its parts.
    - `overwrite`: replace a checkpoint in the target.
    - `progress`: `None` shows nothing, `True` shows a bar, a function is called with `(done_nbytes, nbytes)`.
    - `revision`, `token`, `cache_dir`, `local_files_only`: for a Hub repo: a branch, tag or commit; a token, or `False`
        for none; the folder of the cache; whether to use the cache only, without the network.
    - `subfolder`, `variant`: a folder in the source; `"fp16"` for `model.fp16.safetensors`.
    - `verify`: read all files and check their sha256 against the Hub's cache or a sidecar `<file>.sha256`.
    - `root`, `modules`: for files of `torch.save`: the path of the dict to read, such as `"model_ema"`; whether to read
        pickled modules too, by their attributes.

    **Returns:** a `SaveReport`.

    **Raises:** `PlanError` if keys and leaves do not fit, and for a source that is already converted; `RuleError` for a
    wrong rule; `CheckpointError` for files that cannot be read; `SaveError` for a target that cannot be written.

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
    """Write the original of a converted checkpoint: its keys, dtypes, files and metadata, bit for bit.

    The original of a `torch.save` file is written as safetensors with the same keys, dtypes, shapes and bits:
    `model.pth` becomes `model.safetensors`. Tensors that shared memory become separate tensors.

    **Arguments:**

    - `converted`: a folder that `bridge.convert` wrote.
    - `target`: a folder, created if it does not exist; for a checkpoint of one file also a name that ends in
        `.safetensors`.
    - `overwrite`: replace a checkpoint in the target.

    In an empty target the files keep their names; if they replace another checkpoint, they may get new names. Several
    files that had no index get one.

    **Returns:** a `SaveReport`.

    **Raises:** `CheckpointError` if `convert` did not write the folder; `SaveError` for a target that cannot be
    written.

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
