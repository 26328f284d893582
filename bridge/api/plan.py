"""`plan`: what a load would do, proven from the headers of files alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bridge.api.load import open_keywords, opened
from bridge.api.planned import also_opened, planned, request_of
from bridge.planning.plan import Plan

if TYPE_CHECKING:
    from bridge.api.arguments import Adapters, AllowMissing, Dtype, Layouts, Rules, Source


def plan(
    source: Source,
    like: Any = None,
    rules: Rules = None,
    *,
    dtype: Dtype | Mapping[str, Dtype] | None = None,
    sharding: Any = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    adapters: Adapters = (),
    layouts: Layouts | None = None,
    max_host_bytes: int | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> Plan:
    """Plan a load: which elements go where, proven from the headers of files alone. Reads no weights.

    **Arguments:**

    - `source`: a file (safetensors or `torch.save`), a list of files, a folder, an fsspec URL, a Hub repo
        (`"org/name"`, if no such path exists), or an open `Checkpoint`. `bridge.open` says more.
    - `like`: the model to fill, concrete or abstract (`eqx.filter_eval_shape`), a pair `(model, state)`, or any pytree
        of arrays or `jax.ShapeDtypeStruct`. With `None` the leaves are a flat dict, with the names that rules give.
    - `rules`: which key goes into which leaf: a list of rules or texts, nested as `(text, [rules])`; a dict
        `{old: new}`; a text of one or more lines, one rule each; a path to a TOML file; or a `Plan`. A `Plan` is used
        as it is if keys, leaves and arguments are those it was made for; otherwise it is proven again. Keys that no
        rule matches go to the leaves of the same name.
    - `dtype`: `None` for each leaf's own dtype, `"checkpoint"` for the stored one, a dtype for all floating leaves, or
        a mapping of leaf patterns to these. The plan lists casts to narrower dtypes. A value that does not fit, or
        would become infinite, raises an error when it is read.
    - `sharding`: where the leaves go: a `jax.Device` or `Sharding`; a pytree prefix of these; `(mesh, {leaf pattern:
        PartitionSpec})`, or only the mapping under `jax.set_mesh`; or a function `(name, spec) -> Sharding`. Each
        process reads only the bytes of its own shards.
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
    - `max_host_bytes`: how many bytes of host memory a load may use at once on the way to devices with memory of their
        own, 1 GiB by default; `plan.peak_nbytes` depends on it.
    - `revision`, `token`, `cache_dir`, `local_files_only`: for a Hub repo: a branch, tag or commit; a token, or `False`
        for none; the folder of the cache; whether to use the cache only, without the network.
    - `subfolder`, `variant`: a folder in the source; `"fp16"` for `model.fp16.safetensors`.
    - `verify`: read all files and check their sha256 against the Hub's cache or a sidecar `<file>.sha256`.
    - `root`, `modules`: for files of `torch.save`: the path of the dict to read, such as `"model_ema"`; whether to read
        pickled modules too, by their attributes.

    **Returns:** a `Plan`. If keys and leaves do not fit, `plan.ok` is false and the lists of the plan say why.

    **Raises:** `CheckpointError` for a source that cannot be read; `RuleError` for a wrong rule; `PlanError` for a
    `like` or a dtype that cannot be used.

    ```python
    plan = bridge.plan("model.safetensors", like)
    assert plan.ok, plan.missing
    model = bridge.load("model.safetensors", like, plan)
    ```
    """
    from bridge.api.read import predicted  # these import JAX, and `bridge.plan` by itself is light
    from bridge.place.sharding import placements

    options = open_keywords(revision, subfolder, variant, token, cache_dir, local_files_only, verify, root, modules)
    with opened(source, **options) as stored, also_opened(adapters, options) as own:
        request = request_of(rules, dtype, allow_missing, allow_unexpected, sharding, quantized, own)
        ckpt, made, model = planned(stored, like, rules, request, layouts, own)
        where = placements(made.request.sharding, made.leaves, model)
        made = predicted(ckpt, made, where, max_host_bytes)
        if own:
            from bridge.api.adapters import with_kept  # few plans have any

            made = with_kept(made, ckpt)
        return made
