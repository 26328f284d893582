"""The quantised tensors of a checkpoint, by the keys that are meant: what its keys and the config beside it say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import plural, quote
from bridge.quantized import QuantizedKeys, find, may_hold
from bridge.source.logical import logical
from bridge.source.small import read_small
from bridge.source.tensor import read_key

if TYPE_CHECKING:
    from bridge.format.table import Table
    from bridge.source.bytes import ByteSource
    from bridge.source.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """A weight that is stored as codes and scales.

    - `key`: what the weight is called.
    - `format`: how it is stored, such as `"fp8 in blocks of 128 x 128"`. `bits`: of a code.
    - `shape`, `dtype`: of the weight; the dtype is what the model was made in.
    - `parts`: the stored keys that it is computed from.
    """

    key: str
    format: str
    bits: int
    shape: tuple[int, ...]
    dtype: np.dtype
    parts: tuple[str, ...]
    _of: Quantized

    def read(self, dtype: Any = None) -> np.ndarray:
        """The values.

        **Arguments:**

        - `dtype`: float32, bfloat16 or float16, each rounded once; `None` for the weight's own.

        **Returns:** an array in memory of its own.

        **Raises:** `CheckpointError` for what reading finds.
        """
        return self._of.read(self.key, None if dtype is None else np.dtype(dtype))


class Quantized(Mapping[str, QuantizedTensor]):
    """key to `QuantizedTensor`. Nothing is looked for before it is asked."""

    def __init__(
        self, ckpt: Checkpoint, peek: Callable[[str], ByteSource], said: Mapping[str, Any] | None = None
    ) -> None:
        """**Arguments:**

        - `peek`: a file's bytes where they are: nothing is fetched for a few of them.
        - `said`: what stands in the place of the config's `quantization_config`.
        """
        self._ckpt, self._peek, self._said = ckpt, peek, said

    @property
    def method(self) -> str | None:
        """What config.json calls the quantisation, known or not; `None` where it says nothing."""
        config = self._config("config.json") or {}
        for name in ("quantization_config", "compression_config"):
            fields = config.get(name)
            if isinstance(fields, Mapping):
                method = cast("Mapping[str, Any]", fields).get("quant_method")
                if isinstance(method, str):
                    return method
        return None

    def told(self, said: Mapping[str, Any]) -> Quantized:
        """What is found where this is the config's `quantization_config`."""
        return Quantized(self._ckpt, self._peek, said)

    @cached_property
    def found(self) -> QuantizedKeys:
        """All quantised tensors. **Raises:** `CheckpointError` for what is not read, or does not fit together."""
        stored = self._ckpt.specs
        if not stored.has_codes or (self._said is None and not may_hold(stored.names)):
            return QuantizedKeys({})
        config, modelopt = self._config("config.json"), self._config("hf_quant_config.json")
        if self._said is not None:
            config, modelopt = {**(config or {}), "quantization_config": self._said}, None
        try:
            found = find(*stored.columns(), config, modelopt=modelopt)
            values: dict[str, np.ndarray] = {}
            while found.needs:
                values |= read_small(stored, found.needs, self._peek)
                found = find(*stored.columns(), config, modelopt=modelopt, values=values)
        except CheckpointError as error:
            raise CheckpointError(quote(self._ckpt.source), f": {error.statement}", error.advice) from error
        return found

    def table(self, raw: Collection[str] = ()) -> Table:
        """The keys that are meant, but those of `raw`, which stay as they are stored."""
        return logical(self._ckpt.specs, self.found, raw)

    def read(self, key: str, dtype: np.dtype | None) -> np.ndarray:
        """The values of a key that is meant."""
        return read_key(self._ckpt, self._meant, key, dtype)

    @cached_property
    def _meant(self) -> Table:
        return self.table()

    def _config(self, name: str) -> Mapping[str, Any] | None:
        """The object in a JSON file beside the checkpoint's; `None` where there is no such file."""
        try:
            raw = self._ckpt.beside(name)
        except CheckpointError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        subject = f"{quote(name)} of {quote(self._ckpt.source)}"
        try:
            value: Any = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(subject, f"is not JSON: {quote(str(error))}", "Fetch it again") from error
        if not isinstance(value, Mapping):
            raise CheckpointError(subject, "is not a JSON object", "Fetch it again")
        return cast("Mapping[str, Any]", value)

    def __getitem__(self, key: str) -> QuantizedTensor:
        form, parts, _ = self.found.tensors[key]
        return QuantizedTensor(key, str(form), form.bits, form.shape, form.dtype, parts, self)

    def __contains__(self, key: object) -> bool:
        return key in self.found.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.found.tensors)

    def __len__(self) -> int:
        return len(self.found.tensors)

    def __repr__(self) -> str:
        return f"<{plural(len(self), 'quantised tensor')} of {quote(self._ckpt.source)}>"


def over(ckpt: Checkpoint, specs: Table) -> Checkpoint:
    """The same files, with the keys of another table. Closing one of the two closes both."""
    found = copy.copy(ckpt)
    found.specs = specs
    return found
