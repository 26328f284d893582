"""`eqx-bridge embed`: texts to vectors, by a model of sentence-transformers, without PyTorch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from bridge.cli.arguments import Commands, add_json
from bridge.cli.terminal import out, shown, table
from bridge.cli.texts import add_texts, model_options, texts_of

if TYPE_CHECKING:
    import numpy as np

_MOST = 12  # texts that a table of cosines has columns for


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "embed",
        help="vectors of texts, torch-free",
        description="Loads an encoder with its tokenizer and pooling, and shows how near texts are to each other. "
        "Needs the 'tokenizers' library: pip install 'eqx-bridge[text]'.",
    )
    add_texts(parser)
    parser.add_argument("--out", metavar="FILE.npy", help="write the vectors, float32 (texts, d), as NumPy does")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Embed, and show."""
    texts = texts_of(arguments)
    import numpy as np  # these take a second, and a wrong spelling is told before

    from bridge.models.sentence import SentenceEncoder

    encoder = SentenceEncoder.from_pretrained(arguments.source, **model_options(arguments))
    vectors = encoder(texts)
    if arguments.out is not None:
        with open(arguments.out, "wb") as file:
            np.save(file, vectors)
    if arguments.json:
        print(json.dumps({"texts": texts, "vectors": vectors.tolist()}))
        return 0
    show_cosines(out(), texts, vectors)
    return 0


def show_cosines(console: Console, texts: Sequence[str], vectors: np.ndarray) -> None:
    """How near texts are to each other, of their vectors `(texts, d)`; of many only how many there are."""
    if len(texts) > _MOST:
        console.print(f"{len(texts)} vectors of {vectors.shape[1]}")
        return
    numbers = [str(n + 1) for n in range(len(texts))]
    rows = [
        [number, shown(text), *(f"{value:.2f}" for value in row)]
        for number, text, row in zip(numbers, texts, cosines(vectors), strict=True)
    ]
    table(console, ["", "cosine similarity", *(f" {number}" for number in numbers)], rows)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Of vectors `(texts, d)`, `(texts, texts)`."""
    import numpy as np

    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return (vectors / lengths) @ (vectors / lengths).T
