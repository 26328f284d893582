"""`plan`: what a load would do, proven from headers alone."""

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
    """What would go where, proven from headers alone. Reads no weights.

    **Arguments:**

    - `source`: a `.safetensors` file, a list of files, a folder, an fsspec URL, a repo on the Hub (`"org/name"`, where
        no such path exists), or a `Checkpoint` that is open. `bridge.open` says more.
    - `like`: the model to fill, concrete or abstract (`eqx.filter_eval_shape`), a pair `(model, state)`, or any pytree
        of arrays or `jax.ShapeDtypeStruct`. `None` makes a flat dict of what the rules name.
    - `rules`: which key is which leaf. A list of rules or texts, nested as `(text, [rules])`; a dict `{old: new}`; a
        text of one rule or of several lines; a path to a TOML file; or a `Plan`, which holds as it is where it was made
        for the same keys, the same leaves and the same question, and is proven again elsewhere. What rules leave is
        matched by name.
    - `dtype`: `None` for each leaf's own, `"checkpoint"` for what is stored, a dtype for all floating leaves, or a
        mapping of leaf patterns to these. A cast to a narrower dtype is listed in the plan; a value that does not fit,
        or would become infinite, is an error when it is read.
    - `sharding`: where leaves go. A `jax.Device` or `Sharding`; a pytree prefix of them; `(mesh, {leaf pattern:
        PartitionSpec})`, or only the mapping under `jax.set_mesh`; a function `(name, spec) -> Sharding`. Each process
        reads the bytes of its own shards.
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
    - `max_host_bytes`: bytes that may be in flight between the files and devices with memory of their own, 1 GiB by
        default; `plan.peak_nbytes` depends on it.
    - `revision`, `token`, `cache_dir`, `local_files_only`: of a repo on the Hub a branch, tag or commit; a token, or
        `False` for none; where files are kept; whether to stay off the network.
    - `subfolder`, `variant`: a folder in the source; `"fp16"` for `model.fp16.safetensors`.
    - `verify`: read all files and check their sha256 against the Hub's cache or a sidecar `<file>.sha256`.
    - `root`, `modules`: of files of torch.save, the path of the dict that is meant, such as `"model_ema"`; whether to
        read whole modules too, by their attributes.

    **Returns:** a `Plan`. Where keys and leaves do not meet `plan.ok` is False and its lists say why.

    **Raises:** `CheckpointError` for a source that cannot be read; `RuleError` for a rule; `PlanError` for a template
    or a dtype that makes no sense.

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
