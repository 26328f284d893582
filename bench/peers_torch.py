"""The ways through PyTorch: its tensors stacked, and handed to JAX by dlpack without a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.peers import stacked
from bench.work import Work

Run = Callable[[], Any]


def to_jax(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors as `jax.Array`s, over the same memory."""
    import jax

    return jax.block_until_ready({name: jax.dlpack.from_dlpack(array) for name, array in arrays.items()})


def _safetensors(work: Work, change: Callable[[Any], Any]) -> Run:
    import torch
    from safetensors.torch import load_file

    def run() -> dict[str, Any]:
        tensors: dict[str, Any] = {}
        for path in work.paths:
            tensors |= load_file(path)
        return to_jax(stacked(work, {key: change(tensor) for key, tensor in tensors.items()}, torch.stack))

    return run


def torch_stack(work: Work) -> Run:
    """`safetensors.torch.load_file`, `torch.stack`, dlpack."""
    return _safetensors(work, lambda tensor: tensor)


def torch_transposed(work: Work) -> Run:
    """`safetensors.torch.load_file`, `x.T.contiguous()`, `torch.stack`, dlpack."""
    return _safetensors(work, lambda tensor: tensor.T.contiguous() if tensor.ndim == 2 else tensor)


def torch_f32(work: Work) -> Run:
    """`safetensors.torch.load_file`, `.float()`, `torch.stack`, dlpack."""
    return _safetensors(work, lambda tensor: tensor.float())


def torch_bf16(work: Work) -> Run:
    """`safetensors.torch.load_file`, `.bfloat16()`, `torch.stack`, dlpack."""
    return _safetensors(work, lambda tensor: tensor.bfloat16())


def _pickled(work: Work, change: Callable[[Any], Any], *, mapped: bool) -> Run:
    import torch

    def run() -> dict[str, Any]:
        tensors: dict[str, Any] = {}
        for path in work.paths:
            tensors |= torch.load(path.with_suffix(".bin"), weights_only=True, mmap=mapped)
        return to_jax(stacked(work, {key: change(tensor) for key, tensor in tensors.items()}, torch.stack))

    return run


def pickled(work: Work) -> Run:
    """`torch.load` of the same tensors pickled, `torch.stack`, dlpack."""
    return _pickled(work, lambda tensor: tensor, mapped=False)


def pickled_mapped(work: Work) -> Run:
    """The same with `mmap=True`."""
    return _pickled(work, lambda tensor: tensor, mapped=True)


def unpickled(work: Work) -> Run:
    """`torch.load` alone: the tensors stay PyTorch's."""
    return _unpickled(work, mapped=False)


def unpickled_mapped(work: Work) -> Run:
    """The same with `mmap=True`: values are read when they are looked at."""
    return _unpickled(work, mapped=True)


def _unpickled(work: Work, *, mapped: bool) -> Run:
    import torch

    def run() -> int:
        return sum(len(torch.load(path.with_suffix(".bin"), weights_only=True, mmap=mapped)) for path in work.paths)

    return run


def pickled_f32(work: Work) -> Run:
    """`torch.load` of the same tensors pickled, `.float()`, `torch.stack`, dlpack."""
    return _pickled(work, lambda tensor: tensor.float(), mapped=False)


def pickled_mapped_f32(work: Work) -> Run:
    """The same with `mmap=True`."""
    return _pickled(work, lambda tensor: tensor.float(), mapped=True)


def make_pickled(work: Work) -> None:
    """The same tensors as PyTorch pickles, a file for each."""
    import torch
    from safetensors.torch import load_file

    for path in work.paths:
        torch.save(load_file(path), path.with_suffix(".bin"))


def _filled(work: Work, tensors: Any) -> dict[str, Any]:
    """Tensors as they come, each copied into its place of the stacked ones."""
    import torch

    dtype = {2: torch.bfloat16, 4: torch.float32}[work.dtype.itemsize]
    out = {name: torch.empty(leaf.shape, dtype=dtype) for name, leaf in work.leaves().items()}
    places: dict[str, Any] = {}
    for name, leaf in work.leaves().items():
        places |= zip(leaf.keys, out[name] if leaf.stacked else [out[name]], strict=True)
    for key, tensor in tensors:
        places[key].copy_(tensor)
    return out


def fastsafetensors(work: Work) -> Run:
    """Fastsafetensors on the CPU, `torch.stack`, dlpack."""
    import torch
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    def run() -> dict[str, Any]:
        loader = SafeTensorsFileLoader(SingleGroup(), device="cpu", nogds=True)
        loader.add_filenames({0: [str(path) for path in work.paths]})
        buffer = loader.copy_files_to_device()
        tensors = {key: buffer.get_tensor(key) for key in work.places}
        arrays = stacked(work, tensors, torch.stack)
        buffer.close()
        loader.close()
        return to_jax(arrays)

    return run


def runai(work: Work) -> Run:
    """runai-model-streamer, each tensor copied into its place of one stacked, dlpack."""
    from runai_model_streamer import SafetensorsStreamer

    def run() -> dict[str, Any]:
        with SafetensorsStreamer() as streamer:
            streamer.stream_files([str(path) for path in work.paths], owned=False)
            return to_jax(_filled(work, streamer.get_tensors()))

    return run


def _transformers(work: Work) -> Callable[[], Any]:
    import os

    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    return lambda: LlamaForCausalLM.from_pretrained(work.folder, dtype=torch.bfloat16)


def transformers_lazy(work: Work) -> Run:
    """`LlamaForCausalLM.from_pretrained` alone: PyTorch's own tensors, unstacked (where mapped, not read yet)."""
    make = _transformers(work)
    return lambda: list(make().state_dict().values())


def transformers_stack(work: Work) -> Run:
    """`LlamaForCausalLM.from_pretrained`, `torch.stack`, dlpack."""
    import torch

    make = _transformers(work)

    def run() -> dict[str, Any]:
        with torch.no_grad():
            return to_jax(stacked(work, make().state_dict(), torch.stack))

    return run


def statedict2pytree(work: Work) -> Run:
    """statedict2pytree (which knows no bfloat16: by way of float32), `jnp.stack`, `astype`."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    from safetensors.torch import load_file
    from statedict2pytree import autoconvert

    class Model(eqx.Module):
        tensors: list[jax.Array]

    order = sorted(work.places)  # it matches by position, and puts a state dict in the order of its names
    template = Model([jnp.zeros(work.places[key].shape, jnp.float32) for key in order])

    def run() -> dict[str, Any]:
        tensors: dict[str, Any] = {}
        for path in work.paths:
            tensors |= load_file(path)
        model = autoconvert(template, {key: tensors[key].float() for key in order}, sort_by_path=False)
        arrays = [array.astype(work.dtype) for array in model.tensors]
        return jax.block_until_ready(stacked(work, dict(zip(order, arrays, strict=True)), jnp.stack))

    return run
