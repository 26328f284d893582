"""`base`: the checkpoint from which a save copies what no leaf of the model holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from bridge._errors import CheckpointError, PlanError
from bridge._text import plural, quote
from bridge.api.read import is_converted
from bridge.mapping.template import Spec
from bridge.source.checkpoint import Checkpoint
from bridge.stream.gather import LeafElements
from bridge.target.commit import numbered
from bridge.target.existing import INDEX, SINGLE

if TYPE_CHECKING:
    from bridge.planning.plan import Plan

_PART = 2 << 20  # bytes of it that are read at once


class BaseCheckpoint:
    """What a save copies from its base.

    - `keys`: keys of which no leaf holds an element: they are copied from the base, bit for bit.
    - `partial`: keys of which leaves hold some elements: the others are copied from the base.
    - `new`: keys that are written and that the base does not have.

    **Raises:** `PlanError` for a key whose elements would be of two dtypes.
    """

    def __init__(
        self, ckpt: Checkpoint, written: Mapping[str, Spec], held: Mapping[str, Sequence[LeafElements]]
    ) -> None:
        self.ckpt = ckpt
        self.keys = frozenset(key for key in ckpt if key not in held)
        self.partial = frozenset(key for key in ckpt if key in held and not _is_whole(held[key]))
        self.new = tuple(key for key in written if key not in ckpt)
        for key in self.ckpt.refused:
            if key in self.keys or key in self.partial:
                refused = CheckpointError(*ckpt.specs.refused[key])
                raise PlanError(
                    f"base {quote(ckpt.source)}",
                    f"has a key that cannot be copied: {refused.statement}",
                    refused.advice,
                )
        for key in self.partial:
            stored, dtype = ckpt.specs[key].dtype, written[key].dtype
            if stored != dtype:
                raise PlanError(
                    f"key {quote(key)}",
                    (
                        f"would be saved as {dtype.name}, but its other elements are {stored.name} in base "
                        f"{quote(ckpt.source)}"
                    ),
                    "Save without dtype=",
                )

    def specs(self, written: Mapping[str, Spec]) -> dict[str, Spec]:
        """The spec of every written key, in the order of the base; keys that it does not have come last."""
        found = self.ckpt.specs
        kept = {key: Spec(found[key].dtype, found[key].shape) for key in self.ckpt if key in self.keys}
        both = {**written, **kept}
        return {key: both[key] for key in (*self.ckpt, *self.new)}

    def files(self, specs: Mapping[str, Spec]) -> dict[str, dict[str, Spec]]:
        """The tensors of each file, by its name, distributed as in the base; new keys go into the last file."""
        found: dict[str, dict[str, Spec]] = {file: {} for file in self.ckpt.files}
        for key, spec in specs.items():
            file = self.ckpt.specs[key].file if key in self.ckpt else self.ckpt.files[-1]
            found[file][key] = spec
        found = {file: tensors for file, tensors in found.items() if tensors}
        if all("/" not in file and file.endswith(".safetensors") for file in found):
            return found
        return dict(zip([SINGLE] if len(found) == 1 else numbered(len(found)), found.values(), strict=True))

    @property
    def index_name(self) -> str:
        """The name of its index, or the name that an index would have."""
        name = self.ckpt.index_name
        return name if name.endswith(".safetensors.index.json") and "/" not in name else INDEX

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of its files."""
        return {"format": "pt", **self.ckpt.metadata}

    def stored(self, key: str) -> Iterator[np.ndarray]:
        """A tensor's bytes, a part at a time."""
        spec = self.ckpt.specs[key]
        if not self.ckpt.specs.is_plain(key):
            yield np.ascontiguousarray(self.ckpt[key])
            return
        source = self.ckpt.byte_source(spec.file)
        for start in range(0, spec.nbytes, _PART):
            raw = np.empty(min(_PART, spec.nbytes - start), np.uint8)
            source.readinto([raw.data], spec.offset + start)
            yield raw

    def remarks(self) -> Iterator[str]:
        """The remarks of the report on the base."""
        if self.keys:
            verb = "comes" if len(self.keys) == 1 else "come"
            yield f"{plural(len(self.keys), 'key')} {verb} from {quote(self.ckpt.source)}: {_some(self.keys)}"
        if self.new:
            verb = "is" if len(self.new) == 1 else "are"
            yield f"{plural(len(self.new), 'key')} {verb} not in {quote(self.ckpt.source)}: {_some(self.new)}"


def check_base(ckpt: Checkpoint, plan: Plan) -> None:
    """**Raises:** `PlanError` if a plan was made for another checkpoint."""
    if is_converted(ckpt):
        raise PlanError(
            f"base {quote(ckpt.source)}", "is a converted form", "Give the checkpoint that bridge.revert makes"
        )
    if plan.quantized or (plan.request.quantized != "keep" and len(ckpt.quantized)):
        raise PlanError(
            f"base {quote(ckpt.source)}",
            "is stored quantised, but leaves are saved as plain values",
            "Save without base=",
        )
    for key, spec in plan.specs.items():
        found = ckpt.specs.get(key)
        if found is None or found.shape != spec.shape:
            has = "has no such key" if found is None else f"has it with shape {found.shape}"
            raise PlanError(
                f"key {quote(key)}",
                f"has shape {spec.shape} in the plan, but base {quote(ckpt.source)} {has}",
                "Give the checkpoint that the plan was made for",
            )


def _is_whole(held: Sequence[LeafElements]) -> bool:
    """Whether leaves hold every element of a key."""
    return sum(piece.rows.count for piece in held) >= prod(held[0].rows.term.index_map.key_shape)


def _some(keys: Sequence[str] | frozenset[str]) -> str:
    shown = sorted(keys)[:8]
    return ", ".join(map(quote, shown)) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
