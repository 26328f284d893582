"""The converted form: a checkpoint already in a model's own leaves, which loads without rules and, on the CPU, without a copy.

    model.safetensors       the leaves, aligned so that they can be mapped; its metadata say that it is converted
    bridge.json             the plan, the headers and the index of the files that it came from
    original.safetensors    what the leaves cannot give back bit for bit: dropped keys, rounded ones, terms of sums
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from bridge._api import AllowMissing, OpenOptions, Rules, Source, kept_value, opened, planned, request_of
from bridge._errors import CheckpointError, PlanError, SaveError
from bridge._progress import Progress, reporting
from bridge._save import LeftOut, SaveReport
from bridge._text import quote
from bridge.format.encode import encode_header
from bridge.format.header import read_header
from bridge.format.native import BESIDE, MARK, is_native
from bridge.mapping.template import Spec
from bridge.planning.plan import Plan
from bridge.source.bytes import LocalFile
from bridge.source.checkpoint import Checkpoint, open_checkpoint
from bridge.source.tensor import read_tensor
from bridge.stream.fill import fill
from bridge.stream.gather import gather, pieces
from bridge.target.commit import INDEX, SINGLE, Target
from bridge.target.mapped import mapped_file
from bridge.target.writer import write_file

_VERSION = 1
_ALIGNED = 64


def convert(
    source: Source,
    target: str | os.PathLike[str],
    like: Any = None,
    rules: Rules = None,
    *,
    dtype: Any = None,
    allow_missing: AllowMissing = (),
    allow_unexpected: Sequence[str] | str = (),
    max_host_bytes: int | None = None,
    overwrite: bool = False,
    progress: Progress | bool | None = None,
    **options: Unpack[OpenOptions],
) -> SaveReport:
    """Write a checkpoint in the form of a model's own leaves. `bridge.load(target, like)` then needs no rules.

    **Arguments:** as for `bridge.load`, and

    - `target`: a folder, made if need be.
    - `overwrite`: replace a checkpoint that stands there.

    Leaves are filled where they will lie on the disk, so a checkpoint may be larger than memory.

    **Returns:** a `SaveReport`.

    **Raises:** `CheckpointError`, `PlanError`, `RuleError` as `bridge.load` does; `SaveError` for the target.

    ```python
    bridge.convert("model.safetensors", "native", like)
    model = bridge.load("native", like)
    bridge.revert("native", "original")
    ```
    """
    place = Target(target, overwrite=overwrite)
    if place.single:
        raise SaveError(f"{quote(str(target))} is one file: the converted form is a folder, name one")
    with opened(source, options) as ckpt:
        if is_native(ckpt.metadata):
            raise PlanError(f"{quote(ckpt.source)} is converted already: load it as it is, or revert it first")
        plan, model = planned(ckpt, like, request_of(rules, dtype, allow_missing, allow_unexpected))
        plan.check()
        kept = {name: np.asarray(kept_value(name, plan.leaves[name], model, allow_missing)) for name in plan.kept}
        with place.staged() as stage, reporting(progress, "converting") as report:
            record, original = place.free_name("bridge.json"), place.free_name("original.safetensors")
            _write_leaves(stage, ckpt, plan, kept, beside=[record, original], report=report)
            stale = _write_originals(stage / original, ckpt, plan)
            (stage / record).write_text(json.dumps(_record(ckpt, plan, stale), ensure_ascii=False))
            nbytes = sum((stage / name).stat().st_size for name in (SINGLE, record, original))
            place.commit(stage, [record, original], SINGLE)
        return SaveReport((SINGLE, record, original), nbytes, tuple(LeftOut(*lossy) for lossy in plan.lossy))


def _write_leaves(
    stage: Path, ckpt: Checkpoint, plan: Plan, kept: Mapping[str, np.ndarray], *, beside: list[str], report: Progress | None
) -> None:
    """The leaves, those of whole alignments first: so all of them start on one, and the small rest behind them."""
    # Behind the aligned ones, by falling size of item: every leaf starts on a multiple of its own item at least.
    def rank(name: str) -> int:
        return -_ALIGNED if plan.leaves[name].nbytes % _ALIGNED == 0 else -plan.leaves[name].dtype.itemsize

    order = sorted(plan.leaves, key=rank)
    tensors = {name: (plan.leaves[name].dtype, plan.leaves[name].shape) for name in order}
    metadata = {MARK: str(_VERSION), BESIDE: json.dumps(beside)}
    head, offsets = encode_header(tensors, metadata, file=SINGLE, alignment=_ALIGNED)
    with mapped_file(stage / SINGLE, head, tensors, offsets, shown=SINGLE) as leaves:
        for name, value in plan.fills.items():
            leaves[name].fill(value)
        for name, values in kept.items():
            np.copyto(leaves[name], values)
        fill(plan.blocks, ckpt.specs, ckpt, leaves, progress=report)


def _write_originals(path: Path, ckpt: Checkpoint, plan: Plan) -> dict[str, list[str]]:
    """What the leaves cannot give back; returns the keys that lie in a file though its index does not list them."""
    exact = _exact(plan)
    held = [key for key in ckpt if key not in exact]
    stale = {file: [k for k in ckpt.header(file).tensors if ckpt.specs.get(k) is None or ckpt.specs[k].file != file] for file in ckpt.files}
    names = {key: ckpt.specs[key] for key in held}
    names |= {_stale_name(file, key): ckpt.header(file).tensors[key] for file, keys in stale.items() for key in keys}
    head, _ = encode_header({name: (spec.dtype, spec.shape) for name, spec in names.items()}, {}, file=path.name)
    write_file(path, head, (_raw(ckpt, name, spec) for name, spec in names.items()), shown=path.name)
    return stale


def _stale_name(file: str, key: str) -> str:
    return f"{file}\0{key}"


def _raw(ckpt: Checkpoint, key: str, spec: Any) -> np.ndarray:
    """A tensor's bytes as the file has them."""
    raw = np.empty(spec.nbytes, np.uint8)
    ckpt.byte_source(spec.file).readinto([raw.data], spec.offset)
    return raw


def _exact(plan: Plan) -> set[str]:
    """The keys that the leaves give back bit for bit: each element is in one, unrounded."""
    lossy = {name for name, _ in plan.lossy}
    found: set[str] = set()
    for key, held in pieces(plan.blocks).items():
        count = sum(piece.index_map.count for piece in held if not piece.zero)
        ties = [piece for piece in held if piece.index_map.whole_key]
        if key not in lossy and (count == prod(plan.specs[key].shape) or ties):
            found.add(key)
    return found


def _record(ckpt: Checkpoint, plan: Plan, stale: Mapping[str, list[str]]) -> dict[str, Any]:
    """All that the way back needs to know."""
    files = [{"name": f, "header": _header_text(ckpt, f), "stale": stale[f]} for f in ckpt.files]
    index = None if ckpt.index is None else {"metadata": dict(ckpt.index.metadata), "weight_map": dict(ckpt.index.weight_map)}
    return {
        "version": _VERSION,
        "source": ckpt.source,
        "commit": ckpt.commit,
        "files": files,
        "index": index,
        "rules": [str(rule) for rule in plan.request.rules],
        "plan": json.loads(plan.to_json()),
    }


def _header_text(ckpt: Checkpoint, file: str) -> str:
    raw = bytearray(ckpt.header(file).data_start - 8)
    ckpt.byte_source(file).readinto([memoryview(raw)], 8)
    return raw.decode()


def read_record(ckpt: Checkpoint) -> dict[str, Any]:
    """What a converted checkpoint remembers. **Raises:** `CheckpointError` where it does not, or not in this version."""
    subject = f"{quote(ckpt.source)} has lost the record of its conversion"
    try:
        record = json.loads(ckpt.beside(os.path.basename(json.loads(ckpt.metadata[BESIDE])[0])))
        version = record["version"]
    except CheckpointError as error:
        raise CheckpointError(f"{subject}: {error} Convert it again.") from error
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(f"{subject}: {type(error).__name__}: {error}. Convert it again.") from error
    if version != _VERSION or ckpt.metadata[MARK] != str(_VERSION):
        raise CheckpointError(f"{quote(ckpt.source)} was converted by version {version}, this one reads {_VERSION}. Convert it again.")
    return record


def revert(
    converted: str | os.PathLike[str], target: str | os.PathLike[str], *, overwrite: bool = False
) -> SaveReport:
    """Write what was converted as it was: keys, dtypes, files and metadata, bit for bit.

    **Arguments:**

    - `converted`: a folder that `bridge.convert` wrote.
    - `target`: a folder, made if need be; for a checkpoint of one file also a name that ends in `.safetensors`.
    - `overwrite`: replace a checkpoint that stands in the target.

    **Returns:** a `SaveReport`.

    **Raises:** `CheckpointError` where `converted` is no such folder; `SaveError` for the target.
    """
    folder = Path(converted)
    place = Target(target, overwrite=overwrite)
    with open_checkpoint(folder) as ckpt:
        if not is_native(ckpt.metadata):
            raise CheckpointError(f"{quote(str(folder))} was not written by convert: there is nothing to revert")
        record = read_record(ckpt)
        plan = Plan.from_json(json.dumps(record["plan"]))
        originals = folder / os.path.basename(json.loads(ckpt.metadata[BESIDE])[1])
        leaves = _Mapped(folder / SINGLE, ckpt.specs)
        files = record["files"]
        if place.single and len(files) > 1:
            raise SaveError(f"{quote(str(target))} is one file, the checkpoint had {len(files)}: name a folder")
        kept = LocalFile(originals, originals.name)
        try:
            with place.staged() as stage:
                return _write_files(place, stage, record, plan, leaves, kept)
        finally:
            kept.close()


def _write_files(
    place: Target, stage: Path, record: Mapping[str, Any], plan: Plan, leaves: Mapping[str, np.ndarray], kept: LocalFile
) -> SaveReport:
    """All files of the record, and its index."""
    held, exact, stored = pieces(plan.blocks), _exact(plan), read_header(kept).tensors
    names: dict[str, str] = {}
    nbytes = 0
    for file in record["files"]:
        base = os.path.basename(file["name"])
        name = place.path.name if place.single else place.free_name(base) if record["index"] else base
        names[file["name"]] = name
        head = file["header"].encode()
        head = len(head).to_bytes(8, "little") + head
        entries = [(key, entry) for key, entry in json.loads(file["header"]).items() if key != "__metadata__"]
        entries.sort(key=lambda item: item[1]["data_offsets"])

        def tensor(key: str, file: Mapping[str, Any] = file) -> np.ndarray:
            if key in file["stale"]:
                return read_tensor(kept, key, stored[_stale_name(file["name"], key)])
            if key in exact:
                return gather(held[key], leaves, plan.specs[key].dtype)
            return _bytes(kept, stored[key])

        nbytes += write_file(stage / name, head, (tensor(key) for key, _ in entries), shown=name)
    written = list(names.values())
    if record["index"] is None:
        place.commit(stage, written[:-1], written[-1])
        return SaveReport(tuple(written), nbytes, ())
    index = {**record["index"], "weight_map": {k: names[f] for k, f in record["index"]["weight_map"].items()}}
    raw = (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
    (stage / INDEX).write_bytes(raw)
    place.commit(stage, written, INDEX)
    return SaveReport((*written, INDEX), nbytes + len(raw), ())


def _bytes(source: LocalFile, spec: Any) -> np.ndarray:
    raw = np.empty(spec.nbytes, np.uint8)
    source.readinto([raw.data], spec.offset)
    return raw


class _Mapped(Mapping[str, np.ndarray]):
    """The tensors of one file as views of it: nothing is read before it is looked at."""

    def __init__(self, path: Path, specs: Mapping[str, Any]) -> None:
        self.flat = np.memmap(path, np.uint8, mode="r")
        self.specs = specs

    def __getitem__(self, name: str) -> np.ndarray:
        spec: Spec = self.specs[name]
        part = self.flat[self.specs[name].offset :][: spec.nbytes]
        return part.view(spec.dtype).reshape(spec.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)
