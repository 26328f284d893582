"""Every way to do the work, by name: what runs, what it needs beside the checkpoint, how the table calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench import adapters, deepseek, hub, limits, ours, peers, peers_quantized, peers_torch, saving
from bench.work import Work


@dataclass(frozen=True)
class Case:
    """One way. **Arguments:**

    - `title`: as the table has it.
    - `prepare`: imports and sets up, and returns what is measured.
    - `beside`: a file or folder beside the checkpoint that it reads instead, and who makes it.
    - `factor`: about how much memory it takes, in sizes of the final arrays; measured exactly on the first run.
    - `packages`: whose versions the report names.
    - `environment`: variables of its process.
    - `transposed`: whether it gives every matrix the other way round.
    - `kind`: `"ours"`, `"limit"` or `"peer"`.
    """

    title: str
    prepare: Callable[[Work], Callable[[], Any]]
    kind: str = "peer"
    beside: str | None = None
    factor: float = 3.0
    packages: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    transposed: bool = False


def _ours(
    title: str, prepare: Callable[[Work], Callable[[], Any]], beside: str | None = None, *, transposed: bool = False
) -> Case:
    return Case(title, prepare, "ours", beside, factor=1.3, transposed=transposed)


def _limit(title: str, prepare: Callable[[Work], Callable[[], Any]]) -> Case:
    return Case(title, prepare, "limit", factor=1.3)


MAKERS: dict[str, Callable[[Work], None]] = {
    "converted": ours.make_converted,
    adapters.FOLDER: adapters.make_adapter,
    "orbax": peers.make_orbax,
    "tree.eqx": peers.make_equinox,
    ".bin": peers_torch.make_pickled,
    saving.COPY: saving.make_copy,
}
_ST = ("safetensors",)
_TORCH = ("safetensors", "torch")
_TRANSFORMERS = ("transformers", "torch")
_EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
_HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

CASES: dict[str, Case] = {
    "bridge": _ours("**bridge.load**", ours.load),
    "bridge_by_plan": _ours("**bridge.load**, its `Plan` made before", ours.load_by_plan),
    "bridge_pickled": _ours("**bridge.load** of what torch.save writes", ours.load_pickled, ".bin"),
    "bridge_open_pickled": _ours("**bridge.open** of what torch.save writes", ours.opened_pickled, ".bin"),
    "bridge_quantized": _ours("**bridge.load**", ours.dequantised),
    "bridge_merged": _ours("**bridge.load** with an adapter (r = 16) merged", adapters.merged, adapters.FOLDER),
    "bridge_f32": _ours("**bridge.load**", ours.to_f32),
    "bridge_bf16": _ours("**bridge.load**", ours.to_bf16),
    "bridge_transposed": _ours("**bridge.load**", ours.transposed, transposed=True),
    "bridge_converted": _ours("**bridge.load**, converted", ours.converted, "converted"),
    "bridge_empty": _ours("limit: the same leaves, tiny", ours.converted_empty, "converted"),
    "bridge_open": _ours("**bridge.open**: the header alone", ours.opened),
    "bridge_plan": _ours("**bridge.plan**: header, rules and proof", ours.planned),
    "bridge_plan_quantized": _ours("**bridge.plan**: headers, what is quantised, rules and proof", deepseek.planned),
    "bridge_unstacked": _ours("**bridge.load**, each tensor its own array", ours.unstacked),
    "hub": _ours('**bridge.load("org/name")**, nothing cached', hub.load),
    "hub_stream": _ours('**bridge.load("hf://org/name")**', hub.stream),
    "web_stream": _ours('**bridge.load("http://…")**', hub.web),
    "hub_fetched": _limit("limit: `hf_hub_download` of every file, then bridge.load", hub.fetched),
    "plain_get": _limit("limit: one GET for every file, two threads", hub.plain),
    "hub_part": _ours('**bridge.load("org/name")**, nothing cached', hub.partial),
    "hub_part_stream": _ours('**bridge.load("hf://org/name")**', hub.partial_stream),
    "hub_part_fetched": _limit("limit: `hf_hub_download` of every file, then bridge.load", hub.partial_fetched),
    "bridge_sharded": Case(
        "**bridge.load**, rows over 8 devices", ours.sharded, "ours", factor=1.3, environment=_EIGHT
    ),
    "save": _ours("**bridge.save**, by the plan", saving.by_plan),
    "save_by_rules": _ours("**bridge.save**, by rules", saving.by_rules),
    "save_unstacked": _ours("**bridge.save**, each tensor its own array", saving.unstacked),
    "diff": _ours("**bridge.diff** with a copy", saving.diff, saving.COPY),
    "written": _limit("limit: the same bytes written and `fsync`", saving.written),
    "read_both": Case("limit: both read into one buffer", saving.read_both, "limit", saving.COPY, factor=1.3),
    "save_file": Case("safetensors.numpy `save_file`, unstacked before", saving.save_file, packages=_ST),
    "save_file_stacked": Case("unstacked, then safetensors.numpy `save_file`", saving.unstack_save_file, packages=_ST),
    "save_equinox": Case("`eqx.tree_serialise_leaves` of the stacked tree", saving.equinox, packages=("equinox",)),
    "save_orbax": Case("orbax save of the stacked tree", saving.orbax, packages=("orbax-checkpoint",)),
    "fresh": _limit("limit: `preadv` into fresh `np.empty`", limits.fresh),
    "huge": _limit("limit: `preadv` into fresh pages of 2 MiB", limits.huge),
    "replayed": _limit("limit: the reads of bridge.load, decided beforehand", limits.replayed),
    "touched": _limit("limit: `preadv` into touched memory", limits.touched),
    "one_pass": _limit("limit: one pass, one thread, fresh memory", limits.one_pass),
    "sequential": _limit("limit: one sequential read into one buffer", limits.sequential),
    "widened": _limit("limit: read these bytes, write twice as many", limits.widened),
    "narrowed": _limit("limit: read these bytes, write half as many", limits.narrowed),
    "expanded": _limit("limit: read these bytes, write as many as the arrays have", limits.expanded),
    "offset_keys": _limit("limit: `safe_open().offset_keys()`", limits.offset_keys),
    "read_then_put": _limit("limit: one pass, then `device_put` of every tensor", limits.read_then_put),
    "numpy": Case("safetensors.numpy + `np.stack` + `jnp.asarray`", peers.numpy_stack, packages=_ST),
    "numpy_t": Case(
        "safetensors.numpy + `np.stack` of `x.T` + `jnp.asarray`", peers.numpy_transposed, packages=_ST, transposed=True
    ),
    "numpy_f32": Case("safetensors.numpy + `np.stack` + `jnp.asarray(…, f32)`", peers.numpy_f32, packages=_ST),
    "numpy_bf16": Case(
        "safetensors.numpy + `np.stack` + `jnp.asarray(…, bf16)`", peers.numpy_bf16, packages=_ST, factor=6
    ),
    "flax": Case("safetensors.flax + `jnp.stack`", peers.flax, packages=_ST),
    "safe_open": Case("`safe_open`, per key, + `np.stack` + `device_put`", peers.safe_open_stack, packages=_ST),
    "safe_open_into": Case("`safe_open`, copied into place, + `device_put`", peers.safe_open_into, packages=_ST),
    "torch": Case("safetensors.torch + `torch.stack` + dlpack", peers_torch.torch_stack, packages=_TORCH),
    "torch_huge": Case(
        "safetensors.torch + `torch.stack` + dlpack, `glibc.malloc.hugetlb=1`",
        peers_torch.torch_stack,
        packages=_TORCH,
        environment=_HUGE,
    ),
    "torch_t": Case(
        "safetensors.torch + `.T.contiguous()` + `torch.stack` + dlpack",
        peers_torch.torch_transposed,
        packages=_TORCH,
        factor=4,
        transposed=True,
    ),
    "torch_f32": Case(
        "safetensors.torch + `.float()` + `torch.stack` + dlpack", peers_torch.torch_f32, packages=_TORCH
    ),
    "torch_bf16": Case(
        "safetensors.torch + `.bfloat16()` + `torch.stack` + dlpack",
        peers_torch.torch_bf16,
        packages=_TORCH,
        factor=2.5,
    ),
    "pickled": Case("`torch.load` + `torch.stack` + dlpack", peers_torch.pickled, beside=".bin", packages=("torch",)),
    "pickled_mapped": Case(
        "`torch.load(mmap=True)` + `torch.stack` + dlpack",
        peers_torch.pickled_mapped,
        beside=".bin",
        packages=("torch",),
    ),
    "unpickled": Case("`torch.load` alone", peers_torch.unpickled, beside=".bin", packages=("torch",)),
    "unpickled_mapped": Case(
        "`torch.load(mmap=True)` alone", peers_torch.unpickled_mapped, beside=".bin", packages=("torch",)
    ),
    "pickled_f32": Case(
        "`torch.load` + `.float()` + `torch.stack` + dlpack",
        peers_torch.pickled_f32,
        beside=".bin",
        packages=("torch",),
    ),
    "pickled_mapped_f32": Case(
        "`torch.load(mmap=True)` + `.float()` + `torch.stack` + dlpack",
        peers_torch.pickled_mapped_f32,
        beside=".bin",
        packages=("torch",),
    ),
    "orbax": Case("orbax restore of the stacked tree", peers.orbax, beside="orbax", packages=("orbax-checkpoint",)),
    "orbax_safetensors": Case(
        "orbax, safetensors layout, rows over 8 devices (unstacked)",
        peers.orbax_safetensors,
        packages=("orbax-checkpoint",),
        environment=_EIGHT,
    ),
    "equinox": Case(
        "`eqx.tree_deserialise_leaves` of the stacked tree", peers.equinox, beside="tree.eqx", packages=("equinox",)
    ),
    "fastsafetensors": Case(
        "fastsafetensors + `torch.stack` + dlpack", peers_torch.fastsafetensors, packages=("fastsafetensors", "torch")
    ),
    "runai": Case(
        "runai-model-streamer, copied into place, + dlpack",
        peers_torch.runai,
        packages=("runai-model-streamer", "torch"),
    ),
    "transformers": Case(
        "transformers `from_pretrained` alone (unstacked)",
        peers_torch.transformers_lazy,
        packages=("transformers", "torch"),
    ),
    "transformers_stack": Case(
        "transformers `from_pretrained` + `torch.stack` + dlpack",
        peers_torch.transformers_stack,
        packages=("transformers", "torch"),
    ),
    "statedict2pytree": Case(
        "statedict2pytree + `jnp.stack`", peers_torch.statedict2pytree, packages=("statedict2pytree", "torch"), factor=8
    ),
    "fp8_reference": Case(
        "transformers' `Fp8Dequantize` + `torch.stack` + dlpack", peers_quantized.fp8, packages=_TRANSFORMERS
    ),
    "int4_reference": Case(
        "compressed-tensors' `decompress` + `torch.stack` + dlpack",
        peers_quantized.int4,
        packages=("compressed-tensors", "torch"),
    ),
    "mxfp4_reference": Case(
        "transformers' `convert_moe_packed_tensors` + `torch.stack` + dlpack",
        peers_quantized.mxfp4,
        packages=_TRANSFORMERS,
    ),
    "nf4_reference": Case(
        "bitsandbytes' `dequantize_4bit` + `torch.stack` + dlpack",
        peers_quantized.nf4,
        packages=("bitsandbytes", "torch"),
    ),
}
