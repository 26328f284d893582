"""What a format has to say about itself: how its stored tensors are called, and what they come to.

A format is one file with a `FORMAT`, and a line in `formats.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.quantized.config import QuantizationConfig
from bridge.quantized.floats import BFLOAT16
from bridge.quantized.logical import QuantizedForm, StoredSpec
from bridge.quantized.view import Array

Settings: TypeAlias = Mapping[str, Any]
DAMAGED = "Fetch the file again: it is incomplete, or was written by a faulty tool"


class MoreValues(NamedTuple):
    """`build` cannot go on without the values of a small tensor.

    - `role`: which one.
    - `each`: of each module; else one module speaks for all that are like it.
    """

    role: str
    each: bool = True


@dataclass(frozen=True, slots=True)
class StoredModule:
    """The stored tensors that belong together, as `build` sees them.

    - `keys`: each stored key, by role; `"head"` is the heaviest.
    - `specs`: likewise, dtype and shape.
    - `settings`: what the config says about this module; empty where there is no config.
    - `config`: the whole of it.
    - `values`: the values of small tensors, by role, as far as they have been read.
    """

    keys: Mapping[str, str]
    specs: Mapping[str, StoredSpec]
    settings: Settings
    config: QuantizationConfig
    values: Mapping[str, Array]

    @property
    def head(self) -> StoredSpec:
        """The heaviest tensor."""
        return self.specs["head"]

    def get(self, role: str) -> StoredSpec | None:
        """The spec of a role, `None` where the module has no such tensor."""
        return self.specs.get(role)

    def need(self, role: str, called: str) -> StoredSpec:
        """The spec of a role, or a refusal: the set is incomplete."""
        found = self.specs.get(role)
        if found is None:
            self.refuse(f"has no {quote(called)} beside it, which it cannot be read without", DAMAGED)
        return found

    def refuse(self, problem: str, advice: str, *, role: str = "head") -> NoReturn:
        """What is wrong, with the key in front."""
        raise CheckpointError(quote(self.keys[role]), problem, advice)

    def misfit(
        self,
        role: str = "scale",
        *,
        wanted: str = "",
        advice: str = "Correct the config with quantized={…}, or take the stored tensors with quantized='keep'",
    ) -> NoReturn:
        """The shapes of two tensors do not go together."""
        head, other = self.head, self.specs[role]
        self.refuse(
            f"of shape {tuple(other.shape)} does not fit {quote(self.keys['head'])} of shape {tuple(head.shape)}"
            + (f": {wanted}" if wanted else ""),
            advice,
            role=role,
        )

    def dtype(self, *scales: str) -> np.dtype:
        """The dtype of the tensor that is meant: the config's, else a scale's of 16 bits, else bfloat16."""
        if self.config.dtype is not None:
            return self.config.dtype
        for role in scales:
            spec = self.specs.get(role)
            if spec is not None and spec.dtype.itemsize == 2:
                return spec.dtype
        return BFLOAT16

    def number(self, name: str, default: int | None = None) -> int | None:
        """An integer setting; `default` where it is absent or null."""
        value = self.settings.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(f"is quantised as the config says, but its {name} is {value!r}", f"Give {name} as an integer")
        return value


BuildForm: TypeAlias = "Callable[[StoredModule], QuantizedForm | MoreValues | None]"


@dataclass(frozen=True, slots=True)
class StoredNames:
    """How the stored tensors of one module are called.

    - `head`: how the key of the heaviest ends; what is before is the base.
    - `dtypes`: which dtypes it may have.
    - `logical`: what stands in its place in the key of the tensor that is meant.
    - `roles`: for each other tensor how its key ends, after the base; the first that is there is taken.
    - `build`: what they come to; `None` where they are plain tensors after all.
    - `telling`: endings of keys that no plain model has: left alone, they are an incomplete set.
    """

    head: str
    dtypes: frozenset[np.dtype]
    logical: str
    roles: Mapping[str, tuple[str, ...]]
    build: BuildForm
    telling: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuantizedFormat:
    """A format.

    - `stored`: the sets of tensors that it knows.
    - `told`: what the config says about a module, where it differs from module to module.
    - `beside`: endings of keys in a quantised module that change no weight.
    - `skipped`: which fields of the config list modules that were left alone.
    - `alone`: whether to look for it where there is no config.
    """

    stored: tuple[StoredNames, ...]
    told: Callable[[QuantizationConfig], Callable[[str], Settings]] | None = None
    check: Callable[[QuantizationConfig], None] | None = None
    beside: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ("modules_to_not_convert",)
    alone: bool = False


def dtypes(*of: Any) -> frozenset[np.dtype]:
    """A set of numpy dtypes."""
    return frozenset(map(np.dtype, of))
