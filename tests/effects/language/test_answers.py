"""Answers outlive the process, and files of something else are refused."""

import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lpmppl.effects.language.answers import Answers
from lpmppl.errors import InputError, LpmError

ASKED = ("tiny", "Do you?", ("yes", "no"))


def test_answers_belong_to_model_prompt_and_options(tmp_path: Path):
    with Answers(tmp_path / "a.sqlite") as answers:
        answers.keep(*ASKED, 0, 1)
        answers.keep(*ASKED, 3, None)
        answers.keep_chances("exact", "Do you?", ("yes", "no"), [0.1, 0.9])
    with Answers(tmp_path / "a.sqlite") as again:
        assert again.known(*ASKED) == {0: 1, 3: None}
        assert again.chances("exact", "Do you?", ("yes", "no")) == [0.1, 0.9]
        for other in (("tinier", *ASKED[1:]), ("tiny", "Do you not?", ASKED[2]), (*ASKED[:2], ("no", "yes"))):
            assert again.known(*other) == {}
            assert again.chances(*other) is None
        assert again.model("tin") == "tiny"
        assert (again.exact("tiny"), again.exact("exact")) == (False, True)
        with pytest.raises(InputError, match="exact, tiny; name one"):
            again.model()


def test_an_answer_is_on_the_disk_as_soon_as_it_is_kept(tmp_path: Path):
    """A process that is killed right after an answer loses nothing."""
    lines = "import os, sys; from lpmppl.effects.language.answers import Answers; a = Answers(sys.argv[1]); "
    lines += "a.keep('tiny', 'Do you?', ('yes', 'no'), 5, 0); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", lines, str(tmp_path / "a.sqlite")], check=False, timeout=60)
    with Answers(tmp_path / "a.sqlite") as answers:
        assert answers.known(*ASKED) == {5: 0}


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "text").write_text("not a database, but text that is long enough to be read as one" * 20)
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE mine (x)")
    Answers(tmp_path / "old.sqlite").close()
    with sqlite3.connect(tmp_path / "old.sqlite") as old:
        old.execute("PRAGMA user_version=0")
    for name, words in {"text": "can't be used", "other.sqlite": "something else", "old.sqlite": "version 0"}.items():
        with pytest.raises(InputError, match=words):
            Answers(tmp_path / name)
    with sqlite3.connect(tmp_path / "old.sqlite") as broken:
        broken.execute("PRAGMA user_version=1")
        broken.execute("DROP TABLE chances")
    with pytest.raises(InputError, match="no such table: chances"):
        Answers(tmp_path / "old.sqlite")
    with pytest.raises(InputError, match="no folder"):
        Answers(tmp_path / "none" / "a.sqlite")
    with pytest.raises(InputError, match="of no model"):
        Answers().model()


def test_processes_make_a_file_at_once_and_write_to_it_in_turn(tmp_path: Path):
    lines = "import sys; from lpmppl.effects.language.answers import Answers; a = Answers(sys.argv[1]); "
    lines += "[a.keep('tiny', f'{sys.argv[2]}/{k}', ('yes', 'no'), 0, 1) for k in range(300)]; a.close()"
    file = str(tmp_path / "a.sqlite")
    both = [subprocess.Popen([sys.executable, "-c", lines, file, str(k)]) for k in range(3)]
    assert [process.wait(60) for process in both] == [0, 0, 0]
    with Answers(file) as answers:
        assert all(answers.known("tiny", f"{p}/{k}", ("yes", "no")) == {0: 1} for p in range(3) for k in range(300))


def test_others_may_write_a_moment_after_an_answer(tmp_path: Path):
    """Even if nothing is kept after it for long, as where a server takes its time."""
    first, second = Answers(tmp_path / "a.sqlite"), Answers(tmp_path / "a.sqlite")
    for ordinal in range(3):
        first.keep(*ASKED, ordinal, 1)
    began = time.monotonic()
    second.keep("other", *ASKED[1:], 0, 1)
    assert time.monotonic() - began < 5
    assert second.known(*ASKED) == {0: 1, 1: 1, 2: 1}
    first.close()
    second.close()


def test_after_a_full_disk_answers_belong_to_the_questions_they_were_given_to(tmp_path: Path):
    answers = Answers(tmp_path / "a.sqlite")
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    kept = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, most[1]))
        with pytest.raises(LpmError, match=r"a\.sqlite.*make room"):
            for kept in range(100_000):
                answers.keep("tiny", f"early {kept}", ("yes", "no"), 0, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
        signal.signal(signal.SIGXFSZ, before)
    assert 10 < kept < 99_999
    for k in range(kept + 50):
        answers.keep("tiny", f"late {k}", ("yes", "no"), 0, 1)
    answers.close()
    with Answers(tmp_path / "a.sqlite") as again:
        assert all(again.known("tiny", f"late {k}", ("yes", "no")) == {0: 1} for k in range(kept + 50))
        assert all(again.known("tiny", f"early {k}", ("yes", "no")) in ({}, {0: 0}) for k in range(kept))


def test_names_are_met_as_exactly_as_they_can_be():
    answers = Answers()
    for name in ("gpt-4 temperature=1", "gpt-4o temperature=1", "lm@12", "lm@12 temperature=1"):
        answers.keep(name, "Do you?", ("yes", "no"), 0, 1)
    assert answers.model("gpt-4") == "gpt-4 temperature=1"
    assert answers.model("lm@12") == "lm@12"
    with pytest.raises(InputError, match="name one"):
        answers.model("gpt")


def test_what_was_read_is_read_again_where_another_has_written(tmp_path: Path):
    first, second = Answers(tmp_path / "a.sqlite"), Answers(tmp_path / "a.sqlite")
    first.keep(*ASKED, 0, 1)
    first.keep_chances(*ASKED, [0.5, 0.5])
    first.flush()
    assert second.known(*ASKED) == {0: 1}
    second.known(*ASKED)[5] = 0  # what is given is the caller's own
    assert second.chances(*ASKED) == [0.5, 0.5]
    first.keep(*ASKED, 1, None)
    first.keep_chances(*ASKED, [0.25, 0.75])
    first.flush()
    assert second.known(*ASKED) == {0: 1, 1: None}
    assert second.chances(*ASKED) == [0.25, 0.75]
    second.keep(*ASKED, 2, 0)
    second.keep_chances(*ASKED, [1.0, 0.0])
    assert second.known_each("tiny", ["Do you not?", ASKED[1]], ASKED[2]) == [{}, {0: 1, 1: None, 2: 0}]
    assert second.chances(*ASKED) == [1.0, 0.0]
    assert second.models() == ["tiny"]
    first.close()
    second.close()
