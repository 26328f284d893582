"""Which architectures `from_pretrained` knows. A new one is a file in this folder, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# model_type in config.json: the file, and its class.
ARCHITECTURES: Mapping[str, str] = {
    "albert": "albert.Albert",
    "bert": "bert.Bert",
    "clip": "clip.CLIP",
    "clip_text_model": "clip.CLIPText",
    "clip_vision_model": "clip.CLIPVision",
    "convnext": "convnext.ConvNext",
    "convnextv2": "convnextv2.ConvNextV2",
    "deberta": "deberta.Deberta",
    "deberta-v2": "deberta_v2.DebertaV2",
    "dinov2": "dinov2.Dinov2",
    "dinov2_with_registers": "dinov2_with_registers.Dinov2WithRegisters",
    "distilbert": "distilbert.DistilBert",
    "electra": "electra.Electra",
    "esm": "esm.Esm",
    "gemma3": "gemma3.Gemma3",
    "gemma3_text": "gemma3.Gemma3",
    "gpt2": "gpt2.GPT2",
    "llama": "llama.Llama",
    "mistral": "mistral.Mistral",
    "mixtral": "mixtral.Mixtral",
    "modernbert": "modernbert.ModernBert",
    "mpnet": "mpnet.MPNet",
    "nomic_bert": "nomic_bert.NomicBert",
    "qwen2": "qwen2.Qwen2",
    "qwen3": "qwen3.Qwen3",
    "qwen3_moe": "qwen3_moe.Qwen3MoE",
    "resnet": "resnet.ResNet",
    "roberta": "roberta.Roberta",
    "siglip": "siglip.SigLIP",
    "siglip_text_model": "siglip.SigLIPText",
    "siglip_vision_model": "siglip.SigLIPVision",
    "vit": "vit.ViT",
    "xlm-roberta": "xlm_roberta.XLMRoberta",
}
# Where `architectures` names one of these, it is that class, whatever model_type has above.
CLASSES: Mapping[str, str] = {
    "CLIPForImageClassification": "clip.CLIPVision",
    "SiglipForImageClassification": "siglip.SigLIPVision",
}


def special_class(architectures: Any) -> str:
    """Which of `CLASSES` the field `architectures` names; empty for none."""
    names = architectures if isinstance(architectures, list) else []
    return next((name for name in names if isinstance(name, str) and name in CLASSES), "")
