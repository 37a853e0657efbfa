"""What ranks tell each other in one message: what they are about to do, one thing after another, with integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import numpy as np

from lpmppl.errors import LpmError

__all__ = [
    "FRAME",
    "HEAD",
    "MANY",
    "Answer",
    "Question",
    "framed",
    "heard",
    "loads",
    "loads_of",
    "room_for",
    "sizes_of",
]

MANY = 16
"""Questions that go in one message."""

_START, _EACH = 16, 24

HEAD = _START + _EACH
"""Bytes of a message with one question."""

FRAME, _MOST = 1024, 1 << 20
"""Bytes that a message has at least and at most."""


class Answer(NamedTuple):
    """What all ranks said to one question, by rank."""

    counts: list[int]
    parts: list[np.ndarray] | None
    """The integers, flat; None where there were none to be told, or from `most` on."""


@dataclass(eq=False)
class Question:
    """One thing that all ranks are about to do.

    Args:
        what: in words that are the same on all ranks but for numbers.
        size: how much of it, the same on all ranks.
        each: a number that each rank has for itself.
        load: this rank's integers, flat, in `each` rows; None where there are none on any rank.
        row: bytes of a row.
        most: from how many rows, on any rank, they aren't told.
        take: called with the answer once it is there.
        answer: what all ranks said, None as long as they haven't.
    """

    what: str
    size: int = 0
    each: int = 0
    load: np.ndarray | None = None
    row: int = 0
    most: int | None = None
    take: Callable[[Answer], object] | None = None
    answer: Answer | None = None

    def bytes(self, each: int) -> int:
        """How many bytes the integers of a rank with so many rows have."""
        if self.load is None or (self.most is not None and each >= self.most):
            return 0
        return -(-each * self.row // 8) * 8


def loads(questions: Sequence[Question], room: int) -> np.ndarray:
    """This rank's integers, one question's after the other's, in so many bytes."""
    out, at = np.zeros(room, np.uint8), 0
    for one in questions:
        if (size := one.bytes(one.each)) and one.load is not None:
            out[at : at + one.load.nbytes] = one.load.view(np.uint8)
        at += size
    return out


def framed(questions: Sequence[Question], room: int) -> np.ndarray:
    """A message of so many bytes: the questions, and their integers where there is room for all of them."""
    frame = np.zeros(room, np.uint8)
    start = _START + _EACH * len(questions)
    size = sum(one.bytes(one.each) for one in questions)
    frame[:_START].view(np.int64)[:] = len(questions), start + size <= room
    heads = frame[_START:start].view(np.int64).reshape(-1, 3)
    heads[:] = [(one.each, crc32(one.what.encode()), one.size) for one in questions]
    if start + size <= room:
        frame[start : start + size] = loads(questions, size)
    return frame


def heard(questions: Sequence[Question], frames: np.ndarray) -> tuple[np.ndarray, list[int] | None]:
    """How many rows each rank has for each question that all of them have asked, and where their integers begin.

    A rank may ask more at once than another that has come less far: only what all have asked is answered.

    Args:
        questions: this rank's.
        frames: what every rank has sent, shape (ranks, bytes).
    Returns:
        int64 of shape (ranks, questions); the byte of each rank's message, None where there wasn't room for all.
    Raises:
        LpmError: on all ranks, naming the first that is about to do something else than the first rank.
    """
    starts = frames[:, :_START].view(np.int64)
    asked = starts[:, 0]
    common = int(asked.min())
    heads = frames[:, _START : _START + _EACH * common].view(np.int64).reshape(len(frames), common, 3)
    for k, question in enumerate(questions[:common]):
        (_, first, much), *others = heads[:, k].tolist()
        for rank, (_, one, of_it) in enumerate(others, 1):
            if (one, of_it) == (first, much):
                continue
            how = f"{of_it} of it, and rank 0 {much}" if one == first else "something else"
            raise LpmError(
                f"{question.what}: rank {rank} does {how}; run the same program with the same people, model and "
                "release on all ranks"
            )
    return heads[:, :, 0], (_START + _EACH * asked).tolist() if bool(starts[:, 1].all()) else None


def loads_of(questions: Sequence[Question], counts: np.ndarray, rows: np.ndarray, at: Sequence[int]) -> list[Answer]:
    """Take the integers of every rank, which begin at these bytes of its row, apart by questions."""
    places, answers = list(at), []
    for k, question in enumerate(questions):
        each = counts[:, k].tolist()
        told = question.load is not None and (question.most is None or max(each) < question.most)
        parts = []
        for rank, n in enumerate(each):
            if question.load is not None and told:
                part = rows[rank, places[rank] : places[rank] + n * question.row]
                parts.append(part.view(question.load.dtype))
            places[rank] += question.bytes(n)
        answers.append(Answer(each, parts if told else None))
    return answers


def sizes_of(questions: Sequence[Question], counts: np.ndarray) -> list[int]:
    """How many bytes the integers of each rank have."""
    return [sum(one.bytes(n) for one, n in zip(questions, row, strict=True)) for row in counts.tolist()]


def room_for(questions: Sequence[Question], counts: np.ndarray) -> int:
    """The bytes of a message with room for such questions, half as much again where ranks differ in what they say."""
    sizes = sizes_of(questions, counts)
    more = 0 if min(sizes) == max(sizes) else max(sizes) // 2
    room = -(-(_START + _EACH * len(questions) + max(sizes) + more) // 64) * 64
    return max(FRAME, room) if room <= _MOST else FRAME
