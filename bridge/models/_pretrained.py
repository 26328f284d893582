"""`from_pretrained`: the model that a config.json names, with the weights of its checkpoint."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, overload

import equinox as eqx
import jax

import bridge
from bridge.models._architectures import ARCHITECTURES as ARCHITECTURES
from bridge.models._architectures import CLASSES, special_class
from bridge.models._parts import parts_of
from bridge.models._told import (
    UNWEIGHED,
    check_architecture,
    check_codes,
    check_head,
    check_one_dtype,
    check_size,
    made_in,
    model_type,
    read_config,
    tied_by_config,
)
from bridge.models.config import ModelConfig

M = TypeVar("M")


@overload
def from_pretrained(
    source: bridge.Source,
    *,
    model_class: type[M],
    dtype: bridge.Dtype | Mapping[str, bridge.Dtype] | None = None,
    sharding: Any = None,
    allow_missing: bridge.AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    adapters: bridge.Adapters = (),
    layouts: bridge.Layouts | None = None,
    max_host_bytes: int | None = None,
    ignore: Collection[str] = (),
    progress: bridge.Progress | bool | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> M: ...
@overload
def from_pretrained(
    source: bridge.Source,
    *,
    model_class: None = None,
    dtype: bridge.Dtype | Mapping[str, bridge.Dtype] | None = None,
    sharding: Any = None,
    allow_missing: bridge.AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    adapters: bridge.Adapters = (),
    layouts: bridge.Layouts | None = None,
    max_host_bytes: int | None = None,
    ignore: Collection[str] = (),
    progress: bridge.Progress | bool | None = None,
    revision: str | None = None,
    subfolder: str | None = None,
    variant: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    verify: bool = False,
    root: str | None = None,
    modules: bool = False,
) -> Any: ...
def from_pretrained(
    source: bridge.Source,
    *,
    model_class: type[Any] | None = None,
    dtype: bridge.Dtype | Mapping[str, bridge.Dtype] | None = None,
    sharding: Any = None,
    allow_missing: bridge.AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    adapters: bridge.Adapters = (),
    layouts: bridge.Layouts | None = None,
    max_host_bytes: int | None = None,
    ignore: Collection[str] = (),
    progress: bridge.Progress | bool | None = None,
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
    """Load a model of a well-known architecture with its weights. The checkpoint's `config.json` says which it is.

    **Arguments:**

    - `source`: a Hub repo id, a folder, or anything else that `bridge.open` takes, with a config.json beside the
        weights.
    - `model_class`: the class of the model, such as `bridge.models.llama.Llama`. A type checker takes it as the type of
        the result. It is an error if config.json names another class.
    - `dtype`: `None` for the dtype of the checkpoint's floats, or, for a quantised checkpoint, the dtype that the model
        was made in; a dtype for all floating leaves; or a mapping of leaf patterns to dtypes.
    - `ignore`: unknown fields of the config that change nothing in the model.
    - `sharding`: where the leaves go: a `jax.Device` or `Sharding`; `(mesh, {leaf pattern: PartitionSpec})`; or a
        function `(name, spec) -> Sharding`. Each process reads only the bytes of its own shards.
    - `allow_missing`: patterns of leaves that may have no key, or a mapping of patterns to functions
        `(name, spec) -> array`.
    - `allow_unexpected`: patterns of keys that may be left over, for example those of a head.
    - `quantized`: `None` for the values of quantised weights; or the `quantization_config` of a checkpoint whose
        config.json has none, as a mapping.
    - `adapters`: LoRA adapters to merge during the load: folders, files or Hub repos, one or a list. A pair adds a
        weight: `("org/my-lora", 0.5)`.
    - `layouts`: layouts for layers of your own, `{MyLinear: "weight [o i] -> w [i o]"}`; the layers of `equinox.nn`
        need none.
    - `max_host_bytes`: how many bytes of host memory a load may use at once on the way to devices with memory of their
        own, 1 GiB by default.
    - `progress`: `None` shows nothing, `True` shows a bar, a function is called with `(done_nbytes, nbytes)`.
    - `revision`, `token`, `cache_dir`, `local_files_only`: for a Hub repo: a branch, tag or commit; a token, or `False`
        for none; the folder of the cache; whether to use the cache only, without the network.
    - `subfolder`, `variant`: a folder in the source; `"fp16"` for `model.fp16.safetensors`.
    - `verify`: read all files and check their sha256 against the Hub's cache or a sidecar `<file>.sha256`.
    - `root`, `modules`: for files of `torch.save`: the path of the dict to read, such as `"model_ema"`; whether to read
        pickled modules too, by their attributes.

    **Returns:** an Equinox module with its config as `.config`. No code of the repo is run.

    **Raises:** `bridge.CheckpointError` for an unknown architecture, for a field of the config that is unknown or has
    a value that is not implemented, and for files that cannot be read; `bridge.PlanError` if the checkpoint does not
    have exactly the weights of the model.

    ```python
    model = bridge.models.from_pretrained("meta-llama/Llama-3.2-1B")
    logits = model(jnp.array([1, 22, 17, 4]))  # ids (seq,) -> (seq, vocab)
    ```
    """
    ckpt = bridge.open(
        source,
        revision=revision,
        subfolder=subfolder,
        variant=variant,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        verify=verify,
        root=root,
        modules=modules,
    )
    left_behind = [allow_unexpected] if isinstance(allow_unexpected, str) else allow_unexpected
    try:
        found = partial(architecture, ckpt, ignore=ignore, left_behind=left_behind, quantized=quantized)
        module, kind, config = found()
        name = _config_name(ckpt)
        if model_class is not None and not issubclass(kind, model_class):
            raise bridge.CheckpointError(
                f"'{ckpt.source}'",
                f"is a {kind.__name__} by its config.json, expected a {model_class.__name__}",
                f"Give model_class={kind.__name__}, or leave model_class out",
            )
        planned = partial(
            bridge.plan,
            ckpt,
            dtype=made_in(ckpt, quantized) if dtype is None else dtype,
            sharding=sharding,
            allow_missing=allow_missing,
            allow_unexpected=allow_unexpected,
            quantized=quantized,
            adapters=adapters,
            layouts=layouts,
            max_host_bytes=max_host_bytes,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )

        def made() -> tuple[Any, list[str], bridge.Plan]:
            like, rules = eqx.filter_eval_shape(kind, config, key=jax.random.key(0)), module.rules(config)
            return like, rules, planned(like, rules)

        like, rules, plan = made()
        if not plan.merged.keys() <= ckpt.keys():  # adapters may bring a head, or a pooler, that the base does not have
            _, _, whole = found(more=plan.merged)
            if whole != config:
                config = whole
                like, rules, plan = made()
        check_architecture(ckpt, like, plan, rules, name)
        check_head(plan, config, name)
        if dtype is None:
            check_codes(ckpt, plan)
            check_one_dtype(ckpt, plan)
        with tied_by_config(name):
            return bridge.load(
                ckpt,
                like,
                plan,
                adapters=adapters,
                layouts=layouts,
                max_host_bytes=max_host_bytes,
                progress=progress,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
    finally:
        if ckpt is not source:
            ckpt.close()


def architecture(
    source: Any,
    *,
    ignore: Collection[str] = (),
    left_behind: Sequence[str] = (),
    more: Collection[str] = (),
    quantized: str | Mapping[str, Any] | None = None,
) -> tuple[Any, Any, Any]:
    """The architecture that a checkpoint's config.json names: its module, its class, and the config.

    Arguments and errors as for `from_pretrained`. `left_behind`: patterns of keys; a head with such a key is left out.
    `more`: keys that adapters add.
    """
    ckpt = bridge.open(source)
    try:
        name = _config_name(ckpt)
        data = read_config(ckpt, name)
        found = model_type(data, name, ARCHITECTURES)
        special = special_class(data.get("architectures"))
        file, _, kind = (CLASSES[special] if special else ARCHITECTURES[found]).partition(".")
        module = import_module(f"bridge.models.{file}")
        parts = parts_of(
            module,
            ckpt,
            data.get("architectures"),
            left_behind=left_behind,
            more=more,
            classifier=bool(special),
            quantized=quantized,
        )
        configs = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, ModelConfig)]
        sizes = {field.name for each in configs for field in dataclasses.fields(each)} - UNWEIGHED
        check_size(ckpt, data, sizes, name)  # before a config makes something of them
        of_type = [each for each in configs if found in getattr(each, "model_types", ()) and not each.classes]
        own = next((each for each in configs if special in each.classes), (*of_type, module.Config)[0])
        config = own.from_dict(data, ignore=ignore, name=name, **parts)
        check_size(ckpt, vars(config), sizes, name)
        return module, getattr(module, kind), config
    finally:
        if ckpt is not source:
            ckpt.close()


def _config_name(ckpt: bridge.Checkpoint) -> str:
    """What messages call the config: it lies beside the weights."""
    source = ckpt.source.rstrip("/")
    return f"{os.path.dirname(source) if source.endswith(ckpt.files) else source}/config.json"
