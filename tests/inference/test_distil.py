"""Networks that decide: what they distil, what they say of it, and a city that decides by them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.choices import Choices
from lpmppl.effects.handlers import (
    ChoiceNetwork,
    Decided,
    DiscreteTime,
    ExogenousNoise,
    LanguageModel,
    Neural,
    Record,
    Utility,
)
from lpmppl.effects.ops import decide, simulate
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.flipping import expanded
from lpmppl.models.behaving import Behaving
from lpmppl.models.model import Parameter
from lpmppl.models.varying import Varying
from tests.effects.language.sources import Exactly

LABELS = {"age": ("young", "old"), "savings": ("enough", "low", "none")}
TABLE = torch.tensor(list(itertools.product(range(2), range(3))))
OPTIONS = ("go", "stay")
RISKS = torch.linspace(0.0, 4.0, 30).reshape(30, 1)


def chosen(features: dict[str, float], risk: torch.Tensor = RISKS, **context: object) -> Choices:
    with Decided() as kept, Utility({"go": {"go": features}}):
        decide("go", TABLE, OPTIONS, {"attributes": LABELS, "risk": risk, **context})
    return kept["go"]


PLAIN = chosen({"intercept": 0.4, "risk": -0.7, "age=old": -1.1})
CROSSED = chosen({"intercept": 0.4, "risk": -0.7, "age=old × risk": 0.9, "age=old × savings=low": 2.0})


def test_a_network_without_layers_is_a_logit():
    assert lpm.distil(PLAIN, hidden=[]).held_out < 1e-6
    assert lpm.distil(CROSSED, hidden=[]).held_out > 1e-2


def test_layers_say_what_depends_on_what():
    found = lpm.distil(CROSSED, hidden=[16, 16])
    assert found.divergence < 1e-5
    assert found.held_out < 1e-3
    # Risks that were never observed, between those that were.
    between = chosen(
        {"intercept": 0.4, "risk": -0.7, "age=old × risk": 0.9, "age=old × savings=low": 2.0}, RISKS[1:4] - 0.07
    )
    assert between.divergence(found.network.chance(between.features)) < 1e-3


def test_the_same_seed_is_the_same_network_and_the_global_chance_is_left_alone():
    before = torch.random.get_rng_state()
    one, same, other = (lpm.distil(CROSSED, hidden=[4], steps=20, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.divergence == same.divergence != other.divergence


def test_rows_count_by_how_many_chose():
    many, few = (chosen({"intercept": b}, due=torch.tensor([w, 0, 0, 0, 0, 0])) for b, w in ((0.4, 1e6), (-2.0, 1.0)))
    both = replace(
        many,
        codes=torch.cat([many.codes, few.codes]),
        observed={"risk": torch.cat([many.observed["risk"], few.observed["risk"]])},
        chance=torch.cat([many.chance, few.chance]),
        weight=torch.cat([many.weight, few.weight]),
    )
    network = lpm.distil(both, hidden=[]).network
    assert float(network.chance(many.features)[0, 0]) == pytest.approx(1 / (1 + math.exp(-0.4)), abs=1e-3)


def test_what_never_varies_is_not_read():
    network = lpm.distil(chosen({"intercept": 0.4, "age=old": 1.0}, weeks=3.0), hidden=[4], steps=20).network
    here, there = ({"attributes": LABELS, "risk": 1.0, "weeks": w} for w in (3.0, 300.0))
    with Neural({"go": network}):
        assert torch.equal(decide("go", TABLE, OPTIONS, here), decide("go", TABLE, OPTIONS, there))


def test_a_network_is_kept_in_a_file(tmp_path):
    network = lpm.distil(CROSSED, hidden=[4], steps=20).network
    network.save(tmp_path / "go.pt")
    same = ChoiceNetwork.load(tmp_path / "go.pt")
    assert torch.equal(same.chance(CROSSED.features), network.chance(CROSSED.features))
    with pytest.raises(InputError, match=r"there is no network .*none.pt"):
        ChoiceNetwork.load(tmp_path / "none.pt")
    (tmp_path / "other.pt").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"other.pt can't be read as a network"):
        ChoiceNetwork.load(tmp_path / "other.pt")


def test_shifts_are_of_log_odds_and_differentiable():
    network = lpm.distil(PLAIN, hidden=[4], steps=20).network
    context = {"attributes": LABELS, "risk": 1.0}
    with Neural({"go": network}):
        plain = decide("go", TABLE, OPTIONS, context)
    shift = torch.tensor([[0.0], [1.5]], requires_grad=True)
    with Neural({"go": network}, {"go": {"go": shift}}):
        shifted = decide("go", TABLE, OPTIONS, context)
    assert shifted.shape == (2, 6, 2)
    assert torch.equal(shifted[0], plain)
    assert torch.allclose(shifted[1, :, 0].logit() - plain[:, 0].logit(), torch.tensor(1.5), atol=1e-5)
    (slope,) = torch.autograd.grad(shifted[0, :, 0].sum(), shift)
    assert slope[0].item() == pytest.approx(float((plain[:, 0] * plain[:, 1]).sum()), rel=1e-5)


def test_probabilities_can_be_differentiated_by_what_is_observed_and_by_the_weights():
    network = lpm.distil(PLAIN, hidden=[8]).network.requires_grad_(True)
    risk = torch.tensor([1.0], requires_grad=True)
    with Neural({"go": network}):
        chance = decide("go", TABLE, OPTIONS, {"attributes": LABELS, "risk": risk})[:, 0]
    chance.sum().backward()
    assert risk.grad.item() == pytest.approx(-0.7 * float((chance * (1 - chance)).detach().sum()), rel=0.05)
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


NETWORK = lpm.distil(PLAIN, hidden=[], steps=5).network


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Neural({"go": None}), "decision 'go': NoneType was given"),
        (lambda: Neural({"go": NETWORK}, {"leave": {}}), "unknown decision in the shift 'leave'"),
        (
            lambda: Neural({"go": NETWORK}, {"go": {"leave": 1.0}}),
            "unknown option of decision 'go' in the shift 'leave'",
        ),
        (lambda: Neural({"go": NETWORK}, {"go": {"go": math.inf}}), "the shift is inf"),
        (lambda: lpm.distil(PLAIN, hidden=[0]), r"hidden=\[0\]"),
        (lambda: lpm.distil(PLAIN, hidden=3), "hidden=3"),
        (lambda: lpm.distil(PLAIN, steps=0), "steps=0"),
        (lambda: lpm.distil(PLAIN, held_out=1.0), "held_out=1.0"),
        (lambda: lpm.distil(PLAIN.rows(torch.arange(9))), "choices of decision 'go' are of 9 different rows"),
    ],
)
def test_what_can_not_be_made_is_refused(made, words):
    with pytest.raises(InputError, match=words):
        made()


@pytest.mark.parametrize(
    ("options", "context", "words"),
    [
        (("go", "wait"), {}, "its network chooses among go, stay"),
        (OPTIONS, {"attributes": {**LABELS, "age": ("young", "aged")}}, "unknown age for the network.*'aged'"),
        (OPTIONS, {"attributes": {"age": LABELS["age"], "wealth": LABELS["savings"]}}, "savings"),
        (OPTIONS, {"risk": None}, "risk"),
    ],
)
def test_decisions_that_a_network_does_not_know_are_refused(options, context, words):
    given = {"attributes": LABELS, "risk": 1.0, **context}
    if given["risk"] is None:
        del given["risk"]
    with Neural({"go": NETWORK}), pytest.raises(InputError, match=words):
        decide("go", TABLE, options, given)
    with Neural({"go": NETWORK}), pytest.raises(InputError, match="unknown decision 'leave'"):
        decide("leave", TABLE, OPTIONS)


OUTBREAK = {"initial_infected": 0.1}


@pytest.fixture(scope="module")
def city():
    return lpm.nyc.pandemic(lpm.nyc.population(2_000))


@pytest.fixture(scope="module")
def taught(city):
    """What a language model decides in a run, and networks that learnt it."""

    def likes(prompt, options):
        """A language model that is swayed by age, illness and hardship."""
        score = 0.3 + 0.8 * ("65 and over" in prompt) + 1.2 * ("tested positive" in prompt)
        score -= 0.7 * ("under $2,000" in prompt) + 0.4 * ("hardly any" in prompt)
        return [1 / (1 + math.exp(-score)), 1 / (1 + math.exp(score))]

    with Decided() as kept, LanguageModel(Exactly(likes), city.prompts):
        tree = lpm.run(city, days=25, seed=0, set=OUTBREAK)
    found = {name: lpm.distil(kept[name], hidden=[16]) for name in kept.decisions}
    return tree, found


def test_a_city_that_decides_by_networks_is_one_that_asks(city, taught):
    tree, found = taught
    assert set(found) == set(city.prompts)
    # In nats; where a network chooses at random it would be 0.05 to 0.2.
    assert max(d.held_out for d in found.values()) < 5e-3
    with Neural({name: d.network for name, d in found.items()}):
        distilled = lpm.run(city, days=25, seed=0, set=OUTBREAK)
    with Utility({name: {} for name in city.prompts}):
        coins = lpm.run(city, days=25, seed=0, set=OUTBREAK)
    for tally in ("masked", "isolating"):
        asked, near, far = (t["prior_predictive"][tally].sum().item() for t in (tree, distilled, coins))
        assert abs(near - asked) < 0.1 * asked
        assert abs(near - asked) < 0.5 * abs(far - asked)


def test_a_behaviour_of_parameters_is_calibrated_and_differentiated(city, taught):
    networks = {name: d.network for name, d in taught[1].items()}
    cautious = Parameter(dist.Normal(0.0, 1.0), 0.0, "log-odds of isolating", "1", "chosen")

    def decides(theta):
        return Neural(networks, {"isolate": {"isolate": theta["caution"]}})

    model = Behaving(city, decides, {"caution": cautious})
    with Neural(networks):
        plain = lpm.run(city, days=15, seed=0, set=OUTBREAK)
    same, more = (lpm.run(model, days=15, seed=0, set={**OUTBREAK, "caution": c}) for c in (0.0, 3.0))
    for tally in plain["prior_predictive"]:
        assert plain["prior_predictive"][tally].equals(same["prior_predictive"][tally]), tally
    isolating = [t["prior_predictive"]["isolating"].isel(day=-1).sum().item() for t in (same, more)]
    assert isolating[1] > isolating[0]
    found = lpm.sensitivity(model, of="isolating", wrt=["caution"], days=15, draws=4, set=OUTBREAK, audit=False)
    assert float(found["value"].sel(parameter="caution")) > 2 * float(found["se"].sel(parameter="caution")) > 0


def test_parameters_of_a_behaviour_have_names_of_their_own(city):
    with pytest.raises(InputError, match="has a parameter 'isolation_days' already"):
        Behaving(city, lambda theta: Utility(city.behaviour), {"isolation_days": city.parameters["isolation_days"]})
    with pytest.raises(InputError, match="must give a handler that decides"):
        Behaving(city, lambda theta: Decided(), {})
    with pytest.raises(InputError, match="as a Parameter, by name"):
        Behaving(city, lambda theta: Utility(city.behaviour), {"caution": 0.5})


def test_rows_that_are_alike_are_not_judged_by_themselves():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(60, 1, generator=generator, dtype=torch.float64)
    plain = PLAIN.rows(torch.arange(60))
    pure = replace(plain, chance=torch.cat([noise, 1 - noise], -1))
    often = pure.rows(torch.arange(60).repeat(10))
    for choices in (pure, often):
        found = lpm.distil(choices, hidden=[32, 32])
        assert found.held_out > 5 * found.divergence


def test_labels_with_signs_and_choices_of_nothing():
    odd = replace(PLAIN, attributes={"age": ("a × b", "c=d"), "savings": LABELS["savings"]})
    assert lpm.distil(odd, hidden=[]).held_out < 1e-6
    bare = replace(PLAIN, attributes={}, codes=torch.zeros(180, 0, dtype=torch.int64), observed={})
    with pytest.raises(InputError, match="neither attributes nor observations"):
        ChoiceNetwork(bare)


def test_a_behaviour_of_parameters_stands_alone(city):
    will = Parameter(dist.Normal(0.0, 1.0), 0.0, "log-odds of masks", "1", "chosen")

    def decides(theta):
        mask = {**city.behaviour["mask"]["mask"], "intercept": theta["will"]}
        return Utility({**city.behaviour, "mask": {"mask": mask}})

    model = Behaving(city, decides, {"will": will})
    with pytest.raises(InputError, match="made of parameters already"):
        Behaving(Varying(model, knots=[7]), decides, {"other": will})
    with Utility(city.behaviour), pytest.raises(LpmError, match="a behaviour is in force around"):
        lpm.run(model, days=2)
    # Draws of the parameter are rows of one run, in whatever number: as each alone.
    values = torch.tensor([[-3.0], [0.0], [1.0], [2.0], [3.0]])
    for rows in (values, values[:3]):
        theta = {**model.defaults(), "will": rows}
        with ExogenousNoise(0), Record() as record, DiscreteTime():
            state = expanded(model.initial(theta), len(rows))
            simulate(model.day(theta), state, torch.tensor(0.0), torch.tensor(3.0))
        together = record.series["masked"].values[-1].sum(-1)
        alone = [lpm.run(model, days=3, set={"will": v})["prior_predictive"]["masked"] for v in rows[:, 0].tolist()]
        assert together.tolist() == [int(x.isel(day=-1).sum()) for x in alone]
