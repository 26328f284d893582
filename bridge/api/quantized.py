"""Which keys a plan sees of a quantised checkpoint: stored codes and scales, or whole weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from bridge._errors import CheckpointError, PlanError
from bridge._text import quote
from bridge.mapping.pattern import NamePattern
from bridge.mapping.problem import Conflict
from bridge.rules.syntax import Name, Wild

if TYPE_CHECKING:
    from bridge.planning.plan import Plan, PlanRequest
    from bridge.quantized import Logical
    from bridge.rules.rule import Rule
    from bridge.source.checkpoint import Checkpoint
    from bridge.source.quantized import Quantized

QuantizedOption = str | Mapping[str, Any] | None
"""`"dequantize"`, `"keep"`, or what a config says of a quantisation; `None` where nothing is said."""


def quantized_of(wanted: QuantizedOption) -> str | Mapping[str, Any]:
    """The meaning of a `quantized` argument. **Raises:** `PlanError` for an invalid one."""
    if isinstance(wanted, Mapping):
        try:
            said = json.loads(json.dumps(dict(wanted)))
        except (TypeError, ValueError, RecursionError) as error:
            raise PlanError(
                f"quantized={dict(wanted)!r}",
                f"cannot stand in a config.json: {error}",
                "Give texts, numbers, lists and dicts of them",
            ) from error
        if wanted.get("as", "dequantize") in ("dequantize", "keep"):
            return cast("Mapping[str, Any]", said)
    elif wanted in ("dequantize", "keep"):
        return wanted
    raise PlanError(
        f"quantized={wanted!r}",
        "is not a way to treat quantised weights",
        "Give 'dequantize', 'keep', or what a config says, such as {'quant_method': 'gptq', 'bits': 4}",
    )


def meant(stored: Checkpoint, request: PlanRequest) -> tuple[Checkpoint, Meaning | None]:
    """The checkpoint with one key for each quantised weight, and what a plan says of them; a plain one as it is.

    **Raises:** `CheckpointError` for quantised tensors that cannot be read, or do not fit together.
    """
    from bridge.api.read import is_converted  # imports JAX

    if not stored.specs.has_codes or _keeps(request) or is_converted(stored):
        return stored, None
    found = stored.quantized
    if not isinstance(request.quantized, str):
        found = found.told({name: said for name, said in request.quantized.items() if name != "as"})
    raw = _raw(found.found.tensors, request.rules)
    if len(found) == len(raw) and not found.found.beside:
        return stored, None
    from bridge.source.quantized import over

    return over(stored, found.table(raw)), Meaning(found, raw)


class Meaning:
    """The report of a plan on quantised tensors."""

    def __init__(self, found: Quantized, raw: Collection[str]) -> None:
        self._found, self._raw = found, raw

    def told(self, plan: Plan) -> Plan:
        """The plan, with the stored format of the tensors that it reads."""
        from dataclasses import replace

        from bridge.planning.lossy import Quantization

        known: dict[int, Quantization] = {}
        quantized: dict[str, Quantization] = {}
        for key, tensor in self._found.found.tensors.items():
            if key not in self._raw:
                form = tensor.form
                said = known.get(id(form))
                if said is None:
                    said = known[id(form)] = Quantization(form.format, form.how)
                quantized[key] = said
        return replace(plan, quantized=quantized, warnings=self._found.found.warnings)


def check_codes(stored: Checkpoint, made: Plan) -> None:
    """If stored tensors are requested, codes without their scales are a problem of the plan."""
    if not _keeps(made.request):
        return
    try:
        found = stored.quantized.found
    except CheckpointError:
        return  # a format that is not known: what goes with what, nobody can say
    read = set(made.keys) if found.tensors else set[str]()
    for tensor in found.tensors.values():
        codes, *others = tensor.parts
        left = [key for key in others if key not in read] if codes in read else []
        if left:
            text = f"its codes mean nothing without {quote(left[0])}, which no leaf takes: give it one, or drop both"
            conflict = Conflict(codes, text, (codes,))
            if conflict not in made.problems.conflicts:  # a plan that is given again has it already
                made.problems.conflicts.append(conflict)


def _keeps(request: PlanRequest) -> bool:
    """Whether stored tensors are requested."""
    asked = request.quantized
    as_stored = asked == "keep" if isinstance(asked, str) else asked.get("as") == "keep"
    return as_stored or request.dtype.default == "checkpoint"


def _raw(tensors: Mapping[str, Logical], rules: Sequence[Rule]) -> frozenset[str]:
    """The quantised tensors of which a rule names a part, not only by a wildcard."""
    named = [side.name for rule in rules for side in rule.keys if not _has_wildcard(side.name)]
    endings = {name.segments[-1] for name in named}
    texts = {segment[0] for segment in endings if len(segment) == 1 and isinstance(segment[0], str)}
    others = [NamePattern(Name((segment,))) for segment in endings if not (len(segment) == 1 and segment[0] in texts)]
    parts: list[tuple[str, str]] = []
    for key, tensor in tensors.items():
        for part in (*tensor.parts, *tensor.beside):
            last = part.rpartition(".")[2]
            if part != key and (last in texts or any(pattern.find(last) for pattern in others)):
                parts.append((part, key))
    if not parts:
        return frozenset()
    patterns = list(map(NamePattern, named))
    return frozenset(key for part, key in parts if any(pattern.find(part) for pattern in patterns))


def _has_wildcard(name: Name) -> bool:
    return any(isinstance(piece, Wild) for piece in name.pieces())
