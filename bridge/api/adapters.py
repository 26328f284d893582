"""Adapters that are merged during a load: the argument, the match with the base's keys, and the plan's report."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bridge._errors import CheckpointError, PlanError
from bridge._text import quote, safe
from bridge.adapters import ArrayInfo, BaseTensors, Step, meet, told
from bridge.mapping.problem import Conflict
from bridge.source.adapted import Adapted
from bridge.source.adapter import OpenAdapter, open_adapter
from bridge.source.checkpoint import Checkpoint
from bridge.source.resolve import HubOptions

if TYPE_CHECKING:
    from bridge.api.arguments import Adapters, OpenOptions
    from bridge.planning.plan import Plan


@contextmanager
def opened_adapters(adapters: Adapters, options: OpenOptions) -> Generator[list[OpenAdapter]]:
    """The open adapters of an argument; they are closed afterwards, except for those that the caller opened.

    **Raises:** `PlanError` for an argument that is no adapter; `CheckpointError` for one that cannot be opened.
    """
    cache = options.get("cache_dir")
    hub = HubOptions(
        None, options.get("token"), None if cache is None else os.fspath(cache), bool(options.get("local_files_only"))
    )
    with ExitStack() as stack:
        found: list[OpenAdapter] = []
        for source, weight in _listed(adapters):
            ckpt = open_adapter(source, hub)
            if ckpt is not source:
                stack.callback(ckpt.close)
            found.append(OpenAdapter(ckpt, weight))
        yield found


def _listed(adapters: Any) -> list[tuple[Any, float]]:
    """Sources and weights."""
    if isinstance(adapters, str | os.PathLike | Checkpoint) or _is_pair(adapters):
        adapters = [adapters]
    if not isinstance(adapters, Sequence):
        raise PlanError(
            f"adapters {quote(repr(adapters))}", "are not a list", "Give a list of folders, files or Hub repos"
        )
    found: list[tuple[Any, float]] = []
    for each in adapters:
        source, weight = each if _is_pair(each) else (each, 1.0)
        if not isinstance(source, str | os.PathLike | Checkpoint):
            raise PlanError(
                f"adapter {quote(repr(each))}",
                "is not an adapter",
                ("Give a folder, a file or a Hub repo, or a pair of one and its weight, as in ('org/my-lora', 0.5)"),
            )
        if not math.isfinite(weight):
            raise PlanError(f"adapter {quote(str(source))}", f"has the weight {weight}", "Give a finite number")
        found.append((source, float(weight)))
    return found


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[1], int | float)
        and not isinstance(value[1], bool)
    )


def check_given(before: Sequence[tuple[str, float]]) -> None:
    """**Raises:** `PlanError` if a plan that merges adapters is used without any."""
    names = [f"'{safe(name)}'" if weight == 1 else f"('{safe(name)}', {weight:g})" for name, weight in before]
    raise PlanError(
        "the plan",
        "merges adapters, but none are given",
        f"Give adapters=[{', '.join(names)}] again, or make a plan without adapters",
    )


def merged(base: Checkpoint, adapters: Sequence[OpenAdapter]) -> tuple[Checkpoint, Merging]:
    """A checkpoint with adapters merged into it, and what a plan says of them.

    **Raises:** `CheckpointError` for an adapter that cannot be merged.
    """
    from bridge.api.read import is_converted  # imports JAX

    if is_converted(base):
        raise PlanError(
            quote(base.source),
            "is a converted form, whose keys are a model's leaves",
            "Give adapters with the checkpoint that it came from, or with what bridge.revert makes of it",
        )
    table = base.specs
    arrays = [ArrayInfo(form.dtype, form.shape) for form in table.forms]
    named = zip(table.names, table.kinds.tolist(), strict=True)
    target = BaseTensors({name: arrays[kind] for name, kind in named}, _tied(base))
    modules = target.modules
    merging, steps = Merging(), dict[str, list[tuple[int, Step]]]()
    for number, adapter in enumerate(adapters):
        meant = adapter.meant(modules)
        before = {key: [step for _, step in each] for key, each in steps.items()}
        found, problems = meet(meant.changes, adapter.own, target, before, weight=adapter.weight, causal=meant.causal)
        merging.problems += told(problems, adapter.label)
        merging.warnings += meant.aside
        for key, own in found.items():
            steps.setdefault(key, []).extend((number, step) for step in own)
            of = f", from {quote(adapter.label)}" if len(adapters) > 1 else ""
            merging.texts[key] = (*merging.texts.get(key, ()), *(f"{step.text}{of}" for step in own))
    return Adapted(base, [adapter.ckpt for adapter in adapters], steps), merging


class Merging:
    """What a plan says of adapters."""

    def __init__(self) -> None:
        self.texts: dict[str, tuple[str, ...]] = {}
        self.problems: list[tuple[str, str]] = []
        self.warnings: list[str] = []

    def told(self, plan: Plan) -> Plan:
        """The plan, with the merged changes, and those that cannot be merged as problems."""
        known = plan.problems.conflicts
        new = [Conflict(subject, text) for subject, text in self.problems]
        known += [conflict for conflict in new if conflict not in known]  # a plan that is given again has them already
        warnings = (*plan.warnings, *(text for text in self.warnings if text not in plan.warnings))
        return replace(plan, merged=self.texts, warnings=warnings)


def with_kept(plan: Plan, ckpt: Checkpoint) -> Plan:
    """The plan, with the memory that adapters from a network take."""
    kept = ckpt.kept_nbytes if isinstance(ckpt, Adapted) else 0
    return replace(plan, peak_nbytes=plan.peak_nbytes + kept) if plan.ok else plan


def _tied(base: Checkpoint) -> bool | None:
    """Whether the config beside a checkpoint ties its head to its embedding."""
    try:
        said = json.loads(base.beside("config.json"))
        inner = said.get("text_config")
        tied = said.get("tie_word_embeddings", inner.get("tie_word_embeddings") if isinstance(inner, Mapping) else None)
    except (CheckpointError, ValueError, AttributeError, RecursionError):
        return None
    return tied if isinstance(tied, bool) else None
