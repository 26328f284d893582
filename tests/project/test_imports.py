"""`import bridge` is light: a promise to everybody whose program starts with it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    *("aiohttp", "equinox", "fsspec", "huggingface_hub", "jax", "optax", "rich", "safetensors", "scipy"),
    *("tensorflow", "torch", "transformers"),
)
# What a load that goes through has no use for, of bridge and of the standard library.
ASIDE = (
    *(
        "bridge.api.convert",
        "bridge.api.diff",
        "bridge.api.save",
        "bridge.converted",
        "bridge.cli",
        "bridge.target",
    ),
    *("bridge.format.exact", "bridge.format.index", "bridge.format.strict_json"),
    *("bridge.model.layouts", "bridge.model.placing", "bridge.model.shared", "bridge.model.state"),
    *(f"bridge.mapping.{name}" for name in ("cover", "keynames", "leafnames", "lower", "shapes", "solve", "spelling")),
    *(
        f"bridge.planning.{name}"
        for name in ("axes", "backwards", "complete", "partly", "recipe", "report", "set_aside")
    ),
    *("bridge.planning.store", "bridge.planning.suggest"),
    *(f"bridge.planning.{name}" for name in ("changes", "hints", "likeness", "pairs", "trial")),
    *("bridge.source.distant", "bridge.source.download", "bridge.source.hub", "bridge.source.ranged"),
    *("bridge.source.remote", "bridge.source.suggest", "bridge.source.tensor", "bridge.source.verify"),
    *("bridge.quantized", "bridge.torchfile"),
    *("bridge.format.view", "bridge.source.box", "bridge.mapping.shard"),
    *(f"bridge.place.{name}" for name in ("agreement", "coordination", "held", "kept", "save_group")),
    *("bridge.place.shards", "bridge.place.staged"),
    *(f"bridge.stream.{name}" for name in ("batches", "coalesce", "computed", "convert", "gather", "mapped")),
    *(f"bridge.stream.{name}" for name in ("scatter", "strides", "transform")),
    "tomllib",
)
LOAD = """
import jax, bridge
like = {"conv": {"weight": jax.ShapeDtypeStruct((1, 1, 1), "float32"), "bias": jax.ShapeDtypeStruct((1,), "float32")}}
loaded = bridge.load(FILE, like, ["conv.weight -> conv.weight"])
assert (loaded["conv"]["bias"] == 2).all()
"""


def heavy_after(code: str, names: Sequence[str] = HEAVY) -> list[str]:
    """Which of `names`, the heavy packages, a fresh interpreter has loaded after `code`."""
    ask = f"{code}\nimport sys\nprint(*sorted(set({tuple(names)}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", ask], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_bridge_loads_nothing_heavy() -> None:
    assert heavy_after("import bridge") == []


def test_functions_looked_up_load_no_jax() -> None:
    """Whoever writes `from bridge import load` at the top waits for JAX when something is loaded."""
    heavy = heavy_after(
        "import bridge\nbridge.open, bridge.plan, bridge.load, bridge.load_rules, bridge.Plan, bridge.Rule"
    )
    assert heavy == []


def test_this_test_can_fail() -> None:
    assert heavy_after("import jax") == ["jax"]
    assert "torch" in heavy_after("import torch")


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A line that names `FILE`, the parameters of a convolution."""
    path = tmp_path / "model.safetensors"
    tensors = {"conv.weight": np.ones((1, 1, 1), np.float32), "conv.bias": np.full(1, 2, np.float32)}
    save_file(tensors, path, {"format": "pt"})
    return f"FILE = {str(path)!r}\n"


@pytest.fixture
def load(file: str) -> str:
    """A program that loads it into a dict."""
    return file + LOAD


def test_a_load_into_plain_containers_imports_jax_and_what_it_uses(load: str) -> None:
    assert heavy_after(load, HEAVY + ASIDE) == ["jax"]


def test_this_test_can_fail_too(load: str) -> None:
    hints = ("hints", "trial")
    texts = [f"bridge.planning.{name}" for name in sorted(("axes", "recipe", "report", "suggest", *hints))]
    more = "import equinox, rich\nstr(bridge.plan(FILE, {}))"
    assert heavy_after(load + more, HEAVY + ASIDE) == [*texts, "equinox", "jax", "rich"]


# How many modules of a room a first load may import; the room's own `__init__` is one.
MOST = {
    "api": 4,
    "format": 3,
    "mapping": 14,
    "model": 2,
    "place": 3,
    "planning": 5,
    "rules": 6,
    "source": 5,
    "stream": 5,
}


def test_a_first_load_imports_few_modules(load: str) -> None:
    ours = [f"bridge.{path.relative_to(ROOT / 'bridge').with_suffix('')}" for path in (ROOT / "bridge").rglob("*.py")]
    names = [name.replace("/", ".").removesuffix(".__init__") for name in ours]
    found = Counter(name.split(".")[1] for name in heavy_after(load, names) if name != "bridge")
    assert {room: found[room] for room in MOST if found[room] > MOST[room]} == {}
    assert all(found[room] for room in MOST)


def test_equinox_may_be_imported_after_the_first_load(load: str) -> None:
    later = """
import equinox as eqx
conv = bridge.load(FILE, {"conv": eqx.nn.Conv1d(1, 1, 1, key=jax.random.key(0))})["conv"]
assert conv.bias.shape == (1, 1) and conv.bias[0, 0] == 2  # as its layout says
"""
    assert "equinox" in heavy_after(load + later)


def test_rules_and_errors_need_no_jax() -> None:
    assert heavy_after("import bridge; bridge.Rule('a.** -> b.**'); bridge.PlanError, bridge.__version__") == []


def test_public_names_are_all_there_and_listed() -> None:
    import bridge

    assert sorted(bridge.__all__) == list(bridge.__all__), "kept in order, so that a diff shows what is new"
    for name in bridge.__all__:
        assert getattr(bridge, name).__doc__ or bridge._HOMES[name] == "api.arguments", name  # names of types have none
    assert set(bridge.__all__) <= set(dir(bridge))


SAVE = """
import jax, bridge
bridge.save({"w": jax.numpy.ones(3)}, FOLDER, "** -> **")
bridge.save({"w": jax.numpy.zeros(3)}, FOLDER, "** -> **", overwrite=True)
"""
NETWORK = ("aiohttp", "fsspec", "huggingface_hub", "bridge.source.distant", "bridge.source.hub", "bridge.source.retry")


def test_a_save_into_a_folder_needs_no_network(tmp_path: Path) -> None:
    assert heavy_after(f"FOLDER = {str(tmp_path / 'out')!r}\n{SAVE}", NETWORK) == []


def test_the_room_of_targets_needs_no_network_and_no_jax() -> None:
    rooms = [f"bridge.target.{path.stem}" for path in (ROOT / "bridge" / "target").glob("*.py") if path.stem[0] != "_"]
    assert "bridge.target.existing" in rooms
    assert heavy_after(f"import {', '.join(rooms)}", (*NETWORK, *HEAVY)) == []
    assert "bridge.source.hub" in heavy_after(f"import {', '.join(rooms)}, bridge.source.distant", NETWORK)


def test_an_open_checkpoint_needs_no_jax(file: str) -> None:
    assert heavy_after(f"{file}import bridge\nwith bridge.open(FILE) as ckpt:\n    assert ckpt['conv.bias'] == 2") == []
