"""The supply chain: chains reckoned by hand, the inverse of Leontief, conservation, buffers, and what it refuses."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.data.industries import UNITED_STATES, Industries
from lpmppl.effects.handlers import DiscreteTime, Invariant, Verified, bounded
from lpmppl.errors import InputError
from lpmppl.inference.run import playing
from lpmppl.models.firms import firms, usual_output
from lpmppl.models.population import Population
from lpmppl.models.supply_chain import SupplyChain

SURE = {"failure": 1e-12}
"""No plant fails."""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def table(requirements, delay=3, **more):
    """Industries in which all that is used is essential and can be stocked, but for what is said otherwise."""
    many = len(requirements)
    given = {
        "output": np.ones(many), "imported": np.zeros(many), "essential": np.ones(many, bool),
        "stocked": np.ones(many, bool), "delay": np.full(many, delay), "firms": np.full(many, 1 / many),
    }  # fmt: skip
    return Industries([f"i{k}" for k in range(many)], np.array(requirements, float), **{**given, **more})


def chain(sector, final, pairs, industries, **variables):
    """Firms by hand: the industry of each, final demand, and (seller, buyer) pairs."""
    sector, final = np.array(sector), np.array(final, float)
    seller, buyer = (np.array(x) for x in zip(*pairs, strict=True))
    foreign = np.array(variables.pop("foreign", np.zeros(len(sector))), np.uint8)
    usual = usual_output(sector, foreign > 0, final, seller, buyer, industries.requirements)
    columns = {"sector": sector.astype(np.uint8), "usual": usual, "final": final, "foreign": foreign, **variables}
    data = {n: ("agent", np.asarray(x)) for n, x in columns.items()}
    trade = {"seller": ("trade", seller.astype(np.int32)), "buyer": ("trade", buyer.astype(np.int32))}
    return Population(xr.Dataset({**data, "firm": ("agent", np.arange(len(sector))), **trade}))


def series(model, name, days, acts=(), **fixed):
    """A tally of every firm on every day, shape (days, N)."""
    tree = lpm.run(model, days=days, set={**SURE, **fixed}, interventions=acts)
    return tree["prior_predictive"][name].isel(chain=0, draw=0).to_numpy()


TWO = table([[0.0, 0.5], [0.0, 0.0]])


def mine_and_mill(**variables):
    """A mine abroad, whose port can close, and a mill that uses 0.5 of ore for each 1 that it makes, of which 100."""
    people = chain([0, 1], [0.0, 100.0], [(0, 1)], TWO, foreign=[1, 0], **variables)
    return SupplyChain(people, TWO, by={"firm": "firm"}, port=None)


def by_hand(days, closed, opened, buffer, restock, slack, delay=3):
    """Mine and mill in plain arithmetic: what the mill makes each day."""
    stock, road, order, made = buffer * 50.0, [50.0] * delay, 50.0, []
    for day in range(days):
        stock += road.pop(0)
        shipped = 0.0 if closed <= day < opened else min(order, 50.0 * (1 + slack))
        output = min(100.0, 100.0 * (1 + slack), stock / 0.5)
        stock -= 0.5 * output
        road.append(shipped)
        order = max(0.0, 0.5 * output + (50.0 * buffer - stock) / restock)
        made.append(output)
    return np.array(made)


@pytest.mark.parametrize("buffer", [4.0, 4.5, 9.0])
def test_a_chain_of_two_firms_goes_as_by_hand(buffer):
    acts = [("port", 0.0, 5), ("port", 1.0, 20)]
    mill = series(mine_and_mill(), "output", 50, acts, buffer=buffer, restock=4.0, slack=0.2)[:, 1]
    expected = by_hand(50, 5, 20, buffer, 4.0, 0.2)
    # Tallies are in units of 2⁻¹⁰ thousand dollars.
    np.testing.assert_allclose(mill, expected, atol=2e-3)
    assert expected.min() == 0.0
    assert expected[-1] > 99.9


@pytest.mark.parametrize("buffer", [1.0, 4.0, 4.5, 12.0])
def test_who_is_cut_off_stops_after_exactly_what_is_on_the_road_and_in_stock(buffer):
    made = series(mine_and_mill(), "output", 30, [("port", 0.0, 5)], buffer=buffer)[:, 1]
    last = 5 + TWO.delay[0] + int(buffer)
    np.testing.assert_allclose(made[:last], 100.0, atol=2e-3)
    np.testing.assert_allclose(made[last], 100.0 * (buffer % 1), atol=2e-3)
    np.testing.assert_array_equal(made[last + 1 :], 0.0)


def test_the_more_cautious_run_out_later_each_on_its_day():
    caution = [1.0, 0.5, 1.0, 1.5, 2.0]
    people = chain(
        [0, 1, 1, 1, 1], [0.0, 80.0, 80.0, 40.0, 20.0], [(0, k) for k in range(1, 5)], TWO,
        foreign=[1, 0, 0, 0, 0], caution=caution,
    )  # fmt: skip
    model = SupplyChain(people, TWO, port=None)
    theta = {**model.defaults(), "failure": torch.tensor(1e-12), "buffer": torch.tensor(6.0)}
    with torch.no_grad(), playing(model, 0, 0, [("port", 0.0, 2)], DiscreteTime()):
        last = lpm.effects.ops.simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(30.0))
    assert last["ran_out_at"].tolist() == [math.inf, *(2 + 3 + 6 * c for c in caution[1:])]


def test_customers_get_the_same_share_of_what_they_ordered():
    people = chain([0, 1, 1], [10.0, 160.0, 40.0], [(0, 1), (0, 2)], TWO, foreign=[1, 0, 0])
    model = SupplyChain(people, TWO, port=None)
    theta = model.defaults()
    with torch.no_grad(), playing(model, 0, 0, [("port", 0.5, 0)], DiscreteTime()):
        start = model.initial(theta)
        after = lpm.effects.ops.simulate(model.day(theta), start, torch.tensor(0.0), torch.tensor(1.0))
    # The mine makes half of 110 · 1.15, and 110 are wanted: 80, 20 and 10 at home.
    share = 0.5 * 1.15
    np.testing.assert_allclose(after["moving/i0/2"][1:], [share * 80, share * 20], atol=80 * 2**-16)
    assert float(after["output"][0] - after["sold"][0]) == pytest.approx(share * 10, abs=110 * 2**-16)


def test_in_the_limit_it_is_leontief_s_inverse():
    """After final demand has risen for good, output is (I − A)⁻¹ d of the new demand, to 0.1 %."""
    # Nothing is imported: what was made at home and abroad is made at home.
    u = UNITED_STATES
    rest = u.essential, u.stocked, u.delay, u.firms
    output = np.linalg.solve(np.eye(14) - u.requirements, u.final)
    closed = Industries(u.labels, u.requirements, output, np.zeros(14), *rest)
    people = firms(1_000, industries=closed, least=0.0)
    model = SupplyChain(people, closed)
    acts = [("demand", 1.1, 0)]
    fixed = {**SURE, "slack": 0.4, "restock": 10.0}
    made = lpm.run(model, days=65, set=fixed, interventions=acts)["prior_predictive"]["output"]
    demand = np.bincount(people["sector"].numpy(), people["final"].numpy(), 14)
    expected = np.linalg.solve(np.eye(14) - closed.requirements, 1.1 * demand)
    assert float(abs(made.isel(day=0).to_numpy().ravel() / expected - 1).max()) > 0.02
    np.testing.assert_allclose(made.isel(day=-1).to_numpy().ravel(), expected, rtol=1e-3)


def quanta(x):
    """Whole multiples of 2⁻³², which what is shipped is."""
    whole = (x.double() * 2.0**32).round()
    assert torch.equal(whole / 2.0**32, x.double())
    return int(whole.to(torch.int64).sum())


def test_exactly_what_is_shipped_is_received_and_nothing_comes_of_nothing():
    model = SupplyChain(firms(1_000, seed=3))
    seen = []

    def balanced(before, after):
        if "output" not in after or after["output"] is before["output"]:
            return True, ""
        made, sold = after["output"], after["sold"]
        short = float((made - sold).min())
        for x in model.inputs:
            key = f"stock/{x.name}"
            have = before[key] + before[f"moving/{x.name}/0"]
            used = torch.minimum(x.need * made, have)
            torch.testing.assert_close(after[key] + used, have, rtol=1e-12, atol=1e-9)
            if x.essential:
                torch.testing.assert_close(used, x.need * made, rtol=1e-9, atol=1e-9)
        return short >= -1e-9, f"sold {-short} more than was made"

    def arrived(before, after):
        last = [(f"moving/{x.name}/{x.delay - 1}", f"order/{x.name}") for x in model.inputs]
        if all(after[order] is before[order] for _, order in last):
            return True, ""
        shipped, received = quanta(after["sold"]), sum(quanta(after[key]) for key, _ in last)
        seen.append(shipped)
        return shipped == received, f"{shipped} shipped, {received} received"

    rules = Invariant("firms sell what they made of what they had", balanced), Invariant("goods arrive", arrived)
    with Verified(*rules, bounded("fill", 0.0, 1.0)):
        lpm.run(model, days=30, set={"failure": 0.01}, interventions=[("port", 0.0, 5), ("port", 1.0, 20)])
    assert len(seen) == 30
    assert len({*seen}) == 30
    assert min(seen) > 0


def test_what_isn_t_essential_stops_nobody():
    shut = [("port", 0.0, 2)]
    for essential, made in ((True, 0.0), (False, 100.0)):
        industries = table([[0.0, 0.5], [0.0, 0.0]], essential=np.array([essential, True]))
        people = chain([0, 1], [0.0, 100.0], [(0, 1)], industries, foreign=[1, 0])
        model = SupplyChain(people, industries, by={"firm": "firm"}, port=None)
        assert series(model, "output", 40, shut)[-1, 1] == pytest.approx(made, abs=1e-3)


def test_a_plant_that_is_down_takes_its_share_of_capacity():
    people = chain([0, 0], [100.0, 100.0], [(0, 1)], table([[0.0]]), plants=[1, 4])
    model = SupplyChain(people, table([[0.0]]), by={"firm": "firm"}, port=None)
    # All plants fail at once, and none is repaired.
    made = lpm.run(model, days=3, set={"failure": 1e3, "repair": 1e-9, "slack": 0.2})["prior_predictive"]["output"]
    np.testing.assert_allclose(made[0, 0, -1], [0.0, 0.75 * 120.0], atol=2e-3)


def test_failures_and_repairs_are_as_frequent_as_they_should_be():
    """The share of plants down is failure/(failure + repair); fails once in 10⁶ by chance (five standard errors)."""
    many = 2_000
    people = chain(np.zeros(many, int), np.ones(many), [(0, 1)], table([[0.0]]))
    model = SupplyChain(people, table([[0.0]]), by={}, port=None)
    tree = lpm.run(model, days=120, set={"failure": 0.05, "repair": 0.2})["prior_predictive"]
    # Within a day a plant can't both fail and be repaired: per day and plant the chances are 1 − e^−h.
    fail, mend = -math.expm1(-0.05), -math.expm1(-0.2)
    share = fail / (fail + mend)
    found = tree["down"].to_numpy().ravel()[40:] / many
    # Days are correlated over some five days each.
    assert found.mean() == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / many / (80 / 10)))
    assert tree["failures"].sum() > 5_000


def test_higher_buffers_never_lose_more():
    model = SupplyChain(firms(1_000))
    acts = [("port", 0.0, 5), ("port", 1.0, 19)]
    lost = []
    for buffer in (3.0, 8.0, 20.0):
        run = lpm.run(model, days=28, set={"buffer": buffer}, interventions=acts)["prior_predictive"].to_dataset()
        lost.append([float(run[name].sum()) for name in ("lost_output", "unserved", "stopped")])
    assert (np.diff(lost, axis=0) < 0).all()


def test_a_reserve_is_bought_and_paid_for():
    model = SupplyChain(firms(1_000))
    fixed, acts = {**SURE, "slack": 1.0}, [("reserve", 10.0, 5)]
    run = lpm.run(model, days=60, set=fixed, interventions=acts)["prior_predictive"]
    holding = run["holding"].sum("sector").to_numpy().ravel()
    stocked = sum(float((x.need * model.usual).sum()) for x in model.inputs if x.stocked)
    held = sum(float(model.target(x, model.defaults(), torch.zeros(1)).sum()) for x in model.inputs if x.stocked)
    # A morning's delivery is in stock when it is paid for.
    np.testing.assert_allclose(holding[:5], 0.0006 * (held + stocked), rtol=2e-3)
    np.testing.assert_allclose(holding[-1] - holding[0], 0.0006 * 10 * stocked, rtol=0.03)


def test_only_a_region_s_port_is_closed_and_demand_falls_where_it_is_said():
    model = SupplyChain(firms(1_000))
    west, abroad = model.population["region"] == 3, model.foreign
    goods = torch.tensor(UNITED_STATES.stocked)[model.population["sector"].long()]
    assert torch.equal(model.at_port, west & abroad & goods)
    assert bool((west & abroad & ~goods).any())
    assert bool(model.at_port.any())
    assert not torch.equal(model.at_port, abroad)
    acts = [lpm.Act("demand", 0.0, 1, to={"region": "South"})]
    tree = lpm.counterfactual(model, acts, days=3, set=SURE, by={"region": "region"})
    met = SupplyChain(model.population, by={"region": "region"})
    plain = lpm.run(met, days=3, set=SURE, interventions=[("demand", 0.0, 1)])["prior_predictive"]["output"]
    lost = tree["prior_predictive"]["output"].sum("sector").isel(chain=0, draw=0, day=1)
    every = float(plain.isel(day=0).sum() - plain.isel(day=1).sum())
    assert 0.2 * every < float(lost[0] - lost[1]) < 0.6 * every


def test_synthetic_firms_are_as_published():
    """Zipf's tail within 0.15 of 1.059 by Hill's estimator (standard error 0.03); industries as tabled."""
    people = firms(20_000)
    sector, abroad = people["sector"].numpy(), people["foreign"].numpy() > 0
    usual = people["usual"].numpy()
    largest = np.sort(usual[~abroad])[::-1][:1_001]
    assert 1 / np.log(largest[:-1] / largest[-1]).mean() == pytest.approx(1.059, abs=0.15)
    scale = 1e6 / 365 * 20_000 / 6.1e6
    followed = UNITED_STATES.followed(0.02)
    made = np.bincount(sector, usual * ~abroad, 14) / scale
    np.testing.assert_allclose(made, followed.output, rtol=0.25)
    each = np.bincount(people["buyer"].numpy(), minlength=20_000)[~abroad]
    assert 4.0 < each.mean() < 5.0
    kinds = (followed.requirements > 0).sum(0)[sector[~abroad]]
    assert (each >= kinds).all()
    assert (people["seller"] != people["buyer"]).all()
    assert people["caution"].mean() == pytest.approx(1.0, abs=0.02)


def test_usual_output_solves_its_equation_and_sums_to_leontief_s():
    industries = table([[0.1, 0.4], [0.3, 0.0]])
    sector, pairs = np.array([0, 0, 1, 1]), [(0, 2), (1, 2), (1, 3), (2, 0), (3, 1), (1, 0), (0, 1)]
    seller, buyer = (np.array(x) for x in zip(*pairs, strict=True))
    final = np.array([5.0, 1.0, 8.0, 2.0])
    y = usual_output(sector, np.zeros(4, bool), final, seller, buyer, industries.requirements)
    demand = np.bincount(sector, final)
    expected = np.linalg.solve(np.eye(2) - industries.requirements, demand)
    np.testing.assert_allclose(np.bincount(sector, y), expected, rtol=1e-12)
    a = industries.requirements
    np.testing.assert_allclose(y[0], 5.0 + a[0, 1] * y[2] / 2 + a[0, 0] * y[1], rtol=1e-12)


def test_firms_depend_on_their_seed_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = firms(1_000, 1), firms(1_000, 1), firms(1_000, 2)
    assert one.dataset.equals(same.dataset)
    assert not one.dataset.equals(other.dataset)
    assert (before == np.random.get_state()[1]).all()  # noqa: NPY002


def test_firms_are_saved_and_opened_with_their_trade(tmp_path):
    people = firms(1_000)
    people.save(tmp_path / "firms.zarr")
    again = Population.open(tmp_path / "firms.zarr")
    plain, reread = (lpm.run(SupplyChain(p), days=3)["prior_predictive"].to_dataset() for p in (people, again))
    assert plain.equals(reread)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seller": None}, "lack 'seller'"),
        ({"usual": None}, "lack 'usual'"),
        ({"sector": np.array([0, 7], np.uint8)}, "sector is 7, but there are 2 industries"),
        ({"buyer": np.array([9], np.int32)}, "ids of firms"),
    ],
)
def test_firms_that_make_no_chain_are_refused(change, said):
    data = mine_and_mill().population.dataset
    for name, value in change.items():
        data = data.drop_vars(name) if value is None else data.assign({name: (data[name].dims, value)})
    with pytest.raises(InputError, match=said):
        SupplyChain(Population(data), TWO, by={}, port=None)


def test_regions_steps_and_numbers_that_can_t_be_are_refused():
    people = firms(1_000)
    with pytest.raises(InputError, match="West"):
        SupplyChain(people, port="Wset")
    model = SupplyChain(people)
    with pytest.raises(InputError, match="whole days"), playing(model, 0, 0, [], DiscreteTime(dt=0.5)):
        theta = model.defaults()
        lpm.effects.ops.simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(1.0))
    for name, value in {"buffer": 1e9, "restock": 1e-9, "storage": 1e9}.items():
        with pytest.raises(InputError, match=f"{name}={re.escape(f'{value:g}')} .* was given; give"):
            lpm.run(model, days=2, set={name: value})
    assert float(lpm.run(model, days=3, set={"buffer": 365.0, "storage": 0.1})["prior_predictive"]["holding"].sum()) > 0
    with pytest.raises(InputError, match="number=10 was given"):
        firms(10)
    with pytest.raises(InputError, match="port_share"):
        firms(1_000, port_share=2.0)


def test_the_table_is_plausible():
    """Intermediate shares and value added near what is published of the United States in 2019."""
    uses = dict(zip(UNITED_STATES.labels, UNITED_STATES.requirements.sum(0), strict=True))
    assert 0.3 < uses["business"] < uses["transport"] < uses["chemicals"] < uses["food"] < uses["fuels"] < 0.85
    made = UNITED_STATES.output * (1 - UNITED_STATES.requirements.sum(0))
    # 21.4 trillion dollars: Bureau of Economic Analysis, gross domestic product of 2019.
    assert made.sum() == pytest.approx(21_400, rel=0.02)
    assert UNITED_STATES.firms.sum() == pytest.approx(1.0)


@pytest.fixture(scope="module")
def firms_of_two_thousand():
    return SupplyChain(firms(2_000))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101])
def test_calibration_recovers_how_often_plants_fail_and_how_fast_they_are_repaired(firms_of_two_thousand, seed):
    """Within four standard deviations each; fails once in 5,000 by chance were the posterior exact."""
    model, truth = firms_of_two_thousand, {"failure": 0.001, "repair": 0.12}
    seen = lpm.run(model, days=45, seed=seed, set=truth)["prior_predictive"].to_dataset()
    data = seen[["failures", "repairs"]].isel(chain=0, draw=0).sum("sector")
    found = lpm.calibrate(model, data, parameters=list(truth), seed=1, simulations=2, draws=200)["posterior"]
    for name, value in truth.items():
        assert abs(float(found[name].mean()) - value) < 4 * float(found[name].std()), name
    assert float(found["failure"].std()) < 0.15 * truth["failure"]


@pytest.mark.slow
def test_calibration_recovers_the_buffer_from_who_stops(firms_of_two_thousand):
    model, truth = firms_of_two_thousand, {"buffer": 13.0, "failure": 0.001}
    acts = [("port", 0.0, 5), ("port", 1.0, 33)]
    seen = lpm.run(model, days=42, seed=99, set=truth, interventions=acts)["prior_predictive"].to_dataset()
    data = seen[["stopped", "failures"]].isel(chain=0, draw=0).sum("sector")
    found = lpm.calibrate(
        model, data, parameters=list(truth), interventions=acts, seed=1, simulations=2, draws=200
    )["posterior"]  # fmt: skip
    assert float(found["buffer"].mean()) == pytest.approx(13.0, abs=1.0)
    assert float(found["buffer"].std()) < 1.0


@pytest.mark.slow
def test_sensitivity_to_the_buffer_agrees_with_its_audit_and_a_sweep(firms_of_two_thousand):
    model, acts = firms_of_two_thousand, [("port", 0.0, 5), ("port", 1.0, 26)]
    asked = {"days": 40, "interventions": acts}
    found = lpm.sensitivity(model, "unserved", "buffer", draws=3, step=0.1, **asked).sel(parameter="buffer")
    assert float(found["value"]) < -4 * float(found["se"])
    assert float(found["difference"]) == pytest.approx(float(found["value"]), rel=0.1)
    either = [
        float(lpm.run(model, set={"buffer": b}, **asked)["prior_predictive"]["unserved"].sum()) for b in (9.6, 10.4)
    ]
    assert (either[1] - either[0]) / 0.8 == pytest.approx(float(found["value"]), rel=0.1)


def test_the_page_has_every_parameter_environment_and_tally_of_the_model():
    page = Path(lpm.errors.__file__).parents[1] / "docs" / "supply-chain.md"
    if not page.exists():
        pytest.skip("the docs aren't beside the package")
    text, model = page.read_text("utf-8"), SupplyChain(firms(1_000))
    for name, parameter in model.parameters.items():
        assert f"| `{name}` | {parameter.default:g} | {parameter.units} |" in text, name
    for name in model.environment:
        assert f"| `{name}` | {model.environment[name]:g} |" in text, name
    assert [name for name in model.tallies if f"`{name}`" not in text] == []
