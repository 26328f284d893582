"""A few bytes ask for much memory, or much time: configs, shapes, rules and plans that claim more than there is."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jax import ShapeDtypeStruct
from safetensors.numpy import save_file

import bridge
from bridge.mapping.pattern import NamePatterns
from tests.craft import craft, entry
from tests.errors.promised import text_of

SECONDS = 5.0
F32 = np.float32
MILLION, ROWS = 10**6, 2**31


@contextmanager
def quickly() -> Iterator[None]:
    """What takes a tenth of a second here; before, these took from seconds to ever."""
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def spec(*shape: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, F32)


def saved(folder: Path, **tensors: np.ndarray) -> Path:
    save_file({key.replace("__", "."): value for key, value in tensors.items()}, folder / "x.safetensors")
    return folder / "x.safetensors"


def test_configs(tmp_path: Path):
    """In a process that may take 1 GB: any field of any architecture."""
    command = [sys.executable, "-m", "tests.attacks.configs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout == "done\n", done.stdout + done.stderr


def test_a_config_larger_than_its_checkpoint_is_refused_by_its_field(tmp_path: Path):
    fields = {"model_type": "gpt2", "vocab_size": 5, "n_positions": 4, "n_embd": 8, "n_layer": MILLION, "n_head": 2}
    saved(tmp_path, k=np.zeros(2, F32)).rename(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.models.from_pretrained(tmp_path)
    assert str(caught.value) == (
        text_of("models: a config larger than its checkpoint")
        .replace("'m/config.json'", f"'{tmp_path}/config.json'")
        .replace("'num_hidden_layers'", "'n_layer'")
        .replace("2147483648", "1000000")
        .replace("has 12 bytes", "has 8 bytes")
    )


def composed(count: int) -> str:
    """A rule with so many indices in one number of a key."""
    names = [f"i{n}" for n in range(count)]
    return f"a.{{({' '.join(names)})}}.w -> a ; {' '.join(f'{name}=2' for name in names[1:])}"


CHOICES = ".".join(f"{{{letter}|x}}" for letter in "abcdefghijklmnopqrst")
ONE_LAYER = {"l__0__w": np.zeros(2, F32)}
GAPS = {f"l__{n}__w": np.zeros(2, F32) for n in (0, 2, 5)}
SHAPES: dict[str, tuple[dict[str, np.ndarray], Any, Any, str]] = {
    "a stack of 2**31 layers": (
        ONE_LAYER,
        {"l": {"w": spec(ROWS, 2)}},
        None,
        "missing     l.w[1:2147483648]   no key 'l.{1..2147483647}.w'",
    ),
    "one with gaps": (
        GAPS,
        {"l": {"w": spec(ROWS, 2)}},
        None,
        "missing     l.w[6:2147483648]   no key 'l.{6..2147483647}.w'",
    ),
    "one on another axis": (
        ONE_LAYER,
        {"w": spec(2, ROWS)},
        ["l.{l}.w [a] -> w [a l]"],
        "missing     w[0, 1:2147483648]",
    ),
    "rows of a table": (
        {"e": np.zeros((3, 2), F32)},
        {"e": spec(ROWS, 2)},
        ["e [v d] -> e [v[:3] d]"],
        "missing     e[3:2147483648]",
    ),
    "every second row": (
        {"e": np.zeros((3, 2), F32)},
        {"e": spec(ROWS, 2)},
        ["e [v d] -> e [v[:6:2] d]"],
        "is filled in more than 4,194,304 different parts, too many to be checked",
    ),
    "twenty indices in one number": (
        {f"a__{n}__w": np.zeros(2, F32) for n in range(4)},
        {"a": spec(*[2] * 20, 2)},
        [composed(20)],
        "missing     a[",
    ),
    "forty axes of a stack": (
        {f"a__{n}__w": np.zeros(2, F32) for n in range(4)},
        {"a": spec(*[2] * 40, 2)},
        [composed(40)],
        "a",
    ),
    "more elements than 64 bits count": ({"a": np.zeros(2, F32)}, {"a": spec(ROWS, ROWS, 16)}, None, ""),
    "a leaf that no memory holds": ({"a": np.zeros(2, F32)}, {"a": spec(2**40)}, None, "mismatched  a"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_leaves_without_end(name: str, tmp_path: Path):
    tensors, like, rules, text = SHAPES[name]
    path = saved(tmp_path, **tensors)
    with quickly(), pytest.raises(bridge.PlanError) as caught:
        bridge.load(path, like, rules)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 20_000


def test_holes_of_a_stack_are_named_one_by_one_where_they_are_few(tmp_path: Path):
    plan = bridge.plan(saved(tmp_path, **GAPS), {"l": {"w": spec(8, 2)}})
    assert plan.missing == ("l.w[1]", "l.w[3]", "l.w[4]", "l.w[6]", "l.w[7]")
    assert "no key 'l.{1,3..4,6..7}.w'" in str(plan)


def test_a_stack_without_elements_makes_no_leaves(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(craft({"w": entry("F32", [2**40, 0], 0, 0)}))
    with quickly(), pytest.raises(bridge.PlanError, match="key 'w' would become 1,099,511,627,776 leaves by the rule"):
        bridge.plan(path, None, ["w [l o] -> layers.{l}.w [o]"])


def test_a_million_missing_keys(tmp_path: Path):
    """Leaves with names of their own, and layers of a list."""
    leaves = {f"w{n}_{n % 7}": spec(2) for n in range(100_000)}
    path = saved(tmp_path, z=np.zeros(2, F32))
    with quickly():
        text = str(bridge.plan(path, leaves))
    assert "100,001 problems" in text
    with quickly():
        text = str(bridge.plan(path, {"l": [{"w": spec(2), "b": spec(2)} for _ in range(50_000)]}))
    assert "missing     l.{0..49999}.w" in text


RULES: dict[str, tuple[str, str]] = {
    "texts that begin alike": ("{a|aa}" * 30 + ".w -> x", "this name can be read in too many ways"),
    "and with text between": ("{a|aa}a" * 30 + ".w -> x", "this name can be read in too many ways"),
    "empty texts": ("{a|}" * 30 + ".w -> x", "this name can be read in too many ways"),
    "texts that hold dots": ("{a|a.a|a.a.a}." * 12 + "w -> x", "this name can be read in too many ways"),
    "numbers beside digits": ("".join(f"{{i{n}}}1" for n in range(12)) + ".w -> x", "too many ways"),
    "choices by the dozen": (
        f"{CHOICES} -> {CHOICES}",
        "the choices of this rule have 1,048,576 combinations, more than 10,000",
    ),
    "a sum of 2,000": (" + ".join(f"k{n}" for n in range(2000)) + " -> a", "this sum has more than 100 terms"),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_that_fit_in_too_many_ways(name: str):
    text, problem = RULES[name]
    with quickly(), pytest.raises(bridge.RuleError) as caught:
        bridge.Rule(text)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 2000
    if "too many ways" in problem:
        with quickly(), pytest.raises(bridge.RuleError):
            NamePatterns.of([text.partition(" -> ")[0].removesuffix(".w") * 3])


@pytest.mark.parametrize(
    "rule", ["{a|aa}{a|aa}{b|bb}.w -> x", "{a|aa}*{a|aa}*{a|aa}*.w -> x*.*.*", "**.*a*a*a*.** -> **.****.**"]
)
def test_names_of_many_letters_are_matched_at_once(rule: str, tmp_path: Path):
    path = saved(tmp_path, **{"a" * 2000 + "c__w": np.zeros(2, F32), "__".join(["a"] * 2000): np.zeros(2, F32)})
    with quickly(), suppress(bridge.BridgeError):
        bridge.plan(path, {"x": spec(2)}, [rule])


def test_segments_that_can_be_read_in_two_ways_still_match(tmp_path: Path):
    path = saved(tmp_path, aaab__aa__w=np.ones(2, F32))
    rules = ["{a|aa}{a|aa}b.{a|aa}.w -> {a|aa}.{a|aa}.{a|aa}"]
    assert bridge.plan(path, None, rules).ok


def test_edited_plans(tmp_path: Path):
    made = json.loads(bridge.plan(saved(tmp_path, **ONE_LAYER), {"l": {"w": spec(1, 2)}}).to_json())
    edits: list[Callable[[Any], Any]] = [
        lambda plan: plan["leaves"].update({"l.w": ["F32", ROWS, 2]}),
        lambda plan: plan["leaves"].update({"l.w": ["F32", 2**62, 2]}),
        lambda plan: plan["leaves"].update({"l.w": ["F32", ROWS, ROWS, ROWS]}),
        lambda plan: plan["keys"].update({"l.0.w": ["F32", ROWS, ROWS, ROWS]}),
        lambda plan: plan["keys"].update({"l.0.w": ["F32", 2**62, 0]}),
        lambda plan: plan["keys"].update({f"l.{10**17}.w": ["F32", 2]}),
        lambda plan: plan["rules"].__setitem__(0, "{a|aa}" * 30 + " -> x"),
        lambda plan: plan["rules"].__setitem__(0, "l.{(a b)}.w -> l.w ; b=900000000000000000"),
        lambda plan: plan["fills"].update({"l.w": 10**400}),
        lambda plan: plan.update({"nbytes": 10**400}),
    ]
    for edit in edits:
        document = json.loads(json.dumps(made))
        edit(document)
        with quickly(), suppress(bridge.BridgeError):
            plan = bridge.Plan.from_json(json.dumps(document))
            assert len(str(plan)) < 20_000
            bridge.load(tmp_path / "x.safetensors", {"l": {"w": spec(1, 2)}}, plan)


def test_so_little_memory_that_it_never_ends(tmp_path: Path):
    path = saved(tmp_path, w=np.zeros((1000, 1000), F32))
    text = text_of("load: so little memory that it never ends")
    with quickly():
        for call in (bridge.load, bridge.plan, lambda *given, **more: bridge.convert(path, tmp_path / "c", **more)):
            with pytest.raises(bridge.PlanError) as caught:
                call(path, {"w": spec(1000, 1000)}, max_host_bytes=1)
            assert str(caught.value) == text
        assert bridge.load(path, {"w": spec(1000, 1000)}, max_host_bytes=16_000)["w"].shape == (1000, 1000)
