"""Keys that no leaf takes and that need none: buffers that models compute, and the second key of a tied weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.mapping.arrays import ArraySpec, ArrayTable
from bridge.proposing.atom import Atom
from bridge.proposing.concepts import said_by
from bridge.proposing.fits import Fit
from bridge.proposing.fold import folded, key_infos
from bridge.proposing.spelling import Spelling, Values, all_values
from bridge.proposing.synonyms import COMPUTED


class Drop(NamedTuple):
    """A rule for keys that fill no leaf of their own, and why they do not."""

    rule: str
    keys: tuple[str, ...]
    why: str


def leftover(rest: Sequence[Atom], table: ArrayTable, leaves: Sequence[Atom], values: Values) -> list[Drop]:
    """What becomes of keys without a leaf, as far as that is sure. A tie is compared when it is loaded."""
    found: list[Drop] = []
    words = dict(zip(leaves, said_by(leaves), strict=True))
    tables = [
        atom for atom in leaves if words[atom].role == "emb" and not atom.extents and words[atom].attribute != "b"
    ]
    for atom, said in zip(rest, said_by(rest), strict=True):
        names = tuple(atom.names(table))
        if is_computed(atom):
            found.append(Drop(f"{_name(atom, values)} -> _", names, "a buffer that the model computes"))
            continue
        if said.role in ("head", "emb") and said.attribute != "b" and not atom.extents:
            same = [leaf for leaf in tables if leaf.shape == atom.shape]
            if len(same) == 1:
                (leaf,) = same
                rule = f"{_name(atom, values)} -> {_own_name(leaf)} ; tie=true"
                found.append(Drop(rule, names, "tied to the embeddings; a load compares both"))
    return found


def computed(specs: Mapping[str, ArraySpec]) -> tuple[list[str], set[str]]:
    """Rules that drop what models compute themselves, and the keys that they take."""
    table = ArrayTable.of(specs)
    atoms = folded(table, key_infos(table))
    found, values = [atom for atom in atoms if is_computed(atom)], all_values(atoms)
    return [f"{_name(atom, values)} -> _" for atom in found], {name for atom in found for name in atom.names(table)}


def is_computed(atom: Atom) -> bool:
    """Whether keys are buffers that PyTorch models save and others compute: by name, and for masks by shape too."""
    text = f".{atom.text}"
    if any(text.endswith(f".{name}") for name in COMPUTED):
        return True
    square = len(atom.shape) == 4 and atom.shape[:2] == (1, 1) and atom.shape[2] == atom.shape[3]
    return square and text.endswith(("attn.bias", "attention.bias"))


def _name(atom: Atom, values: Values) -> str:
    atom = atom.ungrouped()
    count = len(atom.columns)
    return Spelling(atom, atom, Fit(tuple(~n for n in range(count)), (), (), True, 0.0), values).key_name()


def _own_name(atom: Atom) -> str:
    return Spelling(atom, atom, Fit((), (), (), True, 0.0), {}).leaf_name(plain=False)
