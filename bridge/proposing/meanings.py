"""What one segment of a name means, and what it means there: by the table of synonyms, and what stands around it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import lru_cache

from bridge.mapping.pattern import MARK
from bridge.proposing.ranks import DIGITS
from bridge.proposing.synonyms import ATTRIBUTES, CONTEXTS, NEUTRAL, SEGMENTS, WORDS, joined, lookup

ATTRIBUTE_OF, _SEGMENT, _CONTEXT, WORD_OF = map(lookup, (ATTRIBUTES, SEGMENTS, CONTEXTS, WORDS))
NEUTRAL_WORDS = frozenset(NEUTRAL.split())
_CASES = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PIECES = re.compile(r"[^\W\d_]+|\d+")
_AROUND = re.compile(r"_(block|layer|module|net|unit)$")
_TABLE = re.compile(r"(\w+?)_(embedder|embeddings?|embed|emb|table)")
_TABLES = {
    **dict.fromkeys(("token", "word", "tok", "vocab", "input", "wte"), "emb"),
    **dict.fromkeys(("position", "positional", "pos", "absolute_position", "learned_position"), "pos"),
    **dict.fromkeys(("segment", "type", "token_type", "seg", "sentence"), "type"),
    **dict.fromkeys(("patch", "patches"), "patch"),
    "cls": "clstoken",
    "mask": "masktoken",
}
_NORM_NUMBER = re.compile(r"((?:layernorm|norm|ln|rmsnorm)_?)([012])")
_NORM_OF = {"attn": "norm1", "cross": "norm_cross", "mlp": "norm2", "moe": "norm2"}
# Words that several roles share: what stands above them decides.
_OUT = frozenset(
    ["dense", "out", "wo", "proj", "c_proj", "output", "out_proj", "output_proj", "proj_out", "output_dense", "linear"]
)
PLAIN_NORMS = frozenset({"norm", "layernorm", "ln", "rmsnorm"})


@lru_cache(maxsize=8192)
def snake(segment: str) -> str:
    """A segment as `snake_case`, without marks of numbers."""
    text = _CASES.sub("_", segment.replace(MARK, "").rstrip("_")).lower().replace("-", "_").strip("_")
    return joined(text)


@lru_cache(maxsize=8192)
def role_of(segment: str) -> str:
    """The role that a segment names by itself; empty for none."""
    text = snake(segment)
    found = _SEGMENT.get(text) or _SEGMENT.get(DIGITS.sub("", text), "")
    table = _TABLE.fullmatch(text)
    if table and found in ("", "emb"):
        return _TABLES.get(table[1], found)
    return found


def context_of(segment: str) -> str:
    """What a segment says of everything below it."""
    return _CONTEXT.get(segment) or _CONTEXT.get(_AROUND.sub("", segment), "")


@lru_cache(maxsize=8192)
def parts_of(segment: str) -> tuple[str, ...]:
    """A segment that nobody knows as a whole as a part that is known behind what stands around it: `mlp_linear2`."""
    words = segment.split("_")
    if is_known(segment) or len(words) < 2:
        return (segment,)
    for n in range(1, len(words)):
        last = "_".join(words[n:])
        if role_of(last) or last in _OUT or last in PLAIN_NORMS or last in ("w1", "w2", "w3"):
            return (*parts_of("_".join(words[:n])), last)
    for n in range(len(words) - 1, 0, -1):
        first = "_".join(words[:n])
        if context_of(first) or first in NEUTRAL_WORDS:
            return (first, "_".join(words[n:]))
    return (segment,)


def is_known(segment: str) -> bool:
    """Whether the table has a segment as a whole."""
    return (
        bool(role_of(segment) or context_of(segment))
        or segment in NEUTRAL_WORDS
        or segment in _OUT
        or segment in PLAIN_NORMS
    )


def meaning_of(
    segments: Sequence[str], n: int, contexts: Sequence[str], homes: Sequence[Collection[str]], role: str
) -> str:
    """The role of a segment; some words have several, and what stands around them decides.

    `homes` are the segments beside the one above, and beside this one, and what those that hold a norm are; `role` is
    the one that stands nearer to the array.
    """
    segment, beside = segments[n], homes[1]
    above = [c for c in contexts[:n] if c in ("attn", "cross", "mlp", "experts", "moe", "sharedexperts")]
    near = above[-1] if above else ""
    deep = any(c for c in contexts[:n]) or any(
        s in NEUTRAL_WORDS and s not in ("model", "transformer") for s in segments[:n]
    )
    if segment in ("w1", "w2", "w3"):
        if segment == "w2":
            return "down"
        return "gate" if segment == "w1" and "w3" in beside else "up"
    if segment == "gate":
        several = any(context_of(each) in ("experts", "sharedexperts") for each in beside)
        return "gate" if {"up", "up_proj", "down", "down_proj"} & set(beside) and not several else "router"
    if segment in ("fc1", "fc2", "fc3") and segment == "fc2" and "fc3" in beside:
        return ""
    if segment in _OUT:
        if near in ("attn", "cross"):
            return "" if role.startswith("norm") else "o"
        if near:
            return "down"
        if segment in ("wo", "out_proj", "output_proj") and {"wq", "q_proj", "in_proj_weight", "wk"} & set(beside):
            return "o"
        if segment == "wo":
            return "down" if {"wi", "wi_0"} & set(beside) else "o"
        if segment == "output" and not deep:
            return "head"
        if segment == "output" and "intermediate" in beside:
            return "down"
        if segment == "dense" and n and segments[n - 1] == "intermediate":
            return ""
        if segment == "dense" and n and segments[n - 1] == "output":
            return ""
        return ""
    if segment == "intermediate":
        return "up"
    if segment == "fc" and near == "" and not deep:
        return "head"
    if segment in ("linear", "fc") and near in ("mlp",):
        return "up" if segment == "fc" else ""
    if segment in ("embeddings", "embedding", "embedder", "embed", "shared", "emb") and role:
        return ""  # around another role: `embeddings.position_embeddings`
    if segment in PLAIN_NORMS:
        return _plain_norm(segments, n, contexts, homes)
    if segment in ("final_layernorm", "final_norm", "final_ln") and _in_layer(segments, n):
        return "norm2"
    if segment == "post_attention_layernorm" and {"pre_feedforward_layernorm", "pre_mlp_layernorm"} & set(beside):
        return "norm_after_attn"
    if segment in ("attention_norm", "attn_norm", "norm_attn") and near == "attn":
        return "norm"
    numbered = _NORM_NUMBER.fullmatch(segment)
    if numbered and f"{numbered[1]}0" in beside:  # counted from 0
        return f"norm{int(numbered[2]) + 1}"
    if segment in _TABLES and n and ("embed" in segments[n - 1] or segments[n - 1] == "emb"):
        return _TABLES[segment]
    return role_of(segment)


def _in_layer(segments: Sequence[str], n: int) -> bool:
    """Whether a segment stands below a number, or below what is called a layer: not at the end of a model."""
    return any(s in ("layers", "layer", "h", "blocks", "block", "resblocks") for s in segments[max(0, n - 3) : n])


def _plain_norm(segments: Sequence[str], n: int, contexts: Sequence[str], homes: Sequence[Collection[str]]) -> str:
    """What a norm is that is called nothing but a norm: by what stands right above it, and beside it."""
    above = segments[n - 1] if n else ""
    if "embed" in above or role_of(above) == "emb":
        return "norm_pre"
    if above == "output":
        around = contexts[n - 2] if n > 1 else ""
        return _NORM_OF[around] if around in _NORM_OF else "norm2" if "intermediate" in homes[0] else "norm"
    if n and contexts[n - 1] in _NORM_OF:
        return _NORM_OF[contexts[n - 1]]
    if not _in_layer(segments, n):
        return "normf" if not above or above in NEUTRAL_WORDS or contexts[n - 1] else "norm"
    near = ({context_of(each) for each in homes[1]} - {*homes[2]}) & _NORM_OF.keys()
    if not near and "attn" in homes[2] and "mlp" not in homes[2]:
        return "norm2"  # attention has its own
    return _NORM_OF[near.pop()] if len(near) == 1 else "norm"


def words_of(segment: str) -> list[str]:
    """The words of a segment, without numbers."""
    return [word for word in _PIECES.findall(segment) if not word.isdigit()] or [segment]
