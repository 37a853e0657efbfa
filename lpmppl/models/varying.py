"""A part of the environment that varies with time and place in ways to be learnt from data, such as transmission."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lpmppl.errors import InputError, nearest
from lpmppl.models.model import Model, Parameter, Wrapped
from lpmppl.models.periods import around
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["Varying"]


class Varying(Wrapped):
    r"""A model in which a part of the environment has a factor that follows a random walk, and one for each place.

    .. math:: \log f_i(t) = \log a_{g(i)} + \sum_k \log \delta_k \,
        \min\Big(1, \max\Big(0, \frac{t - \tau_{k-1}}{\tau_k - \tau_{k-1}}\Big)\Big)

    with :math:`\tau_0 = 0`: between knots the factor moves geometrically, after the last it stays. Its parameters are
    the steps δ, `transmission_14` for a knot on day 14, and the factors a of places, `transmission_Bronx`. Whatever
    policies set the part to is multiplied by it.

    Args:
        model: the model.
        name: the part of its environment, of no limited choice of words and not set back by itself.
        knots: the days of the knots, above 0 and in order.
        spread: the standard deviation of each step's logarithm.
        within: a variable of the population whose values have factors of their own, such as "borough".
        apart: the standard deviation of these factors' logarithms.
    Raises:
        InputError: for a part that there isn't or can't be scaled, days out of order, or spreads that aren't above 0.
    """

    def __init__(
        self,
        model: Model,
        name: str = "transmission",
        knots: Sequence[int] = (),
        spread: float = 0.3,
        within: str = "",
        apart: float = 0.2,
    ) -> None:
        super().__init__(model)
        if name not in model.environment:
            raise InputError(nearest("part of the environment", name, model.environment))
        if name in model.options or name in model.pulses or model.environment[name] <= 0:
            raise InputError(
                f"{name} can't be scaled: give a part of the environment that is above 0, a number and lasts"
            )
        if any(isinstance(k, bool) or not isinstance(k, int) for k in knots) or any(
            a >= b for a, b in pairwise([0, *knots])
        ):
            raise InputError(f"knots={list(knots)} were given; give days above 0, each later than the one before")
        if not (spread > 0 and apart > 0):
            raise InputError(f"spread={spread} and apart={apart} were given; both must be above 0")
        if within and model.targets.get(name) != "agent":
            raise InputError(f"{name} is the same for everybody; leave within={within!r} out")
        self.varies, self.knots, self.within = name, tuple(knots), within
        labels = model.population.labels(within) if within else []
        self.places = {f"{name}_{label.replace(' ', '_')}": k for k, label in enumerate(labels)}
        steps = {
            f"{name}_{day}": Parameter(
                around(1.0, spread), 1.0, f"change of {name} from day {before} to day {day}", "factor", "random walk"
            )
            for before, day in pairwise([0, *knots])
        }
        places = {
            key: Parameter(around(1.0, apart), 1.0, f"{name} in {labels[k]}", "factor", "none before data")
            for key, k in self.places.items()
        }
        self.parameters = {**model.parameters, **steps, **places}

    def steps(self, first: int, last: int) -> list[str]:
        """The parameters of the steps whose knots lie from day `first` to day `last`."""
        return [f"{self.varies}_{knot}" for knot in self.knots if first <= knot <= last]

    def day(self, theta: Theta) -> Dynamics:
        day, name = self.model.day(theta), self.varies
        logs = [torch.log(theta[f"{name}_{knot}"]) for knot in self.knots]
        placed = self._placed(theta)

        def step(state: State) -> State:
            moved = [log * self._reached(k, float(state["t"])) for k, log in enumerate(logs)]
            factor = torch.exp(torch.as_tensor(sum(moved), dtype=torch.float32)) * placed
            after = day({**state, name: state[name] * factor})
            return {**after, name: state[name]}

        return step

    def _reached(self, k: int, t: float) -> float:
        """How far the walk has come along its k-th step."""
        begins = ([0, *self.knots])[k]
        return min(1.0, max(0.0, (t - begins) / (self.knots[k] - begins)))

    def _placed(self, theta: Theta) -> Tensor | float:
        """The factor of everybody's place, shape (…, N)."""
        if not self.places:
            return 1.0
        each = torch.stack(torch.broadcast_tensors(*(theta[key] for key in self.places)), -1)
        each = each.reshape(*each.shape[:-2], -1) if each.dim() > 1 else each
        return each.index_select(-1, self.population[self.within].long())
