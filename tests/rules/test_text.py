"""A rule's text: what it is read as, and that it reads back."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge._errors import RuleError
from bridge.mapping.pattern import NamePatterns
from bridge.rules.rule import Rule
from bridge.rules.syntax import Axis, Choice, Hole, Index, JoinedParts, Rest, Selection, UnitAxis, Wild, literal

CANONICAL = [
    "bert.** -> **",
    "x.inv_freq -> _",
    "emb [v[8:] m] -> _",
    "h.{l}.ln.weight -> h.{l}.norm.weight",
    "h.{l[3:]}.moe.** -> moe.{l}.**",
    "h.{l[1::2]}.a -> a",
    "h.{l[::-1]}.a -> a",
    "h.{l[0,3,7]}.a -> a",
    "h.{l[-1]}.a -> a",
    "h.{(g i[:5])}.attn.** -> local.{g}.{i}.** ; i=6",
    "b.{g} -> h.{(g i[2])}.w ; i=3",
    "q.weight [(h d) m] -> q [h d m] ; h=12",
    "b [o] -> b [o 1 1]",
    "w [... k] -> w [k ...]",
    "s [] -> s [1]",
    "h.{l}.c_attn.weight [m (q|k|v)] -> h.{l}.{q|k|v}.weight [_ m]",
    "gate_up [(f (gate|up)) m] -> {gate|up} [f m]",
    "qkv [(g (q|k|v) d) m] -> {wq|wk|wv} [(g _ d) m] ; g=8 k=1 q=4 v=1",
    "r.bias_ih_l0 + r.bias_hh_l0 -> cell.bias",
    "norm.weight -> norm.weight ; add=1.0",
    'conv [o i h w] -> conv [i o h w] ; scale=0.5 add=-1e-05 flip="h w"',
    "lm_head.weight -> embed.weight ; tie=true",
    "embed.weight -> lm_head.weight ; copy=true",
    "*_proj.** -> x.*.**",
    "'' -> w",
    "w -> ''",
    "w -> \\_",
    "a..b -> .c.",
    "a\\ b\\[0\\] -> x\\+y\\;z",
    "a\\->b -> \\''",
    "{a\\|b|c\\}} -> {d|e}",
    "{q_proj|o.dense} -> {q|o}",
]


@pytest.mark.parametrize("text", CANONICAL)
def test_the_canonical_form_is_its_own(text: str):
    rule = Rule(text)
    assert str(rule) == text
    assert Rule(str(rule)) == rule
    assert repr(rule) == f"Rule({text!r})"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("a->b", "a -> b"),
        ("  a\t->\n b  ", "a -> b"),
        ("a[x y]->b[y x]", "a [x y] -> b [y x]"),
        ("a [ ( x  y ) ] -> b [ x y ];x=2", "a [(x y)] -> b [x y] ; x=2"),
        ("a [( q | k )] -> { l }.{q|k} [_]", None),
        ("{ l }.a -> { l }.b", "{l}.a -> {l}.b"),
        ("{ ( g  i ) } -> {g}.{i};i=2", "{(g i)} -> {g}.{i} ; i=2"),
        ("{l[ 3 : ]} -> {l}", "{l[3:]} -> {l}"),
        ("{l[ 0 , 3 ]} -> {l}", "{l[0,3]} -> {l}"),
        ("a -> b ; add=1, scale=2", "a -> b ; scale=2 add=1"),
        ("a [y x] -> b [x y] ; flip='x,y', y=3 x=2", 'a [y x] -> b [x y] ; x=2 y=3 flip="x y"'),
        ("a -> b ; tie=false, scale=1, add=0", "a -> b"),
        ("a -> b ;", "a -> b"),
        ("a\\.b -> c", "a.b -> c"),
        ("\\a -> b", "a -> b"),
        ("a|b -> c", "a\\|b -> c"),
    ],
)
def test_other_spellings(text: str, canonical: str | None):
    if canonical is None:
        with pytest.raises(RuleError):
            Rule(text)
    else:
        assert str(Rule(text)) == canonical
        assert Rule(text) == Rule(canonical)
        assert hash(Rule(text)) == hash(Rule(canonical))


def test_keywords_are_options():
    assert Rule("q [(h d)] -> q [h d]", h=12) == Rule("q [(h d)] -> q [h d] ; h=12")
    assert Rule("a -> b", add=1.0, scale=2) == Rule("a -> b ; scale=2 add=1.0")
    assert Rule("a [x] -> b [x]", flip="x") == Rule('a [x] -> b [x] ; flip="x"')
    assert Rule("a -> b", tie=True) == Rule("a -> b ; tie=true")
    assert Rule("a -> b", tie=True) != Rule("a -> b", copy=True)


def test_what_a_rule_is_read_as():
    rule = Rule("h.{(g i[:5])}.*_x [(q|k) ... 1] -> x.{g}.{i}.* [(k|q) 1 ...] ; i=6")
    (key,) = rule.keys
    assert key.name.segments == (("h",), (Hole((Index("g"), Index("i", Selection(stop=5)))),), (Wild(), "_x"))
    assert key.axes == (Axis((JoinedParts(("q", "k")),)), Rest(), Axis((UnitAxis(),)))
    assert rule.leaf is not None
    assert rule.leaf.name.segments == (("x",), (Hole((Index("g"),)),), (Hole((Index("i"),)),), (Wild(),))
    assert rule.sizes == (("i", 6),)
    assert (rule.scale, rule.add, rule.flip, rule.tie, rule.copy) == (1, 0, (), False, False)
    assert rule.pairing[0].labels == (("q", "k"), ("q", "k"))
    choice = Rule("a.{q|k} -> {wq|wk}")
    assert choice.keys[0].name.segments == (("a",), (Choice(("q", "k")),))
    assert choice.pairing[0].labels == (("q", "k"), ("wq", "wk"))


def test_a_rule_is_a_value():
    rule = Rule("h.{l}.q [(h d) m] -> q [l h d m] ; h=2")
    for twin in (pickle.loads(pickle.dumps(rule)), copy.copy(rule), copy.deepcopy(rule)):  # noqa: S301 - our own bytes
        assert twin == rule
        assert twin.pairing == rule.pairing
        assert twin.sizes == rule.sizes
    assert len({rule, Rule(str(rule)), Rule("a -> b")}) == 2
    assert rule != str(rule)
    with pytest.raises(AttributeError, match="a rule is frozen: 'tie' cannot be set, make another Rule"):
        rule.tie = True  # type: ignore[misc]
    with pytest.raises(AttributeError, match="a rule is frozen: 'keys' cannot be deleted"):
        del rule.keys  # type: ignore[misc]
    with pytest.raises(AttributeError):
        rule.other = 1  # type: ignore[attr-defined]


ALPHABET = "ab.{}()[]|*+->_;:,=0123 '\"\\\t\n\x1b\xa0lqkvé…"


@given(st.text(alphabet=ALPHABET, max_size=40) | st.text(max_size=20))
def test_any_text_is_a_rule_or_a_rule_error(text: str):
    try:
        rule = Rule(text)
    except RuleError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine
    else:
        assert Rule(str(rule)) == rule


PIECES = st.sampled_from(
    [
        "a",
        ".",
        "{l}",
        "{q|k}",
        "{(g i)}",
        "*",
        "**",
        " -> ",
        " + ",
        " [",
        "] ",
        "x",
        "(q|k)",
        "(x y)",
        "1",
        "_",
        "...",
        " ; ",
        "i=2",
        "x=3",
        "tie=true",
    ]
)


@given(st.lists(PIECES, max_size=16).map("".join))
def test_nearly_a_rule_is_a_rule_or_a_rule_error(text: str):
    try:
        rule = Rule(text)
    except RuleError:
        return
    assert Rule(str(rule)) == rule


@given(st.text(max_size=12) | st.text(alphabet=ALPHABET, max_size=12))
def test_any_key_has_a_spelling(key: str):
    name = literal(key)
    rule = Rule(f"{name} -> {name}")
    assert rule == Rule(str(rule))
    assert rule.keys[0].name == name
    assert key in NamePatterns.of(str(name))
    assert f"{key}x" not in NamePatterns.of(str(name))


@given(
    st.text(alphabet=ALPHABET, max_size=30),
    st.sampled_from(["h", "add", "flip", "tie", "x y", ""]),
    st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.booleans(), st.lists(st.integers())),
)
def test_any_option_is_taken_or_a_rule_error(text: str, name: str, value: object):
    for rule in (text, "a [(h x)] -> b [h x]"):
        try:
            made = Rule(rule, **{name: value})  # type: ignore[arg-type]
        except RuleError:
            continue
        assert Rule(str(made)) == made
