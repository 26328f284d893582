"""`load`: a checkpoint into a model."""

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
    """The checkpoint of a source; it is closed afterwards unless the caller opened it."""
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
    """The keywords of `bridge.open`, in its order; other functions take them too."""
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
    """Load a checkpoint's weights into a model like `like`.

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
        own, 1 GiB by default. A leaf may be larger than that. On the CPU the arrays are host memory and are filled in
        place, unless this is given.
    - `progress`: `None` shows nothing, `True` shows a bar, a function is called with `(done_nbytes, nbytes)`.
    - `mmap`: use the files of a converted checkpoint on a local disk as the arrays' memory, if they are aligned.
    - `revision`, `token`, `cache_dir`, `local_files_only`: for a Hub repo: a branch, tag or commit; a token, or `False`
        for none; the folder of the cache; whether to use the cache only, without the network.
    - `subfolder`, `variant`: a folder in the source; `"fp16"` for `model.fp16.safetensors`.
    - `verify`: read all files and check their sha256 against the Hub's cache or a sidecar `<file>.sha256`.
    - `root`, `modules`: for files of `torch.save`: the path of the dict to read, such as `"model_ema"`; whether to read
        pickled modules too, by their attributes.

    **Returns:** `like` with a `jax.Array` in place of every array; PRNG keys and non-arrays stay as they are. Without
    `like`, a flat dict of leaf name to array.

    **Raises:** `PlanError` if keys and leaves do not fit, before a weight is read; `RuleError` for a wrong rule;
    `CheckpointError` for files that cannot be read or values that do not fit, and if another process loads other
    bytes into the same model. An error never leaves a model filled in part.

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
    """The leaves that no key fills, and the old values of leaves that keys fill in part."""
    from bridge.api.kept import kept_parts, kept_value  # most loads fill all leaves

    return {name: kept_value(name, made, model, where[name]) for name in made.kept}, kept_parts(made, model)


def _agreed(ckpt: Checkpoint, made: Plan, where: Mapping[str, Any]) -> AbstractContextManager[None]:
    """A context around the reads: if several processes load, all must load the same."""
    from bridge.place.sharding import spanned  # imports JAX

    processes = spanned(where)
    if len(processes) < 2:
        return nullcontext()
    from bridge.place.agreement import same_load_everywhere  # several processes alone have to agree

    return same_load_everywhere(ckpt, made, where, processes)
