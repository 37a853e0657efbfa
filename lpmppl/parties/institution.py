"""An institution that calibrates together with others: its society, its runs and its data stay with it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from lpmppl.data.numeric import numeric
from lpmppl.effects.internals.shares import decoded, encoded
from lpmppl.errors import InputError, LpmError, nearest
from lpmppl.inference.federated import Federated, update
from lpmppl.inference.training import Trained, TrainingRuns
from lpmppl.models.model import Model
from lpmppl.models.population import Population
from lpmppl.parties import session
from lpmppl.parties.client import Rounds

__all__ = ["FRACTION_BITS", "LONGEST", "Institution", "by_borough", "fingerprint", "seen"]

FRACTION_BITS = 40
"""Of what institutions find: errors of 2⁻⁴¹ each, and room for sums of four million."""


LONGEST = 2**18
"""The most numbers that a network may have."""


def by_borough(people: Population) -> dict[str, Population]:
    """The people of each borough, with the names that they have in the city, by the borough's name in small letters."""
    code = people["borough"].numpy()
    return {
        label.lower().replace(" ", "-"): Population(
            people.dataset.isel(agent=np.flatnonzero(code == k)).assign_coords(
                agent=("agent", people.ids.numpy()[code == k])
            )
        )
        for k, label in enumerate(people.labels("borough"))
        if (code == k).any()
    }


def fingerprint(streams: Sequence[str], days: int, simulations: int, seed: int, local: int) -> str:
    """What all institutions must do alike, as a session's model."""
    return session.fingerprint("calibration", list(streams), days, simulations, seed, local)


def seen(path: str | Path, streams: Sequence[str], days: int) -> dict[str, list[float]]:
    """The counts of an institution's own file, a column for each stream and a row for each day; empty ones are unseen.

    Raises:
        InputError: for a file that can't be read, lacks a stream, or has what is no number.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as e:
        said = " ".join(str(e).split())
        raise InputError(
            f"{path} can't be read as a table ({said}); give a CSV file with a column for each stream"
        ) from e
    found = {}
    for stream in streams:
        if stream not in table.columns:
            raise InputError(nearest(f"column of {path}", stream, [" ".join(str(c).split()) for c in table.columns]))
        counts = numeric(table[stream])
        if bool((counts.isna() & table[stream].notna()).any()):
            raise InputError(f"{path}: column '{stream}' has what is no number")
        if bool((counts < 0).any()) or not np.isfinite(counts.dropna()).all() or counts.isna().all():
            raise InputError(f"{path}: column '{stream}' has no counts, or some that are negative or infinite")
        found[stream] = counts.to_list()[:days]
    return found


class Institution(Federated):
    r"""One of several institutions that learn a `CalibNN` together, each a process of its own, by sums in secret.

    In a round each works out the gradient at the weights, which all have alike, or what its own steps changed; these
    are shared among the session's helpers in fixed point, and their mean over the institutions whose shares arrived is
    the same step for all. With one step a round it is the update of a `CalibNN` of all societies in one place, but for
    the rounding of :math:`2^{-41}` each.

    Args:
        name: the institution's, in the session.
        model: its society.
        streams: as for `CalibNN`.
        days: for how many days.
        rounds: its rounds, begun; each client of the session has one agent, the institution.
        local: how many steps of its own it takes in a round.
        options: what else `CalibNN` takes, the same for all.
    Raises:
        InputError: for a session whose clients have more agents than one, or whose vectors are too short.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        streams: str | Sequence[str],
        days: int,
        rounds: Rounds,
        *,
        local: int = 1,
        **options: Any,
    ) -> None:
        super().__init__({name: model}, streams, days, local=local, **options)
        agreed = rounds.session
        if set(agreed.clients.values()) != {1}:
            raise InputError("in a session of institutions each client has one agent, itself; make it with NAME=1")
        if agreed.longest < (need := self.length):
            raise InputError(f"the session's vectors have at most {agreed.longest} numbers, but {need} are needed")
        self.rounds, self.bytes_sent = rounds, 0
        # As in one place, where each society's runs have a chance of their own.
        place = list(agreed.clients).index(name)
        (task,) = self.tasks.values()
        self._runs = {name: TrainingRuns(task, self.days, self.seed + 104_729 * place)}
        self._mine = Trained(copy.deepcopy(self._trained.network))

    @property
    def length(self) -> int:
        """How many numbers are summed in a round: the weights and the loss."""
        return parameters_to_vector(self._trained.network.parameters()).numel() + 1

    def _parts(self) -> list[Trained]:
        return [self._trained, self._mine]

    def _mean(self, weights: Tensor) -> np.ndarray:
        (runs,) = self._runs.values()
        found = torch.from_numpy(update(self._mine, runs, weights, self.local))
        name = f"what '{self.rounds.name}' found"
        values = encoded(found, FRACTION_BITS, len(self.rounds.session.clients), name)
        opened = self.rounds.sum(values[None])
        if opened.included < 2:
            raise LpmError(f"round {opened.round} has the update of {opened.included} institution; wait for the others")
        self.bytes_sent += opened.bytes_sent
        return np.asarray(decoded(opened.total, FRACTION_BITS) / opened.included)
