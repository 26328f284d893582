"""`save`: a model back to what PyTorch and transformers read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from bridge._dtypes import DTYPES, dtype_name
from bridge._errors import CheckpointError, PlanError, SaveError
from bridge._text import quote
from bridge.api.files import Files, write_alone, write_together
from bridge.api.progress import Progress, reporting
from bridge.mapping.block import filled
from bridge.mapping.template import Spec, Template
from bridge.model.template import take_apart
from bridge.place.held import processes
from bridge.place.save_group import SaveGroup
from bridge.planning.backwards import saved_specs
from bridge.planning.plan import Plan, Request, make_plan
from bridge.planning.policy import DtypePolicy, refusal
from bridge.rules.rule import Rule, rules_of
from bridge.stream.gather import Piece, pieces
from bridge.target.commit import Target, is_one_file
from bridge.target.existing import SINGLE
from bridge.target.files import parse_nbytes

if TYPE_CHECKING:
    from bridge.model.layouts import Layouts

Pieces = Mapping[str, Sequence[Piece]]
"""For every key, where the leaves have its elements."""


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
    layouts: Layouts | None = None,
    dtype: Any = None,
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
    verify: bool = False,
) -> SaveReport:
    """Save a model under the keys that PyTorch knows: the mapping of `bridge.load`, read backwards.

    **Arguments:**

    - `model`: the model, or a `(model, state)` pair. One that is spread over several processes is saved by all of them
        together: each calls `save`, and writes what its own devices have.
    - `target`: a folder, made if need be; a name that ends in `.safetensors` is one file.
    - `rules_or_plan`: a `Plan` writes every key that it read, in the dtype that it read; rules write every leaf that
        one of them names, in the leaf's dtype.
    - `layouts`: layers of your own, as for `bridge.plan`. Rules need them, a `Plan` has them in it.
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

    **Raises:** `SaveError` for a target that cannot be written, and for a process that fails or dies while several save
    together; `PlanError` where model and rules do not meet.

    ```python
    plan = bridge.plan("model.safetensors", like)
    model = bridge.load("model.safetensors", like, plan)
    report = bridge.save(model, "tuned.safetensors", plan)
    ```
    """
    template, arrays, _ = take_apart(model, layouts)
    leaves = {name: leaf.value for name, leaf in arrays.items()}
    team = processes(leaves)
    with SaveGroup(team) if team else nullcontext() as group:
        # The target comes first: of several processes the one that commits looks at it, for all.
        place = Target(target, overwrite=overwrite) if group is None or group.is_leader else None
        _check_leaves(leaves, model)
        plan = (
            rules_or_plan
            if isinstance(rules_or_plan, Plan)
            else _planned(model, template, rules_of(rules_or_plan), target)
        )
        _check_model(plan, leaves)
        by_rules = plan is not rules_or_plan
        held = pieces(plan.blocks)
        specs = _specs(plan, held, leaves, dtype, by_rules=by_rules)
        meta = {"format": "pt"} if metadata is None else _text_only(metadata)
        limit = parse_nbytes(max_shard_size)
        one = is_one_file(target)
        single = Path(target).name if one else SINGLE
        files = Files.of(specs, plan, held, leaves, meta, limit=None if one else limit, single=single)
        with reporting(progress, "writing") as report:
            if group is None:
                assert place is not None
                names, nbytes = write_alone(place, files, report, verify=verify)
            else:
                names, nbytes = write_together(group, place, Path(target), files, report, verify=verify)
    return SaveReport(names, nbytes, tuple(_left_out(plan, held, leaves, by_rules=by_rules)))


def _text_only(metadata: Mapping[str, str]) -> dict[str, str]:
    """What safetensors can keep. **Raises:** `SaveError`."""
    for name, value in metadata.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise SaveError(
                f"metadata {name!r} is {value!r}, {type(value).__name__}: "
                f"safetensors keeps only text, write {str(value)!r}"
            )
    return dict(metadata)


def _check_leaves(leaves: Mapping[str, Any], model: Any) -> None:
    """All arrays have values to save. **Raises:** `PlanError`."""
    if not leaves:
        raise PlanError(
            f"the model to save, {type(model).__name__}, has no arrays: give a model, or the pair (model, state)"
        )
    for name, value in leaves.items():
        problem = _problem(value)
        if problem is not None:
            raise PlanError(f"leaf {quote(name)} {problem}")


def _problem(value: Any) -> str | None:
    """Why an array cannot be saved."""
    if isinstance(value, jax.ShapeDtypeStruct):
        return "is abstract: a model to save has arrays, not shapes"
    if isinstance(value, jax.Array) and value.is_deleted():
        return "was deleted, as a donated array is: save the model that took its place"
    try:
        packed = DTYPES[dtype_name(np.dtype(value.dtype))].packed
    except CheckpointError:
        return f"is {value.dtype}, a dtype that safetensors has no name for: cast it before saving"
    return (
        f"is {value.dtype}, which files pack and this release does not write: cast it before saving" if packed else None
    )


def _planned(model: Any, template: Template, rules: tuple[Rule, ...], target: str | os.PathLike[str]) -> Plan:
    """The plan by which `rules` would read what they are about to write."""
    if not rules:
        raise PlanError("save needs rules or a plan: '** -> **' saves all leaves by their own names")
    # The models that come with bridge have rules for old spellings too, below those that are to be written.
    specs = saved_specs(rules, template, first_wins=type(model).__module__.startswith("bridge.models."))
    if not specs:
        shown = ", ".join(f"'{rule}'" for rule in rules[:3])
        raise PlanError(f"{template.kind} has no leaf that the rules name ({shown}): '** -> **' names them all")
    plan = make_plan(specs, template, Request(rules), source=str(target))
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
    for name in filled(plan.blocks):
        if name not in leaves:
            raise PlanError(
                f"the model has no leaf {quote(name)}, which the plan fills: save the model it was made for"
            )
        shape, wanted = tuple(leaves[name].shape), plan.leaves[name].shape
        if shape != wanted:
            raise PlanError(f"leaf {quote(name)} is {shape}, the plan has {wanted}: make a plan for this model")


def _specs(plan: Plan, held: Pieces, leaves: Mapping[str, Any], dtype: Any, *, by_rules: bool) -> dict[str, Spec]:
    """What every key is written as, in the order of the checkpoint."""
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


def _left_out(plan: Plan, held: Pieces, leaves: Mapping[str, Any], *, by_rules: bool) -> Iterator[LeftOut]:
    """What the files do not hold, or not as it was."""
    saved = {piece.leaf for found in held.values() for piece in found}
    copied: dict[str, str] = {}
    for block in plan.blocks:
        if block.copy:
            copied |= zip(reversed(block.leaves), reversed(block.terms[0].keys), strict=True)
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
