"""`eqx-bridge demo` with the trained model: what it shows, and that it is torch-free."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest

from bridge.cli.demo import SENTENCES
from bridge.cli.main import main
from bridge.cli.memory import forget_peak, peak_nbytes, resident_nbytes
from tests.cli.program import run
from tests.craft import checkpoint


@pytest.fixture(scope="module")
def document(minilm: Path) -> dict:
    ended = run("demo", minilm, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    return json.loads(ended.stdout)


def test_it_shows_plan_load_and_similarities(minilm: Path) -> None:
    ended = run("demo", minilm)
    assert (ended.returncode, ended.stderr) == (0, "")
    out = ended.stdout
    assert "encoder.layer.{0..5}.attention.self.query.weight float32[384, 384]" in out
    assert "layers.attention.query.weight float32[6, 384, 384]" in out
    assert re.search(r"^load +90\.9 MB in \d+\.\d+ s, \d+\.\d GB/s$", out, re.M)
    assert re.search(r"^memory +\d+\.\d [MG]B at the peak", out, re.M)
    assert re.search(r"^torch +not loaded: 'torch' in sys.modules is False$", out, re.M)
    assert all(sentence in out for sentence in SENTENCES)
    rows = {line[4:].split("  ")[0]: re.findall(r"-?\d\.\d\d", line) for line in out.splitlines() if line[:1].isdigit()}
    assert list(rows) == list(SENTENCES)
    assert [row[i] for i, row in enumerate(rows.values())] == ["1.00"] * len(SENTENCES)
    assert out.splitlines()[-1] == f"yours    eqx-bridge embed {minilm} 'a cat' 'a kitten' 'the stock market'"


def test_related_sentences_are_nearest(document: dict) -> None:
    similarities = document["similarities"]
    assert similarities[0][1] > 0.4
    assert similarities[2][3] > 0.4
    others = [similarities[a][b] for a in range(5) for b in range(a) if (b, a) not in {(0, 1), (2, 3)}]
    assert max(others) < 0.2


def test_the_document_adds_up(document: dict) -> None:
    assert document["torch"] is False
    assert document["plan"]["ok"]
    assert document["nbytes"] == document["plan"]["nbytes"] == 90_852_864
    assert document["gb_per_second"] == pytest.approx(document["nbytes"] / document["seconds"] / 1e9)
    # All weights are in memory at the end, once; what else the load took is small beside them.
    assert document["nbytes"] < document["peak_nbytes"]
    assert document["added_nbytes"] < 1.5 * document["nbytes"]


@pytest.mark.parametrize("absent", ["config.json", "tokenizer.json"])
def test_what_is_not_beside_the_weights_is_named(
    minilm: Path, tmp_path: Path, absent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        if name != absent:
            (tmp_path / name).symlink_to(minilm / name)
    assert main(["demo", str(tmp_path)]) == 1
    assert f"error: '{tmp_path / absent}' does not exist" in capsys.readouterr().err


def test_what_is_beside_streamed_weights_is_on_no_disk(capsys: pytest.CaptureFixture[str]) -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/demo/model.safetensors", checkpoint({"a": np.zeros(1, np.float32)}))
    store.pipe_file("/demo/config.json", b"{}")
    assert main(["demo", "memory://demo"]) == 1
    store.rm("/demo", recursive=True)
    assert "error: 'memory://demo/config.json' is not on this disk" in capsys.readouterr().err


def test_another_architecture_is_refused(minilm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(minilm, tmp_path / "other", copy_function=lambda a, b: Path(b).symlink_to(a))
    config = json.loads((minilm / "config.json").read_text()) | {"model_type": "roberta"}
    (tmp_path / "other/config.json").unlink()
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    assert main(["demo", str(tmp_path / "other")]) == 1
    assert "model_type" in capsys.readouterr().err


def test_without_source_it_asks_the_hub(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--local-files-only"]) == 1  # nothing is in the cache of these tests
    assert "'sentence-transformers/all-MiniLM-L6-v2'" in capsys.readouterr().err


def test_the_peak_is_counted_anew() -> None:
    taken = bytearray(64 << 20)
    taken[::4096] = b"x" * len(taken[::4096])
    high = peak_nbytes()
    assert high > 64 << 20
    assert resident_nbytes() > 64 << 20
    del taken
    forget_peak()
    if Path("/proc/self/clear_refs").exists():
        assert peak_nbytes() < high - (32 << 20)
    else:
        assert peak_nbytes() >= high
