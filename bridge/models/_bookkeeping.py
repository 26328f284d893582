"""Fields of config.json that change nothing that a model computes, whatever its architecture."""

from __future__ import annotations

# What transformers writes for every architecture and what no forward pass of an encoder depends on.
BOOKKEEPING = frozenset(
    {
        "architectures",
        "attn_implementation",  # which kernel computes the same
        "auto_map",
        "bos_token_id",
        *("compression_config", "quantization", "quantization_config"),  # how weights are stored: bridge.plan reads it
        "chunk_size_feed_forward",  # computes the same in pieces
        "custom_pipelines",
        "dtype",
        *("eos_token_id", "eos_token_ids"),
        "finetuning_task",
        "gradient_checkpointing",
        "id2label",
        "initializer_range",
        "label2id",
        "language",
        "model_type",
        "name",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "pad_token_id",
        "problem_type",
        "return_dict",
        *("sbert_ce_default_activation_function", "sentence_transformers"),  # what is made of a score
        "sep_token_id",
        "task_specific_params",
        "tie_word_embeddings",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "transformers.js_config",
        "transformers_version",
        *("unsloth_fixed", "unsloth_version"),
        "use_bfloat16",
        "use_cache",
    }
)

# How texts were generated: transformers 4 wrote these into config.json. And leftovers of encoders with decoders.
GENERATION = frozenset(
    {
        *("bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty", "do_sample"),
        *(
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "epsilon_cutoff",
            "eta_cutoff",
            "exponential_decay_length_penalty",
            "forced_bos_token_id",
        ),
        *("forced_eos_token_id", "length_penalty", "max_length", "max_new_tokens", "min_length"),
        *("no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "prefix"),
        *("remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "suppress_tokens"),
        *("temperature", "tf_legacy_loss", "tie_encoder_decoder", "top_k", "top_p", "typical_p"),
    }
)

# What a model may do without, where it is false or empty.
OFF = frozenset({"add_cross_attention", "attention_bias", "is_decoder", "mlp_bias", "pruned_heads", "use_mrope"})
