"""`plan`, `load`: the straight line from a source to a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Unpack

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.format.table import collector_off
from bridge.mapping.pattern import NamePatterns
from bridge.mapping.template import Spec, Template
from bridge.planning.plan import Plan, Request, make_plan
from bridge.planning.policy import DtypePolicy
from bridge.rules.rule import Listed, Rule, rules_of
from bridge.source.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from bridge.api.progress import Progress
    from bridge.model.layouts import Layouts

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Checkpoint
Rules: TypeAlias = "Sequence[Listed] | Listed | os.PathLike[str] | Plan | None"
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
def opened(source: Source, options: OpenOptions) -> Generator[Checkpoint]:
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
    quantized: str | Mapping[str, Any] | None = None,
    layouts: Layouts | None = None,
    max_host_bytes: int | None = None,
    **options: Unpack[OpenOptions],
) -> Plan:
    """What would go where, proven from headers alone. Reads no weights.

    **Arguments:**

    - `source`: whatever `bridge.open` takes; its keywords may be given here too.
    - `like`: the model to fill, concrete or abstract (`eqx.filter_eval_shape`), or any pytree of arrays or
        `jax.ShapeDtypeStruct`; `None` makes a flat dict of what the rules name.
    - `rules`: a list of rules or texts, nested as `(text, [rules])`; a dict `{old: new}`; a text of one rule or of
        several lines; a path to a TOML file; or a `Plan`: one that was made for the same keys, the same leaves and
        the same question holds as it is, any other is proven again.
    - `dtype`: `None` for each leaf's own, `"checkpoint"` for what is stored, a dtype for all floating leaves, or a
        mapping of leaf patterns to these. A value that would become infinite, or does not fit, is an error of `load`.
    - `allow_missing`: patterns of leaves that may be absent and keep the template's value, or a mapping of patterns to
        functions `(name, spec) -> array` that make one.
    - `allow_unexpected`: patterns of keys that may be left over.
    - `quantized`: what becomes of weights that are stored as codes and scales. `"dequantize"`, the default: they are
        keys of their own, whatever their parts are called, and have values in each leaf's dtype. `"keep"`: codes and
        scales are keys, as they are stored; so they are with `dtype="checkpoint"`, and where a rule names one of them.
        A mapping: what stands in config.json as `quantization_config`, where the checkpoint has none; with
        `"as": "keep"` where wanted.
    - `layouts`: layers of your own, `{MyLinear: "weight [o i] -> w [i o]"}`: for a type of layer a rule, or several,
        from PyTorch's names to the layer's leaves, both as the layer itself calls them. They go before ours.

    **Returns:** a `Plan`; where keys and leaves do not meet `plan.ok` is False and its lists say why.

    **Raises:** `CheckpointError`, `RuleError`; `PlanError` for a template or a dtype that makes no sense.
    """
    from bridge.api.read import predicted  # these import JAX, and `bridge.plan` by itself is light
    from bridge.place.sharding import placements

    with opened(source, options) as stored:
        request = request_of(rules, dtype, allow_missing, allow_unexpected, sharding, quantized)
        ckpt, made, model = planned(stored, like, rules, request, layouts)
        where = placements(made.request.sharding, made.leaves, model)
        return predicted(ckpt, made, where, max_host_bytes)


def load(
    source: Source,
    like: Any,
    rules: Rules = None,
    *,
    dtype: Any = None,
    sharding: Any = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    quantized: str | Mapping[str, Any] | None = None,
    layouts: Layouts | None = None,
    max_host_bytes: int | None = None,
    progress: Progress | bool | None = None,
    mmap: bool = True,
    **options: Unpack[OpenOptions],
) -> Any:
    """The checkpoint's weights in a model like `like`. Arguments as for `bridge.plan`.

    - `max_host_bytes`: what may be in flight between the files and devices with memory of their own, 1 GiB by default;
        the host is then a staging area, and no leaf needs its whole self there. On the CPU the arrays are host memory
        and are filled in place, unless this is given.
    - `sharding`: a `jax.Device` or `Sharding`; a pytree prefix of them; `(mesh, {leaf pattern: PartitionSpec})`, or
        only the mapping under `jax.set_mesh`; a function `(name, spec) -> Sharding`. Each process reads its own bytes.
    - `progress`: `None` is silent, `True` shows a bar, a function gets `(done_nbytes, nbytes)`.
    - `mmap`: let the files of a converted checkpoint on a local disk be the arrays' memory, where they are aligned.

    **Returns:** `like` with every array replaced by a `jax.Array`; what is no array, and PRNG keys, stay as they are.
    For `like=None` a flat dict of leaf name to array.

    **Raises:** `PlanError`, before a weight is read, where keys and leaves do not meet; `CheckpointError` for what
    reading finds, and where another process loads other bytes into the same model; never a model filled in part.

    ```python
    like = eqx.filter_eval_shape(eqx.nn.Linear, 3, 2, key=jax.random.key(0))
    linear = bridge.load("linear.safetensors", like)
    ```
    """
    from bridge.api.read import read_leaves  # these import JAX, and `bridge.load` by itself is light
    from bridge.place.sharding import placements

    with collector_off(many=True), opened(source, options) as stored:
        request = request_of(rules, dtype, allow_missing, allow_unexpected, sharding, quantized)
        ckpt, made, model = planned(stored, like, rules, request, layouts)
        made.check()
        where = placements(made.request.sharding, made.leaves, model)
        with _agreed(ckpt, made, where):
            kept = {name: kept_value(name, made, model, where[name]) for name in made.kept}
            values = read_leaves(ckpt, made, where, max_host_bytes, progress, mmap=mmap)
    return values if model is None else model.filled(values | kept)


def _agreed(ckpt: Checkpoint, made: Plan, where: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Around reading: whether all processes load the same, where several do."""
    from bridge.place.sharding import spanned  # imports JAX

    processes = spanned(where)
    if len(processes) < 2:
        return nullcontext()
    from bridge.place.agreement import same_load_everywhere  # several processes alone have to agree

    return same_load_everywhere(ckpt, made, where, processes)


def request_of(
    rules: Rules,
    dtype: Any,
    allow_missing: AllowMissing,
    allow_unexpected: Sequence[str] | str,
    sharding: Any = None,
    quantized: str | Mapping[str, Any] | None = None,
) -> Request:
    """What is asked for; a `Plan` as rules brings along what was asked when it was made."""
    missing, unexpected = NamePatterns.of(allow_missing), NamePatterns.of(allow_unexpected)
    policy = DtypePolicy.of(dtype)
    fillers = dict(allow_missing) if isinstance(allow_missing, Mapping) else {}
    before = rules.request if isinstance(rules, Plan) else Request()
    codes = before.quantized
    if quantized is not None:
        from bridge.api.quantized import quantized_of  # few say it

        codes = quantized_of(quantized)
    if not isinstance(rules, Plan):
        return Request(rules_of(rules), policy, missing, unexpected, fillers, sharding, codes)
    return Request(
        before.rules,
        policy if dtype is not None else before.dtype,
        NamePatterns.of((*before.allow_missing.texts, *missing.texts)),
        NamePatterns.of((*before.allow_unexpected.texts, *unexpected.texts)),
        {**before.fillers, **fillers},
        before.sharding if sharding is None else sharding,
        codes,
    )


def planned(
    stored: Checkpoint, like: Any, rules: Rules, request: Request, layouts: Layouts | None = None
) -> tuple[Checkpoint, Plan, Any]:
    """The checkpoint as it is meant, the plan for it, and the template taken apart.

    A `Plan` as rules is proven again where not all is as it was.
    """
    if not stored.specs.has_codes:
        return stored, *_planned(stored, like, rules, request, layouts)
    from bridge.api.quantized import check_codes, meant  # most checkpoints are plain

    ckpt, meaning = meant(stored, request)
    made, model = _planned(ckpt, like, rules, request, layouts)
    check_codes(stored, made)
    return ckpt, made if meaning is None else meaning.told(made), model


def _planned(ckpt: Checkpoint, like: Any, rules: Rules, request: Request, layouts: Layouts | None) -> tuple[Plan, Any]:
    from bridge.api.read import is_converted  # these import JAX
    from bridge.model.template import take_apart
    from bridge.place.work import canonical

    if like is None and layouts:
        raise PlanError(
            "layouts are for the layers of a model, and like=None has none: give a model, or rules with axes"
        )
    model = None if like is None else take_apart(like, layouts)
    template = None if model is None else model.template
    converted = is_converted(ckpt)
    if converted and template is not None:
        # Its keys are leaf names and its tensors leaves: no layout has a say any more.
        template = Template(template.leaves, kind=template.kind)
    if isinstance(rules, Plan):
        if rules.holds_for(ckpt.specs, template, request, canonical):
            return replace(rules, source=ckpt.source, specs=ckpt.specs, request=request), model
        request = request._replace(rules=rules.rules)
    if converted:
        request = _of_its_own(ckpt, request)
    return make_plan(ckpt.specs, template, request, source=ckpt.source, canonical=canonical), model


def _of_its_own(ckpt: Checkpoint, request: Request) -> Request:
    """The request without the rules that a converted checkpoint has behind it. **Raises:** `PlanError` for others."""
    if not all(map(_names_one, request.rules)):
        from bridge.converted.record import plan_of, read_record  # rules for a converted checkpoint are rare

        record = read_record(ckpt)
        given = [str(rule) for rule in request.rules]
        sides = [text.split(" -> ") for text in given]
        its_own_plan = all(key == leaf and key in ckpt for key, leaf in sides)
        its_own_plan = its_own_plan or given in (record["rules"], record["plan"]["rules"])
        # Another release may have spelled the rules of the same plan otherwise.
        if not its_own_plan and given != list(plan_of(record, ckpt).texts):
            raise PlanError(
                f"{quote(ckpt.source)} was converted by other rules than these: load it without rules, or convert the "
                "original again"
            )
    return request._replace(rules=())


def _names_one(rule: Rule) -> bool:
    """Whether a rule says that one name stays: a plan that was made for a converted checkpoint has no others."""
    return str(rule) == f"{rule.keys[0]} -> {rule.keys[0]}" and "*" not in str(rule)


def kept_value(name: str, made: Plan, model: Any, sharding: Any = None) -> Any:
    """A leaf that no key fills: made by the caller's function, or the template's own value.

    **Raises:** `PlanError` where it is none, or cannot go where it should.
    """
    from bridge.place.shards import spread  # most loads fill all leaves
    from bridge.place.work import canonical

    found, spec = _filler(name, made), made.leaves[name]
    if found is None:
        value = model.kept(name)
    else:
        pattern, function = found
        value = function(name, spec)
        value = value if hasattr(value, "dtype") else np.asarray(value)
        dtype = canonical(np.dtype(value.dtype))
        if value.shape != spec.shape or dtype != spec.dtype:
            shown = f"{dtype}{list(value.shape)}"
            raise PlanError(f"leaf {quote(name)}: the function for {quote(pattern)} gave {shown}, the model has {spec}")
    try:
        return spread(value, sharding)
    except ValueError as error:
        raise PlanError(f"leaf {quote(name)}, which no key fills, {error}") from error


def _filler(name: str, made: Plan) -> tuple[str, Filler] | None:
    """The caller's function for a leaf that may be missing, and its pattern."""
    for pattern, function in made.request.fillers.items():
        if name in NamePatterns.of(pattern):
            return pattern, function
    return None
