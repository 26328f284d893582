"""What every config.json may hold, and no forward pass depends on."""

from __future__ import annotations

_ABOUT = (
    *("architectures", "auto_map", "custom_pipelines", "dtype", "finetuning_task", "language", "model_type", "name"),
    *("problem_type", "task_specific_params", "torch_dtype", "torchscript", "transformers_version"),
    *("id2label", "label2id", "num_labels"),  # of a head, which reads them
    *("compression_config", "quantization", "quantization_config"),  # how weights are stored: bridge.plan reads it
)
_TOKENS = (
    *("bos_token_id", "eos_token_id", "eos_token_ids", "pad_token_id", "sep_token_id", "decoder_start_token_id"),
    *("prefix", "tokenizer_class"),
)
_RUN = (
    *("gradient_checkpointing", "initializer_range", "output_attentions", "output_hidden_states", "output_past"),
    *("output_scores", "return_dict", "return_dict_in_generate", "tf_legacy_loss", "use_bfloat16", "use_cache"),
    *("attn_implementation", "chunk_size_feed_forward"),  # compute the same by other means, in pieces
    "tie_word_embeddings",  # of a head, which reads it
)
_OTHER_LIBRARIES = (
    *("sbert_ce_default_activation_function", "sentence_transformers", "transformers.js_config"),
    *("unsloth_fixed", "unsloth_version"),
)
# How texts were generated: transformers 4 wrote these into config.json. And leftovers of encoders with decoders.
_GENERATION = (
    *("bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping"),
    *("encoder_no_repeat_ngram_size", "epsilon_cutoff", "eta_cutoff", "exponential_decay_length_penalty"),
    *("forced_bos_token_id", "forced_eos_token_id", "length_penalty", "max_length", "max_new_tokens", "min_length"),
    *("no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "remove_invalid_values"),
    *("repetition_penalty", "suppress_tokens", "temperature", "tie_encoder_decoder", "top_k", "top_p", "typical_p"),
)

BOOKKEEPING = frozenset({*_ABOUT, *_TOKENS, *_RUN, *_OTHER_LIBRARIES, *_GENERATION})

# What a model may do without, where it is false or empty.
OFF = frozenset({"add_cross_attention", "attention_bias", "is_decoder", "mlp_bias", "pruned_heads", "use_mrope"})
