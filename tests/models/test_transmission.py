"""Transmission: everybody's hazard against a plain loop over who meets whom, and contacts drawn one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lpmppl.errors import InputError
from lpmppl.models import transmission
from lpmppl.models.contacts import CONTACTS, SUSCEPTIBILITY, in_session, mixing
from lpmppl.models.immunity import infectiousness
from lpmppl.models.population import Population
from lpmppl.models.progression import Stage
from tests.models.parts import alone, setting

N = 240


def village(order: np.ndarray | None = None) -> Population:
    import xarray as xr

    rng = np.random.default_rng(3)
    i = np.arange(N)
    work = np.where(rng.random(N) < 0.7, rng.integers(1, 12, N), 0)
    agents = {
        "age_band": rng.integers(0, 9, N).astype(np.uint8),
        "household": i // 3,
        "workplace": work,
        "puma": (i // 80).astype(np.uint8),
        "borough": (i // 160).astype(np.uint8),
        "employment": np.where(rng.random(N) < 0.6, 2, 0).astype(np.uint8),
    }
    kinds = xr.Variable(
        "workplace", np.array([0] + [1, 2] * 6)[:12].astype(np.uint8), {"labels": ["none", "workplace", "school"]}
    )
    data = xr.Dataset({k: ("agent", v) for k, v in agents.items()} | {"workplace_kind": kinds})
    return Population(data)


PEOPLE = village()


def state(seed: int) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(seed)
    mask = lambda p: torch.from_numpy(rng.random(N) < p)  # noqa: E731
    active = mask(0.3)
    return {
        "active": active,
        "archetype": torch.from_numpy(rng.integers(0, 180, N).astype(np.int16)),
        "employed": PEOPLE["employment"] == 2,
        "isolating": mask(0.2),
        "masked": mask(0.5),
        "mobility/retail": torch.tensor([0.8]),
        "mobility/transit": torch.tensor([0.6]),
        "mobility/workplaces": torch.tensor([0.7]),
        "protection": torch.from_numpy(rng.random(N)).float(),
        "returned": torch.zeros(N, dtype=torch.bool),
        "stage": torch.from_numpy(np.where(active, rng.choice([1, 2, 3, 4, 5, 6], N), 0)).to(torch.uint8),
        "susceptible": ~active,
        "infected_at": torch.where(active, torch.from_numpy(rng.uniform(-12, 0, N)).float(), -math.inf),
        "viral_load": torch.full((180 * 31,), 7.0),
    }


def hazards(s, theta, school, out=None):
    """The hazard of a day of everybody by plain loops, in float64; `out` says who goes out, where that was decided."""
    about = np.ones(N) if out is None else (out.numpy() + 0.6) / (0.8 + 0.6)
    sheds = float(infectiousness(torch.tensor(7.0)))
    home, work, others = np.zeros(N), np.zeros(N), np.zeros(N)
    employed = s["employed"].numpy() | (PEOPLE["employment"].numpy() != 2)
    for j in range(N):
        if not s["active"][j] or s["stage"][j] in (Stage.SEVERE, Stage.CRITICAL):
            continue
        home[j] = sheds
        if not s["isolating"][j]:
            others[j] = sheds * (1 - theta["mask_source"] if s["masked"][j] else 1)
            work[j] = others[j] if employed[j] else 0
            others[j] *= about[j]
    place, kind = PEOPLE["workplace"].numpy(), PEOPLE["workplace_kind"].numpy()
    puma = PEOPLE["puma"].numpy()
    out = np.zeros(N)
    for i in range(N):
        same = PEOPLE["household"].numpy() == PEOPLE["household"].numpy()[i]
        h = theta["home"] * CONTACTS["household"] * home[same].mean()
        away = 0.0
        if place[i] and employed[i]:
            there = place == place[i]
            if kind[place[i]] == 2:
                away += CONTACTS["school"] * school ** theta["crowding"] * work[there].mean()
            else:
                away += CONTACTS["workplace"] * 0.7 ** theta["crowding"] * work[there].mean()
        # Contacts in proportion to numbers: what an average person of the area, and of the city, sheds.
        near = np.mean([others[(puma == puma[i])]])
        band = PEOPLE["age_band"].numpy()
        near = sum(
            others[(puma == puma[i]) & (band == b)].sum()
            / max(1, ((puma == puma[i]) & (band == b)).sum())
            * (band == b).mean()
            for b in range(9)
        )
        away += (
            CONTACTS["community"]
            * about[i]
            * 0.7 ** theta["crowding"]
            * (theta["local"] * near + (1 - theta["local"]) * others.mean())
        )
        if s["isolating"][i]:
            away = 0.0
        if s["masked"][i]:
            away *= 1 - theta["mask_wearer"]
        out[i] = (h + away) * theta["beta"] * SUSCEPTIBILITY[band[i]] * float(s["protection"][i])
    return np.where(s["susceptible"].numpy(), out, 0.0)


@pytest.mark.parametrize("decided", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_everybodys_hazard_is_that_of_a_loop_over_who_meets_whom(seed, decided):
    theta = {
        "beta": 0.3,
        "mask_source": 0.5,
        "mask_wearer": 0.3,
        "local": 0.4,
        "crowding": 1.5,
        "home": 0.5,
        "season": 0.0,
    }
    s = state(seed)
    out = torch.from_numpy(np.random.default_rng(seed).random(N) < 0.8) if decided else None
    if decided:
        s["out"] = out
    knobs = {"schools": 0.9}
    after, _ = alone(
        transmission.OUTINGS if decided else transmission.PART,
        setting(PEOPLE, "2020-02-03", by=False),
        1,
        s,
        environment=knobs,
        initial_infected=1e-9,
        **theta,
    )
    # Messages are rounded to 2⁻¹⁶.
    np.testing.assert_allclose(after["exposure"].numpy(), hazards(s, theta, 0.9, out), rtol=2e-3, atol=1e-5)


def test_poisson_contacts_drawn_one_by_one_infect_as_the_hazard_says():
    """Failure rate 6e-7: a million people's community contacts of one day, each drawn and each tried."""
    rng = np.random.default_rng(5)
    people, contacts, beta = 1_000_000, 2.79, 0.3
    sheds = rng.exponential(0.3, 500) * (rng.random(500) < 0.4)  # the infectiousness of those they may meet
    number = rng.poisson(contacts, people)
    who = np.repeat(np.arange(people), number)
    hit = rng.random(who.size) < np.minimum(beta * sheds[rng.integers(0, 500, who.size)], 1)
    infected = np.zeros(people, bool)
    infected[who[hit]] = True
    p = 1 - math.exp(-contacts * np.minimum(beta * sheds, 1).mean())
    assert abs(infected.mean() - p) < 5 * math.sqrt(p * (1 - p) / people)


def test_who_returns_to_risk_begins_a_new_episode_from_nothing():
    s = state(0)
    back = torch.arange(N) % 7 == 0
    s |= {"susceptible": ~back, "returned": back, "exposure": torch.full((N,), 5.0, dtype=torch.float64)}
    s |= {"episode": back.int(), "active": torch.zeros(N, dtype=torch.bool)}
    after, _ = alone(transmission.PART, setting(PEOPLE, by=False), 1, s)
    assert bool((after["exposure"][back] == 0).all())
    assert bool((after["exposure"][~back] == 5).all())
    assert bool(after["susceptible"].all())


def test_a_contact_matrix_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="has shape \\(2, 2\\); give 9 × 9"):
        mixing(PEOPLE, torch.ones(2, 2))
    with pytest.raises(InputError, match="holds -1"):
        mixing(PEOPLE, -torch.ones(9, 9))
    assert mixing(PEOPLE, None).sum(1).tolist() == pytest.approx([CONTACTS["community"]] * 9)


def test_a_matrix_of_ones_own_brings_the_ages_together_that_it_says():
    s = state(1)
    s |= {
        "active": PEOPLE["age_band"] == 0,
        "susceptible": PEOPLE["age_band"] != 0,
        "stage": torch.full((N,), 4, dtype=torch.uint8),
    }
    s |= {"infected_at": torch.full((N,), -3.0), "isolating": torch.zeros(N, dtype=torch.bool)}
    meets = torch.zeros(9, 9)
    meets[5, 0] = 10.0
    part = transmission.PART
    from dataclasses import replace
    from functools import partial

    own = replace(part, substep=partial(part.substep, matrix=meets))
    after, _ = alone(own, setting(PEOPLE, by=False), 1, s, home=1e-9, environment={"schools": 0.0})
    met = after["exposure"] > 1e-6
    no_work = PEOPLE["workplace"] == 0
    assert bool(met[(PEOPLE["age_band"] == 5)].all())
    assert not bool(met[(PEOPLE["age_band"] != 5) & no_work].any())


def test_schools_follow_the_calendar():
    from datetime import date

    assert in_session(date(2019, 11, 1)) == 1.0
    assert in_session(date(2020, 4, 1)) == in_session(date(2021, 7, 10)) == 0.0
