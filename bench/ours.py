"""What bridge does in each row of the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.work import DTYPES, Work

Run = Callable[[], Any]

RULES = {
    "llama": [
        "model.embed_tokens.** -> embed.**",
        "model.layers.{l}.** -> layers.**",
        "model.norm.** -> norm.**",
        "lm_head.** -> head.**",
    ],
    "small": ["h.{l}.e.{e}.w -> h.e.w"],
    "many": ["model.layers.{l}.** -> layers.**"],
    "experts": ["h.{l}.e.{e}.w -> h.e.w"],
}
QUANTIZED = ["model.layers.{l}.** -> layers.**"]
TRANSPOSED = [
    "model.embed_tokens.weight [o i] -> embed.weight [i o]",
    "lm_head.weight [o i] -> head.weight [i o]",
    "model.layers.{l}.self_attn.*.weight [o i] -> layers.self_attn.*.weight [l i o]",
    "model.layers.{l}.mlp.*.weight [o i] -> layers.mlp.*.weight [l i o]",
    *RULES["llama"],
]


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": x}` as `{"a": {"b": x}}`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        node = tree
        for word in path:
            node = node.setdefault(word, {})
        node[last] = value
    return tree


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The way back."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def like(work: Work, dtype: np.dtype | None = None, *, transposed: bool = False) -> dict[str, Any]:
    """The model that is filled: nested dicts of shapes and dtypes."""
    import jax

    def struct(name: str) -> jax.ShapeDtypeStruct:
        leaf = leaves[name]
        flip = transposed and len(leaf.shape) - leaf.stacked == 2
        shape = (*leaf.shape[:-2], leaf.shape[-1], leaf.shape[-2]) if flip else leaf.shape
        return jax.ShapeDtypeStruct(shape, work.dtype if dtype is None else dtype)

    leaves = work.leaves()
    return nested({name: struct(name) for name in leaves})


def _loading(work: Work, template: Any, rules: Any, source: Any = None) -> Run:
    import jax

    import bridge

    return lambda: flattened(jax.block_until_ready(bridge.load(source or work.folder, template, rules)))


def load(work: Work) -> Run:
    """`bridge.load` into stacked leaves of the stored dtype."""
    return _loading(work, like(work), RULES[work.kind])


def dequantised(work: Work) -> Run:
    """`bridge.load` of a quantised checkpoint into stacked leaves of bfloat16."""
    return _loading(work, like(work), QUANTIZED)


def load_by_plan(work: Work) -> Run:
    """The same with a `Plan` that was made before: files and headers are still opened and compared with it."""
    import bridge

    return _loading(work, like(work), bridge.plan(work.folder, like(work), RULES[work.kind]))


def load_pickled(work: Work) -> Run:
    """`bridge.load` of the same tensors as torch.save writes them."""
    return _loading(work, like(work), RULES[work.kind], [path.with_suffix(".bin") for path in work.paths])


def opened_pickled(work: Work) -> Run:
    """`bridge.open` of the same tensors as torch.save writes them: directory and pickle read and checked."""
    import bridge

    def run() -> int:
        with bridge.open([path.with_suffix(".bin") for path in work.paths]) as ckpt:
            return len(ckpt.specs)

    return run


def to_f32(work: Work) -> Run:
    """`bridge.load` into float32 leaves."""
    return _loading(work, like(work, DTYPES["F32"]), RULES[work.kind])


def to_bf16(work: Work) -> Run:
    """`bridge.load` into bfloat16 leaves."""
    return _loading(work, like(work, DTYPES["BF16"]), RULES[work.kind])


def transposed(work: Work) -> Run:
    """`bridge.load` with every matrix transposed."""
    return _loading(work, like(work, transposed=True), TRANSPOSED)


def rows_over_eight(template: dict[str, Any]) -> dict[str, Any]:
    """`template` with shardings: every leaf by rows over the eight devices that the process was started with."""
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = jax.devices()
    assert len(devices) == 8, devices
    mesh = Mesh(np.array(devices), "rows")

    def one(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        # The axis before the last one, unless that is a stack's, of any number of layers.
        axis = max(len(leaf.shape) - 2, 0)
        axis = axis if leaf.shape[axis] % len(devices) == 0 else len(leaf.shape) - 1
        spec = PartitionSpec(*[None] * axis, "rows")
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(one, template)


def sharded(work: Work) -> Run:
    """`bridge.load` into stacked leaves, each over eight devices by rows."""
    return _loading(work, rows_over_eight(like(work)), RULES[work.kind])


def opened(work: Work) -> Run:
    """`bridge.open`: every header read and checked."""
    import bridge

    def run() -> int:
        with bridge.open(work.folder) as ckpt:
            return len(ckpt.specs)

    return run


def planned(work: Work) -> Run:
    """`bridge.plan`: headers, rules and the proof that nothing is missing; no weights."""
    import bridge

    template = like(work)
    return lambda: bridge.plan(work.folder, template, RULES[work.kind])


def unstacked(work: Work) -> Run:
    """`bridge.load` into a template with the checkpoint's own names: every tensor an array of its own."""
    import jax

    import bridge

    template = nested({key: jax.ShapeDtypeStruct(place.shape, work.dtype) for key, place in work.places.items()})
    return lambda: jax.tree.leaves(jax.block_until_ready(bridge.load(work.folder, template)))


def converted(work: Work) -> Run:
    """`bridge.load` of what `bridge.convert` wrote: no rules."""
    import jax

    import bridge

    template = like(work)
    folder = work.folder / "converted"
    return lambda: flattened(jax.block_until_ready(bridge.load(folder, template)))


def converted_empty(work: Work) -> Run:
    """The same leaves with next to nothing in them: what opening and loading cost beside the bytes."""
    run = converted(work.tiny())
    return lambda: list(run().values())


def make_converted(work: Work) -> None:
    """`bridge.convert`, anew: the form belongs to the version that is measured."""
    import bridge

    bridge.convert(work.folder, work.folder / "converted", like(work), RULES[work.kind], overwrite=True)
