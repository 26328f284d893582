"""A small transformer in the naming of sixteen projects, as keys or as leaves, and what is whose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

LAYERS = 2
PARTS = ("embed", "pos", "norm1", "q", "k", "v", "o", "norm2", "up", "down", "final", "head")

# Of each naming: what stands before a layer's names, the names in the order of PARTS, the parameters of a linear layer
# and of a norm; the rest of a layer's name comes behind its number.
NAMINGS: dict[str, tuple[str, str, str, str]] = {
    "llama": (
        "model.layers",
        "model.embed_tokens model.embed_positions input_layernorm self_attn.q_proj self_attn.k_proj self_attn.v_proj "
        "self_attn.o_proj post_attention_layernorm mlp.up_proj mlp.down_proj model.norm lm_head",
        "weight bias",
        "weight bias",
    ),
    "meta": (
        "layers",
        "tok_embeddings pos_embeddings attention_norm attention.wq attention.wk attention.wv attention.wo ffn_norm "
        "feed_forward.w1 feed_forward.w2 norm output",
        "weight bias",
        "weight bias",
    ),
    "neox": (
        "gpt_neox.layers",
        "gpt_neox.embed_in gpt_neox.embed_pos input_layernorm attention.query attention.key attention.value "
        "attention.dense post_attention_layernorm mlp.dense_h_to_4h mlp.dense_4h_to_h gpt_neox.final_layer_norm embed_out",
        "weight bias",
        "weight bias",
    ),
    "bert": (
        "bert.encoder.layer",
        "bert.embeddings.word_embeddings bert.embeddings.position_embeddings attention.self.LayerNorm "
        "attention.self.query attention.self.key attention.self.value attention.output.dense output.LayerNorm "
        "intermediate.dense output.dense bert.LayerNorm cls.decoder",
        "weight bias",
        "gamma beta",
    ),
    "gpt2": (
        "transformer.h",
        "transformer.wte transformer.wpe ln_1 attn.q_attn attn.k_attn attn.v_attn attn.c_proj ln_2 mlp.c_fc mlp.c_proj "
        "transformer.ln_f lm_head",
        "weight bias",
        "weight bias",
    ),
    "timm": (
        "blocks",
        "patch_embed.proj pos_embed norm1 attn.q attn.k attn.v attn.proj norm2 mlp.fc1 mlp.fc2 norm head",
        "weight bias",
        "weight bias",
    ),
    "torch": (
        "encoder.layers",
        "embedding positional norm1 self_attn.q_linear self_attn.k_linear self_attn.v_linear self_attn.out_proj norm2 "
        "linear1 linear2 encoder.norm fc",
        "weight bias",
        "weight bias",
    ),
    "fairseq": (
        "decoder.layers",
        "decoder.embed_tokens decoder.embed_positions self_attn_layer_norm self_attn.q_proj self_attn.k_proj "
        "self_attn.v_proj self_attn.out_proj final_layer_norm fc1 fc2 decoder.layer_norm decoder.output_projection",
        "weight bias",
        "weight bias",
    ),
    "whisper": (
        "decoder.blocks",
        "decoder.token_embedding decoder.positional_embedding attn_ln attn.query attn.key attn.value attn.out mlp_ln "
        "mlp.0 mlp.2 decoder.ln proj_out",
        "weight bias",
        "weight bias",
    ),
    "flax": (
        "params.layers",
        "params.Embed_0 params.Embed_1 LayerNorm_0 MultiHeadAttention_0.query MultiHeadAttention_0.key "
        "MultiHeadAttention_0.value MultiHeadAttention_0.out LayerNorm_1 Dense_0 Dense_1 params.LayerNorm_0 "
        "params.Dense_0",
        "kernel bias",
        "scale bias",
    ),
    "haiku": (
        "transformer.h",
        "embed pos_embed layer_norm_0 attn.query attn.key attn.value attn.linear layer_norm_1 mlp.linear_0 mlp.linear_1 "
        "layer_norm linear",
        "w b",
        "scale offset",
    ),
    "tensorflow": (
        "encoder.layer_with_weights",
        "embeddings.token embeddings.position attention_norm attention.query attention.key attention.value "
        "attention.output output_norm intermediate output norm classifier",
        "kernel bias",
        "gamma beta",
    ),
    "maxtext": (
        "params.decoder.layers",
        "params.token_embedder params.position_embedder pre_self_attention_layer_norm self_attention.query "
        "self_attention.key self_attention.value self_attention.out post_self_attention_layer_norm mlp.wi mlp.wo "
        "params.decoder.decoder_norm params.decoder.logits_dense",
        "kernel bias",
        "scale bias",
    ),
    "levanter": (
        "transformer.layers",
        "embeddings.token_embeddings embeddings.position_embeddings ln_1 attn.q_proj attn.k_proj attn.v_proj "
        "attn.o_proj ln_2 mlp.up_proj mlp.down_proj transformer.norm lm_head",
        "weight bias",
        "weight bias",
    ),
    "plain": (
        "layers",
        "embed pos norm1 attn.q attn.k attn.v attn.o norm2 mlp.up mlp.down norm head",
        "weight bias",
        "scale shift",
    ),
    "equinox": (
        "encoder.blocks",
        "token_embedder position_embedder attention_block.layernorm attention_block.query_proj "
        "attention_block.key_proj attention_block.value_proj attention_block.output_proj feed_forward_block.layernorm "
        "feed_forward_block.mlp feed_forward_block.output norm classifier",
        "weight bias",
        "weight bias",
    ),
}


class Array(NamedTuple):
    """One array: its name (with `{}` for the layer), the part and the parameter that it is, and its shape."""

    name: str
    part: str
    parameter: int
    shape: tuple[int, ...]


def arrays(naming: str, *, width: int, wide: int, vocabulary: int, positions: int) -> Iterator[Array]:
    """The arrays of a model in one naming; where `wide` is `width`, all of a layer are square."""
    layers, names, linear, norm = NAMINGS[naming]
    shapes = {"embed": (vocabulary, width), "pos": (positions, width), "head": (vocabulary, width)}
    shapes |= {"up": (wide, width), "down": (width, wide)} | dict.fromkeys("qkvo", (width, width))
    for part, name in zip(PARTS, names.split(), strict=True):
        inside = part not in ("embed", "pos", "final", "head")
        for parameter, ending in enumerate((norm if "norm" in part or part == "final" else linear).split()):
            if parameter and part in ("embed", "pos", "head"):
                continue
            shape = shapes.get(part, (width,))
            full = f"{layers}.{{}}.{name}.{ending}" if inside else f"{name}.{ending}"
            yield Array(full, part, parameter, shape if not parameter else shape[:1])
