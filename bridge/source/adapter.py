"""An adapter: its tensors, and what lies beside them that says what they mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import plural, quote
from bridge.adapters import AdapterConfig, ArrayInfo, pairs, peft
from bridge.adapters.change import Change
from bridge.format.strict_json import is_object, loads
from bridge.source.adapterfolder import adapter_in_folder
from bridge.source.checkpoint import Checkpoint
from bridge.source.resolve import HubOptions, locate
from bridge.source.small import read_small

CONFIG = "adapter_config.json"
_DIFFUSERS = "lora_adapter_metadata"  # in the metadata of files that diffusers writes
_ADVICE = "Fetch the adapter again"


def open_adapter(source: object, hub: HubOptions) -> Checkpoint:
    """An adapter's tensors. Reads headers only.

    **Arguments:**

    - `source`: as of `open`; in a folder the adapter is meant, whatever else is there. A `Checkpoint` is handed back.
    - `hub`: how to ask the Hub.

    **Raises:** `CheckpointError`.
    """
    if isinstance(source, Checkpoint):
        return source
    return Checkpoint(locate(source, subfolder=None, variant=None, hub=hub, within=adapter_in_folder))


class Meant(NamedTuple):
    """What an adapter changes. `causal`: whether its model gives words back. `aside`: what it has for other models."""

    changes: list[Change]
    causal: bool | None
    aside: tuple[str, ...] = ()


class OpenAdapter:
    """An open adapter and its weight."""

    def __init__(self, ckpt: Checkpoint, weight: float) -> None:
        self.ckpt, self.weight = ckpt, weight

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.ckpt.source

    @cached_property
    def own(self) -> dict[str, ArrayInfo]:
        """Dtype and shape of its tensors."""
        specs = self.ckpt.specs
        arrays = [ArrayInfo(form.dtype, form.shape) for form in specs.forms]
        return {name: arrays[kind] for name, kind in zip(specs.names, specs.kinds.tolist(), strict=True)}

    def meant(self, modules: Collection[str]) -> Meant:
        """What it changes of a base with these modules.

        **Raises:** `CheckpointError` for what is no adapter, or one that is not merged.
        """
        names = list(self.own)
        config = self._config()
        if config is not None:
            found = peft.changes(names, config, weight=self.weight, label=self.label)
            return Meant(found, config.causal)
        if any(name.startswith("base_model.") for name in names):
            raise CheckpointError(
                quote(self.label),
                f"has PEFT's keys, but no {CONFIG} beside it, which says rank and alpha",
                "Give the folder that has both",
            )
        said = self._said_by_diffusers()
        every = pairs.pairs(names, label=self.label)
        mine, aside = pairs.others_aside(every, modules)
        values = read_small(self.ckpt.specs, pairs.alphas(mine), self.ckpt.peek)
        alphas = {key: self._alpha(key, value) for key, value in values.items()}
        shapes = {name: array.shape for name, array in self.own.items()}
        found = list(pairs.changes(mine, shapes, alphas, modules, said, weight=self.weight))
        counts = (plural(sum(pair.part == part for pair in every), "module") for part in aside)
        told = [
            f"{quote(self.label)} has {n} of {quote(part)}, another model"
            for n, part in zip(counts, aside, strict=True)
        ]
        return Meant(found, None, tuple(told))

    def _alpha(self, key: str, value: Any) -> float:
        if value.size != 1 or not np.isfinite(value).all():
            found = f"has shape {value.shape}" if value.size != 1 else f"is {value.reshape(-1)[0]}"
            raise CheckpointError(quote(self.label), f": {quote(key)} {found}, expected one finite number", _ADVICE)
        return float(value.reshape(-1)[0])

    def _config(self) -> AdapterConfig | None:
        """What PEFT's config says; `None` where there is none."""
        try:
            raw = self.ckpt.beside(CONFIG)
        except CheckpointError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        subject = f"{quote(CONFIG)} of {quote(self.label)}"
        document = loads(raw, subject=subject, advice=_ADVICE)
        if not is_object(document):
            raise CheckpointError(subject, "is not a JSON object", _ADVICE)
        return AdapterConfig.of(document, subject=subject)

    def _said_by_diffusers(self) -> Mapping[str, AdapterConfig]:
        """PEFT's configs of a pipeline's models, which newer files of diffusers have in their metadata."""
        text = self.ckpt.metadata.get(_DIFFUSERS)
        if text is None:
            return {}
        subject = f"{_DIFFUSERS} of {quote(self.label)}"
        document = loads(text.encode(), subject=subject, advice=_ADVICE)
        found: dict[str, dict[str, Any]] = {}
        for field, value in (document if is_object(document) else {}).items():
            part, _, name = field.partition(".")
            found.setdefault(f"{part}.", {"peft_type": "LORA"})[name] = value
        return {
            part: AdapterConfig.of(fields, subject=f"{subject} for {quote(part)}") for part, fields in found.items()
        }
