"""`eqx-bridge demo`: a real checkpoint into a real model, end to end, without PyTorch."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

import bridge
from bridge._text import human_nbytes, plural
from bridge.cli.adapters import add_adapters
from bridge.cli.arguments import Commands, add_json, add_source, open_options
from bridge.cli.beside import beside
from bridge.cli.embed import cosines, show_cosines
from bridge.cli.like import leaf_values
from bridge.cli.mapping import add_allowed
from bridge.cli.memory import forget_peak, peak_nbytes, resident_nbytes
from bridge.cli.plan import show
from bridge.cli.terminal import on_terminal, out

if TYPE_CHECKING:
    import numpy as np

    from bridge.models.sentence import SentenceEncoder

REPO = "sentence-transformers/all-MiniLM-L6-v2"

SENTENCES = (
    "A cat sleeps on the warm windowsill.",
    "The kitten is napping in the sun.",
    "Interest rates rose again this quarter.",
    "The central bank made borrowing more expensive.",
    "Weights move from one framework to another.",
)


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "demo",
        help="a real checkpoint into a real model, torch-free",
        description="Loads all-MiniLM-L6-v2 into an Equinox BERT and compares sentences. "
        "Needs the 'tokenizers' library: pip install 'eqx-bridge[text]'.",
    )
    add_source(parser, default=REPO)
    add_allowed(parser)
    add_adapters(parser)
    add_json(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Loaded:
    """A model that has been loaded, and what that took."""

    encoder: SentenceEncoder
    plan: bridge.Plan
    seconds: float
    peak_nbytes: int
    added_nbytes: int

    @property
    def gb_per_second(self) -> float:
        """10⁹ bytes read in a second."""
        return self.plan.nbytes / self.seconds / 1e9


def run(arguments: argparse.Namespace) -> int:
    """Plan, load, compare."""
    console = None if arguments.json else out()
    loaded = _load(arguments, console)
    started = time.perf_counter()
    vectors = loaded.encoder(SENTENCES)
    compiled = time.perf_counter()
    loaded.encoder(SENTENCES)
    finished = time.perf_counter()
    torch = "torch" in sys.modules
    if console is None:
        print(json.dumps(_document(loaded, cosines(vectors), torch=torch)))
        return 0
    first, again = compiled - started, finished - compiled
    count = plural(len(SENTENCES), "sentence")
    _say(console, "embed", f"{count} in {first:.2f} s with compiling, then in {again * 1000:.1f} ms")
    _say(console, "torch", f"{'loaded' if torch else 'not loaded'}: 'torch' in sys.modules is {torch}")
    console.print()
    show_cosines(console, SENTENCES, vectors)
    console.print()
    said = " ".join(shlex.quote(text) for text in ("a cat", "a kitten", "the stock market"))
    _say(console, "yours", f"eqx-bridge embed {shlex.quote(arguments.source)} {said}")
    return 0


def _load(arguments: argparse.Namespace, console: Console | None) -> Loaded:
    import equinox as eqx  # seconds, and a wrong spelling is told before
    import jax

    from bridge.models import bert
    from bridge.models.sentence import SentenceEncoder

    options = open_options(arguments)
    with bridge.open(arguments.source, **options) as ckpt:
        config = bert.Config.from_file(beside(ckpt, "config.json"))
        tokenizer = beside(ckpt, "tokenizer.json")
        make = partial(bert.Bert, config, key=jax.random.key(0))
        like = eqx.filter_eval_shape(make)
        planned = partial(
            bridge.plan,
            ckpt,
            like,
            allow_missing=dict.fromkeys(arguments.allow_missing, leaf_values(make)),
            allow_unexpected=arguments.allow_unexpected,
            quantized=arguments.quantized,
            adapters=arguments.adapter,
            **options,
        )
        # The model's rules are for every spelling on the Hub. What they came to here is shown, and is enough.
        plan = planned(planned(bert.rules(config)).rules)
        if console is not None:
            show(plan)
            console.print()
        jax.block_until_ready(jax.device_put(0))  # JAX is started before the clock is
        forget_peak()
        before, started = resident_nbytes(), time.perf_counter()
        watched = console is not None and on_terminal()
        model = bridge.load(ckpt, like, plan, adapters=arguments.adapter, progress=watched, **options)
        jax.block_until_ready(model)
        seconds, peak = time.perf_counter() - started, peak_nbytes()
    loaded = Loaded(SentenceEncoder(model, tokenizer), plan, seconds, peak, max(0, peak - before))
    if console is not None:
        _say(console, "load", f"{human_nbytes(plan.nbytes)} in {seconds:.3f} s, {loaded.gb_per_second:.1f} GB/s")
        added = f"{human_nbytes(loaded.added_nbytes)} more than before the load"
        _say(console, "memory", f"{human_nbytes(peak)} at the peak, {added}")
    return loaded


def _document(loaded: Loaded, similarities: np.ndarray, *, torch: bool) -> dict[str, object]:
    return {
        "plan": json.loads(loaded.plan.to_json()),
        "nbytes": loaded.plan.nbytes,
        "seconds": loaded.seconds,
        "gb_per_second": loaded.gb_per_second,
        "peak_nbytes": loaded.peak_nbytes,
        "added_nbytes": loaded.added_nbytes,
        "sentences": list(SENTENCES),
        "similarities": similarities.tolist(),
        "torch": torch,
    }


def _say(console: Console, label: str, text: str) -> None:
    console.print(Text.assemble((f"{label:<9}", "dim"), text), soft_wrap=True)
