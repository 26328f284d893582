"""What a plan prints where keys and leaves do not meet, verbatim: missing and unexpected."""

from __future__ import annotations

from bridge.mapping.template import PlacedLayout
from bridge.rules.rule import Rule
from tests.planning.reports import plan, report, shows

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
          missing     layers.attn.q.weight[7]   no key 'model.layers.7.self_attn.q_proj.weight'   float32[8, 8]
                      did you mean 'model.layers.7.self_attn.qproj.weight' (unused, same shape)?
          unexpected  model.layers.{0..31}.self_attn.rotary_emb.inv_freq   (32 keys)   float32[4]
                      if the model computes them: allow_unexpected=["**.rotary_emb.inv_freq"]
          unexpected  model.layers.7.self_attn.qproj.weight   float32[8, 8]
                      if it is not needed: allow_unexpected=["model.layers.7.self_attn.qproj.weight"]
          mismatched  embed.weight   the model has (32000, 4096), 'model.embed_tokens.weight' is (32064, 4096)   float32
                      if its other rows are padding: "model.embed_tokens.weight [a[:32000] b] -> embed.weight [a b]", "model.embed_tokens.weight [a[32000:] b] -> _"
        """,
    )


def test_a_hole_in_a_stack_and_in_a_list():
    keys = {f"h.{n}.w": (3, 3) for n in (0, 1, 3, 7)}
    shows(
        report(keys, {"h.w": (8, 3, 3)}),
        """
        1 problem between 'my-model/' (4 keys) and Llama (1 leaf)
          missing     h.w[2,4..6]   no key 'h.{2,4..6}.w'   float32[3, 3]
        """,
    )
    assert plan(keys, {"h.w": (8, 3, 3)}).missing == ("h.w[2]", "h.w[4]", "h.w[5]", "h.w[6]")
    shows(
        report({f"x.{n}.w": (3, 3) for n in (0, 1, 3)}, {f"h.{n}.w": (3, 3) for n in range(4)}, ["x.** -> h.**"]),
        """
        1 problem between 'my-model/' (3 keys) and Llama (4 leaves)
          missing     h.2.w   no key 'x.2.w'   float32[3, 3]
        """,
    )


def test_a_hole_among_layers_and_experts():
    keys = {f"h.{l}.{e}.w": (3,) for l in range(3) for e in range(4) if (l, e) not in ((1, 2), (2, 0))}
    shows(
        report(keys, {"h.w": (3, 4, 3)}),
        """
        2 problems between 'my-model/' (10 keys) and Llama (1 leaf)
          missing     h.w[1, 2]   no key 'h.1.2.w'   float32[3]
          missing     h.w[2, 0]   no key 'h.2.0.w'   float32[3]
        """,
    )


def test_a_leaf_that_nothing_fills_and_the_rule_that_would():
    keys = {f"model.layers.{n}.self_attn.q_proj.weight": (8, 8) for n in range(4)}
    shows(
        report(keys, {"layers.attn.q.weight": (4, 8, 8)}),
        """
        2 problems between 'my-model/' (4 keys) and Llama (1 leaf)
          missing     layers.attn.q.weight   no key 'layers.attn.q.weight'   float32[4, 8, 8]
                      did you mean 'model.layers.{0..3}.self_attn.q_proj.weight' (unused, same shapes)?
                      if so, the rule is "model.layers.{l}.self_attn.q_proj.weight -> layers.attn.q.weight"
          unexpected  model.layers.{0..3}.self_attn.q_proj.weight   (4 keys)   float32[8, 8]
                      if they are not needed: allow_unexpected=["**.q_proj.weight"]
        """,
    )
    rule = "model.layers.{l}.self_attn.q_proj.weight -> layers.attn.q.weight"
    assert plan(keys, {"layers.attn.q.weight": (4, 8, 8)}, [rule]).ok


def test_a_list_that_nothing_fills_and_the_rule_that_would():
    keys = {f"encoder.layer.{n}.query.weight": (8, 8) for n in range(4)}
    leaves = {f"layers.{n}.query.weight": (8, 8) for n in range(4)}
    shows(
        report(keys, leaves),
        """
        2 problems between 'my-model/' (4 keys) and Llama (4 leaves)
          missing     layers.{0..3}.query.weight   no key 'layers.{0..3}.query.weight'   float32[8, 8]
                      did you mean 'encoder.layer.{0..3}.query.weight' (unused, same shapes)?
                      if so, the rule is "encoder.layer.{l}.query.weight -> layers.{l}.query.weight"
          unexpected  encoder.layer.{0..3}.query.weight   (4 keys)   float32[8, 8]
                      if they are not needed: allow_unexpected=["**.query.weight"]
        """,
    )
    assert plan(keys, leaves, ["encoder.layer.{l}.query.weight -> layers.{l}.query.weight"]).ok


def test_did_you_mean_looks_only_at_unused_keys_of_the_right_shape():
    keys = {"q_proj": (3,), "k_proj": (3,), "qproj": (4,)}
    shows(
        report(keys, {"k_proj": (3,), "q_proj2": (3,), "q__proj": (5,)}, ["q_proj -> q_proj2"]),
        """
        2 problems between 'my-model/' (3 keys) and Llama (3 leaves)
          missing     q__proj   no key 'q__proj'   float32[5]
                      if it is new: allow_missing=["q__proj"]
          unexpected  qproj   float32[4]
                      if it is not needed: allow_unexpected=["qproj"]
        """,
    )


def test_a_key_sent_nowhere_names_its_rule():
    shows(
        report({"a.w": (3,), "b.0.w": (3,), "b.1.w": (3,)}, {"c": (3,)}, ["a.w -> c", "b.** -> x.**"]),
        """
        1 problem between 'my-model/' (3 keys) and Llama (1 leaf)
          unexpected  b.{0..1}.w   (2 keys)   float32[3]
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
          unexpected  h.{4..5}.w   (2 keys)   float32[3]
                      'h.w' has no place for it: its shape is (4, 3)
                      if they are not needed: allow_unexpected=["h.*.w"]
        """,
    )


def test_a_layout_s_key():
    cell = PlacedLayout("cell", (Rule("bias_ih [x] + bias_hh [x] -> bias [x]"),))
    shows(
        report({"cell.bias_ih": (8,)}, {"cell.bias": (8,)}, placed=(cell,)),
        """
        1 problem between 'my-model/' (1 key) and Llama (1 leaf)
          missing     cell.bias   no key 'cell.bias_hh'   float32[8]
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
          missing     cell.bias   no key 'cell.bias_ih'   float32[8]
          missing     norm.bias   no key 'norm.bias'   float32[3]
                      PyTorch's RMSNorm has no bias
        """,
    )


def test_a_key_that_went_elsewhere():
    shows(
        report({"a": (3,), "b": (3,)}, {"a": (3,), "b": (3,), "x": (3,)}, ["a -> x", "b -> _"]),
        """
        2 problems between 'my-model/' (2 keys) and Llama (3 leaves)
          missing     a   'a' goes to 'x' (a rule that takes nothing away says 'copy=true')   float32[3]
          missing     b   'b' is dropped by the rule 'b -> _'   float32[3]
        """,
    )
