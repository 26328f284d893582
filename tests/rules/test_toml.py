"""Rules from TOML, and what a file that is not right gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge._errors import RuleError
from bridge.rules.rule import Rule
from bridge.rules.toml import load_rules
from tests.errors.promised import text_of


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "rules.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_texts_and_tables(tmp_path: Path):
    path = written(tmp_path, 'rules = ["a -> b", "c -> d ; add=1.0", { rule = "c -> e", add = 1.0, tie = false }]')
    assert load_rules(path) == (Rule("a -> b"), Rule("c -> d ; add=1.0"), Rule("c -> e ; add=1.0"))
    assert load_rules(str(path)) == load_rules(path)
    assert load_rules(written(tmp_path, "rules = []")) == ()


def test_nested_rules(tmp_path: Path):
    path = written(
        tmp_path,
        """
        rules = [
          "conv_in.** -> first.**",
          { rule = "down.{b}.** -> d.{b}.**", rules = [
              "resnets.{r}.** -> res.{r}.**",
              { rule = "norm.weight -> norm.weight", add = 1.0 },
              { rule = "attn.{(a i)}.** -> attn.{a}.{i}.**", i = 2, rules = { "q" = "query", "k" = "key" } },
          ] },
        ]
        """,
    )
    assert load_rules(path) == (
        Rule("conv_in.** -> first.**"),
        Rule("down.{b}.resnets.{r}.** -> d.{b}.res.{r}.**"),
        Rule("down.{b}.norm.weight -> d.{b}.norm.weight ; add=1.0"),
        Rule("down.{b}.attn.{(a i)}.q -> d.{b}.attn.{a}.{i}.query ; i=2"),
        Rule("down.{b}.attn.{(a i)}.k -> d.{b}.attn.{a}.{i}.key ; i=2"),
    )


def test_a_table_from_keys_to_leaves(tmp_path: Path):
    path = written(tmp_path, '[rules]\n"bert.**" = "**"\n"cls.**" = "_"')
    assert load_rules(path) == (Rule("bert.** -> **"), Rule("cls.** -> _"))


def test_a_text_of_several_lines(tmp_path: Path):
    path = written(tmp_path, 'rules = """\n# the encoder\nbert.** -> **\n\ncls.** -> _   # its head\n"""')
    assert load_rules(path) == (Rule("bert.** -> **"), Rule("cls.** -> _"))


NO_LIST = text_of("rules.toml: no list").removeprefix("'rules.toml'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rules = """\na -> b\nc\n"""', ", line 2: expected '->' here. "),
        ("[rules]\na = 3", ", entry 1: a dict of rules has 'a' to 3, expected texts"),
        (
            'rules = ["a -> b", { rule = "c.** -> d.**", rules = ["x -> y", { rule = "y" }] }]',
            ", rule 2, inner rule 2: expected '->' here. ",
        ),
        (
            'rules = [{ rule = "c.** -> d.**", tie = true, rules = ["x -> y"] }]',
            ", rule 1: a rule with inner rules has no option but the number of its indices. ",
        ),
        ('rules = [{ rule = "c.** -> d.**", rules = 3 }]', ", rule 1: rules must be a list of texts, got int: 3. "),
        ('rules = [{ rule = "c.** -> d.**", rules = [] }]', ", rule 1: rule 'c.** -> d.**' has no inner rules. "),
        ("", NO_LIST),
        ("rules = 3", NO_LIST),
        ("rule = []", NO_LIST),
        ("rules = []\nother = 1", " has 'other' besides 'rules'. "),
        ("rules = [1]", ", rule 1: a rule must be a text, got int: 1. "),
        ('rules = ["a -> b", "a"]', ", rule 2: expected '->' here. "),
        ("rules = [{}]", ", rule 1: this table has no field 'rule'. "),
        ("rules = [{ rule = 1 }]", ", rule 1: this table has no field 'rule'. "),
        ('rules = [{ rule = "a -> b", tie = 1 }]', ", rule 1: option 'tie' is 1. "),
        ('rules = [{ rule = "a -> b", add = 2020-01-01 }]', ", rule 1: option 'add' is datetime.date(2020, 1, 1). "),
    ],
)
def test_what_is_wrong_has_its_place(tmp_path: Path, text: str, message: str):
    path = written(tmp_path, text)
    with pytest.raises(RuleError) as caught:
        load_rules(path)
    assert str(caught.value).startswith(f"'{path}'{message}")


def test_what_is_no_toml(tmp_path: Path):
    for text in ("rules = [", b"\xff\xfe"):
        with pytest.raises(RuleError, match=r"rules\.toml' is not TOML: .* Write rules = "):
            load_rules(written(tmp_path, text))


def test_what_is_nested_too_deep(tmp_path: Path):
    """The bound of rules, and that of the interpreter, which tomllib meets first."""
    for depth, error in (
        (65, "this rule is nested too deep: at most 64 rules"),
        (5000, "is nested too deep: at most 64"),
    ):
        text = '{ rule = "a.** -> b.**", rules = [' * depth + '"x -> y"' + "] }" * depth
        with pytest.raises(RuleError, match=error):
            load_rules(written(tmp_path, f"rules = [{text}]"))
    text = '{ rule = "a.** -> b.**", rules = [' * 64 + '"x -> y"' + "] }" * 64
    assert load_rules(written(tmp_path, f"rules = [{text}]")) == (Rule("a." * 64 + "x -> " + "b." * 64 + "y"),)


def test_what_is_not_there(tmp_path: Path):
    with pytest.raises(RuleError) as caught:
        load_rules(tmp_path / "absent.toml")
    assert str(caught.value) == text_of("rules.toml: not there").replace("'rules.toml'", f"'{tmp_path}/absent.toml'")
    with pytest.raises(RuleError, match="cannot be read: Is a directory"):
        load_rules(tmp_path)


def test_a_table_s_options_must_be_texts_of_this_language(tmp_path: Path):
    path = written(tmp_path, 'rules = [{ rule = "a [x] -> b [x]", flip = ["x"] }]')
    with pytest.raises(RuleError, match=r"rule 1: option 'flip' is"):
        load_rules(path)
