"""Text generation: a decoder, its tokenizer, and its chat template.

generator = TextGenerator.from_pretrained("Qwen/Qwen3-0.6B")
for piece in generator.stream("Where is Vienna?", 100):
    print(piece, end="")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

import bridge
from bridge.models import from_pretrained
from bridge.models._beside import OPENING, optional_json, tokenizer_of
from bridge.models._chat import rendered, template_of
from bridge.models._compiled import compiled
from bridge.models._generate import Sampling, padded

__all__ = ["TextGenerator"]

_UNFINISHED = "\ufffd"  # what a tokenizer shows of a character that has begun


class TextGenerator:
    """Generates the text that follows a prompt.

    **Arguments:**

    - `model`: a decoder of `bridge.models`.
    - `tokenizer`: the bytes of its `tokenizer.json`.
    - `template`: its chat template and the special tokens that the template may name, or `None`.
    - `stops`: the ids that end a text.

    **Raises:** `bridge.CheckpointError` for a model that is no decoder, and for a file that is no tokenizer.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: bytes,
        *,
        template: tuple[str, Mapping[str, str]] | None = None,
        stops: Sequence[int] = (),
    ) -> None:
        if not hasattr(model, "prefill"):
            raise bridge.CheckpointError(
                f"this {type(model).__name__}",
                "is not a decoder, so it cannot continue a prompt",
                "Name one, such as a Llama",
            )
        self.model, self.template, self.stops = model, template, frozenset(stops)
        self.tokenizer = tokenizer_of(tokenizer, name="tokenizer.json")
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    @classmethod
    def from_pretrained(cls, source: Any, **options: Any) -> Self:
        """A generator from a checkpoint with its tokenizer.json, the chat template in tokenizer_config.json or
        chat_template.jinja, and the ids in generation_config.json or config.json that end a text. Arguments as for
        `bridge.models.from_pretrained`.
        """
        with bridge.open(source, **{name: options[name] for name in OPENING if name in options}) as ckpt:
            stops: Any = None
            for name in ("generation_config.json", "config.json"):
                said = optional_json(ckpt, name)
                stops = said.get("eos_token_id") if stops is None and isinstance(said, Mapping) else stops
            template, tokenizer = template_of(ckpt), ckpt.beside("tokenizer.json")
        stops = [stops] if isinstance(stops, int) else stops if isinstance(stops, list) else []
        ids = [each for each in stops if isinstance(each, int)]
        return cls(from_pretrained(source, **options), tokenizer, template=template, stops=ids)

    def stream(
        self,
        prompt: str,
        max_new_tokens: int,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        key: jax.Array | None = None,
        raw: bool = False,
    ) -> Iterator[str]:
        """Generate the text after a prompt, one piece for each token. A piece is empty if its character is incomplete.

        **Arguments:** `max_new_tokens`, `temperature`, `top_p` and `key` as for `bridge.models.generate`, and

        - `prompt`: the user's message if there is a chat template; otherwise the beginning of the text.
        - `raw`: do not apply the chat template.

        **Raises:** `bridge.BridgeError` for a prompt that is empty or too long.
        """
        tokens = self._tokens(prompt, raw=raw)
        shown, ids = "", list[int]()
        for token in _stream(self.model, tokens, max_new_tokens, Sampling.of(temperature, top_p, key)):
            if token in self.stops:
                return
            ids.append(token)
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            whole = text.rstrip(_UNFINISHED)
            # What was shown stays shown: a tokenizer may change its mind about blanks at the end.
            piece = whole[len(shown) :] if whole.startswith(shown) else ""
            shown += piece
            yield piece

    def _tokens(self, prompt: str, *, raw: bool) -> list[int]:
        if self.template is None or raw:
            tokens = self.tokenizer.encode(prompt).ids
        else:
            messages = [{"role": "user", "content": prompt}]
            text = rendered(*self.template, messages, name="chat template")
            tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        if not tokens:
            raise bridge.BridgeError("the prompt", "is empty", "Write one")
        return tokens


def _stream(model: Any, tokens: Sequence[int], new: int, sampling: Sampling) -> Iterator[int]:
    """One id after the other, `new` at most, each as soon as it is known."""
    seq, most = len(tokens), model.config.max_position_embeddings
    if seq >= most:
        raise bridge.BridgeError(
            f"the prompt of {seq} tokens", f"is longer than the {most} that the model has positions for", "Shorten it"
        )
    new = min(new, most - seq)
    row = np.zeros(padded(model, seq, new), np.int32)
    row[:seq] = tokens
    logits, memory = _prefill(model, jnp.asarray(row), jnp.asarray(seq, jnp.int32), len(row) + new)
    for number in range(new):
        token = sampling(logits, number)
        yield int(token)
        if number + 1 < new:
            logits, memory = _step(model, token, jnp.asarray(seq + number, jnp.int32), memory)


@compiled
def _prefill(model: Any, tokens: jax.Array, length: jax.Array, size: int) -> tuple[jax.Array, Any]:
    return model.prefill(tokens, length, size)


@partial(compiled, donate="all-except-first")  # the memory is written in place
def _step(model: Any, token: jax.Array, position: jax.Array, memory: Any) -> tuple[jax.Array, Any]:
    return model.step(token, position, memory)
