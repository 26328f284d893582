"""The examples on our pages run, and print what the pages say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import pytest

from tests.project.markdown import Section, sections

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SECTIONS = [s for page in PAGES for s in sections(page.read_text(), page.relative_to(ROOT).as_posix())]


def marked(section: Section) -> Any:
    """A section that is held against transformers, or needs files of PyTorch's, imports PyTorch."""
    heavy = ("import transformers", "import torch")
    marks = [pytest.mark.torch] if any(name in step.text for step in section.steps for name in heavy) else []
    return pytest.param(section, marks=marks, id=f"{section.page}: {section.title}")


@pytest.mark.parametrize("section", [marked(section) for section in SECTIONS])
def test_page(section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"):  # as a reader has it; equinox.nn.BatchNorm needs it
        section.run()


def test_the_first_screen_is_among_them() -> None:
    assert any(section.page == "README.md" for section in SECTIONS[:1])


def page(text: str) -> list[Section]:
    return sections(text.replace("'''", "```"), "page.md")


def test_blocks_of_a_section_share_names_and_setup_is_run() -> None:
    (section,) = page("# A\n<!-- setup\nx = 1\n-->\n'''python\nx += 1\n'''\ntext\n'''python\nassert x == 2\n'''\n")
    section.run()


def test_sections_do_not_share_names() -> None:
    first, second = page("# A\n'''python\nx = 1\n'''\n## B\n'''python\nx\n'''\n")
    first.run()
    with pytest.raises(NameError):
        second.run()


def test_a_wrong_output_is_found() -> None:
    text = "'''python\nprint('a')\nprint('b')\n'''\n<!-- prints -->\n'''text\na\n%s\n'''\n"
    for section in page(text % "b"):
        section.run()
    with pytest.raises(AssertionError, match=r"page\.md, line 7: the code above prints\na\nb"):
        page(text % "c")[0].run()


def test_an_error_shows_the_line_of_the_page() -> None:
    (section,) = page("# A\n\n'''python\n\n1 / 0\n'''\n")
    with pytest.raises(ZeroDivisionError) as caught:
        section.run()
    assert caught.traceback[-1].lineno + 1 == 5


def test_what_cannot_run_says_so() -> None:
    assert page("<!-- not run: needs the Hub -->\n'''python\n1 / 0\n'''\n'''bash\nls\n'''\n") == []
    with pytest.raises(ValueError, match="would not run anyway"):
        page("<!-- not run: needs the Hub -->\n'''bash\nls\n'''\n")
