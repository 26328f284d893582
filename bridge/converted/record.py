"""What a converted checkpoint remembers of the one it came from: all that the way back needs to know.

It lies beside the leaves as JSON. A folder may come from a stranger: every name and number in it is checked before use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from bridge._dtypes import DTYPES, dtype_label
from bridge._errors import BridgeError, CheckpointError
from bridge._text import quote
from bridge.converted import MARK
from bridge.format.encode import encode_header
from bridge.format.index import parse_index
from bridge.planning.plan import Plan
from bridge.source.checkpoint import Checkpoint
from bridge.target.existing import BESIDE, INDEX, is_beside

VERSION = 1
_AGAIN = "Convert it again"


def record_of(ckpt: Checkpoint, plan: Plan, stale: Mapping[str, Sequence[str]]) -> bytes:
    """The record of a conversion.

    **Arguments:**

    - `ckpt`, `plan`: what was converted, and how.
    - `stale`: for each file the keys that it holds though the index does not say so.
    """
    lost = lost_keys(ckpt)
    document = {
        "version": VERSION,
        "source": ckpt.source,
        "commit": ckpt.commit,
        "files": [
            {"name": name, "header": _header_text(ckpt, file), "stale": list(stale[file])}
            for file, name in file_names(ckpt).items()
        ],
        "index": _index_text(ckpt),
        "computed": [key for key in ckpt if not ckpt.specs.is_plain(key) or key in lost],
        "rules": [str(rule) for rule in plan.request.rules],
        "plan": json.loads(plan.to_json()),
    }
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def file_names(ckpt: Checkpoint) -> dict[str, str]:
    """What the way back calls each file: an index's own names, else those of the files without their folders.

    It writes safetensors, whatever a file was.
    """
    names: dict[str, str] = {}
    for number, file in enumerate(ckpt.files):
        name = file if ckpt.index is not None else re.split(r"[/\\:]", file)[-1]
        if not ckpt.header(file).is_safetensors:
            name = f"{name[: -len(_suffix(name)) or None]}.safetensors"
        elif ckpt.index is not None:
            names[file] = name
            continue
        usual = name.endswith(".safetensors") and name not in names.values()
        names[file] = name if usual else f"model-{number + 1}.safetensors"
    return names


def stale_name(number: int, key: str) -> str:
    """What a key that no index lists is called among the originals: every file may hold one of that name."""
    return f"{number}\0{key}"


def _suffix(name: str) -> str:
    return re.search(r"(\.(bin|ckpt|pt|pth)(\.tar)?)?$", name, re.ASCII)[0]  # type: ignore[index]: it matches anything


def lost_keys(ckpt: Checkpoint) -> dict[str, str]:
    """The keys that the way back cannot give, and why. All of safetensors files come back."""
    labels = {form: dtype_label(form.dtype) for form in ckpt.specs.forms}
    if not ckpt.refused and DTYPES.keys() >= set(labels.values()):
        return {}
    found = dict.fromkeys(ckpt.refused, "not kept: bridge cannot read it")
    for key, kind in zip(ckpt.specs.names, ckpt.specs.kinds.tolist(), strict=True):
        label = labels[ckpt.specs.forms[kind]]
        if label not in DTYPES:
            found.setdefault(key, f"not kept: safetensors has no name for {label}")
    return found


def kept_keys(ckpt: Checkpoint, file: str) -> list[str]:
    """The keys of a file that the way back gives, in the order of its header, also those that no index lists."""
    header = ckpt.header(file)
    tensors = header.tensors
    if header.is_safetensors:
        return list(tensors.names)
    named = [key for key, spec in tensors.items() if dtype_label(spec.dtype) in DTYPES]
    return [key for key in named if key not in tensors.refused]


def _header_text(ckpt: Checkpoint, file: str) -> str:
    """The header that the way back writes: that of the file, or what a file of torch.save holds as one."""
    header = ckpt.header(file)
    if not header.is_safetensors:
        specs = {key: (header.tensors[key].dtype, header.tensors[key].shape) for key in kept_keys(ckpt, file)}
        return encode_header(specs, {"format": "pt", **header.metadata}, file=file)[0][8:].decode()
    raw = bytearray(ckpt.header(file).data_start - 8)
    ckpt.byte_source(file).readinto([memoryview(raw)], 8)
    return raw.decode()


def _index_text(ckpt: Checkpoint) -> str | None:
    """The index as it is, to the last blank; `None` without one."""
    if ckpt.index is None:
        return None
    names = file_names(ckpt)
    if any(name != file for file, name in names.items()):
        lost = lost_keys(ckpt)
        weight_map = {key: names[file] for key, file in ckpt.index.weight_map.items() if key not in lost}
        return json.dumps({"metadata": dict(ckpt.index.metadata), "weight_map": weight_map}, indent=2)
    try:
        raw = ckpt.beside(INDEX)
        found = parse_index(raw, name=INDEX)
        if (found.weight_map, found.metadata) == (ckpt.index.weight_map, ckpt.index.metadata):
            return raw.decode()
    except CheckpointError:
        pass  # an index of another name: what it says is kept, its blanks are not
    return json.dumps({"metadata": dict(ckpt.index.metadata), "weight_map": dict(ckpt.index.weight_map)}, indent=2)


def read_record(ckpt: Checkpoint) -> dict[str, Any]:
    """What a converted checkpoint remembers, with the types that `record_of` gave it.

    **Raises:** `CheckpointError` where it does not, or not in this version.
    """
    subject = quote(ckpt.source)
    name, _ = beside(ckpt)
    try:
        record: Any = json.loads(ckpt.beside(name))
        version = record["version"]
        if version == VERSION and ckpt.metadata[MARK] == str(VERSION):
            _check(record)
            return cast("dict[str, Any]", record)
    except CheckpointError as error:
        raise CheckpointError(subject, f"has lost the record of its conversion: {error.statement}", _AGAIN) from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(subject, f"has lost the record of its conversion: {_said(error)}", _AGAIN) from error
    raise CheckpointError(subject, f"was converted by version {version!r}, this one reads {VERSION}", _AGAIN)


def _said(error: Exception) -> str:
    """What is wrong with a record, in words that do not depend on Python's."""
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error) if type(error) is ValueError else "it is not what convert wrote"


def _first_line(error: BridgeError) -> str:
    """What a plan's error says in its first line: below it may stand a long report."""
    return error.statement.partition("\n")[0]


def beside(ckpt: Checkpoint) -> tuple[str, str]:
    """The names of the record and of the originals. **Raises:** `CheckpointError`."""
    try:
        record, originals = json.loads(ckpt.metadata[BESIDE])
    except (KeyError, TypeError, ValueError, RecursionError):
        record = originals = None
    if is_beside(record) and is_beside(originals):
        return str(record), str(originals)
    raise CheckpointError(quote(ckpt.source), "does not say where the record of its conversion is", "Convert it again")


def plan_of(record: Mapping[str, Any], ckpt: Checkpoint) -> Plan:
    """The plan of a record, proven anew, for the leaves that `ckpt` has. **Raises:** `CheckpointError`."""
    try:
        plan = Plan.from_json(json.dumps(record["plan"]))
        plan.check()
    except BridgeError as error:
        raise CheckpointError(
            quote(ckpt.source), f"has a record of its conversion that is damaged: {_first_line(error)}", _AGAIN
        ) from error
    for name, spec in plan.leaves.items():
        found = ckpt.specs.get(name)
        if found is None or (found.dtype, found.shape) != (spec.dtype, spec.shape):
            raise CheckpointError(
                quote(ckpt.source),
                f"has files of two conversions: leaf {quote(name)} is not what its record says, {spec}",
                _AGAIN,
            )
    return plan


def _check(record: Mapping[str, Any]) -> None:
    """Every place of a record has its type, and no name leads out of a folder; else an error that says where."""
    files = record["files"]
    # The rule that an index is held to, and its words.
    parse_index(
        json.dumps({"weight_map": {str(n): f["name"] for n, f in enumerate(files)}}).encode(), name="bridge.json"
    )
    for file in files:
        if any(part.startswith(".") for part in file["name"].split("/")):
            raise ValueError(f"{quote(file['name'])} is hidden")
        if not isinstance(file["header"], str) or not all(isinstance(key, str) for key in file["stale"]):
            raise ValueError("a header or a stale key of it is not text")
    if not all(isinstance(key, str) for key in record.get("computed", ())):
        raise ValueError("a computed key of it is not text")
    if record["index"] is not None:
        listed = parse_index(record["index"].encode(), name=INDEX).files
        if not set(listed) <= {file["name"] for file in files}:
            raise ValueError("its index names files that it does not have")
    elif len({file["name"] for file in files}) < len(files) or not files:
        raise ValueError("it has no files, or two of one name")
    if not all(isinstance(rule, str) for rule in (*record["rules"], *record["plan"]["rules"])):
        raise ValueError("a rule of it is not text")
