"""The types of the public functions' arguments, for type checkers: `bridge.Source` and others.

No running code needs them: a first load does not import this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, Union

import numpy as np

from bridge.api.progress import Progress as Progress
from bridge.mapping.template import Spec
from bridge.model.layouts import Layouts as Layouts
from bridge.planning.plan import Plan
from bridge.rules.rule import Rule
from bridge.source.checkpoint import Checkpoint

Source: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Checkpoint
"""A file, a list of files, a folder, a URL, a Hub repo, or an open `Checkpoint`."""

# Union and not |: these names are used where a program runs, and refer to themselves.
RuleLike: TypeAlias = Union[  # noqa: UP007
    Rule, str, Mapping[str, str], tuple[Rule | str, Union[Sequence["RuleLike"], Mapping[str, str]]]  # noqa: UP007
]
"""A rule, its text, `{old: new}`, a text of several lines, or a rule with inner rules, `(text, [rules])`."""

Rules: TypeAlias = Union[RuleLike, Sequence[RuleLike], os.PathLike[str], Plan, None]  # noqa: UP007
"""One rule or a list of rules; a path to a TOML file; a `Plan`; `None` for no rules."""

_AdapterSource: TypeAlias = str | os.PathLike[str] | Checkpoint

Adapter: TypeAlias = _AdapterSource | tuple[_AdapterSource, float]
"""An adapter's folder, file or repo; or a pair of this and a weight that multiplies its changes."""

Adapters: TypeAlias = Union[Adapter, Sequence[Adapter]]  # noqa: UP007
"""One adapter or a list of adapters, merged in order."""

Dtype: TypeAlias = str | type[Any] | np.dtype[Any]
"""A dtype of numpy or JAX, or its name; for a load also `"checkpoint"`, for a save also `"model"`."""

Filler: TypeAlias = Callable[[str, Spec], Any]
"""A function from the name and spec of a leaf to its value."""

AllowMissing: TypeAlias = str | Sequence[str] | Mapping[str, Filler]
"""Patterns of leaves that may be absent, or a mapping of patterns to functions that make them."""


class OpenOptions(TypedDict, total=False):
    """The keywords of `bridge.open`. `plan`, `load`, `convert` and `models.from_pretrained` take them too."""

    revision: str | None
    subfolder: str | None
    variant: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool
    verify: bool
    root: str | None
    modules: bool
