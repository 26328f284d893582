"""One process of `scripts/models`: imports, loads, gives a first output; then loads again and measures that."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.memory import fault_in, memory


def run(who: str, folder: Path) -> dict[str, float]:
    """When the first output was there, and what the second load took; `who` is `bridge`, or a class of transformers."""
    output(who, loaded(who, folder), folder)
    first = time.monotonic()
    gc.collect()  # the model is gone, and what is imported on first use is there: a load alone is measured
    fault_in(2 * sum(path.stat().st_size for path in folder.iterdir()))
    Path("/proc/self/clear_refs").write_text("5")
    before, begin = memory()["VmRSS"], time.monotonic()
    model = loaded(who, folder)
    if who != "bridge":  # its tensors are the mapped file, which is read where it is touched: touch each page
        for tensor in model.state_dict().values():
            tensor.flatten()[::2048].sum()
    seconds = time.monotonic() - begin
    return {"first": first, "seconds": seconds, "peak": memory()["VmHWM"] - before}


def loaded(who: str, folder: Path) -> Any:
    """The model of a folder, in memory."""
    if who != "bridge":
        import transformers

        model = getattr(transformers, who).from_pretrained(folder, dtype="auto").eval()
        return model.to(model.dtype)  # of DeBERTa v1 two biases come in float32, and its layers refuse that
    import jax

    import bridge

    return jax.block_until_ready(bridge.models.from_pretrained(folder))


def output(who: str, model: Any, folder: Path) -> None:
    """The first token of a decoder, what another model gives when it is called."""
    with np.load(folder / "example.npz") as file:
        example = [file[name] for name in file.files]
    if who == "bridge":
        import equinox as eqx
        import jax
        import jax.numpy as jnp

        import bridge

        dtype = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))[0].dtype
        arrays = [jnp.asarray(each, dtype if each.dtype.kind == "f" else None) for each in example]
        if hasattr(model, "prefill"):
            jax.block_until_ready(bridge.models.generate(model, arrays[0], 1))
        else:
            jax.block_until_ready(eqx.filter_jit(model)(*arrays))
        return
    import torch

    inputs = {name: torch.tensor(each)[None] for name, each in zip(names(example), example, strict=True)}
    inputs = {name: each.to(model.dtype) if each.is_floating_point() else each for name, each in inputs.items()}
    with torch.no_grad():
        if model.can_generate():
            ids = inputs["input_ids"]
            model.generate(ids, max_new_tokens=1, do_sample=False, eos_token_id=-1, pad_token_id=0)
        else:
            model(**inputs)


def names(example: list[np.ndarray]) -> list[str]:
    """What transformers calls the arrays of an example: an image, or tokens, their mask and their types; or both."""
    of_text = iter(("input_ids", "attention_mask", "token_type_ids"))
    return ["pixel_values" if each.dtype.kind == "f" else next(of_text) for each in example]


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(run(sys.argv[1], Path(sys.argv[2])))}\n")
