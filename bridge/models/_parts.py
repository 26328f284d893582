"""Which parts a checkpoint has that no config.json speaks of, or speaks of in vain: heads, a pooler."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import bridge
from bridge.models._beside import optional_json
from bridge.models._patterns import matches
from bridge.models.heads import wanted

_CLASSIFIERS = ("classifier.weight", "classifier.1.weight")  # of images, as transformers calls them
_PART = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")


def parts_of(
    module: Any,
    ckpt: bridge.Checkpoint,
    architectures: Any,
    *,
    left_behind: Sequence[str],
    more: Collection[str],
    classifier: bool,
    quantized: str | Mapping[str, Any] | None,
) -> dict[str, bool | str]:
    """The parts of an architecture's model, for `Config.from_dict`.

    **Arguments:**

    - `module`: the architecture's.
    - `architectures`: what config.json says.
    - `left_behind`: patterns of keys that are not wanted. `more`: keys that adapters add.
    - `classifier`: whether config.json names a class that always classifies images.
    - `quantized`: what stands in the place of the config's `quantization_config`, if anything does.
    """
    codes = ckpt.quantized.told(quantized) if isinstance(quantized, Mapping) else ckpt.quantized
    keys = {*ckpt.keys(), *codes, *more, *_other_files(ckpt)}
    head_keys: Mapping[str, str | Sequence[str]] = getattr(module, "HEAD_KEYS", {})
    parts: dict[str, bool | str] = module.parts_of(keys) if hasattr(module, "parts_of") else {}
    if "eqx-bridge.converted" in ckpt.metadata:  # its keys are leaves, which are called as their part is
        leaves = {key.partition(".")[0] for key in keys}
        parts = {name: not leaves.isdisjoint({name, name.removesuffix("s")}) for name in parts}
        named = [[each] if isinstance(each, str) else each for each in head_keys.values() if "head" in leaves]
        keys |= {key for each in named for key in each}
    if classifier:
        parts["head"] = True
    if parts.get("head") and any(matches(pattern, key) for pattern in left_behind for key in _CLASSIFIERS):
        parts["head"] = False
    if head_keys:
        parts["head"] = wanted(architectures, keys, head_keys, left_behind=left_behind)
    return parts


def _other_files(ckpt: bridge.Checkpoint) -> Collection[str]:
    """The keys of a checkpoint in several files of which only some were opened, as the index beside them tells."""
    found = _PART.fullmatch(ckpt.files[0].rpartition("/")[2]) if ckpt.files and ckpt.index is None else None
    listed = optional_json(ckpt, f"{found[1]}{found[2]}.index.json") if found else None
    keys = listed.get("weight_map") if isinstance(listed, Mapping) else None
    return keys if isinstance(keys, Mapping) else ()
