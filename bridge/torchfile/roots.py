"""Which of a checkpoint's dicts is meant, and its tensors."""

# What patterns find in a pickle's values is of any type.
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from bridge._errors import CheckpointError
from bridge._text import plural, quote
from bridge.torchfile.entry import Entry, Inline, Refused, RootTensors
from bridge.torchfile.tensors import EntryReader
from bridge.torchfile.tokens import Dict, Global, NumpyArray, Object, PickledTensor, Set, Storage
from bridge.torchfile.walk import TensorDict

_SHOWN = 20  # roots that a message lists


def roots(found: Sequence[TensorDict]) -> dict[str, int]:
    """The dicts that may be meant, by their paths, and how many tensors each holds.

    Those with tensors; where there are none, those with numpy arrays. A dict under two names counts once.
    """
    some = any(each.tensors for each in found)
    counts: dict[str, int] = {}
    seen: set[int] = set()
    for each in found:
        if (each.tensors or not some) and id(each.values) not in seen:
            seen.add(id(each.values))
            counts[each.name] = each.tensors + each.arrays
    return counts


def chosen(name: str, counts: Mapping[str, int], found: Sequence[TensorDict], root: str | None) -> str:
    """The path of the root that is meant; an error that lists all where that is not clear."""
    if root is None and len(counts) == 1:
        return next(iter(counts))
    if root is not None and any(_below(each, root) for each in found):
        return root
    named = [f"root={quote(path)} ({plural(count, 'tensor')})" for path, count in counts.items() if path]
    more = [f"{len(named) - _SHOWN:,} more"] if len(named) > _SHOWN else []
    outermost = [f"the outermost dict ({plural(counts[''], 'tensor')})"] if "" in counts else []
    listed = ", ".join([*named[:_SHOWN], *more, *outermost])
    if root is not None:
        raise CheckpointError(quote(name), f"has no tensors under root={quote(root)}", f"Choose another root: {listed}")
    raise CheckpointError(
        quote(name),
        f"has tensors in {plural(len(counts), 'dict')}: {listed}",
        "Choose one with root=, or root='' for all, with dots between the keys",
    )


def _below(found: TensorDict, root: str) -> bool:
    return root in ("", found.name) or found.name.startswith(f"{root}.")


def tensors_of(name: str, found: Sequence[TensorDict], root: str, reader: EntryReader, *, alone: bool) -> RootTensors:
    """All tensors in the dicts below `root`, dots between the keys, and what else lies beside them.

    `alone`: those of the dict at `root` itself, not of the dicts in it.
    """
    made = RootTensors(root, {}, {}, {})
    below = [each for each in found if (each.name == root if alone else _below(each, root))]
    parents = {each.path[:depth] for each in found for depth in range(len(each.path) + 1)}
    for each in below:
        prefix = each.name[len(root) + 1 :] if root else each.name
        for key, value in each.values.items():
            full = f"{prefix}.{key}" if prefix else key
            if full in made.entries or full in made.refused or not _is_text(full):
                raise CheckpointError(
                    quote(name),
                    f"has two tensors that would be called {quote(full)}, or one whose name is not text",
                    "Choose another root=, or save it with other names",
                )
            _take(name, full, value, made, reader, walked=(*each.path, key) in parents)
    return made


def _take(name: str, key: str, value: Any, made: RootTensors, reader: EntryReader, *, walked: bool) -> None:
    """Put one value where it belongs."""
    if isinstance(value, PickledTensor):
        entry = reader.entry(key, value)
        if isinstance(entry, Entry):
            made.entries[key] = entry
        else:
            made.refused[key] = entry
    elif isinstance(value, NumpyArray):
        if value.values is not None:
            made.entries[key] = Inline(value.values)
        else:
            made.refused[key] = Refused(f"key {quote(key)} in {quote(name)}", value.problem, "Save it as a tensor")
    elif isinstance(value, Object) and not walked:
        _refuse_object(f"key {quote(key)} in {quote(name)}", value, "a tensor")
    elif isinstance(value, Global) and value.module != "torch":
        raise CheckpointError(
            f"key {quote(key)} in {quote(name)}",
            f"is {_spelled(value.path)}, not a tensor, and bridge does not import it",
            "Save the weights alone with torch.save, or as safetensors",
        )
    elif not walked:
        made.skipped[key] = described(value)


def _refuse_object(subject: str, value: Object, wanted: str) -> NoReturn:
    if value.called:
        raise CheckpointError(
            subject,
            f"is the result of a call of {_spelled(value.origin)}, which bridge does not make",
            "If you trust the file, load it with PyTorch and save the weights alone; if not, load it nowhere",
        )
    raise CheckpointError(
        subject,
        f"is an object of {_spelled(value.origin)}, not {wanted}, and bridge does not run its code",
        "Save the weights alone with torch.save, or as safetensors",
    )


def refuse_rootless(name: str, saved: Any, module: str | None) -> NoReturn:
    """No dict has tensors: say what there is."""
    if module is not None:
        raise CheckpointError(
            quote(name),
            f"holds a whole module, of {_spelled(module)}, not a dict of tensors",
            (
                "Open it with modules=True, which reads its parameters and buffers without its code; or save "
                "its state_dict()"
            ),
        )
    if isinstance(saved, Object):
        _refuse_object(quote(name), saved, "a dict of tensors")
    if isinstance(saved, Dict) and "param_groups" in saved:
        raise CheckpointError(
            quote(name), "is the state of an optimizer, not a model", "Name the file that holds the model's weights"
        )
    raise CheckpointError(
        quote(name),
        f"holds {described(saved)}, but no dict of named tensors",
        "Save a dict: torch.save({'name': tensor}, …)",
    )


def described(value: Any) -> str:
    """What a value is that is no tensor, for people."""
    kinds = {str: "text", bool: "a bool", type(None): "None", list: "a list", tuple: "a tuple", Dict: "a dict"}
    kinds |= {
        bytes: "bytes",
        int: "a number",
        float: "a number",
        Set: "a set",
        PickledTensor: "a single tensor",
        Storage: "a storage",
    }
    kinds |= {NumpyArray: "a single numpy array", Global: "the name of a class or function"}
    return kinds.get(type(value), getattr(value, "what", "something else"))


def _spelled(path: str) -> str:
    """A class or function; one whose name is none of Python's is announced as that."""
    plain = all(part.isidentifier() for part in path.split("."))
    return quote(path) if plain else f"a global with the name {quote(path)}"


def _is_text(key: str) -> bool:
    """Whether a key can be written as UTF-8."""
    return key.isascii() or not any("\ud800" <= character <= "\udfff" for character in key)
