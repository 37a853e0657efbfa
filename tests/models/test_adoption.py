"""Adoption: the app among people whose contacts have it or not, and how it is begun."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lpmppl.effects.handlers import ExogenousNoise, Verified
from lpmppl.errors import InputError
from lpmppl.models import adoption
from lpmppl.models.adoption import folds, levels
from tests.models.parts import alone, setting, town

N = 3000
NOBODY = torch.zeros(N, dtype=torch.bool)


def folk(n: int = N, places: int = 0, areas: int = 1, **variables):
    """A town whose people all are 25 years old, in so many workplaces of equal size, or in none."""
    index = 1 + np.arange(n) % places if places else np.zeros(n, dtype=int)
    kind = {"workplace": index.astype(np.int32), "puma": (np.arange(n) % areas).astype(np.uint8)}
    people = town(n, **kind, age_band=np.full(n, 2, dtype=np.uint8), **variables)
    kinds = np.full(places + 1, 1, dtype=np.uint8)
    kinds[0] = 0
    dataset = people.dataset.assign(workplace_kind=("workplace_group", kinds, {"labels": ["none", "workplace"]}))
    return type(people)(dataset)


def given_state(n: int = N, **more):
    return {
        "exposure": torch.zeros(n, dtype=torch.float64),
        "stage": torch.zeros(n, dtype=torch.uint8),
        **more,
    }


ALL = {"would_use": 1.0 / adoption.PHONES[2]}
"""Everybody has a phone and would use the app."""


def course(people, days, knobs=None, seed=0, given=None, handlers=None, watch=None, **theta):
    where = setting(people, by=False)
    start = given_state(people.size, **(given or {}))
    return alone(
        adoption.PART, where, days, start, *(handlers or (ExogenousNoise(seed),)),
        environment=knobs, watch=watch, **{**ALL, **theta},
    )  # fmt: skip


@given(st.floats(-8.0, 2.0), st.floats(0.1, 20.0))
def test_levels_are_fixed_points_between_which_adoption_moves(alone_worth, network):
    found = levels(alone_worth, network)
    assert found == sorted(found)
    for y in found:
        assert abs(1 / (1 + math.exp(-(alone_worth + network * y))) - y) < 1e-9
    if network <= 4:
        assert len(found) == 1
    elif min(abs(alone_worth - fold) for fold in folds(network)) > 1e-6:
        low, high = folds(network)
        assert len(found) == (3 if low < alone_worth < high else 1)


def test_folds_need_a_network_that_is_worth_something():
    with pytest.raises(InputError, match="above 4"):
        folds(4.0)
    low, high = folds(4.0 + 1e-9)
    assert low == pytest.approx(-2.0, abs=1e-4) and high == pytest.approx(-2.0, abs=1e-4)


def test_without_a_network_adoption_is_the_logit_of_the_app_alone():
    days, worth = 40, -0.5
    _, series = course(folk(), days, reconsider=0.2, standalone=worth, network_value=1e-9)
    level = 1 / (1 + math.exp(-worth))
    expected = N * level * (1 - math.exp(-0.2 * days))
    spread = math.sqrt(N * level * (1 - level))
    assert abs(series["app"][-1, 0] - expected) < 5 * spread  # failure rate 6e-7


def test_the_app_is_given_up_and_taken_up_again():
    state, series = course(folk(), 30, reconsider=0.5, standalone=0.0, network_value=1e-9)
    assert series["app_removals"].sum() > N and int(state["app/episode"].max()) > 5
    net = series["app_installs"].cumsum(0) - series["app_removals"].cumsum(0)
    np.testing.assert_array_equal(net[:, 0], series["app"][:, 0])
    assert int(state["app"].sum()) == series["app"][-1, 0]


def test_running_totals_are_those_of_who_has_it():
    people = folk(places=60, areas=3)

    def watch(s):
        for key, index, count in (("app/workplaces", people["workplace"], 61), ("app/areas", people["puma"], 3)):
            counted = torch.bincount(index.long(), weights=s["app"].double(), minlength=count)
            assert torch.equal(s[key].double(), counted), key

    course(people, 8, {"app_seeds": 0.3}, watch=watch)


def share_of_contacts(people, app, local=0.5):
    """The share of everybody's contacts away from home who have the app, person by person."""
    place, area, n = people["workplace"].numpy(), people["puma"].numpy(), people.size
    has = app.numpy().astype(float)
    contacts = {"workplace": 8.07, "community": 2.79}
    out = np.zeros(n)
    for i in range(n):
        others = np.arange(n) != i
        mates = others & (place == place[i]) & (place[i] > 0)
        near, city = has[others & (area == area[i])].mean(), has[others].mean()
        c = contacts["community"]
        x = c * (local * near + (1 - local) * city)
        if mates.any():
            x, c = x + contacts["workplace"] * has[mates].mean(), c + contacts["workplace"]
        out[i] = x / c
    return out


def test_the_hazard_is_that_of_the_share_of_contacts_who_have_it():
    people = folk(120, places=15, areas=2)
    theta = {"reconsider": 0.3, "standalone": -1.0, "network_value": 6.0}
    state, _ = course(people, 3, **theta)
    seen = {}

    class Watch(Verified):
        """Sees the hazard, and that the substep reads and writes what it declares."""

        def _pyro_happens(self, msg):
            seen["hazard"] = msg["args"][1].hazard

    before = {key: state[key] for key in state if key.startswith("app/") or key == "app"}
    course(people, 1, handlers=(Watch(), ExogenousNoise(1)), given=before, **theta)
    x = share_of_contacts(people, state["app"])
    value = -1.0 + 6.0 * x
    wanted = 0.3 / (1 + np.exp(np.where(state["app"].numpy(), value, -value)))
    assert 0 < int(state["app"].sum()) < 120
    np.testing.assert_allclose(seen["hazard"].numpy(), wanted, rtol=2e-5)


def test_answers_are_worth_something_to_who_is_at_risk():
    met = torch.zeros(N, dtype=torch.float64)
    met[: N // 2] = 0.05
    theta = {"reconsider": 0.3, "standalone": -2.0, "network_value": 1e-9, "answers_value": 0.5}
    told, untold = (course(folk(), 6, {"app_answers": on}, given={"exposure": met}, **theta)[0] for on in (1.0, 0.0))
    apart, rest = slice(0, N // 2), slice(N // 2, N)
    assert torch.equal(told["app"][rest], untold["app"][rest])
    assert int(told["app"][apart].sum()) > 1.5 * int(untold["app"][apart].sum()) > 0
    # What was met six days ago has faded to (6/7)^5 by today.
    np.testing.assert_allclose(told["own_hazard"][apart].numpy(), 0.05 * (6 / 7) ** 5, rtol=1e-5)


def test_risk_is_worth_its_logarithm():
    people, risk = folk(), 1 - math.exp(-0.05)
    theta = {"reconsider": 0.05, "standalone": -2.0, "network_value": 1e-9, "answers_value": 0.5}
    hazard = torch.full((N,), 0.05)
    state, _ = course(people, 1, {"app_answers": 1.0}, given={"own_hazard": hazard}, **theta)
    value = -2.0 + 0.5 * math.log(1 + 1000 * risk)
    torch.testing.assert_close(
        state["app/looked"][~state["app"]],
        torch.full((N - int(state["app"].sum()),), 0.05 / (1 + math.exp(-value)), dtype=torch.float64),
        rtol=1e-5, atol=0.0,
    )  # fmt: skip


QUIET = {"reconsider": 1e-12}


@pytest.mark.parametrize("scheme", range(len(adoption.SCHEMES)))
def test_seeds_are_given_once_to_who_would_have_them_and_paid_for(scheme):
    people = folk(places=100, areas=30)
    knobs = {"app_seeds": 0.3, "app_seeding": float(scheme)}
    state, series = course(people, 3, knobs, install_cost=7.5, would_use=0.5, **QUIET)
    given = int(series["app_given"].sum())
    assert given == series["app_given"][0, 0] == int(state["app"].sum()) > 0
    assert not bool((state["app"] & ~state["phone"]).any()) and float(state["app_seeds"]) == 0
    assert series["app_dollars"].sum() == pytest.approx(7.5 * given)
    phones = 0.5 * adoption.PHONES[2]
    # Workplaces and areas are given it whole, so that how many they are is a matter of which.
    spread = math.sqrt(N * 0.3 * 0.7) * {0: 1, 1: math.sqrt(30), 2: 10, 3: 1}[scheme]
    assert abs(given - 0.3 * phones * N) < 5 * spread


def test_places_are_given_it_whole():
    people = folk(places=100, areas=30)
    for scheme, index in ((1.0, people["workplace"]), (2.0, people["puma"])):
        state, _ = course(people, 1, {"app_seeds": 0.4, "app_seeding": scheme}, **QUIET)
        shares = torch.bincount(index.long(), weights=state["app"].double()) / torch.bincount(index.long()).clamp(min=1)
        assert set(shares.tolist()) == {0.0, 1.0}


def test_the_most_connected_come_first():
    sizes = np.repeat([1, 2, 3], [1000, 1000, 1000])
    people = folk(workplace_size=sizes)
    place = np.concatenate([np.arange(1000) // 50, 20 + np.arange(1000) // 10, 120 + np.arange(1000) // 2]) + 1
    dataset = people.dataset.assign(
        workplace=("agent", place.astype(np.int32)),
        workplace_kind=("workplace_group", np.ones(621, dtype=np.uint8), {"labels": ["none", "workplace"]}),
    )
    people = type(people)(dataset.drop_vars("workplace_size"))
    state, series = course(people, 1, {"app_seeds": 0.25, "app_seeding": 3.0}, **QUIET)
    assert int(state["app"][:1000].sum()) == series["app_given"].sum() == pytest.approx(750, abs=70)
    state, _ = course(people, 1, {"app_seeds": 0.5, "app_seeding": 3.0}, **QUIET)
    assert bool(state["app"][:1000].all()) and 400 < int(state["app"][1000:2000].sum()) < 600
    assert not bool(state["app"][2000:].any())


def test_the_dead_neither_get_it_nor_give_it_up():
    dead = torch.arange(N) < N // 2
    stage = torch.where(dead, 8, 0).to(torch.uint8)
    state, _ = course(folk(), 10, {"app_seeds": 1.0}, given={"stage": stage}, reconsider=0.5)
    assert not bool(state["app"][: N // 2].any()) and not bool(state["app/episode"][: N // 2].any())
