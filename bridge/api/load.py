"""`load`: the straight line from a source to a model."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from bridge.api.planned import also_opened, planned, request_of
from bridge.format.table import collector_off
from bridge.planning.plan import Plan
from bridge.source.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    import jax

    from bridge.api.arguments import Adapters, AllowMissing, Dtype, Layouts, OpenOptions, Progress, Rules, Source
    from bridge.place.kept import KeptPart

T = TypeVar("T")


@contextmanager
def opened(source: Source, **options: Unpack[OpenOptions]) -> Generator[Checkpoint]:
    """The checkpoint behind a source; closed afterwards unless the caller opened it."""
    ckpt = open_checkpoint(source, **options)
    try:
        yield ckpt
    finally:
        if ckpt is not source:
            ckpt.close()


def open_keywords(
    revision: str | None,
    subfolder: str | None,
    variant: str | None,
    token: str | bool | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    verify: bool,
    root: str | None,
    modules: bool,
) -> OpenOptions:
    """The keywords of `bridge.open`, which other functions take too, in their order there."""
    return {
        "revision": revision,
        "subfolder": subfolder,
        "variant": variant,
        "token": token,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "verify": verify,
        "root": root,
        "modules": modules,
    }


@overload
def load(
    source: Source,
    like: T,
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
    progress: Progress | bool | None = None,
    mmap: bool = True,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> T: ...
@overload
def load(
    source: Source,
    *,
    rules: Rules = None,
    dtype: Dtype | Mapping[str, Dtype] | None = None,
    sharding: Any = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    adapters: Adapters = (),
    layouts: Layouts | None = None,
    max_host_bytes: int | None = None,
    progress: Progress | bool | None = None,
    mmap: bool = True,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> dict[str, jax.Array]: ...
def load(
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
    progress: Progress | bool | None = None,
    mmap: bool = True,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> Any:
    """The checkpoint's weights in a model like `like`.

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
        default: the host is a staging area, and no leaf needs its whole self there. On the CPU the arrays are host
        memory and are filled in place, unless this is given.
    - `progress`: `None` is silent, `True` shows a bar, a function gets `(done_nbytes, nbytes)`.
    - `mmap`: let the files of a converted checkpoint on a local disk be the arrays' memory, where they are aligned.
    - `revision`, `token`, `cache_dir`, `local_files_only`: of a repo on the Hub a branch, tag or commit; a token, or
        `False` for none; where files are kept; whether to stay off the network.
    - `subfolder`, `variant`: a folder in the source; `"fp16"` for `model.fp16.safetensors`.
    - `verify`: read all files and check their sha256 against the Hub's cache or a sidecar `<file>.sha256`.
    - `root`, `modules`: of files of torch.save, the path of the dict that is meant, such as `"model_ema"`; whether to
        read whole modules too, by their attributes.

    **Returns:** `like` with every array replaced by a `jax.Array`; what is no array, and PRNG keys, stay as they are.
    Without `like` a flat dict of leaf name to array.

    **Raises:** `PlanError`, before a weight is read, where keys and leaves do not meet; `RuleError` for a rule;
    `CheckpointError` for what reading finds, and where another process loads other bytes into the same model; never a
    model filled in part.

    ```python
    like = eqx.filter_eval_shape(eqx.nn.Linear, 3, 2, key=jax.random.key(0))
    linear = bridge.load("model.safetensors", like)
    assert linear.weight.shape == (2, 3)
    ```
    """
    from bridge.api.read import read_leaves  # these import JAX, and `bridge.load` by itself is light
    from bridge.place.sharding import placements

    options = open_keywords(revision, subfolder, variant, token, cache_dir, local_files_only, verify, root, modules)
    with collector_off(many=True), opened(source, **options) as stored, also_opened(adapters, options) as own:
        request = request_of(rules, dtype, allow_missing, allow_unexpected, sharding, quantized, own)
        ckpt, made, model = planned(stored, like, rules, request, layouts, own)
        made.check()
        where = placements(made.request.sharding, made.leaves, model)
        with _agreed(ckpt, made, where):
            kept, parts = _kept(made, model, where) if made.kept or made.partly else ({}, {})
            values = read_leaves(ckpt, made, where, max_host_bytes, progress, mmap=mmap, kept=parts)
    return values if model is None else model.filled(values | kept)


def _kept(made: Plan, model: Any, where: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, KeptPart]]:
    """The leaves that no key fills, and what those keep that keys fill in part."""
    from bridge.api.kept import kept_parts, kept_value  # most loads fill all leaves

    return {name: kept_value(name, made, model, where[name]) for name in made.kept}, kept_parts(made, model)


def _agreed(ckpt: Checkpoint, made: Plan, where: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Around reading: whether all processes load the same, where several do."""
    from bridge.place.sharding import spanned  # imports JAX

    processes = spanned(where)
    if len(processes) < 2:
        return nullcontext()
    from bridge.place.agreement import same_load_everywhere  # several processes alone have to agree

    return same_load_everywhere(ckpt, made, where, processes)
