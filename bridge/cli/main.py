"""`eqx-bridge`: one program, a file for each command."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from bridge import BridgeError, RuleError, __version__
from bridge.cli import (
    check,
    classify,
    convert,
    demo,
    diff,
    embed,
    generate,
    inspect,
    leaves,
    plan,
    recorder,
    revert,
    suggest,
)
from bridge.cli.options import spoken
from bridge.cli.parser import CommandParser
from bridge.cli.terminal import UsageError, complain

COMMANDS = (
    *(inspect, leaves, suggest, plan, convert, revert, diff, recorder, check),
    *(embed, classify, generate, demo),
)

DONE, PROBLEM, USAGE = 0, 1, 2
INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell says of a program that SIGINT or SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    **Arguments:**

    - `argv`: the words after the program's name; `None` takes them from the process.

    **Returns:** the exit status: 0 done, 1 a problem in the data (and reported), 2 wrong usage; 130 after Ctrl-C, 141
    where the reader of a pipe went away. An error is a message on stderr, never a traceback.
    """
    _accept_any_text()
    try:
        arguments = _parser().parse_args(argv)
        status = arguments.run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written must show here, while it can still be reported
        return status
    except SystemExit as e:  # argparse has spoken: usage, help or the version
        return e.code if isinstance(e.code, int) else USAGE
    except UsageError as e:
        complain(str(e))
        return USAGE
    except BridgeError as e:
        complain(spoken(str(e)))
        return USAGE if isinstance(e, RuleError) else PROBLEM
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
        return BROKEN_PIPE
    except OSError as e:  # a full disk under stdout
        _drop_output()
        complain(f"the system says: {e}")
        return PROBLEM
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="eqx-bridge",
        description="PyTorch and Hugging Face checkpoints into Equinox models, without PyTorch.",
        epilog="Exit status: 0 done, 1 a problem found in the data, 2 wrong usage.",
    )
    parser.add_argument("--version", action="version", version=f"eqx-bridge {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return parser


def _accept_any_text() -> None:
    """A terminal without UTF-8 shows escapes where it lacks a character, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Send what is still buffered nowhere, or Python would complain about it when it exits."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # a stdout without a descriptor has nothing to drop
        pass
