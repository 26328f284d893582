"""Places whose texts no situation here can show without a server, several processes or a model, and their tests."""

from __future__ import annotations

ELSEWHERE: dict[tuple[str, str], str] = {
    ("bridge/source/checkpoint.py", "cannot be read: {e}"): "tests/hub/test_load.py",
    ("bridge/source/distant.py", ""): "tests/hub/test_stream.py",
    ("bridge/source/download.py", ""): "tests/hub/test_transfer.py",
    ("bridge/source/http.py", ""): "tests/hub/test_http.py",
    ("bridge/source/hub.py", ""): "tests/hub/test_errors.py",
    ("bridge/source/hubfolder.py", ""): "tests/hub/test_transfer.py",
    ("bridge/source/ranged.py", ""): "tests/hub/test_answers.py",
    ("bridge/source/remote.py", ""): "tests/source/test_remote.py",
    ("bridge/source/retry.py", ""): "tests/hub/test_errors.py",
    ("bridge/_files.py", ""): "tests/place/test_failures.py",
    ("bridge/place/agreement.py", ""): "tests/place/test_failures.py",
    ("bridge/place/meeting.py", ""): "tests/place/test_failures.py",
    ("bridge/cli/beside.py", ""): "tests/cli/test_demo.py",
    ("bridge/cli/main.py", "super().error"): "tests/cli/test_main.py",
    ("bridge/models/", ""): "tests/models",
    ("bridge/_files.py", "{quote(key)} {error}"): "tests/place/test_failures.py",
    ("bridge/_files.py", "process"): "tests/place/test_failures.py",
}
"""(start of the file's name, part of the statement as `ast.unparse` writes it) to the tests; "" is every statement."""
