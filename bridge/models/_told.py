"""What `from_pretrained` says where config.json and the weights beside it do not make a model."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Any

import jax

import bridge
from bridge.models._fields import Fields
from bridge.models._json import parse_json, safe

# What no array is as long as.
UNWEIGHED = frozenset(
    {
        *("eos_token_id", "max_position_embeddings", "n_positions", "num_experts_per_tok", "pattern"),
        "sliding_window",
    }
)
_COMPUTE = "Give the dtype that the model should compute in: dtype=…"


def read_config(ckpt: bridge.Checkpoint, name: str) -> Mapping[str, Any]:
    """The fields of the config.json beside a checkpoint. **Raises:** `bridge.CheckpointError` that names it."""
    try:
        raw = ckpt.beside("config.json")
    except bridge.CheckpointError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise bridge.CheckpointError(
            f"'{name}'",
            "does not exist: its field 'model_type' says which model the weights are",
            "Fetch it too, or load them with bridge.load into a model of your own",
        ) from error
    return parse_json(raw, name=name)


def model_type(data: Any, name: str, known: Collection[str]) -> str:
    """What a config.json says the model is. **Raises:** `bridge.CheckpointError` where it is none of `known`."""
    own = "load the weights with bridge.load into a model of your own"
    if isinstance(data, Mapping) and data.get("model_type") is None:
        other = data.get("_class_name")
        of = f": it is diffusers' config of '{safe(str(other))}'" if other else ""
        raise bridge.CheckpointError(
            f"'{name}'",
            f"lacks field 'model_type', which says what the model is{of}",
            f"Fetch the config.json that belongs to the weights, or {own}",
        )
    found = Fields(data, name=name).text("model_type")
    if found not in known:
        raise bridge.CheckpointError(
            f"'{name}'",
            f": model_type '{safe(found)}' is not supported; supported are {', '.join(known)}",
            "Load the weights into a model of your own, with bridge.load and rules",
        )
    return found


def check_architecture(ckpt: bridge.Checkpoint, like: Any, plan: bridge.Plan, rules: list[str], name: str) -> None:
    """Some key is one of the model's. **Raises:** `bridge.PlanError` where config and weights are of two models."""
    if plan.ok or plan.keys or plan.mismatched or not len(ckpt):
        return
    kind, first = type(like).__name__, safe(next(iter(ckpt)))
    prefix = _prefix(ckpt, like, rules)
    if prefix is None:
        text = (
            f"'{name}'",
            f": its field 'model_type' says that the model is a {kind}, but none of the {len(ckpt):,} keys beside it "
            f"is a key of that model; the first is '{first}'",
            "Fetch the config.json that belongs to the weights",
        )
    else:
        text = (
            f"'{safe(ckpt.source)}'",
            f": every key begins with '{safe(prefix)}.', and the rest is a {kind}'s",
            f'Load it with bridge.load(…, ("{safe(prefix)}.** -> **", rules(config))), by the rules of its file in '
            "bridge.models",
        )
    raise bridge.PlanError(*text, missing=plan.missing, unexpected=plan.unexpected, mismatched=plan.mismatched)


def _prefix(ckpt: bridge.Checkpoint, like: Any, rules: list[str]) -> str | None:
    """What stands before all keys, if the rest are the model's."""
    first, last = min(ckpt).split("."), max(ckpt).split(".")
    common = next((n for n, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), 0)
    for depth in range(min(common, 5), 0, -1):
        prefix = ".".join(first[:depth])
        try:
            if bridge.plan(ckpt, like, (f"{prefix}.** -> **", rules)).keys:
                return prefix
        except bridge.RuleError:  # a segment that is no text of a rule
            return None
    return None


def check_head(plan: bridge.Plan, config: Any, name: str) -> None:
    """A head of its own has a key. **Raises:** `bridge.PlanError` where that is all that is missing."""
    if plan.missing == ("head.weight",) and getattr(config, "tie_word_embeddings", True) is False:
        raise bridge.PlanError(
            f"'{name}'",
            f": its field 'tie_word_embeddings' is false or absent, but '{safe(plan.source)}' has no key for "
            "'head.weight'",
            'Set "tie_word_embeddings": true there, if the head is the embedding',
            missing=plan.missing,
            unexpected=plan.unexpected,
            mismatched=plan.mismatched,
        )


def check_codes(ckpt: bridge.Checkpoint, plan: bridge.Plan) -> None:
    """No weight is a code of 8 bits or less. **Raises:** `bridge.CheckpointError`: models do not compute in these."""
    for key in plan.keys:
        dtype = ckpt.specs[key].dtype if key in ckpt.specs and key not in plan.quantized else None
        if dtype is not None and dtype.name.startswith("float") and dtype.itemsize < 2:
            raise bridge.CheckpointError(
                f"'{safe(ckpt.source)}'",
                f"stores weights in {dtype.name} without scales, '{safe(key)}' among them: no model computes in that",
                "Fetch a copy in bfloat16, or take them as they are with dtype='checkpoint'",
            )


@contextmanager
def tied_by_config(name: str) -> Generator[None]:
    """Where two keys differ that the config says are tied, the error names its field."""
    try:
        yield
    except bridge.CheckpointError as error:
        tied = getattr(error, "tied", None)
        if tied is None:
            raise
        a, b = map(safe, tied)
        raise bridge.CheckpointError(
            f"'{name}'",
            f": its field 'tie_word_embeddings' says that the head is the embedding, but '{a}' and '{b}' differ",
            'Set "tie_word_embeddings": false there, so that the model has both',
        ) from error


def made_in(ckpt: bridge.Checkpoint, quantized: str | Mapping[str, Any] | None) -> Any:
    """The dtype of a model whose caller names none: of a quantised one that in which it was made."""
    found = ckpt.quantized if not isinstance(quantized, Mapping) else ckpt.quantized.told(quantized)
    dtypes = {tensor.dtype for tensor in found.values()}
    if len(dtypes) > 1:
        names = " and ".join(sorted(dtype.name for dtype in dtypes))
        raise bridge.CheckpointError(f"'{ckpt.source}'", f"has quantised weights of {names}", _COMPUTE)
    return next(iter(dtypes), "checkpoint")


def check_one_dtype(ckpt: bridge.Checkpoint, plan: bridge.Plan) -> None:
    """A model computes in one dtype. Which of several it should be is the caller's to say."""
    floats = {spec.dtype for spec in plan.leaves.values() if jax.numpy.issubdtype(spec.dtype, jax.numpy.floating)}
    if len(floats) > 1:
        names = " and ".join(sorted(dtype.name for dtype in floats))
        raise bridge.CheckpointError(f"'{ckpt.source}'", f"stores its weights in {names}", _COMPUTE)


def check_size(ckpt: bridge.Checkpoint, fields: Mapping[str, Any], sizes: Collection[str], name: str) -> None:
    """Nothing that a config counts is more than the checkpoint has bits: a few bytes would ask for all memory."""
    nbits = 8 * sum(spec.nbytes for spec in ckpt.specs.values())
    objects = [fields, *(inner for inner in fields.values() if isinstance(inner, Mapping))]
    for each, field in product(objects, sizes):
        value = each.get(field)
        if isinstance(value, int) and value > nbits:
            raise bridge.CheckpointError(
                f"'{name}'",
                (
                    f": field '{field}' is {safe(str(value))}, but the checkpoint beside it has {nbits // 8:,} "
                    "bytes of weights in all"
                ),
                "Fetch config and weights again: they do not belong together",
            )
