"""Adapters that PEFT has made and saved, with what its own merge makes of the base: the judge."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from safetensors.torch import save_file

BITS = {torch.float32: np.float32, torch.bfloat16: ml_dtypes.bfloat16, torch.float16: np.float16}


@dataclass(frozen=True)
class Made:
    """A base and an adapter on the disk, and the merged tensors by key."""

    base: Path
    adapter: Path
    merged: Mapping[str, np.ndarray]


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor, bit for bit."""
    values = tensor.detach().cpu().contiguous()
    wide = {torch.bfloat16: torch.int16}.get(values.dtype, values.dtype)
    found = values.view(wide).numpy()
    return found.view(BITS[values.dtype]) if values.dtype in BITS else found


@contextmanager
def quiet() -> Generator[None]:
    """PEFT and transformers warn of each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@quiet()
def made(
    folder: Path,
    model: torch.nn.Module,
    *,
    dtype: torch.dtype = torch.float32,
    tied: tuple[str, ...] = (),
    safe: bool = True,
    also: Callable[[Any], None] | None = None,
    **config: Any,
) -> Made:
    """Wrap a model with PEFT, give every new parameter values, save, load again as users do, and merge.

    **Arguments:**

    - `model`: with random weights; becomes what is merged.
    - `dtype`: of the base.
    - `tied`: keys that are not written, since another one has their tensor.
    - `safe`: write the adapter as safetensors, or as torch.save does.
    - `also`: called with the wrapped model before it is saved.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    model = model.to(dtype).eval()
    base = folder / "base"
    base.mkdir(parents=True)
    state = {key: value.detach().clone() for key, value in model.state_dict().items() if key not in tied}
    save_file(state, base / "model.safetensors")
    wrapped = get_peft_model(model, LoraConfig(**config))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad:
                values = 0.3 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(values.abs() + 0.5 if "magnitude" in name else values)
    if also is not None:
        also(wrapped)
    adapter = folder / "adapter"
    wrapped.save_pretrained(adapter, safe_serialization=safe)
    plain = wrapped.unload()
    plain.load_state_dict(state, strict=False)
    merged = PeftModel.from_pretrained(plain, adapter).merge_and_unload()
    return Made(base, adapter, {key: array(value) for key, value in merged.state_dict().items() if key not in tied})


@quiet()
def llama(**fields: Any) -> Any:
    """A Llama of two layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **heads, **fields}))
