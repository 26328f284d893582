"""What a name says: its attribute, its role and the parts around it, by one table of synonyms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from bridge.proposing.atom import Atom
from bridge.proposing.meanings import (
    ATTRIBUTE_OF,
    NEUTRAL_WORDS,
    PLAIN_NORMS,
    WORD_OF,
    context_of,
    is_known,
    meaning_of,
    parts_of,
    role_of,
    snake,
    words_of,
)
from bridge.proposing.ranks import DIGITS, ranks
from bridge.proposing.synonyms import SEGMENTS

_ROLES = frozenset(SEGMENTS)
_ENDS = frozenset({"bias", "weight", "kernel", "scale"})
# What layers of `eqx.nn` are called.
_LAYERS = {
    **dict.fromkeys(("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm"), "norm"),
    **dict.fromkeys(("LSTMCell", "GRUCell"), "rnn"),
    **dict.fromkeys(("Conv", "ConvTranspose"), "conv"),
    "Embedding": "emb",
}
_OF_LAYERS = frozenset({"q", "k", "v", "o", "qkv", "kv", "gate", "up", "down", "gate_up"})
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


def said_by(atoms: Sequence[Atom]) -> list[Said]:
    """What each name says, beside the others of its side."""
    beside: dict[tuple[str, ...], set[str]] = {}
    for atom in atoms:
        for n in range(len(atom.segments)):
            text = snake(atom.segments[n])
            beside.setdefault(atom.segments[:n], set()).update((atom.segments[n], text, *parts_of(text)))
    places, outer = ranks(atoms), _outermost(atoms)
    return [_said(atom, beside, places.get(number, {}), outer) for number, atom in enumerate(atoms)]


def _outermost(atoms: Sequence[Atom]) -> str:
    """What nearly all names begin with, if it is a word that nobody knows: a model's own name, as `bert` is one.

    Not where something stands below another word too: `student` and `teacher` tell two models apart.
    """
    firsts = Counter(atom.segments[0] for atom in atoms if len(atom.segments) > 1)
    first, count = firsts.most_common(1)[0] if firsts else ("", 0)
    if 4 * count < 3 * len(atoms) or is_known(snake(first)):
        return ""
    below = {atom.segments[1:] for atom in atoms if atom.segments[0] == first}
    return "" if any(atom.segments[1:] in below for atom in atoms if atom.segments[0] != first) else first


def literal_parts(atom: Atom) -> frozenset[str]:
    """What a name says word for word, but for what says next to nothing, numbers, and what the array is called."""
    parts = {part for segment in atom.segments for part in parts_of(snake(segment))}
    return frozenset(part for part in parts - NEUTRAL_WORDS - ATTRIBUTE_OF.keys() if part and not part.isdigit())


def telling_segments(atom: Atom) -> list[str]:
    """The segments of a name, without wrappers and what else says next to nothing."""
    return [segment for segment in atom.segments if snake(segment) not in NEUTRAL_WORDS]


def _said(
    atom: Atom, beside: Mapping[tuple[str, ...], Collection[str]], ranks: Mapping[int, tuple[int, int]], outer: str
) -> Said:
    said = Said()
    named = [("model" if n == 0 and text == outer else snake(text)) for n, text in enumerate(atom.segments)]
    whole = [(n, part) for n, segment in enumerate(named) for part in parts_of(segment)]
    head, _, tail = whole[-1][1].rpartition("_")
    if head and tail in _ENDS and not is_known(whole[-1][1]):
        whole[-1:] = [(whole[-1][0], head), (whole[-1][0], tail)]
    places, segments = [n for n, _ in whole], [part for _, part in whole]
    contexts = [context_of(segment) for segment in segments]
    last = len(segments) - 1
    roles = list(range(len(segments)))
    if segments[last] in ATTRIBUTE_OF and (len(segments) > 1 or segments[last] in ("weight", "bias")):
        said.attribute = ATTRIBUTE_OF[segments[last]]
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
        if segment in PLAIN_NORMS:
            below = [(each, beside.get((*atom.segments[:place], each), ())) for each in homes[1]]
            homes.append({context_of(snake(each)) for each, held in below if not PLAIN_NORMS.isdisjoint(held)})
        meaning = meaning_of(segments, n, contexts, homes, said.role)
        if weight == 1.0 and not meaning and not contexts[n] and segment not in NEUTRAL_WORDS:
            said.strange = {word for word in words_of(segment) if word not in WORD_OF and len(word) > 1}
            said.strange |= set(words_of(segment)) if DIGITS.search(segment) else set()
        for word in words_of(segment):
            _add(said.words, word, weight)
        if segment in NEUTRAL_WORDS:
            continue
        if meaning in _OF_LAYERS and n and places[n - 1] == place:
            before = segments[n - 1]
            of = role_of(before) or ("relbias" if WORD_OF.get(before) == "relative" else "")
            meaning = f"{of} {meaning}" if of else meaning  # a query of positions is not the query
            if weight == 1.0 and not of and not contexts[n - 1] and before not in NEUTRAL_WORDS:
                said.strange = {word for word in words_of(before) if word not in WORD_OF and len(word) > 1}
        if meaning:
            _add(said.weights, meaning, weight)
            _add(said.weights, _KINDS.get(meaning, meaning), (0.4 if meaning in _KINDS else 1) * weight)
            if not said.role and (meaning in _ROLES or " " in meaning):
                said.role = meaning
        elif contexts[n]:
            _add(said.weights, contexts[n], 0.6 * weight)
        else:
            found = words_of(segment)
            for word in found:
                _add(said.weights, WORD_OF.get(word, f"'{word}"), 0.8 * weight / len(found) ** 0.5)
        if rank:
            _add(said.weights, f"rank {rank[0]} of {rank[1]}", 0.7 * weight)
        weight *= 0.7
    said.contexts = {each for each in contexts if each and each != "conv"}
    for segment in segments:
        for each in ("cross", "enc", "dec", "vision", "text"):
            if each in {WORD_OF.get(word) for word in words_of(segment)}:
                said.contexts.add(each)
    if said.contexts & {"cross"}:
        said.contexts.discard("attn")
        said.contexts -= {"enc", "dec"} if not any(c in ("enc", "dec") for c in contexts) else set()
    if said.role.rpartition(" ")[2] in ("q", "k", "v", "o", "qkv", "kv") and not said.contexts & {"cross"}:
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


def telling(said: Said) -> set[str]:
    """What a name says beside being a layer's, and its rank among others."""
    concepts = {concept for concept in said.weights if concept != "proj" and not concept.startswith("rank ")}
    return concepts | {word for word in said.words if WORD_OF.get(word) != "proj"}


def _add(weights: dict[str, float], concept: str, weight: float) -> None:
    weights[concept] = max(weights.get(concept, 0.0), weight)
