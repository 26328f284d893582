"""One pair of atoms and how they fit, as the text of a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from string import ascii_lowercase

from bridge.mapping.pattern import MARK
from bridge.proposing.atom import Atom, Turn
from bridge.proposing.fits import Fit
from bridge.proposing.fused import Joined
from bridge.rules.syntax import escaped

Values = Mapping[tuple[str, ...], Sequence[Sequence[int]]]
"""For names with marks the numbers that one side has in each place, whatever becomes of them."""

_CALLED = {
    "layers": "l",
    "layer": "l",
    "h": "l",
    "blocks": "l",
    "block": "l",
    "experts": "e",
    "stages": "s",
    "heads": "h",
}
_AXES = {1: "d", 2: "oi", 3: "oik", 4: "oihw", 5: "oithw"}


def all_values(atoms: Sequence[Atom]) -> Values:
    """The numbers of each family of names, over all of its atoms."""
    found: dict[tuple[str, ...], list[set[int]]] = {}
    for atom in atoms:
        sets = found.setdefault(atom.segments, [set() for _ in atom.columns])
        for each, column in zip(sets, atom.columns, strict=True):
            each.update(column.tolist())
    return {segments: [sorted(each) for each in sets] for segments, sets in found.items()}


class Spelling:
    """The letters and selections of one pair, and the text that they make."""

    def __init__(self, key: Atom, leaf: Atom, fit: Fit, values: Values) -> None:
        self.key, self.leaf, self.fit = key, leaf, fit
        self.letters = list(_letters(key))
        self.leaf_letters = self._leaf_letters()
        family = [*(values.get(key.segments) or [column.tolist() for column in key.columns])]
        if key.turn is not None:
            family[self._place(key.turn)] = range(key.turn.groups)
        self.key_selections: list[str] = []
        self.leaf_selections = [""] * len(leaf.columns)
        for n, place in enumerate(fit.numbers):
            own: list[int] = key.columns[n].tolist()
            wanted = leaf.columns[~place].tolist() if place < 0 else list(range(len(own)))
            if own == wanted == [*family[n]]:
                self.key_selections.append("")
            else:
                text = selection(own, family[n])
                self.key_selections.append(text)
                positions = list(range(len(own))) if text else own
                if place < 0 and wanted != positions:
                    self.leaf_selections[~place] = selection(wanted, None)
        for n, _ in fit.unstacked:
            if leaf.columns[n].tolist() != list(range(len(leaf.columns[n]))):
                self.leaf_selections[n] = selection(leaf.columns[n].tolist(), None)

    def _leaf_letters(self) -> list[str]:
        found = [""] * len(self.leaf.columns)
        for letter, place in zip(self.letters, self.fit.numbers, strict=True):
            if place < 0:
                found[~place] = letter
        used = set(self.letters)
        for n, _ in self.fit.unstacked:
            found[n] = next(c for c in chain("enij", ascii_lowercase) if c not in used)
            used.add(found[n])
        return found

    def key_name(self) -> str:
        """The name of the key."""
        segments, turn, chosen = self.key.segments, self.key.turn, choice_of(self.key)
        if turn is None:
            return named(segments, self.letters, self.key_selections, chosen)
        n, end = self._place(turn), turn.place + turn.width
        m = n + turn.width
        group = f"{self.letters[n]}{self.key_selections[n]}"
        parts = [
            named(segments[: turn.place], self.letters[:n], self.key_selections[:n], chosen),
            f"{{({group} {self.turn}{_turns(turn)})}}",
            named(segments[end:], self.letters[m:], self.key_selections[m:], (chosen[0] - end, chosen[1])),
        ]
        return ".".join(part for part in parts if part != "''")

    @property
    def turn(self) -> str:
        """The letter for a layer's turn in its group."""
        turn = self.key.turn
        assert turn is not None
        used = {*self.letters, *self.leaf_letters}
        return self.letters[self._place(turn) + 1] if turn.width == 2 else next(c for c in "ijknpqr" if c not in used)

    def _place(self, turn: Turn) -> int:
        """Which of the numbers is that of groups."""
        return sum(MARK in segment for segment in self.key.segments[: turn.place])

    def leaf_name(self, *, plain: bool) -> str:
        """The name on the leaf's side: PyTorch's where a layout shapes what arrives."""
        segments, info = self.leaf.segments, self.leaf.info
        if plain and info.ports:
            last = self.key.segments[-1]
            port = next((port for port in info.ports if port.rpartition(".")[2] == last), info.ports[0])
            segments = (*segments[: len(segments) - info.own], *port.split("."))
            return named(segments, self.leaf_letters, self.leaf_selections)
        return named(segments, self.leaf_letters, self.leaf_selections, choice_of(self.leaf))

    def axes(self) -> tuple[str, str]:
        """The axes of the key and of the leaf."""
        used = {*self.letters, *self.leaf_letters, *([self.turn] if self.key.turn is not None else [])}
        for atom in (self.key, self.leaf):
            used |= set(labels(atom)) if isinstance(atom, Joined) else set()
        count = sum(max(len(a), len(b)) for a, b in self.fit.groups)
        names = _free(_AXES.get(count, "") + "abcdefg", used)
        key: dict[int, str] = {axis: self.leaf_letters[n] for n, axis in self.fit.unstacked}
        leaf: dict[int, str] = {
            axis: letter for letter, axis in zip(self.letters, self.fit.numbers, strict=True) if axis >= 0
        }
        for a, b in self.fit.groups:
            if len(a) == len(b) == 1:
                key[a[0]] = leaf[b[0]] = next(names)
            elif len(a) == 1:
                parts = {n: "1" if self.leaf.shape[n] == 1 else next(names) for n in b}
                leaf |= parts
                key[a[0]] = _grouped([part for part in parts.values() if part != "1"])
            else:
                parts = {n: "1" if self.key.shape[n] == 1 else next(names) for n in a}
                key |= parts
                leaf[b[0]] = _grouped([part for part in parts.values() if part != "1"])
        self._choose(key, leaf)
        return " ".join(key[n] for n in sorted(key)), " ".join(leaf[n] for n in sorted(leaf))

    def _choose(self, key: dict[int, str], leaf: dict[int, str]) -> None:
        """Where one side is several arrays, their axis as a choice of the other, in place of a letter of both."""
        sides = (self.key, key, leaf), (self.leaf, leaf, key)
        for atom, own, other in sides:
            if not isinstance(atom, Joined):
                continue
            letter = own[atom.axis]
            choice = f"({'|'.join(labels(atom))})"
            for n, text in other.items():
                words = [choice if word == letter else word for word in text.strip("()").split(" ")]
                other[n] = words[0] if len(words) == 1 else f"({' '.join(words)})"
            if atom.stacked:
                del own[atom.axis]
            else:
                own[atom.axis] = "_"

    def __str__(self) -> str:
        options = f" ; {self.turn}={self.key.turn.period}" if self.key.turn is not None else ""
        if self.fit.plain:
            return f"{self.key_name()} -> {self.leaf_name(plain=True)}{options}"
        key, leaf = self.axes()
        return f"{self.key_name()} [{key}] -> {self.leaf_name(plain=False)} [{leaf}]{options}"


def labels(atom: Joined) -> list[str]:
    """What the parts are called, without what they share."""
    return choice([part.segments[atom.place] for part in atom.parts])[1]


def choice_of(atom: Atom) -> tuple[int, str]:
    """The segment of a name that is a choice, and its text; -1 for none."""
    if not isinstance(atom, Joined):
        return -1, ""
    return atom.place, choice([part.segments[atom.place] for part in atom.parts])[0]


def choice(labels: Sequence[str]) -> tuple[str, list[str]]:
    """Texts as a choice, what they share at underscores outside; and what is inside."""
    front, back = "", ""
    parts = [label.split("_") for label in labels]
    while all(len(part) > 1 for part in parts) and len({part[-1] for part in parts}) == 1:
        back = f"_{parts[0][-1]}{back}"
        parts = [part[:-1] for part in parts]
    while all(len(part) > 1 for part in parts) and len({part[0] for part in parts}) == 1:
        front = f"{front}{parts[0][0]}_"
        parts = [part[1:] for part in parts]
    inner = ["_".join(part) for part in parts]
    if not all(inner):
        front, inner, back = "", list(labels), ""
    return f"{escaped(front)}{{{'|'.join(map(escaped, inner))}}}{escaped(back)}", inner


def named(
    segments: Sequence[str], letters: Sequence[str], selections: Sequence[str], chosen: tuple[int, str] = (-1, "")
) -> str:
    """Segments with `MARK`s as a name of a rule; `chosen` says which of them is a choice."""
    if 0 <= chosen[0] < len(segments):
        before = sum(MARK in segment for segment in segments[: chosen[0]])
        parts = [
            named(part, letters[a:b], selections[a:b]) if part else ""
            for part, a, b in (
                (segments[: chosen[0]], 0, before),
                (segments[chosen[0] + 1 :], before, len(letters)),
            )
        ]
        return ".".join(filter(None, (parts[0], chosen[1], parts[1])))
    pieces = ".".join(segments).split(MARK)
    holes = [f"{{{letter}{chosen}}}" for letter, chosen in zip(letters, selections, strict=True)]
    return "".join(escaped(piece) + hole for piece, hole in zip(pieces, [*holes, ""], strict=True)) or "''"


def selection(values: Sequence[int], family: Sequence[int] | None) -> str:
    """Some numbers as a selection; open at its end where these are the last of `family`."""
    first, last, count = values[0], values[-1], len(values)
    step = values[1] - first if count > 1 else 1
    if list(values) != list(range(first, last + 1, step)):
        return "[" + ",".join(map(str, values)) + "]"
    most = family[-1] if family else None
    stop = "" if most is not None and last + step > most else str(last + 1)
    start = str(first) if first else ""
    text = f"{start}:{stop}" + (f":{step}" if step > 1 else "")
    return "" if text == ":" else f"[{text}]"


def _turns(turn: Turn) -> str:
    """Which turns of a group are meant."""
    return f"[{turn.turns[0]}]" if turn.width == 1 else selection(turn.turns, range(turn.period))


def _letters(key: Atom) -> Iterator[str]:
    """A letter for each number of the key's name."""
    used: set[str] = set()
    for n, segment in enumerate(key.segments):
        if MARK in segment:
            word = segment.replace(MARK, "").rstrip("_") or (key.segments[n - 1] if n else "")
            grouped = key.turn is not None and n == key.turn.place
            wanted = "g" if grouped else _CALLED.get(word.rpartition("_")[2].lower(), "l" if not used else "i")
            letter = next(c for c in chain(wanted, "ijknpqr", ascii_lowercase) if c not in used)
            used.add(letter)
            yield letter


def _free(wanted: str, used: set[str]) -> Iterator[str]:
    seen = set(used)
    for letter in chain(wanted, ascii_lowercase, (f"{c}{c}" for c in ascii_lowercase)):
        if letter not in seen:
            seen.add(letter)
            yield letter


def _grouped(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"({' '.join(parts)})" if parts else "1"
