"""Loads from a local server that answers as the Hub does, and the server itself: `python -m bench.hub FOLDER`."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bench.ours import RULES, flattened, like
from bench.work import Work

Run = Callable[[], Any]
_PART = "model.layers.1."
"""What of a repo the partial loads want: a layer, in one of four files."""


def main(folder: Path) -> None:
    """Serve every checkpoint below `folder` until stdin ends; each line of it is answered by what was sent so far."""
    from tests.hub.server import COMMIT, Repo, serving

    class Lazy(dict[str, Repo]):
        def get(self, name: str, default: Any = None) -> Any:
            if name not in self:
                # What other ways have put beside the checkpoint is no part of the repo.
                found = (folder / name.removeprefix("bench/")).iterdir()
                paths = [p for p in found if p.suffix in (".safetensors", ".json")]
                contents = {p.name: memoryview(np.memmap(p, np.uint8, mode="r")) for p in paths}
                self[name] = Repo({COMMIT: contents}, {"main": COMMIT})  # pyright: ignore[reportArgumentType]
            return self[name]

    with serving() as hub:
        hub.repos = Lazy()
        print(json.dumps(hub.url), flush=True)  # noqa: T201 - the answer is what this program is for
        for line in sys.stdin:
            if line.strip():
                name = line.strip()
                hub.web = {f"/{name}/{n}": c for n, c in hub.repos.get(f"bench/{name}").commits[COMMIT].items()}
                print(json.dumps(hub.web_url), flush=True)  # noqa: T201
            else:
                sent = {"requests": len(hub.requests), "nbytes": sum(r.nbytes for r in hub.requests)}
                print(json.dumps(sent), flush=True)  # noqa: T201


class Server:
    """The server as the measured process sees it."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "bench.hub", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self.close)
        self.url = self.read()
        self.before = {"requests": 0, "nbytes": 0}

    def read(self) -> Any:
        """Its next answer."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def ask(self, text: str = "") -> Any:
        """What it answers to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


_running: list[Server] = []
"""The one server of this process: huggingface_hub learns of it when it is imported, and never again."""


def server(work: Work) -> Server:
    """The server of all checkpoints that lie where `work` does."""
    if not _running:
        _running.append(Server(work.folder.parent))
        os.environ |= {"HF_ENDPOINT": _running[0].url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return _running[0]


def traffic() -> dict[str, int]:
    """Requests and bytes since the last call; nothing where no server runs."""
    if not _running:
        return {}
    now = _running[0].ask()
    before, _running[0].before = _running[0].before, now
    return {name: now[name] - before[name] for name in now}


def _repo(work: Work) -> str:
    """The repo's name. The server has hashed its files: a load does not wait for that."""
    server(work)
    import huggingface_hub

    repo = f"bench/{work.folder.name}"
    huggingface_hub.HfApi(token=False).model_info(repo, files_metadata=True)
    return repo


def _loading(work: Work, source: str, *, partial: bool = False, **options: Any) -> Run:
    import jax

    import bridge

    template, rules = like(work), RULES[work.kind]
    if not partial:
        return lambda: flattened(jax.block_until_ready(bridge.load(source, template, rules, **options)))
    part = {key: jax.ShapeDtypeStruct(p.shape, work.dtype) for key, p in work.places.items() if key.startswith(_PART)}
    return lambda: list(jax.block_until_ready(bridge.load(source, part, allow_unexpected=["**"], **options)).values())


def _cache() -> str:
    folder = tempfile.TemporaryDirectory(prefix="bench-hub-")
    atexit.register(folder.cleanup)
    return folder.name


def load(work: Work) -> Run:
    """`bridge.load("org/name")` with an empty cache."""
    return _loading(work, _repo(work), cache_dir=_cache())


def partial(work: Work) -> Run:
    """One layer by `bridge.load("org/name")` with an empty cache."""
    return _loading(work, _repo(work), partial=True, cache_dir=_cache())


def stream(work: Work) -> Run:
    """`bridge.load("hf://org/name")`: no disk."""
    return _loading(work, f"hf://{_repo(work)}")


def partial_stream(work: Work) -> Run:
    """One layer by `bridge.load("hf://org/name")`."""
    return _loading(work, f"hf://{_repo(work)}", partial=True)


def web(work: Work) -> Run:
    """`bridge.load("http://…")`."""
    return _loading(work, f"{server(work).ask(work.folder.name)}/{work.folder.name}")


def _snapshot(work: Work, *, partial: bool) -> Run:
    import huggingface_hub

    repo, folder = _repo(work), _cache()

    def run() -> Any:
        paths = {
            path.name: huggingface_hub.hf_hub_download(repo, path.name, cache_dir=folder, token=False)
            for path in (*work.paths, work.folder / "model.safetensors.index.json")
            if path.exists()
        }
        return _loading(work, str(Path(next(iter(paths.values()))).parent), partial=partial)()

    return run


def fetched(work: Work) -> Run:
    """`hf_hub_download` of every file, then `bridge.load` of where they lie."""
    return _snapshot(work, partial=False)


def partial_fetched(work: Work) -> Run:
    """The same for one layer: what who knows nothing of headers has to do."""
    return _snapshot(work, partial=True)


def plain(work: Work) -> Run:
    """One GET for every file, two at once, into fresh memory."""
    host = urlsplit(server(work).ask(work.folder.name)).netloc

    def get(path: Path) -> np.ndarray:
        connection = http.client.HTTPConnection(host)
        connection.request("GET", f"/{work.folder.name}/{path.name}")
        answer = connection.getresponse()
        into = memoryview(np.empty(answer.length or 0, np.uint8))
        done = 0
        while done < len(into):
            done += answer.readinto(into[done:])
        connection.close()
        return np.asarray(into)

    def run() -> list[np.ndarray]:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(get, work.paths))

    return run


if __name__ == "__main__":
    main(Path(sys.argv[1]))
