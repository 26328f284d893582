"""What a user says as a model of conversations wants to read it: the chat template beside its tokenizer.

Templates are programs in a stranger's file. They run in jinja2's sandbox, which lets them reach nothing but texts and
lists, and are given no more than this module says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import bridge
from bridge.models._beside import optional_json
from bridge.models._json import safe

_LONGEST = 1 << 20  # characters of what a template may write


def template_of(ckpt: bridge.Checkpoint) -> tuple[str, Mapping[str, str]] | None:
    """The chat template beside a checkpoint and the tokens it may name; `None` where there is none."""
    config = optional_json(ckpt, "tokenizer_config.json") or {}
    template = config.get("chat_template") if isinstance(config, Mapping) else None
    if isinstance(template, list):  # several by name
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, Mapping)}
        template = named.get("default")
    try:
        template = ckpt.beside("chat_template.jinja").decode("utf-8", "replace")
    except bridge.CheckpointError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
    if not isinstance(template, str):
        return None
    tokens = {name: _token(config.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return template, {name: token for name, token in tokens.items() if token is not None}


def _token(value: object) -> str | None:
    content = value.get("content") if isinstance(value, Mapping) else value
    return content if isinstance(content, str) else None


def rendered(template: str, tokens: Mapping[str, str], messages: Sequence[Mapping[str, str]], *, name: str) -> str:
    """What the model reads: messages, and the beginning of its answer.

    **Arguments:**

    - `template`: in jinja2's language. `tokens`: what it may call `bos_token` and the like.
    - `messages`: each with `role` and `content`.
    - `name`: what messages call the template.

    **Raises:** `bridge.BridgeError` where the library is not installed; `bridge.CheckpointError` where the template
    fails, or reaches for what it may not have.
    """
    try:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as e:
        raise bridge.BridgeError(
            "a chat template", "needs the 'jinja2' library", "Install it: pip install 'eqx-bridge[text]'"
        ) from e

    def fail(message: object) -> NoReturn:
        raise jinja2.TemplateError(str(message))

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
    )
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    environment.globals |= {"raise_exception": fail, "strftime_now": lambda form: datetime.now().strftime(form)}
    try:
        pieces: list[str] = []
        length = 0
        for piece in environment.from_string(template).generate(
            messages=[*map(dict, messages)], add_generation_prompt=True, tools=None, documents=None, **tokens
        ):
            pieces.append(piece)
            length += len(piece)
            if length > _LONGEST:
                fail(f"it writes more than {_LONGEST:,} characters")
        return "".join(pieces)
    except Exception as e:  # a program of a stranger's fails in any way
        raise bridge.CheckpointError(
            f"'{name}'", f": its chat template fails: {safe(str(e))}", "Give the prompt as it is: --raw"
        ) from e
