"""`open`, `plan`, `load`: the straight line from a source to a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import numpy as np

from bridge._errors import PlanError
from bridge._progress import Progress, reporting
from bridge._text import quote
from bridge.format.native import is_native
from bridge.mapping.pattern import Names
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, Request, make_plan
from bridge.planning.policy import DtypePolicy
from bridge.rules.rule import Rule
from bridge.rules.toml import rules_of
from bridge.source.checkpoint import Checkpoint, open_checkpoint
from bridge.stream.buffers import empty
from bridge.stream.direct import CHUNK
from bridge.stream.fill import fill
from bridge.stream.jobs import jobs
from bridge.stream.mapped import mapped
from bridge.stream.run import THREADS

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Checkpoint
Rules = Sequence[Rule | str] | str | os.PathLike[str] | Plan | None
Filler = Callable[[str, Spec], Any]
AllowMissing = Sequence[str] | str | Mapping[str, Filler]


class OpenOptions(TypedDict, total=False):
    """The keywords of `bridge.open`."""

    revision: str | None
    subfolder: str | None
    variant: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool
    verify: bool


@contextmanager
def opened(source: Source, options: OpenOptions) -> Iterator[Checkpoint]:
    """The checkpoint behind a source; closed afterwards unless the caller opened it."""
    ckpt = open_checkpoint(source, **options)
    try:
        yield ckpt
    finally:
        if ckpt is not source:
            ckpt.close()


def plan(
    source: Source,
    like: Any,
    rules: Rules = None,
    *,
    dtype: Any = None,
    sharding: Any = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    max_host_bytes: int | None = None,
    **options: Unpack[OpenOptions],
) -> Plan:
    """What would go where, proven from headers alone. Reads no weights.

    **Arguments:**

    - `source`: whatever `bridge.open` takes; its keywords may be given here too.
    - `like`: the model to fill, concrete or abstract (`eqx.filter_eval_shape`), or any pytree of arrays or
        `jax.ShapeDtypeStruct`; `None` makes a flat dict of what the rules name.
    - `rules`: a list of rules or texts, one text, a path to a TOML file, or a `Plan`.
    - `dtype`: `None` for each leaf's own, `"checkpoint"` for what is stored, a dtype for all floating leaves, or a
        mapping of leaf patterns to these.
    - `allow_missing`: patterns of leaves that may be absent and keep the template's value, or a mapping of patterns to
        functions `(name, spec) -> array` that make one.
    - `allow_unexpected`: patterns of keys that may be left over.

    **Returns:** a `Plan`; where keys and leaves do not meet `plan.ok` is False and its lists say why.

    **Raises:** `CheckpointError`, `RuleError`; `PlanError` for a template or a dtype that makes no sense.
    """
    from bridge.place.sharding import placements

    with opened(source, options) as ckpt:
        made, model = planned(ckpt, like, request_of(rules, dtype, allow_missing, allow_unexpected))
        return _predicted(ckpt, made, placements(sharding, made.leaves, model))


def load(
    source: Source,
    like: Any,
    rules: Rules = None,
    *,
    dtype: Any = None,
    sharding: Any = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    max_host_bytes: int | None = None,
    progress: Progress | bool | None = None,
    mmap: bool = True,
    **options: Unpack[OpenOptions],
) -> Any:
    """The checkpoint's weights in a model like `like`. Arguments as for `bridge.plan`.

    - `progress`: `None` is silent, `True` shows a bar, a function gets `(done_nbytes, nbytes)`.
    - `mmap`: let the files of a converted checkpoint on a local disk be the arrays' memory, where they are aligned.

    **Returns:** `like` with every array replaced by a `jax.Array`; what is no array, and PRNG keys, stay as they are.
    For `like=None` a flat dict of leaf name to array.

    **Raises:** `PlanError`, before a weight is read, where keys and leaves do not meet; `CheckpointError` for what
    reading finds; never a model that is filled in part.

    ```python
    like = eqx.filter_eval_shape(eqx.nn.Linear, 3, 2, key=jax.random.key(0))
    linear = bridge.load("linear.safetensors", like)
    ```
    """
    from bridge.place.sharding import placements

    with opened(source, options) as ckpt:
        made, model = planned(ckpt, like, request_of(rules, dtype, allow_missing, allow_unexpected))
        made.check()
        values = _read(ckpt, made, placements(sharding, made.leaves, model), progress, mmap=mmap)
    if model is None:
        return values
    for name in made.kept:
        values[name] = kept_value(name, made.leaves[name], model, allow_missing)
    return model.filled(values)


def request_of(rules: Rules, dtype: Any, allow_missing: AllowMissing, allow_unexpected: Sequence[str] | str) -> Request:
    """What was asked for; a `Plan` as rules brings its own answers along."""
    missing, unexpected = Names.of(allow_missing), Names.of(allow_unexpected)
    policy = DtypePolicy.of(dtype)
    if not isinstance(rules, Plan):
        return Request(rules_of(rules), policy, missing, unexpected)
    before = rules.request
    return Request(
        rules.rules,
        policy if dtype is not None else before.dtype,
        Names.of((*before.allow_missing.texts, *missing.texts)),
        Names.of((*before.allow_unexpected.texts, *unexpected.texts)),
    )


def planned(ckpt: Checkpoint, like: Any, request: Request) -> tuple[Plan, Any]:
    """The plan, and the template taken apart."""
    from bridge.model.template import take_apart
    from bridge.place.arrays import canonical

    model = None if like is None else take_apart(like)
    template = None if model is None else model.template
    if is_native(ckpt.metadata):
        request = _of_its_own(ckpt, request)
        # Its keys are leaf names and its tensors leaves: no layout has a say any more.
        template = None if template is None else Template(template.leaves, kind=template.kind)
    made = make_plan(ckpt.specs, template, request, source=ckpt.source, canonical=canonical)
    return made, model


def _of_its_own(ckpt: Checkpoint, request: Request) -> Request:
    """The request without the rules that a converted checkpoint has behind it. **Raises:** `PlanError` for others."""
    if request.rules:
        from bridge._native import read_record

        record = read_record(ckpt)
        given = [str(rule) for rule in request.rules]
        if given not in (record["rules"], record["plan"]["rules"]):
            raise PlanError(
                f"{quote(ckpt.source)} was converted by other rules than these: load it without rules, or convert the "
                "original again"
            )
    return replace(request, rules=())


def _predicted(ckpt: Checkpoint, made: Plan, where: Mapping[str, Any]) -> Plan:
    """The plan with the bytes that this process reads, and the memory that it needs for that at once."""
    from bridge.place.work import Work

    if not made.ok:
        return made
    work = Work(made.blocks, _filled(made), where)
    dtypes = {name: dtype for name, (_, dtype) in work.buffers.items()}
    peak_nbytes = work.nbytes + THREADS * CHUNK
    nbytes = sum(job.nbytes for job in jobs(work.blocks, ckpt.specs, dtypes))
    return replace(made, nbytes=nbytes, peak_nbytes=peak_nbytes)


def _filled(made: Plan) -> dict[str, Spec]:
    """The leaves that keys or layers fill."""
    return {name: spec for name, spec in made.leaves.items() if name not in made.kept}


def _read(
    ckpt: Checkpoint, made: Plan, where: Mapping[str, Any], progress: Progress | bool | None, *, mmap: bool
) -> dict[str, Any]:
    """Every leaf that the plan fills, read and placed."""
    from bridge.place.memory import check_memory
    from bridge.place.work import Work

    filled = _filled(made)
    work = Work(made.blocks, filled, where)
    memory = mapped(work.whole, ckpt.specs, ckpt, filled) if mmap and is_native(ckpt.metadata) else {}
    blocks = [block for block in work.blocks if block.leaf not in memory]
    check_memory(work.nbytes - sum(array.nbytes for array in memory.values()), ckpt.source)
    memory |= {name: empty(shape, dtype) for name, (shape, dtype) in work.buffers.items() if name not in memory}
    for name, value in made.fills.items():
        for buffer in work.memory(name, memory):
            buffer.fill(value)
    with reporting(progress) as report:
        fill(blocks, ckpt.specs, ckpt, memory, progress=report)
    # A device array takes its memory over: no view of it may stay behind.
    return {name: work.place(name, memory) for name in list(filled)}


def kept_value(name: str, spec: Spec, model: Any, allow_missing: AllowMissing) -> Any:
    """A leaf that no key fills: made by the caller's function, or the template's own value."""
    import jax.numpy as jnp

    fillers = allow_missing if isinstance(allow_missing, Mapping) else {}

    for pattern, filler in fillers.items():
        if name in Names.of(pattern):
            value = jnp.asarray(filler(name, spec))
            if value.shape != spec.shape or np.dtype(value.dtype) != spec.dtype:
                raise PlanError(
                    f"leaf '{name}': the function for '{pattern}' gave {value.dtype}{list(value.shape)}, "
                    f"the model has {spec}"
                )
            return value
    return jnp.asarray(model.kept(name))


open = open_checkpoint
