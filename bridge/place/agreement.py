"""Whether all processes of a program load the same: compared by what each leaves for the others, without waiting.

A branch may have moved between two hosts' look-ups, a file may differ on one host's disk. Each process leaves a digest
of what it has planned, then looks at those of the others, before it reads a weight and again when it has read all. So
of two processes that differ the one that planned later always finds out before it reads, and the other one too unless
its load was over by then. Nobody waits: a process that has died or is late holds up no other.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import NamedSharding, Sharding

from bridge._errors import BridgeError, CheckpointError, PlanError
from bridge._text import quote
from bridge.place.coordination import Coordination, UnreachableError
from bridge.planning.plan import Plan
from bridge.source.bytes import LocalFile
from bridge.source.checkpoint import Checkpoint

_SAMPLES, _SAMPLE_NBYTES = 256, 64
_loads: dict[tuple[int, ...], int] = {}
"""By who takes part, how many models they have loaded: the n-th of one process is compared with the n-th of another."""

# What is compared: in words, and whether the checkpoint is to blame or how load was called.
_FACTS = {
    "commit": ("commits, {} and {}", True),
    "keys": ("keys, dtypes or shapes", True),
    "samples": ("values", True),
    "mapping": ("rules or leaves", False),
    "shardings": ("shardings", False),
}


@contextmanager
def same_load_everywhere(
    ckpt: Checkpoint, made: Plan, where: Mapping[str, Sharding | None], processes: tuple[int, ...]
) -> Iterator[None]:
    """Around reading: **Raises:** `CheckpointError` or `PlanError` where another of `processes` loads something else.

    Nothing is compared without `jax.distributed`.
    """
    service = Coordination.found()
    if service is None:
        yield
        return
    folder = f"bridge/load/{hashlib.sha256(str(processes).encode()).hexdigest()[:16]}"
    number = _loads.get(processes, 0)
    facts = _facts(ckpt, made, where)
    mine = f"{folder}/{number}/{jax.process_index()}"
    try:
        before = service.below(folder)
        service.put(mine, _entry(facts))
        others = service.below(folder)
        # What a process has given up is compared too, for it is why it did; but not what it gave up before this began.
        over = {text for text in before.values() if json.loads(text)["over"]}
        try:
            _compare(ckpt.source, number, facts, others, over)
            yield
            _compare(ckpt.source, number, facts, service.below(folder), over)
        except BaseException:
            service.put(mine, _entry(facts, over=secrets.token_hex(8)))
            raise
    except UnreachableError as error:
        raise CheckpointError(
            quote(ckpt.source),
            f": the processes cannot tell each other what they load, JAX says: {error}",
            "See whether process 0 still runs",
        ) from error
    _loads[processes] = number + 1
    _forget(service, folder, processes, others)


def _entry(facts: Mapping[str, str | None], *, over: str = "") -> str:
    """What stands for a load; `over` tells one that came to nothing from all others that did."""
    return json.dumps({"facts": facts, "over": over})


def _facts(ckpt: Checkpoint, made: Plan, where: Mapping[str, Sharding | None]) -> dict[str, str | None]:
    """What a process plans, each fact short enough to send; `None` is nothing to compare."""
    keys = sorted(made.keys)
    specs = [(key, made.specs[key].dtype.name, made.specs[key].shape) for key in keys]
    leaves = [(name, str(spec)) for name, spec in sorted(made.leaves.items())]
    return {
        "commit": ckpt.commit,
        "keys": _digest(specs),
        "samples": _samples(ckpt, keys),
        "mapping": _digest([made.texts, leaves, sorted(made.kept), sorted(made.partly), sorted(made.fills.items())]),
        "shardings": _digest([(name, _shown(where[name])) for name in sorted(where)]),
    }


def _digest(what: Any) -> str:
    return hashlib.sha256(repr(what).encode("utf-8", "surrogatepass")).hexdigest()


def _shown(sharding: Sharding | None) -> str:
    """A sharding that is spread, the same in all processes; each may have others for itself."""
    if sharding is None or len({device.process_index for device in sharding.device_set}) < 2:
        return ""
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    devices = [] if mesh is None or mesh.devices is None else [device.id for device in mesh.devices.flat]
    return f"{sharding} {devices}"


def _samples(ckpt: Checkpoint, keys: list[str]) -> str | None:
    """Some bytes from the middle of some tensors: headers say nothing of values. `None` for files far away."""
    found = hashlib.sha256()
    for key in keys[:: max(-(-len(keys) // _SAMPLES), 1)]:
        pending = [ckpt.specs.part(ckpt.specs.numbers[key])]
        while pending:
            tensor = pending.pop()
            pending += tensor.parts
            source = ckpt.byte_source(tensor.file)
            if not isinstance(source, LocalFile):
                return None
            if not tensor.parts:
                sample = bytearray(min(_SAMPLE_NBYTES, tensor.form.nbytes))
                source.readinto([memoryview(sample)], tensor.offset + (tensor.form.nbytes - len(sample)) // 2)
                found.update(sample)
    return found.hexdigest()


def _compare(
    source: str, number: int, facts: Mapping[str, str | None], words: Mapping[str, str], over: Container[str]
) -> None:
    me = jax.process_index()
    for place, text in words.items():
        if not place.startswith(f"{number}/") or text in over:
            continue
        theirs = json.loads(text)["facts"]
        differing = [name for name in _FACTS if None not in (facts[name], theirs[name]) and facts[name] != theirs[name]]
        if differing:
            raise _error(source, [me, int(place.partition("/")[2])], [facts, theirs], differing)


def _error(source: str, processes: list[int], facts: list[Mapping[str, Any]], differing: list[str]) -> BridgeError:
    (one, mine), (other, theirs) = sorted(zip(processes, facts, strict=True), key=lambda pair: pair[0])
    said = [_FACTS[name][0].format(quote(str(mine[name])), quote(str(theirs[name]))) for name in differing]
    problem = f": processes {one} and {other} would load different {' and '.join(said)} into one model"
    if any(_FACTS[name][1] for name in differing):
        return CheckpointError(
            quote(source), problem, "Give all of them the same files, of a repo the same revision='<commit>'"
        )
    return PlanError(quote(source), problem, "Call load with the same template, rules and sharding in all of them")


def _forget(service: Coordination, folder: str, processes: tuple[int, ...], words: Mapping[str, str]) -> None:
    """Take back what this process has left where everyone has gone on to a later load."""
    latest = dict.fromkeys(processes, -1)
    for place in words:
        number, process = map(int, place.split("/"))
        latest[process] = max(latest[process], number)
    for place in words:
        number, process = map(int, place.split("/"))
        if process == jax.process_index() and number < min(latest.values()):
            try:
                service.remove(f"{folder}/{place}")
            except UnreachableError:
                return  # the model is whole, and these are a few words
