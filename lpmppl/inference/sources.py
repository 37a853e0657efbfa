"""Who infected whom: the infections of a run by layer, by who passed them on and by who got them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from torch import Tensor

from lpmppl.effects.fields import Network
from lpmppl.effects.handlers.sources import Sources
from lpmppl.errors import InputError
from lpmppl.inference.results import tally_of
from lpmppl.inference.strata import strata
from lpmppl.models.model import Model

__all__ = ["Who", "kinds_of", "layers_of"]


MOST = 1_000_000
"""The most pairs of kinds of people that are told apart, on each day and layer."""


def kinds_of(model: Model) -> dict[str, tuple[Tensor, list[str]]]:
    """Kinds of groups, such as schools among workplaces, that are layers of their own: codes and labels by network.

    A label that two networks have, or that is another network's name, has its own network's before it.
    """
    people = model.population
    named = [str(v) for v in people.dataset.data_vars if str(v).endswith("_kind")]
    coded = [name for name in named if "labels" in people.dataset[name].attrs]
    kinds = {name.removesuffix("_kind"): people.coded(name) for name in coded}
    found = {}
    for network, (mine, code) in kinds.items():
        others = {label for other, (theirs, _) in kinds.items() if other != network for label in theirs}
        others |= {str(v) for v in people.dataset.variables} - {network}
        found[network] = code, [f"{network}: {label}" if label in others else label for label in mine]
    return found


def layers_of(model: Model, networks: Mapping[str, Network]) -> dict[str, tuple[str, Tensor | None]]:
    """The layers that networks make: each one's network, and whose messages over it they are, None for everybody's."""
    kinds, found = kinds_of(model), dict[str, tuple[str, Tensor | None]]()
    for name, network in networks.items():
        if name not in kinds:
            found[name] = name, None
            continue
        code, labels = kinds[name]
        group = model.population[name].long()
        meets = network.share("sum")[group] > 0
        for k, label in enumerate(labels):
            of_kind = (code[group] == k) & meets
            if bool(of_kind.any()):
                found[label] = name, of_kind
    return found


class Who:
    """What records, over the draws of a run, from whom the events of a model's spreading site came.

    Args:
        model: the society.
        by: variables of agents or of their households, by the name of their dimension.
    Raises:
        InputError: for a model in which nothing spreads, or a variable that can't be used.
    """

    def __init__(self, model: Model, by: Mapping[str, str]) -> None:
        if not model.spreads:
            raise InputError(f"nothing spreads from agent to agent in the model '{model.name}': leave sources out")
        self.model, self.site, self.strata = model, model.spreads, strata(model.population, by)
        if taken := {self.site, f"{self.site}_from_nobody"} & {*self.strata.dims}:
            raise InputError(f"a stratum can't be called '{min(taken)}': the record has that name; give it another")
        if self.strata.count**2 > MOST:
            raise InputError(
                f"from whom {self.site} came among {self.strata.count:,} kinds of people is too long a table: give at "
                f"most {int(MOST**0.5):,} kinds in sources={dict(by)}"
            )
        self.layers = kinds_of(model)
        self.handlers: list[Sources] = []

    def handler(self) -> Sources:
        """The handler of the next draw."""
        self.handlers.append(Sources(self.site, self.strata, layers=self.layers))
        return self.handlers[-1]

    def dataset(self, days: int) -> xr.Dataset:
        """What was recorded, in people per day.

        Its variable has the site's name, over chain, draw, worlds, day and `layer`, who sent under `from_age` and the
        like, and who received under `age` and the like. Where some of it came from nobody, there is a second,
        `infection_from_nobody`, without layers and senders.
        """
        networks = {name: network for handler in self.handlers for name, network in handler.networks.items()}
        names = list(layers_of(self.model, networks))
        draws = np.arange(len(self.handlers))
        if not any(handler.days for handler in self.handlers):
            raise InputError(f"the site '{self.site}' was never met: this model has no substep in which it spreads")
        found = {}
        if names:
            found[self.site] = tally_of("who acted on whom", [h.sent(names) for h in self.handlers], days, "people")
        nobody = tally_of("from no agent", [h.unsent() for h in self.handlers], days, "people")
        if bool((nobody != 0).any()):
            found[f"{self.site}_from_nobody"] = nobody
        return xr.Dataset(found).assign_coords(chain=[0], draw=draws, day=np.arange(days))
