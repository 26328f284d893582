"""Every error of the library says what it is promised to say, and every place that makes one is among them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.errors.promised import read
from tests.errors.sites import sites, sites_of
from tests.errors.situations import SITUATIONS
from tests.errors.texts import outcome

NOT_OURS = {
    ("bridge/cli/parser.py", "super().error(printable(f'{message}{self._meant(message)}'))"),
    ("bridge/cli/parser.py", "self.error(f\"unrecognized arguments: {' '.join(others)}\")"),
}
"""Where Python's `argparse` says in its own words what is wrong with a command line, and ends the process."""


@pytest.mark.parametrize("name", sorted(SITUATIONS))
def test_text(name: str):
    """If the new text is meant: python -m tests.errors"""
    assert outcome().told[name] == read().get(name)


def test_no_text_without_a_situation():
    assert set(read()) <= set(SITUATIONS)


def test_every_text_is_fit_to_be_shown():
    for name, (kind, text) in outcome().told.items():
        assert kind != "nothing", name
        assert text.replace("\n", "").isprintable(), name
        assert re.search(r"[^.'/]\.\.($|\s)", text) is None, name  # a full stop too many


def test_every_site_is_reached():
    """A new error? Add its situation to a file beside this one and run python -m tests.errors."""
    left = [site for site in sites() if site not in outcome().reached and (site.file, site.text) not in NOT_OURS]
    assert not left, "\n".join(f"{site.file}:{site.first}: {site.text}" for site in left)
    assert {(site.file, site.text) for site in sites()} >= NOT_OURS


def test_sites_are_found(tmp_path: Path):
    path = tmp_path / "x.py"
    path.write_text(
        "def no() -> NoReturn:\n    raise ValueError\n"
        "def f():\n    no('text')\n    problem = 'text'\n    problem, e = f'{1}', 2\n    raise errors.SaveError(problem)\n"
        "    raise\n    raise ValueError('x')\n    problem = f()\n"
    )
    assert [site.first for site in sites_of(path)] == [4, 5, 6, 7]
