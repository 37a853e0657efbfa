"""First mistakes: what models and populations are given is refused in words, by argument, value and remedy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from pyro import distributions as dist
from scipy import stats

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.models.adoption import folds, levels
from lpmppl.models.archetypes import Archetypes, Bins, Lookup
from lpmppl.models.firms import firms
from lpmppl.models.given import number, shown, whole
from lpmppl.models.isolation import Game, Isolation
from lpmppl.models.model import Parameter
from lpmppl.models.networks import Edges
from lpmppl.models.opinion import Opinion
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from lpmppl.models.supply_chain import SupplyChain
from lpmppl.models.town import small_world, town

NAN, INF = math.nan, math.inf
PEOPLE = Population.of({"household": np.arange(40) // 4, "kind": np.arange(40) % 3})
TOWN, TIES = town(100)
FIRMS = firms(1_000)
GAME = {"size": 1000, "prevalence": 0.05, "rate": 1.5, "loss": 300.0, "public": 200.0, "benefit": 5.0}


def refused(call, *words):
    """The refusal is one line of words, whatever was given."""
    with pytest.raises(InputError) as e:
        call()
    said = str(e.value)
    assert "\n" not in said and all(word in said for word in words), said


def changed(name, value):
    """Firms, the first of which has another value."""
    values = FIRMS.dataset[name].to_numpy().astype(float if isinstance(value, float) else np.int64)
    values[0] = value
    return Population(FIRMS.dataset.assign({name: (FIRMS.dataset[name].dims, values)}))


def seed_of(value):
    """Any whole number will do for a seed."""
    return 1.5 if isinstance(value, int) else value


ABSURD = [None, "x", NAN, INF, [], [1.0, 2.0], True, np.array([0.5, 0.2]), 10**400]


@pytest.mark.parametrize("value", ABSURD, ids=shown)
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda v: firms(1_000, port_share=v), "port_share"),
        (lambda v: firms(1_000, least=v), "least"),
        (lambda v: firms(1_000, more=v), "more"),
        (lambda v: firms(1_000, caution=v), "caution"),
        (lambda v: firms(v), "number"),
        (lambda v: firms(1_000, seed_of(v)), "seed"),
        (lambda v: town(v), "agents"),
        (lambda v: town(100, seed_of(v)), "seed"),
        (lambda v: small_world(v, 4), "agents"),
        (lambda v: small_world(100, v), "neighbours"),
        (lambda v: small_world(100, 4, v), "rewired"),
        (lambda v: small_world(100, 4, 0.1, v), "hubs"),
        (lambda v: small_world(100, 4, seed=seed_of(v)), "seed"),
        (lambda v: Isolation(PEOPLE, loss=v), "loss"),
        (lambda v: Isolation(PEOPLE, benefit=v), "benefit"),
        (lambda v: folds(v), "network_value"),
        (lambda v: levels(-3.2, v), "network_value"),
        (lambda v: levels(v, 7.0), "standalone"),
        *((lambda v, name=name: Game(**{**GAME, name: v}), name) for name in GAME),
        *((lambda v, name=name: getattr(Game(**GAME), name)(v), "p") for name in ("risk", "spread", "social_cost")),
        (lambda v: Game(**GAME).externality(v), "p"),
        (lambda v: Game(**GAME).equilibrium(v), "subsidy"),
        (lambda v: Game(**GAME).subsidy(v), "burden"),
        (lambda v: Parameter(dist.LogNormal(0.0, 1.0), v, "rate", "per day", "chosen"), "default of 'rate'"),
    ],
)
def test_what_is_no_number_is_refused(call, name, value):
    refused(lambda: call(value), name, "was given" if name != "neighbours" else "neighbours", "give")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: firms(1_000, caution=1e3), "caution=1000.0 was given; give a finite number, 0 to 3"),
        (lambda: firms(1_000, more=1e9), "more=1000000000.0 was given; give a finite number, 0 to 100"),
        (lambda: firms(1_000, least=1.0), "least=1 was given"),
        (lambda: firms(999), "number=999 was given"),
        (lambda: firms(1_000, -1), "seed=-1 was given"),
        (lambda: firms(1_000, 0, "US"), "industries='US' was given; give Industries"),
        (lambda: town(19), "agents=19 was given; give a whole number, 20 to"),
        (lambda: town(20.5), "agents=20.5"),
        (lambda: small_world(100, 5), "neighbours=5 can't be"),
        (lambda: small_world(100, 100), "neighbours=100 can't be"),
        (lambda: small_world(100, 4, 1.5), "rewired=1.5"),
        (lambda: folds(4.0), "two levels of adoption need one above 4"),
        (lambda: Game(**GAME).risk(1.5), "p=1.5 was given; give a finite number, 0 to 1"),
        (lambda: Game(**{**GAME, "prevalence": 1}), "give a share below 1"),
        (lambda: Game(**GAME, costs=stats.uniform(0.0, NAN)), "give a continuous law with its numbers"),
    ],
)
def test_numbers_that_cant_be_are_refused(call, words):
    refused(call, words)


def test_numbers_of_any_type_are_taken():
    assert firms(np.int64(1_000), np.int64(3), port_share=np.float32(0.5)).size == 1_000
    assert folds(torch.tensor(7.0)) == pytest.approx(folds(7.0))
    assert whole("n", np.int64(3), 0) == 3 and number("x", torch.tensor(2.0)) == 2.0


@pytest.mark.parametrize("standalone", [-300.0, -45.0, -3.2, 0.0, 40.0, 1e3])
@pytest.mark.parametrize("network", [-50.0, 0.0, 7.0, 90.0, 1e5])
def test_every_level_of_adoption_is_found(standalone, network):
    """At each y = σ(α + ν y), and one or three of them, however near to nobody or everybody."""
    found = levels(standalone, network)
    low, high = folds(network) if network > 4 else (0.0, 0.0)
    assert len(found) == (3 if low < standalone < high else 1)
    for y in found:
        # A share near 1 isn't told from 1, whose odds are then those of 0 beside it.
        odds = standalone + network * y
        assert y == pytest.approx(1 / (1 + math.exp(-odds)) if odds > -700 else 0.0, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize("people", [None, 3, "nyc", [], PEOPLE.dataset], ids=lambda x: type(x).__name__)
@pytest.mark.parametrize(
    "make",
    [
        lambda p: SIR(p, [PEOPLE.everyone()]),
        lambda p: Opinion(p, [TIES]),
        lambda p: Isolation(p),
        lambda p: SupplyChain(p),
        lambda p: lpm.nyc.seirm(p),
        lambda p: lpm.nyc.pandemic(p),
    ],
)
def test_what_are_no_people_is_refused(make, people):
    refused(lambda: make(people), f"a population is needed, but {type(people).__name__} was given; give")


@pytest.mark.parametrize("by", [3, "kind", {3: "kind"}, {None: "kind"}, {"": "kind"}, {"kind": None}, {"kind": ["a"]}])
@pytest.mark.parametrize(
    "make",
    [
        lambda by: SIR(PEOPLE, [PEOPLE.everyone()], by=by),
        lambda by: Opinion(TOWN, [TIES], by=by),
        lambda by: Isolation(PEOPLE, by=by),
        lambda by: SupplyChain(FIRMS, by=by),
    ],
)
def test_strata_that_name_nothing_are_refused(make, by):
    refused(lambda: make(by), "by=", "was given")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Opinion(TOWN, None), "networks=NoneType was given; give a list of them"),
        (lambda: Opinion(TOWN, TIES), "networks=Edges was given; give a list of them"),
        (lambda: Opinion(TOWN, ["household"]), "networks=str was given; give a list of them"),
        (lambda: Opinion(TOWN, [SIR]), "was given; give a list of them"),
        (lambda: Opinion(TOWN, []), "the networks are []; give one or more"),
        (lambda: Opinion(TOWN, [PEOPLE.everyone()]), "has 40 agents, but there are 100"),
        (lambda: SIR(PEOPLE, [TIES]), "has 100 agents, but there are 40"),
        (lambda: Opinion(TOWN, [TIES], attributes="price"), "the attributes of archetypes are 'price'; give Bins"),
        (lambda: Opinion(TOWN, [TIES], attributes={"p": "price"}), "attribute 'p' is 'price'; give Bins(…) or Lookup"),
        (lambda: Opinion(TOWN, [TIES], attributes={"p": Bins("price", [NAN], ["a", "b"])}), "an edge of attribute 'p'"),
        (lambda: Opinion(TOWN, [TIES], attributes={"p": Bins("price", 3, ["a"])}), "give a list of each"),
        (lambda: Opinion(TOWN, [TIES], attributes={"p": Lookup("price", 3)}), "give lists of labels by name"),
        (lambda: Opinion(TOWN, [TIES], attributes={"p": Lookup("price", {"a": 3})}), "gathers 3; give a list"),
        (lambda: Opinion(TOWN, [TIES], behaviour=3), "behaviour=3 was given; give coefficients"),
        (lambda: lpm.run(Opinion(TOWN, [TIES], behaviour={"adopt": 3}), 2), "int was given for coefficients"),
        (lambda: lpm.run(Opinion(TOWN, [TIES], behaviour={"adopt": {"adopt": 3}}), 2), "int was given for coeff"),
        (
            lambda: lpm.run(Opinion(TOWN, [TIES], behaviour={"adopt": {"adopt": {"intercept": "y"}}}), 2),
            "the coefficient of 'intercept' is y; give a finite number",
        ),
        (lambda: Opinion(TOWN, [TIES], zealots=["price"]), "zealots=['price'] was given; give the name"),
        (lambda: Isolation(PEOPLE, None), "among=None was given"),
        (lambda: Isolation(PEOPLE, costs=stats.norm), "give a continuous law with its numbers"),
        (lambda: Isolation(PEOPLE, costs=stats.norm(0.0, -1.0)), "give a continuous law with its numbers"),
        (lambda: Isolation(PEOPLE, archetypes=3), "archetypes=3 was given"),
        (lambda: Isolation(PEOPLE, archetypes=Archetypes(TOWN, {})), "give Archetypes of these people"),
        (lambda: Isolation(PEOPLE).game(prevalance=0.1), "did you mean 'prevalence'"),
        (lambda: SupplyChain(FIRMS, "US"), "industries='US' was given; give Industries"),
        (lambda: SupplyChain(FIRMS, port=["West"]), "port=['West'] was given; give the name of a region"),
        (lambda: SupplyChain(PEOPLE), "the firms lack 'sector'"),
        (lambda: SupplyChain(changed("sector", -1)), "'sector' of a firm is -1"),
        (lambda: SupplyChain(changed("sector", 1.5)), "'sector' of the firms is torch.float64"),
        (lambda: SupplyChain(changed("seller", 1.5)), "'seller' of the firms is torch.float64"),
        (lambda: SupplyChain(changed("usual", NAN)), "'usual' of a firm is nan; give finite numbers"),
        (lambda: SupplyChain(changed("usual", INF)), "'usual' of a firm is inf"),
        (lambda: SupplyChain(changed("final", -1.0)), "'final' of a firm is -1"),
        (lambda: SupplyChain(changed("plants", 0)), "'plants' of a firm is 0; give finite numbers, 1 or more"),
        (lambda: SupplyChain(changed("caution", NAN)), "'caution' of a firm is nan"),
        (
            lambda: SupplyChain(Population(FIRMS.dataset.assign(usual=(("agent", "x"), np.ones((1_000, 2)))))),
            "give a number over 'agent'",
        ),
        (lambda: Edges("ties", torch.tensor([0]), torch.tensor([0]), "x"), "agents='x' was given"),
        (lambda: PEOPLE.network("kind", nowhere="x"), "nowhere='x' is no group of 0 … 2"),
        (lambda: PEOPLE.network("kind", nowhere=True), "nowhere=True is no group"),
    ],
)
def test_models_name_what_they_cant_use(call, words):
    refused(call, words)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (None, "None was given; give values by name"),
        ([("a", [1, 2])], "give values by name"),
        ({}, "{} was given; give values by name"),
        ({3: [1, 2]}, "a variable can't be called 3"),
        ({"": [1, 2]}, "a variable can't be called ''"),
        ({"a": 3}, "variable 'a': 3 was given; give a number, code or Boolean for each agent"),
        ({"a": None}, "variable 'a': None was given"),
        ({"a": []}, "variable 'a': [] was given"),
        ({"a": ["x", "y"]}, "words are codes 0, 1 … with labels"),
        ({"a": [None, 1]}, "variable 'a': [None, 1] was given"),
        ({"a": [[1, 2], [3, 4]]}, "shape (N,)"),
        ({"a": [[1], [2, 3]]}, "all of one kind"),
        ({"a": [1 + 2j]}, "variable 'a'"),
        ({"a": {1, 2}}, "variable 'a': {1, 2} was given"),
        ({"a": [10**30, 1]}, "variable 'a'"),
        ({"a": [1, 2], "b": [1]}, "'a' has 2, 'b' has 1; give all of one length"),
        ({"agent": [0.5, 1.5]}, "agents' ids are float64; give whole numbers"),
        ({"agent": [1, 1]}, "ids must be distinct"),
    ],
)
def test_variables_that_are_none_are_refused(variables, words):
    refused(lambda: Population.of(variables), words)


def test_variables_may_carry_a_derivative():
    assert Population.of({"a": torch.tensor([1.0, 2.0], requires_grad=True)})["a"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Population(None), "NoneType was given for a population; give an xarray Dataset"),
        (lambda: Population(PEOPLE.dataset, None), "device=None is none that torch has here"),
        (lambda: Population(PEOPLE.dataset, "cuda:99"), "device='cuda:99' is none that torch has here"),
        (lambda: PEOPLE.to("x"), "device='x' is none"),
        (lambda: Population.open(3), "path=3 was given"),
        (lambda: PEOPLE.save(3), "path=3 was given"),
        (lambda: PEOPLE[[]], "[] was given for a variable"),
        (lambda: PEOPLE.network([]), "[] was given for a network"),
        (lambda: PEOPLE.strata(x=["kind"]), "strata x=['kind'] was given; give the name of a variable"),
        (lambda: PEOPLE.cohort(3), "a cohort of 3 was asked for"),
        (lambda: Population.of({"a": [NAN, 1.0]}).network("a"), "give the number of each agent's group"),
        (lambda: Population.of({"a": [NAN, 1.0]}).labels("a"), "aren't finite"),
        (lambda: Population.of({"home": [2**40, 0]}).network("home"), "number its groups 0, 1, 2 …"),
        (lambda: Population.of({"home": [2**62, 0]}).labels("home"), "numbers up to 4,611,686,018,427,387,904"),
        (
            lambda: Population.of({"home": np.array([2**64 - 1, 0], dtype=np.uint64)}).network("home"),
            "goes up to 18446744073709551615",
        ),
    ],
)
def test_people_name_what_they_cant_use(call, words):
    refused(call, words)


def test_labels_that_are_no_words_are_refused():
    people = Population(xr.Dataset({"k": ("agent", np.arange(3), {"labels": 3})}))
    refused(lambda: people.labels("k"), "the labels of variable 'k' are 3; give a list of words")


@pytest.mark.parametrize("codes", [[2**62, 0, 1], [-(2**62), 0, 1], [2**31 - 1, 0, 1], [10**9, 3, 3]])
@pytest.mark.parametrize("attrs", [{}, {"labels": ["a", "b"]}, {"labels": 3}])
def test_huge_codes_are_shown(codes, attrs):
    people = Population(xr.Dataset({n: ("agent", np.array(codes), attrs) for n in ("k", "household")}))
    assert "3 agents" in repr(people) and "household" in people._repr_html_()
    if codes == [10**9, 3, 3] and attrs.get("labels") == ["a", "b"]:
        assert "code 3 67" in people._repr_html_() and "code 1000000000 33" in people._repr_html_()


def test_variables_of_nothing_are_shown():
    data = {"k": ("agent", np.arange(3)), "e": (("agent", "z"), np.zeros((3, 0))), "g": ("group", np.zeros(0))}
    assert "3 agents" in Population(xr.Dataset({**data, "n": ("agent", [NAN] * 3)}))._repr_html_()


# Priors


class Children(SIR):
    """An SIR with a prior that was given."""

    def __init__(self, prior):
        super().__init__(PEOPLE, [PEOPLE.everyone()])
        self.parameters = {**self.parameters, "beta": Parameter(prior, 0.4, "contacts", "per day", "chosen")}


def test_torchs_own_distributions_are_priors_as_pyros_are():
    own, pyros = (Children(of.LogNormal(torch.tensor(-1.2), 0.3)) for of in (torch.distributions, dist))
    a, b = (lpm.run(model, 3, draws=4)["prior"]["beta"].values for model in (own, pyros))
    np.testing.assert_array_equal(a, b)
    assert float(own.sample_parameters()["beta"]) > 0


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (0.4, "the prior of 'contacts' is 0.4; give a distribution of Pyro's"),
        (None, "the prior of 'contacts' is None"),
        (dist.Normal(torch.zeros(3), 1.0), "shape (3,), but a parameter is one number"),
        (torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1), "is torch's Independent"),
    ],
)
def test_priors_that_are_none_are_refused(prior, words):
    refused(lambda: Children(prior), words)
