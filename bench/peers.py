"""The usual ways in numpy and JAX: each makes the same stacked `jax.Array`s that bridge does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.ours import like
from bench.work import DTYPES, Work

Run = Callable[[], Any]


def stacked(work: Work, tensors: Mapping[str, Any], stack: Callable[[list[Any]], Any]) -> dict[str, Any]:
    """The model's leaves out of single tensors: those of layers through `stack`, the others as they are."""
    leaves = work.leaves().items()
    return {n: stack([tensors[k] for k in leaf.keys]) if leaf.stacked else tensors[leaf.keys[0]] for n, leaf in leaves}


def numpy_stack(work: Work) -> Run:
    """`safetensors.numpy.load_file`, `np.stack`, `jnp.asarray`."""
    return _numpy(work, lambda array: array)


def numpy_transposed(work: Work) -> Run:
    """`safetensors.numpy.load_file`, `np.stack` of `x.T`, `jnp.asarray`."""
    return _numpy(work, lambda array: array.T)


def numpy_f32(work: Work) -> Run:
    """`safetensors.numpy.load_file`, `np.stack`, `jnp.asarray(…, jnp.float32)`."""
    return _numpy(work, lambda array: array, DTYPES["F32"])


def numpy_bf16(work: Work) -> Run:
    """`safetensors.numpy.load_file`, `np.stack`, `jnp.asarray(…, jnp.bfloat16)`."""
    return _numpy(work, lambda array: array, DTYPES["BF16"])


def _numpy(work: Work, change: Callable[[np.ndarray], np.ndarray], dtype: np.dtype | None = None) -> Run:
    import jax
    import jax.numpy as jnp
    from safetensors.numpy import load_file

    def run() -> dict[str, Any]:
        tensors: dict[str, np.ndarray] = {}
        for path in work.paths:
            tensors |= load_file(path)
        arrays = stacked(work, {key: change(array) for key, array in tensors.items()}, np.stack)
        return jax.block_until_ready({name: jnp.asarray(array, dtype) for name, array in arrays.items()})

    return run


def flax(work: Work) -> Run:
    """`safetensors.flax.load_file`, `jnp.stack`."""
    import jax
    import jax.numpy as jnp
    from safetensors.flax import load_file

    def run() -> dict[str, Any]:
        tensors: dict[str, Any] = {}
        for path in work.paths:
            tensors |= load_file(path)
        return jax.block_until_ready(stacked(work, tensors, jnp.stack))

    return run


def _safe_open(work: Work, leaf_of: Callable[[Any, Any], np.ndarray]) -> Run:
    import jax
    from safetensors import safe_open

    def run() -> dict[str, Any]:
        files = {path.name: safe_open(path, framework="numpy") for path in work.paths}

        def tensor(key: str) -> np.ndarray:
            return files[work.places[key].file].get_tensor(key)

        return jax.block_until_ready({n: jax.device_put(leaf_of(leaf, tensor)) for n, leaf in work.leaves().items()})

    return run


def safe_open_stack(work: Work) -> Run:
    """`safe_open` and `get_tensor` for every key; leaf by leaf `np.stack` and `jax.device_put`."""
    return _safe_open(
        work, lambda leaf, tensor: np.stack([*map(tensor, leaf.keys)]) if leaf.stacked else tensor(*leaf.keys)
    )


def safe_open_into(work: Work) -> Run:
    """`safe_open` and `get_tensor` for every key, each copied to its place of one array; `jax.device_put`."""

    def leaf_of(leaf: Any, tensor: Any) -> np.ndarray:
        out = np.empty(leaf.shape, work.dtype)
        places = out.reshape(len(leaf.keys), *work.places[leaf.keys[0]].shape)
        for place, key in zip(places, leaf.keys, strict=True):
            np.copyto(place, tensor(key))
        return out

    return _safe_open(work, leaf_of)


def orbax(work: Work) -> Run:
    """Orbax restores the finished stacked tree."""
    import jax
    import orbax.checkpoint as ocp

    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=device), like(work))

    def run() -> dict[str, Any]:
        from bench.ours import flattened

        with ocp.StandardCheckpointer() as checkpointer:
            return flattened(jax.block_until_ready(checkpointer.restore(work.folder.resolve() / "orbax", template)))

    return run


def orbax_safetensors(work: Work) -> Run:
    """Orbax' safetensors layout: every tensor by its own name (it stacks none), over eight devices by rows."""
    import jax
    from orbax.checkpoint.experimental import v1 as ocp

    from bench.ours import rows_over_eight

    shapes = {key: jax.ShapeDtypeStruct(place.shape, work.dtype) for key, place in work.places.items()}
    template = rows_over_eight(shapes)

    def run() -> list[Any]:
        with ocp.Context(checkpoint_layout=ocp.options.CheckpointLayout.SAFETENSORS):
            return list(jax.block_until_ready(ocp.load(work.folder.resolve(), template)).values())

    return run


def make_orbax(work: Work) -> None:
    """The stacked tree, as orbax saves it."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(work.folder.resolve() / "orbax", _tree(work), force=True)


def equinox(work: Work) -> Run:
    """`eqx.tree_deserialise_leaves` of the finished stacked tree."""
    import equinox as eqx
    import jax

    from bench.ours import flattened

    template = like(work)

    def run() -> dict[str, Any]:
        tree = eqx.tree_deserialise_leaves(work.folder / "tree.eqx", template)
        return flattened(jax.block_until_ready(tree))

    return run


def make_equinox(work: Work) -> None:
    """The stacked tree, as Equinox saves it."""
    import equinox as eqx

    eqx.tree_serialise_leaves(work.folder / "tree.eqx", _tree(work))


def _tree(work: Work) -> Any:
    import jax.numpy as jnp

    from bench.ours import nested

    tensors = {key: work.values(key) for key in work.places}
    return nested({name: jnp.asarray(array) for name, array in stacked(work, tensors, np.stack).items()})
