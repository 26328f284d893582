"""Runs the Python of a Markdown page as a reader would: each section from its top, block after block.

- A block of ```` ```python ```` runs. The blocks of a section (from one `#` or `##` heading to the next) share one
  namespace, and an empty folder as the current one.
- `<!-- setup` … `-->` holds Python that readers do not see: it runs in its place among the blocks.
- `<!-- prints -->` stands before a block of another language: the Python before it printed exactly that.
- `<!-- not run: WHY -->` stands before a Python block that cannot run here, and says why.
"""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass, field
from typing import Any, Literal

PIECE = re.compile(
    r"""^(?:
      (?P<heading>\#{1,2}[ ][^\n]*)
    | <!--[ ]setup\n(?P<setup>.*?)\n-->
    | (?P<mark><!--[ ](?:prints|not[ ]run:[ ][^\n]+)[ ]-->)\s*\n(?P<marked>```.*?\n```)
    | (?P<block>```.*?\n```)
    )[ ]*$""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Step:
    """A piece of a section: Python to run, or text that was to be printed. `line` is where it starts in the page."""

    kind: Literal["run", "prints"]
    text: str
    line: int


@dataclass
class Section:
    """What stands between two headings of a page."""

    page: str
    title: str
    steps: list[Step] = field(default_factory=list)

    def run(self) -> None:
        """Run it in the current folder. A wrong output is an AssertionError; tracebacks show the page's own lines."""
        names: dict[str, Any] = {"__name__": "__main__"}
        printed = io.StringIO()
        for step in self.steps:
            if step.kind == "prints":
                shown, printed = printed.getvalue(), io.StringIO()
                where = f"{self.page}, line {step.line}"
                assert shown.rstrip("\n") == step.text, f"{where}: the code above prints\n{shown}"
                continue
            code = compile("\n" * (step.line - 1) + step.text, self.page, "exec", dont_inherit=True)
            with contextlib.redirect_stdout(printed):
                exec(code, names)


def sections(text: str, page: str) -> list[Section]:
    """The sections of a page that have something to run."""
    found = [Section(page, "")]
    for piece in PIECE.finditer(text):
        line = text.count("\n", 0, piece.start()) + 1
        if piece["heading"]:
            found.append(Section(page, piece["heading"].lstrip("# ")))
        elif piece["setup"]:
            found[-1].steps.append(Step("run", piece["setup"], line + 1))
        else:
            found[-1].steps += _block(piece["block"] or piece["marked"], piece["mark"] or "", line, page)
    return [section for section in found if section.steps]


def _block(block: str, mark: str, line: int, page: str) -> list[Step]:
    """The step that a fenced block is, if any."""
    language, _, body = block[3:-3].rstrip("\n").partition("\n")
    if mark:
        line += 1
    if mark.startswith("<!-- prints"):
        if language == "python":
            raise ValueError(f"{page}, line {line}: a Python block is not what something printed")
        return [Step("prints", body, line + 1)]
    if language != "python":
        if mark:
            raise ValueError(f"{page}, line {line}: 'not run' stands before a block that would not run anyway")
        return []
    return [] if mark else [Step("run", body, line + 1)]
