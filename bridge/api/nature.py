"""Why a checkpoint does not fit: it is quantised, an adapter, wrapped, incomplete, or an optimizer's state."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

from bridge._errors import CheckpointError
from bridge._text import plural, quote
from bridge.mapping.problem import Nature
from bridge.planning.absent import Absent
from bridge.source.nothing import PART

if TYPE_CHECKING:
    from bridge.planning.plan import Plan
    from bridge.source.checkpoint import Checkpoint

_CODES = {
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "weight_packed": "compressed-tensors",
    "weight_scale": "FP8 or INT8",
    "weight_scale_inv": "FP8",
    "absmax": "bitsandbytes",
    "quant_map": "bitsandbytes",
    "SCB": "bitsandbytes",
    "_data": "Quanto",
    "W_q": "HQQ",
    "codebooks": "AQLM",
    "q_weight": "EXL2",
    "trellis": "EXL3",
}
"""Last segments of keys that no plain model has, and what writes them."""
_UNREAD = ("Quanto", "HQQ", "AQLM", "EXL2", "EXL3")
_ADAPTER = re.compile(
    r"(?:^|[._])(?:lora_(?:[AB]|embedding_[AB]|up|down|mid|magnitude_vector)|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|ia3_l"
    r"|oft_[rR]|vera_lambda_[bd]|dora_scale)(?:\.|$)"
)
_STATE = frozenset(("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg"))
_LOOKED_AT = 200  # missing leaves, of any number


def tell_nature(stored: Checkpoint, made: Plan) -> None:
    """Add to the plan's problems what the checkpoint is, if that explains them."""
    made.problems.nature = next(_natures(stored, made), None)


def _natures(stored: Checkpoint, made: Plan) -> Iterator[Nature]:
    """All explanations that apply, the most specific first."""
    left = [problem.key for problem in made.problems.unexpected]
    yield from _adapter(stored, left)
    yield from _optimizer(stored, left)
    yield from _quantized(stored, made)
    yield from _wrapped(made, left)
    yield from _unlisted(stored, made)
    yield from _part(stored, made)


def _adapter(stored: Checkpoint, left: list[str]) -> Iterator[Nature]:
    keys = [key for key in left if _ADAPTER.search(key)]
    if not keys:
        return
    source = quote(stored.source)
    bases = {_ADAPTER.split(key)[0] for key in keys}
    beside = frozenset(key for key in left if key in keys or any(base in bases for base in _above(key)))
    alone = not any(".base_layer." in key for key in left) and 2 * len(beside) >= len(stored.specs)
    if alone:  # it may bring whole modules, such as a head
        yield Nature(
            f"{source} is an adapter (its keys say {quote(_ending(keys[0]))}), not a model",
            f"load the model that it was made for, with adapters=[{source}]",
            beside,
        )
    else:
        yield Nature(
            f"{source} is a model with an adapter beside its weights (its keys say {quote(_ending(keys[0]))})",
            "merge the two with the tool that made it, as PEFT's merge_and_unload does, and save the model again",
            beside,
        )


def _ending(key: str) -> str:
    """The last part of a key, which says what it is."""
    found = _ADAPTER.search(key)
    return key if found is None else found[0].strip("._")


def _optimizer(stored: Checkpoint, left: list[str]) -> Iterator[Nature]:
    keys = [key for key in left if not _STATE.isdisjoint(key.split("."))]
    if 3 * len(keys) > len(stored.specs):
        yield Nature(
            f"{quote(stored.source)} is the state of an optimizer (its keys say {quote(keys[0])}), not a model",
            "name the file that holds the model's weights",
            frozenset(left),
        )


def _quantized(stored: Checkpoint, made: Plan) -> Iterator[Nature]:
    telling = [(key, _CODES[last]) for key in stored.specs if (last := key.rpartition(".")[2]) in _CODES]
    found = {*made.problems.unexpected, *made.problems.mismatched}
    troubled = {problem.key for problem in found}
    telling = [(key, how) for key, how in telling if key in troubled]
    if not telling:
        return
    bases = {_module(key) for key, _ in telling}
    keys = frozenset(key for key in troubled if any(base in bases for base in _above(key)))
    (how, read), written = _how(stored), telling[0][1]
    yield Nature(
        f"{quote(stored.source)} is quantised ({how or f'its keys are those of {written}'})",
        _asked(made, read=read, known=bool(how) or written in _UNREAD),
        keys,
    )


def _how(stored: Checkpoint) -> tuple[str, bool]:
    """What the config says, in words, or an empty text; and whether weights of that kind can be read."""
    try:
        method = stored.quantized.method
    except CheckpointError:  # of the config's own faults others speak
        return "", False
    try:
        read = bool(stored.quantized)
    except CheckpointError:
        read = False
    return "" if method is None else f"config.json says {quote(method)}", read


def _asked(made: Plan, *, read: bool, known: bool) -> str:
    """The advice for codes that no leaf takes."""
    if read and made.request.quantized == "keep":
        return (
            "leave out quantized='keep' to read them as weights; with it, the model needs leaves for codes and scales"
        )
    if read and made.request.dtype.default == "checkpoint":
        return "leave out dtype='checkpoint' to read them as weights; with it, codes and scales are read as they are"
    if known:
        return "this is not read: save the model in bfloat16 with the tool that made it"
    return "say how with quantized={'quant_method': …}, or put its config.json beside it"


def _module(key: str) -> str:
    """The layer that a part belongs to: `a.b` of `a.b.qweight` and of `a.b.weight.absmax`."""
    above = key.rpartition(".")[0]
    return above.removesuffix(".weight") if above.endswith(".weight") else above


def _above(key: str) -> Iterator[str]:
    """The modules that a key lies in, the innermost first."""
    while key:
        key = key.rpartition(".")[0]
        yield key


def _wrapped(made: Plan, left: list[str]) -> Iterator[Nature]:
    """One prefix of all keys, without which they are the expected keys."""
    wanted = _sought(made) if len(left) == len(made.specs) else []
    first, last = (min(left).split("."), max(left).split(".")) if wanted else ([], [])
    common = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    for depth in range(len(list(common)), 0, -1):
        prefix = ".".join(first[:depth])
        if 10 * sum(f"{prefix}.{key}" in made.specs for key in wanted) >= 9 * len(wanted):
            rule = f'"{prefix}.** -> **"'
            advice = f"take it away with the rule {rule}"
            if made.request.rules:
                advice = f'put your rules into one, ({rule}, […, "** -> **"])'
            yield Nature(f"every key begins with {quote(prefix + '.')}", advice, frozenset(left))
            return


def _sought(made: Plan) -> list[str]:
    """The keys of the first missing leaves, by the rules or else by the leaves' own names."""
    problems = made.problems.missing[:_LOOKED_AT]
    absent = Absent(made, [[problem] for problem in problems])
    return [key for problem in problems for key in absent.keys(problem) or ([] if problem.place else [problem.name])]


def _part(stored: Checkpoint, made: Plan) -> Iterator[Nature]:
    """Files that are numbered, `-00001-of-00002`, and not all of them."""
    found = [match for name in stored.files if (match := PART.fullmatch(name.rpartition("/")[2]))]
    if not found or not made.problems.missing or len(found) < len(stored.files):
        return
    total = int(found[0][3])
    if len(found) < total:
        files = f"file {found[0][2]}" if len(found) == 1 else plural(len(found), "file")
        yield Nature(
            f"{quote(stored.source)} is {files} of {total:,}",
            "name the folder that holds the whole checkpoint, its files and their index",
            frozenset(),
        )


def _unlisted(stored: Checkpoint, made: Plan) -> Iterator[Nature]:
    """Keys that are missing, and lie in a file of the index, which leaves them out."""
    if stored.index is None:
        return
    found = [(key, file) for key in _sought(made) if key not in stored.specs and (file := stored.unlisted(key))]
    if found:
        key, file = found[0]
        more = f" and {plural(len(found) - 1, 'key')} more" if len(found) > 1 else ""
        yield Nature(
            f"{quote(key)} lies in {quote(file)}{more}, and the index {quote(stored.index_name)} leaves it out",
            f"the index decides; a list of the files, [{quote(os.path.join(stored.source, file))}, …], has all keys",
            frozenset(),
        )
