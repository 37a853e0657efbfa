"""Split learning of a calibrating network: institutions that keep their series and send what they read in them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpmppl.errors import InputError, nearest
from lpmppl.inference.calibnn import AT_ONCE, CalibNN, beyond
from lpmppl.inference.observed import Observed
from lpmppl.inference.reader import Posterior, Reader, Task, blank, laid, legible, named, wanted
from lpmppl.inference.training import Network, Trained
from lpmppl.models.model import Model

__all__ = ["SplitCalibNN"]


class SplitCalibNN(CalibNN):
    """A `CalibNN` whose series belong to institutions: a hospital's admissions, a registry's deaths.

    The network is split (LPM paper, Fig. 9). Each institution has an encoder of its own and reads its series with it;
    it sends what it read, 128 numbers a series, to the server, which has the society, makes the runs and gives the
    posterior. In learning, the server sends each the counts of its runs, of which nothing is secret, and the derivative
    of the loss with respect to what was read. It is the same update as that of one network with these encoders. Data
    stay with their institution; what it read in them doesn't, and may say much about them. So `posterior` takes data by
    the name of the institution, and one that has none may be left out; its result has no group `observed_data`.

    Args:
        models: the society, or societies by name.
        institutions: the streams of each institution, by its name, as `CalibNN` takes streams.
        days: for how many days.
        options: what else `CalibNN` takes.
    Raises:
        InputError: for a stream that two institutions have, or none, and as `CalibNN` does.
    """

    def __init__(self, models: Any, institutions: Mapping[str, Any], days: int, **options: Any) -> None:
        if not isinstance(institutions, Mapping) or not institutions:
            raise InputError("no institution was given; give streams by name, such as {'hospitals': 'admissions'}")
        self._streams = {str(name): wanted(streams) for name, streams in institutions.items()}
        if len(self._streams) < len(institutions):
            raise InputError(f"institutions are called {list(institutions)}: give each a name of its own, in letters")
        flat = [stream for each in self._streams.values() for stream in each]
        if twice := next((stream for stream in flat if flat.count(stream) > 1), None):
            raise InputError(f"'{twice}' belongs to several institutions: give it to one")
        self.institutions: dict[str, _Institution] = {}
        self.traffic: Counter[str] = Counter()
        super().__init__(models, {k: v for each in self._streams.values() for k, v in each.items()}, days, **options)

    def _begun(self, context: int, rank: int) -> Trained:
        series = {name: [n for n in self._series if _stream(n) in mine] for name, mine in self._streams.items()}
        whole = Reader(series, self._named, context, rank)
        encoders = zip(series.items(), whole.encoders, strict=True)
        self.institutions = {name: _Institution(self._streams[name], mine, e) for (name, mine), e in encoders}
        return Trained(whole.head)

    def _step(self) -> None:
        read: list[tuple[_Institution, Tensor]] = []

        def network(task: Task, counts: Tensor) -> Posterior:
            parts = self._readings(task, counts, learning=True)
            read.extend(zip(self.institutions.values(), parts, strict=True))
            found: Posterior = self._trained.network(task, torch.cat(parts, 1))
            return found

        for institution in self.institutions.values():
            institution.begin()
        self._trained.optimizer.zero_grad()
        loss = torch.stack([of.loss(network, AT_ONCE) for of in self._runs.values()]).mean()
        loss.backward()
        self._noted(float(loss.detach()))
        for institution, part in read:
            assert part.grad is not None
            institution.learn(self._sent("derivatives", part.grad))
        trained = self._parts()
        length = math.hypot(*(each.length() for each in trained))
        for each in trained:
            each.step(length)

    def _parts(self) -> list[Trained]:
        return [self._trained, *(institution.part for institution in self.institutions.values())]

    def _readings(self, task: Task, counts: Tensor, learning: bool = False) -> list[Tensor]:
        """What each institution reads in its series of runs, shape (B, S, 2W), to be differentiated by."""
        x, names, found = task.input(counts), task.streams, []
        for institution in self.institutions.values():
            mine = [k for k, n in enumerate(names) if n in institution.series]
            series = self._sent("counts of runs", x[:, mine])
            read = institution.read(series, [names[k] for k in mine], learning)
            found.append(self._sent("readings", read).requires_grad_(learning))
        return found

    def _network(self) -> Network:
        return lambda task, counts: self._trained.averaged(task, torch.cat(self._readings(task, counts), 1))

    def _sent(self, what: str, x: Tensor) -> Tensor:
        """Count what goes over the line, in bytes."""
        self.traffic[what] += x.numel() * x.element_size()
        return x

    def _answered(self, of: Task, data: Any) -> tuple[Posterior, Observed | None]:
        """The posterior given what every institution read in its own data, which stay with it."""
        if not isinstance(data, Mapping) or not data:
            raise InputError(f"give the data by institution: {', '.join(self.institutions)}")
        if strange := [n for n in data if n not in self.institutions]:
            raise InputError(nearest("institution", str(strange[0]), self.institutions))
        if all(each is None for each in data.values()):
            raise InputError("nothing was observed: give one institution's counts or more")
        runs, parts = self._met(of), []
        for name, institution in self.institutions.items():
            met = None if runs is None else of.ensemble.observed.only(institution.streams, runs.counts.numpy())
            parts.append(self._sent("readings", institution.read_own(of.model, data.get(name), self.days, met)))
        with torch.no_grad():
            return self._trained.averaged(of, torch.cat(parts, 1)), None


class _Institution:
    """One that keeps series: it reads them by an encoder of its own, and sends what it read."""

    def __init__(self, streams: Mapping[str, Sequence[str]], series: Sequence[str], encoder: torch.nn.Module) -> None:
        self.streams, self.series, self.part = streams, series, Trained(encoder)
        self._waiting: list[Tensor] = []

    def read(self, series: Tensor, names: Sequence[str], learning: bool) -> Tensor:
        """What it reads in S series by name, of shape (B, S, T, F): (B, S, 2W), with no way back to its weights."""
        if not learning:
            with torch.no_grad():
                return torch.as_tensor(self.part.averaged(series, names))
        found = self.part.network(series, names)
        self._waiting.append(found)
        return found.detach()

    def begin(self) -> None:
        """Forget what a step that was broken off had left."""
        self._waiting.clear()
        self.part.optimizer.zero_grad()

    def learn(self, derivative: Tensor) -> None:
        """Differentiate what was read first, given the derivative with respect to it."""
        self._waiting.pop(0).backward(derivative)

    def read_own(self, model: Model, data: Any, days: int, met: np.ndarray | None) -> Tensor:
        """What it reads in its data, shape (1, S, 2W); a warning says where they lie beyond the runs, shape (B, D)."""
        form = Observed.of(model, blank(model, self.streams, days))
        counts = np.full(len(form.counts), np.nan)
        if data is not None:
            counts = laid(form, Observed.of(model, data, days - 1))
        if met is not None:
            beyond(form, counts, met)
        series = legible(form, torch.from_numpy(counts)[None], model.population.size)
        return self.read(series, named(form), learning=False)


def _stream(series: str) -> str:
    """The stream that a series is of."""
    return series.split("/")[0]
