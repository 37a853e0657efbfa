"""CalibNN: a network that reads data streams and gives the posterior of parameters, learnt from runs as they come."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from lpmppl.errors import InputError, LpmError, nearest
from lpmppl.inference.answer import Answer
from lpmppl.inference.calibrate import fitted_names
from lpmppl.inference.checks import alone, checked, whole
from lpmppl.inference.ensemble import Ensemble
from lpmppl.inference.head import Posterior
from lpmppl.inference.kept import restored, saved
from lpmppl.inference.observed import Observed
from lpmppl.inference.reader import Reader, Task, blank, laid, named, wanted
from lpmppl.inference.run import drawn
from lpmppl.inference.scales import Scale
from lpmppl.inference.training import Network, Trained, TrainingRuns
from lpmppl.models.model import Model

__all__ = ["AT_ONCE", "CalibNN", "beyond"]

_REPLAY, AT_ONCE = 200, 64
"""How many steps there are for each batch of runs, and how many runs of each society are one."""

_LEVEL = 0.9


class CalibNN:
    r"""The posterior of one or several societies' parameters as a network of what was observed.

    A recurrent encoder reads each series of counts; what it found in them, with the society's covariates, gives a
    normal law with correlations on the scale on which parameters are unbounded, and a flow T of neural splines that
    bends it,

    .. math:: q(u \mid y, c): \quad u = \mu(y, c) + R(y, c)\, z, \quad T(z; y, c) \sim N(0, 1), \quad
        R R^\top = D(y, c) + L(y, c) L(y, c)^\top

    It is learnt from simulations at parameters of the priors as these come, by maximising :math:`\log q` of the
    parameters that made them, which in expectation is greatest at the posterior; earlier ones are gone through again.
    Societies of several regions or models share the encoder, and by their names the outputs of parameters, so that each
    learns from all, and one that wasn't among them is calibrated by a forward pass. The DNN_Q of the LPM paper
    (§5.1, Fig. 8) without its squared loss, which has another posterior.

    Args:
        models: the society, or societies by name; their parameters of one name mean the same.
        streams: the names of the counts that are observed, as `calibrate` takes them, with the strata that they keep,
            such as `{"admissions": ["borough"], "deaths": []}`, or names alone for the whole society's.
        days: for how many days.
        parameters: those that are looked for, or "all".
        set: values of parameters that aren't.
        interventions: `(name, value, day)`: what was done.
        covariates: by society, numbers about 1 in size that tell it from others; the logarithm of how many people it
            has, over 10, comes before them.
        seed: the seed of all chance, and of the first weights.
        guide: "spline", or "multivariate-normal", without T; societies that have the same parameters share their flow.
    Raises:
        InputError: for a model, stream, stratum, parameter, number or guide that can't be used.

    >>> import lpmppl as lpm
    >>> network = CalibNN(lpm.nyc.sir(lpm.nyc.population(1_000)), "infections", days=10)
    >>> _ = network.learn(128)
    >>> fit = network.posterior({"infections": [1, 0, 2, 1, 3, 4, 2, 5, 7, 6]}, draws=100)
    >>> dict(fit["posterior"]["beta"].sizes)
    {'chain': 1, 'draw': 100}
    """

    def __init__(
        self,
        models: Model | Mapping[str, Model],
        streams: str | Sequence[str] | Mapping[str, Sequence[str]],
        days: int,
        *,
        parameters: Collection[str] | str = "all",
        set: Mapping[str, float] | None = None,
        interventions: Sequence[tuple[str, float | str, int]] = (),
        covariates: Mapping[str, Sequence[float]] | None = None,
        seed: int = 0,
        guide: str = "spline",
    ) -> None:
        societies = {"": models} if isinstance(models, Model) else models
        societies = {str(n): m for n, m in societies.items()} if isinstance(societies, Mapping) else societies
        if not isinstance(societies, Mapping) or not societies:
            raise InputError("no society was given; give a model, or models by name")
        self.streams, self.days = wanted(streams), whole("days", days, 2)
        self.parameters_of_interest, self.held, self.acts = parameters, dict(set or {}), interventions
        self.seed, self.guide = whole("seed", seed, 0), guide
        self.tasks: dict[str, Task] = {}
        self.losses: list[float] = []
        if strange := [n for n in covariates or {} if n not in societies]:
            raise InputError(nearest("society", str(strange[0]), societies))
        for name, model in societies.items():
            self.tasks[name] = self._task(name, model, (covariates or {}).get(name, ()))
        sizes = {len(task.context) for task in self.tasks.values()}
        if len(sizes) > 1:
            raise InputError(f"societies have {sorted(n - 1 for n in sizes)} covariates: give each as many")
        self._named = [task.scale.names for task in self.tasks.values()]
        rank = max(len(task.scale) for task in self.tasks.values())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self._series = sorted({n for task in self.tasks.values() for n in task.streams})
            self._trained = self._begun(sizes.pop(), rank)
        self._runs = {
            name: TrainingRuns(task, self.days, self.seed + 104_729 * k)
            for k, (name, task) in enumerate(self.tasks.items())
        }

    def _task(self, name: str, model: Any, covariates: Sequence[float]) -> Task:
        fixed, acts = checked(model, self.days, self.seed, self.held, self.acts, None, "")
        observed = Observed.of(model, blank(model, self.streams, self.days))
        scale = Scale(model, fitted_names(model, self.parameters_of_interest, fixed))
        (rest,) = drawn(model, fixed, None, self.seed)
        try:
            context = [math.log(model.population.everybody) / 10.0, *(float(x) for x in covariates)]
        except (TypeError, ValueError):
            context = [math.nan]
        if not np.isfinite(context).all():
            raise InputError(f"the covariates of '{name}' are {covariates!r}: give finite numbers")
        return Task(model, scale, rest, Ensemble(model, observed, self.seed, acts), torch.tensor(context))

    def _begun(self, context: int, rank: int) -> Trained:
        """The network, of which nothing is learnt yet."""
        return Trained(Reader({"all": self._series}, self._named, context, rank, self.guide))

    def given(self, counts: Tensor, task: str = "") -> Posterior:
        """The posterior given counts, by the weights' average over the last steps.

        Args:
            counts: of all series, stream by stream and day by day, NaN where they weren't seen, shape (B, D).
            task: the name of the society.
        Returns:
            over the task's parameters on their scale, batch shape (B,).
        Raises:
            InputError: for a society that there isn't, counts of another shape, or nothing learnt.
        """
        cells = len(self._learnt(task).task.ensemble.observed.counts)
        if not isinstance(counts, Tensor) or counts.dim() != 2 or counts.shape[1] != cells:
            what = f"counts of shape {tuple(counts.shape)}" if isinstance(counts, Tensor) else type(counts).__name__
            raise InputError(f"{what} were given; give a tensor of shape (B, {cells})")
        with torch.no_grad():
            return self._network()(self.tasks[task], counts)

    def _network(self) -> Network:
        """What gives posteriors, by the weights' average."""
        return self._trained.averaged

    def simulated(self, task: str, runs: int) -> tuple[Tensor, Tensor]:
        """Parameters of the priors, on their scale, and the counts of a run of each: shapes (B, P) and (B, D)."""
        return self._of(task).simulated(runs)

    def learn(self, simulations: int, *, progress: Callable[[str], None] = lambda _: None) -> dict[str, float]:
        """Simulate, and take steps of the network's weights on each batch of runs; call it again to go on.

        Args:
            simulations: how many runs of each society.
            progress: is told in words how far it is.
        Returns:
            for each society, the mean of the loss of the second half of its runs before anything was learnt from them,
            in nats.
        Raises:
            LpmError: where the loss has no number any more.
        """
        alone("a calibration")
        number, done = whole("simulations", simulations, 1), 0
        losses: dict[str, list[float]] = {name: [] for name in self.tasks}
        while done < number:
            runs = min(AT_ONCE, number - done)
            for name, of in self._runs.items():
                losses[name] += of.more(runs, self._network())
            self._steps(_REPLAY)
            done += runs
            progress(f"{done} of {number} runs of each society: loss {self.losses[-1]:.2f}")
        return {name: float(np.mean(each[len(each) // 2 :])) for name, each in losses.items()}

    def save(self, path: str | Path) -> None:
        """Write what it learnt, and the runs that it learnt from, to a file.

        Args:
            path: the file, which is whole or not there.
        Raises:
            InputError: for a path that can't be written.
        """
        saved(Path(path), self._parts(), self._runs, self.losses)

    def resume(self, path: str | Path) -> None:
        """Go on from what `save` wrote of a network that was made in the same way.

        Args:
            path: the file.
        Raises:
            InputError: for a file that isn't there, is damaged, or is of another network.
        """
        self.losses = restored(Path(path), self._parts(), self._runs)

    def _parts(self) -> list[Trained]:
        """The parts that the network has."""
        return [self._trained]

    def _steps(self, count: int) -> None:
        for _ in range(count):
            self._step()

    def _step(self) -> None:
        """One step of the weights, on runs of all societies."""
        self._trained.optimizer.zero_grad()
        loss = torch.stack([of.loss(self._trained.network, AT_ONCE) for of in self._runs.values()]).mean()
        loss.backward()
        self._noted(float(loss.detach()))
        self._trained.step(self._trained.length())

    def _noted(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise LpmError(f"the network's loss is {loss}: its weights were kept as they were before")
        self.losses.append(loss)

    def calibration(self, task: str = "", last: int = 500) -> xr.Dataset:
        """Where the parameters of runs were in their posteriors, before anything was learnt from these.

        Args:
            task: the name of the society.
            last: of how many runs, the last ones.
        Returns:
            over `parameter`: `p_value` of a Kolmogorov–Smirnov test of uniform ranks, and `coverage` of 90 % intervals.
        """
        ranks = self._learnt(task).ranks[-whole("last", last, 2) :].numpy()
        inside = np.abs(ranks - 0.5) <= _LEVEL / 2
        return xr.Dataset(
            {
                "p_value": ("parameter", [float(stats.kstest(x, "uniform").pvalue) for x in ranks.T]),
                "coverage": ("parameter", inside.mean(0)),
            },
            {"parameter": self.tasks[task].scale.names},
        ).assign_attrs(runs=len(ranks))

    def _of(self, task: str) -> TrainingRuns:
        if not isinstance(task, str) or task not in self._runs:
            raise InputError(nearest("society", str(task), self._runs))
        return self._runs[task]

    def _learnt(self, task: str) -> TrainingRuns:
        found = self._of(task)
        if not self.losses:
            raise InputError("the network hasn't learnt anything yet: call .learn(simulations) first")
        return found

    def posterior(
        self,
        data: Any,
        task: str | Model = "",
        *,
        draws: int = 1000,
        simulations: int = 0,
        ahead: int = 0,
        seed: int = 0,
        covariates: Sequence[float] = (),
    ) -> xr.DataTree:
        """The posterior given data, by one pass through the network.

        `lpm.calibrate(model, data, before=…)` goes on from there, with what a network can't know of the data at hand.

        Args:
            data: counts by stream, as `calibrate` takes them; NaN, or an absent day, wasn't seen, and days after those
                that the network reads are left out. A warning says where they lie beyond all runs that it met.
            task: the name of the society, or a society that wasn't among them, whose streams and parameters were.
            draws: how many draws.
            simulations: how many runs of the society are made at draws, two or more; none by default.
            ahead: how many days these go on after the last that the network reads.
            seed: the seed of the draws, and of the chance of these runs.
            covariates: those of a society that wasn't among them.
        Returns:
            a DataTree that ArviZ reads, with the groups `posterior`, `prior` and `fit`, the loss of each step, and
            `observed_data`, where the data are the network's to see; after simulations `posterior_predictive` and
            `predictions`, all tallies of these runs, and `forecast` of days ahead. `lpm.counterfactual(posterior=)` and
            `lpm.calibrate(before=)` take it. Its attrs have `runs_coverage` of the 90 % intervals of the last runs of
            the society, and what checks say in words as `verdict`.
        Raises:
            InputError: for data that can't be read, a society that there isn't, or nothing learnt.
        """
        began = time.perf_counter()
        of = self._asked(task, covariates)
        draws, seed, ahead = whole("draws", draws, 1), whole("seed", seed, 0), whole("ahead", ahead, 0)
        if whole("simulations", simulations, 0) == 1 or (ahead and not simulations):
            raise InputError(f"simulations={simulations}, ahead={ahead}: give two simulations or more, or neither")
        name = next((name for name, each in self.tasks.items() if each is of), None)
        found, seen = self._answered(of, data)
        ranks = None if name is None else self.calibration(name)
        answer = Answer(of, found, seen, self.days, ranks, self.losses)
        tree = answer.tree(draws, simulations, ahead, seed)
        tree.attrs["runs"] = sum(each.ensemble.runs for each in self.tasks.values())
        tree.attrs["seconds"] = time.perf_counter() - began
        return tree

    def _answered(self, of: Task, data: Any) -> tuple[Posterior, Observed | None]:
        """The posterior given data, and the data themselves where the result may have them."""
        form = of.ensemble.observed
        counts = laid(form, Observed.of(of.model, data, self.days - 1))
        if (runs := self._met(of)) is not None:
            beyond(form, counts, runs.counts.numpy())
        with torch.no_grad():
            found = self._network()(of, torch.from_numpy(counts)[None])
        each = zip(form.streams, form.split(counts), strict=True)
        return found, Observed([replace(stream, counts=x) for stream, x in each], form.days, form.start)

    def _met(self, task: Task) -> TrainingRuns | None:
        """The runs of a society, where it is one of those that the network learnt from."""
        return next((runs for runs in self._runs.values() if runs.task is task), None)

    def _asked(self, task: str | Model, covariates: Sequence[float]) -> Task:
        """The society that is asked about."""
        known = [name for name, each in self.tasks.items() if each.model is task] if isinstance(task, Model) else [task]
        if known:
            if len(covariates):
                raise InputError(f"covariates={covariates!r} were given for a society that has its own; leave them out")
            return self._learnt(known[0]).task
        assert isinstance(task, Model)
        of = self._task("the society", task, covariates)
        self._learnt(next(iter(self.tasks)))
        if missing := [n for n in of.scale.names if not any(n in names for names in self._named)]:
            raise InputError(f"the network never met the parameters {', '.join(missing)}; learn them, or set= them")
        if other := [n for n in of.streams if n not in self._series]:
            raise InputError(f"the network never read the series {', '.join(other)}; give a society with its strata")
        if len(of.context) != len(next(iter(self.tasks.values())).context):
            raise InputError(f"{len(covariates)} covariates were given; give as many as the others have")
        return of


def beyond(observed: Observed, counts: np.ndarray, runs: np.ndarray) -> None:
    """Warn of series whose counts, shape (D,), lie beyond those of all runs, shape (B, D)."""
    mine, others = (np.concatenate(observed.split(x), -1) for x in (counts, runs))
    far = [n for k, n in enumerate(named(observed)) if _outside(mine[:, k], others[..., k])]
    if far:
        warnings.warn(
            f"{', '.join(far)}: more or fewer were seen than in any of {len(runs)} runs that the network has met: "
            "it knows nothing of such; calibrate with lpm.calibrate, or widen the priors",
            stacklevel=3,
        )


def _outside(seen: np.ndarray, runs: np.ndarray) -> bool:
    """Whether the sum of what was seen lies beyond that of every run's on the same days: (T,) and (B, T)."""
    known = ~np.isnan(seen)
    total, others = seen[known].sum(), runs[:, known].sum(-1)
    return bool(known.any() and not others.min() <= total <= others.max())
