"""PEFT's own layout: `base_model.model.`, a module's name, and a suffix that says what the tensor is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, NoReturn

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.adapters.change import AddedBias, Change, LowRank, Replaced, ReplacedRows
from bridge.adapters.config import AdapterConfig

_PREFIX = "base_model.model."
_FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
_ROWS = "trainable_tokens_delta"
_WRAPPERS = ("base_layer", "token_adapter")  # of modules, around what they adapt


class Role(NamedTuple):
    """What one tensor is: `kind` is its factor, or its factor with `.bias`; `depth` counts wrappers around it."""

    kind: str
    module: str
    depth: int


def is_peft(names: Sequence[str]) -> bool:
    """Whether some key is one that PEFT writes."""
    return any(name.startswith(_PREFIX) or role_of(name) is not None for name in names)


def role_of(name: str) -> Role | None:
    """What a tensor is by its name; `None` where it is one of the base's tensors, trained as a whole."""
    segments = name.removeprefix(_PREFIX).split(".")
    for place, segment in enumerate(segments):
        if segment in _FACTORS:
            inside, rest = segments[:place], segments[place + 1 :]
            # Behind the factor some put the adapter's name, and all but embeddings the parameter's.
            last = rest[-1] if rest and rest[-1] in ("weight", "bias") else ""
            if len(rest) - bool(last) > 1:
                return None
            depth = len(inside) - len(_unwrapped_end(inside))
            return Role(segment + (".bias" if last == "bias" else ""), ".".join(_unwrapped(inside)), depth)
    if segments[-1] == _ROWS or (len(segments) > 1 and segments[-2] == _ROWS):
        return Role(_ROWS, ".".join(_unwrapped(segments[: segments.index(_ROWS)])), 0)
    return None


def _unwrapped(segments: Sequence[str]) -> list[str]:
    return [segment for segment in segments if segment not in _WRAPPERS]


def _unwrapped_end(segments: Sequence[str]) -> list[str]:
    kept = list(segments)
    while kept and kept[-1] in _WRAPPERS:
        kept.pop()
    return kept


def changes(names: Sequence[str], config: AdapterConfig, *, weight: float, label: str) -> list[Change]:
    """What an adapter in PEFT's layout changes.

    **Arguments:**

    - `names`: the adapter's keys.
    - `config`: what lies beside them.
    - `weight`: what the caller multiplies by.
    - `label`: what messages call the adapter.

    **Raises:** `CheckpointError` for a key that nobody knows, and a factor without the other.
    """
    factors: dict[tuple[str, int], dict[str, str]] = {}
    found: list[Change] = []
    for name in names:
        role = role_of(name)
        if role is None:
            found.append(_whole(name, label))
        elif role.kind == _ROWS:
            found.append(ReplacedRows(role.module, name, _indices(role.module, name, config)))
        else:
            if ".base_layer.out_proj." in name:
                advice = "Merge it with PEFT, and load what that saves"
                _refuse(label, name, "is of a MultiheadAttention, for which PEFT adds the product twice", advice)
            of = factors.setdefault((role.module, role.depth), {})
            if role.kind in of:
                _refuse(
                    label,
                    name,
                    f"is the same factor as {quote(of[role.kind])}",
                    "Save only one adapter in the file",
                )
            of[role.kind] = name
    for (module, depth), of in factors.items():
        found += _module(module, depth, of, config, weight, label)
    return found


def _whole(name: str, label: str) -> Replaced:
    """A tensor of the base that was trained as a whole."""
    segments = name.removeprefix(_PREFIX).split(".")
    unknown = next((segment for segment in segments if segment.startswith(("lora_", "trainable_tokens"))), None)
    if unknown is not None:
        _refuse(
            label,
            name,
            f"is not a known tensor of an adapter: {quote(unknown)}",
            "Merge it with PEFT, and load what that saves",
        )
    if "modules_to_save" in segments:  # behind it stands the adapter's name, in files that PEFT has not saved itself
        place = segments.index("modules_to_save")
        segments = segments[:place] + segments[-1:]
    return Replaced(".".join(_unwrapped(segments)), name)


def _module(
    module: str, depth: int, of: Mapping[str, str], config: AdapterConfig, weight: float, label: str
) -> Iterator[Change]:
    embedding = "lora_embedding_A" in of or "lora_embedding_B" in of
    first, second = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A", "lora_B")
    if first not in of or second not in of:
        has = next(iter(of.values()))
        missing = second if second not in of else first
        _refuse(label, has, f"has no {missing} beside it", "Fetch the adapter again: it is damaged")
    if config.dora != ("lora_magnitude_vector" in of):
        what = (
            "has no lora_magnitude_vector, but use_dora is true"
            if config.dora
            else "is DoRA's, but use_dora is not true"
        )
        _refuse(label, of.get("lora_magnitude_vector", of[first]), what, "Fetch the adapter again: it is damaged")
    scale = config.scale(module, weight)
    yield LowRank(
        module,
        of[first],
        of[second],
        scale,
        config.rank(module),
        of.get("lora_magnitude_vector"),
        embedding,
        config.fan_in_fan_out,
        config.parameters,
        depth,
    )
    if "lora_B.bias" in of:
        yield AddedBias(module, of["lora_B.bias"], scale)


def _indices(module: str, name: str, config: AdapterConfig) -> tuple[int, ...]:
    """Which rows of an embedding a tensor has: only the config says so."""
    said = config.tokens
    if isinstance(said, Mapping):
        said = next((rows for end, rows in said.items() if f".{module}".endswith(f".{end}")), ())
    if not said:
        raise CheckpointError(
            config.subject,
            f": trainable_token_indices does not say which rows {quote(name)} has",
            "Fetch the adapter again",
        )
    return tuple(said)


def _refuse(label: str, name: str, problem: str, advice: str) -> NoReturn:
    raise CheckpointError(quote(label), f": {quote(name)} {problem}", advice)
