"""Whatever stands in a plan's JSON, in a config or in a file of a checkpoint: it works, or is an error of ours."""

from __future__ import annotations

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import bridge
from tests.attacks.any_text import FEW, LIKE, RULE, TENSORS, folder, ours, texts, values  # noqa: F401 - a fixture
from tests.craft import checkpoint


def paths(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of a JSON document."""
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [at, *(path for key, child in children for path in paths(child, (*at, key)))]


@settings(FEW, max_examples=200)
@given(st.data(), values)
def test_plans_as_json(data: st.DataObject, value: Any):
    document = json.loads(bridge.plan("x.safetensors", LIKE, RULE, allow_missing=["b"]).to_json())
    *way, last = data.draw(st.sampled_from(paths(document)[1:]))
    place = document
    for key in way:
        place = place[key]
    place[last] = value

    def use() -> None:
        plan = bridge.Plan.from_json(json.dumps(document))
        assert str(plan).replace("\n", "").isprintable()
        assert len(str(plan)) < 20_000
        bridge.plan("x.safetensors", LIKE, plan)
        bridge.load("x.safetensors", LIKE, plan)

    ours(use)


@FEW
@given(texts | st.sampled_from(["[" * 5000, "9" * 5000, '{"version": 1}', '{"version": "\x1b[2J"}', "[]", "1", '"a"']))
def test_plans_that_are_none(text: str):
    ours(lambda: bridge.Plan.from_json(text))


def test_what_a_plan_says_is_printed_as_text():
    escape = "\x1b[2J\x1b]0;x\x07"
    document = json.loads(bridge.plan("x.safetensors", LIKE, RULE).to_json())
    with pytest.raises(bridge.PlanError) as caught:
        bridge.Plan.from_json(json.dumps(document | {"version": escape * 100_000}))
    assert len(str(caught.value)) < 500
    edited = document | {"model": escape * 100_000, "source": escape, "warnings": [escape * 100_000]}
    edited["keys"] = {escape: ["F32", 3], **document["keys"]}
    plan = bridge.Plan.from_json(json.dumps(edited))
    assert not plan.ok
    with pytest.raises(bridge.PlanError) as caught:
        plan.check()
    for shown in (str(plan), str(caught.value)):
        assert shown.replace("\n", "").isprintable()
        assert len(shown) < 20_000


def test_a_model_type_of_a_megabyte():
    Path("repo/config.json").write_text(json.dumps({"model_type": "\x1b[2J" + "x" * 1_000_000}))
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.models.from_pretrained("repo")
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


@FEW
@given(values)
@example({"model_type": "llama", "hidden_size": 10**400})
@example({"model_type": "bert", "x" * 1_000_000: 1})
def test_configs(value: Any):
    for kind in ("llama", "gemma3", "vit"):
        fields = {"model_type": kind, **value} if isinstance(value, dict) else value
        Path("repo/config.json").write_text(json.dumps(fields))
        ours(lambda: bridge.models.from_pretrained("repo"))


FILES = ["rules.toml", "config.json", "model.safetensors", "model.safetensors.index.json"]


@settings(FEW, max_examples=100)
@given(
    st.sampled_from(FILES), st.binary(max_size=30) | values.map(lambda value: json.dumps(value).encode()), st.booleans()
)
def test_files_of_any_bytes(name: str, raw: bytes, keep: bool):
    """In a folder that is right but for one file."""
    with tempfile.TemporaryDirectory(dir=".") as place:
        files = {"model.safetensors": checkpoint(TENSORS), "config.json": b"{}"} | {name: raw}
        if keep and name.endswith("index.json"):
            files[name] = json.dumps({"weight_map": {"b": raw.decode(errors="replace")}}).encode()
        for each, content in files.items():
            (Path(place) / each).write_bytes(content)
        ours(lambda: bridge.load(place, LIKE, [RULE]))
        ours(lambda: bridge.models.from_pretrained(place))
        ours(lambda: bridge.save({"w": np.zeros(3, np.float32)}, place, overwrite=True))
        with suppress(bridge.BridgeError):
            assert bridge.load(place, None).keys()
