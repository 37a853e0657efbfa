"""The server of split learning: it has the society, and learns to calibrate it by what institutions read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lpmppl.errors import InputError, LpmError
from lpmppl.inference.checks import alone, whole
from lpmppl.inference.head import Posterior
from lpmppl.inference.observed import Observed
from lpmppl.inference.reader import Encoder, Task
from lpmppl.inference.split import Institution, SplitCalibNN, own
from lpmppl.inference.training import Network, TrainingRuns
from lpmppl.models.model import Model
from lpmppl.parties.agreement import SplitAgreement
from lpmppl.parties.encoding import LENGTH, PEOPLE
from lpmppl.parties.floats import content, floats
from lpmppl.parties.kept import folder_of, replace
from lpmppl.parties.line import Line
from lpmppl.parties.reading import LEARNING, PLAIN
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import COORDINATOR
from lpmppl.parties.snapshot import loaded, packed, put_back, taken
from lpmppl.parties.wire import Kind

__all__ = ["Server"]

T = TypeVar("T")
_TRIES = 20
"""How often a step is begun again for an institution whose process has ended in it."""


class Server(SplitCalibNN):
    """A `SplitCalibNN` whose institutions are processes of their own, reached over a line.

    The update is that of `SplitCalibNN`, bit for bit: numbers go over the line as they are. An institution that is away
    is waited for; after each step what was learnt is in the state folder, from which another process goes on.

    Args:
        model: the society.
        agreement: what the session is of.
        line: to the institutions, begun.
        state: a folder of the server's own.
        options: what else `CalibNN` takes, other than its streams, days and seed.
    Raises:
        InputError: for several societies, another session, a folder of something else, and as `SplitCalibNN` does.
    """

    def __init__(self, model: Model, agreement: SplitAgreement, line: Line, state: str | Path, **options: Any) -> None:
        if not isinstance(model, Model):
            raise InputError(f"{type(model).__name__} was given as a society: give one model, or use SplitCalibNN")
        agreement.check(line.session)
        self.agreement, self._line, self._taken, self._left = agreement, line, 0, 0
        super().__init__(model, agreement.streams, agreement.days, seed=agreement.seed, **options)
        ((name, runs),) = self._runs.items()
        self._made = _Runs(runs.task, runs.days, runs.seed)
        self._runs = {name: self._made}
        self._folder = folder_of(state, line.session.tag + line.session.digest + COORDINATOR.encode())
        self._go_on()

    def _institution(self, name: str, series: Sequence[str], encoder: Encoder) -> Institution:
        # Its first weights go no further: they were drawn for those that are drawn after them.
        width = 2 * encoder.read.hidden_size
        return _Remote(self._line, name, self._streams[name], series, width, lambda: self._taken)

    def _each(self, ask: Callable[[str, Institution], T]) -> list[T]:
        """All are asked at once."""
        return self._line.together([partial(ask, name, each) for name, each in self.institutions.items()])

    def learn(
        self, simulations: int | None = None, *, progress: Callable[[str], None] = lambda _: None
    ) -> dict[str, float]:
        """Learn from as many runs as were agreed on; called again after it was broken off, it goes on.

        Args:
            simulations: how many runs, those agreed on.
            progress: is told in words how far it is.
        Returns:
            for the society, the mean of the loss of the second half of its runs before anything was learnt from them,
            in nats.
        Raises:
            InputError: for another number of runs.
            LpmError: where an institution stays away or refuses, or the loss has no number any more.
        """
        number = self.agreement.simulations
        if simulations is not None and whole("simulations", simulations, 1) != number:
            raise InputError(f"simulations={simulations}: the session is for {number}; make another one for more")
        alone("a calibration")
        self._steps(self._left)
        if (done := len(self._made.counts)) < number:
            super().learn(number - done, progress=progress)
        fresh = self._made.fresh
        return {name: float(np.mean(fresh[len(fresh) // 2 :])) for name in self._runs}

    def resume(self, path: str | Path) -> None:
        """A server goes on from its state folder, with institutions that are where it is.

        Raises:
            InputError: always.
        """
        raise InputError(f"{path}: a server of institutions goes on from its state folder; give that as state=")

    def _steps(self, count: int) -> None:
        self._left = count
        runs = {"u": self._made.kept()["u"], "counts": self._made.counts, "ranks": self._made.ranks}
        replace(self._folder / "runs", packed({**runs, "fresh": list(self._made.fresh)}))
        while self._left:
            self._step()

    def _step(self) -> None:
        chance, losses = self._made.kept()["chance"], len(self.losses)
        try:
            super()._step()
        except BaseException:
            # The step is taken again from where it began, by the same runs.
            self._made.put_chance_back(chance)
            del self.losses[losses:]
            raise
        self._taken, self._left = self._taken + 1, self._left - 1
        kept = {"losses": self.losses, "left": self._left, "made": self._made.task.ensemble.runs}
        state = {**kept, "chance": self._made.kept()["chance"], "society": self._society, "head": taken(self._trained)}
        replace(self._folder / "step", packed(state))

    @property
    def _society(self) -> str:
        """What tells the society from others."""
        of = self._made.task
        people, acts = of.model.population.checksum, [list(act) for act in of.ensemble.acts]
        held = {n: x for n, x in of.rest.items() if n not in of.scale.names}
        return json.dumps([of.model.name, people, of.streams, list(of.scale.names), held, of.context.tolist(), acts])

    def _go_on(self) -> None:
        """Be where the last step that is in the folder has ended."""
        path, runs = self._folder / "step", self._folder / "runs"
        if not path.exists():
            return
        state, made = loaded(path.read_bytes(), path), loaded(runs.read_bytes(), runs)
        if state["society"] != self._society:
            raise InputError(f"state folder {self._folder} is of another society: make this one in the same way")
        put_back(self._trained, state["head"])
        self.losses, self._left, count = state["losses"], state["left"], state["made"]
        self._taken = len(self.losses)
        # Runs that no step was taken with yet are made again.
        self._made.put_back({**{k: made[k][:count] for k in ("u", "counts", "ranks")}, "chance": state["chance"]})
        self._made.fresh, self._made.task.ensemble.runs = made["fresh"][:count], count

    def _answered(self, of: Task, data: Any) -> tuple[Posterior, Observed | None]:
        """The posterior given what the institutions of these names read in their own data."""
        if (isinstance(data, Mapping) and data is not self.institutions) or not isinstance(data, Iterable):
            raise InputError(
                "data stay with their institutions: give the names of those that are asked, such as "
                f"{list(self.institutions)}"
            )
        if len(self._made.counts) < self.agreement.simulations or self._left:
            raise InputError("institutions read their data once, when all is learnt: call .learn() first")
        names = [data] if isinstance(data, str) else list(data)
        return super()._answered(of, dict.fromkeys(names, True))


class _Runs(TrainingRuns):
    """Runs that are made again as they were, where something comes between, with the loss of each when it was fresh."""

    def __init__(self, task: Task, days: int, seed: int) -> None:
        super().__init__(task, days, seed)
        self.fresh: list[float] = []

    def more(self, runs: int, network: Network) -> list[float]:
        made = self.task.ensemble.runs
        try:
            losses = super().more(runs, network)
        except BaseException:
            self.task.ensemble.runs = made
            raise
        self.fresh += losses
        return losses

    def put_chance_back(self, chance: Tensor) -> None:
        """Let the runs that a step learns from be drawn as then."""
        self._chance.set_state(chance)


class _Remote:
    """An institution that is a process of its own: it is asked over the line."""

    def __init__(
        self,
        line: Line,
        name: str,
        streams: Mapping[str, Sequence[str]],
        series: Sequence[str],
        width: int,
        step: Callable[[], int],
    ) -> None:
        self.streams, self.series = streams, series
        self._line, self._name, self._width, self._at = line, name, width, step
        self._asked: list[tuple[Kind, Kind, bytes, int]] = []
        self._length = 0.0

    def begin(self) -> None:
        self._asked.clear()

    def read(self, series: Tensor, names: Sequence[str], learning: bool) -> Tensor:
        if sorted(names) != sorted(self.series):
            raise InputError(f"'{self._name}' has the series {', '.join(self.series)}: give a society with its strata")
        body = (LEARNING if learning else PLAIN) + content(series)
        return self._read(self._ask(Kind.READ, Kind.READING, body, series.numel(), again=learning), len(series))

    def learn(self, derivative: Tensor) -> None:
        answer = self._ask(Kind.LEARN, Kind.LENGTH, content(derivative), derivative.numel(), again=True)
        (self._length,) = self._number(answer, "lengths", (1,), "<f8").tolist()

    def length(self) -> float:
        return self._length

    def step(self, length: float) -> None:
        self._ask(Kind.STEP, Kind.STEPPED, LENGTH.pack(length), 0)

    def read_own(self, model: Model, data: Any, days: int, met: np.ndarray | None) -> Tensor:
        if data is None:
            # It isn't asked for its data: this is how it reads that nothing was seen.
            return self.read(*own(model, self.streams, days, None, None, model.population.size), learning=False)
        counts = torch.zeros(0, dtype=torch.float64) if met is None else torch.from_numpy(met)
        body = PEOPLE.pack(model.population.size) + content(counts)
        return self._read(self._ask(Kind.OWN, Kind.READING, body, counts.numel()), 1)

    def _read(self, answer: bytes, runs: int) -> Tensor:
        return self._number(answer, "readings", (runs, len(self.series), self._width))

    def _number(self, answer: bytes, what: str, shape: Sequence[int], form: str = "<f4") -> Tensor:
        try:
            return floats(answer, what, shape, form)
        except Refused as e:
            raise LpmError(f"institution '{self._name}' gives what can't be used in step {self._at()}: {e}") from e

    def _ask(self, kind: Kind, answer: Kind, body: bytes, d: int, again: bool = False) -> bytes:
        """Ask, and begin the step again for one whose process has ended in it."""
        question = kind, answer, body, d
        why: Refused | None = None
        for _ in range(_TRIES):
            try:
                if why is not None:
                    for earlier in self._asked:
                        self._once(*earlier)
                found = self._once(*question)
            except Refused as e:
                why = e
                if e.reason is not Reason.NOT_HELD:
                    break
            else:
                if again:
                    self._asked.append(question)
                return found
        raise LpmError(f"institution '{self._name}' refuses {kind.name} in step {self._at()}: {why}") from why

    def _once(self, kind: Kind, answer: Kind, body: bytes, d: int) -> bytes:
        return self._line.ask(self._name, kind, answer, self._at(), body, d)
