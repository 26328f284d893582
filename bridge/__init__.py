"""PyTorch and Hugging Face checkpoints into Equinox models, and back, without PyTorch.

    model = bridge.load("org/name", like, rules)

`import bridge` imports neither PyTorch nor JAX: each public name is imported on its first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bridge import models as models
    from bridge import quantized as quantized
    from bridge._errors import BridgeError as BridgeError
    from bridge._errors import CheckpointError as CheckpointError
    from bridge._errors import PlanError as PlanError
    from bridge._errors import RuleError as RuleError
    from bridge._errors import SaveError as SaveError
    from bridge.api.arguments import Adapters as Adapters
    from bridge.api.arguments import AllowMissing as AllowMissing
    from bridge.api.arguments import Dtype as Dtype
    from bridge.api.arguments import Layouts as Layouts
    from bridge.api.arguments import OpenOptions as OpenOptions
    from bridge.api.arguments import Progress as Progress
    from bridge.api.arguments import RuleLike as RuleLike
    from bridge.api.arguments import Rules as Rules
    from bridge.api.arguments import Source as Source
    from bridge.api.convert import convert as convert
    from bridge.api.convert import revert as revert
    from bridge.api.diff import diff as diff
    from bridge.api.load import load as load
    from bridge.api.plan import plan as plan
    from bridge.api.save import SaveReport as SaveReport
    from bridge.api.save import save as save
    from bridge.api.suggest import Suggestion as Suggestion
    from bridge.api.suggest import suggest as suggest
    from bridge.checking.check import check as check
    from bridge.checking.report import Check as Check
    from bridge.format.spec import TensorSpec as TensorSpec
    from bridge.mapping.template import Spec as Spec
    from bridge.planning.plan import Plan as Plan
    from bridge.rules.rule import Rule as Rule
    from bridge.rules.toml import load_rules as load_rules
    from bridge.source.checkpoint import Checkpoint as Checkpoint
    from bridge.source.checkpoint import open as open
    from bridge.tracing.trace import Trace as Trace
    from bridge.tracing.trace import trace as trace

_HOMES = {
    "Adapters": "api.arguments",
    "AllowMissing": "api.arguments",
    "BridgeError": "_errors",
    "Checkpoint": "source.checkpoint",
    "Check": "checking.report",
    "CheckpointError": "_errors",
    "Dtype": "api.arguments",
    "Layouts": "api.arguments",
    "OpenOptions": "api.arguments",
    "Plan": "planning.plan",
    "PlanError": "_errors",
    "Progress": "api.arguments",
    "Rule": "rules.rule",
    "RuleError": "_errors",
    "RuleLike": "api.arguments",
    "Rules": "api.arguments",
    "SaveError": "_errors",
    "SaveReport": "api.save",
    "Source": "api.arguments",
    "Spec": "mapping.template",
    "Suggestion": "api.suggest",
    "TensorSpec": "format.spec",
    "Trace": "tracing.trace",
    "check": "checking.check",
    "convert": "api.convert",
    "diff": "api.diff",
    "load": "api.load",
    "load_rules": "rules.toml",
    "open": "source.checkpoint",
    "plan": "api.plan",
    "revert": "api.convert",
    "save": "api.save",
    "suggest": "api.suggest",
    "trace": "tracing.trace",
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name in ("models", "quantized"):  # not imported for those who do not ask for them
        return import_module(f"bridge.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bridge' has no attribute {name!r}")
    value = getattr(import_module(f"bridge.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
