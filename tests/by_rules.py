"""What a plan saves, its rules save too: every `bridge.save` by a plan, in tests of round trips, once more by rules.

A test that cannot do so says why: `@pytest.mark.by_plan_alone("…")`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bridge
from tests.save.files import read

FOLDERS = ("converted", "model", "models", "planning", "quantized", "save")
_SAME = ("leave_out", "layouts", "max_shard_size", "metadata")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "by_plan_alone(reason): why rules alone cannot save what the plan saves")


@pytest.fixture(autouse=True)
def _by_rules_too(request: pytest.FixtureRequest) -> Iterator[None]:
    # A patch of its own: the fixture that tests use would be set up before their others, and outlive them.
    with pytest.MonkeyPatch.context() as patch:
        if Path(request.node.path).parent.name in FOLDERS and request.node.get_closest_marker("by_plan_alone") is None:
            save = bridge.save

            def saved(model: Any, target: Any, rules_or_plan: Any = None, **options: Any) -> Any:
                report = save(model, target, rules_or_plan, **options)
                if isinstance(rules_or_plan, bridge.Plan) and options.get("base") is None:
                    _compare(save, model, rules_or_plan, {name: options[name] for name in _SAME if name in options})
                return report

            patch.setattr(bridge, "save", saved)
        yield


def _compare(save: Any, model: Any, plan: bridge.Plan, options: dict[str, Any]) -> None:
    """The same keys, in any order, with the same bits: dtypes are the leaves', as rules have them."""
    with tempfile.TemporaryDirectory() as folder:
        by_plan, by_rules = Path(folder, "plan"), Path(folder, "rules")
        save(model, by_plan, plan, dtype="model", **options)
        report = save(model, by_rules, plan.rules, **options)
        absent = [*options.get("leave_out", ()), *plan.request.allow_missing.texts]  # padding is in no file
        assert bridge.plan(by_rules, model, plan.rules, allow_missing=absent, layouts=options.get("layouts")).ok
        found, expected = read(by_rules), read(by_plan)
        # Rules also write what is optional and this checkpoint lacked: counters, second keys of shared leaves.
        # Of keys that no leaf holds, rules do not know the shape: the report names them.
        named = [re.sub(r"\{.*?\}", r"\\d+", name.replace(".", r"\.")) for name, _ in report.left_out]
        lost = [key for key in expected if key not in found]
        assert all(any(re.fullmatch(pattern, key) for pattern in named) for key in lost), lost
        assert {key: found[key] for key in expected if key in found} == {
            k: v for k, v in expected.items() if k in found
        }
