"""Adapters written plainly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Factors = Mapping[str, tuple[np.ndarray, np.ndarray]]


def peft(factors: Factors) -> dict[str, np.ndarray]:
    """A and B of modules, as PEFT calls them."""
    found = {f"base_model.model.{module}.lora_A.weight": a for module, (a, _) in factors.items()}
    return found | {f"base_model.model.{module}.lora_B.weight": b for module, (_, b) in factors.items()}


def config(**fields: Any) -> dict[str, Any]:
    """What stands in adapter_config.json."""
    return {"peft_type": "LORA", "r": 4, "lora_alpha": 4, **fields}


def adapter(folder: Path, tensors: Mapping[str, np.ndarray], **fields: Any) -> Path:
    """A folder with an adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(values) for name, values in tensors.items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(json.dumps(config(**fields)))
    return folder
