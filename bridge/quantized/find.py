"""Which stored tensors are parts of quantised ones: keys, specs and config in, logical tensors out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote
from bridge.quantized.config import QuantizationConfig
from bridge.quantized.format import DAMAGED, MoreValues, QuantizedFormat, Settings, StoredModule, StoredNames
from bridge.quantized.formats import FORMATS
from bridge.quantized.logical import Logical, QuantizedForm, QuantizedKeys, StoredSpec
from bridge.quantized.skipped import warnings
from bridge.quantized.view import Array

ReadValues: TypeAlias = Mapping[str, Array]
_CACHE_OF = ("self_attn", "k_proj", "v_proj", "q_proj", "attn", "attention")
_CACHE_SCALES = (".k_scale", ".v_scale", ".q_scale")


def find(
    names: Sequence[str],
    kinds: Sequence[int] | np.ndarray[Any, np.dtype[np.intp]],
    forms: Sequence[StoredSpec],
    config: Mapping[str, Any] | None = None,
    *,
    modelopt: Mapping[str, Any] | None = None,
    values: ReadValues | None = None,
) -> QuantizedKeys:
    """Find the quantised tensors of a checkpoint.

    **Arguments:**

    - `names`, `kinds`, `forms`: the columns of a `Table`: tensor `n` is called `names[n]` and has the dtype and the
      shape of `forms[kinds[n]]`.
    - `config`: the object in `config.json`. What a caller knows better stands in it as `"quantization_config"`.
    - `modelopt`: the object in `hf_quant_config.json`.
    - `values`: what an earlier call's `QuantizedKeys.needs` asked for, by key.

    **Returns:** `QuantizedKeys`. While its `needs` are not empty it is not whole: read these tensors and call again.

    **Raises:** `CheckpointError` for a format that is not read, an incomplete set of tensors, shapes that do not fit.
    """
    said = QuantizationConfig.of(config, modelopt)
    search = _FormatSearch(names, np.asarray(kinds, np.intp), forms, said, values or {})
    if said.method is None:
        for format_ in {id(format_): format_ for format_ in FORMATS.values() if format_.alone}.values():
            search.take(format_)
        return search.found()
    format_ = FORMATS.get(said.method)
    if format_ is None:
        said.refuse(f"says {quote(said.method)}, which is not known; known are {', '.join(FORMATS)}")
    if format_.check is not None:
        format_.check(said)
    search.take(format_)
    found = search.found()
    return QuantizedKeys(found.tensors, found.beside, found.needs, warnings(found.tensors, format_, said))


def may_hold(names: Sequence[str]) -> bool:
    """Whether some key ends as a part of a quantised tensor does: without one, no config needs to be looked for."""
    last = {name.rpartition(".")[2] for name in names}
    layouts = [stored for format_ in FORMATS.values() for stored in format_.stored]
    endings = {ending for stored in layouts for roles in stored.roles.values() for ending in roles}
    return any(_among(ending, last) for ending in endings)


def _among(ending: str, last: Collection[str]) -> bool:
    """Whether a key can end so, by the last segments that there are: quick where there are none."""
    _, dot, segment = ending.rpartition(".")
    return segment in last if dot else any(name.endswith(segment) for name in last)


class _FormatSearch:
    """One pass over the heads of each format. Modules that are alike are built once."""

    def __init__(
        self,
        names: Sequence[str],
        kinds: np.ndarray[Any, np.dtype[np.intp]],
        forms: Sequence[StoredSpec],
        config: QuantizationConfig,
        values: ReadValues,
    ) -> None:
        self.names, self.kinds, self.forms, self.config, self.values = names, kinds, forms, config, values
        self.last = {name.rpartition(".")[2] for name in names}
        self.kind: list[int] = kinds.tolist()
        self.tensors: dict[str, Logical] = {}
        self.used: set[str] = set()
        self.needs: dict[str, None] = {}
        self.shared: dict[QuantizedForm, QuantizedForm] = {}
        self.formats: list[QuantizedFormat] = []
        self.beside: tuple[str, ...] = ()

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each key."""
        return dict(zip(self.names, range(len(self.names)), strict=True))

    def _occurs(self, ending: str) -> bool:
        return _among(ending, self.last)

    def take(self, format_: QuantizedFormat) -> None:
        """Take what belongs to a format."""
        if self.config.method is None and not any(self._suits(stored).any() for stored in format_.stored):
            return
        before = len(self.tensors) + len(self.needs)
        self.beside = tuple(filter(self._occurs, format_.beside))
        settings = format_.told(self.config) if format_.told is not None else None
        for stored in format_.stored:
            self._find(stored, format_, settings)
        if self.config.method is not None or len(self.tensors) + len(self.needs) > before:
            self.formats.append(format_)
        self._complete(format_)

    def _heads(self, stored: StoredNames) -> Iterable[int]:
        suits, head, names = self._suits(stored), stored.head, self.names
        return [n for n in np.flatnonzero(suits[self.kinds]).tolist() if names[n].endswith(head)]

    def _suits(self, stored: StoredNames) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which forms a stored's heaviest tensor may have."""
        return np.array([form.dtype in stored.dtypes and len(form.shape) > 0 for form in self.forms], bool)

    def _find(self, stored: StoredNames, format_: QuantizedFormat, settings: Callable[[str], Settings] | None) -> None:
        roles = {role: tuple(filter(self._occurs, endings)) for role, endings in stored.roles.items()}
        if not self._occurs(stored.head) or (self.config.method is None and not any(roles.values())):
            return
        numbers, kind, names = self.numbers, self.kind, self.names
        built: dict[Any, QuantizedForm | MoreValues | None] = {}
        common: Settings = self.config.fields
        for number in self._heads(stored):
            name = names[number]
            if name in self.used:
                continue
            base = name[: len(name) - len(stored.head)] if stored.head else name
            keys, signature = {"head": name}, [kind[number]]
            for role, endings in roles.items():
                place = -1
                for ending in endings:
                    other = numbers.get(base + ending)
                    if other is not None:
                        keys[role], place = names[other], kind[other]
                        break
                signature.append(place)
            told = settings(base) if settings is not None else common
            alike = (*signature, id(told))
            if alike not in built:
                built[alike] = self._shared(stored.build(self._module(keys, told, {})))
            form = built[alike]
            if isinstance(form, MoreValues):
                form = self._settled(stored, keys, told, form, built, alike)
            if form is not None:
                self._take(base + stored.logical, keys, form, format_, base)

    def _settled(
        self,
        stored: StoredNames,
        keys: Mapping[str, str],
        told: Settings,
        wanted: MoreValues,
        built: dict[Any, Any],
        alike: Any,
    ) -> QuantizedForm | None:
        """The form, as the values of small tensors have it; `None` while these are to be read."""
        known: dict[str, Array] = {}
        form: QuantizedForm | MoreValues | None = wanted
        while isinstance(form, MoreValues):
            role, key = form.role, keys[form.role]
            if not form.each:
                key = built.setdefault((alike, "for all"), key)
            value = self.values.get(key)
            if value is None:
                self.needs[key] = None
                return None
            known[role] = value
            alike = (alike, value.tobytes() if form.each else role)
            if alike not in built:
                built[alike] = self._shared(stored.build(self._module(keys, told, known)))
            form = built[alike]
        return form

    def _shared(self, form: QuantizedForm | MoreValues | None) -> QuantizedForm | MoreValues | None:
        """One object for all that are equal."""
        return self.shared.setdefault(form, form) if isinstance(form, QuantizedForm) else form

    def _module(self, keys: Mapping[str, str], told: Settings, values: Mapping[str, Array]) -> StoredModule:
        specs = {role: self.forms[self.kind[self.numbers[key]]] for role, key in keys.items()}
        return StoredModule(keys, specs, told, self.config, values)

    def _take(
        self, logical: str, keys: Mapping[str, str], form: QuantizedForm, format_: QuantizedFormat, base: str
    ) -> None:
        parts = tuple([keys[role] for role in form.roles])
        beside = [key for role, key in keys.items() if role not in form.roles] if len(keys) > len(parts) else []
        for ending in self.beside:
            if (key := base + ending) in self.numbers:
                beside.append(key)
        if logical in self.numbers and logical not in parts and logical not in beside:
            raise CheckpointError(
                quote(logical), f"is stored, and so are quantised parts of it, such as {quote(parts[0])}", DAMAGED
            )
        self.tensors[logical] = Logical(form, parts, tuple(beside))
        self.used.update(parts, beside)

    def _complete(self, format_: QuantizedFormat) -> None:
        """Refuse what is left alone of a set."""
        telling = tuple({e for stored in format_.stored for e in stored.telling if self._occurs(e)})
        if not telling or self.needs or format_ not in self.formats:
            return
        for name in self.names:
            if name.endswith(telling) and name not in self.used:
                ending = max((e for e in telling if name.endswith(e)), key=len)
                if ending == ".weight_scale" and name.removesuffix("_scale") in self.numbers:
                    continue  # a weight that was rounded and kept in full
                raise CheckpointError(
                    quote(name),
                    f"belongs to a quantised tensor, but the codes for its {quote(ending)} are missing",
                    DAMAGED,
                )

    def found(self) -> QuantizedKeys:
        """All that was taken."""
        return QuantizedKeys(self.tensors, tuple(self._cache_scales()), tuple(self.needs))

    def _cache_scales(self) -> list[str]:
        """Scales of the attention's cache: they belong to runtimes that keep it in 8 bits."""
        if not self.formats or not any(map(self._occurs, _CACHE_SCALES)):
            return []
        return [
            name
            for name in self.names
            if name.endswith(_CACHE_SCALES) and name not in self.used and name.rsplit(".", 2)[-2] in _CACHE_OF
        ]
