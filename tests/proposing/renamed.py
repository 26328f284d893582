"""Somebody else's model of an architecture: names, nesting, stacks, orientation and fused arrays drawn from a seed.

What comes out are rules from the checkpoint's keys to the model's leaves. They are the truth, and the leaves that they
make without a model are the model: nothing is described twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from bridge._text import template
from tests.proposing.folded import Entry
from tests.proposing.synonyms import FUSED, OUTER, PARAMETERS, SEGMENTS

_NAMES = "lenrst"


@dataclass
class Family:
    """Keys that differ in numbers alone."""

    text: str
    shapes: set[tuple[int, ...]] = field(default_factory=set[tuple[int, ...]])
    indices: set[tuple[int, ...]] = field(default_factory=set[tuple[int, ...]])

    @property
    def segments(self) -> list[str]:
        """The segments of its name, `{}` for a number."""
        return self.text.split(".")

    @property
    def ndim(self) -> int:
        """How many axes its arrays have."""
        return max(map(len, self.shapes))


def families(entries: Iterable[Entry]) -> list[Family]:
    """The families of a checkpoint."""
    found: dict[str, Family] = {}
    for entry in entries:
        text, indices = template(entry.name)
        family = found.setdefault(text, Family(text))
        family.shapes.add(entry.shape)
        family.indices.add(indices)
    return list(found.values())


def stackable(found: Sequence[Family]) -> set[str]:
    """Numbered nodes whose children are alike: what may be one stack."""
    below: dict[str, list[tuple[Family, int]]] = {}
    for family in found:
        segments = family.segments
        for level, at in enumerate([n for n, segment in enumerate(segments) if segment == "{}"]):
            below.setdefault(".".join(segments[: at + 1]), []).append((family, level))
    alike: set[str] = set()
    for node, members in below.items():
        counts = {frozenset(index[level] for index in family.indices) for family, level in members}
        whole = all(len(f.indices) == _product(f.indices) and len(f.shapes) == 1 for f, _ in members)
        numbers = next(iter(counts))
        if whole and len(counts) == 1 and numbers == frozenset(range(len(numbers))) and len(numbers) > 1:
            alike.add(node)
    return alike


def cuts(found: Sequence[Family]) -> dict[str, int]:
    """Nodes whose children are of two kinds, the one first and then the other, and how many are of the first kind."""
    below: dict[str, list[Family]] = {}
    for family in found:
        if "{}" in family.segments:
            below.setdefault(".".join(family.segments[: family.segments.index("{}") + 1]), []).append(family)
    made: dict[str, int] = {}
    for node, members in below.items():
        numbers = {frozenset(index[0] for index in family.indices) for family in members}
        whole = all(len(f.indices) == _product(f.indices) and len(f.shapes) == 1 for f in members)
        every = frozenset(range(max(map(max, numbers)) + 1))
        starts = sorted({min(own) for own in numbers} - {0})
        if whole and len(starts) == 1 and starts[0] > 0 and every in numbers:
            first = frozenset(range(starts[0]))
            if numbers <= {every, first, every - first}:
                made[node] = starts[0]
    return made


def _product(indices: set[tuple[int, ...]]) -> int:
    count = 1
    for column in zip(*indices, strict=True):
        count *= len(set(column))
    return count


class Renaming:
    """One person's habits."""

    def __init__(self, entries: Iterable[Entry], seed: int | str) -> None:
        self.rng = random.Random(seed)
        self.families = families(entries)
        self.nodes, self.cuts = stackable(self.families), cuts(self.families)
        self.settle(self.rng.random() < 0.85)

    def settle(self, renamed: bool) -> None:
        """Draw the habits."""
        rng = self.rng
        self.names = {s: rng.choice(names) if renamed else s for s, names in SEGMENTS.items()}
        self.linear, self.norm, self.embedding = rng.choice(PARAMETERS)
        self.stacked = {node for node in sorted(self.nodes) if rng.random() < 0.5}
        self.transposed = self.linear[0] == "kernel" or rng.random() < 0.15
        self.bare = rng.random() < 0.7
        self.joined = rng.random() < 0.2
        self.fused = rng.random() < 0.25
        self.cut = rng.random() < 0.5
        self.from_one = rng.random() < 0.1
        if any("feedforward_layernorm" in f.text for f in self.families):
            self.names["post_attention_layernorm"] = rng.choice(("post_attention_layernorm", "post_attn_norm"))
        else:
            self.names["post_attention_layernorm"] = rng.choice(("norm2", "ln2", "mlp_norm", "ffn_norm", "ln_mlp"))

    def rules(self) -> list[str]:
        """The truth. Habits that make two leaves of one name are drawn again."""
        for _ in range(20):
            made = [*self.made()]
            leaves = [rule.partition(" -> ")[2].partition(" [")[0].partition(" ;")[0] for rule in made]
            if len({*leaves}) == len(leaves) and not _nested(leaves):
                return made
            self.settle(True)
        self.names, self.fused, self.cut = {}, False, False
        return [*self.made()]

    def made(self) -> Iterator[str]:
        """A rule for each family, or for each part of one whose layers are of two kinds; fused ones have one together."""
        parts = [(family, part) for family in self.families for part in self.parts(family)]
        known = {(family.text, part): family for family, part in parts}
        fused: dict[tuple[str, str], tuple[str, list[Family]]] = {}
        for (text, part), labels in product(known if self.fused else (), FUSED):
            *above, module, last = ["", *text.split(".")]
            others = [(".".join([*above[1:], label, last]), part) for label in labels]
            own = [known[other] for other in others if other in known and len(known[other].shapes) == 1]
            if module == labels[0] and len(own) == len(labels):
                fused[text, part] = (FUSED[labels], own)
        gone = {(family.text, part) for (_, part), (_, own) in fused.items() for family in own}
        for family, part in parts:
            if (family.text, part) in fused:
                yield self.fuse(*fused[family.text, part], part)
            elif (family.text, part) not in gone:
                yield self.rule(family, part)

    def parts(self, family: Family) -> list[str]:
        """Which layers are stacked together, where they are of two kinds: `[:3]`, `[3:]`; else all: ``."""
        found = [node for node in self.cuts if self.cut and family.text.startswith(node)]
        if not found:
            return [""]
        at = self.cuts[found[0]]
        level = found[0].count("{}") - 1
        numbers = {index[level] for index in family.indices}
        return [f"[:{at}]"] * (min(numbers) < at) + [f"[{at}:]"] * (max(numbers) >= at)

    def rule(self, family: Family, part: str) -> str:
        """The rule of one family."""
        key, leaf, dropped = self.sides(family, part)
        if not self.turns(family):
            return f"{key} -> {leaf}"
        return f"{key} [o i] -> {leaf} [{' '.join([*dropped, 'i', 'o'])}]"

    def turns(self, family: Family) -> bool:
        """Whether this model has it transposed: linear layers' weights, where that is the habit."""
        kind = family.segments[-1] == "weight" and family.ndim == 2
        return self.transposed and kind and not _embeds(family.text)

    def sides(self, family: Family, part: str) -> tuple[str, str, list[str]]:
        """Names of both sides, and the indices that are axes of the leaf."""
        key: list[str] = []
        leaf: list[str] = []
        dropped: list[str] = []
        letters = iter(_NAMES)
        segments = family.segments
        for at, segment in enumerate(segments):
            if segment != "{}":
                key.append(segment)
                leaf.append(self.named(segments, at, family))
                continue
            letter = next(letters)
            if part and ".".join(segments[: at + 1]) in self.cuts:
                key.append(f"{{{letter}{part}}}")
                leaf[-1] = f"{'dense' if part.startswith('[:') else 'sparse'}_{leaf[-1]}"
                dropped.append(letter)
                continue
            key.append(f"{{{letter}}}")
            if ".".join(segments[: at + 1]) in self.stacked:
                dropped.append(letter)
            elif self.from_one and at > 0:
                leaf.append(f"{{{letter}[1:]}}")
            else:
                leaf.append(f"{{{letter}}}")
        if self.bare and leaf[0] in OUTER and len(leaf) > 1:
            leaf = leaf[1:]
        if self.joined and len(leaf) > 3 and "{" not in leaf[-3] + leaf[-2]:
            leaf[-3:-1] = ["_".join(leaf[-3:-1])]
        return ".".join(key), ".".join(leaf), dropped

    def named(self, segments: Sequence[str], at: int, family: Family) -> str:
        """What a segment is called here."""
        segment = segments[at]
        if at == len(segments) - 1 and segment in ("weight", "bias"):
            if segment == "weight" and _embeds(family.text) and family.ndim == 2:
                return self.embedding
            return (self.norm if _norms(family) else self.linear)[segment == "bias"]
        return segment if segment in OUTER else self.names.get(segment, segment)

    def fuse(self, shown: str, parts: Sequence[Family], part: str) -> str:
        """The rule that joins some families on their first axis."""
        names = [each.segments[-2] for each in parts]
        key, leaf, dropped = self.sides(parts[0], part)
        choice = "|".join(names)
        key = f".{{{choice}}}.".join(key.rsplit(f".{names[0]}.", 1))
        *before, last = leaf.split(".")
        shown = self.names.get(shown, shown)
        before[-1] = before[-1][: -len(self.names.get(names[0], names[0]))] + shown if self.joined else shown
        own, axes = (["_"], [f"({choice})"]) if parts[0].ndim == 1 else (["_", "i"], [f"({choice})", "i"])
        axes = axes[::-1] if self.turns(parts[0]) else axes
        sizes = ", ".join(f"{name}={next(iter(each.shapes))[0]}" for name, each in zip(names, parts, strict=True))
        return f"{key} [{' '.join(own)}] -> {'.'.join([*before, last])} [{' '.join([*dropped, *axes])}] ; {sizes}"


def _embeds(text: str) -> bool:
    return any(word in text for word in ("embed", "wte", "wpe", "shared.weight", "relative_attention_bias"))


def _norms(family: Family) -> bool:
    """Whether an array belongs to a norm, as far as its name says: a bias by its layer."""
    words = family.segments[-2].lower() if len(family.segments) > 1 else ""
    return any(word in words for word in ("norm", "ln_", "ln", "normalization"))


def _nested(leaves: Sequence[str]) -> bool:
    """Whether a leaf's name begins another's: no tree has an array where it has a branch."""
    known = {*leaves}
    return any(leaf.rsplit(".", n)[0] in known for leaf in leaves for n in range(1, leaf.count(".") + 1))
