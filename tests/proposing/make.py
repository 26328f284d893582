"""Writes the corpus: the keys of architectures of transformers at published sizes, folded, a small text file each.

Models are built on the meta device: names, shapes and dtypes, no weights, no network. Keys are as the Hub has them.
`scripts/corpus` runs this; without names it makes all of them anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

from tests.proposing.folded import Entry, written

FOLDER = Path(__file__).parent / "corpus"
# Where a configuration's defaults are no published size, the fields that make them one. The model's class, then those.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {}),
    "llama_3_8b": ("LlamaForCausalLM", {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256}),
    "mistral": ("MistralForCausalLM", {}),
    "mixtral": ("MixtralForCausalLM", {}),
    "qwen2": ("Qwen2ForCausalLM", {"num_key_value_heads": 32}),
    "qwen2_moe": ("Qwen2MoeForCausalLM", {}),
    "qwen3": ("Qwen3ForCausalLM", {"num_key_value_heads": 8}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {}),
    "gemma": ("GemmaForCausalLM", {}),
    "gemma2": ("Gemma2ForCausalLM", {}),
    "gemma3_text": ("Gemma3ForCausalLM", {}),
    "phi": ("PhiForCausalLM", {}),
    "phi3": ("Phi3ForCausalLM", {}),
    "gpt2": ("GPT2LMHeadModel", {}),
    "gpt_neo": ("GPTNeoForCausalLM", {}),
    "gpt_neox": ("GPTNeoXForCausalLM", {}),
    "gptj": ("GPTJForCausalLM", {}),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", {}),
    "gpt_oss": ("GptOssForCausalLM", {}),
    "opt": ("OPTForCausalLM", {}),
    "bloom": ("BloomForCausalLM", {"hidden_size": 1024, "n_layer": 24, "n_head": 16}),
    "falcon": ("FalconForCausalLM", {}),
    "mpt": ("MptForCausalLM", {}),
    "olmo2": ("Olmo2ForCausalLM", {}),
    "olmoe": ("OlmoeForCausalLM", {}),
    "stablelm": ("StableLmForCausalLM", {}),
    "starcoder2": ("Starcoder2ForCausalLM", {}),
    "cohere": ("CohereForCausalLM", {}),
    "granite": ("GraniteForCausalLM", {}),
    "deepseek_v2": ("DeepseekV2ForCausalLM", {}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {}),
    "mamba": ("MambaForCausalLM", {}),
    "mamba2": ("Mamba2ForCausalLM", {}),
    "rwkv": ("RwkvForCausalLM", {}),
    "recurrent_gemma": ("RecurrentGemmaForCausalLM", {}),
    "bert": ("BertForMaskedLM", {}),
    "roberta": ("RobertaForMaskedLM", {}),
    "distilbert": ("DistilBertForMaskedLM", {}),
    "albert": ("AlbertForMaskedLM", {}),
    "electra": ("ElectraForPreTraining", {}),
    "deberta": (
        "DebertaForMaskedLM",
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False},
    ),
    "deberta_v2": ("DebertaV2ForMaskedLM", {}),
    "deberta_v3": (
        "DebertaV2ForMaskedLM",
        {
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "share_att_key": True,
            "position_buckets": 256,
            "norm_rel_ebd": "layer_norm",
        },
    ),
    "esm": (
        "EsmForMaskedLM",
        {
            "hidden_size": 1280,
            "num_hidden_layers": 33,
            "num_attention_heads": 20,
            "intermediate_size": 5120,
            "vocab_size": 33,
            "pad_token_id": 1,
            "mask_token_id": 32,
            "layer_norm_eps": 1e-5,
            "position_embedding_type": "rotary",
            "token_dropout": True,
            "emb_layer_norm_before": False,
        },
    ),
    "modernbert": ("ModernBertForMaskedLM", {}),
    "xlm_roberta": (
        "XLMRobertaForMaskedLM",
        {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "mpnet": ("MPNetForMaskedLM", {}),
    "nomic_bert": ("NomicBertModel", {}),
    "xlnet": ("XLNetLMHeadModel", {}),
    "t5": ("T5ForConditionalGeneration", {}),
    "mt5": ("MT5ForConditionalGeneration", {}),
    "bart": ("BartForConditionalGeneration", {}),
    "pegasus": ("PegasusForConditionalGeneration", {}),
    "marian": ("MarianMTModel", {}),
    "m2m_100": ("M2M100ForConditionalGeneration", {}),
    "whisper": ("WhisperForConditionalGeneration", {}),
    "wav2vec2": ("Wav2Vec2ForCTC", {}),
    "hubert": ("HubertForCTC", {}),
    "vit": ("ViTForImageClassification", {}),
    "deit": ("DeiTForImageClassification", {}),
    "beit": ("BeitForImageClassification", {}),
    "dinov2": ("Dinov2ForImageClassification", {}),
    "dinov2_with_registers": ("Dinov2WithRegistersForImageClassification", {}),
    "swin": ("SwinForImageClassification", {}),
    "convnext": ("ConvNextForImageClassification", {}),
    "convnextv2": ("ConvNextV2ForImageClassification", {}),
    "resnet": ("ResNetForImageClassification", {}),
    "segformer": ("SegformerForSemanticSegmentation", {}),
    "detr": ("DetrForObjectDetection", {"use_timm_backbone": False}),
    "clip": ("CLIPModel", {}),
    "siglip": ("SiglipModel", {}),
    "blip": ("BlipForConditionalGeneration", {}),
    "sam": ("SamModel", {}),
}
# Those that bridge.models has too: their configurations are kept.
OWN = [
    "albert",
    "bert",
    "clip",
    "convnext",
    "convnextv2",
    "deberta",
    "deberta_v2",
    "deberta_v3",
    "dinov2",
    "dinov2_with_registers",
    "distilbert",
    "electra",
    "esm",
    "gemma3_text",
    "gpt2",
    "llama",
    "mistral",
    "mixtral",
    "modernbert",
    "mpnet",
    "nomic_bert",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "resnet",
    "roberta",
    "siglip",
    "vit",
    "xlm_roberta",
]
_NAMES = {"F32": torch.float32, "I64": torch.int64, "BF16": torch.bfloat16, "BOOL": torch.bool, "U8": torch.uint8}
_DTYPES = {dtype: name for name, dtype in _NAMES.items()}


def made(kind: str, fields: dict[str, Any]) -> Any:
    """A configuration."""
    return getattr(transformers, kind).config_class(**fields)


def entries(kind: str, fields: dict[str, Any]) -> list[Entry]:
    """The keys of a model as it would be saved: parameters once, buffers that are kept."""
    with torch.device("meta"):
        model = getattr(transformers, kind)(made(kind, fields))
    tied = model.all_tied_weights_keys
    kept = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    saved = revert_weight_conversion(model, kept)
    layers = range(getattr(model.config, "num_hidden_layers", 0))
    return [
        Entry(name, _DTYPES[tensor.dtype], tuple(tensor.shape))
        for written, tensor in saved.items()
        for name in _on_the_hub(written, layers)
    ]


def _on_the_hub(name: str, layers: Iterable[int]) -> list[str]:
    """ESM's buffers are written as `layer.*`, and its norms by names from before they were PyTorch's."""
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    return [name.replace("*", str(layer)) for layer in layers] if "*" in name else [name]


def main() -> None:
    """Make those that are named, else all."""
    configs = {name: made(*MODELS[name]).to_dict() for name in OWN}
    (FOLDER / "configs.json").write_text(json.dumps(configs, indent=0, sort_keys=True) + "\n")
    for name in sys.argv[1:] or MODELS:
        kind, fields = MODELS[name]
        found = entries(kind, fields)
        text = written(kind, found)
        (FOLDER / f"{name}.txt").write_text(text)
        print(f"{name}: {len(found)} keys, {len(text)} bytes", flush=True)


if __name__ == "__main__":
    main()
