"""Laws of who infected whom: it adds up, it changes nothing, and it is what pairs of agents make of it one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from xarray.testing import assert_identical

import lpmppl as lpm
from lpmppl._compat import Messenger
from lpmppl.effects.cohorts import dense
from lpmppl.effects.handlers import Silenced, Sources
from lpmppl.effects.ops import substep
from lpmppl.errors import InputError, LpmError
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from tests.laws.conftest import MODELS, people

DAYS = 25
INFECTED = {"initial_infected": 0.05}
BY = {"age": "age_band", "borough": "borough"}


def pandemic(**options):
    return lpm.nyc.pandemic(lpm.nyc.population(1_500), **options)


EVERY = {**MODELS, "pandemic": pandemic}


@pytest.mark.parametrize("name", EVERY)
def test_who_infected_whom_adds_up_to_the_infections_and_leaves_the_run_as_it_is(name):
    model = EVERY[name]()
    plain = lpm.run(model, DAYS, set=INFECTED)
    told = lpm.run(model, DAYS, set=INFECTED, sources=BY)
    assert_identical(told["prior_predictive"].to_dataset(), plain["prior_predictive"].to_dataset())
    infections = told["prior_predictive"]["infections"]
    sent = told["sources"]["infection"]
    received = sent.sum(["layer", "from_age", "from_borough"])
    assert float(infections.sum()) > 20
    for stratum in {*infections.dims} & {"age", "borough"}:
        apart = [d for d in ("age", "borough") if d != stratum]
        kept = infections.sum([d for d in apart if d in infections.dims])
        assert received.sum(apart).transpose(*kept.dims).values == pytest.approx(kept.values, abs=1e-9)
    assert received.sum(["age", "borough"]).values == pytest.approx(
        infections.sum([d for d in infections.dims if d not in ("chain", "draw", "day")]).values, abs=1e-9
    )
    assert float(sent.min()) >= 0 and "infection_from_nobody" not in told["sources"].data_vars


@pytest.mark.parametrize("name", EVERY)
def test_in_every_world_it_is_that_of_the_single_run(name):
    model = EVERY[name]()
    plans = {"less": [("transmission", 0.5, 6)], "more": [("transmission", 2.0, 9)]}
    tree = lpm.counterfactual(model, plans, days=DAYS, set=INFECTED, sources=BY)
    for world, acts in {"as it was": [], **plans}.items():
        single = lpm.run(model, DAYS, set=INFECTED, sources=BY, interventions=acts)["sources"]["infection"]
        there = tree["sources"]["infection"].sel(policy=world)
        layers = [layer for layer in there["layer"].values if layer in single["layer"].values]
        assert np.array_equal(there.sel(layer=layers).values, single.sel(layer=layers).values)
        assert float(there.sum()) == pytest.approx(float(single.sum()))


class Spy(Messenger):
    """Note every day what each agent sends, who was at risk, and who was infected."""

    def __init__(self):
        super().__init__()
        self.sent, self.totals, self.days = {}, {}, []

    def _pyro_post_aggregate(self, msg):
        message, network, onto, _ = msg["args"]
        self.today = getattr(self, "today", {})
        before = 0.0 if onto is None else self.totals.get(network.name, 0.0)
        now = before + dense(message).double()
        # A running total is sent twice a day: what lasts, in integers, and then today's share of it.
        if onto is not None and not (message.value.is_floating_point()):
            self.lasting = now
            return
        self.today[network.name] = now
        if onto is not None:
            self.totals[network.name] = self.lasting

    def _pyro_post_happens(self, msg):
        name, _ = msg["args"]
        if name == "infection":
            self.days.append((dict(self.today), dense(msg["value"][0])))


@pytest.mark.parametrize("name", ["sir_in_households", "sir_on_a_graph", "seirm_in_layers", "seirm_on_a_graph"])
def test_it_is_what_pairs_of_agents_make_of_it(name):
    """Every pair's part of a hazard by itself: contacts a day, over the neighbours' number, times what is sent."""
    model = MODELS[name]()
    spy, told = Spy(), Sources("infection", model.population.strata(borough="borough"))
    with spy, told:
        lpm.run(model, DAYS, set=INFECTED)
    names = told.layers_met
    found = torch.stack(told.sent(names).entries).reshape(DAYS, len(names), 2, 2)
    layers = model.networks if hasattr(model, "networks") else [layer.network for layer in model.layers]
    contacts = {layer.network.name: layer.contacts for layer in getattr(model, "layers", ())}
    borough = model.population["borough"].long()
    several = 0
    for day, (sent, infected) in enumerate(spy.days):
        expected = np.zeros((len(names), 2, 2))
        for i in infected.nonzero().flatten().tolist():
            parts = {}
            for network in layers:
                if hasattr(network, "source"):
                    neighbours = network.source[network.target == i]
                else:
                    neighbours = (network.index == network.index[i]).nonzero().flatten()
                    neighbours = neighbours if int(network.index[i]) != network.nowhere else neighbours[:0]
                weight = contacts.get(network.name, 1.0)
                weight = float(weight) if not isinstance(weight, torch.Tensor) else float(weight[network.index[i]])
                each = weight * sent[network.name][neighbours] / max(len(neighbours), 1)
                parts[network.name] = torch.zeros(2, dtype=torch.float64).index_add_(0, borough[neighbours], each)
            whole = sum(float(part.sum()) for part in parts.values())
            for network, part in parts.items():
                expected[names.index(network), :, int(borough[i])] += part.numpy() / whole
        several += int(infected.sum())
        assert found[day].numpy() == pytest.approx(expected, abs=2e-3), day
    assert several > 20


def test_a_household_infects_itself_and_a_workplace_its_own():
    model = pandemic()
    for network, size in (("household", "household"), ("workplace", "workplace")):
        handler = Sources("infection", model.population.strata(**{size: size}))
        with handler:
            lpm.run(model, DAYS, set=INFECTED)
        count = handler.senders.count
        series = torch.stack(handler.sent([network]).entries).sum(0).reshape(count, count)
        assert float(series.sum()) > 5
        assert float(series.diagonal().sum()) == pytest.approx(float(series.sum()))


def test_whoever_is_silenced_infects_nobody():
    model, young = pandemic(), 3
    silent = model.population["age_band"] < young
    with Silenced(agents=silent):
        told = lpm.run(model, DAYS, set=INFECTED, sources={"age": "age_band"})["sources"]["infection"]
    assert float(told.isel(from_age=slice(young)).sum()) == 0 < float(told.isel(from_age=slice(young, None)).sum())
    assert float(told.isel(age=slice(young)).sum()) > 0


@pytest.mark.parametrize("name", EVERY)
def test_nobody_is_infected_where_all_are_silenced(name):
    with Silenced():
        told = lpm.run(EVERY[name](), DAYS, set=INFECTED)
    assert float(told["prior_predictive"]["infections"].sum()) == 0


def test_a_silent_layer_is_one_without_contacts():
    model = pandemic()
    without = lpm.run(model, DAYS, set={**INFECTED, "home": 1e-30})["prior_predictive"]
    with Silenced("household"):
        silent = lpm.run(model, DAYS, set=INFECTED)["prior_predictive"]
    assert np.array_equal(silent["infections"].values, without["infections"].values)
    assert float(silent["infections"].sum()) > 20


def test_a_silent_school_is_a_closed_one():
    model = pandemic(start="2020-02-03")
    schools = (model.population["workplace_kind"] == 2)[model.population["workplace"].long()]
    closed = lpm.run(model, DAYS, set=INFECTED, interventions=[("schools", 0.0, 0)])["prior_predictive"]
    with Silenced("workplace", schools):
        silent = lpm.run(model, DAYS, set=INFECTED)["prior_predictive"]
    assert np.array_equal(silent["infections"].values, closed["infections"].values)
    assert not np.array_equal(
        closed["infections"].values, lpm.run(model, DAYS, set=INFECTED)["prior_predictive"]["infections"].values
    )


def test_what_comes_from_nobody_is_told_apart():
    """A hazard with a part that nobody sends, and without the messages that the model has."""
    from lpmppl.effects.distributions import Exposure
    from lpmppl.effects.ops import aggregate, happens

    class Imported(SIR):
        def day(self, theta):
            def step(s):
                force = aggregate(s["infectious"] * 1.0, self.networks[0]) * 0.4
                with self.population.plate():
                    infected, _ = happens(
                        "infection", Exposure(s["exposure"], dense(force) + 0.1, at_risk=s["susceptible"], dt=s["dt"])
                    )
                return {"susceptible": s["susceptible"] & ~infected, "infectious": s["infectious"] | infected}

            return lambda s: substep("all", step, s)

    society = people()
    model = Imported(society, [society.network("household")])
    model.tallies = {}
    tree = lpm.run(model, 3, set=INFECTED, sources={"borough": "borough"})
    nobody, sent = (float(tree["sources"][k].sum()) for k in ("infection_from_nobody", "infection"))
    assert nobody > 5 * sent > 0


def test_a_hazard_that_is_no_sum_is_refused():
    from lpmppl.effects.distributions import Exposure
    from lpmppl.effects.ops import aggregate, happens

    class Threshold(SIR):
        inside = True

        def day(self, theta):
            def step(s):
                force = dense(aggregate(s["infectious"] * 1.0, self.networks[0]))
                with self.population.plate():
                    infected, _ = happens(
                        "infection", Exposure(s["exposure"], 9 * force.square(), at_risk=s["susceptible"], dt=s["dt"])
                    )
                return {**s, "susceptible": s["susceptible"] & ~infected, "infectious": s["infectious"] | infected}

            return (lambda s: substep("all", step, s)) if self.inside else step

    society = people()
    model = Threshold(society, [society.network("household")])
    model.tallies = {}
    with pytest.raises(LpmError, match="isn't a sum over who sends"):
        lpm.run(model, 10, set={"initial_infected": 0.4}, sources={"age": "age_band"})
    model.inside = False
    with pytest.raises(LpmError, match="stands in no substep"):
        lpm.run(model, 3, set=INFECTED, sources={"borough": "borough"})


def test_what_cant_be_told_is_refused_before_the_first_day(tmp_path):
    model = MODELS["sir_on_a_graph"]()
    with pytest.raises(InputError, match="isn't kept with a checkpoint"):
        lpm.run(model, 3, sources=BY, checkpoint=tmp_path / "c.npz")
    with pytest.raises(InputError, match="age_band"):
        lpm.run(model, 3, sources={"age": "age_bnd"})
    with pytest.raises(InputError, match="can't be called 'layer'"):
        lpm.run(model, 3, sources={"layer": "borough"})
    model.spreads = ""
    with pytest.raises(InputError, match="nothing spreads"):
        lpm.run(model, 3, sources=BY)
    with pytest.raises(InputError, match="too long a table"):
        lpm.run(pandemic(), 3, sources={"puma": "puma", "age": "age", "sex": "sex"})


@pytest.mark.parametrize("name", EVERY)
def test_where_nobody_is_infected_nobody_infected_anybody(name):
    told = lpm.run(EVERY[name](), 5, set=INFECTED, sources=BY, interventions=[("transmission", 0.0, 0)])
    assert float(told["sources"]["infection"].sum()) == 0 and told["sources"].sizes["layer"] > 0
    assert "infection_from_nobody" not in told["sources"].data_vars


def test_whom_to_silence_and_tell_apart_is_said_by_tensors_and_strata():
    for odd in (np.ones(600, bool), torch.arange(600), torch.ones(1, 600, dtype=torch.bool)):
        with pytest.raises(InputError, match="Boolean tensor of shape"):
            Silenced(agents=odd)
    model = MODELS["sir_on_a_graph"]()
    with pytest.raises(InputError, match="give one Boolean for each"), Silenced(agents=torch.ones(9, dtype=torch.bool)):
        lpm.run(model, 3)
    with pytest.raises(InputError, match="kinds of agents are needed"):
        Sources("infection", torch.zeros(600))
    for name in ("day", "policy", "from_home", "work/er"):
        with pytest.raises(InputError, match="results use such names"):
            lpm.nyc.seirm(lpm.nyc.population(1_000), by={name: "borough"})


def test_where_there_is_no_network_everything_comes_from_nobody():
    from lpmppl.effects.distributions import Exposure
    from lpmppl.effects.ops import happens

    class Alone(SIR):
        def day(self, theta):
            def step(s):
                risk = Exposure(s["exposure"], theta["beta"].double(), at_risk=s["susceptible"], dt=s["dt"])
                with self.population.plate():
                    infected, _ = happens("infection", risk)
                return {"susceptible": s["susceptible"] & ~infected, "exposure": risk.after}

            return lambda s: substep("all", step, s)

    model = Alone(people(), [])
    model.tallies = {}
    told = lpm.run(model, 5, sources={"borough": "borough"})["sources"]
    assert list(told.data_vars) == ["infection_from_nobody"] and float(told["infection_from_nobody"].sum()) > 200


def test_places_of_unknown_kind_are_a_layer_of_their_own():
    """As the same places with a label for what isn't known; a code without a label is refused."""
    folk = people()
    places = int(folk["workplace"].max()) + 1

    def told(kinds, labels):
        dataset = folk.dataset.copy()
        dataset["workplace_kind"] = ("place", kinds, {"labels": labels})
        crowd = Population(dataset)
        model = SIR(crowd, [crowd.network("household"), crowd.network("workplace", nowhere=0)])
        return model, lpm.run(model, 15, set=INFECTED, sources={"borough": "borough"})["sources"]["infection"]

    kinds = np.arange(places) % 3
    model, known = told(kinds, ["unknown", "office", "shop"])
    _, unknown = told(kinds - 1, ["office", "shop"])
    for layer in ("household", "unknown", "office", "shop"):
        assert np.array_equal(known.sel(layer=layer).values, unknown.sel(layer=layer).values)
        assert float(known.sel(layer=layer).sum()) > 0
    assert list(lpm.attribute_layers(model, "infections", days=3)["layer"].values) == list(known["layer"].values)
    with pytest.raises(InputError, match="has the code 2, but 2 labels"):
        told(kinds, ["office", "shop"])


def test_every_layer_is_there_whoever_is_infected():
    told = lpm.run(pandemic(), 3, set=INFECTED, sources={"sex": "sex"}, interventions=[("schools", 0.0, 0)])
    layers = list(told["sources"]["infection"]["layer"].values)
    assert set(layers) >= {"household", "group quarters", "workplace", "school", "community"} and "none" not in layers
    assert float(told["sources"]["infection"].sel(layer="school").sum()) == 0


def test_names_that_results_have_are_no_strata():
    folk = lpm.nyc.population(1_000)
    with pytest.raises(InputError, match="substep 'stimulus' uses that name"):
        lpm.nyc.pandemic(folk, by={"quartile": "sex"})
    with pytest.raises(InputError, match="can't be called 'infections'"):
        lpm.run(lpm.nyc.seirm(folk, by={"infections": "sex"}), 3)
    with pytest.raises(InputError, match="the record has that name"):
        lpm.run(lpm.nyc.seirm(folk), 3, sources={"infection": "sex"})
    with pytest.raises(InputError, match="that is an outcome"):
        lpm.counterfactual(lpm.nyc.seirm(folk), {"transmission": 0.5}, at=1, days=3, by={"infected": "sex"})
    for odd in ("sex", ["sex"]):
        with pytest.raises(InputError, match="give variables by the name of their dimension"):
            lpm.nyc.sir(folk, by=odd)
        with pytest.raises(InputError, match="give variables by the name of their dimension"):
            lpm.run(lpm.nyc.sir(folk), 3, sources=odd)


def test_a_network_that_there_is_not_is_said():
    with pytest.warns(UserWarning, match="unknown network 'graf'"), Silenced("graf"):
        lpm.run(MODELS["sir_on_a_graph"](), 3)


def test_numbers_of_places_are_strata_however_large_they_are():
    folk = Population.of({"household": np.arange(60) // 3, "tract": 36_061_000_100 + 100 * (np.arange(60) // 30)})
    strata = folk.strata(tract="tract")
    assert strata.dims["tract"] == ["36061000100", "36061000200"] and strata.size.tolist() == [30, 30]
