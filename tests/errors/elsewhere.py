"""Places whose texts no situation here can show without a server, several processes or a model, and their tests."""

from __future__ import annotations

ELSEWHERE: dict[tuple[str, str], str] = {
    ("bridge/source/hub.py", ""): "tests/source/test_hub.py",
    ("bridge/source/remote.py", ""): "tests/source/test_remote.py",
    ("bridge/_files.py", ""): "tests/place/test_failures.py",
    ("bridge/place/agreement.py", ""): "tests/place/test_failures.py",
    ("bridge/place/meeting.py", ""): "tests/place/test_failures.py",
    ("bridge/cli/beside.py", "Hub repo"): "tests/cli/test_demo.py",
    ("bridge/cli/main.py", "super().error"): "tests/cli/test_main.py",
    ("bridge/models/", ""): "tests/models",
    ("bridge/_files.py", "{quote(key)} {error}"): "tests/place/test_failures.py",
    ("bridge/_files.py", "process"): "tests/place/test_failures.py",
}
"""(start of the file's name, part of the statement as `ast.unparse` writes it) to the tests; "" is every statement."""
