"""When two names speak of the same thing: words, other spellings of them, and those that set names apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

# What one parameter of a layer is called. The first spelling stands for all of its line.
_ATTRIBUTES = (
    ("weight", "kernel", "gamma", "scale", "embedding", "w"),
    ("bias", "beta", "offset", "shift", "b"),
    ("mean", "running_mean", "moving_mean"),
    ("var", "running_var", "moving_var", "moving_variance", "variance"),
    ("num_batches_tracked",),
)
# Words that are spelled in several ways. Only what nobody uses for anything else.
_SPELLINGS = (
    ("q", "query", "queries", "wq"),
    ("k", "key", "keys", "wk"),
    ("v", "value", "values", "wv"),
    ("attn", "attention", "attentions"),
    ("mlp", "ffn", "ff"),
    ("norm", "ln", "layernorm", "rmsnorm"),
    ("embed", "embedding", "embeddings", "embed", "embedder", "emb"),
    ("pos", "position", "positions", "positional"),
    ("enc", "encoder"),
    ("dec", "decoder"),
    ("conv", "convolution"),
)
# Words that say nothing about which array it is: wrappers, and what everything stands in.
_WRAPPERS = {"orig", "mod", "module", "fsdp", "wrapped", "checkpoint", "default", "model", "base", "transformer", "net"}
_GENERIC = _WRAPPERS | {"layer", "layers", "block", "blocks", "h", "self", "proj", "projection", "backbone"}
# Words that set one array apart from another: names that differ in them may mean different things.
_TELLING = frozenset(
    word
    for line in (
        "q k v qkv kv o up down gate in out enc dec cross text vision image audio pos type token tok first second",
        "before after input output intermediate final last left right forward backward reverse local global attn mlp",
        "pre post router shared head norm embed conv lora a b c x y z ih hh",
        "ema teacher student old new source target momentum",
    )
    for word in line.split()
)
_EXCLUSIVE = (
    ("q", "k", "v", "o"),
    ("up", "down", "gate"),
    ("enc", "dec"),
    ("in", "out"),
    ("input", "output"),
    ("text", "vision", "image", "audio"),
    ("attn", "mlp"),
    ("ih", "hh"),
    ("pre", "post"),
    ("before", "after"),
    ("teacher", "student"),
)
_TOWERS = (("enc", "dec"), ("text", "vision", "image", "audio"))
_WORD = re.compile(r"[0-9]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W_]")
_ATTRIBUTE = {name: line[0] for line in _ATTRIBUTES for name in line}
_WORDS = {word: line[0] for line in _SPELLINGS for word in line}


class Likeness(NamedTuple):
    """What a name says: the parameter it is, and the words that tell which layer's."""

    attribute: str
    words: frozenset[str]

    @property
    def telling(self) -> frozenset[str]:
        """The words that set it apart."""
        return frozenset(word for word in self.words if word in _TELLING or word.startswith("#"))


@lru_cache(maxsize=100_000)
def words_of(segment: str) -> tuple[str, ...]:
    """The words of a segment, each as it is usually spelled: `('norm', '1')` of `LayerNorm_1`."""
    found = [word.lower() for word in _WORD.findall(segment)]
    joined: list[str] = []
    for word in found:
        if word == "norm" and joined and joined[-1] in ("layer", "rms"):
            joined[-1] = "norm"
        else:
            joined.append(_WORDS.get(word, word))
    return tuple(joined)


class Numbered:
    """The names of one side: `likeness` says what one of them means among the others.

    Numbers within names count by their rank among names that differ only there: conv_0 and conv_1 are conv1 and conv2.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.generic = _GENERIC
        self.words: set[str] = set()
        self.found: dict[tuple[str, ...], set[int]] = {}
        self.ranks: dict[tuple[str, ...], dict[int, str]] = {}
        for text in texts:
            for words in map(words_of, text.split(".")):
                self.words.update(words)
                for at, word in enumerate(words):
                    if word.isdecimal():
                        self.found.setdefault((*words[:at], "#", *words[at + 1 :]), set()).add(int(word))

    def likeness(self, text: str) -> Likeness:
        """What a name says."""
        *above, last = text.split(".")
        attribute = _ATTRIBUTE.get(last.lower())
        words: set[str] = set()
        for segment in above if attribute else (*above, last):
            if segment != "{}":
                words.update(self._ranked(words_of(segment)))
        return Likeness(attribute or "", frozenset(words - self.generic))

    def _ranked(self, words: Sequence[str]) -> list[str]:
        ranked = list(words)
        for at, word in enumerate(words):
            if word.isdecimal():
                ranked[at] = self._rank((*words[:at], "#", *words[at + 1 :]), int(word))
        return ranked

    def _rank(self, family: tuple[str, ...], number: int) -> str:
        if family not in self.ranks:
            numbers = sorted(self.found.get(family, ()))
            self.ranks[family] = {found: f"#{rank}/{len(numbers)}" for rank, found in enumerate(numbers)}
        return self.ranks[family].get(number, f"#{number}")


def settle(one: Numbered, other: Numbered) -> None:
    """What stands everywhere tells nothing: `encoder`, where nothing is a decoder's."""
    words = one.words | other.words
    alone = {found.pop() for line in _TOWERS if len(found := words.intersection(line)) == 1}
    one.generic = other.generic = _GENERIC | alone


def contradict(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two names cannot mean the same: the one says q, the other k."""
    for line in _EXCLUSIVE:
        a, b = one.intersection(line), other.intersection(line)
        if a and b and a.isdisjoint(b):
            return True
    numbers = [{word for word in words if word.startswith("#")} for words in (one, other)]
    return bool(numbers[0] and numbers[1] and numbers[0].isdisjoint(numbers[1]))


def same(one: Likeness, other: Likeness) -> bool:
    """Whether two names say the same in other spellings, or the one says more and nothing that sets it apart."""
    if one.attribute != other.attribute:
        return False
    if one.words == other.words:
        return True
    less, more = sorted((one.words, other.words), key=len)
    return bool(less) and less < more and not any(w in _TELLING or w.startswith("#") for w in more - less)


def is_wrapper(segments: Sequence[str]) -> bool:
    """Whether these segments are a wrapper's alone: `_orig_mod`, `module.model`."""
    return all(segment != "{}" and set(words_of(segment)) <= _WRAPPERS for segment in segments)
