"""A society as a function that autograd can go through: parameters in, tallies out, with the right Jacobian."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from lpmppl._compat import Messenger, inside_transform
from lpmppl.effects.handlers.pathwise import Pathwise
from lpmppl.effects.handlers.record import Record
from lpmppl.errors import InputError, LpmError, nearest
from lpmppl.inference.checks import alone, checked, whole
from lpmppl.inference.differences import either_value, on_each_side
from lpmppl.inference.estimation import check_seen, check_timed, cuts_of, warn_of_plateau
from lpmppl.inference.flipping import Direct, Question
from lpmppl.inference.pathwise import carried
from lpmppl.inference.readings import reading_of
from lpmppl.inference.relaxing import RELAXATIONS, relaxation
from lpmppl.inference.run import drawn
from lpmppl.models.model import Model

__all__ = ["Simulator"]

ESTIMATORS = ("differences", "pathwise", *RELAXATIONS)


class Simulator:
    r"""A model as a differentiable function of its parameters, :math:`x(\theta)` of §5.1 of the LPM paper.

    A guide's parameters φ give θ in reverse mode; the simulation gives its Jacobian :math:`J = \partial x / \partial
    \theta` without a graph over its days, by differences among the same chance or in forward mode, and

    .. math:: \nabla_\varphi\, \ell(x(\theta_\varphi)) = \left(\frac{\partial \theta}{\partial \varphi}\right)^{\!\top}
        J^{\top}\, \nabla_x \ell

    So the memory of a gradient doesn't grow with days, and a Pyro guide is fitted through it like through any function.

    Args:
        model: the society.
        of: a tally, or several.
        days: how many days.
        seed: the seed of the agents' chance.
        estimator: "differences", right for any model; "pathwise", for models that are `timed`, in reverse mode; or the
            biased "straight-through", "gumbel-softmax" and "mean-field".
        reverse: for the latter three, derive by a graph over the whole simulation instead of forward mode.
        by: strata of the tallies to keep.
        daily: whether to keep days, or sum over them (the last day of what counts who is in a state).
        set: values of parameters that are not given; the others are at their defaults.
        interventions: `(name, value, day)`: what is done in every run.
        step: how far differences go to either side, in standard deviations of the parameter's prior.
        tau: the temperature of "gumbel-softmax".
    Raises:
        InputError: for a tally, stratum, estimator or number that can't be used.

    >>> import lpmppl as lpm, torch
    >>> simulator = lpm.Simulator(lpm.nyc.sir(lpm.nyc.population(1_000)), "infections", days=10, daily=False)
    >>> beta = torch.tensor(0.4, requires_grad=True)
    >>> simulator({"beta": beta, "initial_infected": 0.05}).sum().backward()
    >>> bool(beta.grad > 0)
    True
    """

    def __init__(
        self,
        model: Model,
        of: str | Sequence[str],
        days: int = 90,
        seed: int = 0,
        *,
        estimator: str = "differences",
        reverse: bool = False,
        by: str | Sequence[str] = (),
        daily: bool = True,
        set: Mapping[str, float] | None = None,
        interventions: Sequence[tuple[str, float | str, int]] = (),
        step: float = 0.25,
        tau: float = 1.0,
    ) -> None:
        if estimator not in ESTIMATORS:
            raise InputError(nearest("estimator", str(estimator), ESTIMATORS))
        for what, number in (("step", step), ("tau", tau)):
            if isinstance(number, bool) or not isinstance(number, int | float) or not 0.0 < number < math.inf:
                raise InputError(f"{what}={number!r} was given; give a number above 0")
        self.fixed, acts = checked(model, days, seed, set or {}, interventions, None, "")
        if estimator == "pathwise":
            check_timed(model, "take estimator='differences'")
        tallies, strata = _names("of", of), _names("by", by)
        if not tallies:
            raise InputError("of names no tally; give one or more")
        (centre,) = drawn(model, self.fixed, None, int(seed))
        self.model, self.estimator, self.reverse, self.step, self.tau = model, estimator, reverse, step, tau
        self.days = int(days)
        self.readings = {tally: reading_of(model, tally, centre, self.days, strata, daily) for tally in tallies}
        self._each = [
            Question(model, centre, (), tally, read, self.days, int(seed), acts)
            for tally, read in self.readings.items()
        ]
        self._looked: list[frozenset[str]] = []

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What each tally's part of the result unfolds to: days, where they are kept, then strata."""
        return {tally: read.shape for tally, read in self.readings.items()}

    def __call__(self, theta: Mapping[str, Tensor | float], draw: int = 0) -> Tensor:
        """Simulate.

        Args:
            theta: parameters by name, numbers or tensors of one element; derivatives are of those that require them.
            draw: which draw of everybody's chance.
        Returns:
            the tallies, one after the other, each unfolding to `shapes`: float64 of shape (M,).
        Raises:
            InputError: for a parameter that there isn't, isn't one number, or can't be what was given.
            LpmError: where a tally has no derivative by this estimator.
        """
        alone("a simulator")
        draw = whole("draw", draw, 0)
        if not isinstance(theta, Mapping):
            raise InputError(f"parameters are given by name, such as {{'beta': 0.4}}, but {theta!r} was given")
        for name, value in theta.items():
            if isinstance(value, Tensor):
                _check_tensor(name, value)
        values = {n: x.detach().item() if isinstance(x, Tensor) else x for n, x in theta.items()}
        fixed, _ = checked(self.model, self.days, 0, {**self.fixed, **values}, (), None, "")
        (at,) = drawn(self.model, fixed, None, 0)
        asked = [replace(q, theta=at) for q in self._each]
        free = {n: x for n, x in theta.items() if isinstance(x, Tensor) and x.requires_grad and torch.is_grad_enabled()}
        if free and self.estimator != "differences" and frozenset(free) not in self._looked:
            self._look(replace(asked[0], names=list(free)))
            self._looked.append(frozenset(free))
        if free and self.estimator == "pathwise":
            return self._along_paths(asked, free, draw)
        if self.estimator not in RELAXATIONS:
            return _Known.apply(*self._differences(asked, list(free), draw), *free.values())
        if self.reverse or not free:
            return self._relaxed(asked, free, draw)
        x, columns = None, []
        for name in free:
            with forward_ad.dual_level():
                one = torch.tensor(at[name], dtype=torch.float64)
                found = self._relaxed(asked, {name: forward_ad.make_dual(one, torch.ones_like(one))}, draw)
                x, tangent = forward_ad.unpack_dual(found)
                columns.append(torch.zeros_like(x) if tangent is None else tangent.clone())
        jacobian = torch.stack(columns, -1)
        for k, name in enumerate(free):
            if not bool(torch.isfinite(jacobian[:, k]).all()):
                raise LpmError(
                    f"the derivative with respect to {name} isn't finite at {at[name]:g}; take another value"
                )
        return _Known.apply(x, jacobian, *free.values())

    def _look(self, question: Question) -> None:
        """Refuse parameters that the estimator doesn't see, and say where it is biased."""
        remedy = "give it as a number without a derivative, or take estimator='differences'"
        if self.estimator in RELAXATIONS:
            cuts = cuts_of(question, relaxation(self.estimator, tau=self.tau))
            check_seen(cuts, self.estimator, remedy)
            return
        theta = question.values(differentiated=True)
        paths = Pathwise({n: theta[n] for n in question.names}, [])
        question.run(theta, 0, paths)
        check_seen({n: paths.unseen[n] for n in question.names if n in paths.unseen}, self.estimator, remedy)
        warn_of_plateau(paths.plateau, stacklevel=3)

    def _differences(self, asked: Sequence[Question], free: Sequence[str], draw: int) -> tuple[Tensor, Tensor]:
        """What comes out, shape (M,), and its derivatives, shape (M, P)."""
        ways = [either_value(self.model, asked[0].theta, n, self.step) for n in free]
        sides = [{}, *(side for above, below, _ in ways for side in (above, below))]
        x, *others = np.concatenate(on_each_side(asked, [draw], sides), -1)[0].astype(float)
        apart = np.array(others).reshape(len(ways), 2, len(x))
        width = np.array([distance for _, _, distance in ways]).reshape(-1, 1)
        return torch.from_numpy(x), torch.from_numpy(((apart[:, 0] - apart[:, 1]) / width).T)

    def _along_paths(self, asked: Sequence[Question], free: Mapping[str, Tensor], draw: int) -> Tensor:
        """What comes out, with a graph of its events."""
        paths = Pathwise(None, [q.of for q in asked])
        record = self._run(asked[0], free, draw, paths)
        series = [q.series(record) for q in asked]
        moved = torch.cat([carried(q, paths, base) for q, base in zip(asked, series, strict=True)])
        return _numbers(asked, series) + (moved - moved.detach())

    def _relaxed(self, asked: Sequence[Question], free: Mapping[str, Tensor], draw: int) -> Tensor:
        """What comes out, with the derivative of events as fractions, in the mode of those of the parameters."""
        tallies = [Direct(q.of) for q in asked]
        relaxing = relaxation(self.estimator, draw, asked[0].seed, self.tau)
        record = self._run(asked[0], free, draw, *tallies, relaxing)
        return torch.cat([t.asked(q, q.series(record)) for t, q in zip(tallies, asked, strict=True)])

    def _run(self, question: Question, free: Mapping[str, Tensor], draw: int, *inside: Messenger) -> Record:
        theta = {**question.values(), **{n: x.reshape(()) for n, x in free.items()}}
        return question.run(theta, draw, *inside)


class _Known(torch.autograd.Function):
    """Numbers whose derivatives are known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, jacobian: Tensor, *theta: Tensor) -> Tensor:
        ctx.save_for_backward(jacobian, *theta)
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor) -> Any:
        jacobian, *theta = ctx.saved_tensors
        found = adjoint @ jacobian
        return None, None, *(g.reshape(x.shape).to(x) for g, x in zip(found, theta, strict=True))


def _names(what: str, given: object) -> list[str]:
    """A list of names, each once."""
    names: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    for name in names:
        if not isinstance(name, str) or names.count(name) > 1:
            raise InputError(f"{what}={given!r} was given; give names, each once")
    return names


def _check_tensor(name: str, x: Tensor) -> None:
    """Refuse what isn't one number, or comes in forward mode."""
    if inside_transform(x) or forward_ad.unpack_dual(x).tangent is not None:
        raise InputError(
            f"parameter {name} was given in forward mode or a transform; a simulator has reverse mode only"
        )
    if x.numel() != 1 or x.is_meta:
        raise InputError(f"parameter {name} of shape {tuple(x.shape)} was given; give one number")


def _numbers(asked: Sequence[Question], series: Sequence[np.ndarray]) -> Tensor:
    parts = [q.read(base).astype(float) for q, base in zip(asked, series, strict=True)]
    return torch.from_numpy(np.concatenate(parts))
