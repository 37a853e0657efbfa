"""The laws, for firms: worlds, noise, secrets, checkpoints and names change nothing in a supply chain."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import torch
import torch.distributed as dist
from chirho.dynamical.handlers.interruption import StaticIntervention

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, Verified, bounded, never_falls
from lpmppl.effects.opening import Custodian
from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError, LpmError
from lpmppl.models.firms import firms
from lpmppl.models.population import Population
from lpmppl.models.supply_chain import SupplyChain
from tests.elsewhere import elsewhere
from tests.laws.conftest import noise, play, worlds
from tests.randomness import states

FIRMS, DAYS = 1_000, 14
PEOPLE = firms(FIRMS, seed=5)


def chain(order=None) -> SupplyChain:
    """A thousand firms; in another order, with their ids, where one is given."""
    if order is None:
        return SupplyChain(PEOPLE)
    return SupplyChain(Population(PEOPLE.dataset.isel(agent=order).assign_coords(agent=("agent", order))))


@pytest.fixture(scope="module")
def model():
    return chain()


@pytest.fixture(scope="module")
def theta(model):
    """Many plants fail, and stocks are small."""
    return {n: torch.tensor(v) for n, v in {**DEFAULTS, "failure": 0.01, "buffer": 4.0}.items()}


DEFAULTS = {name: p.default for name, p in chain().parameters.items()}


def closing(day, open_share=0.0):
    return StaticIntervention(torch.tensor(float(day)), {"port": torch.tensor([open_share])})


@pytest.fixture(scope="module")
def base(model, theta):
    return play(model, noise(), days=DAYS, theta=theta)


@pytest.fixture(scope="module")
def closed(model, theta):
    return play(model, noise(), closing(3), days=DAYS, theta=theta)


def test_a_null_intervention_changes_nothing(model, theta, base):
    both = play(model, worlds(), noise(), closing(3, 1.0), days=DAYS, theta=theta)
    assert list(both.worlds) == ["t=3"]
    for k in (0, 1):
        assert both.world(**{"t=3": k}).differences(base) == []


def test_each_world_is_its_single_run(model, theta, base, closed):
    assert closed.series["unserved"].sum() > 1.5 * base.series["unserved"].sum()
    both = play(model, worlds(), noise(), closing(3), days=DAYS, theta=theta)
    assert both.world().differences(base) == []
    assert both.world(**{"t=3": 1}).differences(closed) == []


def test_what_fails_is_the_same_in_every_world(base, closed):
    assert base.series["failures"].sum() > 50
    np.testing.assert_array_equal(base.series["failures"], closed.series["failures"])
    assert torch.equal(base.state["down"], closed.state["down"])


def test_renaming_firms_permutes_the_results(theta, closed):
    order = np.random.default_rng(2).permutation(FIRMS)
    renamed = play(chain(order), noise(), closing(3), days=DAYS, theta=theta)
    for key, x in closed.state.items():
        if x.shape[-1] == FIRMS:
            torch.testing.assert_close(renamed.state[key], x[order], rtol=0, atol=0)
    for name, series in closed.series.items():
        np.testing.assert_array_equal(renamed.series[name], series)


def secret(model, parties=3, least=2):
    trade = [network.name for x in model.inputs for network in (x.sellers, x.buyers)]
    return lpm.SecretShared(parties, opening=Custodian(trade, least), quiet=True)


@pytest.mark.parametrize("parties", [2, 3])
def test_nobody_sees_a_firm_s_orders_and_stocks_and_the_numbers_are_the_same(model, theta, closed, parties):
    handler = secret(model, parties)
    assert play(model, noise(), handler, closing(3), days=DAYS, theta=theta).differences(closed) == []
    # What is opened are the tallies alone; orders and fill rates are known to those who trade with each other.
    assert handler.opened == DAYS * len(model.tallies)
    assert handler.kept == DAYS * 2 * len(model.inputs)


def test_it_is_the_same_in_secret_in_every_world(model, theta):
    acts = lambda: (worlds(), noise(), closing(3))  # noqa: E731
    plain = play(model, *acts(), days=DAYS, theta=theta)
    assert play(model, secret(model), *acts(), days=DAYS, theta=theta).differences(plain) == []


def test_small_industries_are_not_opened(model, theta):
    with pytest.raises(LpmError, match="'sector' has"):
        play(model, noise(), secret(model, least=50), days=1, theta=theta)


@pytest.mark.parametrize("day", [2, 3, 9])
def test_a_resumed_run_equals_the_uninterrupted_one(model, theta, closed, tmp_path, day):
    class KilledError(Exception):
        pass

    def stop(done, _):
        if done == day:
            raise KilledError

    path = tmp_path / "c.npz"
    with pytest.raises(KilledError):
        play(model, DiscreteTime(progress=stop, checkpoint=path, every=1), noise(), closing(3), days=DAYS, theta=theta)
    again = DiscreteTime(checkpoint=path, resume=True)
    assert play(model, again, noise(), closing(3), days=DAYS, theta=theta).differences(closed) == []


def test_substeps_read_and_write_what_they_declare(model, theta, closed):
    bounds = [bounded(f"stock/{x.name}", 0.0, model.bound) for x in model.inputs]
    rules = Verified(bounded("fill", 0.0, 1.0), never_falls("episode"), *bounds)
    assert play(model, noise(), rules, closing(3), days=DAYS, theta=theta).differences(closed) == []


def test_a_step_is_a_function_of_the_state(model, theta, base):
    state = None
    for day in range(DAYS):
        with torch.no_grad(), DiscreteTime(), ExogenousNoise(1):
            start = model.initial(theta) if state is None else state
            state = lpm.effects.ops.simulate(
                model.day(theta), start, torch.tensor(float(day)), torch.tensor(float(day + 1))
            )
    assert [k for k in base.state if not torch.equal(base.state[k], state[k])] == []


def test_the_global_random_state_stays_and_firms_stay_out_of_the_trace(model, theta):
    before = states()
    play(model, worlds(), noise(), closing(1), days=3, theta=theta)
    assert states() == before
    with pyro.poutine.trace() as tracer, DiscreteTime(), ExogenousNoise(1):
        model(2)
    assert set(tracer.trace.stochastic_nodes) == set(model.parameters)


def test_rows_of_parameters_are_the_runs_of_each(model, theta):
    """Two buffers and two rates of failure in one run, as derivatives and fits have them."""
    rows = {**theta, "buffer": torch.tensor([[4.0], [9.0]]), "failure": torch.tensor([[0.01], [0.002]])}
    both = play(model, noise(), closing(3), days=DAYS, theta=rows)
    for k in (0, 1):
        one = {n: x if x.dim() == 0 else x[k, 0] for n, x in rows.items()}
        single = play(model, noise(), closing(3), days=DAYS, theta=one)
        for name, series in single.series.items():
            np.testing.assert_array_equal(both.series[name][:, k], series)


def test_plain_pyro_agrees_in_law(model, theta):
    """Plants that fail in 4 days, on average over 12 runs of either meaning; fails once in 10⁴ by chance."""
    few = {**theta, "failure": torch.tensor(0.02)}
    pyro.set_rng_seed(0)
    plain = [play(model, days=4, theta=few).series["failures"].sum() for _ in range(12)]
    shared = [play(model, noise(seed), days=4, theta=few).series["failures"].sum() for seed in range(12)]
    error = np.sqrt(np.var(plain, ddof=1) / 12 + np.var(shared, ddof=1) / 12)
    assert abs(np.mean(plain) - np.mean(shared)) < 5.5 * error


def test_on_another_device_every_firm_fares_as_on_the_cpu():
    acts = [("port", 0.0, 2)]
    here = lpm.run(chain(), days=4, interventions=acts)["prior_predictive"].to_dataset()
    with elsewhere() as device:
        there = lpm.run(SupplyChain(PEOPLE.to(device)), days=4, interventions=acts)["prior_predictive"].to_dataset()
    assert there.equals(here)


def test_firms_aren_t_parted_over_ranks():
    """A supplier's customers are anywhere, and edges are added up by one rank: parts of a chain are refused by name."""
    with pytest.raises(InputError, match="lack 'household'"):
        PEOPLE.shard(SimpleNamespace(count=2, rank=0))
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        housed = Population(PEOPLE.dataset.assign(household=("agent", np.arange(FIRMS))))
        with pytest.raises(InputError, match="on one rank"):
            SupplyChain(housed.shard(Ranks()))
    finally:
        dist.destroy_process_group()
