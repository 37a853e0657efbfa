"""What an institution does in split learning, apart from the network: it reads series, and learns how to."""

from __future__ import annotations

import hashlib
import math
import secrets
import struct
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpmppl.errors import InputError
from lpmppl.inference.split import encoder, own
from lpmppl.inference.training import Trained
from lpmppl.models.model import Model
from lpmppl.parties.agreement import SplitAgreement
from lpmppl.parties.floats import content, floats
from lpmppl.parties.kept import folder_of, replace
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import Session
from lpmppl.parties.snapshot import loaded, packed, put_back, taken

__all__ = ["LENGTH", "PEOPLE", "Encoding"]

LENGTH = struct.Struct("<d")
PEOPLE = struct.Struct("<Q")
_DIGEST = 32


class Encoding:
    r"""An institution's part of a split network: its encoder, which survives its process, and its data.

    In step s it reads series of runs with weights :math:`w_s`, is told the derivative of the loss with respect to what
    it read, and then how long the gradient of the whole network is, by which it takes the step to :math:`w_{s+1}`.
    In its folder are the weights after the last step and before it, each with what Adam keeps: a server that has come
    back from before that step takes it again. A step that wasn't taken yet is begun anew by whoever comes back. Its own
    data it reads once: then it learns no more, so that what it read in them is all that anybody gets of them.

    Args:
        session: the session.
        agreement: what the session is of.
        name: the institution's.
        model: a society whose people are grouped as the server's are, for the form of the data; two people will do.
        data: what it saw, as `calibrate` takes it.
        state: a folder of its own.
        own_weights: begin with weights that nobody else knows, instead of those of the session's seed.
    Raises:
        InputError: for another session, data that aren't of its streams, or a folder that is another's.
    """

    def __init__(
        self,
        session: Session,
        agreement: SplitAgreement,
        name: str,
        model: Model,
        data: Any,
        state: str | Path,
        *,
        own_weights: bool = False,
    ) -> None:
        agreement.check(session)
        self.session, self.name, self.days = session, name, agreement.days
        self._model, self._data, self._streams = model, data, agreement.of(name)
        series = agreement.series(model)
        self.series = [n for n in agreement.names(model) if n in series[name]]
        seed = int.from_bytes(secrets.token_bytes(7)) if own_weights else agreement.seed
        first = encoder(series, name, seed)
        x, _ = own(model, self._streams, self.days, data, None, 1)
        self._features, self._width = x.shape[-1], 2 * first.read.hidden_size
        self.part = Trained(first)
        self.folder = folder_of(state, session.tag + session.digest + name.encode())
        self._waiting: Tensor | None = None
        self._learnt: tuple[bytes, float] | None = None
        self._read = b""
        self._begin()
        try:
            self._recover()
        except (OSError, ValueError) as e:
            raise InputError(
                f"state folder {self.folder} can't be used ({e}): restore it, or make a new session"
            ) from e

    def _recover(self) -> None:
        """Be where the folder says, or at the beginning."""
        steps = sorted(int(path.name.split("-")[1]) for path in self.folder.glob("step-*"))
        self._before: bytes | None = None
        if steps:
            self.step_number = steps[-1]
            if steps[-1] - 1 in steps:
                self._before = self._path(steps[-1] - 1).read_bytes()
            self._put_back(self._path(steps[-1]).read_bytes())
        else:
            self.step_number, self._now = 0, bytes(_DIGEST) + packed(taken(self.part))
            replace(self._path(0), self._now)
        answered = self.folder / "own"
        self._answered = answered.read_bytes() if answered.exists() else b""

    @property
    def done(self) -> bool:
        """Whether it has read its own data, and learns no more."""
        return bool(self._answered)

    def read(self, step: int, learning: bool, body: bytes) -> Tensor:
        """What it reads in series of runs, float32 of shape (B, S, 2W); by the weights' average unless it learns.

        Raises:
            Refused: by name, and nothing is changed.
        """
        if self.done and learning:
            raise Refused(Reason.LATE, f"'{self.name}' has read its data, and learns no more: make a new session")
        x = floats(body, "series of runs", (-1, len(self.series), self.days, self._features))
        self._be_at(step)
        if not learning:
            with torch.no_grad():
                return torch.as_tensor(self.part.averaged(x, self.series))
        digest = hashlib.sha256(body).digest()
        if self._waiting is None or digest != self._read:
            self._begin()
            self._waiting, self._read = self.part.network(x, self.series), digest
        return self._waiting.detach()

    def learn(self, step: int, body: bytes) -> float:
        """Differentiate what was read, given the derivative with respect to it: the length of its gradient.

        Raises:
            Refused: by name; for a step that isn't begun here, as after its process has ended, with `NOT_HELD`.
        """
        self._open(step)
        digest = hashlib.sha256(body).digest()
        if self._learnt is not None:
            if digest != self._learnt[0]:
                raise Refused(Reason.CONFLICT, f"step {step} has another derivative already: begin it with READ again")
            return self._learnt[1]
        if self._waiting is None:
            raise Refused(Reason.NOT_HELD, f"'{self.name}' has read nothing in step {step}: begin it with READ again")
        derivative = floats(body, "derivatives", self._waiting.shape)
        self._waiting.backward(derivative)
        self._waiting, length = None, self.part.length()
        if not math.isfinite(length):
            self._begin()
            raise Refused(Reason.RANGE, f"the gradient of '{self.name}' is of length {length}")
        self._learnt = digest, length
        return length

    def step(self, step: int, body: bytes) -> None:
        """Take a step along its gradient, on disk when this returns.

        Raises:
            Refused: by name, and then it isn't taken.
        """
        (length,) = floats(body, "lengths", (1,), "<f8").tolist()
        if length < 0:
            raise Refused(Reason.RANGE, f"a gradient can't be of length {length}")
        digest = hashlib.sha256(body).digest()
        if step == self.step_number - 1:
            if self._now[:_DIGEST] != digest:
                raise Refused(Reason.CONFLICT, f"step {step} was taken with another length: begin it with READ again")
            return
        self._open(step)
        if self._learnt is None:
            raise Refused(Reason.NOT_HELD, f"'{self.name}' has learnt nothing in step {step}: begin it with READ again")
        self.part.step(length)
        now = digest + packed(taken(self.part))
        try:
            replace(self._path(step + 1), now)
        except OSError:
            self._put_back(self._now)
            raise
        self._before, self._now, self.step_number = self._now, now, step + 1
        self._begin()
        for path in self.folder.glob("step-*"):
            if int(path.name.split("-")[1]) < step:
                path.unlink()

    def own(self, step: int, body: bytes) -> tuple[bytes, str]:
        """What it reads in its own data, float32 of shape (1, S, 2W), and a warning where they lie beyond the runs.

        The same question has the same answer, and no other one has any.

        Raises:
            Refused: by name.
        """
        digest = hashlib.sha256(body).digest()
        if self.done:
            if step != self.step_number or digest != self._answered[:_DIGEST]:
                raise Refused(
                    Reason.OTHER_SET, f"'{self.name}' has read its data, once: another reading would tell more"
                )
            return self._answered[_DIGEST:], ""
        self._open(step)
        if not step:
            raise Refused(Reason.EARLY, f"'{self.name}' has learnt nothing yet that its data could be read by")
        if len(body) < PEOPLE.size:
            raise Refused(Reason.TRUNCATED, f"{len(body)} bytes are fewer than the {PEOPLE.size} of a number of people")
        (people,) = PEOPLE.unpack_from(body)
        if not people:
            raise Refused(Reason.RANGE, "the society has 0 people")
        shape, rest = (-1, len(self.series) * self.days), body[PEOPLE.size :]
        met = floats(rest, "counts of runs", shape, "<f8").numpy() if rest else None
        with warnings.catch_warnings(record=True) as said, torch.no_grad():
            warnings.simplefilter("always")
            x, names = own(self._model, self._streams, self.days, self._data, met, people)
            found = content(self.part.averaged(x, names))
        # On disk before anybody has it.
        replace(self.folder / "own", digest + found)
        self._answered = digest + found
        return found, "; ".join(str(each.message) for each in said if each.category is UserWarning)

    def _begin(self) -> None:
        """Begin a step, with nothing read in it."""
        self._waiting, self._learnt, self._read = None, None, b""
        self.part.optimizer.zero_grad()

    def _open(self, step: int) -> None:
        if step < self.step_number:
            raise Refused(
                Reason.LATE,
                f"'{self.name}' has taken step {step}, and step {self.step_number} is next; the server has lost its "
                "state: start it with its own folder, or make a new session",
            )
        if step > self.step_number:
            raise Refused(
                Reason.EARLY,
                f"'{self.name}' hasn't taken step {step - 1} yet, step {self.step_number} is next; it has lost its "
                "state: start it with its own folder, or make a new session",
            )

    def _be_at(self, step: int) -> None:
        """Go back to where the last step began, if it is to be taken again."""
        if step == self.step_number - 1 and self._before is not None and not self.done:
            self._put_back(self._before)
            self._before, self.step_number = None, step
        self._open(step)

    def _put_back(self, state: bytes) -> None:
        put_back(self.part, loaded(state[_DIGEST:], self.folder))
        self._now = state
        self._begin()

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:010d}"
