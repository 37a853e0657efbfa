"""A model brought together with its people: create, execute, visualize, as Fig. 5 of the LPM paper has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.archetype import Ode
from lpmppl.effects.handlers.behaviour import Tabulated, Utility
from lpmppl.errors import InputError, nearest
from lpmppl.inference.run import run
from lpmppl.models.archetypes import Archetypes
from lpmppl.models.model import Model
from lpmppl.models.people import needed
from lpmppl.models.population import Population, named
from lpmppl.report import hexagons
from lpmppl.report import map as maps
from lpmppl.report.places import Places, known, places

__all__ = ["Simulation", "create"]

IMMUNE, DECISIONS = "immune_dynamics", "decisions"
"""What may be swapped besides decisions by their names: the ODE within the body, and all decisions at once."""

POSITIONS = "positions"
"""The variable that says where households or agents are, where a population has one."""

AREA = "area"
"""The dimension of hexagons in which positions are gathered."""


_OPTIONS = [name for name in inspect.signature(run).parameters if name not in ("model", "days", "seed")]
"""What a run takes besides."""


class Simulation:
    """A model with its people, ready to run: Fig. 5 of the LPM paper, for those who come from AgentTorch.

    Args:
        model: the society.
        by: the variables by which its tallies are broken down, by the name of their dimension, where they are known.
        binned: the cells of hexagons in which positions were gathered, by the variable of the positions.
        behaviour: by what people decide; the model's own behaviour by default.
    """

    def __init__(
        self,
        model: Model,
        by: Mapping[str, str] | None = None,
        binned: Mapping[str, NDArray[np.int64]] | None = None,
        behaviour: Messenger | None = None,
    ) -> None:
        self.model, self.behaviour = model, behaviour
        self.by, self.binned = dict(by or {}), dict(binned or {})
        self.result: xr.DataTree | None = None

    def execute(self, days: int = 90, seed: int = 0, **options: Any) -> xr.DataTree:
        """Run it, as `run(model, days, seed, …)` does, and keep the result in `.result`.

        Raises:
            InputError: for an option that `run` doesn't have, or what it refuses.
        """
        for name in options:
            if name not in _OPTIONS:
                raise InputError(nearest("option of a run", name, _OPTIONS))
        with self.behaviour or nullcontext():
            self.result = run(self.model, days, seed, **options)
        return self.result

    def visualize(self, geo_index: str = f"household/{POSITIONS}", path: str | Path | None = None) -> maps.Map:
        """A map of the result, day by day: shown in a notebook, and a page of its own where a path is given.

        Args:
            geo_index: where people are: "dimension/variable", or the variable. Positions of households or agents, of
                shape (n, 2), are gathered in hexagons. New York's households have none: "household/positions" is the
                hexagon of their community district. Any coded variable by which the tallies are is a map of its areas.
            path: a file that ends in `.html`, or a folder for map.html; nothing is written by default.
        Raises:
            InputError: before `execute`; for a variable that there isn't, that is of another dimension, or by which the
                tallies aren't.
        """
        if self.result is None:
            raise InputError("nothing has been simulated yet: call execute(days=…) before visualize()")
        dim, laid = self._areas(geo_index)
        page = maps.Map(maps.render(self.result, dim, laid))
        if path is not None:
            page.write(path)
        return page

    def _areas(self, geo_index: str) -> tuple[str, Places | None]:
        """The dimension of the result that a geographical index means, and where its areas are if that is said."""
        people = self.model.population
        variable = _variable(people, geo_index)
        if variable is None:
            variable = "puma"
        dim = next((d for d, v in self.by.items() if v == variable), None)
        if dim is None and self.model.by is not None and variable in self.model.by.dims:
            dim = variable
        if dim is None or self.model.by is None or dim not in self.model.by.dims:
            name = AREA if people.dataset[variable].ndim == 2 else variable
            raise InputError(
                f"geo_index='{geo_index}': the tallies aren't by '{variable}'; create(model, population, "
                f'by={{"{name}": "{variable}"}}) has them so'
            )
        labels = [str(x) for x in self.model.by.dims[dim]]
        if variable in self.binned:
            note = "People are gathered, by where they are, in hexagons of one size."
            names = [f"Hexagon {x}" for x in labels]
            return dim, Places(names, np.arange(len(labels)), self.binned[variable], [], note, "place")
        if known(labels) or POSITIONS not in people.dataset:
            return dim, None
        return dim, places(labels, _means(people, variable, labels), dim)


def create(
    model: Callable[..., Model],
    population: object,
    archetype: Mapping[str, object] | None = None,
    **options: Any,
) -> Simulation:
    """Bring a model and its people together, and say what of it, archetype by archetype, is to be otherwise.

    Where the model has `by` and it isn't given, tallies are by area, so that there is a map of them: by the hexagons of
    the population's `positions` (shape (n, 2) over `household`, `agent` or another group of agents), or in New York by
    community district and age.

    Args:
        model: what makes a model of a population, such as `lpmppl.nyc.pandemic`, or a class of models.
        population: the people.
        archetype: what stands in for a part of the model, by its name: `immune_dynamics`, an ODE made by
            `lpmppl.archetype.ode`; a decision, such as `isolate`, with the handler by which it is decided, coefficients
            of a `Utility` by option, or the probabilities of a table; `decisions`, for all of them a handler, or the
            `Archetypes` by which people decide.
        options: what else the model takes; values of `by` may be positions, such as `{"area": "household/positions"}`.
    Raises:
        InputError: for what is no model or no population, an option that the model doesn't take, or a name that it
            hasn't or that can't be swapped.

    >>> import lpmppl as lpm
    >>> simulation = create(lpm.nyc.seirm, lpm.nyc.population(1_000))
    >>> simulation.execute(days=5)["prior_predictive"]["infections"].dims
    ('chain', 'draw', 'day', 'puma', 'age')
    """
    takes = _taken(model)
    people = needed(population)
    swaps = _swaps(archetype)
    variables: dict[str, str] = {}
    binned: dict[str, NDArray[np.int64]] = {}
    if "by" in takes:
        by = named(options.get("by"), _areas_of(people) or {})
        if by:
            people, options["by"], binned = _gathered(people, by)
            variables = {dim: index.rpartition("/")[2] for dim, index in by.items()}
    for name, value in list(swaps.items()):
        argument = _argument(name, value)
        if argument is None:
            continue
        if argument not in takes:
            raise InputError(f"archetype '{name}' can't be swapped in {_name(model)}: it has no {argument}=")
        options[argument] = [value.part()] if isinstance(value, Ode) else value
        del swaps[name]
    _check_options(model, takes, options)
    made = model(people, **options)
    if not isinstance(made, Model):
        raise InputError(f"{_name(model)} made {type(made).__name__}, which is no model")
    for course in (archetype or {}).values():
        if isinstance(course, Ode):
            # A run of one ODE isn't resumed with another.
            made.variant = f"{made.variant} {course.mark}"
    return Simulation(made, variables, binned, _behaviour(made, swaps))


def _taken(model: Any) -> Mapping[str, inspect.Parameter]:
    """What a maker of models takes, by name."""
    own = inspect.isclass(model) and not issubclass(model, Model)
    if not callable(model) or own or inspect.isbuiltin(model):
        what = f"the class {model.__name__}" if inspect.isclass(model) else type(model).__name__
        raise InputError(f"model is {what}; give what makes one of a population, such as nyc.pandemic")
    return inspect.signature(model).parameters


def _check_options(
    model: Callable[..., Model], takes: Mapping[str, inspect.Parameter], options: Mapping[str, object]
) -> None:
    """Refuse options that a maker of models doesn't take, and say what it needs besides."""
    most = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
    for name in options:
        if name not in takes and not most:
            raise InputError(nearest(f"option of {_name(model)}", name, [*takes][1:]))
    try:
        inspect.signature(model).bind(None, **options)
    except TypeError as e:
        raise InputError(
            f"{_name(model)} can't be made of a population and {', '.join(options) or 'no options'} ({e}); give a "
            "function of the population that makes it, such as lambda people: …"
        ) from e


def _name(model: Callable[..., Model]) -> str:
    return getattr(model, "__name__", type(model).__name__)


def _variable(people: Population, geo_index: str) -> str | None:
    """The variable that a geographical index names; None for positions of New Yorkers, who have none."""
    dim, slash, variable = str(geo_index).rpartition("/")
    known_ones = [str(v) for v in people.dataset.variables]
    if variable not in people.dataset:
        if variable == POSITIONS and "puma" in people.dataset and known(people.labels("puma")):
            return None
        hint = f"; give the population a variable '{POSITIONS}' of shape (n, 2)" if variable == POSITIONS else ""
        raise InputError(
            f"geo_index='{geo_index}': {nearest('variable of the population', variable, known_ones)}{hint}"
        )
    of = str(people.dataset[variable].dims[0])
    if slash and dim != of:
        raise InputError(f"geo_index='{geo_index}': '{variable}' is of each {of}; say '{of}/{variable}'")
    return variable


def _areas_of(people: Population) -> Mapping[str, str] | None:
    """By which areas tallies are where nobody says: where people are, or New York's districts; None for neither."""
    if POSITIONS in people.dataset:
        return {AREA: POSITIONS}
    if "puma" in people.dataset and known(people.labels("puma")):
        return {"puma": "puma", **({"age": "age_band"} if "age_band" in people.dataset else {})}
    return None


def _gathered(
    people: Population, by: Mapping[str, str]
) -> tuple[Population, dict[str, str], dict[str, NDArray[np.int64]]]:
    """The people with the hexagons of the positions by which tallies are, those strata, and the hexagons' cells."""
    strata: dict[str, str] = {}
    binned: dict[str, NDArray[np.int64]] = {}
    dataset = people.dataset
    for dim, index in by.items():
        name = str(index).rpartition("/")[2]
        if name not in dataset or dataset[name].ndim != 2:
            strata[dim] = name if name in dataset else index
            continue
        variable = _variable(people, str(index))
        assert variable is not None
        if people.ranks is not None:
            raise InputError(f"by={{'{dim}': '{index}'}}: positions are gathered before the people are parted")
        codes, binned[variable] = hexagons.binned(_positions(people, variable))
        labels = [str(k) for k in range(1, len(binned[variable]) + 1)]
        strata[dim] = f"{dim}_of_{variable}"
        of = dataset[variable].dims[0]
        dataset = dataset.assign({strata[dim]: (of, codes, {"labels": labels, "long_name": f"hexagon of {variable}"})})
    return (Population(dataset, people.device) if binned else people), strata, binned


def _positions(people: Population, variable: str) -> NDArray[np.float64]:
    """Where they are, shape (n, 2)."""
    found = people.dataset[variable]
    if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iuf":
        raise InputError(f"'{variable}' has shape {found.shape}, {found.dtype}; positions are numbers of shape (n, 2)")
    values = found.to_numpy().astype(np.float64)
    if lost := int((~np.isfinite(values)).any(1).sum()):
        raise InputError(f"'{variable}' has no place for {lost} of {len(values)}; give each finite coordinates")
    return values


def _means(people: Population, variable: str, labels: list[str]) -> dict[str, tuple[float, float]]:
    """The mean position of the agents of every area."""
    of, where = str(people.dataset[POSITIONS].dims[0]), _positions(people, POSITIONS)
    agents = where if of == "agent" else where[people[of].cpu().numpy()]
    code = people.strata(area=variable).index.cpu().numpy().astype(np.int64)
    count = np.bincount(code, minlength=len(labels)).clip(min=1)
    x, y = (np.bincount(code, agents[:, k], minlength=len(labels)) / count for k in (0, 1))
    return {label: (float(x[k]), float(y[k])) for k, label in enumerate(labels)}


def _swaps(archetype: object) -> dict[str, Any]:
    if archetype is None:
        return {}
    if not isinstance(archetype, Mapping):
        what = type(archetype).__name__
        raise InputError(f"archetype is {what}; give what is swapped by its name, such as {{'{DECISIONS}': …}}")
    return {str(name): value for name, value in archetype.items()}


def _argument(name: str, value: object) -> str | None:
    """The argument of the model by which something is swapped; None for what decides."""
    if name == IMMUNE:
        if not isinstance(value, Ode):
            raise InputError(f"archetype '{IMMUNE}' is {type(value).__name__}; make it with archetype.ode(…)")
        return "swapped"
    if isinstance(value, Ode):
        raise InputError(f"archetype '{name}' is an ODE, which '{IMMUNE}' alone can be")
    if isinstance(value, Archetypes):
        if name != DECISIONS:
            raise InputError(f"archetype '{name}': all decisions have the same archetypes; give them as '{DECISIONS}'")
        return "archetypes"
    return None


def _behaviour(model: Model, swaps: Mapping[str, Any]) -> Messenger | None:
    """By what people decide, with some decisions swapped; None for the model's own behaviour."""
    if not swaps:
        return None
    own: dict[str, Messenger] = {}
    for name, value in swaps.items():
        if name != DECISIONS and name not in model.behaviour:
            raise InputError(nearest("archetype", name, [IMMUNE, DECISIONS, *model.behaviour]))
        if isinstance(value, Messenger) and hasattr(value, "_pyro_decide"):
            handler: Messenger = value
        elif isinstance(value, Mapping) and name != DECISIONS:
            handler = Utility({name: value})
        elif isinstance(value, Tensor) and name != DECISIONS:
            handler = Tabulated({name: value})
        else:
            what = type(value).__name__
            raise InputError(f"archetype '{name}' is {what}, which decides nothing; give a handler such as Utility")
        own |= {decision: handler for decision in model.behaviour if decision not in swaps} if name == DECISIONS else {}
        own |= {name: handler} if name != DECISIONS else {}
    return _Deciding(own, Utility(model.behaviour))


class _Deciding(Messenger):
    """Let some decisions be taken by handlers of their own, and the rest by another."""

    def __init__(self, own: Mapping[str, Messenger], rest: Messenger) -> None:
        super().__init__()
        self.own, self.rest = own, rest

    def _pyro_decide(self, msg: Message) -> None:
        handler: Any = self.own.get(msg["args"][0], self.rest)
        handler._pyro_decide(msg)
