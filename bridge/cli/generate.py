"""`eqx-bridge generate`: a prompt goes on, token by token, without PyTorch."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator

from bridge._text import printable
from bridge.cli.adapters import add_adapters
from bridge.cli.arguments import Commands, add_json, add_open_options
from bridge.cli.mapping import add_allowed
from bridge.cli.terminal import UsageError, on_terminal
from bridge.cli.texts import model_options


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "generate",
        help="what follows a prompt, torch-free",
        description="Loads a decoder with its tokenizer and shows what it makes follow. Where a chat template lies "
        "beside, the prompt is what a user says. Needs 'tokenizers' and 'jinja2': pip install 'eqx-bridge[text]'.",
    )
    parser.add_argument("source", metavar="SOURCE", help="a folder, or a repo on the Hub (org/name)")
    parser.add_argument("prompt", metavar="PROMPT")
    add_open_options(parser, "SOURCE")
    add_allowed(parser, missing=False)
    add_adapters(parser)
    parser.add_argument("--max-new-tokens", metavar="N", type=int, default=256, help="default: 256")
    parser.add_argument("--temperature", metavar="T", type=float, help="draw tokens; without it the likeliest is taken")
    parser.add_argument("--top-p", metavar="P", type=float, help="draw only from the likeliest with this probability")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="for drawing; default: 0")
    parser.add_argument("--raw", action="store_true", help="the prompt as it is, whatever chat template there is")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Generate, and show each piece as it comes."""
    if arguments.max_new_tokens < 1:
        raise UsageError(f"--max-new-tokens {arguments.max_new_tokens}: give a whole number from 1 up.")
    if arguments.top_p is not None and not arguments.temperature:
        raise UsageError("--top-p has no effect without --temperature. Give both.")
    import jax  # a second, and a wrong spelling is told before

    from bridge.models.text import TextGenerator

    started = time.perf_counter()
    generator = TextGenerator.from_pretrained(arguments.source, **model_options(arguments))
    loaded = time.perf_counter()
    pieces = generator.stream(
        arguments.prompt,
        arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        key=jax.random.key(arguments.seed) if arguments.temperature else None,
        raw=arguments.raw,
    )
    text, times = _shown(pieces, silent=arguments.json)
    if arguments.json:
        print(json.dumps({"prompt": arguments.prompt, "text": text, "tokens": len(times)}))
        return 0
    print(flush=True)
    if on_terminal() and times:
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
        first = times[0] - loaded
        told = f"loaded in {loaded - started:.2f} s, first token after {first:.2f} s, then {rate:.1f} tokens/s"
        print(told, file=sys.stderr)
    return 0


def _shown(pieces: Iterator[str], *, silent: bool) -> tuple[str, list[float]]:
    """The whole text, and when each token was there."""
    found, times = list[str](), list[float]()
    for piece in pieces:
        times.append(time.perf_counter())
        found.append(piece)
        if not silent:
            print("\n".join(map(printable, piece.split("\n"))), end="", flush=True)
    return "".join(found), times
