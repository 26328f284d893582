"""`eqx-bridge recorder` and `eqx-bridge check`, as they are used: one beside PyTorch, one without it."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.cli.main import main
from tests.adapters.write import adapter, peft

MODEL = """
import equinox as eqx
import jax

class Net(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x):
        return jax.vmap(self.linear)(x)

def make():
    return Net(eqx.nn.Linear(4, 4, key=jax.random.key(0)))
"""


def test_the_recorder_is_one_file_that_needs_torch_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recorder"]) == 0
    tree = ast.parse(capsys.readouterr().out)
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names) == {"torch"}


@pytest.mark.torch
def test_a_check_ends_with_0_only_where_all_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    Path("net.py").write_text(MODEL)
    Path("rules.toml").write_text('rules = ["linear.weight [o i] -> linear.weight [i o]"]')
    main(["recorder"])
    _recorded(capsys.readouterr().out)

    words = ["check", "run.safetensors", "model.safetensors", "--like", "net:make"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("Net against 'run.safetensors' (Net): it agrees\n")
    adapter(Path("lora"), peft({"linear": (np.ones((4, 4), "f4"), np.ones((4, 4), "f4"))}))
    assert main([*words, "--adapter", "lora=0"]) == 0
    assert main([*words, "--adapter", "lora"]) == 1
    capsys.readouterr()
    assert main([*words, "--rules", "rules.toml"]) == 1
    out = capsys.readouterr().out
    assert "departs       linear" in out
    assert "linear.weight [o i] -> linear.weight [o i]\n" in out
    assert main([*words, "--rules", "rules.toml", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert (content["ok"], content["first"]) == (False, "linear")
    assert main(["check", "model.safetensors", *words[2:]]) == 1
    assert "is not a recording of a PyTorch model's run" in capsys.readouterr().err
    assert main([*words, "--skip", "nothing"]) == 1


def _recorded(source: str) -> None:
    """Record a model in the current folder, with the printed file."""
    import torch
    from safetensors.torch import save_file

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)

    names: dict[str, Any] = {"__name__": "printed_record"}
    sys.modules["printed_record"] = type(sys)("printed_record")  # dataclasses look their module up
    exec(source, names)
    record: Callable[..., Any] = names["record"]
    torch.manual_seed(0)
    model = Net().eval()
    save_file(model.state_dict(), "model.safetensors")
    record(model, torch.randn(2, 3, 4), "run.safetensors")
