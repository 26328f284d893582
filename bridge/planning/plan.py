"""`Plan`: a proven mapping. Pure data: it can be printed, saved as JSON and tested without a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bridge._errors import PlanError
from bridge._text import quote
from bridge.mapping.arrays import ArraySpec, ArrayTable
from bridge.mapping.block import Block
from bridge.mapping.problem import Problems
from bridge.mapping.template import Spec, Template
from bridge.planning.policy import Canonical, settled
from bridge.planning.policy import Cast as Cast
from bridge.planning.prove import ConcreteRules, Proof, prove
from bridge.planning.request import PlanRequest as PlanRequest
from bridge.rules.rule import Rule

if TYPE_CHECKING:
    from bridge.planning.lossy import Lossy, Quantization


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Which elements of which keys go where, proven from headers alone. Made by `bridge.plan`; `print(plan)` shows it.

    - `ok`: whether every element of every leaf is written exactly once and no key is left over.
    - `rules`: the mapping as rules without wildcards, each a `Rule`: from explicit rules, layouts and inference.
    - `missing`, `unexpected`: leaves without a key and keys without a leaf, by full name; `name[7]` is one index of a
        stacked leaf.
    - `mismatched`: tuples `(leaf, key, expected spec, got spec)`; a spec has `.dtype` and `.shape`.
    - `casts`: casts to a narrower dtype, as `Cast(leaf, stored, dtype)`.
    - `lossy`: keys that a save cannot restore bit for bit, as `Lossy(key, reason)`.
    - `warnings`: texts about unusual things in the checkpoint that are no problems.
    - `nbytes`: how many bytes a load reads.
    - `peak_nbytes`: how much host memory a load takes at most beyond arrays that are already placed: the arrays
        themselves on the CPU, or bytes on the way to other devices; and scratch memory of the threads for values that
        are computed.

    ```python
    plan = bridge.plan("model.safetensors", like)
    print(plan)
    assert plan.ok, plan.missing
    assert bridge.Plan.from_json(plan.to_json()) == plan
    ```
    """

    source: str
    template: Template | None
    specs: Mapping[str, ArraySpec]
    leaves: Mapping[str, Spec]
    fills: Mapping[str, int]
    request: PlanRequest
    blocks: tuple[Block, ...]
    spelling: ConcreteRules
    consumed: frozenset[str]
    """Keys that no leaf holds because their layer's layout uses them up; the way back writes zeros."""
    kept: tuple[str, ...]
    partly: Mapping[str, tuple[tuple[range, ...], ...]]
    """Leaves of which keys fill a part, with the boxes that keep other values."""
    dropped: Mapping[str, str]
    allowed: tuple[str, ...]
    idle: tuple[str, ...]
    problems: Problems
    casts: tuple[Cast, ...]
    nbytes: int
    x64: bool
    peak_nbytes: int = 0
    quantized: Mapping[str, Quantization] = field(default_factory=dict[str, "Quantization"])
    """Keys whose values are computed from codes and scales."""
    warnings: tuple[str, ...] = ()
    set_aside: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of a plan that comes from JSON: the leaves whose layouts rules with axes have switched off, and their layers."""
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, "tuple[str, ...]"])
    """Keys that adapters change, and what each change is, in words."""

    @property
    def model(self) -> str:
        """The model's name in messages."""
        return "a flat dict" if self.template is None else self.template.kind

    @property
    def hints(self) -> Mapping[str, str]:
        """Remarks on leaves, from the layouts of their layers."""
        return {} if self.template is None else self.template.hints

    @property
    def ok(self) -> bool:
        """Whether keys and leaves fit."""
        return not self.problems

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of `rules`."""
        return self.spelling.texts

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Rules that say exactly what this plan does. `bridge.plan` with these rules gives an equal plan."""
        return tuple(map(Rule, self.texts))

    @property
    def missing(self) -> tuple[str, ...]:
        """Leaves that no key fills."""
        return tuple(problem.leaf for problem in self.problems.missing)

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Keys that no leaf takes."""
        return tuple(problem.key for problem in self.problems.unexpected)

    @property
    def mismatched(self) -> tuple[tuple[str, str, Spec, Spec], ...]:
        """Keys whose dtype or shape is not what their leaf needs."""
        found: list[tuple[str, str, Spec, Spec]] = []
        for problem in self.problems.mismatched:
            got = Spec(self.specs[problem.key].dtype, problem.got)
            leaf = self.leaves.get(problem.name, got)
            wanted = problem.expected if problem.expected is not None else leaf.shape
            found.append((problem.leaf, problem.key, Spec(leaf.dtype, wanted), got))
        return tuple(found)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that the plan reads, each once."""
        return _keys(self.blocks)

    @property
    def lossy(self) -> tuple[Lossy, ...]:
        """Keys that a save cannot restore bit for bit, each with the reason."""
        from bridge.planning.lossy import lossy_of

        return lossy_of(self)

    def to_json(self) -> str:
        """The plan as one JSON document, with the rules, the keys and the leaves that it was proven for."""
        from bridge.planning.store import plan_to_json

        return plan_to_json(self)

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan that `to_json` wrote, proven again. **Raises:** `PlanError`, `RuleError`."""
        from bridge.planning.store import plan_from_json

        return plan_from_json(text)

    def check(self) -> None:
        """**Raises:** one `PlanError` that names every problem, unless the plan is ok."""
        if not self.ok:
            found = {name: getattr(self, name) for name in ("missing", "unexpected", "mismatched")}
            raise PlanError(quote(self.source), self._problems(), **found)

    def holds_for(
        self, specs: Mapping[str, ArraySpec], model: Template | None, request: PlanRequest, canonical: Canonical
    ) -> bool:
        """Whether `make_plan` would come to this plan again: the keys are the same, the model is, and what is asked."""
        return (
            self.x64 == _keeps_64_bits(canonical)
            and self.request.asks_like(request)
            and ArrayTable.of(self.specs).is_like(ArrayTable.of(specs))
            and self.template == model
        )

    def __str__(self) -> str:
        from bridge.planning.recipe import recipe_text

        return recipe_text(self) if self.ok else f"{recipe_text(self)}\n\n{self._problems()}"

    # Texts, suggestions and JSON are for plans that are looked at: a load that goes through imports none of it.

    def _problems(self) -> str:
        from bridge.planning.report import problems_text

        return problems_text(self)

    def __eq__(self, other: object) -> bool:
        """Equal plans move the same elements of the same arrays in the same way, however their rules are spelled."""
        if not isinstance(other, Plan):
            return NotImplemented
        from bridge.planning.same import numbered_alike, rows_alike

        if self._promises() != other._promises():
            return False
        if numbered_alike(self.blocks, other.blocks):
            return rows_alike(self.blocks, other.blocks)
        return self._moves() == other._moves()

    __hash__ = None  # type: ignore[assignment]

    def _moves(self) -> set[tuple[object, ...]]:
        """Every row of every block, spelled: slow where there are many."""
        return {
            (leaf, tuple(block.maps(row)), block.scale, block.add, block.tie, block.copy)
            for block in self.blocks
            for row, leaf in enumerate(block.leaves)
        }

    def _promises(self) -> tuple[object, ...]:
        """What decides beside the moves about what a load returns."""
        keys = self.keys
        specs = {key: (self.specs[key].dtype, self.specs[key].shape) for key in keys}
        # Where no config says how weights are quantised, what was said decides about their values.
        said = None if isinstance(self.request.quantized, str) or not self.quantized else self.request.quantized
        own = self.request.adapters, {key: self.merged[key] for key in keys if key in self.merged}
        leaves, left = dict(self.leaves), (set(self.kept), dict(self.partly), set(self.dropped))
        return specs, said, own, leaves, dict(self.fills), *left


def make_plan(
    specs: Mapping[str, ArraySpec],
    model: Template | None,
    request: PlanRequest,
    *,
    source: str,
    canonical: Canonical = lambda dtype: dtype,
) -> Plan:
    """Prove a mapping and settle every leaf's dtype.

    **Arguments:**

    - `specs`: dtype and shape of every key.
    - `model`: the template; `None` makes a leaf of each target.
    - `request`: rules and what else was asked for.
    - `source`: the checkpoint's name for messages.
    - `canonical`: the dtype that an array library gives to a dtype (JAX without x64 has no float64).
    """
    if model is not None:
        model.check_shapes()
    table = ArrayTable.of(specs)
    proof = prove(
        table, model, request.rules, allow_missing=request.allow_missing, allow_unexpected=request.allow_unexpected
    )
    leaves, casts = settled(proof, model, request.dtype, canonical)
    fills = {} if model is None else {name: value for name, value in model.fills.items() if name not in _written(proof)}
    return Plan(
        source=source,
        template=model,
        specs=specs,
        leaves=leaves,
        fills=fills,
        request=request,
        blocks=tuple(proof.blocks),
        spelling=proof.rules,
        consumed=proof.consumed,
        kept=proof.kept,
        partly=proof.partly,
        dropped=proof.dropped,
        allowed=proof.allowed,
        idle=proof.idle,
        problems=proof.problems,
        casts=casts,
        nbytes=_nbytes(proof.blocks, table),
        x64=_keeps_64_bits(canonical),
    )


def _keeps_64_bits(canonical: Canonical) -> bool:
    return canonical(np.dtype("i8")) == np.dtype("i8")


def _nbytes(blocks: Iterable[Block], table: ArrayTable) -> int:
    """Bytes of all keys that blocks read, each counted once."""
    read = np.zeros(len(table), bool)
    for block in blocks:
        for term in block.terms:
            read[term.keys.numbers] = True
    counts = np.bincount(table.kinds[read], minlength=len(table.specs)).tolist()
    return sum(count * spec.nbytes for count, spec in zip(counts, table.specs, strict=True))


def _keys(blocks: Iterable[Block]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for block in blocks for term in block.terms for key in term.keys))


def _written(proof: Proof) -> set[str]:
    return {leaf for block in proof.blocks for leaf in block.leaves}
