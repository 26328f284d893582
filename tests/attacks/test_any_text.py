"""Whatever text or file a user gives, in every function and every command: it works, or is an error of ours.

Hypothesis drives them, with texts that are nearly right among those that are nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jax import ShapeDtypeStruct
from safetensors.numpy import save_file

import bridge
from bridge.cli.main import main
from tests.craft import checkpoint

FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
LIKE = {"layers": {"w": ShapeDtypeStruct((2, 3), np.float32)}, "b": ShapeDtypeStruct((3,), np.float32)}
TENSORS = {"l.0.w": np.zeros(3, np.float32), "l.1.w": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)}
RULE = "l.{l}.w [a] -> layers.w [l a]"

WORDS = [
    *(
        "http://",
        "https://",
        "s3://",
        "hf://",
        "file://",
        "memory://",
        "://",
        "::",
        "[",
        "]",
        "@",
        "#",
        "?",
        "%2e",
        "..",
    ),
    *("/", "\\", "\0", "\n", "\x1b[2J", "\ud800", "é", " ", "~", "$HOME", "*", "**", "{", "}", "{l}", "|", "->", "+"),
    *(";", "=", "_", "'", '"', ".", ",", "(", ")", "l", "w", "b", "0", "-1", "9" * 25, "1e999", "nan", "true", "null"),
    *(".safetensors", ".index.json", ".toml", ".pth", "model", "x.safetensors", "layers", "tie=true", "l=4", "scale="),
    *("127.0.0.1", ":99999", "[::1]", "org/name", "refs/pr/1", "bfloat16", "5GB", "GiB", "\u202e", "\r", "\t"),
]
texts = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(WORDS), max_size=6).map("".join),
    st.text(st.characters(codec=None), max_size=4),
)


@pytest.fixture(scope="module", autouse=True)
def folder():
    """A folder to be in, with a checkpoint, and no network to wait for."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        os.chdir(folder)
        save_file(TENSORS, "x.safetensors")
        Path("repo").mkdir()
        save_file(TENSORS, "repo/model.safetensors")
        patch.setattr("bridge.source.retry.WAITS", ())
        patch.setattr("bridge.source.download._WAITS", ())
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, "http://127.0.0.1:9")
        patch.setattr("socket.getaddrinfo", _nowhere)
        yield Path(folder)
        os.chdir(before)


def _nowhere(*_: Any, **__: Any) -> Any:
    raise OSError("no network in this test")


def ours(call: Callable[[], Any]) -> None:
    """What is raised is an error of ours, and can be printed."""
    try:
        call()
    except bridge.BridgeError as error:
        said = str(error)
        assert said.replace("\n", "").isprintable(), ascii(said)
        assert len(said) < 20_000


SOURCES = [
    "http://[::1",
    "http://[::1]:x/y.safetensors",
    "http://h:99999/x",
    "s3://bucket]",
    "s3://[",
    "hf://a/b@",
    "memory://\0",
    "a\0b",
    "\ud800",
    "~",
    "x.safetensors/",
    "x.safetensors\0",
]


@FEW
@given(texts)
def test_sources(text: str):
    ours(lambda: bridge.open(text).close())
    ours(lambda: bridge.plan(text, LIKE))
    ours(lambda: bridge.diff(text, "x.safetensors"))
    ours(lambda: bridge.revert(text, "reverted"))


@pytest.mark.parametrize("text", SOURCES, ids=ascii)
def test_sources_that_were_reported(text: str):
    for call in (bridge.open, lambda text: bridge.load(text, LIKE), lambda text: bridge.open([text, "x.safetensors"])):
        with pytest.raises(bridge.BridgeError) as caught:
            call(text)
        assert str(caught.value).isprintable()


@FEW
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("subfolder", "variant", "revision", "cache_dir"), texts)))
@example({"subfolder": "a\0b"})
@example({"subfolder": "\ud800"})
@example({"variant": "\0"})
@example({"variant": "../x"})
@example({"cache_dir": "\0", "revision": "\0"})
def test_how_sources_are_opened(options: dict[str, str]):
    for source in ("repo", "x.safetensors", "org/name", "memory://here"):
        ours(lambda source=source: bridge.open(source, **options).close())


@FEW
@given(texts, texts)
def test_rules_and_patterns(one: str, two: str):
    for rules in (one, [one, two], {one: two}, [(one, [two])], [f"{one} -> {two}"], f"{RULE} ; {one}", f"{one}\n{two}"):
        if isinstance(rules, str) and rules.endswith(".toml"):
            continue
        ours(lambda rules=rules: str(bridge.plan("x.safetensors", LIKE, rules)))
        ours(lambda rules=rules: bridge.save({"w": np.zeros(3, np.float32)}, "saved", rules, overwrite=True))
    ours(lambda: str(bridge.plan("x.safetensors", LIKE, allow_missing=[one], allow_unexpected=two)))
    ours(lambda: str(bridge.plan("x.safetensors", LIKE, RULE, dtype={one: two})))
    ours(lambda: str(bridge.plan("x.safetensors", LIKE, RULE, dtype=one)))
    ours(lambda: str(bridge.plan("x.safetensors", LIKE, RULE, quantized=one)))


TOML = [
    b"rules = " + b"[" * 5000,
    b"rules = " + b"[" * 5000 + b"]" * 5000,
    b"rules = [" + b"9" * 5000 + b"]",
    b"rules = [1e99999]",
    b"rules = " + b"{a=" * 5000,
    b"a." * 5000 + b"b = 1",
    b"[" * 5000,
    b"\xff",
    b"\0",
    b'rules = ["\\ud800"]',
    b'rules = [{ rule = "a -> b", scale = 99999999999999999999999999 }]',
    b'rules = [{ rule = "a -> b", scale = inf }]',
    b'rules = [{ rule = "a -> b", h = 1979-05-27 }]',
    b'rules = [{ rule = "a.** -> b.**", rules = ' * 500,
    b'[rules]\n"a" = 1',
    b'rules = "\x1b[2J"',
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("raw", TOML, ids=lambda raw: ascii(raw[:30]))
def test_toml_that_was_reported(raw: bytes):
    Path("rules.toml").write_bytes(raw)
    with pytest.raises(bridge.RuleError) as caught:
        bridge.load_rules("rules.toml")
    assert str(caught.value).replace("\n", "").isprintable()
    assert main(["plan", "x.safetensors", "--like", "nowhere:make", "--rules", "rules.toml"]) == 2


@FEW
@given(st.binary(max_size=40) | texts.map(lambda text: f"rules = {text}".encode(errors="surrogatepass")), texts)
def test_toml(raw: bytes, name: str):
    Path("rules.toml").write_bytes(raw)
    ours(lambda: bridge.load_rules("rules.toml"))
    ours(lambda: bridge.load_rules(name))
    ours(lambda: bridge.plan("x.safetensors", LIKE, f"{name}.toml"))


def test_a_file_of_rules_that_is_none():
    for path in (".", "/dev/null", "absent.toml", "a\0b.toml"):
        with pytest.raises(bridge.RuleError):
            bridge.load_rules(path)
    Path("large.toml").write_bytes(b"#" * 10_000_001)
    with pytest.raises(bridge.RuleError, match="has more than the 10,000,000 bytes that rules may have"):
        bridge.load_rules("large.toml")


@FEW
@given(texts)
@example("\0")
@example("a\0.safetensors")
@example("\ud800")
@example("n" * 300)
def test_targets(text: str):
    if os.path.isabs(text) or ".." in text or text.startswith(("~", "x.", "repo")):
        return  # nothing outside, and not what the other tests read
    ours(lambda: bridge.save({"w": np.zeros(3, np.float32)}, text, max_shard_size=5))
    ours(lambda: bridge.convert("x.safetensors", text))
    ours(lambda: bridge.save({"w": np.zeros(3, np.float32)}, "saved", max_shard_size=text, overwrite=True))
    ours(lambda: bridge.save({"w": np.zeros(3)}, "saved", leave_out=text, dtype=text, metadata={text: text}))
    ours(lambda: bridge.save({text: np.zeros(3, np.float32)}, "saved", overwrite=True))


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


COMMANDS = [
    ["inspect"],
    ["inspect", "--json"],
    ["plan", "--like"],
    ["plan", "x.safetensors", "--like"],
    ["plan", "x.safetensors", "--like", "nowhere:make", "--rules"],
    ["convert", "x.safetensors"],
    ["convert", "x.safetensors", "made", "--dtype"],
    ["revert"],
    ["diff", "x.safetensors"],
    ["inspect", "x.safetensors", "--revision"],
    ["inspect", "repo", "--subfolder"],
    ["inspect", "repo", "--variant"],
    ["plan", "x.safetensors", "--like", "nowhere:make", "--quantized"],
    ["plan", "x.safetensors", "--like", "nowhere:make", "--allow-missing"],
    [],
]


@FEW
@given(st.sampled_from(COMMANDS), texts, st.lists(texts, max_size=1))
def test_commands(command: list[str], text: str, more: list[str]):
    if "demo" in (text, *more):
        return  # it fetches
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryFile("w+") as out:
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", out)
        assert main([*command, text, *more]) in (0, 1, 2)
        out.seek(0)
        assert set(out.read()).isdisjoint("\0\a\x1b\u202e")


FILES = ["rules.toml", "config.json", "model.safetensors", "model.safetensors.index.json"]


@settings(FEW, max_examples=100)
@given(
    st.sampled_from(FILES), st.binary(max_size=30) | values.map(lambda value: json.dumps(value).encode()), st.booleans()
)
def test_files_of_any_bytes(name: str, raw: bytes, keep: bool):
    """In a folder that is right but for one file."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        files = {"model.safetensors": checkpoint(TENSORS), "config.json": b"{}"} | {name: raw}
        if keep and name.endswith("index.json"):
            files[name] = json.dumps({"weight_map": {"b": raw.decode(errors="replace")}}).encode()
        for each, content in files.items():
            (Path(folder) / each).write_bytes(content)
        ours(lambda: bridge.load(folder, LIKE, [RULE]))
        ours(lambda: bridge.models.from_pretrained(folder))
        ours(lambda: bridge.save({"w": np.zeros(3, np.float32)}, folder, overwrite=True))
        with suppress(bridge.BridgeError):
            assert bridge.load(folder, None).keys()
