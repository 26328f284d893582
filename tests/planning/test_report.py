"""What a plan prints where keys and leaves do not meet, verbatim, and that many problems stay readable and quick."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from bridge._errors import PlanError
from bridge.mapping.pattern import Names
from bridge.mapping.template import Placed, Spec, Template
from bridge.planning.plan import Plan, Request, make_plan
from bridge.planning.policy import DtypePolicy
from bridge.rules.rule import Rule

F4 = np.dtype("f4")
Shapes = Mapping[str, tuple[int, ...]]


def spec(shape: tuple[Any, ...]) -> Spec:
    """A spec; a dtype may stand in front of the extents."""
    if shape and isinstance(shape[0], np.dtype):
        return Spec(shape[0], shape[1:])
    return Spec(F4, shape)


def plan(
    keys: Shapes,
    leaves: Shapes | None,
    rules: Sequence[str] = (),
    *,
    dtype: Any = None,
    allow: Sequence[str] = (),
    **more: Any,
) -> Plan:
    model = None if leaves is None else Template({n: spec(s) for n, s in leaves.items()}, kind="Llama", **more)
    request = Request(tuple(map(Rule, rules)), DtypePolicy.of(dtype), allow_unexpected=Names.of(allow))
    return make_plan({key: spec(shape) for key, shape in keys.items()}, model, request, source="my-model/")


def report(*args: Any, **kwargs: Any) -> str:
    made = plan(*args, **kwargs)
    assert not made.ok
    with pytest.raises(PlanError) as caught:
        made.check()
    assert caught.value.missing == made.missing
    assert caught.value.unexpected == made.unexpected
    assert caught.value.mismatched == made.mismatched
    assert str(made).endswith("\n\n" + str(caught.value))
    return str(caught.value)


def shows(text: str, expected: str) -> None:
    assert text == textwrap.dedent(expected).strip("\n")


LAYERS = [f"model.layers.{n}.self_attn" for n in range(32)]


def test_the_design_s_example():
    keys = {f"{layer}.q_proj.weight": (8, 8) for layer in LAYERS} | {
        f"{layer}.rotary_emb.inv_freq": (4,) for layer in LAYERS
    }
    keys["model.layers.7.self_attn.qproj.weight"] = keys.pop("model.layers.7.self_attn.q_proj.weight")
    keys["model.embed_tokens.weight"] = (32064, 4096)
    rules = ["model.layers.{l}.self_attn.*_proj.** -> layers.attn.*.**", "model.embed_tokens.** -> embed.**"]
    shows(
        report(keys, {"layers.attn.q.weight": (32, 8, 8), "embed.weight": (32000, 4096)}, rules),
        """
        4 problems between 'my-model/' (65 keys) and Llama (2 leaves)
          missing     layers.attn.q.weight[7]   no key 'model.layers.7.self_attn.q_proj.weight'
                      did you mean 'model.layers.7.self_attn.qproj.weight' (unused, same shape)?
          unexpected  model.layers.{0..31}.self_attn.rotary_emb.inv_freq   (32 keys)
                      if the model computes them: allow_unexpected=["**.rotary_emb.inv_freq"]
          unexpected  model.layers.7.self_attn.qproj.weight
                      if it is not needed: allow_unexpected=["model.layers.7.self_attn.qproj.weight"]
          mismatched  embed.weight   the model has (32000, 4096), 'model.embed_tokens.weight' is (32064, 4096)
        """,
    )


def test_a_hole_in_a_stack_and_in_a_list():
    keys = {f"h.{n}.w": (3, 3) for n in (0, 1, 3, 7)}
    shows(
        report(keys, {"h.w": (8, 3, 3)}),
        """
        1 problem between 'my-model/' (4 keys) and Llama (1 leaf)
          missing     h.w[2,4..6]   no key 'h.{2,4..6}.w'
        """,
    )
    assert plan(keys, {"h.w": (8, 3, 3)}).missing == ("h.w[2]", "h.w[4]", "h.w[5]", "h.w[6]")
    shows(
        report({f"x.{n}.w": (3, 3) for n in (0, 1, 3)}, {f"h.{n}.w": (3, 3) for n in range(4)}, ["x.** -> h.**"]),
        """
        1 problem between 'my-model/' (3 keys) and Llama (4 leaves)
          missing     h.2.w   no key 'x.2.w'
        """,
    )


def test_a_hole_among_layers_and_experts():
    keys = {f"h.{l}.{e}.w": (3,) for l in range(3) for e in range(4) if (l, e) not in ((1, 2), (2, 0))}
    shows(
        report(keys, {"h.w": (3, 4, 3)}),
        """
        2 problems between 'my-model/' (10 keys) and Llama (1 leaf)
          missing     h.w[1, 2]   no key 'h.1.2.w'
          missing     h.w[2, 0]   no key 'h.2.0.w'
        """,
    )


def test_a_leaf_that_nothing_fills_and_the_rule_that_would():
    keys = {f"model.layers.{n}.self_attn.q_proj.weight": (8, 8) for n in range(4)}
    shows(
        report(keys, {"layers.attn.q.weight": (4, 8, 8)}),
        """
        2 problems between 'my-model/' (4 keys) and Llama (1 leaf)
          missing     layers.attn.q.weight   no key 'layers.attn.q.weight'
                      did you mean 'model.layers.{0..3}.self_attn.q_proj.weight' (unused, same shapes)?
                      if so, the rule is "model.layers.{i}.self_attn.q_proj.weight -> layers.attn.q.weight"
          unexpected  model.layers.{0..3}.self_attn.q_proj.weight   (4 keys)
                      if they are not needed: allow_unexpected=["**.q_proj.weight"]
        """,
    )
    rule = "model.layers.{i}.self_attn.q_proj.weight -> layers.attn.q.weight"
    assert plan(keys, {"layers.attn.q.weight": (4, 8, 8)}, [rule]).ok


def test_a_list_that_nothing_fills_and_the_rule_that_would():
    keys = {f"encoder.layer.{n}.query.weight": (8, 8) for n in range(4)}
    leaves = {f"layers.{n}.query.weight": (8, 8) for n in range(4)}
    shows(
        report(keys, leaves),
        """
        2 problems between 'my-model/' (4 keys) and Llama (4 leaves)
          missing     layers.{0..3}.query.weight   no key 'layers.{0..3}.query.weight'
                      did you mean 'encoder.layer.{0..3}.query.weight' (unused, same shapes)?
                      if so, the rule is "encoder.layer.{i}.query.weight -> layers.{i}.query.weight"
          unexpected  encoder.layer.{0..3}.query.weight   (4 keys)
                      if they are not needed: allow_unexpected=["**.query.weight"]
        """,
    )
    assert plan(keys, leaves, ["encoder.layer.{i}.query.weight -> layers.{i}.query.weight"]).ok


def test_did_you_mean_looks_only_at_unused_keys_of_the_right_shape():
    keys = {"q_proj": (3,), "k_proj": (3,), "qproj": (4,)}
    shows(
        report(keys, {"k_proj": (3,), "q_proj2": (3,), "q__proj": (5,)}, ["q_proj -> q_proj2"]),
        """
        2 problems between 'my-model/' (3 keys) and Llama (3 leaves)
          missing     q__proj   no key 'q__proj'
          unexpected  qproj
                      if it is not needed: allow_unexpected=["qproj"]
        """,
    )


def test_a_key_sent_nowhere_names_its_rule():
    shows(
        report({"a.w": (3,), "b.0.w": (3,), "b.1.w": (3,)}, {"c": (3,)}, ["a.w -> c", "b.** -> x.**"]),
        """
        1 problem between 'my-model/' (3 keys) and Llama (1 leaf)
          unexpected  b.{0..1}.w   (2 keys)
                      sent to 'x.{i}.w' by the rule 'b.** -> x.**'
                      if they are not needed: allow_unexpected=["b.*.w"]
        """,
    )


def test_a_pattern_never_allows_other_keys():
    keys = {f"h.{n}.mlp.w": (3,) for n in range(2)} | {"x.mlp.w": (3,)}
    text = report(keys, {"x.mlp.w": (3,)})
    assert 'allow_unexpected=["h.*.mlp.w"]' in text
    assert plan(keys, {"x.mlp.w": (3,)}, allow=["h.*.mlp.w"]).ok


def test_a_layer_too_many():
    shows(
        report({f"h.{n}.w": (3,) for n in range(6)}, {"h.w": (4, 3)}),
        """
        1 problem between 'my-model/' (6 keys) and Llama (1 leaf)
          unexpected  h.{4..5}.w   (2 keys)
                      'h.w' has no place for it: its shape is (4, 3)
                      if they are not needed: allow_unexpected=["h.*.w"]
        """,
    )


def test_shapes_that_differ():
    keys = {f"h.{n}.w": (3, 3) for n in range(4)} | {"h.2.w": (3, 4), "h.3.w": (3, 4), "v": (2, 3), "u": (5,)}
    shows(
        report(keys, {"h.w": (4, 3, 3), "v": (3, 2), "u": (5, 1, 1)}),
        """
        3 problems between 'my-model/' (6 keys) and Llama (3 leaves)
          mismatched  h.w[2..3]   needs (3, 3), 'h.{2..3}.w' are (3, 4)
          mismatched  v   the model has (3, 2), 'v' is (2, 3)
                      if it is stored transposed, say so: "v [a b] -> v [b a]"
          mismatched  u   the model has (5, 1, 1), 'u' is (5,)
        """,
    )


def test_axes_that_do_not_fit_the_shapes():
    rule = "h.{l}.c [m (q|k|v)] -> {q|k|v} [l _ m]"
    leaves = dict.fromkeys("qkv", (2, 4, 4))
    shows(
        report({"h.0.c": (4, 12), "h.1.c": (4, 13)}, leaves, [rule]),
        """
        1 problem between 'my-model/' (2 keys) and Llama (3 leaves)
          mismatched  q   needs (4, 12), 'h.1.c' is (4, 13)
        """,
    )
    shows(
        report({"h.0.c": (4, 13), "h.1.c": (4, 13)}, leaves, [rule]),
        """
        1 problem between 'my-model/' (2 keys) and Llama (3 leaves)
          mismatched  q   needs (4, 12), 'h.{0..1}.c' are (4, 13)
                      by the rule 'h.{l}.c [m (q|k|v)] -> {q|k|v} [l _ m]'
        """,
    )
    shows(
        report({"w": (10, 3)}, {"w": (3, 4, 3)}, ["w [(h d) m] -> w [h d m] ; h=3"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          mismatched  w   needs (12, 3), 'w' is (10, 3)
                      by the rule 'w [(h d) m] -> w [h d m] ; h=3'
        """,
    )
    shows(
        report({"w": (10, 3)}, {"v": (3, 10)}, ["w [a] -> v [a]"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          conflict    rule 'w [a] -> v [a]'
                      the rule has 1 axis, the shape (10, 3) has 2
        """,
    )


def test_extents_that_nothing_says():
    shows(
        report({"w": (6, 2)}, {"v": (2, 6)}, ["w [(q|k|v) m] -> v [m (v|q|k)]"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          conflict    rule 'w [(q|k|v) m] -> v [m (v|q|k)]'
                      the shapes do not say how wide q, k and v are: add '; q=…, k=…, v=…'
        """,
    )
    shows(
        report({"w": (6, 2)}, None, ["w [(h d) m] -> v [h m d]"]),
        """
        1 problem between 'my-model/' (1 key) and a flat dict (0 leaves)
          conflict    rule 'w [(h d) m] -> v [h m d]'
                      the shapes do not say how wide h and d are: add '; h=…, d=…'
        """,
    )


def test_elements_that_no_rule_reads():
    shows(
        report({"emb": (10, 3)}, {"emb": (8, 3)}, ["emb [v[:8] m] -> emb [v m]"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          unexpected  emb
                      no rule reads its elements [8:10]
                      to drop them on purpose: "emb [a[8:10] b] -> _"
        """,
    )
    assert plan({"emb": (10, 3)}, {"emb": (8, 3)}, ["emb [v[:8] m] -> emb [v m]", "emb [a[8:10] b] -> _"]).ok


def test_two_keys_for_one_leaf():
    shows(
        report(
            {"a": (3,), "b": (3,), "h.0.x": (3,), "h.1.x": (3,), "h.0.y": (3,), "h.1.y": (3,)},
            {"a": (3,), "y": (2, 3)},
            ["b -> a", "h.{l}.x -> y", "h.{l}.y -> y"],
        ),
        """
        2 problems between 'my-model/' (6 keys) and Llama (2 leaves)
          conflict    a
                      filled by 'b' and by 'a': drop one of them on purpose, with '-> _'
          conflict    y
                      filled by 'h.{0..1}.x' and by 'h.{0..1}.y': drop one of them on purpose, with '-> _'
        """,
    )
    shows(
        report({"a": (3, 3), "b": (3, 3)}, {"w": (3, 3)}, ["a -> w", "b [x y] -> w [y x]"]),
        """
        1 problem between 'my-model/' (2 keys) and Llama (1 leaf)
          conflict    w
                      filled by 'a' and by 'b'
        """,
    )


def test_a_key_that_is_read_twice():
    shows(
        report({"w": (6, 2)}, {"a": (4, 2), "b": (4, 2)}, ["w [v[:4] m] -> a [v m]", "w [v[2:] m] -> b [v m]"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (2 leaves)
          conflict    w
                      some of its elements are read twice: a rule that reads them again says 'copy=true'
        """,
    )


def test_a_sum_that_lacks_a_term():
    shows(
        report({"r.0.a": (3,), "r.0.b": (3,), "r.1.a": (3,)}, {"s": (2, 3)}, ["r.{l}.a + r.{l}.b -> s"]),
        """
        1 problem between 'my-model/' (3 keys) and Llama (1 leaf)
          missing     s[1]   no key 'r.1.b'
        """,
    )
    shows(
        report({"a": (3,)}, {"s": (3,)}, ["a + b -> s"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          missing     s   no key 'b'
        """,
    )


def test_a_layout_s_key():
    cell = Placed("cell", (Rule("bias_ih [x] + bias_hh [x] -> bias [x]"),))
    shows(
        report({"cell.bias_ih": (8,)}, {"cell.bias": (8,)}, placed=(cell,)),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          missing     cell.bias   no key 'cell.bias_hh'
        """,
    )
    shows(
        report(
            {},
            {"cell.bias": (8,), "norm.bias": (3,)},
            placed=(cell,),
            hints={"norm.bias": "PyTorch's RMSNorm has no bias"},
        ),
        """
        2 problems between 'my-model/' (0 keys) and Llama (2 leaves)
          missing     cell.bias   no key 'cell.bias_ih'
          missing     norm.bias   no key 'norm.bias'
                      PyTorch's RMSNorm has no bias
        """,
    )


def test_dtypes_that_are_not_cast():
    f8, f4x, i8 = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float4_e2m1fn), np.dtype("i8")
    text = report(
        {"a": (f8, 3), "b": (i8, 3), "c": (np.dtype("i2"), 3), "d": (f4x, 4), "e": (np.dtype("c8"), 3)},
        {"a": (3,), "b": (3,), "c": (np.dtype("i1"), 3), "d": (f4x, 4), "e": (3,)},
    )
    shows(
        text,
        """
        5 problems between 'my-model/' (5 keys) and Llama (5 leaves)
          mismatched  a   'a': float8_e4m3fn means nothing without its scales: load it as it is with dtype='checkpoint'
          mismatched  b   'b': int64 is not cast to float32: float to float and int to wider int only
          mismatched  c   'c': int16 does not fit into int8
          mismatched  d   'd': several float4_e2m1fn values share a byte of its file: read it with ckpt[key] instead
          mismatched  e   'e': complex64 is not cast to float32: float to float and int to wider int only
        """,
    )
    rows = {row[0]: row for row in plan({"a": (f8, 3)}, {"a": (3,)}).mismatched}
    assert rows["a"][2:] == (Spec(F4, (3,)), Spec(f8, (3,)))


def test_a_stack_of_several_dtypes():
    keys = {"h.0.w": (3,), "h.1.w": (np.dtype("f8"), 3)}
    shows(
        report(keys, None, ["h.{l}.w -> w"]),
        """
        1 problem between 'my-model/' (2 keys) and a flat dict (1 leaf)
          conflict    w
                      its keys have different dtypes (float32 of 'h.0.w', float64 of 'h.1.w'): say which it gets, dtype={'w': …}
        """,
    )


def test_holes_where_the_keys_make_the_leaves():
    shows(
        report({"h.0.w": (3,), "h.2.w": (3,)}, None, ["h.{l}.w -> w"]),
        """
        1 problem between 'my-model/' (2 keys) and a flat dict (1 leaf)
          missing     w[1]   no key 'h.1.w'
        """,
    )


def test_terminal_escapes_are_never_printed_raw():
    keys = {"\x1b[31mred": (3,), "a\nb": (3,)}
    text = str(plan(keys, {"\x1b]0;x\x07": (3,)}))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert 'allow_unexpected=["\\x1b\\\\[31mred"]' in text
    assert plan(keys, {}, allow=["\x1b\\[31mred", "a\\\nb"]).ok


def test_what_matched_nothing_is_listed():
    made = plan({"a": (3,), "b.inv_freq": (3,)}, {"a": (3,)}, ["x.** -> y.**", "**.inv_freq -> _"])
    assert made.ok
    assert made.idle == ("x.** -> y.**",)
    shows(
        str(made),
        """
        'my-model/' (2 keys) -> Llama (1 leaf), 12 B to read
          a float32[3] -> a float32[3]
          dropped: b.inv_freq
          matched nothing: 'x.** -> y.**'
        """,
    )


@pytest.mark.parametrize("kind", ["unexpected", "missing", "mismatched", "twice", "odd", "elements"])
def test_a_hundred_thousand_problems(kind: str):
    many = range(100_000)
    keys: dict[str, tuple[int, ...]] = {}
    leaves: dict[str, tuple[int, ...]] = {"x": (3,)}
    rules: list[str] = []
    if kind == "unexpected":
        keys = {f"h.{n % 317}.x{n // 317}.w": (3,) for n in many}
    elif kind == "missing":
        leaves = {f"h.{n}.w": (n % 7,) for n in many}
    elif kind == "mismatched":
        keys, leaves = {f"h.{n}.w": (n,) for n in many}, {"h.w": (100_000, 3)}
    elif kind == "twice":
        keys = {f"{part}.{n}.w": (3,) for n in many[:50_000] for part in "ab"}
        leaves, rules = {"w": (50_000, 3)}, ["a.{l}.w -> w", "b.{l}.w [x] -> w [l x]"]
    elif kind == "odd":
        keys = {f"h{n}z.w{n}q": (3,) for n in many}
    else:
        keys, leaves = {f"h.{n}.w": (3, 3) for n in many}, {"w": (100_000, 2, 3)}
        rules = ["h.{l}.w [v[:2] m] -> w [l v m]"]
    start = time.perf_counter()
    made = plan(keys, leaves, rules)
    text = str(made).partition("\n\n")[2]
    assert time.perf_counter() - start < 30  # a few seconds; what is quadratic takes minutes
    assert not made.ok
    assert len(text.splitlines()) < 170
    assert len(text) < 40_000
