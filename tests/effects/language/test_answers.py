"""Answers outlive the process, and files of something else are refused."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from lpmppl.effects.language.answers import Answers
from lpmppl.errors import InputError

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
    with pytest.raises(InputError, match="no folder"):
        Answers(tmp_path / "none" / "a.sqlite")
    with pytest.raises(InputError, match="of no model"):
        Answers().model()
