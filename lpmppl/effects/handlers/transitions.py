"""The transition likelihood: how probable, by the parameters, everything is that happened along a path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from lpmppl._compat import Message
from lpmppl.effects.cohorts import Sparse
from lpmppl.effects.distributions import Left
from lpmppl.effects.handlers.held import BEFORE, Held, is_chance, log_probability, place_of
from lpmppl.errors import InputError, LpmError

__all__ = ["Transitions"]

_Path = Mapping[tuple[str, int, int], Any]
"""What came out at each site, by its name, its step, and how often it had been met in this step."""


class Transitions(Held):
    r"""Keep the path of a run, or play one again, and add up the log-probability of all that chance decided on it.

    .. math:: \log p(\text{path} \mid \theta) = \sum_t \sum_i
        y_{it} \log\big(1 - e^{-h_{it}(\theta)}\big) - (1 - y_{it})\, h_{it}(\theta) + \dots

    with h the hazards of those at risk and, for other choices of chance, the logarithm of their probability or density.
    The derivative by the parameters is exact, as the path is held. It goes inside `ExogenousNoise`; the log-probability
    is an objective of Pyro's as a factor:

    .. code-block:: python

        def program():
            theta = model.sample_parameters()
            with DiscreteTime(), ExogenousNoise(0), Transitions(path) as seen:
                simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(30.0))
            pyro.factor("transitions", seen.log_prob)

    Args:
        path: what came out, as another run's `path` has it; None to keep what comes out in this one.
    Attributes:
        path: what came out at each site.
        log_prob: the log-probability so far, float64 of shape ().
    Raises:
        InputError: for what is no path.
        LpmError: for a site and step that the path hasn't, as where the run is longer or of another model; for values
            of another shape than the site's; and where it met nothing, as outside of the noise.
    """

    def __init__(self, path: _Path | None = None) -> None:
        super().__init__()
        if path is not None and not isinstance(path, Mapping):
            raise InputError(f"{type(path).__name__} was given as a path: give another run's .path")
        self.played = path is not None
        self.path: dict[tuple[str, int, int], Any] = dict(path or {})
        self.log_prob: Tensor = torch.zeros((), dtype=torch.float64)
        self._met_so_far: dict[tuple[str, int], int] = {}
        self._here: tuple[str, int, int] | None = None

    def __enter__(self) -> Self:
        self.log_prob = torch.zeros((), dtype=torch.float64)
        self._met_so_far.clear()
        if not self.played:
            self.path.clear()
        super().__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if kind is None and not self._met_so_far:
            raise LpmError("Transitions met nothing that chance decides: it goes inside ExogenousNoise, around a run")

    def _pyro_sample(self, msg: Message) -> None:
        super()._pyro_sample(msg)
        self._here = None
        if not (is_chance(msg) or isinstance(msg["fn"], Left)):
            return
        site, step = place_of(msg["infer"] or {}, msg["name"])
        times = self._met_so_far.get((site, step), 0)
        self._met_so_far[site, step] = times + 1
        self._here = (site, step, times)
        if not self.played:
            return
        if self._here not in self.path:
            when = "before the first step" if step == BEFORE else f"in step {step}"
            raise LpmError(
                f"the path has nothing of site '{site}' {when}: play the path of a run as long, of the same model"
            )
        value, shape = self.path[self._here], tuple(msg["fn"].batch_shape)
        flat = value.value if isinstance(value, Sparse) else value
        if not isinstance(flat, Tensor) or (not isinstance(value, Sparse) and flat.numel() != math.prod(shape)):
            given = tuple(flat.shape) if isinstance(flat, Tensor) else type(flat).__name__
            raise LpmError(f"the path has {given} of site '{site}', here of shape {shape}: play that of one such run")
        msg["value"] = value
        msg["done"] = msg["stop"] = True

    def _met(self, msg: Message) -> None:
        if self._here is None:
            return
        if not self.played:
            self.path[self._here] = msg["value"]
        log = log_probability(msg)
        if log is not None:
            self.log_prob = self.log_prob + log.double().sum()
        self._here = None
