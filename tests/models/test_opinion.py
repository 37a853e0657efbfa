"""Opinions: hazards as written, zealots, whom money reaches, small worlds, and every verb that asks of them."""

from __future__ import annotations

import itertools

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
from lpmppl._compat import Message, Messenger
from lpmppl.effects.choices import Choices
from lpmppl.effects.handlers import ExogenousNoise, LanguageModel, Neural, Tabulated, Utility
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.policies import Act
from lpmppl.models.archetypes import Lookup
from lpmppl.models.behaving import Behaving
from lpmppl.models.model import Parameter
from lpmppl.models.opinion import ADOPT, PROMPT, UTILITY, Opinion
from lpmppl.models.population import Population
from lpmppl.models.town import small_world, town
from tests.effects.language.sources import Exactly
from tests.oracles import play

PRICES = {
    "adopt": {
        "adopt": {
            **UTILITY["adopt"]["adopt"],
            "price=keen × offer=offered × reward": 0.7,
            "price=proud × offer=offered × paid": -0.6,
        }
    }
}
LIVELY = {"deliberation": 0.1, "herding": 0.4, "conformity": 1.5, "initial": 0.3}


@pytest.fixture(scope="module")
def society():
    people, ties = town(800)
    networks = [people.network("neighbourhood"), ties]
    return Opinion(people, networks, by={"price": "price"}, attributes={"price": Lookup("price")}, behaviour=PRICES)


class Hazards(Messenger):
    """Keeps the exposures of every step."""

    def __init__(self):
        super().__init__()
        self.met = []

    def _pyro_post_happens(self, msg: Message) -> None:
        self.met.append((msg["args"][0].rpartition("/")[2], msg["args"][1]))


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_hazards_are_those_of_the_equation(society, alpha, some):
    """Worked out agent by agent, in the day's order, for those who are offered three dollars and those who aren't."""
    people, seen, hazards = society.population, [], Hazards()
    offered = (people["connected"] == 1).float() if some else torch.ones(1)

    class Offering(Opinion):
        def initial(self, theta, start=0.0):
            return {**super().initial(theta, start), "incentive": torch.tensor([3.0]), "offered": offered}

    model = Offering(people, society.networks, attributes={"price": Lookup("price")}, behaviour=PRICES)
    values = {**LIVELY, "conformity": alpha}
    play(model, 3, Utility(PRICES), ExogenousNoise(3), hazards, watch=lambda s: seen.append(s["opinion"]), **values)
    neighbourhood, ties = society.networks
    price, reached = people["price"].numpy(), np.broadcast_to(offered.numpy(), people.size) > 0
    dollars = np.where(reached, np.log1p(3.0), 0.0)
    utility = -0.85 + reached * -0.5 + 1.5 * dollars + (price == 0) * 0.7 * dollars - (price == 2) * reached * 0.6
    p = 1 / (1 + np.exp(-utility))
    assert len(hazards.met) == 6
    for day in range(3):
        x = seen[day].numpy().astype(float)
        group = neighbourhood.index.numpy()
        near = (np.bincount(group, x) / np.bincount(group))[group]
        known = np.bincount(ties.target, x[ties.source.numpy()], len(x)) / ties.degree.numpy()
        up = 0.1 * p + 0.4 * (near**alpha + known**alpha)
        down = 0.1 * (1 - p) + 0.4 * ((1 - near) ** alpha + (1 - known) ** alpha)
        for (site, exposure), expected, mind in zip(hazards.met[2 * day :], (up, down), (0.0, 1.0), strict=False):
            assert site == ("adoption" if mind == 0 else "lapse")
            at_risk = exposure.at_risk.numpy()
            np.testing.assert_array_equal(at_risk, x == mind)
            gained = (exposure.after - exposure.before).detach().numpy()
            np.testing.assert_allclose(gained[at_risk], expected[at_risk], rtol=2e-6)
            np.testing.assert_array_equal(gained[~at_risk], 0.0)


def test_a_switch_begins_an_episode_with_no_hazard_behind_it(society):
    seen = []
    keys = ("opinion", "episode", "attraction", "doubt")
    with_states = lambda s: seen.append({k: s[k] for k in keys})  # noqa: E731
    play(society, 8, Utility(PRICES), ExogenousNoise(4), watch=with_states, **LIVELY)
    for before, after in itertools.pairwise(seen):
        switched = before["opinion"] != after["opinion"]
        assert torch.equal(after["episode"] - before["episode"], switched.int())
        for key, mind in (("attraction", False), ("doubt", True)):
            assert bool((after[key][switched] == 0).all())
            stays = ~switched & (before["opinion"] == mind)
            assert bool((after[key][stays] > before[key][stays]).all())
    assert int(seen[-1]["episode"].max()) >= 3


def test_zealots_never_switch_and_others_do():
    codes = np.arange(900) % 3
    people = Population.of({"side": codes})
    model = Opinion(people, [people.everyone()], zealots="side")
    seen = []
    play(model, 20, Utility(UTILITY), ExogenousNoise(5), watch=lambda s: seen.append(s["opinion"]), **LIVELY)
    path = torch.stack(seen).numpy()
    assert not path[:, codes == 1].any()
    assert path[:, codes == 2].all()
    assert 0 < path[0, codes == 0].mean() < 1
    assert (path[0, codes == 0] != path[-1, codes == 0]).mean() > 0.1


def test_who_sees_nobody_is_moved_by_nobody():
    """Agents without neighbours have no share of either opinion, rather than a share of 0 against."""
    edges = small_world(100, 4)
    people = Population.of({"all": np.zeros(200, dtype=int)})
    edges = type(edges)("ties", edges.source, edges.target, 200)
    model = Opinion(people, [edges])
    values = {"deliberation": 1e-30, "herding": 2.0, "conformity": 1.0, "initial": 0.5}
    seen = []
    play(model, 20, Utility(UTILITY), ExogenousNoise(6), watch=lambda s: seen.append(s["opinion"]), **values)
    assert torch.equal(seen[0][100:], seen[-1][100:])
    assert not torch.equal(seen[0][:100], seen[-1][:100])


def test_a_little_money_does_worse_than_none_and_much_better(society):
    tree = lpm.counterfactual(society, {"incentive": [0.1, 6.0]}, at=2, days=15, set=LIVELY)
    effect = lpm.contrast(tree)["adopters"].sel(estimate="mean")
    assert float(effect[0]) < 0 < float(effect[1])


def test_keener_archetypes_answer_more(society):
    tree = lpm.counterfactual(society, {"incentive": 3.0}, at=2, days=15, set={**LIVELY, "herding": 0.01})
    effect = lpm.contrast(tree, by="price")["adopters"].sel(estimate="mean").isel(policy=0)
    assert float(effect.sel(price="keen")) > 1.5 * float(effect.sel(price="proud"))


def test_what_a_lasting_convert_costs(society):
    """Payments over holdouts averted on the last day; and everybody's fate under both."""
    plan = {"paid for a while": [("incentive", 6.0, 2), ("incentive", 0.0, 10)]}
    tree = lpm.counterfactual(society, plan, days=14, set=LIVELY, replicates=2)
    total = tree["prior_predictive"].to_dataset().sum("price")
    paid, left = (total[name].diff("policy").squeeze("policy") for name in ("payments", "holdouts"))
    np.testing.assert_allclose(
        paid.sum("day"), 6.0 * total["adopters"].isel(policy=1, day=slice(2, 10)).sum("day"), rtol=1e-6
    )
    found = lpm.cost_per(tree, "holdouts")["cost"].sel(estimate="mean").item()
    assert found == pytest.approx(float(paid.sum() / -left.isel(day=-1).sum()))
    fates = lpm.fates(tree, "adopts").sel(estimate="mean")
    assert (fates["caused"] - fates["averted"]).item() == pytest.approx(-float(left.isel(day=-1).mean()))


def test_who_persuaded_whom_adds_up_to_the_adoptions(society):
    run = lpm.run(society, 6, set={**LIVELY, "conformity": 1.0}, sources={"price": "price"})
    sources, adoptions = run["sources"].to_dataset(), run["prior_predictive"]["adoptions"]
    told = sources["adoption"].sum(["layer", "from_price"]) + sources["adoption_from_nobody"]
    np.testing.assert_allclose(told.sum("price"), adoptions.sum("price"), rtol=1e-4)
    assert (sources["adoption"].sum(["from_price", "price", "day"]) > 0).all()


def test_with_conformity_nobody_alone_persuaded_anybody(society):
    with pytest.raises(LpmError, match="isn't a sum over who sends"):
        lpm.run(society, 3, set=LIVELY, sources={"price": "price"})


def test_the_cheapest_incentive_is_found(society):
    plans = {f"{c:g} dollars": [("incentive", c, 1), ("incentive", 0.0, 9)] for c in (0.1, 3.0, 8.0)}
    found = lpm.search(society, plans, "holdouts", days=10, set=LIVELY, budget=20_000.0)
    assert found.attrs["best"] == "3 dollars"
    assert not bool(found["affordable"].sel(policy="8 dollars"))
    assert int(found["policy"].to_index().get_loc("as it was")) < int(found["policy"].to_index().get_loc("0.1 dollars"))


def test_a_network_decides_as_the_utilities_it_was_distilled_from(society):
    table = society.kinds.table
    dollars = torch.linspace(0.0, 6.0, 25).reshape(-1, 1, 1)
    context = {"reward": torch.log1p(dollars), "paid": (dollars > 0).float(), "attributes": society.kinds.labels}
    with Utility(PRICES):
        chance = decide("adopt", table, ADOPT, context)
    rows = chance.reshape(-1, len(ADOPT))
    codes = table.repeat(25, 1)
    seen = {n: context[n].expand(25, 1, len(table)).reshape(-1) for n in ("reward", "paid")}
    choices = Choices("adopt", ADOPT, society.kinds.labels, codes, seen, rows, torch.ones(len(rows)))
    network = lpm.distil(choices, [8], steps=100).network
    runs = []
    for handler in (Utility(PRICES), Neural({"adopt": network})):
        with handler:
            runs.append(lpm.run(society, 10, set=LIVELY, interventions=[("incentive", 4.0, 2)])["prior_predictive"])
    ours, other = (float(run["adopters"].isel(day=-1).sum()) for run in runs)
    assert other == pytest.approx(ours, rel=0.03)


def test_a_language_model_is_asked_in_words(society):
    with LanguageModel(source := Exactly(), {"adopt": PROMPT}):
        lpm.run(society, 3, set=LIVELY, interventions=[("incentive", 4.0, 1)])
    assert len({*source.asked}) == 2
    assert any("4.00 dollars a day" in text for text in source.asked)
    assert all(text.endswith("Answer:") for text in source.asked)


def test_without_a_behaviour_that_knows_the_decision_it_is_refused(society):
    with pytest.raises(LpmError, match="adopt"):
        play(society, 1, ExogenousNoise(1), **LIVELY)
    with Tabulated({"adpt": torch.tensor([0.5, 0.5])}), pytest.raises(InputError, match="adpt"):
        lpm.run(society, 1)


def test_what_cannot_be_is_refused_by_name():
    people, ties = town(100)
    with pytest.raises(InputError, match="one or more"):
        Opinion(people, [])
    with pytest.raises(InputError, match="name of its own"):
        Opinion(people, [ties, ties])
    with pytest.raises(InputError, match="'ties' has 50 agents, but there are 100"):
        Opinion(people, [small_world(50)])
    with pytest.raises(InputError, match="'offer' is given as static and as dynamic"):
        Opinion(people, [ties], attributes={"offer": Lookup("price")})
    with pytest.raises(InputError, match="zealots='household'"):
        Opinion(people, [ties], zealots="household")
    with pytest.raises(InputError, match="zealotry"):
        Opinion(people, [ties], zealots="zealotry")
    with pytest.raises(InputError, match="adopt"):
        Opinion(people, [ties], behaviour={"adapt": {}})
    with pytest.raises(InputError, match="-2"):
        lpm.run(Opinion(people, [ties]), 3, interventions=[("incentive", -2.0, 1)])
    with pytest.raises(InputError, match="offered"):
        lpm.run(Opinion(people, [ties]), 3, interventions=[("offered", "perhaps", 1)])
    with pytest.raises(InputError, match="incentive is one for the whole city"):
        lpm.counterfactual(Opinion(people, [ties]), [Act("incentive", 2.0, 1, {"price": "keen"})], days=3)
    for name, wrong in (("neighbours", 3), ("neighbours", 100), ("rewired", 1.5), ("hubs", -1.0)):
        with pytest.raises(InputError, match=f"{name}={wrong}"):
            small_world(**{"agents": 50, name: wrong})
    with pytest.raises(InputError, match="agents=10 was given; give a whole number, 20 to"):
        town(10)


def test_small_worlds_are_rings_with_some_ties_anywhere():
    ring = small_world(500, 6, 0.0)
    gap = (ring.source - ring.target).abs()
    assert int(torch.minimum(gap, 500 - gap).max()) == 3
    assert bool((ring.degree == 6).all())
    mixed, hubs = small_world(5_000, 6, 0.2), small_world(5_000, 6, 0.2, 1.5)
    gap = (mixed.source - mixed.target).abs()
    # Of 15,000 ties a fifth leads anywhere: within five standard errors.
    far = float((torch.minimum(gap, 5_000 - gap) > 3).double().mean())
    assert abs(far - 0.2) < 5 * (0.16 / 15_000) ** 0.5 + 0.001
    assert int(hubs.degree.max()) > 2 * int(mixed.degree.max())
    # Whoever sees somebody is seen.
    forth, back = (set(zip(a.tolist(), b.tolist(), strict=True)) for a, b in ((mixed.source, mixed.target),) * 2)
    assert {(b, a) for a, b in forth} == back
    assert torch.equal(small_world(500, 6, 0.3, seed=4).target, small_world(500, 6, 0.3, seed=4).target)


def test_the_town_is_what_it_says():
    people, ties = town(6_000, seed=2)
    for name in ("connected", "lottery"):
        assert int(people[name].sum()) == 1_200
    assert float(people["quarter"].double().mean()) == pytest.approx(0.2, abs=0.01)
    assert int(ties.degree[people["connected"] == 1].min()) >= int(ties.degree[people["connected"] == 0].max())
    home, price = people["household"].long(), people["price"].long()
    assert torch.equal(price, price[torch.searchsorted(home, home)])
    assert {int(n) for n in people.network("household").size.unique()} <= {1, 2, 3, 4, 5}
    assert people.checksum == town(6_000, seed=2)[0].checksum != town(6_000, seed=3)[0].checksum


def paid_more(society):
    """The society with what a dollar's logarithm is worth as a parameter."""
    worth = Parameter(dist.Normal(1.5, 0.3), 1.5, "what the incentive is worth", "per log dollar", "chosen")

    def decides(theta):
        features = {**PRICES["adopt"]["adopt"], "offer=offered × reward": theta["worth"]}
        return Utility({"adopt": {"adopt": features}})

    return Behaving(society, decides, {"worth": worth})


def test_estimators_agree_on_what_moves_the_share(society):
    """Differences, and what one agent's chance would have made; within four standard errors of each other."""
    asked = {"wrt": ["deliberation", "worth"], "days": 5, "set": LIVELY, "interventions": [("incentive", 3.0, 1)]}
    one = lpm.sensitivity(paid_more(society), "adopters", draws=8, audit=False, **asked)
    other = lpm.sensitivity(paid_more(society), "adopters", draws=8, flips=24, estimator="flips", audit=False, **asked)
    gap = (one["value"] - other["value"]) / np.hypot(one["se"], other["se"])
    assert float(np.abs(gap).max()) < 4
    assert float(one["value"].sel(parameter="worth")) > 3 * float(one["se"].sel(parameter="worth"))


@pytest.mark.slow
def test_derivatives_stand_their_audit(society):
    """Of all parameters, each of which moves the share; and along paths they are refused, since nobody acts in time."""
    found = lpm.sensitivity(
        society, "adopters", "all", days=25, draws=16, set=LIVELY, interventions=[("incentive", 3.0, 5)]
    )
    gap = (found["value"] - found["difference"]) / np.hypot(found["se"], found["difference_se"])
    assert float(np.abs(gap).max()) < 4
    assert float(found["value"].sel(parameter="initial")) > 0
    with pytest.raises(InputError, match="timed"):
        lpm.sensitivity(society, "adopters", "herding", days=5, estimator="pathwise")


@pytest.mark.slow
def test_amounts_are_refined_within_a_budget(society):
    found = lpm.refine(
        society, {"incentive": 1.0}, "holdouts", {"incentive": (0.0, 8.0)}, 1, 10, set=LIVELY, budget=20_000.0, draws=4
    )
    best = found.attrs["best"]
    assert float(found["cost"].sel(policy=best)) <= 20_000
    assert found["amount"].sel(policy=best).item() > 2
    assert found.attrs["rounds"] >= 1


@pytest.mark.slow
def test_a_report_holds_the_comparison(society, tmp_path):
    tree = lpm.counterfactual(society, {"incentive": [1.0, 6.0]}, at=2, days=10, set=LIVELY, replicates=2)
    page = lpm.report(tree, tmp_path / "page").read_text()
    assert "incentives paid" in page
    assert "people of opinion 1" in page


@pytest.mark.slow
def test_people_who_were_seen_to_switch_are_asked_what_if():
    """As it was, the days have just the adoptions and lapses that were seen; paid, the same people adopt more often."""
    people, ties = town(400)
    model = Opinion(people, [people.network("household"), ties])
    seen = lpm.run(model, days=12, seed=3)["prior_predictive"].to_dataset().isel(chain=0, draw=0)
    observed = {"adoption": seen["adoptions"].to_numpy(), "lapse": seen["lapses"].to_numpy()}
    tree = lpm.counterfactual(model, {"incentive": 5.0}, at=4, days=12, observed=observed, guided=40)
    found = tree["prior_predictive"].to_dataset().isel(chain=0, draw=0)
    for name in ("adoptions", "lapses"):
        np.testing.assert_array_equal(found[name].sel(policy="as it was"), seen[name])
    assert float(lpm.contrast(tree)["adoptions"].sel(estimate="mean")[0]) > 5
