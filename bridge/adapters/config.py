"""PEFT's `adapter_config.json`, read strictly: a field that is not known may change what the weights mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, cast

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.adapters.patterns import ModulePattern

_MERGE = "Merge it with PEFT, and load what that saves"

# Fields that have no say in what the weights come to, whatever stands in them.
_IDLE = frozenset(
    (
        "auto_mapping",
        "base_model_name_or_path",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "megatron_core",
        "modules_to_save",
        "peft_version",
        "qalora_group_size",
        "revision",
        "target_modules",
        "task_type",
    )
)
_READ = frozenset(
    (
        "alpha_pattern",
        "bias",
        "fan_in_fan_out",
        "init_lora_weights",
        "lora_alpha",
        "lora_bias",
        "peft_type",
        "r",
        "rank_pattern",
        "target_parameters",
        "trainable_token_indices",
        "use_dora",
        "use_rslora",
    )
)
# Ways to begin that leave the base as it is. Others subtract from it, and PEFT repeats that when it loads.
_STARTS = frozenset(("true", "false", "gaussian", "orthogonal", "eva", "mica"))
_LARGEST = 1 << 20
_Patterns = Sequence[tuple[ModulePattern, float]]


class AdapterConfig(NamedTuple):
    """What an adapter's config says of its weights.

    - `r`, `alpha`, `ranks`, `alphas`: rank and alpha, and those of some modules, by pattern.
    - `rslora`: alpha is divided by the root of the rank.
    - `dora`, `fan_in_fan_out`: as PEFT has them.
    - `tokens`: the rows of `trainable_tokens_delta`, for all modules or by the end of a module's name.
    - `parameters`: whether parameters are targeted that are no module's weight.
    - `causal`: whether the model gives words back, so that its head may be its embedding; `None` where nothing says.
    - `subject`: what messages call it.
    """

    subject: str
    r: int
    alpha: float
    ranks: _Patterns = ()
    alphas: _Patterns = ()
    rslora: bool = False
    dora: bool = False
    fan_in_fan_out: bool = False
    tokens: Sequence[int] | Mapping[str, Sequence[int]] = ()
    parameters: bool = False
    causal: bool | None = None

    @classmethod
    def of(cls, document: Mapping[str, Any], *, subject: str) -> AdapterConfig:
        """What the object in a config says.

        **Raises:** `CheckpointError` for a kind of adapter that is not LoRA or changed its base, and for a field that
        is not known and not empty.
        """
        return _ConfigReader(document, subject).config()

    def rank(self, module: str) -> int:
        """The rank of a module's factors."""
        return int(_first(self.ranks, module, self.r))

    def scale(self, module: str, weight: float) -> float:
        """What the product of a module's factors is multiplied by."""
        rank = self.rank(module)
        return weight * _first(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)


def _first(patterns: _Patterns, module: str, default: float) -> float:
    return next((value for pattern, value in patterns if pattern.matches(module)), default)


class _ConfigReader:
    """The fields of one config."""

    def __init__(self, document: Mapping[str, Any], subject: str) -> None:
        self.document, self.subject = document, subject

    def config(self) -> AdapterConfig:
        """All of it."""
        kind = self.document.get("peft_type")
        if kind != "LORA":
            self.refuse("peft_type", "is not a kind of adapter that bridge merges; expected LORA", _MERGE)
        for field, value in self.document.items():
            known = field in _IDLE or field in _READ
            if not known and not _is_empty(value):
                self.refuse(field, "is not known, and may change what the weights mean", _MERGE)
        self.check_start()
        if self.document.get("bias", "none") not in ("none", "all", "lora_only"):
            self.refuse("bias", "is not valid; expected 'none', 'all' or 'lora_only'")
        task = self.document.get("task_type")
        return AdapterConfig(
            self.subject,
            self.whole("r", 8),
            self.number("lora_alpha", 8),
            self.patterns("rank_pattern"),
            self.patterns("alpha_pattern"),
            self.flag("use_rslora"),
            self.flag("use_dora"),
            self.flag("fan_in_fan_out"),
            self.tokens(),
            not _is_empty(self.document.get("target_parameters")),
            None if task is None else task in ("CAUSAL_LM", "SEQ_2_SEQ_LM"),
        )

    def check_start(self) -> None:
        """The base that the factors go with is the one that there is."""
        start = self.document.get("init_lora_weights", True)
        if not isinstance(start, bool | str) or str(start).lower() not in _STARTS:
            self.refuse(
                "init_lora_weights",
                "changed the base before training, so the adapter does not fit the stored base",
                "Save it with PEFT converted to plain LoRA (path_initial_model_for_weight_conversion=)",
            )

    def flag(self, field: str) -> bool:
        """A field that is true or false."""
        value = self.document.get(field)
        if value is not None and not isinstance(value, bool):
            self.refuse(field, "is not valid; expected true or false")
        return bool(value)

    def whole(self, field: str, default: int) -> int:
        """A rank."""
        value = self.document.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
            self.refuse(field, "is not a rank; expected a whole number from 1 up")
        return value

    def number(self, field: str, default: float) -> float:
        """A finite number."""
        value = self.document.get(field, default)
        if not _is_number(value):
            self.refuse(field, "is not a number")
        return float(value)

    def patterns(self, field: str) -> _Patterns:
        """Numbers by pattern, in the order of the file."""
        value: Any = self.document.get(field) or {}
        if not isinstance(value, Mapping):
            self.refuse(field, "is not an object")
        said = cast("Mapping[str, Any]", value)
        found: list[tuple[ModulePattern, float]] = []
        for text, value in said.items():
            if not _is_number(value) or (field == "rank_pattern" and not (isinstance(value, int) and value > 0)):
                self.refuse(
                    field, f"gives {quote(str(text))} a value that is not a {'rank' if 'rank' in field else 'number'}"
                )
            try:
                found.append((ModulePattern(str(text)), float(value)))
            except ValueError as error:
                raise CheckpointError(
                    self.subject,
                    (
                        f": {field} has the pattern {quote(str(text))}, a regular expression with {error}, which "
                        "bridge does not run"
                    ),
                    "Write out the names of the modules",
                ) from error
        return found

    def tokens(self) -> Sequence[int] | Mapping[str, Sequence[int]]:
        """Which rows of an embedding were trained."""
        said: Any = self.document.get("trainable_token_indices") or []
        lists = list(cast("Mapping[str, Any]", said).values()) if isinstance(said, Mapping) else [said]
        for rows in lists:
            if not isinstance(rows, list) or not all(type(n) is int and n >= 0 for n in cast("list[Any]", rows)):
                self.refuse("trainable_token_indices", "is not a list of row numbers")
        return cast("Sequence[int] | Mapping[str, Sequence[int]]", said)

    def refuse(self, field: str, problem: str, advice: str = "Fetch the adapter again") -> NoReturn:
        """**Raises:** `CheckpointError` that names a field and its value."""
        raise CheckpointError(self.subject, f": {field} {quote(str(self.document.get(field)))} {problem}", advice)


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
