"""Targets that cannot be written, and models that cannot be saved."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import bridge
from bridge.target.writer import check_length, verify_ranges
from tests.errors.reading import INDEX, A, failing, good
from tests.errors.situations import situation
from tests.save.files import write
from tests.torchfile import craft

ALL = "** -> **"


def _save(name: str, model: Any, target: str = "out", rules: Any = ALL, **options: Any) -> None:
    situation(f"save: {name}")(
        lambda patch: bridge.save(model() if callable(model) else model, target, rules, **options)
    )


_save("to a URL", {"a": A}, "s3://bucket/model")
_save("a size that is none", {"a": A}, max_shard_size="five")
_save("metadata that is no text", {"a": A}, metadata={"n": 1})
_save("a model without arrays", {"a": "text"})
_save("an abstract model", {"a": jax.ShapeDtypeStruct((3,), jnp.float32)})
_save("a packed dtype", {"a": np.zeros(4, ml_dtypes.float4_e2m1fn)})
_save("a dtype that has no name", {"a": np.zeros(4, ml_dtypes.int4)})
_save("leave_out names nothing", {"a": A}, leave_out=["x.**"])
_save("half of a key left out", {"a": A, "b": A}, rules=["c [((a|b) n)] -> {a|b} [n]"], leave_out=["b"])
_save("a copy that has changed", {"a": A, "b": A + 1}, rules=["a -> b ; copy=true", "a -> a"])


@situation("save: a new leaf named as a key of the plan")
def _(patch: pytest.MonkeyPatch) -> None:
    plan = bridge.plan(write(Path("model.safetensors"), {"head": np.asarray(A)}), {"w": A}, ["head -> w"])
    bridge.save({"w": A, "head": A}, "out", plan)


_save("rules that name nothing", {"a": A}, rules=["x.** -> y.**"])
_save("a dtype that loses what matters", {"a": np.zeros(3, ml_dtypes.float8_e4m3fn)}, dtype=jnp.float32)
_save("a dtype that is none", {"a": A}, dtype="f99")
_save("a key that UTF-8 cannot hold", {"\ud800": A})
_save("a stack whose index no rule places", {"w": np.zeros((2, 3), np.float32)}, rules=["l.w [x] -> w [l x]"])
_save("a choice of the key side alone", {"resample": {"w": A}}, rules=["{down|up}samplers.0.** -> resample.**"])


def _base(name: str, base: Callable[[], Path], rules: Any = ALL, **options: Any) -> None:
    @situation(f"save: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        found = base()
        plan = (
            bridge.plan(write(Path("planned.safetensors"), {"a": np.asarray(A)}), {"a": A}) if rules is None else rules
        )
        bridge.save({"a": A}, "out", plan, base=found, **options)


def _with_sparse() -> Path:
    sparse = craft.call(craft.name("torch._utils", "_rebuild_sparse_tensor"), craft.NONE)
    file = Path("base.bin")
    file.write_bytes(craft.archive(craft.dict_of({**craft.GOOD, "s": sparse})))
    return file


def _fp8() -> Path:
    codes = np.zeros((3, 1), ml_dtypes.float8_e4m3fn)
    return write(Path("base.safetensors"), {"b.weight": codes, "b.weight_scale_inv": np.ones((1, 1), np.float32)})


def _converted() -> Path:
    bridge.convert(write(Path("one.safetensors"), {"a": np.asarray(A)}), "converted", {"a": A})
    return Path("converted")


_base("a base without a key of the plan", lambda: write(Path("base.safetensors"), {"b": np.zeros(3)}), None)
_base("a base with a key of another shape", lambda: write(Path("base.safetensors"), {"a": np.zeros(7)}), None)
_base("a base with a key that cannot be read", _with_sparse)
_base("a base that is stored quantised", _fp8)
_base("a base that is converted", _converted)
_base(
    "a base that has elements in another dtype",
    lambda: write(Path("base.safetensors"), {"w": np.zeros((5,), np.float32)}),
    "w [v[:3]] -> a [v]",
    dtype="bf16",
)


def _deleted() -> Any:
    array = jnp.zeros(3)
    array.delete()
    return {"a": array}


_save("an array that was donated", _deleted)


@situation("save: without overwrite")
def _(patch: pytest.MonkeyPatch) -> None:
    good("model.safetensors")
    bridge.save({"a": A}, ".", ALL)


@situation("save: a folder called like a file")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("x.safetensors").mkdir()
    bridge.save({"a": A}, "x.safetensors", ALL)


@situation("save: a file where a folder is named")
def _(patch: pytest.MonkeyPatch) -> None:
    Path("out").write_text("")
    bridge.save({"a": A}, "out", ALL)


def _disk(name: str, call: str, number: int) -> None:
    @situation(f"save: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        good("model.safetensors")
        failing(patch, os, call, number)
        bridge.save({"a": A}, ".", ALL, overwrite=True)


_disk("a full disk", "pwrite", errno.ENOSPC)
_disk("a read-only folder", "mkdir", errno.EROFS)
_disk("a rename that fails", "rename", errno.EACCES)


@situation("save: a disk that loses bytes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "pwrite", lambda _descriptor, data, _at: len(data))
    bridge.save({"a": A}, "out", ALL)


@situation("save: what reads back otherwise")
def _(patch: pytest.MonkeyPatch) -> None:
    real = os.pread
    patch.setattr(os, "pread", lambda *arguments: real(*arguments)[:-1] + b"?")
    bridge.save({"a": A}, "out", ALL, verify=True)


@situation("save: a header that no reader takes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("bridge.format.encode.MAX_HEADER_NBYTES", 10)
    bridge.save({"a": A}, "out", ALL)


@situation("save: somebody else's file in the way")
def _(patch: pytest.MonkeyPatch) -> None:
    def meanwhile(done: int, nbytes: int) -> None:
        if done == nbytes:
            Path("out").mkdir(exist_ok=True)
            for n in (1, 2):
                Path(f"out/model-0000{n}-of-00002.safetensors").write_text("mine")

    bridge.save({"a": A, "b": A}, "out", ALL, max_shard_size=1, overwrite=True, progress=meanwhile)


def _planned(model: Any, **options: Any) -> Callable[[pytest.MonkeyPatch], Any]:
    def provoke(patch: pytest.MonkeyPatch) -> None:
        plan = bridge.plan(good(), None)
        bridge.save(model, "out", plan, **options)

    return provoke


situation("save: by a plan of another model")(_planned({"b": A}))
situation("save: by a plan of another shape")(_planned({"a": np.zeros(4, np.float32)}))


@situation("save: a value that does not fit")
def _(patch: pytest.MonkeyPatch) -> None:
    write(Path("x.safetensors"), {"a": np.zeros(3, np.int8)})
    plan = bridge.plan("x.safetensors", {"a": jax.ShapeDtypeStruct((3,), jnp.int32)})
    bridge.save({"a": np.full(3, 300, np.int32)}, "out", plan)


@situation("revert: into a folder behind a link")
def _(patch: pytest.MonkeyPatch) -> None:
    write(Path("source/part/x.safetensors"), {"a": A})
    Path("source", INDEX).write_text('{"weight_map": {"a": "part/x.safetensors"}}')
    bridge.convert("source", "converted")
    for name in ("out", "elsewhere"):
        Path(name).mkdir()
    os.symlink("../elsewhere", "out/part")
    bridge.revert("converted", "out", overwrite=True)


@situation("save: an array spread over processes")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(type(jnp.zeros(1).sharding), "is_fully_addressable", property(lambda _: False))
    bridge.save({"a": cast("Any", jnp.zeros(3))}, "out", ALL)


@situation("save: a disk that loses bytes of several processes")
def _(patch: pytest.MonkeyPatch) -> None:
    check_length(Path(good()), 1000, shown="x.safetensors")


@situation("save: what reads back otherwise, of several processes")
def _(patch: pytest.MonkeyPatch) -> None:
    verify_ranges(Path(good()), [(0, A)], shown="x.safetensors")


@situation("save: a model that this process has no part of")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(type(jnp.zeros(1).sharding), "is_fully_addressable", property(lambda _: False))
    patch.setattr(jax, "process_index", lambda: 3)
    bridge.save({"a": cast("Any", jnp.zeros(3))}, "out", ALL)
