"""One table of what parts of models are called, by their role; nothing in it speaks of an architecture.

A whole segment of a name is looked up first, as `snake_case`; then its words.
"""

from __future__ import annotations

ATTRIBUTES = {
    "w": "weight kernel w embedding gamma scale weights g weight_v embeddings table",
    "b": "bias beta b offset biases shift",
    "mean": "running_mean moving_mean mean",
    "var": "running_var moving_variance moving_var var variance",
    "count": "num_batches_tracked counter",
    "ih": "weight_ih weight_ih_l0",
    "hh": "weight_hh weight_hh_l0",
    "b_ih": "bias_ih bias_ih_l0",
    "b_hh": "bias_hh bias_hh_l0",
}
"""What the arrays of a layer are called, last in a name."""

SEGMENTS = {
    # embeddings and heads
    "emb": "embed_tokens wte word_embeddings tok_embeddings token_embedding token_embeddings embed_in embed "
    "tok_emb tok_embed token_embed token_embedder embedder input_embedding input_embeddings shared vocab_embed "
    "embeddings emb word_embedding embedding vocab_embedding token_emb word_emb word_embed tokens_embed "
    "embed_token embed_word embed_words vocabulary token_table tok_embedding embed_layer",
    "pos": "wpe position_embeddings embed_positions pos_embed positional_embedding position_embedding pos_emb "
    "positions pos_embedding pos_embeddings position_embed posemb_input positional_embeddings position_emb "
    "embed_pos pos position positional_encoding pos_encoding learned_positions embed_position",
    "type": "token_type_embeddings segment_embeddings token_type_embedding token_type type_embed segment_embedding "
    "segment_embed token_types segments type_embeddings token_type_embed type_embedding type_emb seg_emb segment",
    "clstoken": "cls_token class_embedding class_token cls_embedding class_embed cls_emb",
    "masktoken": "mask_token mask_embedding",
    "register": "register_tokens registers register_token reg_token reg_tokens",
    "patch": "patch_embed patch_embedding patch_embeddings patch_embeds conv_proj patchify patches "
    "patch_projection embed_patches patch_proj",
    "head": "lm_head embed_out unembed unembedding head logits output_head classifier classification_head score "
    "to_logits lm_logits heads logits_dense unembedder decoder_head vocab_head readout cls_head output_layer "
    "logit_proj to_vocab",
    "pooler": "pooler pool pooling",
    # attention
    "q": "q_proj query wq to_q q q_lin query_proj qry q_linear linear_q query_dense q_dense w_q proj_q "
    "query_projection queries wquery q_einsum query_linear qproj",
    "k": "k_proj key wk to_k k k_lin key_proj k_linear linear_k key_dense k_dense w_k proj_k key_projection keys "
    "wkey key_linear kproj",
    "v": "v_proj value wv to_v v v_lin value_proj v_linear linear_v value_dense v_dense w_v proj_v "
    "value_projection values wvalue val value_linear vproj",
    "o": "o_proj to_out out_lin attn_out attn_output out_proj_attn attn_vec_einsum proj_out_attn o w_o attn_proj",
    "qkv": "qkv c_attn query_key_value in_proj wqkv qkv_proj to_qkv w_qkv qkv_einsum attn_qkv fused_qkv "
    "in_proj_weight in_proj_bias linear_qkv query_key_values",
    "kv": "kv kv_proj to_kv kv_einsum wkv key_value w_kv key_value_proj kv_linear",
    "q_norm": "q_norm query_norm q_layernorm q_ln norm_q qnorm q_rms query_layernorm query_layer_norm q_layer_norm "
    "norm_query",
    "k_norm": "k_norm key_norm k_layernorm k_ln norm_k knorm k_rms key_layernorm key_layer_norm k_layer_norm norm_key",
    # multi-layer perceptrons
    "gate": "gate_proj w_gate wi_0 gate_linear linear_gate fc_gate gating gate_w wg_proj w_g",
    "up": "up_proj w_up wi_1 fc1 c_fc dense_h_to_4h lin1 wi fc_in up linear1 dense_in linear_in w_in fc_up "
    "up_linear expand mlp_up wide in_layer ffn_up lin_in linear_up expansion fc pwconv1 pointwise_conv1",
    "down": "down_proj w_down fc2 dense_4h_to_h lin2 fc_out down linear2 dense_out linear_out w_out fc_down "
    "down_linear contract mlp_down narrow out_layer ffn_down lin_out linear_down contraction pwconv2 "
    "pointwise_conv2",
    "gate_up": "gate_up_proj gate_up up_gate wi_fused gating_einsum gateup gate_and_up gate_up_w gate_upproj",
    "router": "router wg gate_net router_proj routing gate_logits router_logits gating_network moe_gate mlp_router "
    "router_weights gate_router",
    # normalisation
    "norm": "norm normalization bn batchnorm groupnorm group_norm gn layer_norm layernorm ln rms_norm rmsnorm "
    "layer_norm_layer norm_layer",
    "norm1": "input_layernorm ln_1 ln1 norm1 attention_norm attn_norm pre_attention_norm layer_norm1 pre_attn_norm "
    "self_attn_ln self_attn_norm "
    "self_attn_layer_norm sa_layer_norm pre_self_attn_norm norm_attn ln_attn attn_ln pre_attention_layernorm "
    "norm_1 layernorm_before pre_attn_ln input_norm layer_norm_1 attention_ln norm_attention "
    "pre_attention_layer_norm before_attention ln_before_attn pre_attn_layernorm pre_self_attention_layer_norm "
    "pre_norm norm_before_attention",
    "norm2": "post_self_attention_layer_norm "
    "ln_2 ln2 norm2 ffn_norm mlp_norm pre_mlp_norm layer_norm2 pre_ffn_norm pre_feedforward_layernorm "
    "norm_mlp ln_mlp mlp_ln norm_ffn norm_2 layernorm_after before_mlp pre_ffw_norm layer_norm_2 ff_norm "
    "pre_feedforward_layer_norm pre_mlp_ln pre_mlp_layernorm output_layer_norm ln_before_mlp feed_forward_norm "
    "pre_mlp_layer_norm post_attention_layernorm post_attention_layer_norm norm_ff ffn_ln norm_before_mlp",
    "norm3": "ln_3 ln3 norm3 norm_3",
    "norm_cross": "encoder_attn_layer_norm cross_attn_norm cross_attention_norm cross_attn_ln cross_attn_layer_norm "
    "encdec_attn_layer_norm cross_norm norm_cross cross_attention_layer_norm",
    "norm_after_attn": "post_attention_norm after_attention post_attn_norm post_self_attn_norm post_attn_ln "
    "norm_after_attention post_self_attn_layernorm",
    "norm_after_mlp": "post_feedforward_layernorm after_mlp post_ffw_norm post_mlp_norm post_ffn_norm post_mlp_ln "
    "post_mlp_layernorm post_feedforward_norm norm_after_mlp",
    "normf": "ln_f final_layernorm final_norm ln_final final_layer_norm norm_f final_ln norm_final out_norm "
    "decoder_norm last_norm encoder_norm final_rms_norm last_ln ln_out norm_out output_norm",
    "norm_pre": "ln_pre pre_layernorm pre_layrnorm norm_pre ln_post_embed emb_norm embed_norm embedding_norm "
    "word_embeddings_layernorm layernorm_embedding norm_embed embed_ln embeddings_norm",
    # networks of convolutions
    "down_sample": "downsample downsamplers shortcut conv_shortcut downsample_layer skip residual_proj "
    "projection_shortcut downsampling_layer downsampling downsample_layers",
    "up_sample": "upsample upsamplers",
    "stem": "stem conv_stem conv_init",
    "se": "squeeze_excite se",
    "time": "time_embedding time_embed time_emb_proj time_mlp time_emb",
    # positions that are learned as biases
    "relbias": "relative_attention_bias rel_pos_bias relative_position_bias_table relbias rel_bias relative_bias",
    "layerscale": "layer_scale layerscale layer_scale1 layer_scale2 ls1 ls2 ls lambda1 lambda_1 lambda2 lambda_2 "
    "layer_scale_parameter",
}
"""What whole segments mean."""

CONTEXTS = {
    "attn": "self_attn attention attn self mha self_attention multihead_attention selfattn sa attention_layer "
    "multi_head_attention msa selfattention self_attn_block attn_layer mixer temporal_block",
    "cross": "encoder_attn cross_attn crossattention enc_dec_attention cross_attention encdecattention xattn "
    "encoder_decoder_attention multihead_attn cross_attn_block crossattn src_attn ca encoder_attention",
    "mlp": "mlp ffn feed_forward ff feedforward dense_relu_dense mlp_block ffw ff_layer intermediate_layer "
    "mlpblock feed_forward_network ffn_layer feedforward_layer",
    "moe": "moe block_sparse_moe sparse_moe mixture moe_layer moe_block",
    "experts": "experts expert routed_experts expert_layers",
    "sharedexperts": "shared_expert shared_experts shared_mlp shared_expert_layer",
    "enc": "encoder enc",
    "dec": "decoder dec",
    "vision": "vision vision_model vision_tower visual image_encoder vision_encoder img image vit vision_backbone "
    "image_tower visual_encoder",
    "text": "text text_model language_model text_encoder txt lm text_tower language_encoder text_backbone",
    "audio": "audio audio_tower audio_encoder audio_model",
    "conv": "convs conv_layers",
}
"""What stands around an array."""

NEUTRAL = (
    "model transformer module _orig_mod orig_mod backbone base_model layers layer h blocks block net network bert "
    "roberta gpt_neox core trunk stages stage features params param state_dict body stack block_list layer_list "
    "transformer_blocks hidden_layers encoder_layers decoder_layers default wrapped checkpoint_wrapped_module "
    "fsdp_wrapped_module flat_param"
)
"""What says next to nothing."""

WORDS = {
    "q": "query q queries",
    "k": "key k keys",
    "v": "value v values",
    "emb": "embed embedding embeddings emb embedder",
    "pos": "position positional pos positions",
    "norm": "norm layernorm ln rmsnorm layer_norm norms bn batchnorm gn",
    "attn": "attn attention",
    "mlp": "mlp ffn feedforward ffw",
    "up": "up intermediate",
    "down": "down",
    "gate": "gate gating",
    "router": "router routing",
    "head": "head logits classifier",
    "out": "out output",
    "final": "final last",
    "pre": "pre before input",
    "post": "post after",
    "proj": "proj projection linear dense lin",
    "conv": "conv convolution dwconv depthwise",
    "rnn": "rnn lstm gru recurrent cell",
    "token": "token tok tokens word",
    "patch": "patch",
    "time": "time timestep",
    "enc": "encoder enc",
    "dec": "decoder dec",
    "vision": "vision visual image",
    "text": "text language",
    "expert": "expert experts",
    "shared": "shared",
    "relative": "relative rel",
    "scale": "scale",
    "skip": "skip shortcut downsample",
    "cross": "cross",
}
"""What words within segments mean."""

COMPUTED = (
    "rotary_emb.inv_freq",
    "inv_freq",
    "position_ids",
    "masked_bias",
    "relative_position_index",
    "relative_coords_table",
    "attn.masked_bias",
    "original_inv_freq",
    "causal_mask",
    "attn_mask",
)
"""How buffers end that PyTorch models save and others compute."""


def joined(text: str) -> str:
    """Names of norms are spelled with one blank more or less."""
    return text.replace("layer_norm", "layernorm").replace("batch_norm", "batchnorm").replace("rms_norm", "rmsnorm")


def lookup(table: dict[str, str]) -> dict[str, str]:
    """The table, from each spelling to its meaning; the first entry that has a spelling counts."""
    found: dict[str, str] = {}
    for meaning, spellings in table.items():
        for spelling in spellings.split():
            found.setdefault(joined(spelling), meaning)
    return found
