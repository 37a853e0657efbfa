"""A model in which behaviour depends on parameters, so that it can be calibrated, differentiated and varied."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from lpmppl._compat import handler_stack
from lpmppl.errors import InputError, LpmError
from lpmppl.models.model import Model, Parameter, Wrapped
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["Behaving"]


class Behaving(Wrapped):
    """A model whose people decide by a behaviour that is made of its parameters.

    Args:
        model: the model.
        behaviour: the parameters, all of them, to the handler by which people decide, such as a `Utility` or `Neural`.
        parameters: those that the behaviour has besides the model's own, by name.
    Raises:
        InputError: for a parameter that the model has already, or a behaviour that can't be made.

    >>> import pyro.distributions as dist
    >>> import lpmppl as lpm
    >>> from lpmppl.effects.handlers import Utility
    >>> city = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    >>> tired = Parameter(dist.Normal(-0.6, 0.3), -0.6, "log-odds of isolating lost to fatigue", "1", "chosen")
    >>> def decides(theta):
    ...     isolate = {**city.behaviour["isolate"]["isolate"], "fatigue": theta["fatigue"]}
    ...     return Utility({**city.behaviour, "isolate": {"isolate": isolate}})
    >>> "fatigue" in Behaving(city, decides, {"fatigue": tired}).parameters
    True
    """

    def __init__(
        self,
        model: Model,
        behaviour: Callable[[Theta], AbstractContextManager[Any]],
        parameters: Mapping[str, Parameter],
    ) -> None:
        super().__init__(model)
        if any(isinstance(inner, Behaving) for inner in _within(model)):
            raise InputError("the model's behaviour is made of parameters already: make one function of both")
        if not isinstance(parameters, Mapping) or not all(isinstance(p, Parameter) for p in parameters.values()):
            raise InputError(f"parameters={parameters!r}: give each parameter of the behaviour as a Parameter, by name")
        if twice := sorted(set(parameters) & set(model.parameters)):
            raise InputError(f"the model has a parameter '{twice[0]}' already; give the behaviour's another name")
        self.decides = behaviour
        self.parameters = {**model.parameters, **parameters}
        # The model's own behaviour isn't in force: this one is.
        self.behaviour = {}
        if not hasattr(behaviour(self.defaults()), "_pyro_decide"):
            raise InputError("behaviour= must give a handler that decides, such as Utility or Neural")

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        if any(hasattr(handler, "_pyro_decide") for handler in handler_stack()):
            raise LpmError(
                "a behaviour is in force around a model whose behaviour is made of parameters: leave one out"
            )
        with self.decides(theta):
            return self.model.initial(theta, start)

    def day(self, theta: Theta) -> Dynamics:
        day, handler = self.model.day(theta), self.decides(theta)

        def step(state: State) -> State:
            with handler:
                return day(state)

        return step


def _within(model: Model) -> Iterator[Model]:
    """A model, and those that it is made of."""
    yield model
    if isinstance(model, Wrapped):
        yield from _within(model.model)
