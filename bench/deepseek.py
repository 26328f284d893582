"""DeepSeek-V3 in headers alone: every key, shape and file of the published checkpoint, without its weights.

The files are as long as the real ones, 673 GB, but sparse: on the disk they take only the room of their headers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from bench.work import DTYPES, MANIFEST, Work

_ITEMSIZES = {"F8_E4M3": 1, "BF16": 2, "F32": 4}
Shape = tuple[int, ...]


class Config(NamedTuple):
    """The sizes of a model, by their names in config.json as far as it has them."""

    layers: int = 61
    dense: int = 3
    experts: int = 256
    hidden: int = 7168
    intermediate: int = 18432
    moe_intermediate: int = 2048
    heads: int = 128
    q_lora: int = 1536
    kv_lora: int = 512
    nope: int = 128
    rope: int = 64
    value: int = 128
    vocab: int = 129280
    files: int = 158


CONFIGS = {
    "tiny": Config(4, 2, 3, 256, 384, 128, 2, 128, 128, 64, 32, 64, 512, 2),
    "quick": Config(9, 3, 16, files=6),
    "half": Config(),
}
KINDS = ("deepseek",)
RULES = [
    "model.embed_tokens.weight -> embed",
    "model.norm.weight -> norm",
    "lm_head.weight -> head",
    "model.layers.{l[:DENSE]}.** -> dense.**",
    "model.layers.{l[DENSE:]}.mlp.experts.{e}.** -> moe.mlp.experts.**",
    "model.layers.{l[DENSE:]}.** -> moe.**",
]


def rules(config: Config) -> list[str]:
    """Layers that are alike in one stack; all experts of all layers in one leaf."""
    return [rule.replace("DENSE", str(config.dense)) for rule in RULES]


def weights(config: Config) -> Iterator[tuple[str, Shape, str]]:
    """Name, shape and dtype of each weight that is meant; those of F8_E4M3 have scales beside them."""
    yield "model.embed_tokens.weight", (config.vocab, config.hidden), "BF16"
    for layer in range(config.layers):
        yield from _layer(config, f"model.layers.{layer}", layer < config.dense)
    yield "model.norm.weight", (config.hidden,), "BF16"
    yield "lm_head.weight", (config.vocab, config.hidden), "BF16"


def _layer(config: Config, at: str, is_dense: bool) -> Iterator[tuple[str, Shape, str]]:
    hidden, heads = config.hidden, config.heads
    yield f"{at}.input_layernorm.weight", (hidden,), "BF16"
    yield f"{at}.self_attn.q_a_proj.weight", (config.q_lora, hidden), "F8_E4M3"
    yield f"{at}.self_attn.q_a_layernorm.weight", (config.q_lora,), "BF16"
    yield f"{at}.self_attn.q_b_proj.weight", (heads * (config.nope + config.rope), config.q_lora), "F8_E4M3"
    yield f"{at}.self_attn.kv_a_proj_with_mqa.weight", (config.kv_lora + config.rope, hidden), "F8_E4M3"
    yield f"{at}.self_attn.kv_a_layernorm.weight", (config.kv_lora,), "BF16"
    yield f"{at}.self_attn.kv_b_proj.weight", (heads * (config.nope + config.value), config.kv_lora), "F8_E4M3"
    yield f"{at}.self_attn.o_proj.weight", (hidden, heads * config.value), "F8_E4M3"
    yield f"{at}.post_attention_layernorm.weight", (hidden,), "BF16"
    if is_dense:
        yield from _mlp(f"{at}.mlp", hidden, config.intermediate)
        return
    for expert in range(config.experts):
        yield from _mlp(f"{at}.mlp.experts.{expert}", hidden, config.moe_intermediate)
    yield f"{at}.mlp.gate.weight", (config.experts, hidden), "BF16"
    yield f"{at}.mlp.gate.e_score_correction_bias", (config.experts,), "F32"
    yield from _mlp(f"{at}.mlp.shared_experts", hidden, config.moe_intermediate)


def _mlp(at: str, hidden: int, inner: int) -> Iterator[tuple[str, Shape, str]]:
    for name, shape in (("gate_proj", (inner, hidden)), ("up_proj", (inner, hidden)), ("down_proj", (hidden, inner))):
        yield f"{at}.{name}.weight", shape, "F8_E4M3"


def stored(config: Config) -> Iterator[tuple[str, Shape, str]]:
    """Name, shape and dtype of each tensor in the files."""
    for name, shape, dtype in weights(config):
        yield name, shape, dtype
        if dtype == "F8_E4M3":
            yield f"{name}_scale_inv", tuple(-(-n // 128) for n in shape), "F32"


def write(folder: Path, config: Config) -> None:
    """The files with their index and config."""
    tensors = list(stored(config))
    total = sum(prod(shape) * _ITEMSIZES[dtype] for _, shape, dtype in tensors)
    parts: list[dict[str, dict[str, Any]]] = [{} for _ in range(config.files)]
    sizes, done = [0] * config.files, 0
    for name, shape, dtype in tensors:
        number = min(done * config.files // total, config.files - 1)
        nbytes = prod(shape) * _ITEMSIZES[dtype]
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [sizes[number], sizes[number] + nbytes]}
        parts[number][name] = entry
        sizes[number], done = sizes[number] + nbytes, done + nbytes
    names = [f"model-{n + 1:05}-of-{config.files:06}.safetensors" for n in range(config.files)]
    for name, part, size in zip(names, parts, sizes, strict=True):
        head = json.dumps(part, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        with (folder / name).open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            file.truncate(8 + len(head) + size)
    index = {"metadata": {}, "weight_map": {key: name for name, part in zip(names, parts, strict=True) for key in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    said = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    (folder / "config.json").write_text(json.dumps({"torch_dtype": "bfloat16", "quantization_config": said}))


def like(config: Config) -> dict[str, Any]:
    """The model: a stack of the dense layers, one of the others."""
    import jax
    import jax.numpy as jnp

    from bench.ours import nested

    found: dict[str, Any] = {}
    for name, shape, kept in weights(config):
        words = name.split(".")
        dtype = jnp.float32 if kept == "F32" else jnp.bfloat16
        if words[1] != "layers":
            short = {"model.embed_tokens.weight": "embed", "model.norm.weight": "norm", "lm_head.weight": "head"}[name]
            found[short] = jax.ShapeDtypeStruct(shape, dtype)
            continue
        is_dense = int(words[2]) < config.dense
        stack = (config.dense if is_dense else config.layers - config.dense,)
        stack += (config.experts,) if "experts" in words else ()
        rest = ".".join(word for word in words[3:] if not word.isdigit())
        found[f"{'dense' if is_dense else 'moe'}.{rest}"] = jax.ShapeDtypeStruct((*stack, *shape), dtype)
    return nested(found)


@dataclass(frozen=True)
class HeadersWork(Work):
    """The checkpoint: nothing of it is read but headers."""

    @property
    def config(self) -> Config:
        """Its sizes."""
        return CONFIGS[self.name]

    @property
    def paths(self) -> list[Path]:
        """What is read whole."""
        return [self.folder / "model.safetensors.index.json"]

    @property
    def nbytes(self) -> int:
        """Bytes of headers."""
        return sum(path.stat().st_size for path in self.paths)


def read(folder: Path, manifest: Mapping[str, Any]) -> HeadersWork:
    """The work that was made in `folder`."""
    return HeadersWork(folder, manifest["kind"], manifest["name"], DTYPES["BF16"], {})


def make(folder: Path, kind: str, name: str) -> None:
    """The files."""
    write(folder, CONFIGS[name])
    manifest = {"kind": kind, "name": name, "dtype": "BF16", "places": {}}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def planned(work: Work) -> Callable[[], Any]:
    """`bridge.plan` into stacked leaves of bfloat16: headers, what is quantised, rules and proof."""
    import bridge

    assert isinstance(work, HeadersWork)
    template, listed = like(work.config), rules(work.config)

    def run() -> Any:
        plan = bridge.plan(work.folder, template, listed)
        assert plan.ok, plan
        return plan

    return run
