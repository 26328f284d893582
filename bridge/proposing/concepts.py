"""What a name says: its attribute, its role and the parts around it, by one table of synonyms."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from bridge.mapping.pattern import MARK
from bridge.proposing.atom import Atom
from bridge.proposing.ranks import DIGITS, ranks
from bridge.proposing.synonyms import ATTRIBUTES, CONTEXTS, NEUTRAL, SEGMENTS, WORDS, joined, lookup

_ATTRIBUTE, _SEGMENT, _CONTEXT, _WORD = map(lookup, (ATTRIBUTES, SEGMENTS, CONTEXTS, WORDS))
_NEUTRAL = frozenset(NEUTRAL.split())
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
}
_NORM_NUMBER = re.compile(r"((?:layernorm|norm|ln|rmsnorm)_?)([012])")
_NORM_OF = {"attn": "norm1", "cross": "norm_cross", "mlp": "norm2", "moe": "norm2"}
_ROLES = frozenset(SEGMENTS)
_ENDS = frozenset({"bias", "weight", "kernel", "scale"})
# Words that several roles share: what stands above them decides.
_OUT = frozenset(
    ["dense", "out", "wo", "proj", "c_proj", "output", "out_proj", "output_proj", "proj_out", "output_dense", "linear"]
)
_PLAIN = frozenset({"norm", "layernorm", "ln", "rmsnorm"})
# What layers of `eqx.nn` are called.
_LAYERS = {
    **dict.fromkeys(("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm"), "norm"),
    **dict.fromkeys(("LSTMCell", "GRUCell"), "rnn"),
    **dict.fromkeys(("Conv", "ConvTranspose"), "conv"),
    "Embedding": "emb",
}
# What a role is a kind of.
_KINDS = {role: "norm" for role in SEGMENTS if role.startswith("norm") or role.endswith("_norm")} | {
    "norm_cross": "norm",
    "pos": "emb",
    "type": "emb",
}


class Said:
    """What a name says. `weights` are concepts by how much they count; `role` the nearest one that is a role.

    `strange` are words that the table does not know, of the part right above the array.
    """

    __slots__ = ("attribute", "contexts", "role", "strange", "weights", "words")

    def __init__(self) -> None:
        self.attribute = ""
        self.role = ""
        self.weights: dict[str, float] = {}
        self.words: dict[str, float] = {}
        self.contexts: set[str] = set()
        self.strange: frozenset[str] | set[str] = set()


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


def _context(segment: str) -> str:
    """What a segment says of everything below it."""
    return _CONTEXT.get(segment) or _CONTEXT.get(_AROUND.sub("", segment), "")


def said_by(atoms: Sequence[Atom]) -> list[Said]:
    """What each name says, beside the others of its side."""
    beside: dict[tuple[str, ...], set[str]] = {}
    for atom in atoms:
        for n in range(len(atom.segments)):
            text = snake(atom.segments[n])
            beside.setdefault(atom.segments[:n], set()).update((text, *parts_of(text)))
    places = ranks(atoms)
    return [_said(atom, beside, places.get(number, {})) for number, atom in enumerate(atoms)]


@lru_cache(maxsize=8192)
def parts_of(segment: str) -> tuple[str, ...]:
    """A segment that nobody knows as a whole as a part that is known behind what stands around it: `mlp_linear2`."""
    words = segment.split("_")
    if _known(segment) or len(words) < 2:
        return (segment,)
    for n in range(1, len(words)):
        last = "_".join(words[n:])
        if role_of(last) or last in _OUT or last in _PLAIN or last in ("w1", "w2", "w3"):
            return (*parts_of("_".join(words[:n])), last)
    for n in range(len(words) - 1, 0, -1):
        first = "_".join(words[:n])
        if _context(first) or first in _NEUTRAL:
            return (first, "_".join(words[n:]))
    return (segment,)


def literal_parts(atom: Atom) -> frozenset[str]:
    """What a name says word for word, but for what says next to nothing, numbers, and what the array is called."""
    parts = {part for segment in atom.segments for part in parts_of(snake(segment))}
    return frozenset(part for part in parts - _NEUTRAL - _ATTRIBUTE.keys() if part and not part.isdigit())


def telling_segments(atom: Atom) -> list[str]:
    """The segments of a name, without wrappers and what else says next to nothing."""
    return [segment for segment in atom.segments if snake(segment) not in _NEUTRAL]


def _known(segment: str) -> bool:
    return bool(role_of(segment) or _context(segment)) or segment in _NEUTRAL or segment in _OUT or segment in _PLAIN


def _said(atom: Atom, beside: Mapping[tuple[str, ...], Collection[str]], ranks: Mapping[int, tuple[int, int]]) -> Said:
    said = Said()
    whole = [(n, part) for n, segment in enumerate(atom.segments) for part in parts_of(snake(segment))]
    head, _, tail = whole[-1][1].rpartition("_")
    if head and tail in _ENDS and not _known(whole[-1][1]):
        whole[-1:] = [(whole[-1][0], head), (whole[-1][0], tail)]
    places, segments = [n for n, _ in whole], [part for _, part in whole]
    contexts = [_context(segment) for segment in segments]
    last = len(segments) - 1
    roles = list(range(len(segments)))
    if segments[last] in _ATTRIBUTE and (len(segments) > 1 or segments[last] in ("weight", "bias")):
        said.attribute = _ATTRIBUTE[segments[last]]
        roles.pop()
    if atom.info.layer in _LAYERS:
        _add(said.weights, _LAYERS[atom.info.layer], 0.4)
    weight = 1.0
    for n in reversed(roles):
        segment, place = segments[n], places[n]
        rank = ranks.get(place) if n + 1 == len(places) or places[n + 1] != place else None
        if not segment or segment.isdigit():
            if rank:
                _add(said.weights, f"rank {rank[0]} of {rank[1]}", 0.7 * weight)
            continue
        homes = [beside.get(atom.segments[:m], ()) if m >= 0 else () for m in (place - 1, place)]
        meaning = _meaning(segments, n, contexts, homes, said)
        if weight == 1.0 and not meaning and not contexts[n] and segment not in _NEUTRAL:
            said.strange = {word for word in _words(segment) if word not in _WORD and len(word) > 1}
            said.strange |= set(_words(segment)) if DIGITS.search(segment) else set()
        for word in _words(segment):
            _add(said.words, word, weight)
        if segment in _NEUTRAL:
            continue
        if meaning:
            _add(said.weights, meaning, weight)
            _add(said.weights, _KINDS.get(meaning, meaning), (0.4 if meaning in _KINDS else 1) * weight)
            if not said.role and meaning in _ROLES:
                said.role = meaning
        elif contexts[n]:
            _add(said.weights, contexts[n], 0.6 * weight)
        else:
            found = _words(segment)
            for word in found:
                _add(said.weights, _WORD.get(word, f"'{word}"), 0.8 * weight / len(found) ** 0.5)
        if rank:
            _add(said.weights, f"rank {rank[0]} of {rank[1]}", 0.7 * weight)
        weight *= 0.7
    said.contexts = {each for each in contexts if each and each != "conv"}
    for segment in segments:
        for each in ("cross", "enc", "dec", "vision", "text"):
            if each in {_WORD.get(word) for word in _words(segment)}:
                said.contexts.add(each)
    if said.contexts & {"cross"}:
        said.contexts.discard("attn")
        said.contexts -= {"enc", "dec"} if not any(c in ("enc", "dec") for c in contexts) else set()
    if said.role in ("q", "k", "v", "o", "qkv", "kv") and not said.contexts & {"cross"}:
        said.contexts.add("attn")
    if said.role in ("gate", "up", "down", "gate_up"):
        said.contexts.add("mlp")
    if "experts" in said.contexts:
        said.contexts.discard("moe")
        said.contexts.discard("mlp")
    if said.role == "router":
        said.contexts -= {"moe", "mlp"}
    if not said.attribute and not atom.shape:
        said.attribute = "count" if said.role == "" else ""
    return said


def _meaning(
    segments: Sequence[str], n: int, contexts: Sequence[str], homes: Sequence[Collection[str]], said: Said
) -> str:
    """The role of a segment; some words have several, and what stands around them decides.

    `homes` are the segments beside the one above, and beside this one.
    """
    segment, beside = segments[n], homes[1]
    above = [c for c in contexts[:n] if c in ("attn", "cross", "mlp", "experts", "moe", "sharedexperts")]
    near = above[-1] if above else ""
    deep = any(c for c in contexts[:n]) or any(
        s in _NEUTRAL and s not in ("model", "transformer") for s in segments[:n]
    )
    if segment in ("w1", "w2", "w3"):
        if segment == "w2":
            return "down"
        return "gate" if segment == "w1" and "w3" in beside else "up"
    if segment == "gate":
        several = any(_context(each) in ("experts", "sharedexperts") for each in beside)
        return "gate" if {"up", "up_proj", "down", "down_proj"} & set(beside) and not several else "router"
    if segment in ("fc1", "fc2", "fc3") and segment == "fc2" and "fc3" in beside:
        return ""
    if segment in _OUT:
        if near in ("attn", "cross"):
            return "" if said.role.startswith("norm") else "o"
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
    if segment in ("embeddings", "embedding", "embedder", "embed", "shared", "emb") and said.role:
        return ""  # around another role: `embeddings.position_embeddings`
    if segment in _PLAIN:
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
    if "embed" in above:
        return "norm_pre"
    if above == "output":
        around = contexts[n - 2] if n > 1 else ""
        return _NORM_OF[around] if around in _NORM_OF else "norm2" if "intermediate" in homes[0] else "norm"
    if n and contexts[n - 1] in _NORM_OF:
        return _NORM_OF[contexts[n - 1]]
    if not _in_layer(segments, n):
        return "normf" if not above or above in _NEUTRAL or contexts[n - 1] else "norm"
    near = {_context(each) for each in homes[1]} & _NORM_OF.keys()
    return _NORM_OF[near.pop()] if len(near) == 1 else "norm"


def telling(said: Said) -> set[str]:
    """What a name says beside being a layer's, and its rank among others."""
    concepts = {concept for concept in said.weights if concept != "proj" and not concept.startswith("rank ")}
    return concepts | {word for word in said.words if _WORD.get(word) != "proj"}


def _words(segment: str) -> list[str]:
    return [word for word in _PIECES.findall(segment) if not word.isdigit()] or [segment]


def _add(weights: dict[str, float], concept: str, weight: float) -> None:
    weights[concept] = max(weights.get(concept, 0.0), weight)
