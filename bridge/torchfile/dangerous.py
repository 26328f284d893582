"""Names that only a file made to do harm asks for.

The list words a warning. It cannot be complete, and need not be: nothing that a pickle names is ever called.
"""

from __future__ import annotations

_ANYWHERE = frozenset({"os", "nt", "posix", "subprocess", "importlib", "runpy", "sys"})
"""Modules that a dotted name can walk to from an innocent one."""

_AT_THE_TOP = frozenset({
    *("bdb", "codeop", "ctypes", "ftplib", "marshal", "pdb", "pickle", "pip", "popen2", "pty", "shutil", "smtplib"),
    *("socket", "timeit", "urllib", "webbrowser", "_pickle", "_posixsubprocess"),
})  # fmt: skip

_BUILTINS = frozenset({
    *("__import__", "breakpoint", "compile", "delattr", "eval", "exec", "execfile", "globals", "input", "locals"),
    *("open", "setattr", "vars"),
})  # fmt: skip
"""Others, such as `getattr` and `set`, stand in honest pickles of enumerations and containers."""

_EXACT = frozenset({
    *("io.FileIO", "io.open", "io.open_code", "_io.FileIO", "_io.open", "_io.open_code"),
    *("code.InteractiveConsole", "code.InteractiveInterpreter", "code.interact", "commands.getoutput"),
    *("numpy.load", "numpy.testing._private.utils.runstring", "pandas.read_pickle", "torch.load", "torch.hub.load"),
    *("torch.jit.load", "torch.package.PackageImporter", "torch.utils.collect_env.run"),
})  # fmt: skip


def named(path: str) -> str | None:
    """The dangerous name in `path`, such as `os.system` in `torch.serialization.os.system`; None if there is none."""
    segments = path.split(".")
    for place, segment in enumerate(segments[:-1]):
        if segment in _ANYWHERE or (segment.strip("_") in ("builtin", "builtins") and segments[place + 1] in _BUILTINS):
            return ".".join(segments[place:])
    return path if segments[0] in _AT_THE_TOP or path in _EXACT else None
