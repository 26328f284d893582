"""`eqx-bridge classify`: what a classifier of texts, or of their tokens, says, without PyTorch."""

from __future__ import annotations

import argparse
import json

from bridge.cli.arguments import Commands, add_json
from bridge.cli.terminal import out, shown, table
from bridge.cli.texts import add_texts, model_options, texts_of


def add(commands: Commands) -> None:
    """Make the command known."""
    parser = commands.add_parser(
        "classify",
        help="labels of texts, torch-free",
        description="Loads a model that was made to classify texts, or their tokens, with its tokenizer. "
        "Needs the 'tokenizers' library: pip install 'eqx-bridge[text]'.",
    )
    add_texts(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Classify, and show."""
    texts = texts_of(arguments)
    from bridge.models.classify import TextClassifier  # JAX takes a second, and a wrong spelling is told before

    classifier = TextClassifier.from_pretrained(arguments.source, **model_options(arguments))
    found = [classifier(text) for text in texts]
    if arguments.json:
        print(json.dumps([{"text": text, **each} for text, each in zip(texts, found, strict=True)]))
        return 0
    console = out()
    if classifier.of_tokens:
        rows = [
            [shown(text[each["start"] : each["end"]]), each["label"], f"{each['score']:.3f}"]
            for text, one in zip(texts, found, strict=True)
            for each in one["tokens"]
        ]
        table(console, ["token", "label", " score"], [[a, shown(b), c] for a, b, c in rows])
    else:
        rows = [
            [shown(text), shown(each["label"]), f"{each['score']:.3f}"] for text, each in zip(texts, found, strict=True)
        ]
        table(console, ["text", "label", " score"], rows)
    return 0
