"""What is said where JAX's coordination service does not answer, with a stand-in for it."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import bridge
from bridge.place import agreement, save_group
from bridge.place.coordination import Coordination
from tests.errors.promised import text_of
from tests.save.files import write


class Client:
    """JAX's client, as far as it is used: it answers a number of times."""

    def __init__(self, answers: int) -> None:
        self.answers, self.words = answers, {}

    def answer(self) -> None:
        self.answers -= 1
        if self.answers < 0:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: it is gone\nmore of it")

    def key_value_set(self, key: str, text: str, allow_overwrite: bool = False) -> None:
        assert allow_overwrite
        self.answer()
        self.words[key] = text

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        self.answer()
        return [(key, text) for key, text in self.words.items() if key.startswith(folder)]

    def key_value_delete(self, key: str) -> None:
        self.answer()
        self.words = {name: text for name, text in self.words.items() if not f"{name}/".startswith(f"{key}/")}


@pytest.fixture
def spread(monkeypatch: pytest.MonkeyPatch):
    """A model of which another process, 1, has the rest; how often the service answers is for the test to say."""

    def answering(answers: int) -> Client:
        client = Client(answers)
        monkeypatch.setattr(Coordination, "found", classmethod(lambda cls: cls(client)))
        return client

    monkeypatch.setattr("bridge.place.sharding.spanned", lambda _: (0, 1))
    monkeypatch.setattr(agreement, "_loads", {})
    monkeypatch.setattr(save_group, "_before", {})
    return answering


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_load(tmp_path, spread, answers: int):
    """Before a weight is read or after: never a model that nobody has compared."""
    write(tmp_path / "x.safetensors", {"a": np.ones(3, np.float32)})
    spread(answers)
    with pytest.raises(bridge.CheckpointError) as caught:
        bridge.load(tmp_path / "x.safetensors", None)
    assert str(caught.value) == (
        text_of("processes: a service that does not answer").replace("'x.safetensors'", f"'{tmp_path}/x.safetensors'")
    )


def test_load_takes_back_what_it_has_said(tmp_path, spread):
    """Once every process has gone on, what was said before is gone too."""
    write(tmp_path / "x.safetensors", {"a": np.ones(3, np.float32)})
    client = spread(1000)
    for number in range(3):
        bridge.load(tmp_path / "x.safetensors", None)
        (folder,) = {key.rpartition("/")[0].rpartition("/")[0] for key in client.words}
        client.words[f"{folder}/{number}/1"] = client.words[f"{folder}/{number}/0"]
    assert sorted(key.removeprefix(folder) for key in client.words if key.endswith("/0")) == ["/1/0", "/2/0"]


def test_save(tmp_path, spread, monkeypatch: pytest.MonkeyPatch):
    array = jax.device_put(np.ones(8, np.float32), NamedSharding(Mesh(np.array(jax.devices()[:1]), "a"), P("a")))
    monkeypatch.setattr("bridge.api.save.processes", lambda _: (0, 1))
    spread(0)
    with pytest.raises(bridge.SaveError) as caught:
        bridge.save({"a": array}, tmp_path / "out", ["** -> **"])
    text = "the processes that save together cannot reach each other, JAX says: UNAVAILABLE: it is gone. "
    text += "See whether process 0 still runs."
    assert str(caught.value) == text
    assert not (tmp_path / "out").exists()
