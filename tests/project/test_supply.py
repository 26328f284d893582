"""Nothing that a checkpoint holds is ever run: `bridge/` has no way to."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted((ROOT / "bridge").rglob("*.py"))

MODULES = {
    "cloudpickle", "code", "codeop", "ctypes", "dill", "imp", "joblib", "marshal", "multiprocessing", "pickle",
    "pickletools", "pty", "runpy", "shelve", "subprocess", "torch", "transformers", "zipimport",
}  # fmt: skip
"""Modules that run what they read, or start programs."""
CALLS = {"__import__", "compile", "eval", "exec", "execfile", "breakpoint", "literal_eval"}
METHODS = {
    "execv", "execve", "fork", "forkpty", "popen", "posix_spawn", "spawnv", "system", "import_module", "exec_module", "load_module",
}  # fmt: skip
ALLOWED = {
    ("bridge/cli/like.py", "import_module"): "--like names a module of the user's own, on the user's command line",
}


def runs(tree: ast.AST) -> Iterator[str]:
    """What in a module could run what a file says."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield module
            case ast.Call(func=ast.Name(id=name)) if name in CALLS:
                yield name
            case ast.Call(func=ast.Attribute(value=owner, attr=name)):
                # `re.compile` makes a pattern; `importlib.import_module` runs a module.
                if name in METHODS or (name in CALLS and ast.unparse(owner) != "re"):
                    yield name
                if name == "load" and ast.unparse(owner) in ("np", "numpy", "jnp", "torch", "yaml"):
                    yield f"{ast.unparse(owner)}.load"
            case ast.keyword(arg="trust_remote_code" | "allow_pickle" | "shell" as name):
                yield str(name)
            case _:
                pass


def test_no_part_of_the_package_runs_what_it_reads():
    found = {(str(path.relative_to(ROOT)), name) for path in FILES for name in runs(ast.parse(path.read_text()))}
    assert found <= set(ALLOWED), found - set(ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from torch import load",
        "import os.path, subprocess",
        "eval('1')",
        "exec(text)",
        "builtins.exec(text)",
        "os.system('true')",
        "np.load(path)",
        "np.lib.format.read_array(f, allow_pickle=True)",
        "AutoModel.from_pretrained(repo, trust_remote_code=True)",
        "importlib.import_module(name)",
        "ast.literal_eval(text)",
    ],
)
def test_each_way_would_be_seen(source: str):
    assert list(runs(ast.parse(source)))


def test_what_is_allowed_is_there():
    for (file, name), reason in ALLOWED.items():
        assert (ROOT / file).exists()
        assert name in set(runs(ast.parse((ROOT / file).read_text()))), (file, reason)


def test_patterns_are_no_code():
    assert not list(runs(ast.parse("re.compile('a')")))


def test_pickles_and_code_in_a_checkpoint_s_folder_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder full of traps beside good weights: none of them springs, whatever is done with the folder."""
    import numpy as np

    import bridge
    from bridge.cli.main import main
    from tests.craft import checkpoint

    sprung = tmp_path / "sprung"
    code = f"open({str(sprung)!r}, 'w').close()\n"
    trap = b"cbuiltins\nexec\n(S" + repr(code).encode() + b"\ntR."  # a pickle that runs `code`
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(checkpoint({"a": np.zeros(3, np.float32)}))
    for name in ("pytorch_model.bin", "optimizer.pt", "scheduler.pth", "weights.ckpt", "training_args.bin", "x.pkl"):
        (folder / name).write_bytes(trap)
    for name in ("modeling_x.py", "conftest.py", "sitecustomize.py", "jax.py", "numpy.py", "__init__.py"):
        (folder / name).write_text(code)
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "modeling_x.Model"}, "trust_remote_code": true}')
    monkeypatch.chdir(folder)
    bridge.load(folder, None)
    bridge.save(bridge.load(folder, None), tmp_path / "out", "** -> **")
    bridge.convert(folder, tmp_path / "converted")
    bridge.revert(tmp_path / "converted", tmp_path / "back")
    assert main(["inspect", str(folder)]) == 0
    assert main(["diff", str(folder), str(tmp_path / "back")]) == 0
    (folder / "new.pth").write_bytes(b"\x80\x02" + trap)
    for name in ("pytorch_model.bin", "modeling_x.py", "new.pth"):
        with pytest.raises(bridge.CheckpointError):
            bridge.open(folder / name)
    assert not sprung.exists()
    import pickle

    pickle.loads(trap)  # noqa: S301 - the trap is one
    assert sprung.exists()
