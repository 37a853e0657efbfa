"""Ctrl-C ends the program well at whatever moment it comes."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Python = Callable[[str], subprocess.CompletedProcess[str]]

SLOW = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(0.3); print('imported')"


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Run these lines beside a module `slow`, which presses Ctrl-C amid its import."""
    (tmp_path / "slow.py").write_text(SLOW)

    def python(lines: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from lpmppl.cli.interrupted import CTRL_C, leave, wait_for_imports\n" + lines],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return python


def test_an_import_ends_before_ctrl_c_takes_effect(python: Python) -> None:
    ended = python(
        """
import time
wait_for_imports()
try:
    import slow
    time.sleep(30)
except KeyboardInterrupt:
    print('interrupted')
    leave(CTRL_C)
"""
    )
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (130, ["imported", "interrupted"], "")


def test_an_ignored_ctrl_c_stays_ignored(python: Python) -> None:
    ended = python(
        """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
wait_for_imports()
import slow
time.sleep(0.5)
"""
    )
    assert (ended.returncode, ended.stdout.split()) == (0, ["imported"])


@pytest.mark.parametrize("code", [0, 2, 130])
def test_only_a_program_that_ctrl_c_ended_leaves_at_once(python: Python, code: int) -> None:
    ended = python(f"import atexit\natexit.register(print, 'at exit')\nprint('said')\nleave({code})")
    assert ended.returncode == code
    assert ended.stdout.split("\n")[:-1] == (["said"] if code == 130 else ["said", "at exit"])


def test_other_threads_do_not_hold_an_interrupted_program_up(python: Python) -> None:
    ended = python("import threading\nthreading.Thread(target=threading.Event().wait).start()\nleave(CTRL_C)")
    assert ended.returncode == 130


def test_a_compilation_ends_before_ctrl_c_takes_effect(python: Python, tmp_path: Path) -> None:
    compiler = tmp_path / "numba"
    compiler.mkdir()
    (compiler / "__init__.py").write_text(f"def compiled():\n    {SLOW.replace('imported', 'compiled')}\n")
    ended = python(
        """
import time
import numba
wait_for_imports()
try:
    numba.compiled()
    time.sleep(30)
except KeyboardInterrupt:
    print('interrupted')
    leave(CTRL_C)
"""
    )
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (130, ["compiled", "interrupted"], "")


def test_an_event_loop_is_whole_before_ctrl_c_takes_effect(python: Python) -> None:
    """Half of one complains, in lines of its own, when it is taken down."""
    ended = python(
        f"""
import time
def new_event_loop():
    {SLOW.replace("imported", "made")}
wait_for_imports()
try:
    new_event_loop()
    time.sleep(1)
except KeyboardInterrupt:
    print('interrupted')
    leave(CTRL_C)
"""
    )
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (130, ["made", "interrupted"], "")
