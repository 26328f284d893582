"""Rules from TOML, and what a file that is not right gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge._errors import RuleError
from bridge.rules.rule import Rule
from bridge.rules.toml import load_rules


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "rules.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_texts_and_tables(tmp_path: Path):
    path = written(tmp_path, 'rules = ["a -> b", "c -> d ; add=1.0", { rule = "c -> e", add = 1.0, tie = false }]')
    assert load_rules(path) == (Rule("a -> b"), Rule("c -> d ; add=1.0"), Rule("c -> e ; add=1.0"))
    assert load_rules(str(path)) == load_rules(path)
    assert load_rules(written(tmp_path, "rules = []")) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'{path}' has no list of rules: write rules = [\"a -> b\", …]."),
        ("rules = 3", "'{path}' has no list of rules: write rules = [\"a -> b\", …]."),
        ("rule = []", "'{path}' has no list of rules: write rules = [\"a -> b\", …]."),
        ("rules = []\nother = 1", "'{path}' has 'other' besides 'rules': nothing else belongs there."),
        ("rules = [1]", "'{path}', rule 1: a rule is a text 'key -> leaf', not int: 1"),
        ('rules = ["a -> b", "a"]', "'{path}', rule 2: a rule is 'key -> leaf': expected '->' here\n  a\n   ^"),
        ("rules = [{}]", "'{path}', rule 1: a table needs rule = \"key -> leaf\""),
        ("rules = [{ rule = 1 }]", "'{path}', rule 1: a table needs rule = \"key -> leaf\""),
        (
            'rules = [{ rule = "a -> b", tie = 1 }]',
            "'{path}', rule 1: option 'tie' is true or false, not 1\n  a -> b\n        ^",
        ),
        (
            'rules = [{ rule = "a -> b", add = 2020-01-01 }]',
            "'{path}', rule 1: option 'add' is a finite number, not datetime.date(2020, 1, 1)\n  a -> b\n        ^",
        ),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, message: str):
    path = written(tmp_path, text)
    with pytest.raises(RuleError) as caught:
        load_rules(path)
    assert str(caught.value) == message.replace("{path}", str(path))


def test_what_is_no_toml(tmp_path: Path):
    for text in ("rules = [", b"\xff\xfe"):
        with pytest.raises(RuleError, match=r"rules\.toml' is not TOML: .* Rules stand in it as rules = "):
            load_rules(written(tmp_path, text))


def test_what_is_not_there(tmp_path: Path):
    with pytest.raises(RuleError) as caught:
        load_rules(tmp_path / "absent.toml")
    assert (
        str(caught.value) == f"'{tmp_path / 'absent.toml'}' cannot be read: No such file or directory. Check the path."
    )
    with pytest.raises(RuleError, match="cannot be read: Is a directory"):
        load_rules(tmp_path)


def test_a_table_s_options_must_be_texts_of_this_language(tmp_path: Path):
    path = written(tmp_path, 'rules = [{ rule = "a [x] -> b [x]", flip = ["x"] }]')
    with pytest.raises(RuleError, match=r"rule 1: option 'flip' is the names of axes"):
        load_rules(path)
