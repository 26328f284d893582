"""Whatever text or file a user gives, in every function and every command: it works, or is an error of ours.

Hypothesis drives them, with texts that are nearly right among those that are nothing.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import bridge
from bridge.cli.main import main
from tests.attacks.any_text import FEW, LIKE, RULE, folder, ours, texts  # noqa: F401 - a fixture

HTTP = "http:" + "//"
SOURCES = [
    f"{HTTP}[::1",
    f"{HTTP}[::1]:x/y.safetensors",
    f"{HTTP}h:99999/x",
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
