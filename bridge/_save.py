"""`save`: a model back to what PyTorch and transformers read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bridge._dtypes import DTYPES, dtype_name
from bridge._errors import CheckpointError, PlanError, SaveError
from bridge._progress import Progress, reporting
from bridge._text import quote
from bridge.format.encode import encode_header, encode_index
from bridge.mapping.template import Spec
from bridge.planning.plan import Plan, Request, make_plan
from bridge.planning.policy import DtypePolicy, refusal
from bridge.planning.reverse import saved_specs
from bridge.rules.rule import Rule
from bridge.rules.toml import rules_of
from bridge.stream.gather import Host, Piece, gather, pieces
from bridge.target.commit import Target
from bridge.target.shards import parse_nbytes, shards, stored_nbytes
from bridge.target.standing import INDEX
from bridge.target.writer import verify_file, write_file


class LeftOut(NamedTuple):
    """A leaf or key that was not saved as it is, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class SaveReport:
    """What `bridge.save` wrote.

    - `files`: the names of the files in the target, an index among them.
    - `nbytes`: how many bytes they have together.
    - `left_out`: leaves and keys that were not saved, or not as they are, and why.
    """

    files: tuple[str, ...]
    nbytes: int
    left_out: tuple[LeftOut, ...]


def save(
    model: Any,
    target: str | os.PathLike[str],
    rules_or_plan: Sequence[Rule | str] | str | os.PathLike[str] | Plan,
    *,
    dtype: Any = None,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
    verify: bool = False,
) -> SaveReport:
    """Save a model under the keys that PyTorch knows: the mapping of `bridge.load`, read backwards.

    **Arguments:**

    - `model`: the model, or a `(model, state)` pair.
    - `target`: a folder, made if need be; a name that ends in `.safetensors` is one file.
    - `rules_or_plan`: a `Plan` writes every key that it read, in the dtype that it read; rules write every leaf that
        one of them names, in the leaf's dtype.
    - `dtype`: `None` as just said, `"model"` for the leaves' own, or a dtype for all floating tensors.
    - `max_shard_size`: bytes of one file at most, a number or a text such as `"5GB"` or `"500MiB"`; a larger tensor has
        a file of its own.
    - `metadata`: the files' `__metadata__`, by default `{"format": "pt"}`.
    - `overwrite`: replace a checkpoint that stands in the target. At every moment it is the old one or the new one,
        whole.
    - `progress`: as for `bridge.load`.
    - `verify`: read every file back from the disk and compare it with the model before it takes its place. The lengths
        of files are checked always.

    **Returns:** a `SaveReport`.

    **Raises:** `SaveError` for a target that cannot be written; `PlanError` where model and rules do not meet.

    ```python
    plan = bridge.plan("model.safetensors", like)
    model = bridge.load("model.safetensors", like, plan)
    report = bridge.save(model, "tuned.safetensors", plan)
    ```
    """
    place = Target(target, overwrite=overwrite)
    limit = parse_nbytes(max_shard_size)
    leaves = _leaves(model)
    plan = rules_or_plan if isinstance(rules_or_plan, Plan) else _planned(model, rules_of(rules_or_plan), str(target))
    _check_model(plan, leaves)
    by_rules = plan is not rules_or_plan
    specs = _specs(plan, leaves, dtype, by_rules=by_rules)
    meta = {"format": "pt"} if metadata is None else _text_only(metadata)
    with reporting(progress, "writing") as report:
        dealt = shards(specs, None if place.single else limit, meta)
        files, nbytes = _write(place, dealt, plan, leaves, meta, report, verify=verify)
    return SaveReport(files, nbytes, tuple(_left_out(plan, leaves, by_rules=by_rules)))


def _text_only(metadata: Mapping[str, str]) -> dict[str, str]:
    """What safetensors can keep. **Raises:** `SaveError`."""
    for name, value in metadata.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise SaveError(
                f"metadata {name!r} is {value!r}, {type(value).__name__}: "
                f"safetensors keeps only text, write {str(value)!r}"
            )
    return dict(metadata)


def _leaves(model: Any) -> dict[str, Any]:
    """The model's arrays by name. **Raises:** `PlanError` where one has no values to save."""
    from bridge.model.template import take_apart

    arrays = {name: leaf.value for name, leaf in take_apart(model).arrays.items()}
    if not arrays:
        raise PlanError(f"the model to save, {type(model).__name__}, has no arrays")
    for name, value in arrays.items():
        problem = _problem(value)
        if problem is not None:
            raise PlanError(f"leaf {quote(name)} {problem}")
    return arrays


def _problem(value: Any) -> str | None:
    """Why an array cannot be saved."""
    import jax

    if isinstance(value, jax.ShapeDtypeStruct):
        return "is abstract: a model to save has arrays, not shapes"
    if isinstance(value, jax.Array) and value.is_deleted():
        return "was deleted, as a donated array is: save the model that took its place"
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return "is spread over several processes: gather it, or save from a program of one process"
    try:
        packed = DTYPES[dtype_name(np.dtype(value.dtype))].packed
    except CheckpointError:
        return f"is {value.dtype}, a dtype that safetensors has no name for: cast it before saving"
    return (
        f"is {value.dtype}, which files pack and this release does not write: cast it before saving" if packed else None
    )


def _planned(model: Any, rules: tuple[Rule, ...], target: str) -> Plan:
    """The plan by which `rules` would read what they are about to write."""
    from bridge.model.template import take_apart

    template = take_apart(model).template
    if not rules:
        raise PlanError("save needs rules or a plan: '** -> **' saves all leaves by their own names")
    specs = saved_specs(rules, template)
    if not specs:
        shown = ", ".join(f"'{rule}'" for rule in rules[:3])
        raise PlanError(f"{template.kind} has no leaf that the rules name ({shown}): '** -> **' names them all")
    plan = make_plan(specs, template, Request(rules), source=target)
    problems = [p for p in plan.problems.missing if any(name == p.leaf for name in template.leaves)]
    if plan.problems.conflicts or plan.problems.mismatched or plan.problems.unexpected:
        plan.check()
    for problem in problems:
        plan.problems.missing.remove(problem)  # a leaf that no rule names is left out, and the report says so
    plan.check()
    return plan


def _check_model(plan: Plan, leaves: Mapping[str, Any]) -> None:
    """The model has the leaves that the plan filled."""
    plan.check()
    for block in plan.blocks:
        if block.leaf not in leaves:
            raise PlanError(
                f"the model has no leaf {quote(block.leaf)}, which the plan fills: save the model it was made for"
            )
        shape, wanted = tuple(leaves[block.leaf].shape), plan.leaves[block.leaf].shape
        if shape != wanted:
            raise PlanError(f"leaf {quote(block.leaf)} is {shape}, the plan has {wanted}: make a plan for this model")


def _specs(plan: Plan, leaves: Mapping[str, Any], dtype: Any, *, by_rules: bool) -> dict[str, Spec]:
    """What every key is written as, in the order of the checkpoint."""
    held = pieces(plan.blocks)
    policy = DtypePolicy.of(None if dtype == "model" else dtype)
    specs: dict[str, Spec] = {}
    spent = plan.spent
    for key in (key for key in plan.specs if key in held or key in spent):
        if key in spent:
            specs[key] = Spec(plan.specs[key].dtype, plan.specs[key].shape)
            continue
        own = np.dtype(leaves[held[key][0].leaf].dtype)
        stored = own if by_rules or dtype == "model" else plan.specs[key].dtype
        wanted = policy.dtype(key, stored, stored)
        reason = refusal(own, wanted) if not (own.kind in "iu" and wanted.kind in "iu") else None
        if reason is not None:
            raise PlanError(f"key {quote(key)} cannot be saved as {wanted.name}: {reason}")
        specs[key] = Spec(wanted, plan.specs[key].shape)
    return specs


def _write(
    place: Target,
    dealt: Sequence[Mapping[str, Spec]],
    plan: Plan,
    leaves: Mapping[str, Any],
    metadata: Mapping[str, str],
    report: Progress | None,
    *,
    verify: bool,
) -> tuple[tuple[str, ...], int]:
    """Write and commit all files; their names and how many bytes they have."""
    held, host = pieces(plan.blocks), Host(leaves)
    total = sum(stored_nbytes(spec) for shard in dealt for spec in shard.values())
    done = written = 0

    def wrote(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        if report is not None:
            report(done, total)

    with place.staged() as stage:
        names, indexed = place.names(stage, len(dealt))
        for name, shard in zip(names, dealt, strict=True):
            head, _ = encode_header({k: (spec.dtype, spec.shape) for k, spec in shard.items()}, metadata, file=name)
            written += write_file(stage.path / name, head, _tensors(held, host, shard), shown=name, wrote=wrote)
            if verify:
                verify_file(stage.path / name, head, _tensors(held, host, shard), shown=name)
        if not indexed:
            place.commit(stage, [], names[0])
            return tuple(names), written
        weight_map = {key: name for name, shard in zip(names, dealt, strict=True) for key in shard}
        written += write_file(stage.path / INDEX, encode_index(weight_map, total), (), shown=INDEX)
        place.commit(stage, names, INDEX)
        return (*names, INDEX), written


def _tensors(
    held: Mapping[str, Sequence[Piece]], leaves: Mapping[str, np.ndarray], shard: Mapping[str, Spec]
) -> Iterator[np.ndarray]:
    """The tensors of one file, in its order, one at a time."""
    return (_tensor(key, held.get(key), leaves, spec) for key, spec in shard.items())


def _tensor(key: str, held: Sequence[Piece] | None, leaves: Mapping[str, np.ndarray], spec: Spec) -> np.ndarray:
    if held is None:
        return np.zeros(spec.shape, spec.dtype)  # used up by its layer: no leaf has it
    try:
        return gather(held, leaves, spec.dtype)
    except CheckpointError as error:
        raise SaveError(f"key {quote(key)} {error}") from error


def _left_out(plan: Plan, leaves: Mapping[str, Any], *, by_rules: bool) -> Iterator[LeftOut]:
    """What the files do not hold, or not as it was."""
    held = pieces(plan.blocks)
    saved = {piece.leaf for found in held.values() for piece in found}
    copied = {block.leaf: block.terms[0].keys[0] for block in plan.blocks if block.copy}
    for name in leaves:
        if name in saved or name in plan.fills:
            continue
        if name in copied:
            key = copied[name]
            yield LeftOut(name, f"a copy: key {quote(key)} is saved from leaf {quote(held[key][-1].leaf)}")
        else:
            yield LeftOut(name, "no rule names this leaf" if by_rules else "the plan has no key for this leaf")
    yield from (LeftOut(key, reason) for key, reason in plan.lossy)
    yield from (LeftOut(key, "unexpected, and allowed to be") for key in plan.allowed)
