"""Models written to disk, and checkpoints compared: bridge, the usual ways, and what the machine can do at best."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.limits import sequential
from bench.ours import RULES, flattened, like, nested
from bench.work import Work

Run = Callable[[], Any]
COPY = "copy"


def _loaded(work: Work) -> Any:
    """The stacked model."""
    import jax

    import bridge

    return jax.block_until_ready(bridge.load(work.folder, like(work), RULES[work.kind]))


def _unstacked(work: Work, model: Any) -> dict[str, np.ndarray]:
    """The model's tensors under their keys; those of layers are views of the stacks."""
    found: dict[str, np.ndarray] = {}
    arrays = flattened(model)
    for name, leaf in work.leaves().items():
        array = np.asarray(arrays[name])
        found |= zip(leaf.keys, array.reshape(len(leaf.keys), *work.places[leaf.keys[0]].shape), strict=True)
    return found


def _place(work: Work, name: str) -> Path:
    """Where to write; nothing stands there."""
    path = work.folder / f"saved-{name}"
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    return path


# bridge


def by_plan(work: Work) -> Run:
    """`bridge.save` of stacked leaves by the plan that loaded them."""
    import bridge

    model, plan = _loaded(work), bridge.plan(work.folder, like(work), RULES[work.kind])
    target = _place(work, "plan")
    return lambda: bridge.save(model, target, plan).nbytes


def by_rules(work: Work) -> Run:
    """`bridge.save` of stacked leaves by rules."""
    import bridge

    model, target = _loaded(work), _place(work, "rules")
    return lambda: bridge.save(model, target, RULES[work.kind]).nbytes


def unstacked(work: Work) -> Run:
    """`bridge.save` of a model that has an array for every tensor, by the checkpoint's own names."""
    import jax

    import bridge

    template = nested({key: jax.ShapeDtypeStruct(place.shape, work.dtype) for key, place in work.places.items()})
    model, target = bridge.load(work.folder, template), _place(work, "unstacked")
    return lambda: bridge.save(model, target).nbytes


def diff(work: Work) -> Run:
    """`bridge.diff` of the checkpoint and its copy."""
    import bridge

    def run() -> bool:
        found = bridge.diff(work.folder, work.folder / COPY)
        assert found.equal, found
        return found.equal

    return run


# Peers


def save_file(work: Work) -> Run:
    """`safetensors.numpy.save_file` of tensors that are unstacked already."""
    from safetensors.numpy import save_file as write

    tensors, target = _unstacked(work, _loaded(work)), _place(work, "save_file")
    return lambda: write(tensors, target)


def unstack_save_file(work: Work) -> Run:
    """The stacks taken apart, then `safetensors.numpy.save_file`."""
    from safetensors.numpy import save_file as write

    model, target = _loaded(work), _place(work, "unstacked_save_file")
    return lambda: write(_unstacked(work, model), target)


def equinox(work: Work) -> Run:
    """`eqx.tree_serialise_leaves` of the stacked tree."""
    import equinox as eqx

    model, target = _loaded(work), _place(work, "tree.eqx")
    return lambda: eqx.tree_serialise_leaves(target, model)


def orbax(work: Work) -> Run:
    """Orbax saves the stacked tree."""
    import orbax.checkpoint as ocp

    model, target = _loaded(work), _place(work, "orbax").resolve()

    def run() -> None:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(target, model)

    return run


# Limits


def written(work: Work) -> Run:
    """The bytes of all leaves written to one file, 64 MiB at a time, and `fsync`."""
    import jax

    model = _loaded(work)
    memory = [np.asarray(array).reshape(-1).view(np.uint8).data for array in jax.tree.leaves(model)]
    target = _place(work, "written")

    def run() -> None:
        file = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        at = 0
        for array in memory:
            done = 0
            while done < array.nbytes:
                done += os.pwrite(file, array[done : done + (64 << 20)], at + done)
            at += array.nbytes
        os.fsync(file)
        os.close(file)

    return run


def read_both(work: Work) -> Run:
    """The checkpoint and its copy read from end to end by one thread, over and over into the same 4 MiB."""
    one, two = sequential(work), sequential(replace(work, folder=work.folder / COPY))

    def run() -> None:
        one()
        two()

    return run


def make_copy(work: Work) -> None:
    """The checkpoint once more, in files of its own."""
    target = work.folder / COPY
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in (*work.paths, *work.folder.glob("*.index.json")):
        shutil.copyfile(path, target / path.name)
