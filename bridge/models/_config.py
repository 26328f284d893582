"""Reading a config.json without guessing: what is not understood is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

import bridge

# What transformers writes for every architecture and what no forward pass of an encoder depends on.
_BOOKKEEPING = frozenset(
    {
        "architectures",
        "auto_map",
        "bos_token_id",
        "chunk_size_feed_forward",  # computes the same in pieces
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "label2id",
        "language",
        "model_type",
        "name",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "pad_token_id",
        "problem_type",
        "return_dict",
        "sep_token_id",
        "task_specific_params",
        "tie_word_embeddings",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "use_cache",
    }
)


class Fields:
    """The fields of a config, each taken once and checked; `done` refuses what is left.

    **Arguments:**

    - `data`: what config.json says.
    - `name`: what messages call the file.

    **Raises:** `bridge.CheckpointError`, from every method, that names file and field.
    """

    def __init__(self, data: Mapping[str, Any], *, name: str = "config.json") -> None:
        if not isinstance(data, Mapping):
            raise bridge.CheckpointError(f"'{_safe(name)}' holds {_spelled(data)}, not an object of fields.")
        self._left = dict(data)
        self._name = f"'{_safe(name)}'"

    def count(self, field: str, *, default: int | None = None) -> int:
        """A whole number from 1 up."""
        value = self._take(field, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.refuse(field, value, "a whole number from 1 up")
        return value

    def number(self, field: str, *, default: float) -> float:
        """A finite number above 0."""
        value = self._take(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            self.refuse(field, value, "a number above 0")
        return float(value)

    def one_of(self, field: str, known: Collection[Any], *, default: Any) -> Any:
        """One of the values that are implemented. `false` is not taken for 0, nor `true` for 1."""
        value = self._take(field, default)
        if not any(value == each and type(value) is type(each) for each in known):
            self.refuse(field, value, " or ".join(_spelled(each) for each in known))
        return value

    def done(self, unused: Collection[str]) -> None:
        """Refuse every field that nobody took, but those that are known to change nothing, and private ones."""
        for field, value in self._left.items():
            if field not in _BOOKKEEPING and field not in unused and not field.startswith("_") and value is not None:
                raise bridge.CheckpointError(
                    f"{self._name}: field '{_safe(field)}' is {_spelled(value)}, and this model does not know it. "
                    f'If it changes nothing: Config.from_dict(…, ignore=["{_safe(field)}"]).'
                )

    def refuse(self, field: str, value: Any, expected: str) -> NoReturn:
        """Say what was expected of a field."""
        raise bridge.CheckpointError(
            f"{self._name}: field '{field}' is {_spelled(value)}; this model implements {expected}."
        )

    def _take(self, field: str, default: Any) -> Any:
        value = self._left.pop(field, default)
        if value is None and default is None:
            raise bridge.CheckpointError(f"{self._name} lacks field '{field}', which this model needs.")
        return default if value is None else value


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file says. **Raises:** `bridge.CheckpointError` that names the file."""
    name = _safe(os.fspath(path))
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as e:
        raise bridge.CheckpointError(f"'{name}' cannot be read: {e.strerror or e}. Check the path.") from e
    except (ValueError, RecursionError) as e:
        raise bridge.CheckpointError(f"'{name}' is not JSON: {_safe(str(e))}. Fetch it again.") from e


def _spelled(value: Any) -> str:
    """A value as JSON, cut where it is long; JSON's escapes keep it printable."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else f"{text[:60]}…"


def _safe(text: str) -> str:
    return text if text.isprintable() else ascii(text)[1:-1]
