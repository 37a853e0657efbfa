"""Split learning of a calibrating network: institutions that keep their series and send what they read in them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from lpmppl.errors import InputError, nearest
from lpmppl.inference.calibnn import AT_ONCE, CalibNN, beyond
from lpmppl.inference.head import Posterior
from lpmppl.inference.observed import Observed
from lpmppl.inference.reader import Encoder, Reader, Task, blank, laid, legible, named, wanted
from lpmppl.inference.training import Network, Trained
from lpmppl.models.model import Model

__all__ = ["Institution", "SplitCalibNN", "divided", "encoder", "own"]

T = TypeVar("T")


class Institution(Protocol):
    """An institution as the server of a split network reaches it, in the same process or in another."""

    series: Sequence[str]
    streams: Mapping[str, Sequence[str]]

    def begin(self) -> None:
        """Forget what a step that was broken off had left."""

    def read(self, series: Tensor, names: Sequence[str], learning: bool) -> Tensor:
        """What it reads in S series by name, of shape (B, S, T, F): (B, S, 2W), with no way back to its weights."""

    def learn(self, derivative: Tensor) -> None:
        """Differentiate what was read first and not learnt from yet, given the derivative with respect to it."""

    def length(self) -> float:
        """The length of its gradient."""

    def step(self, length: float) -> None:
        """Take a step along its gradient, which is part of one of this length."""

    def read_own(self, model: Model, data: Any, days: int, met: np.ndarray | None) -> Tensor:
        """What it reads in its data, shape (1, S, 2W); it is warned where they lie beyond the runs, shape (B, D)."""


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

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> network = SplitCalibNN(model, {"clinic": "infections", "registry": "recoveries"}, days=2)
    >>> losses = network.learn(2)  # in earnest a thousand, or some
    >>> clinic, registry = [1.0, 0.0], [float("nan")] * 2  # what isn't given is NaN
    >>> network.given(torch.tensor([clinic + registry])).mean.shape  # of beta, gamma and initial_infected
    torch.Size([1, 3])
    """

    def __init__(self, models: Any, institutions: Mapping[str, Any], days: int, **options: Any) -> None:
        if not isinstance(institutions, Mapping) or not institutions:
            raise InputError("no institution was given; give streams by name, such as {'institution': 'tally'}")
        self._streams = {str(name): wanted(streams) for name, streams in institutions.items()}
        if len(self._streams) < len(institutions):
            raise InputError(f"institutions are called {list(institutions)}: give each a name of its own, in letters")
        flat = [stream for each in self._streams.values() for stream in each]
        if twice := next((stream for stream in flat if flat.count(stream) > 1), None):
            raise InputError(f"'{twice}' belongs to several institutions: give it to one")
        self.institutions: dict[str, Institution] = {}
        self.traffic: Counter[str] = Counter()
        super().__init__(models, {k: v for each in self._streams.values() for k, v in each.items()}, days, **options)

    def _begun(self, context: int, rank: int) -> Trained:
        series = divided(self._series, self._streams)
        whole = Reader(series, self._named, context, rank, self.guide)
        for (name, mine), each in zip(series.items(), whole.encoders, strict=True):
            assert isinstance(each, Encoder)
            self.institutions[name] = self._institution(name, mine, each)
        return Trained(whole.head)

    def _institution(self, name: str, series: Sequence[str], encoder: Encoder) -> Institution:
        """The institution of this name, which has these series and begins with this encoder."""
        return _Institution(self._streams[name], series, encoder)

    def _each(self, ask: Callable[[str, Institution], T]) -> list[T]:
        """What all institutions answer, in order."""
        return [ask(name, institution) for name, institution in self.institutions.items()]

    def _step(self) -> None:
        read: dict[str, list[Tensor]] = {name: [] for name in self.institutions}

        def network(task: Task, counts: Tensor) -> Posterior:
            parts = self._readings(task, counts, learning=True)
            for name, part in zip(read, parts, strict=True):
                read[name].append(part)
            found: Posterior = self._trained.network(task, torch.cat(parts, 1))
            return found

        def learn(name: str, institution: Institution) -> float:
            for derivative in derivatives[name]:
                institution.learn(derivative)
            return institution.length()

        for institution in self.institutions.values():
            institution.begin()
        self._trained.optimizer.zero_grad()
        loss = torch.stack([of.loss(network, AT_ONCE) for of in self._runs.values()]).mean()
        loss.backward()
        self._noted(float(loss.detach()))
        derivatives = {name: [self._sent("derivatives", _grad(part)) for part in parts] for name, parts in read.items()}
        length = math.hypot(self._trained.length(), *self._each(learn))
        # The server is last: where an institution stays away, it is still where it was.
        self._each(lambda _, institution: institution.step(length))
        self._trained.step(length)

    def _parts(self) -> list[Trained]:
        here = (each for each in self.institutions.values() if isinstance(each, _Institution))
        return [self._trained, *(each.part for each in here)]

    def _readings(self, task: Task, counts: Tensor, learning: bool = False) -> list[Tensor]:
        """What each institution reads in its series of runs, shape (B, S, 2W), to be differentiated by."""
        x, names, given = task.input(counts), task.streams, {}
        for name, institution in self.institutions.items():
            mine = [k for k, n in enumerate(names) if n in institution.series]
            given[name] = self._sent("counts of runs", x[:, mine]), [names[k] for k in mine]
        found = self._each(lambda name, institution: institution.read(*given[name], learning))
        return [self._sent("readings", read).requires_grad_(learning) for read in found]

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
        runs = self._met(of)

        def read(name: str, institution: Institution) -> Tensor:
            met = None if runs is None else of.ensemble.observed.only(institution.streams, runs.counts.numpy())
            return institution.read_own(of.model, data.get(name), self.days, met)

        parts = [self._sent("readings", part) for part in self._each(read)]
        with torch.no_grad():
            return self._trained.averaged(of, torch.cat(parts, 1)), None


class _Institution:
    """One in this process: it reads its series by an encoder of its own."""

    def __init__(self, streams: Mapping[str, Sequence[str]], series: Sequence[str], encoder: Encoder) -> None:
        self.streams, self.series, self.part = streams, series, Trained(encoder)
        self._waiting: list[Tensor] = []

    def read(self, series: Tensor, names: Sequence[str], learning: bool) -> Tensor:
        if not learning:
            with torch.no_grad():
                return torch.as_tensor(self.part.averaged(series, names))
        found = self.part.network(series, names)
        self._waiting.append(found)
        return found.detach()

    def begin(self) -> None:
        self._waiting.clear()
        self.part.optimizer.zero_grad()

    def learn(self, derivative: Tensor) -> None:
        self._waiting.pop(0).backward(derivative)

    def length(self) -> float:
        return self.part.length()

    def step(self, length: float) -> None:
        self.part.step(length)

    def read_own(self, model: Model, data: Any, days: int, met: np.ndarray | None) -> Tensor:
        return self.read(*own(model, self.streams, days, data, met, model.population.everybody), learning=False)


def own(
    model: Model, streams: Mapping[str, Sequence[str]], days: int, data: Any, met: np.ndarray | None, people: int
) -> tuple[Tensor, list[str]]:
    """An institution's data as numbers to read, shape (1, S, T, F), and the names of their S series.

    Args:
        model: the society, or one whose people are grouped alike.
        streams: the institution's, with the strata that they keep.
        days: for how many days.
        data: what it saw, as `calibrate` takes it, or None.
        met: counts of all runs that the network has met, shape (B, D): a warning says where the data lie beyond.
        people: how many the society has.
    Raises:
        InputError: for data that aren't of these streams.
    """
    form = Observed.of(model, blank(model, streams, days))
    counts = np.full(len(form.counts), np.nan)
    if data is not None:
        counts = laid(form, Observed.of(model, data, days - 1))
    if met is not None:
        beyond(form, counts, met)
    return legible(form, torch.from_numpy(counts)[None], people), named(form)


def divided(series: Iterable[str], streams: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The series of each institution, given whose streams are whose: `deaths/Bronx` belongs to whom `deaths` does."""
    names = list(series)
    return {name: [n for n in names if n.split("/")[0] in mine] for name, mine in streams.items()}


def encoder(series: Mapping[str, Sequence[str]], name: str, seed: int) -> Encoder:
    """The encoder that an institution begins with, as in the network of all institutions with this seed.

    Args:
        series: those of each institution, sorted by name, as `divided` gives them.
        name: of the institution.
        seed: the network's.
    Raises:
        InputError: for an institution that there isn't.
    """
    if name not in series:
        raise InputError(nearest("institution", name, series))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # They are drawn one after the other, each institution's from the chance that those before have left.
        made = [Encoder(series[each]) for each in list(series)[: list(series).index(name) + 1]]
    return made[-1]


def _grad(part: Tensor) -> Tensor:
    assert part.grad is not None
    return part.grad
