"""Law 8 for events that come again: plain Pyro and noise agree with a reset and a new episode, and only then."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.effects.ops import aggregate, happens, tally
from lpmppl.models.population import Population
from tests.oracles import RATE, chance, go, same_law

TOWNS, SIZE, DAYS = 400, 60, 30
BETA, GAMMA, START = 0.5, 0.25, 0.1


def sis(people, towns, reset=True, advance=True):
    """Susceptible, infectious, susceptible again: the infections of every town, day by day."""

    def initial():
        infectious = torch.arange(people.size) % SIZE < START * SIZE
        zero, none = torch.zeros(people.size, dtype=torch.float64), torch.zeros(people.size, dtype=torch.int32)
        return {"infectious": infectious, "exposure": zero, "illness": zero, "episode": none, "spell": none}

    def day(s):
        infection = Exposure(s["exposure"], aggregate(s["infectious"], towns) * BETA, ~s["infectious"], s["episode"])
        recovery = Exposure(s["illness"], GAMMA, s["infectious"], s["spell"])
        with people.plate():
            infected, _ = happens("infection", infection)
            recovered, _ = happens("recovery", recovery)
        tally("infections", infected, by=towns)
        # Recovered people return to the risk of infection, infected ones to that of recovery.
        return {
            "infectious": (s["infectious"] & ~recovered) | infected,
            "exposure": torch.where(recovered, 0.0, infection.after) if reset else infection.after,
            "illness": torch.where(infected, 0.0, recovery.after),
            "episode": s["episode"] + recovered if advance else s["episode"],
            "spell": s["spell"] + infected,
        }

    return day, initial


def people_of_towns(towns=TOWNS):
    return Population.of({"town": np.arange(towns * SIZE) // SIZE})


def infections_per_head(*handlers, **variant):
    people = people_of_towns()
    with chance(41):
        _, series = go(*sis(people, people.network("town"), **variant), DAYS, *handlers)
    return series["infections"].sum(0) / SIZE


def test_repeated_infections_agree_with_plain_pyro():
    """Failure rate 1e-6."""
    plain, noise = infections_per_head(), infections_per_head(ExogenousNoise(42))
    assert plain.mean() > 2
    assert same_law(plain, noise) > RATE


@pytest.mark.parametrize(
    ("variant", "direction"),
    [
        ({"reset": True, "advance": False}, 1),
        ({"reset": False, "advance": True}, -1),
        ({"reset": False, "advance": False}, -1),
    ],
    ids=["one resistance for all episodes", "hazard carried over", "neither"],
)
def test_without_reset_or_episode_the_law_is_another(variant, direction):
    """Failure rate 1e-6 each: plain Pyro doesn't mind, noise does, by more than a tenth."""
    plain, noise = infections_per_head(**variant), infections_per_head(ExogenousNoise(43), **variant)
    assert same_law(plain, infections_per_head()) > RATE
    assert same_law(plain, noise) < RATE
    assert (noise.mean() - plain.mean()) * direction > 0.1 * plain.mean()


def test_episodes_agree_over_draws():
    """Failure rate 1e-6: the first town in 300 draws under noise, against plain Pyro's towns."""
    people = Population.of({"town": np.zeros(SIZE, dtype=int)})
    noise = ExogenousNoise(44, torch.arange(300).unsqueeze(-1))
    _, series = go(*sis(people, people.everyone()), DAYS, noise)
    assert same_law(infections_per_head(), series["infections"].sum(0).reshape(-1) / SIZE) > RATE
