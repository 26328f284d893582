"""Several processes that load or save one model, played by one of them and a stand-in for JAX's coordination service."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import bridge
import bridge.api.together
from bridge.place import agreement, save_group
from bridge.place.coordination import Coordination
from tests.errors.situations import situation
from tests.place.test_coordination import Client
from tests.save.files import write

FOLDER = f"bridge/save/{hashlib.sha256(b'(0, 1)').hexdigest()[:16]}/0"
Words = Callable[[dict[str, str]], dict[str, str]]


class Company(Client):
    """A service by which the other process has said `words`, which may depend on what this one said."""

    def __init__(self, words: Words) -> None:
        super().__init__(1000)
        self.others = words

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        mine = {key.removeprefix(f"{FOLDER}/"): text for key, text in self.words.items()}
        return [(f"{FOLDER}/{key}", text) for key, text in (mine | self.others(mine)).items()]


def meet(patch: pytest.MonkeyPatch, client: Client, me: int = 0) -> None:
    """This process is `me` of two that have parts of the model."""
    patch.setattr(Coordination, "found", classmethod(lambda cls: cls(client)))
    patch.setattr("bridge.place.sharding.spanned", lambda _: (0, 1))
    patch.setattr(agreement, "_loads", {})
    patch.setattr(save_group, "_before", {})
    patch.setattr("bridge.api.save.processes", lambda _: (0, 1))
    patch.setattr(jax, "process_index", lambda: me)


def _saving(name: str, words: Words, *, me: int = 0, value: int = 1) -> None:
    """A save that goes wrong by what the other process says, or by a value that does not fit into its key."""

    @situation(f"processes: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        for module, limit in ((save_group, "LATENESS"), (save_group, "PATIENCE"), (bridge.api.together, "VISIBLE")):
            patch.setattr(module, limit, 0.0)
        write(Path("x.safetensors"), {"a": np.zeros(8, np.int8)})
        plan = bridge.plan("x.safetensors", {"a": jax.ShapeDtypeStruct((8,), jnp.int32)})
        mesh = NamedSharding(Mesh(np.array(jax.devices()[:1]), "a"), P("a"))
        model = {"a": jax.device_put(np.full(8, value, np.int32), mesh)}
        meet(patch, Company(words), me)
        bridge.save(model, "out", plan)


def _gone(_: dict[str, str]) -> dict[str, str]:
    """Process 0, and with it the service, has ended."""
    raise jax.errors.JaxRuntimeError("UNAVAILABLE: it is gone")


def _agreeing(words: dict[str, str]) -> dict[str, str]:
    """The other process has decided what this one has, and has written half a byte more than there is."""
    digest = json.loads(words["0/decided"])[0]
    return {"1/decided": json.dumps([digest, []]), "1/written": "4"}


_saving("one comes too late", lambda _: {})
_saving("one gives no sign of life", lambda _: {"1/alive": "7"})
_saving("the one that commits gives no sign of life", lambda _: {"0/alive": "7"}, me=1)
_saving("a service that ends", _gone)
_saving("one fails", lambda _: {"1/failed": '["key \'a\' holds 300", "Save it wider"]'})
_saving("they save different files", lambda _: {"1/decided": '["another", []]'})
_saving("they have more than there is", _agreeing)
_saving("a value that does not fit", _agreeing, value=300)
_saving(
    "one does not see the folder",
    lambda _: {"0/staged": json.dumps({"folder": "unseen", "names": [], "whole": {}})},
    me=1,
)


@situation("processes: a service that does not answer")
def _(patch: pytest.MonkeyPatch) -> None:
    write(Path("x.safetensors"), {"a": np.ones(3, np.float32)})
    meet(patch, Client(0))
    bridge.load("x.safetensors", None)


class Differing(Client):
    """A service by which the other process loads the same, but for one `fact`."""

    def __init__(self, fact: str) -> None:
        super().__init__(1000)
        self.fact = fact

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        mine = super().key_value_dir_get(folder)
        theirs = [(f"{key[:-1]}1", json.loads(text)) for key, text in mine if key.endswith("/0")]
        for _, entry in theirs:
            entry["facts"][self.fact] = "another"
        return mine + [(key, json.dumps(entry)) for key, entry in theirs]


def _loading(name: str, fact: str) -> None:
    @situation(f"processes: {name}")
    def _(patch: pytest.MonkeyPatch) -> None:
        write(Path("x.safetensors"), {"a": np.ones(3, np.float32)})
        meet(patch, Differing(fact))
        bridge.load("x.safetensors", None)


_loading("they load files that differ", "keys")
_loading("they load by other rules", "mapping")
