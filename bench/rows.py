"""The rows of the table: which work, who does it, and what bridge promises there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIB = 1 << 20
_CODE = 2 * MIB
"""Pages of libraries that are run for the first time are file-mapped too; this much is not called growth."""


@dataclass(frozen=True)
class Bound:
    """A promise: a measure of `case` stays below a sum.

    **Arguments:**

    - `case`: whose measure.
    - `terms`: pairs of a factor and names of cases, the best of which counts.
    - `plus`: seconds, or bytes, on top.
    - `rate`: instead of a sum, GB of the final arrays a second that it makes at least.
    - `measure`: `"seconds"`; `"anon"`, peak anonymous memory beyond the final arrays, `"anon_whole"` with them;
        `"mapped"`, file-mapped growth.
    """

    case: str
    terms: tuple[tuple[float, tuple[str, ...]], ...] = ()
    plus: float = 0.0
    measure: str = "seconds"
    rate: float = 0.0


@dataclass(frozen=True)
class Row:
    """One kind of work. **Arguments:**

    - `key`, `title`: its name on the command line and in the report.
    - `cases`: who takes part; for `code`, programs by case instead, timed from the start of their process.
    - `bounds`: what bridge promises.
    - `kind`, `dtype`: the checkpoint, see `bench.work.made`.
    - `growth`: bytes of the final arrays over those stored.
    - `ours`: the case that the others are compared with.
    - `expected`: by peer, at least how many times as long it should take.
    - `cold`: whether the page cache is emptied of the files before each process.
    - `large`: whether the row is measured with the large checkpoint too.
    """

    key: str
    title: str
    cases: tuple[str, ...]
    bounds: tuple[Bound, ...]
    kind: str = "llama"
    dtype: str = "BF16"
    growth: float = 1.0
    ours: str = "bridge"
    expected: Mapping[str, float] = field(default_factory=dict)
    cold: bool = False
    large: bool = True
    code: Mapping[str, tuple[str, str]] = field(default_factory=dict)


_PLAIN = ("fresh", "huge")
_SAVERS = ("save_file", "save_file_stacked", "save_equinox", "save_orbax")


def _memory(case: str, plus: int) -> tuple[Bound, ...]:
    return (Bound(case, plus=plus, measure="anon"), Bound(case, plus=_CODE, measure="mapped"))


def _quantized(kind: str, title: str, growth: float, rate: float, times: float | None = None) -> Row:
    """A quantised checkpoint, dequantised. `times`: how many times as long its reference should take, if pip has it."""
    peers = () if times is None else (f"{kind}_reference",)
    return Row(
        kind,
        f"{title}, dequantised to bfloat16",
        ("bridge_quantized", "expanded", *peers),
        ((Bound("bridge_quantized", rate=rate),) if rate else ()) + _memory("bridge_quantized", 64 * MIB),
        kind=kind,
        growth=growth,
        ours="bridge_quantized",
        expected=dict.fromkeys(peers, times) if times else {},
        large=False,
    )


LOAD = Row(
    "load",
    "Loaded into stacked leaves, same dtype",
    (
        *("bridge", "bridge_by_plan", "replayed", "fresh", "huge", "touched"),
        *("numpy", "flax", "safe_open", "safe_open_into", "torch", "torch_huge"),
        *("pickled", "orbax", "equinox", "fastsafetensors", "runai", "transformers", "transformers_stack"),
        "statedict2pytree",
    ),
    (
        Bound("bridge", ((1.05, _PLAIN),)),
        Bound("bridge", ((1.35, ("touched",)),)),
        *_memory("bridge", 8 * MIB),
    ),
    expected={
        "numpy": 8,
        "flax": 18,
        "safe_open": 5,
        "torch": 1.8,
        "orbax": 8,
        "equinox": 5,
        "transformers_stack": 1.5,
    },
)

ROWS = (
    LOAD,
    Row(
        "widened",
        "bfloat16 stored, float32 leaves",
        ("bridge_f32", "widened", "numpy_f32", "torch_f32", "pickled_f32", "pickled_mapped_f32"),
        (Bound("bridge_f32", ((1.5, ("widened",)),)), *_memory("bridge_f32", 16 * MIB)),
        growth=2.0,
        ours="bridge_f32",
    ),
    *(
        Row(
            f"merged_{dtype.lower()}",
            f"An adapter of every projection (r = 16), merged into {dtype}",
            ("bridge_merged", "bridge"),
            (Bound("bridge_merged", ((1.5, ("bridge",)),)), *_memory("bridge_merged", 64 * MIB)),
            dtype=dtype,
            ours="bridge_merged",
            large=False,
        )
        for dtype in ("F32", "BF16")
    ),
    Row(
        "pickled",
        "What torch.save writes, into stacked leaves",
        ("bridge_pickled", "bridge", "pickled", "pickled_mapped"),
        (Bound("bridge_pickled", ((1.1, ("bridge",)),)), *_memory("bridge_pickled", 8 * MIB)),
        ours="bridge_pickled",
        large=False,
    ),
    Row(
        "pickled_many",
        "20,000 tensors that torch.save wrote, opened",
        ("bridge_open_pickled", "unpickled", "unpickled_mapped", "bridge_open"),
        (Bound("bridge_open_pickled", ((1.0, ("unpickled", "unpickled_mapped")),)),),
        kind="experts",
        ours="bridge_open_pickled",
        large=False,
    ),
    Row(
        "narrowed",
        "float32 stored, bfloat16 leaves",
        ("bridge_bf16", "narrowed", "numpy_bf16", "torch_bf16"),
        (Bound("bridge_bf16", ((1.5, ("narrowed",)),)), *_memory("bridge_bf16", 16 * MIB)),
        dtype="F32",
        growth=0.5,
        ours="bridge_bf16",
    ),
    Row(
        "transposed",
        "Every matrix transposed",
        ("bridge_transposed", "fresh", "huge", "numpy_t", "torch_t"),
        (Bound("bridge_transposed", ((4.5, _PLAIN),)), *_memory("bridge_transposed", 16 * MIB)),
        ours="bridge_transposed",
    ),
    Row(
        "sharded",
        "Over eight forced devices, by rows",
        ("bridge_sharded", "bridge", "orbax_safetensors"),
        (Bound("bridge_sharded", ((1.35, ("bridge",)),)), *_memory("bridge_sharded", 8 * MIB)),
        ours="bridge_sharded",
    ),
    Row(
        "converted",
        "Converted, then opened and loaded",
        ("bridge_converted", "bridge_empty", "orbax", "equinox"),
        (
            Bound("bridge_converted", ((1.0, ("bridge_empty",)),), plus=0.020),
            # Mapped pages are the file's own: neither copied nor counted as anonymous.
            Bound("bridge_converted", plus=8 * MIB, measure="anon_whole"),
        ),
        ours="bridge_converted",
    ),
    Row(
        "cold",
        "Page cache cold",
        ("bridge", "sequential", "one_pass", "numpy", "torch"),
        (Bound("bridge", ((1.1, ("sequential",)),)),),
        cold=True,
    ),
    Row(
        "small",
        "100,000 tensors of 1 KiB",
        (
            *("bridge", "one_pass", "offset_keys", "bridge_open", "bridge_plan", "numpy"),
            *("bridge_unstacked", "read_then_put"),
        ),
        (
            Bound("bridge", ((2.0, ("one_pass",)), (1.3, ("offset_keys",)))),
            Bound("bridge_open", ((1.3, ("offset_keys",)),)),
        ),
        kind="small",
        large=False,
    ),
    Row(
        "save",
        "Saved from stacked leaves",
        ("save", "save_by_rules", "written", *_SAVERS),
        (Bound("save", ((1.3, ("written",)),)), Bound("save_by_rules", ((1.3, ("written",)),))),
        ours="save",
        large=False,
    ),
    Row(
        "diff",
        "Two checkpoints compared",
        ("diff", "read_both"),
        (Bound("diff", ((1.3, ("read_both",)),)),),
        ours="diff",
        large=False,
    ),
    Row(
        "many",
        "20,000 tensors of 128 bytes, saved and compared",
        ("bridge", "save", "save_by_rules", "diff", *_SAVERS),
        (
            *(Bound(case, ((4.0, ("bridge",)),)) for case in ("save", "save_by_rules", "diff")),
            *(Bound(case, ((2.0, ("save_file",)),)) for case in ("save", "save_by_rules")),
        ),
        kind="many",
        large=False,
    ),
    Row(
        "many_unstacked",
        "20,000 tensors of 128 bytes, each its own array, saved",
        ("bridge_unstacked", "save_unstacked", "save_file"),
        (Bound("save_unstacked", ((1.3, ("bridge_unstacked",)),)),),
        kind="many",
        ours="bridge_unstacked",
        large=False,
    ),
    Row(
        "hub",
        "From a Hub on the loopback",
        ("hub", "hub_stream", "web_stream", "hub_fetched", "plain_get"),
        (Bound("hub", ((1.1, ("hub_fetched",)),)),),
        ours="hub",
        large=False,
    ),
    Row(
        "hub_part",
        "One layer from a Hub on the loopback",
        ("hub_part", "hub_part_stream", "hub_part_fetched"),
        (),
        ours="hub_part",
        large=False,
    ),
    _quantized("fp8", "FP8 in blocks of 128 x 128", 2.0, 2.0, 4),
    _quantized("int4", "compressed-tensors, 4 bits in groups of 128", 3.9, 2.0, 4),
    _quantized("mxfp4", "MXFP4 as gpt-oss has it", 3.8, 3.0, 4),
    _quantized("gptq", "GPTQ, 4 bits in groups of 128", 3.9, 1.2),
    _quantized("desc_act", "GPTQ with desc_act", 3.9, 0.5),
    _quantized("awq", "AWQ, 4 bits in groups of 128", 3.9, 1.2),
    Row(
        "headers",
        "DeepSeek-V3's headers, 158 files of FP8, planned into stacked leaves of bfloat16",
        ("bridge_plan_quantized",),
        (
            Bound("bridge_plan_quantized", plus=3.0),
            Bound("bridge_plan_quantized", plus=500e6, measure="anon"),
        ),
        kind="deepseek",
        ours="bridge_plan_quantized",
        large=False,
    ),
    _quantized("nf4", "bitsandbytes, nf4 in blocks of 64", 3.6, 0, 0),
)
