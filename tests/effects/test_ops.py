"""The ops: their default meanings, and what they refuse by name."""

from __future__ import annotations

import math

import pytest
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention
from chirho.dynamical.ops import simulate

from lpmppl.effects.cohorts import Cohort, dense
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.handlers import (
    DiscreteTime,
    ExogenousNoise,
    Record,
    Tabulated,
    Verified,
    bounded,
    conserved,
    never_falls,
)
from lpmppl.effects.ops import aggregate, decide, evolve, happens, running, substep, tally
from lpmppl.errors import InputError, LpmError
from lpmppl.models.networks import Edges, Groups
from lpmppl.models.population import Population


def three() -> Groups:
    return Groups("three", torch.tensor([0, 0, 1, 2, 2, 2]), 3)


class TestAggregate:
    def test_reductions(self):
        message = torch.tensor([1.0, 0.5, 0.0, 0.25, 0.0, 0.5])
        read = lambda reduce: aggregate(message, three(), reduce=reduce).dense().tolist()  # noqa: E731
        assert read("sum") == [1.5, 1.5, 0.0, 0.75, 0.75, 0.75]
        assert read("mean") == [0.75, 0.75, 0.0, 0.25, 0.25, 0.25]
        assert read("max") == [1.0, 1.0, 0.0, 0.5, 0.5, 0.5]
        assert read("any") == [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]

    def test_a_field_reads_as_a_tensor(self):
        field = aggregate(torch.ones(6), three(), reduce="sum") * torch.tensor([2.0])
        assert torch.exp(field).shape == (6,)
        assert (1.0 + field).tolist() == [5.0, 5.0, 3.0, 7.0, 7.0, 7.0]
        assert torch.where(field > 4, field, 0.0).tolist() == [0.0, 0.0, 0.0, 6.0, 6.0, 6.0]
        assert (field + field - field).dense().tolist() == field.dense().tolist()
        assert (field * field / 2).dense().tolist() == [8.0, 8.0, 2.0, 18.0, 18.0, 18.0]

    def test_refusals_name_the_network(self):
        with pytest.raises(InputError, match="'three' has 6 agents"):
            aggregate(torch.ones(5), three())
        with pytest.raises(InputError, match="'three': a value of 2"):
            aggregate(torch.full((6,), 2.0), three())
        with pytest.raises(InputError, match="'three': a value of nan"):
            aggregate(torch.full((6,), math.nan), three())
        with pytest.raises(InputError, match="did you mean 'mean'"):
            aggregate(torch.ones(6), three(), reduce="means")
        with pytest.raises(InputError, match="overflow 64 bits"):
            aggregate(torch.ones(6), Groups("three", torch.zeros(6, dtype=torch.int32), 1, quantum=1e-18, bound=10.0))
        with pytest.raises(InputError, match="'three': reduce='max' carries no derivative"):
            aggregate(torch.ones(6, requires_grad=True), three(), reduce="max")

    def test_forty_cheques_of_1200_dollars_do_not_wrap(self):
        group = Groups("household", torch.zeros(40, dtype=torch.int32), 1, bound=1200.0)
        assert aggregate(torch.full((40,), 1200.0), group, reduce="sum").dense()[0].item() == 48_000

    def test_the_derivative_is_that_of_the_sum(self):
        message = torch.tensor([0.5, 0.25, 0.0, 0.25, 0.5, 1.0], requires_grad=True)
        weights = torch.arange(6.0)
        (aggregate(message, three()).dense() * weights).sum().backward()
        member = torch.nn.functional.one_hot(three().index.long(), 3).float()
        mean = member @ (member / member.sum(0)).T
        torch.testing.assert_close(message.grad, mean.T @ weights)
        _, tangent = torch.func.jvp(lambda m: aggregate(m, three()).dense(), (message.detach(),), (weights,))
        torch.testing.assert_close(tangent, mean @ weights)

    def test_a_running_total_carries_the_derivative_of_its_changes(self):
        message = torch.tensor([0.5, 0.25, 0.0, 0.25, 0.5, 1.0], requires_grad=True)
        start = aggregate(torch.ones(6), three()).total
        first = aggregate(message, three(), onto=start).total
        second = aggregate(Cohort.of(torch.tensor([True] + [False] * 5)).carrying(message[:1]), three(), onto=first)
        plain = aggregate(message.detach(), three(), onto=start).total
        assert torch.equal(first.detach().round().to(plain.dtype), plain)
        (running(second.total, three()).dense().sum()).backward()
        # Every member of a group reads its mean, so that a message counts once, and the first agent's twice.
        torch.testing.assert_close(message.grad, torch.tensor([2.0, 1.0, 1.0, 1.0, 1.0, 1.0]))

    @pytest.mark.parametrize(
        "bad", [torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0]), torch.tensor([[0, 1]])]
    )
    def test_a_membership_that_is_none_is_refused(self, bad):
        with pytest.raises(InputError, match="network 'bad'"):
            Groups("bad", bad, 3)

    def test_an_edge_list_that_is_none_is_refused(self):
        with pytest.raises(InputError, match="network 'bad'"):
            Edges("bad", torch.tensor([0, 1]), torch.tensor([5, 1]), 3)
        with pytest.raises(InputError, match="2 sources but 1 targets"):
            Edges("bad", torch.tensor([0, 1]), torch.tensor([1]), 3)


class TestExposure:
    def test_log_prob_sums_to_one_and_is_impossible_off_risk(self):
        e = Exposure(torch.zeros(3), torch.tensor([0.5, 0.0, 0.5]), torch.tensor([True, True, False]))
        yes, no = e.log_prob(torch.ones(3, dtype=torch.bool)), e.log_prob(torch.zeros(3, dtype=torch.bool))
        torch.testing.assert_close(yes.exp() + no.exp(), torch.ones(3))
        assert yes.tolist()[1:] == [-math.inf, -math.inf]
        assert yes[0].exp().item() == pytest.approx(1 - math.exp(-0.5))

    def test_hazard_accrues_only_while_at_risk(self):
        e = Exposure(torch.ones(2), 0.5, torch.tensor([True, False]), dt=0.5)
        assert e.after.tolist() == [1.25, 1.0]

    def test_small_days_are_not_lost(self):
        before = torch.ones(1, dtype=torch.float64)
        for _ in range(100):
            before = Exposure(before, torch.full((1,), 2e-8), torch.ones(1, dtype=torch.bool)).after
        assert before.item() == pytest.approx(1 + 2e-6, rel=1e-9)

    def test_left_is_a_density(self):
        e = Exposure(torch.zeros(1), torch.tensor([1.7]), torch.ones(1, dtype=torch.bool))
        left = Left(e, torch.ones(1, dtype=torch.bool))
        x = torch.linspace(0, 1, 20001)
        assert torch.trapezoid(torch.cat([left.log_prob(v) for v in x]).exp(), x).item() == pytest.approx(1, abs=1e-6)

    def test_bad_shapes_and_risks_are_refused(self):
        with pytest.raises(InputError, match="broadcast"):
            Exposure(torch.zeros(3), torch.zeros(4), torch.ones(3, dtype=torch.bool))
        with pytest.raises(InputError, match="must be Boolean"):
            Exposure(torch.zeros(3), 0.1, torch.ones(3))

    def test_a_hazard_site_needs_the_agents_plate(self):
        with ExogenousNoise(0), pytest.raises(InputError, match="outside the agents' plate"):
            happens("x", Exposure(torch.zeros(3), 0.1, torch.ones(3, dtype=torch.bool)))


class TestTally:
    strata = Groups("sex", torch.tensor([0, 1, 1, 0, 1]), 2, dims={"sex": ["f", "m"]})

    def test_counts_by_stratum_and_over_all(self):
        value = torch.tensor([True, True, False, False, True])
        assert tally("x", value, self.strata).tolist() == [1, 2]
        assert tally("x", value).tolist() == [3]
        assert tally("x", Cohort.of(value), self.strata).tolist() == [1, 2]
        assert tally("x", value.float() / 2, self.strata).tolist() == [2**15, 2**16]

    def test_a_stock_goes_on_from_its_total(self):
        value = torch.tensor([True, False, True, False, False])
        assert tally("x", Cohort.of(value).carrying(-1), self.strata, onto=torch.tensor([5, 5])).tolist() == [4, 4]

    def test_worlds_are_counted_apart(self):
        value = torch.tensor([[True, True, False, False, True], [False, False, False, True, False]]).unsqueeze(-2)
        assert tally("x", value, self.strata).tolist() == [[[1, 2]], [[1, 0]]]

    def test_refusals_name_the_tally(self):
        with pytest.raises(InputError, match="tally 'x'"):
            tally("x", torch.ones(4), self.strata)
        with pytest.raises(InputError, match="'x': a value of 3"):
            tally("x", torch.full((5,), 3.0), self.strata)


class TestEvolve:
    ode = staticmethod(lambda s: {"v": -2.3059 * s["v"]})

    def test_an_ode_within_a_day_is_walled_off(self):
        # Without the wall the society's solver overwrites the ODE's, and the ODE consumes the society's interventions.
        def day(s):
            inner = evolve("virus", self.ode, {"v": torch.ones(2)}, torch.tensor([0.0, 0.5, 1.0]))
            return {**s, "x": s["x"] + s["rate"], "v": inner["v"][..., -1]}

        start = {"x": torch.zeros(1), "rate": torch.ones(1), "v": torch.zeros(2)}
        with DiscreteTime(), StaticIntervention(torch.tensor(3.0), {"rate": torch.tensor([0.0])}):
            end = simulate(day, start, torch.tensor(0.0), torch.tensor(5.0))
        assert end["v"].tolist() == pytest.approx([math.exp(-2.3059)] * 2, abs=1e-5)
        assert end["x"].item() == 3

    def test_a_treatment_is_an_intervention_inside(self):
        cure = StaticIntervention(torch.tensor(0.5), {"v": torch.zeros(1)})
        path = evolve("virus", self.ode, {"v": torch.ones(1)}, torch.tensor([0.0, 0.25, 1.0]), interruptions=[cure])
        assert path["v"].shape == (1, 3)
        assert path["v"][0].tolist() == pytest.approx([1.0, math.exp(-2.3059 / 4), 0.0], abs=1e-5)

    def test_times_must_increase(self):
        with pytest.raises(InputError, match="evolve 'virus'"):
            evolve("virus", self.ode, {"v": torch.ones(1)}, torch.tensor([0.0, 0.0]))


class TestDecide:
    archetypes = torch.arange(2)

    def test_without_behaviour_it_says_what_to_do(self):
        with pytest.raises(LpmError, match="decision 'isolate' among stay, go: no behaviour is in force"):
            decide("isolate", self.archetypes, ["stay", "go"])

    def test_a_table_gives_the_probabilities(self):
        table = torch.tensor([[0.2, 0.8], [0.5, 0.5]])
        with Tabulated({"isolate": table}):
            assert torch.equal(decide("isolate", self.archetypes, ["stay", "go"]), table)
            with pytest.raises(InputError, match="did you mean 'isolate'"):
                decide("isolat", self.archetypes, ["stay", "go"])
            with pytest.raises(InputError, match="3 options"):
                decide("isolate", self.archetypes, ["stay", "go", "mask"])
        with pytest.raises(InputError, match="add up to 1"):
            Tabulated({"isolate": torch.tensor([0.2, 0.2])})


class TestVerified:
    state = {"x": torch.ones(1), "y": torch.ones(1)}

    def test_what_is_not_declared_is_found(self):
        with Verified(), pytest.raises(LpmError, match="substep 's' read y"):
            substep("s", lambda s: {"x": s["y"]}, self.state, reads=["x"], writes=["x"])
        with Verified(), pytest.raises(LpmError, match="substep 's' wrote y"):
            substep("s", lambda s: {"y": s["x"]}, self.state, reads=["x"], writes=["x"])

    @pytest.mark.parametrize(
        ("invariant", "change"),
        [
            (conserved("money", lambda s: s["x"] + s["y"]), 2.0),
            (bounded("x", 0, 1), 2.0),
            (bounded("x", 0, 1), math.nan),
            (never_falls("x"), 0.5),
        ],
    )
    def test_a_broken_invariant_is_named(self, invariant, change):
        with Verified(invariant), pytest.raises(LpmError, match=r"substep 's'.*no longer"):
            substep("s", lambda s: {"x": torch.full((1,), change)}, self.state)
        with Verified(invariant):
            assert substep("s", lambda s: {"x": s["x"] * 1}, self.state)["x"].item() == 1


class TestNoise:
    people = Population.of({"household": [0, 0, 1, 1]})

    def test_a_site_without_an_inverse_cdf_is_refused_by_name(self):
        import pyro
        import pyro.distributions as dist

        with (
            ExogenousNoise(0),
            self.people.plate(),
            pytest.raises(InputError, match="site 'g': Gamma has no inverse CDF"),
        ):
            pyro.sample("g", dist.Gamma(2.0, 1.0))

    def test_chance_of_an_episode_is_the_same_on_any_day(self):
        import pyro
        import pyro.distributions as dist

        def day(s):
            with self.people.plate(episode=0):
                trait = pyro.sample("trait", dist.Normal(0.0, 1.0))
            with self.people.plate():
                mood = pyro.sample("mood", dist.Normal(0.0, 1.0))
            return {**s, "trait": trait, "mood": mood}

        with DiscreteTime(), ExogenousNoise(0):
            start = {"trait": torch.zeros(4), "mood": torch.zeros(4)}
            one = simulate(day, start, torch.tensor(0.0), torch.tensor(1.0))
            two = simulate(day, one, torch.tensor(1.0), torch.tensor(2.0))
        assert torch.equal(one["trait"], two["trait"])
        assert not torch.equal(one["mood"], two["mood"])

    def test_draws_on_their_dimension_are_the_draws_one_by_one(self):
        hazard = torch.tensor([0.7])

        def day(s):
            with self.people.plate():
                event, left = happens("hit", Exposure(s["h"], hazard, s["risk"]))
            return {
                "h": Exposure(s["h"], hazard, s["risk"]).after,
                "risk": s["risk"] & ~event,
                "left": s["left"] + dense(left),
            }

        def go(draw):
            start = {"h": torch.zeros(4), "risk": torch.ones(4, dtype=torch.bool), "left": torch.zeros(4)}
            with DiscreteTime(), ExogenousNoise(5, draw):
                return simulate(day, start, torch.tensor(0.0), torch.tensor(3.0))

        together = go(torch.tensor([[0], [1], [2]]))
        for d in range(3):
            torch.testing.assert_close(together["left"][d], go(d)["left"], rtol=0, atol=0)
        assert len({tuple(row) for row in together["left"].tolist()}) == 3


def test_record_keeps_worlds_that_part_later_with_the_days_before():
    with Record() as record, DiscreteTime():

        def day(s):
            value = torch.ones(4, dtype=torch.bool) if float(s["t"]) < 1 else torch.ones(2, 1, 4, dtype=torch.bool)
            tally("n", value)
            return s

        simulate(day, {"x": torch.zeros(1)}, torch.tensor(0.0), torch.tensor(2.0))
    assert record.series["n"].values.shape == (2, 2, 1, 1)
    assert record.series["n"].days == [0.0, 1.0]


class TestLazy:
    def test_a_field_and_a_sparse_value_compare_and_compute_as_tensors(self):
        field = aggregate(torch.ones(6), three(), reduce="sum")
        few = Cohort.of(torch.tensor([True, False, True])).carrying(torch.tensor([0.5, 2.0]))
        assert (field == 2).tolist() == [True, True, False, False, False, False]
        assert (field != 2).sum().item() == 4
        assert (few == 0.5).tolist() == [True, False, False]
        assert (1 - few).tolist() == [0.5, 1.0, -1.0]
        assert (-few * 2).tolist() == [-1.0, 0.0, -4.0]
        assert (1 / field)[0].item() == 0.5
        assert (field**2).max().item() == 9
        assert few.sum().item() == 2.5
        assert field.clamp(max=1).tolist() == [1.0] * 6
        with pytest.raises(RuntimeError, match="ambiguous"):
            bool(field)
        with pytest.raises(AttributeError, match="nor a tensor"):
            _ = field.nonsense


class TestMisuse:
    people = Population.of({"household": [0, 0, 1, 1]})

    def days(self, day, *handlers, n=2):
        from contextlib import ExitStack

        with DiscreteTime(), ExitStack() as stack:
            for handler in handlers:
                stack.enter_context(handler)
            return simulate(day, {"x": torch.zeros(1)}, torch.tensor(0.0), torch.tensor(float(n)))

    def test_a_site_twice_in_a_step_is_refused(self):
        import pyro
        import pyro.distributions as dist

        def day(s):
            with self.people.plate():
                pyro.sample("a", dist.Normal(0.0, 1.0))
                pyro.sample("a", dist.Normal(0.0, 1.0))
            return s

        with pytest.raises(LpmError, match="'a' comes twice in one step"):
            self.days(day, ExogenousNoise(0))

    def test_chance_of_the_environment_is_keyed_too(self):
        import pyro
        import pyro.distributions as dist

        def day(s):
            noise = pyro.sample("weather", dist.Normal(0.0, 1.0))
            with pyro.plate("stations", 3):
                more = pyro.sample("rain", dist.Normal(0.0, 1.0))
            return {**s, "x": s["x"] + noise + more.sum()}

        before = torch.get_rng_state()
        one, two, other = (self.days(day, ExogenousNoise(k))["x"].item() for k in (0, 0, 1))
        assert torch.equal(before, torch.get_rng_state())
        assert one == two != other

    def test_an_intervention_on_an_unknown_key_is_refused(self):
        act = StaticIntervention(torch.tensor(0.0), {"y": torch.zeros(1)})
        with pytest.raises(InputError, match="unknown part of the state 'y'"):
            self.days(lambda s: s, act)

    def test_a_hazard_that_cannot_be_is_refused_by_its_site(self):
        risk = torch.ones(4, dtype=torch.bool)
        for bad in (-0.1, math.nan, math.inf):
            with self.people.plate(), pytest.raises(InputError, match="site 'hit': a hazard of"):
                happens("hit", Exposure(torch.zeros(4), bad, risk))
            field = aggregate(risk, self.people.network("household")) * torch.tensor([bad])
            with self.people.plate(), pytest.raises(InputError, match="site 'hit': a hazard of"):
                happens("hit", Exposure(torch.zeros(4), field, risk))

    def test_a_tally_keeps_its_unit_and_its_name(self):
        def day(s):
            tally("n", torch.ones(4, dtype=torch.bool) if float(s["t"]) < 1 else torch.ones(4))
            return s

        with pytest.raises(LpmError, match="tally 'n' counts in units"):
            self.days(day, Record())
        with pytest.raises(InputError, match="slash"):
            tally("a/b", torch.ones(4))

    @pytest.mark.parametrize("dim", [-1, -2])
    def test_worlds_stay_clear_of_agents_and_draws(self, dim):
        from chirho.counterfactual.handlers import MultiWorldCounterfactual

        with pytest.raises(LpmError, match="first_available_dim=-3"):
            self.days(lambda s: s, MultiWorldCounterfactual(first_available_dim=dim))


def test_what_is_forced_inside_an_ode_parts_no_worlds_of_the_society():
    from chirho.counterfactual.handlers import MultiWorldCounterfactual
    from chirho.indexed.ops import get_index_plates

    times = torch.tensor([0.0, 1.0, 2.0])
    dose = StaticIntervention(torch.tensor(1.0), {"x": torch.tensor([5.0])})
    seen = []

    def day(s):
        path = evolve("body", lambda x: {"x": -x["x"]}, {"x": torch.tensor([1.0])}, times, interruptions=[dose])
        seen.append(path["x"].shape)
        return {**s, "total": s["total"] + path["x"][..., -1]}

    with MultiWorldCounterfactual(first_available_dim=-3), DiscreteTime():
        end = simulate(day, {"total": torch.zeros(1)}, torch.tensor(0.0), torch.tensor(1.0))
        assert get_index_plates() == {}
    assert seen == [(1, 3)]
    torch.testing.assert_close(end["total"], 5 * torch.exp(torch.tensor([-1.0])), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("message", [[1.0, 0.0, 1.0], b"101", None])
def test_what_is_no_tensor_is_refused_by_name(message):
    people = Population.of({"home": [0, 0, 1]})
    with pytest.raises(InputError, match=f"network 'home': {type(message).__name__} was given"):
        aggregate(message, people.network("home"))
    with pytest.raises(InputError, match=f"tally 'ill': {type(message).__name__} was given"):
        tally("ill", message)


def test_a_tally_of_one_number_is_refused():
    with pytest.raises(InputError, match="tally 'ill': one number was given; give a tensor with agents"):
        tally("ill", torch.tensor(5))


def test_names_where_things_belong_are_refused_with_the_remedy():
    people = Population.of({"home": [0, 0, 1]})
    ill, home = torch.tensor([True, False, True]), people.network("home")
    with pytest.raises(InputError, match="aggregate over 'home': give the message, then a network"):
        aggregate(ill, "home")
    with pytest.raises(InputError, match="aggregate over a tensor: give the message, then a network"):
        aggregate(home, ill)
    with pytest.raises(InputError, match=r"by='home' is a name; give strata, such as population.strata\(home='home'\)"):
        tally("ill", ill, by="home")
    with pytest.raises(InputError, match="site 'infection': Field was given; give an Exposure"):
        happens("infection", aggregate(ill, home))


@pytest.mark.parametrize("nothing", [None, [1.0]])
def test_a_step_that_gives_no_state_is_named_by_its_day(nothing):
    with (
        pytest.raises(LpmError, match=f"gave {type(nothing).__name__} on day 0; return the state by name"),
        DiscreteTime(),
    ):
        simulate(lambda _: nothing, {"x": torch.zeros(3)}, torch.tensor(0.0), torch.tensor(2.0))
