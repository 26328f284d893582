"""`eqx-bridge classify`: what a classifier of texts, of their tokens, or of images says, without PyTorch."""

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
        help="labels of texts or images, torch-free",
        description="Loads a model that was made to classify texts, or their tokens, with its tokenizer; or images, "
        "with what its preprocessor_config.json says. Needs 'tokenizers' for texts, 'pillow' for images: "
        "pip install 'eqx-bridge[text,vision]'.",
    )
    add_texts(parser, more="; for a model of images: paths of images")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Classify, and show."""
    texts = texts_of(arguments)
    from bridge.models.classify import (
        ImageClassifier,
        classifier,
    )  # JAX takes a second: a wrong spelling is told before

    ask = classifier(arguments.source, **model_options(arguments))
    found = [ask(text) for text in texts]
    what = "image" if isinstance(ask, ImageClassifier) else "text"
    if arguments.json:
        print(json.dumps([{what: text, **each} for text, each in zip(texts, found, strict=True)]))
        return 0
    console = out()
    if not isinstance(ask, ImageClassifier) and ask.of_tokens:
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
        table(console, [what, "label", " score"], rows)
    return 0
