"""The script that a reader starts to see several processes at work."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.place.processes import ROOT


def test_two_processes_on_one_machine():
    program = ROOT / "scripts" / "several_processes.py"
    done = subprocess.run([sys.executable, program], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        said = re.findall(rf"^process {rank} of 2: (.*)$", done.stdout, re.MULTILINE)
        assert said[0] == "reads 4,202,496 of 8,404,992 bytes"
        assert re.fullmatch(r"together they compute \d+\.\d{6}", said[1])
        assert said[2] == "saved model.safetensors, 8,406,336 bytes"
    assert "are equal: 16 keys, bit for bit" in done.stdout
    assert "several_processes.py" in (ROOT / "scripts" / "two-processes").read_text()
