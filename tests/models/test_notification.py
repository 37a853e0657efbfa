"""Notification: who is told of whom, and what quarantine keeps apart."""

from __future__ import annotations

import math
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention

import lpmppl as lpm
import lpmppl.errors
from lpmppl.effects.handlers import (
    DiscreteTime,
    ExogenousNoise,
    FixedPoint,
    Sharded,
    Utility,
    Verified,
    bounded,
    conserved,
    sharded,
)
from lpmppl.effects.opening import Custodian
from lpmppl.errors import InputError
from lpmppl.models import adoption, notification, partition, transmission
from lpmppl.models.contacts import CONTACTS
from lpmppl.models.pandemic import PARTS
from lpmppl.models.population import Population
from lpmppl.models.progression import Stage
from lpmppl.models.substep import compose
from tests.laws.conftest import noise, one_thread, play, renamed, worlds
from tests.laws.test_sharded import last
from tests.models.parts import setting
from tests.oracles import go
from tests.ranks import on_ranks

__all__ = ["one_thread"]

ADOPTION, TOLD, HEEDING = notification.notified([transmission.PART])
assert ADOPTION is adoption.PART
C = CONTACTS
START = "2020-03-02"


def folk(household, workplace, puma=None):
    """Children of five, some of whom work, in households, workplaces (0 is none) and areas."""
    n, place = len(household), np.asarray(workplace, dtype=np.int32)
    people = Population.of(
        {
            "age": np.full(n, 5, dtype=np.uint8),
            "age_band": np.zeros(n, dtype=np.uint8),
            "household": np.asarray(household),
            "workplace": place,
            "puma": np.zeros(n, dtype=np.uint8) if puma is None else np.asarray(puma, dtype=np.uint8),
            "employment": np.where(place > 0, 2, 1).astype(np.uint8),
        }
    )
    kinds = np.full(place.max() + 1, 1, dtype=np.uint8)
    labels = {"labels": ["none", "workplace"]}
    dataset = people.dataset.assign(workplace_kind=("workplace_group", kinds, labels))
    return Population(dataset)


def theta(**more):
    parts = (*PARTS, ADOPTION, TOLD)
    known = {name: p.default for part in parts for name, p in part.parameters.items()}
    return {name: torch.tensor(value) for name, value in {**known, **more}.items()}


def state(people, values, **more):
    """Everybody susceptible, at work and about as before the pandemic, with the app; nobody positive."""
    n = people.size
    nobody = torch.zeros(n, dtype=torch.bool)
    where = setting(people, START, by=False)
    one = torch.ones(1)
    return {
        **HEEDING.start(where, {**values, "initial_infected": torch.tensor(0.0)}, 0.0),
        **TOLD.start(where, values, 0.0),
        "app": ~nobody, "learnt": nobody, "isolating": nobody, "isolate_until": torch.full((n,), -math.inf),
        "active": nobody, "archetype": torch.zeros(n, dtype=torch.int16), "employed": people["employment"] == 2,
        "masked": nobody, "protection": torch.ones(n), "returned": nobody,
        "stage": torch.zeros(n, dtype=torch.uint8), "viral_load": torch.full((180 * 31,), 8.0),
        "schools": torch.tensor([1.0]), "transmission": one, "mobility/workplaces": one, "mobility/retail": one,
        "mobility/transit": one, **more,
    }  # fmt: skip


def a_day(people, part, values, given, t=0.0, seed=0, days=1):
    day = compose(part.substep(setting(people, START, by=False), values))
    return go(day, lambda: state(people, values, **given), days, ExogenousNoise(seed), begin=t)


def only(n, *agents):
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(agents)] = True
    return mask


def infected_by(people, source, seed=0, **more):
    """The state after a day on which one person, ill for three days, infected others."""
    n, values = people.size, theta(beta=50.0, **more)
    ill = only(n, source)
    begun = torch.where(ill, -3.0, -math.inf)
    given = {"active": ill, "infected_at": begun, "susceptible": ~ill, "episode": ill.to(torch.uint8)}
    after, _ = a_day(people, HEEDING, values, given, seed=seed)
    caught = (after["infected_at"] >= 0).nonzero().squeeze(-1).tolist()
    assert caught
    return after, caught, values


def kept(after, *left_out):
    mine = {"app", "infected", "infected_at", "infection/hazard", "active", "episode", "susceptible", "exposure"}
    return {key: after[key] for key in mine - set(left_out)}


def test_who_was_infected_at_work_is_so_by_the_one_who_uploads():
    """The one colleague who was ill is the source with certainty: `detected` is found, and nothing more later."""
    people = folk(household=[0, 1, 2], workplace=[1, 1, 0])
    after, caught, values = infected_by(people, 0, local=1e-9)
    given = {**kept(after), "learnt": only(3, 0)}
    for d in (0.3, 1.0):
        found, _ = a_day(people, TOLD, {**values, "detected": torch.tensor(d)}, given, t=1.0)
        for j in caught:
            assert float(found["source/found"][j]) == pytest.approx(d, rel=1e-4)
    nobody, _ = a_day(people, TOLD, values, {**given, "learnt": only(3)}, t=1.0)
    assert not bool(nobody["source/found"].any())


def test_of_a_hazard_from_home_and_from_work_the_app_finds_the_part_from_work():
    people = folk(household=[0, 0, 1], workplace=[1, 1, 0])
    after, _, values = infected_by(people, 0, detected=1.0, home=0.5, local=1e-9)
    found, _ = a_day(people, TOLD, values, {**kept(after), "learnt": only(3, 0)}, t=1.0)
    home = C["household"] * 0.5 / 2
    work, city = C["workplace"] / 2, C["community"] / 3
    assert float(found["source/found"][1]) == pytest.approx((work + city) / (home + work + city), rel=1e-3)


def test_two_sources_share_the_hazard():
    people = folk(household=[0, 1, 2], workplace=[1, 1, 1])
    n, values = 3, theta(beta=50.0, detected=1.0)
    ill = only(n, 0, 1)
    given = {"active": ill, "infected_at": torch.where(ill, -3.0, -math.inf), "susceptible": ~ill}
    after, _ = a_day(people, HEEDING, values, {**given, "episode": ill.to(torch.uint8)})
    assert float(after["infected_at"][2]) >= 0
    first, _ = a_day(people, TOLD, values, {**kept(after), "learnt": only(3, 0)}, t=1.0)
    assert float(first["source/found"][2]) == pytest.approx(0.5, rel=1e-4)
    both, _ = a_day(people, TOLD, values, {**kept(after), "learnt": only(3, 0, 1)}, t=1.0)
    assert float(both["source/found"][2]) == pytest.approx(1.0, rel=1e-4)


def test_who_stayed_at_home_then_is_nobodys_source():
    people = folk(household=[0, 1, 2], workplace=[1, 1, 0])
    after, _, values = infected_by(people, 0)
    at_home = {"isolating": only(3, 0), "isolate_until": torch.full((3,), -2.0) + values["isolation_days"]}
    found, _ = a_day(people, TOLD, values, {**kept(after), "learnt": only(3, 0), **at_home}, t=1.0)
    assert not bool(found["source/found"].any())
    since_today = {**at_home, "isolate_until": torch.full((3,), 1.0) + values["isolation_days"]}
    found, _ = a_day(people, TOLD, values, {**kept(after), "learnt": only(3, 0), **since_today}, t=1.0)
    assert bool(found["source/found"].any())


def contacts(people, app, positive, local, detected, days):
    """Expected detected contacts, pair by pair: shape (N,)."""
    place, area, n = people["workplace"].numpy(), people["puma"].numpy(), people.size
    met = np.zeros(n)
    for j in range(n):
        for i in range(n):
            if i == j or not (app[i] and app[j] and positive[i]):
                continue
            near = local / (np.sum(area == area[j]) - 1) if area[i] == area[j] else 0.0
            met[j] += days[i] * C["community"] * (near + (1 - local) / (n - 1))
            if place[i] == place[j] > 0:
                met[j] += days[i] * C["workplace"] / (np.sum(place == place[j]) - 1)
    return detected * met


def test_contacts_are_counted_pair_by_pair():
    rng = np.random.default_rng(3)
    n = 60
    people = folk(np.arange(n) // 2, rng.integers(0, 8, n), rng.integers(0, 3, n))
    values = theta(local=0.3, detected=0.6)
    app, positive, home = (torch.from_numpy(rng.random(n) < p) for p in (0.6, 0.4, 0.3))
    began = torch.from_numpy(rng.integers(1, 9, n).astype(np.float32))
    given = {
        "app": app, "learnt": positive, "isolating": home,
        "isolate_until": 10.0 - began + values["isolation_days"],
    }  # fmt: skip
    _, series = a_day(people, TOLD, values, given, t=10.0)
    days = np.where(home.numpy(), 7.0 - np.minimum(began.numpy(), 7.0), 7.0)
    met = contacts(people, app.numpy(), positive.numpy(), 0.3, 0.6, days)
    assert series["contacts_detected"][0, 0] == pytest.approx(met.sum(), rel=1e-4)
    assert met.sum() > 10


def detected(people, app, positive):
    _, series = a_day(people, TOLD, theta(), {"app": app, "learnt": positive}, t=10.0)
    return float(series["contacts_detected"][0, 0])


def test_detected_contacts_grow_with_the_square_of_adoption_and_faster_in_clusters():
    n, draws = 1000, 25
    rng = np.random.default_rng(5)
    people = folk(np.arange(n) // 2, 1 + np.arange(n) % 100, np.arange(n) % 5)
    positive = torch.from_numpy(rng.random(n) < 0.3)
    everybody = detected(people, torch.ones(n, dtype=torch.bool), positive)
    for a in (0.15, 0.3, 0.6):
        k = round(a * n)
        some = [torch.from_numpy(rng.permutation(n) < k) for _ in range(draws)]
        found = [detected(people, app, positive) / everybody for app in some]
        error = np.std(found, ddof=1) / math.sqrt(draws)
        # Of all pairs, those in which both have it.
        assert abs(np.mean(found) - k * (k - 1) / (n * (n - 1))) < 6 * error < 0.03  # failure rate 3e-6 each
        whole = torch.from_numpy(rng.permutation(100) < round(100 * a))[people["workplace"].long() - 1]
        assert detected(people, whole, positive) / everybody > 1.5 * a**2 or a == 0.6
        assert detected(people, whole, positive) / everybody > 1.15 * a**2


def test_who_is_told_complies_for_at_most_two_weeks_until_it_gives_up():
    n = 3000
    people = folk(np.arange(n), np.ones(n))
    values = theta(detected=1.0, compliance=0.7, dropout=0.1)
    # All meet a hundred positive colleagues.
    learnt = torch.arange(n) < 1500
    after, series = a_day(people, TOLD, values, {"learnt": learnt}, t=5.0)
    assert series["notified"][0, 0] == n
    stays = int(after["quarantining"].sum())
    assert series["quarantined"][0, 0] == stays
    assert abs(stays - 0.7 * n) < 5 * math.sqrt(0.21 * n)  # failure rate 6e-7
    days = (after["quarantine_until"] - 5.0)[after["quarantining"]].numpy()
    assert days.max() == notification.QUARANTINE
    for day in (3.0, 7.0, 13.0):
        share = math.exp(-0.1 * day)
        assert abs((days > day).mean() - share) < 5 * math.sqrt(share * (1 - share) / stays)
    own = {key: after[key] for key in TOLD.start(setting(people, by=False), values, 0.0)}
    later, series = a_day(people, TOLD, values, own, t=5.0 + notification.QUARANTINE)
    assert not bool(later["quarantining"].any()) and series["quarantined"][0, 0] == 0


def test_nobody_is_told_without_the_app_on_both_sides():
    n = 500
    people = folk(np.arange(n), np.ones(n))
    half = torch.arange(n) < 250
    _, series = a_day(people, TOLD, theta(detected=1.0), {"app": half, "learnt": ~half}, t=1.0)
    assert series["notified"].sum() == series["uploads"].sum() == 0
    after, series = a_day(people, TOLD, theta(detected=1.0), {"app": half, "learnt": half}, t=1.0)
    assert series["uploads"].sum() == 250 == series["notified"].sum()
    assert not bool(after["quarantining"][250:].any())


def test_quarantine_keeps_apart_but_not_at_home():
    people = folk(household=[0, 0, 1, 2], workplace=[1, 0, 1, 1])
    values, ill = theta(beta=1e4, local=1e-9), only(4, 0)
    given = {"active": ill, "infected_at": torch.where(ill, -3.0, -math.inf), "susceptible": ~ill}
    given |= {"episode": ill.to(torch.uint8)}
    after, _ = a_day(people, HEEDING, values, {**given, "quarantining": only(4, 0)})
    assert (after["infected_at"] >= 0).tolist() == [False, True, False, False]
    after, _ = a_day(people, HEEDING, values, {**given, "quarantining": only(4, 2)})
    assert (after["infected_at"] >= 0).tolist() == [False, True, False, True]


def test_a_model_without_transmission_is_refused():
    with pytest.raises(InputError, match="no part is called 'transmission'"):
        notification.notified([adoption.PART])


# The whole city.

AGENTS, DAYS = 1_000, 18
ELSE = ["vaccination", "observation", "claims", "labour", "stimulus", "masking"]
"""What has nothing to do with the app."""


@pytest.fixture(scope="module")
def city():
    return lpm.nyc.pandemic(lpm.nyc.population(AGENTS), app=True, without=ELSE, by={"borough": "borough"})


def spreading(model, **more):
    wanted = {
        "initial_infected": 0.05, "beta": 0.9, "would_use": 0.95, "network_value": 6.0, "detected": 1.0,
        "pcr_delay": 1.0, "other_reasons": 0.02, **more,
    }  # fmt: skip
    return {**model.defaults(), **{k: torch.tensor(v) for k, v in wanted.items() if k in model.parameters}}


def act(day, **values):
    return StaticIntervention(torch.tensor(float(day)), {k: torch.tensor([float(v)]) for k, v in values.items()})


def many(model, *handlers, days=DAYS, **more):
    acts = (act(0, capacity=1.0), *handlers)
    return play(model, Utility(model.behaviour), *acts, days=days, theta=spreading(model, **more))


def test_without_users_everything_is_as_it_is_without_the_app(city):
    plain = lpm.nyc.pandemic(city.population, without=ELSE, by={"borough": "borough"})
    base = many(plain, noise())
    assert not {"app", "quarantining", "infection/hazard"} & set(base.state)
    with_app = many(city, noise(), standalone=-200.0, network_value=1e-9)
    for name, series in base.series.items():
        np.testing.assert_array_equal(with_app.series[name], series, err_msg=name)
    assert with_app.series["app"].sum() == 0 < base.series["infections"].sum()


SEEDED = {"app_seeds": 0.8, "app_answers": 1.0}


@pytest.fixture(scope="module")
def seeded(city):
    """A run in which the app is given to most who would use it."""
    return many(city, noise(), act(2, **SEEDED))


def test_each_world_is_its_single_run_and_a_null_intervention_changes_nothing(city, seeded):
    base = many(city, noise())
    assert seeded.series["notified"].sum() > 5 and seeded.series["quarantined"].max() > 2
    both = many(city, worlds(), noise(), act(2, **SEEDED))
    assert both.world(**{"t=0": 1, "t=2": 0}).differences(base) == []
    assert both.world(**{"t=0": 1, "t=2": 1}).differences(seeded) == []
    assert many(city, noise(), act(3, app_seeds=0.0, app_seeding=0.0, app_answers=0.0)).differences(base) == []


def test_people_are_conserved_and_what_is_read_and_written_is_declared(city, seeded):
    checks = Verified(
        conserved("people", lambda s: sum((s["stage"] == k).sum(-1) for k in range(len(Stage)))),
        bounded("source/found", 0, 1 + 1e-5),
    )
    assert many(city, checks, noise(), act(2, **SEEDED)).differences(seeded) == []


def test_nobody_sees_more_than_sums(city, seeded):
    fixed = FixedPoint(opening=Custodian(("household", "workplace", "community"), least=2))
    assert many(city, noise(), fixed, act(2, **SEEDED)).differences(seeded) == []


def test_renaming_agents_permutes_the_results(city, seeded):
    order = np.random.default_rng(2).permutation(AGENTS)
    other = lpm.nyc.pandemic(renamed(city.population, order), app=True, without=ELSE, by={"borough": "borough"})
    plain, permuted = seeded, many(other, noise(), act(2, **SEEDED))
    for name, series in plain.series.items():
        np.testing.assert_array_equal(permuted.series[name], series, err_msg=name)
    for key in ("app", "quarantining", "phone"):
        assert torch.equal(permuted.state[key], plain.state[key][..., order]), key


def test_a_resumed_run_is_the_uninterrupted_one(city, tmp_path):
    class KilledError(Exception):
        pass

    def stop(done, _):
        if done == 9:
            raise KilledError

    acts = lambda: (Utility(city.behaviour), noise(), act(0, capacity=1.0), act(2, **SEEDED))  # noqa: E731
    values = spreading(city)
    whole = play(city, *acts(), days=DAYS, theta=values)
    file = tmp_path / "c.npz"
    with pytest.raises(KilledError):
        play(city, DiscreteTime(progress=stop, checkpoint=file, every=1), *acts(), days=DAYS, theta=values)
    again = play(city, DiscreteTime(checkpoint=file, resume=True), *acts(), days=DAYS, theta=values)
    assert again.differences(whole) == []


ON_RANKS = [("app_seeds", 0.6, 2), ("app_answers", 1.0, 1), ("capacity", 1.0, 0), ("transmission", 2.0, 0)]


def lived(ranks, scheme, crossing):
    """One rank's people: their ids, their last state and the tallies; with all networks whole, or only small ones."""
    few = 120 if crossing else 10**9
    with patch.object(sharded, "_FEW", few), patch.object(partition, "_FEW", few):
        model = lpm.nyc.pandemic(lpm.nyc.population(3_000).shard(ranks), without=ELSE, app=True)
        state, tallies = last(model, 15, [*ON_RANKS, ("app_seeding", scheme, 0)], [Sharded(ranks)])
    return model.population.ids.numpy(), state, tallies


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "crossing"), [(1.0, False), (3.0, True)])
def test_on_two_ranks_everybody_fares_as_in_one_process(tmp_path, scheme, crossing):
    whole = lpm.nyc.pandemic(lpm.nyc.population(3_000), without=ELSE, app=True)
    state, tallies = last(whole, 15, [*ON_RANKS, ("app_seeding", scheme, 0)])
    assert tallies["notified"].sum() > 5
    for ids, mine, counted in on_ranks(tmp_path, 2, lived, scheme, crossing):
        for name, series in tallies.items():
            np.testing.assert_array_equal(counted[name], series, err_msg=name)
        for key in ("app", "quarantining", "source/found", "own_hazard", "app/looked"):
            np.testing.assert_array_equal(mine[key], state[key][..., ids], err_msg=key)


@pytest.mark.slow
def test_the_verbs_take_it(city):
    what = lpm.counterfactual(city, do={"app_seeds": 0.9}, at=2, days=10, replicates=2)
    effect = lpm.contrast(what)["app_given"].sel(policy="app_seeds=0.9@2", estimate="mean")
    assert float(effect) > 100
    schemes = {scheme: [("app_seeds", 0.5, 0), ("app_seeding", scheme, 0)] for scheme in adoption.SCHEMES}
    ranked = lpm.search(city, schemes, lambda x: -x["app"], days=5, cost="app_dollars", budget=1e5)
    assert set(adoption.SCHEMES) < set(ranked["policy"].values.tolist())


def test_the_page_has_every_parameter_with_its_default(city):
    page = Path(lpmppl.errors.__file__).parents[1] / "docs" / "cold-start.md"
    if not page.exists():
        pytest.skip("the docs aren't beside the package")
    text = page.read_text("utf-8")
    for part in (ADOPTION, TOLD):
        for name, parameter in part.parameters.items():
            if name == "local":
                continue
            (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
            assert float(row.split("|")[3].replace("−", "-")) == parameter.default
        for name in (*part.environment, *part.tallies):
            assert f"`{name}`" in text
