"""Runs about where one is, what they teach of the response, and a step to where what was observed is more probable."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lpmppl.effects.internals import checkpoints
from lpmppl.errors import InputError
from lpmppl.inference.ensemble import Ensemble
from lpmppl.inference.objectives import Counts, Generalised, Loss
from lpmppl.inference.response import Response
from lpmppl.inference.scales import Scale

__all__ = ["Agreement", "CalibrationRounds"]

_WIDE, _NARROW, _SHRINKS = 0.6, 0.3, 0.8
"""How far runs are spread at first and at last, in standard deviations of the priors, and how this falls by round."""

_STRIDE = 1.0
"""How far a step goes, about, on the same scale."""

_KEPT = ("u", "means", "sizes", "centres", "spreads")
"""What of each round is in a checkpoint."""

_NEAR = 0.5
"""How far from where one is rounds were whose runs teach the response there too, on the same scale."""

_STILL = 0.1
"""Where no parameter moves by more, nothing more is to be learnt."""


@dataclass(frozen=True)
class Agreement:
    """How the response of one round foresaw the runs of the next.

    Attributes:
        slope: of what runs did, on what was foreseen, over pairs of runs on either side; 1 where it is right.
        se: its standard error.
        correlation: that of the two.
    """

    slope: float
    se: float
    correlation: float


class CalibrationRounds:
    """Rounds of runs, in pairs on either side of where one is with the same chance.

    Args:
        ensemble: the runs.
        scale: the parameters that are fitted.
        fixed: the others.
        rows: how many runs a round has, an even number.
        seed: the seed of where they are.
        path: a file to keep them in after each round.
        tag: what they depend on besides, of which another can't go on with them.
        resume: go on with what is kept there.
        misfit: how far the model may be off, in logarithms.
        loss: a loss and its weight, where that is what is sought instead of a probability.
        start: where the first round is, on the parameters' scale; at their centre by default.
    """

    def __init__(
        self, ensemble: Ensemble, scale: Scale, fixed: Mapping[str, float], rows: int, seed: int,
        path: Path | None = None, tag: str = "", resume: bool = False, start: np.ndarray | None = None,
        loss: tuple[Loss, float] | None = None,
        misfit: float = 0.0,
    ) -> None:  # fmt: skip
        self.ensemble, self.scale, self.fixed, self.rows, self.seed = ensemble, scale, fixed, rows, seed
        self.path, self.loss, self.misfit = path, loss, misfit
        self.tag = hashlib.sha256(
            json.dumps(
                [
                    tag,
                    scale.names,
                    dict(fixed),
                    rows,
                    seed,
                    misfit,
                    loss is None,
                    None if start is None else start.tolist(),
                ]
            ).encode()
        ).hexdigest()
        self.u: list[np.ndarray] = []
        self.means: list[np.ndarray] = []
        self.sizes: list[np.ndarray] = []
        self.centres: list[np.ndarray] = [np.zeros(len(scale)) if start is None else start]
        # Who has been there before begins as narrow as others end.
        self.spreads: list[np.ndarray] = [np.full(len(scale), _WIDE if start is None else _NARROW)]
        self.agreement: Agreement | None = None
        self.response: Response | None = None
        if path is not None and not path.parent.is_dir():
            raise InputError(f"there is no folder {path.parent} for the checkpoint; make it first")
        if resume:
            self._resume()

    def aim(self, response: Response, agents: int) -> Counts:
        """What a fit is after, with a response, in a society of so many agents."""
        scale, observed = self.scale, self.ensemble.observed
        if self.loss is None:
            return Counts(scale, response, observed, agents)
        return Generalised(scale, response, observed, agents, *self.loss)

    def go(self, most: int, tell: Callable[[int], None] = lambda _: None) -> Response:
        """Play rounds until nothing moves, `most` at most, and give the last one's response."""
        for k in range(most):
            if k >= len(self.u):
                self._play(k)
                self._keep()
            agents = self.ensemble.model.population.everybody
            if self.response is not None:
                self.agreement = self._agreement(self.response, k)
            self.response = Response.learnt(self.ensemble.observed, *self._near(k), agents, self.misfit)
            objective = self.aim(self.response, agents)
            here = torch.from_numpy(self.centres[k])
            start = torch.cat([here, here.new_zeros(objective.factors)])
            mode, covariance = objective.mode(start, _STRIDE)
            new, reach = (x[: len(here)].numpy() for x in (mode, covariance.diagonal().sqrt()))
            self.centres = [*self.centres[: k + 1], new]
            # The response is learnt as far as the posterior reaches.
            self.spreads = [*self.spreads[: k + 1], np.clip(reach, _NARROW, max(_NARROW, _WIDE * _SHRINKS**k))]
            tell(k + 1)
            if k > 1 and np.abs(new - self.centres[k]).max() < _STILL:
                break
        assert self.response is not None
        return self.response

    def _play(self, k: int) -> None:
        generator = torch.Generator().manual_seed((self.seed * 1000 + k) % 2**63)
        half = self.rows // 2
        apart = torch.randn(half, len(self.scale), generator=generator, dtype=torch.float64)
        apart = apart * torch.from_numpy(self.spreads[k])
        here = torch.from_numpy(self.centres[k])
        u = torch.stack([here + apart, here - apart], 1).reshape(2 * half, -1)
        thetas = [{**self.fixed, **values} for values in self.scale.values(u)]
        # Each pair has a chance of its own, in each round another.
        mean, size, _ = self.ensemble(thetas, [k * half + pair for pair in range(half) for _ in range(2)])
        self.u.append(u.numpy())
        self.means.append(mean)
        self.sizes.append(size)

    def _near(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The runs of a round, and of earlier ones that were near: their parameters, means and dispersions."""
        apart = [np.abs(centre - self.centres[k]).max() for centre in self.centres[: k + 1]]
        rounds = [j for j, far in enumerate(apart) if far < _NEAR]
        u, means, sizes = (np.concatenate([x[j] for j in rounds]) for x in (self.u, self.means, self.sizes))
        return u, means, sizes

    def _agreement(self, before: Response, k: int) -> Agreement:
        nothing = torch.zeros(before.latent, dtype=torch.float64)
        foreseen, _ = before.at(torch.from_numpy(self.u[k]), nothing, before.agents)
        x, y = (self._apart(m) for m in (foreseen.numpy(), self.means[k]))
        if not (x**2).sum():
            return Agreement(math.nan, math.nan, math.nan)
        slope = float((x * y).sum() / (x**2).sum())
        left = y - slope * x
        se = math.sqrt(float(((x * left) ** 2).sum())) / float((x**2).sum())
        return Agreement(slope, se, float(np.corrcoef(x, y)[0, 1]))

    def _apart(self, means: np.ndarray) -> np.ndarray:
        """The log-ratio of each stream's total on either side, one after the other."""
        totals = [np.nansum(part, (1, 2)) for part in self.ensemble.observed.split(means)]
        return np.concatenate([np.log((t[::2] + 0.5) / (t[1::2] + 0.5)) for t in totals])

    def _keep(self) -> None:
        if self.path is None:
            return
        arrays = {f"{what}/{k}": torch.from_numpy(x) for what in _KEPT for k, x in enumerate(getattr(self, what))}
        meta = {"tag": self.tag, "rounds": len(self.u)}
        try:
            checkpoints.save(self.path, arrays, meta)
        except OSError as e:
            # A full disk shouldn't cost the fit itself.
            warnings.warn(f"the checkpoint {self.path} can't be written ({e.strerror}); going on", stacklevel=2)

    def _resume(self) -> None:
        if self.path is None or not self.path.exists():
            raise InputError(f"there is no checkpoint {self.path} to resume from")
        arrays, meta = checkpoints.load(self.path, ("tag", "rounds"))
        if meta["tag"] != self.tag:
            raise InputError(f"{self.path} belongs to another calibration; resume with the settings it was made with")
        for what in _KEPT:
            setattr(self, what, [arrays[f"{what}/{k}"].numpy() for k in range(meta["rounds"])])
