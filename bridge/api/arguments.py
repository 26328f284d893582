"""What arguments of the public functions may be: names for type checkers, `bridge.Source` and the like.

Nothing that runs needs them: a first load does not import this.
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
"""A file, a list of files, a folder, a URL or a repo on the Hub; or a checkpoint that is open already."""

# Union and not |: these names are used where a program runs, and refer to themselves.
RuleLike: TypeAlias = Union[  # noqa: UP007
    Rule, str, Mapping[str, str], tuple[Rule | str, Union[Sequence["RuleLike"], Mapping[str, str]]]  # noqa: UP007
]
"""A rule, its text, `{old: new}`, a text of several lines, or rules within one, `(text, [rules])`."""

Rules: TypeAlias = Union[RuleLike, Sequence[RuleLike], os.PathLike[str], Plan, None]  # noqa: UP007
"""Rules, one or a list; a path to TOML; a `Plan`; `None` for none."""

_AdapterSource: TypeAlias = str | os.PathLike[str] | Checkpoint

Adapter: TypeAlias = _AdapterSource | tuple[_AdapterSource, float]
"""An adapter's folder, file or repo, or a pair of it and the weight by which its changes are multiplied."""

Adapters: TypeAlias = Union[Adapter, Sequence[Adapter]]  # noqa: UP007
"""Adapters to merge, one or a list, in their order."""

Dtype: TypeAlias = str | type[Any] | np.dtype[Any]
"""A dtype, as numpy and JAX have it; of a load also `"checkpoint"`, of a save `"model"`."""

Filler: TypeAlias = Callable[[str, Spec], Any]
"""Of a leaf's name and spec its value."""

AllowMissing: TypeAlias = str | Sequence[str] | Mapping[str, Filler]
"""Patterns of leaves that may be absent, or functions that make them, by pattern."""


class OpenOptions(TypedDict, total=False):
    """The keywords of `bridge.open`, which `plan`, `load`, `convert` and `models.from_pretrained` take too."""

    revision: str | None
    subfolder: str | None
    variant: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool
    verify: bool
    root: str | None
    modules: bool
