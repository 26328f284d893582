"""What a checkpoint's config says about its quantisation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

import ml_dtypes
import numpy as np

from bridge._errors import CheckpointError
from bridge._text import quote

_DTYPES = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "half": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
    "float": np.dtype(np.float32),
}
_INNER = ("text_config", "llm_config", "language_config")
_KEPT = "Take the stored tensors with quantized='keep', or save the model in bfloat16 with the tool that made it"

# Formats whose tensors are not read, by quant_method.
REFUSED: Mapping[str, str] = {
    "aqlm": "AQLM",
    "bitnet": "BitNet",
    "eetq": "EETQ",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "exllamav2": "EXL2",
    "exllamav3": "EXL3",
    "fp_quant": "FP-Quant (Hadamard transforms)",
    "gguf": "GGUF",
    "gptq_marlin": "Marlin",
    "gptq_marlin_24": "Marlin with 2:4 sparsity",
    "awq_marlin": "Marlin",
    "marlin": "Marlin",
    "bitblas": "BitBLAS",
    "gptq_bitblas": "BitBLAS",
    "gptq_p": "GPTQ in planes",
    "higgs": "HIGGS",
    "hqq": "HQQ",
    "quanto": "Quanto",
    "quark": "Quark",
    "quip": "QuIP",
    "quip#": "QuIP#",
    "quip_sharp": "QuIP#",
    "sinq": "SINQ",
    "spqr": "SpQR",
    "torchao": "torchao",
    "vptq": "VPTQ",
}


@dataclass(frozen=True, slots=True)
class QuantizationConfig:
    """What is said.

    - `method`: which format, as `formats.py` calls it; `None` where nothing is said.
    - `fields`: the object that says how.
    - `dtype`: what the model was made in; `None` where that is not said.
    """

    method: str | None
    fields: Mapping[str, Any]
    dtype: np.dtype | None

    @classmethod
    def of(cls, config: Mapping[str, Any] | None, modelopt: Mapping[str, Any] | None = None) -> QuantizationConfig:
        """Read it.

        **Arguments:**

        - `config`: the object in `config.json`.
        - `modelopt`: the object in `hf_quant_config.json`.

        **Raises:** `CheckpointError` for a format that is known by name and not read.
        """
        config = config or {}
        inner = [config, *(section for name in _INNER if is_object(section := config.get(name)))]
        dtype = next(
            (d for section in inner for name in ("dtype", "torch_dtype") if (d := _dtype(section.get(name)))), None
        )
        for section in inner:
            for name in ("quantization_config", "compression_config", "quantization"):
                fields = section.get(name)
                if is_object(fields) and fields:
                    method = _method(name, fields)
                    if method is not None:
                        return cls(method, fields, dtype)
        if modelopt:
            inner_fields = modelopt.get("quantization")
            fields = inner_fields if is_object(inner_fields) else modelopt
            return cls("modelopt", fields, dtype)
        return cls(None, {}, dtype)

    def regex(self, pattern: str) -> re.Pattern[str]:
        """A regex that names modules."""
        if not is_tame(pattern):
            self.refuse(f"names modules by {quote(pattern)}, which is not a regex that can be tried in bounded time")
        return re.compile(pattern)

    def refuse(self, problem: str, advice: str = _KEPT) -> NoReturn:
        """What is wrong with the config as a whole."""
        raise CheckpointError("quantization_config", problem, advice)


def integers(value: Any) -> tuple[int, ...] | None:
    """A list of integers that are not negative as a tuple; `None` for all else."""
    if not _is_list(value) or not all(type(n) is int and 0 <= n < 2**48 for n in value):
        return None
    return tuple(value)


def texts(value: Any) -> list[str]:
    """The texts in a list; none for all else."""
    return [e for e in value if isinstance(e, str)] if _is_list(value) else []


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list | tuple)


def is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value of a config is an object."""
    return isinstance(value, Mapping)


_REPEATED_GROUP = re.compile(r"\)(?:[*+]|\{)")


def is_tame(pattern: str) -> bool:
    """Whether a regex is one, and short; it comes from a file, and a repeated group may take forever to fail."""
    if len(pattern) > 2000 or len(re.findall(r"[*+{]", pattern)) > 12 or _REPEATED_GROUP.search(pattern):
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _dtype(value: Any) -> np.dtype | None:
    return _DTYPES.get(value.removeprefix("torch.")) if isinstance(value, str) else None


def _method(name: str, fields: Mapping[str, Any]) -> str | None:
    """The format that an object speaks of."""
    method = fields.get("quant_method", fields.get("quant_type") if name == "quantization" else None)
    if method is None:
        if name == "compression_config" or ("config_groups" in fields and "format" in fields):
            return "compressed-tensors"
        if fields.get("load_in_4bit") or fields.get("load_in_8bit"):
            return "bitsandbytes"
        # MLX writes its settings twice, and no method; without both it is somebody else's object.
        return "mlx" if "group_size" in fields and "bits" in fields else None
    if not isinstance(method, str):
        raise CheckpointError("quantization_config", f"has the quant_method {method!r}, which is not text", _KEPT)
    method = method.lower()
    if method in REFUSED:
        raise CheckpointError("quantization_config", f"says {quote(method)}: {REFUSED[method]} is not read", _KEPT)
    if method in ("auto-round", "intel/auto-round"):
        return _auto_round(fields)
    return method


def _auto_round(fields: Mapping[str, Any]) -> str:
    packing = fields.get("packing_format")
    if packing not in ("auto_round:auto_gptq", "auto_gptq"):
        raise CheckpointError(
            "quantization_config", f"says 'auto-round' packed as {packing!r}, which is not read", _KEPT
        )
    return "gptq"
