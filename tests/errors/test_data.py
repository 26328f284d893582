"""Every error is data: a subject, a problem and one piece of advice, which its text is made of."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterable

import pytest

from bridge import BridgeError, CheckpointError, PlanError, RuleError, SaveError
from bridge._errors import NoRootError, UnknownKeyError
from tests.errors.situations import SITUATIONS, UNTIL
from tests.errors.texts import outcome

THEIRS = {"store: a library that is missing"}
"""Where a driver's own words, which are part of the problem, advise too; as they may where a text is `UNTIL` theirs."""


def errors() -> Iterable[tuple[str, BridgeError]]:
    """The error of every situation, by its name."""
    return outcome().errors.items()


def is_report(error: BridgeError) -> bool:
    """Whether it tells of many problems, each with advice of its own."""
    first, _, rest = error.problem.partition("\n")
    return isinstance(error, PlanError) and "problem" in first and bool(rest)


def clauses(text: str) -> list[str]:
    """The sentences and clauses of a text, but for what stands in quotes."""
    return re.split(r"[.:;] ", re.sub(r"'[^']*'|`[^`]*`", "…", text))


def test_an_error_has_a_subject_a_problem_and_one_advice():
    verbs = {error.advice.split()[0] for _, error in errors() if error.advice is not None}
    for name, error in errors():
        assert error.subject, name
        assert error.problem, name
        assert (error.advice is None) == is_report(error), name
        if error.advice is None:
            continue
        assert error.advice[0].isupper(), name
        assert not error.advice.endswith("."), name
        assert not re.search(r"[.?] [A-Z]", error.advice), name  # two sentences
        if not UNTIL[name] and name not in THEIRS:
            more = [part for part in clauses(error.problem) if part.split(" ")[0].capitalize() in verbs]
            assert not more, name


def test_a_text_is_made_of_them_and_the_subject_comes_first():
    for name, error in errors():
        text = str(error)
        if error.advice is None:
            assert text == error.problem, name
            continue
        place = f"{error.place}: " if isinstance(error, RuleError) and error.place else ""
        excerpt = error.excerpt if isinstance(error, RuleError) else ""
        assert text.startswith(place + (error.problem if excerpt else error.subject)), name
        assert text.removesuffix(excerpt).rstrip(".").endswith(error.advice.rstrip(".")), name
        assert error.statement.startswith(error.subject), name
        assert error.statement.endswith(error.problem), name


def test_an_error_survives_copies_and_pickles():
    for name, error in errors():
        for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
            assert type(other) is type(error), name
            assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error)), name


@pytest.mark.parametrize(
    "kind", [BridgeError, CheckpointError, UnknownKeyError, NoRootError, RuleError, PlanError, SaveError]
)
def test_no_other_base_changes_what_an_error_says(kind: type[BridgeError]):
    error = kind("'x'", "is closed", "Open it again")
    assert (error.subject, error.problem, error.advice) == ("'x'", "is closed", "Open it again")
    assert error.args == ("'x'", "is closed", "Open it again")
    assert str(error) == "'x' is closed. Open it again."
    assert str(kind("'x'", ": its page is closed", "Did you mean 'y'?")) == "'x': its page is closed. Did you mean 'y'?"
    assert kind("'x'", ": its page is closed", "Wait").problem == "its page is closed"
    assert isinstance(error, OSError) == (kind is SaveError)
    assert not isinstance(error, OSError) or error.errno is None
    with pytest.raises(TypeError, match="problem"):
        kind("'x' is closed")  # pyright: ignore[reportCallIssue]


def test_terminal_commands_in_names_stay_text():
    error = CheckpointError("'\x1b[2J'", "is '\x1b[1m'", "Say \x1b[0m")
    assert f"{error}{error.subject}{error.problem}{error.advice}{error.statement}".isprintable()


def test_situations_are_errors_of_ours():
    assert len(outcome().errors) > 0.98 * len(SITUATIONS)
