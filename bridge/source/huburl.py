"""URLs that name a repo on the Hub: `hf://org/name@revision/folder`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

_KINDS = {"models/": "model", "datasets/": "dataset", "spaces/": "space"}
_REPO = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*)(?:@(refs/(?:pr|convert)/[\w.-]+|[^/]+))?(/.*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubUrl:
    """The parts of an `hf://` URL, as huggingface_hub spells them; `path` is in the repo, "" for its root."""

    repo: str
    kind: str
    revision: str | None
    path: str

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """The parts; None for any other URL: `hf://buckets/…` is no repo."""
        if not url.startswith("hf://"):
            return None
        rest = url.removeprefix("hf://")
        prefix = next((p for p in _KINDS if rest.startswith(p)), "")
        found = _REPO.fullmatch(rest[len(prefix) :])
        if found is None or rest.startswith("buckets/"):
            return None
        revision = None if found[2] is None else unquote(found[2])
        return cls(found[1], _KINDS.get(prefix, "model"), revision, (found[3] or "").lstrip("/"))
