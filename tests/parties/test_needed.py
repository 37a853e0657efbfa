"""What parties need of a machine: packages, which one line names, and processes that can start others."""

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


FORKS = """
import os, signal, subprocess, sys
import lpmppl.parties, grpc
assert os.environ["GRPC_ENABLE_FORK_SUPPORT"] == "false"
try:
    grpc.insecure_channel("127.0.0.1:9").unary_unary("/a/b")(b"x", timeout=0.2)
except grpc.RpcError:
    pass
for _ in range(40):
    child = [sys.executable, "-S", "-c", "pass"]
    assert subprocess.run(child, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)).returncode == 0
"""


def test_whoever_has_spoken_with_a_party_can_start_processes():
    ended = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
