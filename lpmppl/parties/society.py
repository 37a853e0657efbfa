"""A client's part of a society: its own people, who live with everybody's without anybody seeing them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lpmppl.effects.handlers.sharing import FixedPoint, SecretShared
from lpmppl.effects.internals import checkpoints
from lpmppl.effects.opening import Custodian, Noised
from lpmppl.errors import InputError
from lpmppl.inference.run import run
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from lpmppl.parties import session
from lpmppl.parties.client import Rounds
from lpmppl.parties.remote import Remote
from lpmppl.parties.risk import OwnRisk

__all__ = [
    "KEEP",
    "Dropouts",
    "Known",
    "central",
    "fingerprint",
    "lived",
    "parted",
    "society",
    "sums_a_day",
    "tallies_of",
]

KEEP = ("household",)
"""Networks that every client has whole: its people's households are its own."""

FINEST = 2.0**-6
"""How finely contacts across a borough count: every bit of a number has to be proved."""


def society(people: Population) -> SIR:
    """SIR over households, which a client keeps, and boroughs, which are everybody's; tallied by borough."""
    for name in ("household", "borough"):
        if name not in people.dataset:
            raise InputError(f"the people lack '{name}'; write clients' people with `lpmppl party people`")
    borough = replace(people.network("borough"), quantum=FINEST)
    return SIR(people, (people.network("household"), borough), by={"borough": "borough"})


def fingerprint(days: int, seed: int, parameters: Mapping[str, float], noise: float | None = None) -> str:
    """What all clients must run alike, as a session's model."""
    noised = () if noise is None else (noise,)
    return session.fingerprint(SIR.name, KEEP, days, seed, dict(sorted(parameters.items())), *noised)


def parted(people: Population, clients: int) -> list[Population]:
    """The people in parts for so many clients, whole households each, who know how many live in each borough.

    Raises:
        InputError: for more clients than households.
    """
    home = people["household"].numpy()
    kept = people.dataset[["household", "borough"]]
    boroughs = len(people.labels("borough"))
    members = np.bincount(people["borough"].numpy(), minlength=boroughs)
    order = np.unique(home, return_inverse=True)[1]
    if not 1 <= clients <= order.max() + 1:
        raise InputError(f"{clients} clients can't share {order.max() + 1} households; give from 1 to that many")
    part = order * clients // (order.max() + 1)
    found = []
    for k in range(clients):
        mine = np.flatnonzero(part == k)
        own = xr.Dataset(
            {
                "household": ("agent", np.unique(home[mine], return_inverse=True)[1].astype(np.int32)),
                "borough": ("agent", kept["borough"].to_numpy()[mine], kept["borough"].attrs),
                "borough_members": ("borough_group", members),
            },
            coords={"agent": mine},
            attrs={"title": f"people of client {k}"},
        )
        found.append(Population(own))
    return found


@dataclass(frozen=True)
class Dropouts:
    """Agents that die in mid-upload in one of a day's sums, and are gone for the rest of the day.

    Args:
        share: of agents, each day.
        sums: how many sums a day has.
        seed: of the choice.
    """

    share: float
    sums: int
    seed: int

    def __call__(self, turn: int, agents: int) -> Tensor:
        """Who is lost in a sum, Boolean of shape (n,)."""
        day, sum_of_day = divmod(turn, self.sums)
        chance = np.random.default_rng((self.seed, day))
        dies, when = chance.random(agents) < self.share, chance.integers(0, self.sums, agents)
        return torch.from_numpy(dies & (when <= sum_of_day))


def sums_a_day(people: Population) -> int:
    """How many sums of the society are opened each day."""
    with FixedPoint(opening=Custodian(KEEP, least=2)) as counting:
        run(society(people), days=1)
    return counting.opened


def lived(
    people: Population,
    rounds: Rounds,
    days: int,
    seed: int,
    parameters: Mapping[str, float] | None = None,
    dropouts: Dropouts | None = None,
    risk: OwnRisk | None = None,
    noise: float | None = None,
) -> tuple[xr.DataTree, Remote]:
    """Let a client's people live with everybody's.

    Args:
        people: the client's.
        rounds: its rounds, begun.
        days: for how many days.
        seed: of everybody's chance, the same for all clients.
        parameters: values of parameters, the same for all.
        dropouts: for trials, who is lost when.
        risk: what keeps its people's own risk.
        noise: σ of the noise that every helper adds to sums, in messages; none by default, the same for all.
    Returns:
        what everybody may know, the tallies of the whole society, and the parties with who of its own was included.
    Raises:
        LpmError: for what goes wrong between parties, or groups that are too small to be opened.
    """
    remote = Remote(rounds, dropouts)
    opening = Custodian(KEEP, least=rounds.session.least) if noise is None else Noised(KEEP, sigma=noise)
    private = SecretShared(remote, opening=opening, quiet=True)
    with private, risk or nullcontext():
        tree = run(society(people), days=days, seed=seed, set=dict(parameters or {}))
    return tree, remote


def central(
    people: Population, days: int, seed: int, included: Tensor, parameters: Mapping[str, float] | None = None
) -> xr.DataTree:
    """The same society in one place and in the clear, without whom each sum lacked.

    Args:
        people: everybody.
        days: for how many days.
        seed: of the chance.
        included: of each sum, who was in it, Boolean of shape (sums, N).
        parameters: values of parameters.
    """
    opening = Custodian(KEEP, least=2)
    with FixedPoint(opening=opening, lost=lambda turn, _: ~included[turn]):
        return run(society(people), days=days, seed=seed, set=dict(parameters or {}))


@dataclass(frozen=True, eq=False)
class Known:
    """What a client knows after a run.

    Attributes:
        tallies: of the whole society, by name, int64 of shape (days, boroughs).
        included: of each sum, who of its own was in it, Boolean of shape (sums, n).
        everybody: of each sum, how many of everybody were, int64 of shape (sums,).
        bytes_sent: to helpers.
    """

    tallies: Mapping[str, Tensor]
    included: Tensor
    everybody: Tensor
    bytes_sent: int

    @classmethod
    def of(cls, tree: xr.DataTree, remote: Remote) -> Known:
        """What a run has left."""
        return cls(tallies_of(tree), torch.stack(remote.included), torch.tensor(remote.everybody), remote.bytes_sent)

    @classmethod
    def open(cls, path: str | Path) -> Known:
        """What `save` wrote; InputError for anything else."""
        arrays, meta = checkpoints.load(Path(path), ("bytes_sent",))
        tallies = {name.partition("/")[2]: x for name, x in arrays.items() if name.startswith("tally/")}
        return cls(tallies, arrays["included"], arrays["everybody"], meta["bytes_sent"])

    def save(self, path: str | Path) -> None:
        """Write it to a file, whole or not at all."""
        arrays = {"included": self.included, "everybody": self.everybody}
        arrays |= {f"tally/{name}": x for name, x in self.tallies.items()}
        checkpoints.save(Path(path), arrays, {"bytes_sent": self.bytes_sent})


def tallies_of(tree: xr.DataTree) -> dict[str, Tensor]:
    """The tallies of a run, by name."""
    found = tree["prior_predictive"].to_dataset().isel(chain=0, draw=0)
    return {str(name): torch.from_numpy(np.array(x)) for name, x in found.data_vars.items()}
