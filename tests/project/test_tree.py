"""The source tree keeps the project's own rules: small files, one version, nothing that ties it to a machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import bridge

ROOT = Path(__file__).resolve().parents[2]
OURS = (".ci", "bridge", "docs", "scripts", "tests")

MACHINE_PATH = re.compile(r"(?<![\w.$}])/(?:work|farm|root|home|tmp|opt|Users)/\w")
URL_HOST = re.compile(r"(?:https?|ftp|git|ssh)://([^\s/'\"`)>\]}]*)")
# Hosts that a reader may be sent to, or that a file begins with. No package registry is among them: pip knows its own.
HOSTS = {"github.com", "huggingface.co", "keepachangelog.com", "semver.org", "www.apache.org", "arxiv.org"}
HOSTS |= {"git-lfs", "git-lfs.github.com", "example.com", "example.org"}


def files() -> Iterator[Path]:
    """The project's text files: those beside the README, and all in our folders."""
    found = [p for p in ROOT.iterdir() if p.suffix in {".md", ".toml"} or p.name in {".gitignore", "LICENSE"}]
    found += [path for folder in OURS for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in found:
        if "__pycache__" not in path.parts and path.suffix not in {".png", ".safetensors", ".original", ".pyc"}:
            yield path


def is_local(host: str) -> bool:
    """Whether a URL's host is the reader's own machine, an example's, or filled in when the program runs."""
    name = host.partition(":")[0]
    return name in {"", "127.0.0.1", "localhost"} or name[0] in "{…" or name.endswith((".example", ".invalid"))


def test_files_are_short() -> None:
    """Of any kind of Python: the package, its tests, its scripts."""
    lengths = {p.relative_to(ROOT).as_posix(): len(p.read_text().splitlines()) for p in files() if p.suffix == ".py"}
    assert "bridge/__init__.py" in lengths
    assert {name: n for name, n in lengths.items() if n > 300} == {}


def test_the_version_is_the_changelogs() -> None:
    headings = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == bridge.__version__


def test_no_file_names_a_machine() -> None:
    found = {
        f"{path.relative_to(ROOT).as_posix()}:{number}": line.strip()
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if path != Path(__file__) and (MACHINE_PATH.search(line) or foreign_hosts(line))
    }
    assert found == {}


def foreign_hosts(line: str) -> list[str]:
    """The hosts of a line's URLs that a reader has no reason to be sent to."""
    return [host for host in URL_HOST.findall(line) if host not in HOSTS and not is_local(host)]


@pytest.mark.parametrize("line", ["cd /home/me/x", 'open("/tmp/x")', "see https://index.of.packages.org/simple/x"])
def test_that_test_can_fail(line: str) -> None:
    assert MACHINE_PATH.search(line) or foreign_hosts(line)


@pytest.mark.parametrize("line", ["tests/home/x", "$HOME/work/x", "https://huggingface.co/x", "http://127.0.0.1:8/x"])
def test_that_test_can_pass(line: str) -> None:
    assert not MACHINE_PATH.search(line)
    assert not foreign_hosts(line)
