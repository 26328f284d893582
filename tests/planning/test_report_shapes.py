"""What a plan prints where keys and leaves meet but do not fit, verbatim: shapes, elements, dtypes, collisions."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from bridge.mapping.template import Spec
from tests.planning.reports import F4, plan, report, shows


def test_shapes_that_differ():
    keys = {f"h.{n}.w": (3, 3) for n in range(4)} | {"h.2.w": (3, 4), "h.3.w": (3, 4), "v": (2, 3), "u": (5,)}
    shows(
        report(keys, {"h.w": (4, 3, 3), "v": (3, 2), "u": (5, 1, 1)}),
        """
        3 problems between 'my-model/' (6 keys) and Llama (3 leaves)
          mismatched  h.w[2..3]   needs (3, 3), 'h.{2..3}.w' are (3, 4)   float32
          mismatched  v   the model has (3, 2), 'v' is (2, 3)   float32
                      if it is stored transposed, say so: "v [a b] -> v [b a]"
          mismatched  u   the model has (5, 1, 1), 'u' is (5,)   float32
                      the rule "u [a] -> u [a 1 1]" makes its axes of length 1 fit
        """,
    )


def test_axes_that_do_not_fit_the_shapes():
    rule = "h.{l}.c [m (q|k|v)] -> {q|k|v} [l _ m]"
    leaves = dict.fromkeys("qkv", (2, 4, 4))
    shows(
        report({"h.0.c": (4, 12), "h.1.c": (4, 13)}, leaves, [rule]),
        """
        1 problem between 'my-model/' (2 keys) and Llama (3 leaves)
          mismatched  q   needs (4, 12), 'h.1.c' is (4, 13)   float32
        """,
    )
    shows(
        report({"h.0.c": (4, 13), "h.1.c": (4, 13)}, leaves, [rule]),
        """
        1 problem between 'my-model/' (2 keys) and Llama (3 leaves)
          mismatched  q   needs (4, 12), 'h.{0..1}.c' are (4, 13)   float32
                      by the rule 'h.{l}.c [m (q|k|v)] -> {q|k|v} [l _ m]'
        """,
    )
    shows(
        report({"w": (10, 3)}, {"w": (3, 4, 3)}, ["w [(h d) m] -> w [h d m] ; h=3"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          mismatched  w   needs (12, 3), 'w' is (10, 3)   float32
                      by the rule 'w [(h d) m] -> w [h d m] ; h=3'
        """,
    )
    shows(
        report({"w": (10, 3)}, {"v": (3, 10)}, ["w [a] -> v [a]"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          conflict    rule 'w [a] -> v [a]'
                      the rule gives the leaf 1 axis, but its shape is (3, 10)
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
          unexpected  emb   float32[10, 3]
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
          missing     s[1]   no key 'r.1.b'   float32[3]
        """,
    )
    shows(
        report({"a": (3,)}, {"s": (3,)}, ["a + b -> s"]),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          missing     s   no key 'b'   float32[3]
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
          missing     w[1]   no key 'h.1.w'   float32[3]
        """,
    )
