"""Without the packages that parties need, one line says which and how to have them."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
sys.modules["grpc"] = None
from lpmppl.cli.app import invoke
sys.exit(invoke(["party", "session", "--out", sys.argv[1], "--client", "a=20"]))
"""


def test_what_is_missing_is_said_in_one_line(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path / "s.json")], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        "lpmppl: parties need the packages cryptography and grpcio: pip install 'lpmppl[parties]'"
    )
