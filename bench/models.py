"""`scripts/models`: every architecture of `bridge.models` beside transformers, on the cases of its contract test.

What differs is measured in one process, on the small random models of the tests. Time and memory are measured in
processes of their own (`bench/models_child.py`), on a larger random model in bfloat16, as ratios. Linux only, as the
bench is.

A contract is found by its class in `tests/models/test_*.py`. Of what a class may have, `heads` and `head_case` are
used here: the models of transformers with heads that `EncoderContract` compares.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from bench.models_table import COLUMNS, PAGE, published, written
from bench.runner import ROOT, CaseError, environment, warm

# What makes a small model a larger one, as far as its config has such a field and says something there.
LARGE: Mapping[str, int] = {
    "dim": 768,
    "embedding_size": 128,
    "hidden_dim": 3072,
    "hidden_size": 1024,
    "image_size": 224,
    "intermediate_size": 2816,
    "max_position_embeddings": 512,
    "n_embd": 1024,
    "n_head": 16,
    "n_heads": 12,
    "n_inner": 2816,
    "n_layer": 8,
    "n_layers": 8,
    "n_positions": 512,
    "num_attention_heads": 16,
    "num_hidden_layers": 8,
    "num_key_value_heads": 4,
    "patch_size": 16,
    "projection_size": 1024,
    "vocab_size": 32000,
}
# Of models whose layers hold several MLPs, and of convolutional ones, whose stages each say how wide and how deep.
EXPERTS = {"intermediate_size": 1408, "moe_intermediate_size": 352, "num_hidden_layers": 4}
STAGES = {"depths": (3, 3, 9, 3), "hidden_sizes": (128, 256, 512, 1024)}


def contracts() -> list[Any]:
    """The contract tests of all architectures, by model_type."""
    import transformers

    from tests.models.contract import Contract

    transformers.utils.logging.disable_progress_bar()
    for path in sorted((ROOT / "tests" / "models").glob("test_*.py")):
        importlib.import_module(f"tests.models.{path.stem}")

    def below(kind: type) -> Iterator[Any]:
        for each in kind.__subclasses__():
            yield from below(each)
            if each.__name__.startswith("Test"):
                yield each

    return sorted(below(Contract), key=lambda each: (each.model_type, each.kind))


def differences(contract: Any) -> dict[str, str]:
    """The cells of a row that say how far from transformers an architecture is."""
    from bridge.models import generate
    from tests.models import contract as shared

    states = output = 0.0
    agree = total = 0
    low = ""
    for variant in contract.variants:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
            case = contract.case(variant, Path(folder))
            low = low or f"{max(contract.errors_in_bfloat16(case, Path(other)).values()):.2f}"
        expected = contract.judge(case.theirs, *case.example)
        for name, value in shared.compiled(contract.run, case.ours, *case.example).items():
            difference = float(np.abs(np.asarray(value) - expected[name]).max())
            if name.endswith("states") or name.startswith("stage"):  # of two encoders those of each, or each by itself
                states = max(states, difference)
            else:
                output = max(output, difference)
        if issubclass(contract, shared.DecoderContract):
            theirs = shared.greedy(case.theirs, case.example[0])[-shared.NEW :]
            agree += int((np.asarray(generate(case.ours, case.example[0], shared.NEW))[-shared.NEW :] == theirs).sum())
            total += shared.NEW
    return {
        "variants": str(len(contract.variants)),
        "states": f"{states:.1e}",
        "output": f"{output:.1e}",
        "heads": heads(contract),
        "tokens": f"{agree} of {total}" if total else "–",
        "bfloat16": low,
    }


def heads(contract: Any) -> str:
    """How many heads there are beside the model, and how far from transformers' their logits are at most."""
    found = list[float]()
    for head in contract.heads if hasattr(contract, "head_case") else ():
        with tempfile.TemporaryDirectory() as folder:
            _, _, logits, expected = contract.head_case(head, Path(folder))
        found.append(float(np.abs(logits - expected).max()))
    return f"{len(found)}: {max(found):.1e}" if found else "–"


def larger(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config, those of configs within it too, with the sizes of a larger model."""
    sizes = {**LARGE, **(EXPERTS if any(name.endswith(("num_experts", "local_experts")) for name in fields) else {})}
    found = {name: larger(value) if name.endswith("_config") else value for name, value in fields.items()}
    found |= {name: size for name, size in sizes.items() if fields.get(name)}
    return found | {name: list(sizes[: len(fields[name])]) for name, sizes in STAGES.items() if fields.get(name)}


def large(contract: Any, folder: Path) -> None:
    """A model of a hundred million parameters or two, saved by transformers in bfloat16; and its example."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, contract.kind)
    config = kind.config_class(**larger(next(iter(contract.variants.values()))))
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = kind(config)
    finally:
        torch.set_default_dtype(dtype)
    model.to(torch.bfloat16).save_pretrained(folder)
    example = contract.example(model.config)
    example = tuple(each[0] if each.ndim == (4 if each.dtype.kind == "f" else 2) else each for each in example)
    side = LARGE["image_size"]  # convolutions take images of any size, and the tests give them small ones
    example = tuple(np.resize(each, (len(each), side, side)) if each.dtype.kind == "f" else each for each in example)
    np.savez(folder / "example.npz", *example)


def ratios(contract: Any, count: int) -> dict[str, str]:
    """The cells of a row that compare time and memory: ours over theirs, medians of processes that take turns."""
    names = {"seconds": "load", "peak": "memory", "first": "first"}
    if not count:
        return dict.fromkeys(names.values(), "–")
    samples: dict[str, list[dict[str, float]]] = {"bridge": [], contract.kind: []}
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as folder:
        large(contract, Path(folder))
        gc.collect()
        warm([path for path in Path(folder).iterdir() if path.is_file()])
        for _ in range(count):
            for who, seen in samples.items():
                seen.append(child(who, folder))
    ours, theirs = (
        {name: statistics.median(sample[name] for sample in seen) for name in seen[0]} for seen in samples.values()
    )
    return {cell: f"{ours[name] / theirs[name]:.2f}" for name, cell in names.items()}


def child(who: str, folder: str) -> dict[str, float]:
    """One process. **Raises:** `CaseError` with what it said last."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bench.models_child", who, folder],
        env=environment({}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        raise CaseError((done.stderr.strip().splitlines() or ["nothing was said"])[-1])
    said = json.loads(done.stdout.splitlines()[-1])
    return said | {"first": said["first"] - begin}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it into the page if asked to: after each row, so that a run can go on."""
    parser = argparse.ArgumentParser(prog="scripts/models", description=__doc__)
    parser.add_argument("--only", nargs="*", help="these model_types, or classes of transformers, alone")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind; 0: only what differs")
    parser.add_argument(
        "--publish", action="store_true", help=f"write what was measured into {PAGE.relative_to(ROOT)}; the rest stays"
    )
    options = parser.parse_args(arguments)
    versions = ", ".join(f"{name} {version(name)}" for name in ("jax", "equinox", "torch", "transformers"))
    note = f"Measured with {versions}, Python {platform.python_version()}, on the CPU."
    chosen = {f"`{each.model_type}`, `{each.kind}`": each for each in contracts()}
    if options.only:
        only = set(options.only)
        chosen = {name: each for name, each in chosen.items() if {each.model_type, each.kind} & only}
    rows: dict[str, dict[str, str]] = {}
    for name, contract in chosen.items():
        began = time.monotonic()
        rows[name] = {"name": name} | differences(contract) | ratios(contract, options.rounds)
        cells = (f"{cell} {rows[name][cell]}" for cell in COLUMNS if cell != "name")
        say(f"{name}: {', '.join(cells)}  ({time.monotonic() - began:.0f} s)")
        if options.publish:
            PAGE.write_text(published(PAGE.read_text(), rows, note, coming=chosen))
    say(f"\n{written(rows.values(), note)}")


def say(text: str) -> None:
    """Now, and not when a buffer is full."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
