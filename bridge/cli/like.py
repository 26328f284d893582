"""`--like pkg.module:make` or `--like path/to/file.py:make`: the template model, from the user's own code."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.abc
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from bridge._text import quote
from bridge.cli.terminal import UsageError

HOW = "Give --like pkg.module:make or --like path/to/file.py:make, where make() returns the model."


def like(spelling: str) -> Any:
    """The abstract model that a `pkg.module:make` or a `path/to/file.py:make` stands for.

    A module is looked for in the current folder too, and what a file imports beside it. `make` is called without
    arguments under `eqx.filter_eval_shape`, so it costs no memory.

    **Raises:** `UsageError` for a wrong spelling, for what is not there, and for whatever the user's code raises.
    """
    named = _named(spelling)
    with _users_code(named):
        return _called(_made_by(named), named)


def values(spelling: str) -> Callable[[str, Any], Any]:
    """`leaf_values` of the model that `spelling` stands for."""
    named = _named(spelling)

    def make() -> Any:
        with _users_code(named):
            return _made_by(named)()

    return leaf_values(make)


def leaf_values(make: Callable[[], Any]) -> Callable[[str, Any], Any]:
    """A function of a leaf's name and spec that gives the value which `make()` has there: what `allow_missing` takes.

    An abstract template has none. The other leaves are not computed.
    """

    def value(name: str, _spec: Any) -> Any:
        import equinox as eqx  # seconds, and few leaves are missing
        import jax

        from bridge.model.template import take_apart

        place = take_apart(eqx.filter_eval_shape(make)).arrays[name].place
        return eqx.filter_jit(lambda: jax.tree.leaves(make())[place])()

    return value


def function(spelling: str, option: str, what: str) -> Callable[..., Any]:
    """A function of the user's that is called with arguments: `--trace pkg.module:run`.

    **Raises:** `UsageError` as `like` does, and where the function that is returned raises.
    """
    named = _named(spelling, option, f"Give {option} pkg.module:run or {option} path/to/file.py:run, {what}.")
    with _users_code(named):
        found = _made_by(named)

    @functools.wraps(found)
    def called(*args: Any, **kwargs: Any) -> Any:
        with _users_code(named):
            try:
                return found(*args, **kwargs)
            except (Exception, SystemExit) as e:  # the user's code may raise anything
                raise _raised(named, "calling it", e) from e

    return called


class _Named(NamedTuple):
    """A spelling taken apart: where the code is, and what is called. `module` may be a file."""

    spelling: str
    module: str
    path: str
    option: str
    how: str

    @property
    def is_file(self) -> bool:
        return self.module.endswith(".py")

    @property
    def folder(self) -> str:
        """Where to import from."""
        return os.path.dirname(os.path.abspath(self.module)) if self.is_file else os.getcwd()

    def error(self, problem: str) -> UsageError:
        return UsageError(f"{self.option} {quote(self.spelling)}{problem}")


def _named(spelling: str, option: str = "--like", how: str = HOW) -> _Named:
    module, _, path = spelling.rpartition(":")
    named = _Named(spelling, module, path, option, how)
    parts = path.split(".") if named.is_file else [*module.split("."), *path.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise named.error(f" is not 'pkg.module:{'make' if option == '--like' else 'run'}'. {how}")
    return named


@contextlib.contextmanager
def _users_code(named: _Named) -> Generator[None]:
    """The folder can be imported from, and what the code prints stays out of our output."""
    folder = named.folder
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):  # the code may have changed the path itself
            sys.path.remove(folder)


def _made_by(named: _Named) -> Callable[[], Any]:
    return _attribute(_from_file(named) if named.is_file else _imported(named), named)


def _imported(named: _Named) -> Any:
    module = named.module
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name is not None and f"{module}.".startswith(f"{e.name}."):
            raise named.error(f": there is no module {quote(e.name)} here. {named.how}") from e
        raise _raised(named, f"importing {quote(module)}", e) from e
    except (Exception, SystemExit) as e:  # the user's code may raise anything
        raise _raised(named, f"importing {quote(module)}", e) from e


def _from_file(named: _Named) -> Any:
    """The module that a file holds, under the file's name where no other module has it."""
    path = os.path.abspath(named.module)
    if not os.path.isfile(path):
        raise named.error(f": there is no file {quote(named.module)}. {named.how}")
    name = os.path.basename(path).removesuffix(".py").replace(".", "_")
    if getattr(sys.modules.get(name), "__file__", path) != path or name in sys.builtin_module_names:
        name = f"{name} (file)"
    finder = _ModuleFinder(name, path)
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as e:  # the user's code may raise anything
        raise _raised(named, f"running {quote(named.module)}", e) from e
    finally:
        sys.meta_path.remove(finder)


class _ModuleFinder(importlib.abc.MetaPathFinder):
    """Where one module is found."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """The file, for the module's name."""
        return importlib.util.spec_from_file_location(fullname, self.path) if fullname == self.name else None


def _attribute(module: Any, named: _Named) -> Callable[[], Any]:
    found = module
    for name in named.path.split("."):
        if not hasattr(found, name):
            owner = quote(getattr(found, "__name__", type(found).__name__))
            raise named.error(f": {owner} has no {quote(name)}. {named.how}")
        found = getattr(found, name)
    if not callable(found):
        raise named.error(f": {quote(named.path)} is not a function, but {type(found).__name__}. {named.how}")
    return found


def _called(make: Callable[[], Any], named: _Named) -> Any:
    import equinox as eqx  # seconds, and a wrong spelling is told before

    try:
        return eqx.filter_eval_shape(make)
    except (Exception, SystemExit) as e:  # the user's code may raise anything
        raise _raised(named, "calling it", e) from e


def _raised(named: _Named, doing: str, error: BaseException) -> UsageError:
    """What the user's code raised and where, in two lines."""
    frames = traceback.extract_tb(error.__traceback__)
    folders = tuple(os.path.join(folder, "") for folder in (os.getcwd(), named.folder))
    inside = [frame for frame in frames if frame.filename.startswith(folders)]
    text = f": {doing} raised {type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError) or not inside:
        return named.error(text)
    place = inside[-1]
    where = f"{os.path.relpath(place.filename)} line {place.lineno}"
    return named.error(f"{text}\n  in {place.name}, {where}: {place.line}")
