"""`scripts/models`: every architecture of `bridge.models` beside transformers, on the cases of its contract test.

What differs is measured in one process, on the small random models of the tests. Time and memory are measured in
processes of their own, on a larger random model in bfloat16, as ratios. Linux only, as the bench is.
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

from bench.memory import fault_in, memory
from bench.runner import ROOT, CaseError, environment, warm

PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- models: written by scripts/models -->", "<!-- models: end -->"
HEAD = (
    "| `model_type`, class of transformers | variants | max \\|Δ\\| hidden states | max \\|Δ\\| output "
    "| greedy tokens that agree | error in bfloat16 | load, time | load, peak memory | import to first output |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)

# What makes a small model a larger one, as far as its config has such a field.
LARGE: Mapping[str, int] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "max_position_embeddings": 512,
    "n_embd": 1024,
    "n_head": 16,
    "n_inner": 2816,
    "n_layer": 12,
    "n_positions": 512,
    "num_attention_heads": 16,
    "num_hidden_layers": 12,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}


def contracts() -> list[Any]:
    """The contract tests of all architectures, by model_type."""
    from tests.models.contract import Contract

    for path in sorted((ROOT / "tests" / "models").glob("test_*.py")):
        importlib.import_module(f"tests.models.{path.stem}")

    def below(kind: type) -> Iterator[Any]:
        for each in kind.__subclasses__():
            yield from below(each)
            if each.__name__.startswith("Test"):
                yield each

    return sorted(below(Contract), key=lambda each: each.model_type)


def differences(contract: Any) -> list[str]:
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
            if name == "states":
                states = max(states, difference)
            else:
                output = max(output, difference)
        if issubclass(contract, shared.DecoderContract):
            theirs = shared.greedy(case.theirs, case.example[0])[-shared.NEW :]
            agree += int((np.asarray(generate(case.ours, case.example[0], shared.NEW))[-shared.NEW :] == theirs).sum())
            total += shared.NEW
    tokens = f"{agree} of {total}" if total else "–"
    name = f"`{contract.model_type}`, `{contract.kind}`"
    return [name, str(len(contract.variants)), f"{states:.1e}", f"{output:.1e}", tokens, low]


def large(contract: Any, folder: Path) -> None:
    """A model of some hundred million parameters, saved by transformers in bfloat16; its example; and a small one."""
    import torch

    fields = dict(next(iter(contract.variants.values())))
    contract.saved(folder / "small", **fields)
    fields |= {name: value for name, value in LARGE.items() if fields.get(name)}
    model = contract.saved(folder / "large", **fields)
    model.to(torch.bfloat16).save_pretrained(folder / "large")
    for name in ("small", "large"):
        np.savez(folder / name / "example.npz", *contract.example(model.config))


def ratios(contract: Any, count: int) -> list[str]:
    """The cells of a row that compare time and memory: ours over theirs, medians of processes that take turns."""
    if not count:
        return ["–"] * 3
    samples: dict[str, list[dict[str, float]]] = {"bridge": [], contract.kind: []}
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as folder:
        large(contract, Path(folder))
        gc.collect()
        for _ in range(count):
            for who, seen in samples.items():
                files = [path for path in Path(folder, "large").iterdir() if path.is_file()]
                warm(files)
                seen.append(child(who, "load", folder) | child(who, "first", folder))
    ours, theirs = (
        {name: statistics.median(sample[name] for sample in seen) for name in seen[0]} for seen in samples.values()
    )
    return [f"{ours[name] / theirs[name]:.2f}" for name in ("seconds", "peak", "first")]


def child(who: str, what: str, folder: str) -> dict[str, float]:
    """One process. **Raises:** `CaseError` with what it said last."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "bench.models", "--child", who, what, folder]
    done = subprocess.run(
        command, env=environment({}), cwd=ROOT, capture_output=True, text=True, check=False, timeout=900
    )
    if done.returncode:
        raise CaseError((done.stderr.strip().splitlines() or ["nothing was said"])[-1])
    said = json.loads(done.stdout.splitlines()[-1])
    return {"first": said["first"] - begin} if what == "first" else said


def in_child(who: str, what: str, folder: Path) -> None:
    """Load, or load and give a first output; and say what that took."""
    if what == "first":
        _output(who, _loaded(who, folder / "large"), folder / "large")
        say(json.dumps({"first": time.monotonic()}))
        return
    _loaded(who, folder / "small")  # what is imported on first use, and JAX's start, are not what is measured
    gc.collect()
    fault_in(2 * sum(path.stat().st_size for path in (folder / "large").iterdir()))
    Path("/proc/self/clear_refs").write_text("5")
    before, begin = memory()["VmRSS"], time.monotonic()
    model = _loaded(who, folder / "large")
    if who != "bridge":  # its tensors are the mapped file, which is read where it is touched: touch each page
        for tensor in model.state_dict().values():
            tensor.flatten()[::2048].sum()
    seconds = time.monotonic() - begin
    say(json.dumps({"seconds": seconds, "peak": memory()["VmHWM"] - before}))


def _loaded(who: str, folder: Path) -> Any:
    if who != "bridge":
        import transformers

        return getattr(transformers, who).from_pretrained(folder, dtype="auto").eval()
    import jax

    import bridge

    return jax.block_until_ready(bridge.models.from_pretrained(folder))


def _output(who: str, model: Any, folder: Path) -> None:
    """The first token of a decoder, the hidden states of another."""
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

    tensors = [torch.tensor(each)[None] for each in example]
    with torch.no_grad():
        if model.can_generate():
            model.generate(tensors[0], max_new_tokens=1, do_sample=False, eos_token_id=-1, pad_token_id=0)
        else:
            model(*(each.to(model.dtype) if each.is_floating_point() else each for each in tensors))


def say(text: str) -> None:
    """To whoever started this."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write it into the page if asked to."""
    parser = argparse.ArgumentParser(prog="scripts/models", description=__doc__)
    parser.add_argument("--only", nargs="*", help="these model_types alone")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind; 0: only what differs")
    parser.add_argument("--publish", action="store_true", help=f"write the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--child", nargs=3, metavar=("WHO", "WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        in_child(options.child[0], options.child[1], Path(options.child[2]))
        return
    rows: list[str] = []
    for contract in contracts():
        if not options.only or contract.model_type in options.only:
            rows.append("| " + " | ".join([*differences(contract), *ratios(contract, options.rounds)]) + " |")
            say(rows[-1])
    names = ("jax", "equinox", "torch", "transformers")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    note = f"Measured with {versions}, Python {platform.python_version()}, on the CPU."
    text = HEAD + "\n".join(rows) + f"\n\n{note}\n"
    say(f"\n{text}")
    if options.publish:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
