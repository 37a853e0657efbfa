"""Relaxations: what a mask with a derivative does under logic, and what each estimator is, and isn't, right for."""

from __future__ import annotations

from contextlib import ExitStack

import pyro
import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, GumbelSoftmax, MeanField, Record, StraightThrough
from lpmppl.effects.ops import aggregate, happens, simulate, tally
from lpmppl.effects.relaxed import Relaxed, opened
from lpmppl.errors import InputError
from lpmppl.models.networks import Groups
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from tests.laws.conftest import sir_in_households

PEOPLE = Population.of({"household": torch.arange(12).numpy() // 3})


def relaxed(answers, slope, **more):
    """Answers whose fractions have these derivatives with respect to a number that is 0."""
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    hard = torch.tensor(answers)
    return x, Relaxed.of(hard, hard.double() + torch.tensor(slope, dtype=torch.float64) * x, "event", **more)


def slope_of(value, x):
    """The derivative of each of several values."""
    return [float(torch.autograd.grad(v, x, retain_graph=True, allow_unused=True)[0] or 0.0) for v in opened(value)]


def test_logic_derives_as_fractions_do():
    x, a = relaxed([True, False, True, False], [1.0, 2.0, 3.0, 4.0])
    b = torch.tensor([True, True, False, False])
    assert (a & b).plain.tolist() == [True, False, False, False]
    assert slope_of(a & b, x) == slope_of(b & a, x) == [1.0, 2.0, 0.0, 0.0]
    assert slope_of(a | b, x) == [0.0, 0.0, 3.0, 4.0]
    assert slope_of(~a, x) == [-1.0, -2.0, -3.0, -4.0]
    assert (~a).plain.tolist() == [False, True, False, True]


def test_those_at_risk_without_those_it_happens_to_are_the_difference():
    """By independence someone who was infected would keep the derivative of having been susceptible for ever."""
    x, at_risk = relaxed([True, True, False], [1.0, 1.0, 1.0])
    hard = torch.tensor([True, False, False])
    event = Relaxed.of(hard, hard.double() + 0.25 * x, "event", part_of=at_risk)
    for rest in (at_risk & ~event, ~event & at_risk):
        assert rest.plain.tolist() == [False, True, False]
        assert slope_of(rest, x) == [0.75, 0.75, 0.75]
    other = Relaxed.of(hard, hard.double() + 0.25 * x, "event")
    assert slope_of(at_risk & ~other, x) == [-0.25, 0.75, 1.0]


def test_choices_and_products_carry_it():
    x, a = relaxed([True, False], [1.0, 2.0])
    weight = torch.tensor([0.5, 0.25])
    assert slope_of(a * weight, x) == [0.5, 0.5]
    assert slope_of(torch.where(a, weight, 1.0), x) == [-0.5, -1.5]
    assert torch.where(a, weight, 1.0).tolist() == [0.5, 1.0]
    assert torch.where(a, weight, torch.inf).tolist() == [0.5, torch.inf]
    assert slope_of(a.float(), x) == [1.0, 2.0]
    assert float(a.sum().detach()) == 1.0


@pytest.mark.parametrize(
    "look",
    [lambda a: a.any(), lambda a: a.nonzero(), lambda a: bool(a[0]), lambda a: a == a, lambda a: Cohort.of(a)],
    ids=["any", "nonzero", "bool", "eq", "cohort"],
)
def test_what_would_lose_the_derivative_is_refused_by_site(look):
    _, a = relaxed([True, False], [1.0, 2.0])
    with pytest.raises(InputError, match=r"site 'event'.*differences"):
        look(a)


@pytest.mark.parametrize("handler", [StraightThrough, GumbelSoftmax], ids=["straight-through", "gumbel-softmax"])
def test_the_run_is_the_run_without_it(handler):
    """Only the derivative is relaxed: what comes out is bit for bit what chance decides."""
    model = sir_in_households()

    def run(beta, *inside):
        theta = {**model.defaults(), "initial_infected": torch.tensor(0.1), "beta": beta}
        with ExitStack() as stack:
            for h in (DiscreteTime(), ExogenousNoise(1), *inside):
                stack.enter_context(h)
            return simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(15.0))

    plain, soft = run(torch.tensor(0.4)), run(torch.tensor(0.4, requires_grad=True), handler())
    assert 0 < int(plain["susceptible"].sum()) < 0.9 * model.population.size
    for key in ("susceptible", "infectious"):
        assert isinstance(soft[key], Relaxed)
        assert torch.equal(soft[key].plain, plain[key])
        assert torch.equal(soft[key].chance.detach(), plain[key].double())
    assert torch.equal(soft["exposure"], plain["exposure"])


def one_site(handler, hazard, at_risk=None):
    """How many of twelve meet a hazard in one step, with the handler."""
    at_risk = torch.ones(12, dtype=torch.bool) if at_risk is None else at_risk
    with DiscreteTime(), ExogenousNoise(3), handler, PEOPLE.plate():
        event, _ = happens("event", Exposure(torch.zeros(12, dtype=torch.float64), hazard, at_risk))
    return event


def test_straight_through_derives_an_event_as_its_probability():
    h = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    event = one_site(StraightThrough(), h)
    assert 0 < int(event.plain.sum()) < 12
    (slope,) = torch.autograd.grad(event.sum(), h)
    assert float(slope) == pytest.approx(12 * float(torch.exp(-h.detach())), rel=1e-6)


def test_gumbel_softmax_goes_from_nothing_to_half_the_logits_slope():
    """At a great temperature σ's slope is 1/4 everywhere, over τ; at a small one, zero but for who is on the edge."""
    h = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    slopes = {}
    for tau in (1e-3, 1.0, 1e3):
        (slopes[tau],) = torch.autograd.grad(one_site(GumbelSoftmax(tau), h).sum(), h)
    p = -torch.expm1(-h.detach())
    logit_slope = torch.exp(-h.detach()) / (p * (1 - p))
    assert float(slopes[1e3]) == pytest.approx(float(12 * logit_slope / 4 / 1e3), rel=1e-3)
    assert float(slopes[1e-3]) < 1e-2 * float(slopes[1.0])


def test_mean_field_is_the_expectation_in_one_step():
    h = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    event = one_site(MeanField(), h)
    assert float(event.sum().detach()) == pytest.approx(12 * 0.5034147, rel=1e-6)
    with MeanField(), DiscreteTime(), PEOPLE.plate():
        exposure = Exposure(torch.zeros(12, dtype=torch.float64), 1e-5, torch.ones(12, dtype=torch.bool))
        _, left = happens("event", exposure)
    assert float(left[0]) == pytest.approx(0.5, abs=1e-5)


def test_mean_field_agrees_with_many_agents_who_all_meet():
    """Among 20,000 who all meet, an epidemic is its mean-field equation to some percent."""
    people = Population.of({"household": torch.arange(20_000).numpy()})
    model = SIR(people, [people.everyone()])
    ask = {"days": 30, "set": {"beta": 0.3, "initial_infected": 0.1}, "audit": False}
    chance = lpm.sensitivity(model, "infections", ["beta", "gamma"], draws=6, **ask)
    for estimator, off in (("mean-field", 0.12), ("straight-through", 0.12)):
        found = lpm.sensitivity(model, "infections", ["beta", "gamma"], draws=2, estimator=estimator, **ask)
        assert set(found["estimator"].values) == {estimator}
        for name in ("beta", "gamma"):
            one, other = found["value"].sel(parameter=name), chance["value"].sel(parameter=name)
            error = float(chance["se"].sel(parameter=name) + found["se"].sel(parameter=name))
            assert abs(float(one - other)) < off * abs(float(other)) + 3 * error


def test_straight_through_is_far_off_in_households():
    """Where groups are small its bias is no matter of chance: it's labelled biased, and this is how much."""
    people = Population.of({"household": torch.arange(6_000).numpy() // 3})
    model = SIR(people, [people.network("household"), people.everyone()])
    ask = {"days": 50, "set": {"beta": 0.15, "initial_infected": 0.02}, "audit": False}
    right = lpm.sensitivity(model, "infections", "beta", draws=6, **ask).isel(parameter=0)
    wrong = lpm.sensitivity(model, "infections", "beta", draws=3, estimator="straight-through", **ask).isel(parameter=0)
    assert float(wrong["value"] / right["value"]) > 1.5
    assert float(wrong["value"] - right["value"]) > 3 * float(wrong["se"] + right["se"])


def test_forward_and_reverse_mode_agree():
    model = sir_in_households()
    for estimator in ("straight-through", "gumbel-softmax", "mean-field"):
        slopes = []
        for reverse in (False, True):
            simulator = lpm.Simulator(
                model, "infections", 15, estimator=estimator, reverse=reverse, set={"initial_infected": 0.05}
            )
            beta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
            simulator({"beta": beta}).sum().backward()
            slopes.append(float(beta.grad))
        assert slopes[0] == pytest.approx(slopes[1], rel=1e-6)
        assert slopes[0] > 0


def test_a_categorical_that_depends_on_a_parameter_is_refused_by_name():
    weight = torch.tensor([0.2, 0.3, 0.5], requires_grad=True)
    for handler in (StraightThrough(), MeanField()):
        with (
            pytest.raises(InputError, match=r"site 'outcome': .* has no derivative for Categorical"),
            DiscreteTime(),
            ExogenousNoise(1),
            handler,
            PEOPLE.plate(),
        ):
            pyro.sample("outcome", dist.Categorical(weight))
        with DiscreteTime(), ExogenousNoise(1), handler, PEOPLE.plate():
            assert pyro.sample("outcome", dist.Categorical(weight.detach())).shape == (12,)


def test_the_models_that_gather_cohorts_are_refused_by_name():
    model = lpm.nyc.seirm(lpm.nyc.population(1_000))
    with pytest.raises(InputError, match="gathered into a cohort"):
        lpm.sensitivity(model, "infections", "beta", 5, estimator="straight-through", set={"initial_infected": 0.1})


def test_fractions_in_coarse_units_are_refused():
    whole = Groups("counted", torch.zeros(12, dtype=torch.int64), 1, quantum=1.0)
    with pytest.raises(InputError, match=r"network 'counted' .* too coarse"), DiscreteTime(), MeanField():
        aggregate(torch.ones(12) * 0.5, whole)


def test_a_tally_of_fractions_is_their_sum():
    with DiscreteTime(), MeanField(), Record() as record:
        with PEOPLE.plate():
            event = pyro.sample("event", dist.Bernoulli(torch.tensor(0.25))).bool()
        tally("events", event)
    assert float(record.series["events"].values[0, 0]) == pytest.approx(3.0, abs=1e-3)


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_none_is_refused(tau):
    with pytest.raises(InputError, match=r"tau=.* above 0"):
        GumbelSoftmax(tau)


@pytest.mark.parametrize(
    "change",
    [
        lambda a, p: p.logical_or_(a),
        lambda a, p: a.logical_not_(),
        lambda a, p: a.mul_(torch.ones(2)),
        lambda a, p: torch.logical_and(a, p, out=p),
        lambda a, p: torch.ones(2)[a],
        lambda a, p: torch.stack([a, p]),
        lambda a, p: a.to(torch.int64),
    ],
    ids=["or_", "not_", "mul_", "out", "index", "stack", "whole numbers"],
)
def test_changes_in_place_and_other_shapes_are_refused_by_site(change):
    _, a = relaxed([True, False], [1.0, 2.0])
    with pytest.raises(InputError, match="site 'event'"):
        change(a, torch.tensor([True, True]))


def test_choices_between_masks_are_masks():
    x, a = relaxed([True, False, True, False], [1.0, 2.0, 3.0, 4.0])
    p = torch.tensor([True, True, False, False])
    for found in (torch.where(a, p, ~p), p.where(a, ~p)):
        assert isinstance(found, Relaxed)
        assert found.plain.tolist() == [True, False, False, True]
        assert slope_of(found, x) == [1.0, 2.0, -3.0, -4.0]
    assert slope_of(torch.where(a, True, False), x) == slope_of(a, x)
    assert torch.where(p, a, False).plain.tolist() == [True, False, False, False]


class Written(SIR):
    """SIR as others write it: a code for each stage, or an event that ends a parameter's way by a comparison."""

    def __init__(self, how):
        people = Population.of({"household": torch.arange(600).numpy() // 4})
        super().__init__(people, [people.network("household"), people.everyone()])
        self.how = how

    def day(self, theta):
        if self.how == "rounded":
            return super().day({**theta, "gamma": (theta["gamma"] * 16).floor() / 16})
        closes = dist.Bernoulli((theta["gamma"] * 0.1).reshape(1))
        day = super().day(theta)

        def step(s):
            if self.how == "environment":
                pyro.sample("closing", closes)
            s = day(s)
            if self.how == "codes":
                code = torch.where(s["infectious"], 1, torch.where(s["susceptible"], 0, 2))
                s = {**s, "infectious": code == 1}
            return s

        return step


@pytest.mark.parametrize("estimator", ["straight-through", "mean-field"])
@pytest.mark.parametrize("how", ["codes", "rounded", "environment"])
def test_a_derivative_that_would_be_lost_on_the_way_is_refused(how, estimator):
    """A code that is compared, a rounding, a chance of the environment: none has a derivative by fractions."""
    model, at = Written(how), {"initial_infected": 0.1}
    said = "site 'closing'" if how == "environment" else r"parameter (beta|gamma) enters a decision at .*\.py:\d+"
    with pytest.raises(InputError, match=said):
        lpm.sensitivity(model, "infections", ["beta", "gamma"], 6, draws=2, estimator=estimator, set=at, audit=False)
    simulator = lpm.Simulator(model, "infections", 6, estimator=estimator, set=at)
    free = {n: torch.tensor(0.3, requires_grad=True) for n in ("beta", "gamma")}
    with pytest.raises(InputError, match=said):
        simulator(free)


@pytest.mark.parametrize("make", [torch.as_tensor, torch.asarray])
def test_conversions_keep_the_derivative_as_to_does(make):
    x, a = relaxed([True, False], [1.0, 2.0])
    with StraightThrough():
        for found in (
            make(a, dtype=torch.float32),
            make(a, dtype=torch.float64, device="cpu"),
            torch.as_tensor(a).float(),
        ):
            assert slope_of(found, x) == [1.0, 2.0]
            assert found.tolist() == [1.0, 0.0]
        assert isinstance(make(a, dtype=torch.bool), Relaxed)
        for lost in (lambda: torch.tensor(a), lambda: torch.ones(2).new_tensor(a), lambda: make(a, dtype=torch.int64)):
            with pytest.raises(InputError, match="site 'event'"):
                lost()
    assert make([1.0, 2.0]).tolist() == [1.0, 2.0]


class Converted(SIR):
    """SIR that counts the infectious by two conversions."""

    def day(self, theta):
        day = super().day(theta)

        def step(s):
            s = day(s)
            tally("by_to", s["infectious"].to(torch.float32), quantum=2.0**-16)
            tally("by_as_tensor", torch.as_tensor(s["infectious"], dtype=torch.float32), quantum=2.0**-16)
            return s

        return step


def test_a_model_that_converts_masks_has_the_derivative_of_one_that_does_not():
    people = Population.of({"household": torch.arange(600).numpy() // 4})
    model = Converted(people, [people.network("household"), people.everyone()])
    model.tallies = {**model.tallies, "by_to": "infectious", "by_as_tensor": "infectious"}
    ask = {"days": 6, "draws": 2, "estimator": "straight-through", "audit": False, "set": {"initial_infected": 0.1}}
    by_to, by_as_tensor = (lpm.sensitivity(model, n, "beta", **ask)["value"] for n in ("by_to", "by_as_tensor"))
    assert float(by_to.sum()) > 0
    assert by_as_tensor.equals(by_to)


def test_a_hazard_without_bound_has_a_derivative_by_mean_field():
    h = torch.tensor(1e4, dtype=torch.float64, requires_grad=True)
    with MeanField(), DiscreteTime(), PEOPLE.plate():
        exposure = Exposure(torch.zeros(12, dtype=torch.float64), h, torch.ones(12, dtype=torch.bool))
        event, left = happens("event", exposure)
    (slope,) = torch.autograd.grad(event.sum() + left.sum(), h)
    assert float(slope) == pytest.approx(12e-8, rel=1e-3)


def test_episodes_that_begin_by_fractions_are_refused_by_the_site():
    people = Population.of({"plant": range(50)})
    rate = torch.tensor(0.5, requires_grad=True)

    def day(s):
        failing = Exposure(s["wear"], rate, torch.ones(50, dtype=torch.bool), s["episode"], s["dt"])
        with people.plate():
            failed, _ = happens("failure", failing)
        return {
            "wear": torch.where(failed, 0.0, failing.after),
            "episode": torch.where(failed, s["episode"] + 1, s["episode"]),
        }

    state = {"wear": torch.zeros(50, dtype=torch.float64), "episode": torch.zeros(50, dtype=torch.int32)}
    with (
        pytest.raises(InputError, match="site 'failure': its episodes carry a derivative"),
        DiscreteTime(),
        ExogenousNoise(0),
        StraightThrough(),
    ):
        simulate(day, state, torch.tensor(0.0), torch.tensor(5.0))
