"""`--like pkg.module:make`: the template model, from the user's own code."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from bridge._text import quote
from bridge.cli.terminal import UsageError

HOW = "Give --like pkg.module:make, where make() returns the model."


def like(spelling: str) -> Any:
    """The abstract model that a `pkg.module:make` stands for.

    The module is looked for in the current folder too. `make` is called without arguments under
    `eqx.filter_eval_shape`, so it costs no memory.

    **Raises:** `UsageError` for a wrong spelling, for what is not there, and for whatever the user's code raises.
    """
    module, _, path = spelling.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise UsageError(f"--like {quote(spelling)} is no 'pkg.module:make'. {HOW}")
    with _users_code():
        make = _attribute(_imported(module, spelling), path, spelling)
        return _called(make, spelling)


@contextlib.contextmanager
def _users_code() -> Iterator[None]:
    """The current folder can be imported from, and what the code prints stays out of our output."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):  # the code may have changed the path itself
            sys.path.remove(here)


def _imported(module: str, spelling: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is not None and f"{module}.".startswith(f"{e.name}."):
            raise UsageError(f"--like {quote(spelling)}: there is no module {quote(e.name)} here. {HOW}") from e
        raise UsageError(_raised(f"--like {quote(spelling)}: importing {quote(module)}", e)) from e
    except (Exception, SystemExit) as e:  # the user's code may raise anything
        raise UsageError(_raised(f"--like {quote(spelling)}: importing {quote(module)}", e)) from e


def _attribute(module: Any, path: str, spelling: str) -> Callable[[], Any]:
    found = module
    for name in path.split("."):
        if not hasattr(found, name):
            subject = f"--like {quote(spelling)}: {quote(getattr(found, '__name__', type(found).__name__))}"
            raise UsageError(f"{subject} has no {quote(name)}. {HOW}")
        found = getattr(found, name)
    if not callable(found):
        raise UsageError(f"--like {quote(spelling)}: {quote(path)} is no function, but {type(found).__name__}. {HOW}")
    return found


def _called(make: Callable[[], Any], spelling: str) -> Any:
    import equinox as eqx  # seconds, and a wrong spelling is told before

    try:
        return eqx.filter_eval_shape(make)
    except (Exception, SystemExit) as e:  # the user's code may raise anything
        raise UsageError(_raised(f"--like {quote(spelling)}: calling it", e)) from e


def _raised(subject: str, error: BaseException) -> str:
    """What the user's code raised and where, in two lines."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename.startswith(os.path.join(os.getcwd(), ""))]
    text = f"{subject} raised {type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError) or not inside:
        return text
    place = inside[-1]
    return f"{text}\n  in {place.name}, {os.path.relpath(place.filename)} line {place.lineno}: {place.line}"
