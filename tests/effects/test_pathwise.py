"""Derivatives along agents' paths: the tape is autograd's own derivative, and that of differences."""

import gc
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl._compat import Messenger
from lpmppl.effects.adjoints import exposed
from lpmppl.effects.cohorts import Cohort, dense
from lpmppl.effects.fields import Choice, Field
from lpmppl.effects.hazards import accumulate
from lpmppl.effects.ops import simulate
from lpmppl.effects.tape import Taped, Version, taping
from lpmppl.errors import InputError, LpmError
from lpmppl.inference import estimation as module
from lpmppl.inference.flipping import Question
from lpmppl.inference.pathwise import along_paths
from lpmppl.inference.readings import reading_of
from lpmppl.models.contacts import Layer
from lpmppl.models.networks import Edges
from lpmppl.models.seirm import SEIRM, progression, transmission
from lpmppl.models.substep import compose

N, DAYS = 2_000, 25
SET = {"initial_infected": 0.02}
TIMED = ("beta", "latent_mean", "latent_spread", "infectious_mean", "infectious_spread")


@pytest.fixture(scope="module")
def city():
    return lpm.nyc.seirm(lpm.nyc.population(N))


def graph(degree, agents=N):
    rng = np.random.default_rng(0)
    one, other = (torch.from_numpy(rng.integers(0, agents, agents * degree // 2)) for _ in range(2))
    return Edges("graph", torch.cat((one, other)), torch.cat((other, one)), agents)


def question(model, of="infections", names=TIMED, by=(), daily=False, days=DAYS):
    theta = {n: p.default for n, p in model.parameters.items()} | SET
    return Question(model, theta, list(names), of, reading_of(model, of, theta, days, by, daily), days, 0)


class _Left(Messenger):
    """Keep what is left of the last step after its events."""

    def _pyro_post_happens(self, msg):
        self.left = msg["value"][1]


def slopes_of_last_day(asked, tape):
    """Derivatives of what is left after the last day's events, over the tape or over copies of everybody."""
    theta, last = asked.values(differentiated=True), _Left()
    with asked.playing(0, last), taping() if tape else nullcontext():
        asked.days_from(theta, asked.model.initial(theta), 0, asked.days)
        total = dense(last.left).sum()
        return np.array([float(x) for x in torch.autograd.grad(total, [theta[n] for n in asked.names])])


@pytest.mark.parametrize("layers", ["city", "graph"])
def test_the_tape_is_autograds_own_derivative_of_an_epidemic(city, layers):
    model = city if layers == "city" else SEIRM(city.population, [Layer(graph(10), 8.0)])
    asked = question(model)
    mine, autograds = slopes_of_last_day(asked, True), slopes_of_last_day(asked, False)
    assert np.abs(mine).min() > 0
    np.testing.assert_allclose(mine, autograds, rtol=2e-4)


def test_a_factor_of_every_layer_and_day_adds_up_to_the_transmission(city):
    """With factors of 1 on contacts, their derivatives come to that of β, times β."""
    asked = question(city, names=["beta"])
    (whole,) = slopes_of_last_day(asked, True)
    rates, last, theta = torch.ones(len(city.layers), DAYS, requires_grad=True), _Left(), asked.values()
    first = progression(city.population, [layer.network for layer in city.layers], theta)

    def step(s):
        today = rates[:, int(s["t"])]
        layers = [Layer(layer.network, layer.contacts * rate) for layer, rate in zip(city.layers, today, strict=True)]
        return compose(first, transmission(city.population, layers, theta))(s)

    with asked.playing(0, last), taping():
        simulate(step, city.initial(theta), torch.tensor(0.0), torch.tensor(float(DAYS)))
        (each,) = torch.autograd.grad(dense(last.left).sum(), rates)
    assert int((each != 0).sum()) > DAYS
    assert float(each.sum()) == pytest.approx(theta["beta"].item() * whole, rel=2e-4)


def test_draws_side_by_side_have_the_derivatives_of_each():
    """A leading dimension of two transmissions: the derivative of their sum is that of each by itself."""
    people = lpm.nyc.population(N)
    model = SEIRM(people, [Layer(people.everyone(), 8.0)])

    def slope(values):
        beta, last = torch.tensor(values, requires_grad=True), _Left()
        asked = question(model)
        theta = asked.values() | {"beta": beta}
        with asked.playing(0, last), taping():
            state = model.initial(theta)
            if len(values) > 1:
                state = {k: x if x.dim() > 1 else x.expand(len(values), *x.shape) for k, x in state.items()}
            asked.days_from(theta, state, 0, DAYS)
            return torch.autograd.grad(dense(last.left).sum(), beta)[0].reshape(-1)

    both = slope([[0.03], [0.05]])
    torch.testing.assert_close(both, torch.cat([slope([[0.03]]), slope([[0.05]])]), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("seed", range(12))
def test_any_program_of_writes_and_reads_has_the_derivative_of_plain_tensors(seed):
    """Writes, reads of the present and of earlier versions, two changes of one version, and a look at the whole."""

    def run(tape):
        rng = np.random.default_rng(seed)
        theta = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
        states, total = [torch.arange(6.0, dtype=torch.float64)], torch.zeros((), dtype=torch.float64)
        with taping() if tape else nullcontext():
            for _ in range(12):
                x = states[rng.integers(max(0, len(states) - 3), len(states))]
                where = torch.from_numpy(np.sort(rng.choice(6, rng.integers(1, 5), replace=False)))
                cohort, act = Cohort(where, torch.Size([6])), rng.integers(4)
                if act == 0:
                    total = total + (cohort.read(x) ** 2).sum()
                elif act == 1:
                    total = total + (x * torch.arange(6)).sum().sin()
                else:
                    value = cohort.read(x) * theta[act - 2] if rng.random() < 0.7 else 0.5
                    states.append(cohort.write(x, value))
            total = total + (states[-1] ** 2).sum()
            assert not tape or any(isinstance(x, Taped) for x in states)
            return total.detach(), *torch.autograd.grad(total, theta, allow_unused=True)

    for mine, plain in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize("rows", [(), (2,)])
def test_a_step_of_hazard_has_the_derivative_of_everything_it_is_made_of(rows):
    """Totals, shares, scales, factors of each agent, choices, and sums within products."""
    g = torch.Generator().manual_seed(0)
    agents, groups = 300, 7
    index = torch.randint(0, groups, (agents,), generator=g)
    make = lambda *shape: torch.rand(*shape, generator=g).requires_grad_()  # noqa: E731
    base, share, each, own = make(*rows, groups), make(groups), make(agents), make(*rows, agents)
    scale, yes = make(*rows, 1), make(*rows, 1)
    before = torch.rand(*rows, agents, generator=g, dtype=torch.float64).requires_grad_()
    risk, mask = (torch.rand(*rows, agents, generator=g) < 0.6 for _ in range(2))
    inputs = [base, share, each, own, scale, yes, before]
    hazard = (Field.on(base, index, share) * scale + Field.on(own)) * each * Choice(mask, yes, 0.5)
    hazard = (hazard + Field.on(base, index) * 0.1) * (Field.on(share, index) * scale)
    weight = torch.rand(*rows, agents, generator=g, dtype=torch.float64)
    with taping():
        after = exposed(before, hazard, risk, 0.5)
        mine = torch.autograd.grad((after * weight).sum(), inputs, retain_graph=True)
    plain = accumulate(before, hazard.dense(), risk, 0.5)
    torch.testing.assert_close(after.plain, plain.detach(), rtol=1e-6, atol=1e-6)
    for x, y in zip(mine, torch.autograd.grad((plain * weight).sum(), inputs), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_steps_of_hazard_have_the_derivative_of_plain_tensors_whatever_changes_between_them(seed):
    """Groups and values of agents that stay or change, who is at risk, and readers of any step."""
    g, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    agents, groups, steps = 300, 7, 12
    indices = [torch.randint(0, groups, (agents,), generator=g) for _ in range(2)]
    each = [torch.rand(agents, generator=g) for _ in range(2)]
    base, scale = torch.rand(steps, groups, generator=g), torch.rand(steps, 1, generator=g)
    inputs = [base.requires_grad_(), scale.requires_grad_()]
    share, risks = torch.rand(groups, generator=g), torch.rand(steps, agents, generator=g) < 0.7
    which = rng.choice(2, (steps, 2), p=(0.7, 0.3))
    readers = [torch.from_numpy(rng.choice(agents, 40, replace=False)) for _ in range(steps)]

    def run(tape):
        total, now = torch.zeros((), dtype=torch.float64), torch.zeros(agents, dtype=torch.float64)
        with taping() if tape else nullcontext():
            for k in range(steps):
                field = Field.on(base[k], indices[which[k, 0]], share) * scale[k] + Field.on(base[k], indices[0]) * 0.1
                hazard = field * each[which[k, 1]]
                now = exposed(now, hazard, risks[k], 0.5) if tape else accumulate(now, hazard.dense(), risks[k], 0.5)
                total = total + (Cohort(readers[k], now.shape).read(now) ** 2).sum()
            return total.detach(), *torch.autograd.grad(total, inputs)

    for mine, plain in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5)


def test_a_pass_backwards_that_was_broken_off_leaves_nothing_behind(city):
    asked = question(city, names=["beta"])
    theta, last, breaks = asked.values(differentiated=True), _Left(), []

    def broken(adjoint):
        if breaks:
            raise KeyboardInterrupt

    with asked.playing(0, last), taping():
        carried = theta | {"beta": theta["beta"] * 1.0}
        asked.days_from(carried, city.initial(carried), 0, DAYS)
        total = dense(last.left).sum()
        carried["beta"].register_hook(broken)
        (first,) = torch.autograd.grad(total, theta["beta"], retain_graph=True)
        breaks.append(True)
        with pytest.raises(KeyboardInterrupt):
            torch.autograd.grad(total, theta["beta"], retain_graph=True)
        breaks.clear()
        (again,) = torch.autograd.grad(total, theta["beta"])
    assert float(first) != 0.0 and float(again) == float(first)


def test_a_run_leaves_no_tape_behind(city):
    gc.collect()
    before = sum(type(x) is Version for x in gc.get_objects())
    along_paths(question(city, days=10), 0)
    gc.collect()
    assert sum(type(x) is Version for x in gc.get_objects()) == before


def test_derivatives_are_those_of_differences_where_everybody_meets_everybody(city):
    """Five parameters, a flow and a stock, by age: within four standard errors of the pairs' differences, or 5 %."""
    people = lpm.nyc.population(4_000)
    model = SEIRM(people, [Layer(people.everyone(), 8.0)], {"age": "age_band"})
    for of in ("infections", "infectious"):
        ask = {"wrt": TIMED, "days": 40, "draws": 8, "set": SET, "audit": False}
        mine = lpm.sensitivity(model, of, estimator="pathwise", **ask)
        theirs = lpm.sensitivity(model, of, estimator="differences", **ask)
        assert set(mine["estimator"].values) == {"pathwise"}
        apart = np.abs(mine["value"] - theirs["value"])
        error = np.hypot(mine["se"], theirs["se"])
        assert bool((apart <= np.maximum(4 * error, 0.05 * np.abs(theirs["value"]))).all())
        assert float(mine["se"].sel(parameter="beta") / mine["value"].sel(parameter="beta")) < 0.3


def test_days_and_strata_add_up_to_the_whole(city):
    ask = {"estimator": "pathwise", "wrt": ["beta", "latent_mean"], "days": 12, "draws": 2, "set": SET, "audit": False}
    whole = lpm.sensitivity(city, "infections", **ask)
    parts = lpm.sensitivity(city, "infections", by="borough", daily=True, **ask)
    np.testing.assert_allclose(parts["value"].sum(("day", "borough")), whole["value"], rtol=1e-5)


@pytest.mark.parametrize("layers", ["city", "graph"])
@pytest.mark.parametrize("of", ["infections", "infectious"])
def test_forward_mode_has_the_derivatives_of_reverse_mode(city, layers, of, monkeypatch):
    """Every day and stratum by itself, by a run for each parameter and by a pass backwards for each number."""
    model = city if layers == "city" else SEIRM(city.population, [Layer(graph(10), 8.0)])
    asked = question(model, of, names=["beta", "latent_mean", "infectious_spread"], daily=True, days=12)
    found = {}
    for mode, passes in (("forward", 0), ("reverse", 10_000)):
        monkeypatch.setattr("lpmppl.inference.pathwise._PASSES", passes)
        found[mode] = along_paths(asked, 0)
    mine, other = found["forward"], found["reverse"]
    assert mine.value.shape == (12, 3) and np.abs(mine.value).max(0).min() > 0
    np.testing.assert_allclose(mine.value, other.value, rtol=1e-4, atol=1e-6 * np.abs(other.value).max())
    assert (mine.base == other.base).all() and mine.plateau == other.plateau


def test_a_parameter_that_moves_no_time_is_zero_in_forward_mode(city, monkeypatch):
    monkeypatch.setattr("lpmppl.inference.pathwise._PASSES", 0)
    found = along_paths(question(city, names=["beta", "fatality"], daily=True, days=8), 0)
    assert found.value[:, 0].any() and not found.value[:, 1].any()


def test_many_numbers_for_few_parameters_are_taken_in_forward_mode(city, monkeypatch):
    runs = []
    monkeypatch.setattr(
        "lpmppl.inference.pathwise._forward", lambda question, chance, name: runs.append(name) or np.ones(DAYS)
    )
    along_paths(question(city, names=["beta", "latent_mean"], daily=True), 0)
    assert runs == ["beta", "latent_mean"]
    along_paths(question(city, names=["beta"]), 0)
    assert len(runs) == 2


def test_what_a_chance_depends_on_is_refused_by_name_and_left_to_differences(city, monkeypatch):
    with pytest.raises(InputError, match="parameter fatality enters a decision at site 'fatal'"):
        lpm.sensitivity(city, "deaths", ["beta", "fatality"], DAYS, estimator="pathwise", draws=2, set=SET)
    monkeypatch.setattr(module, "_WORK", 0)
    monkeypatch.setattr(module, "_PLATEAU", 1.0)
    found = lpm.sensitivity(city, "infections", ["beta", "fatality"], DAYS, draws=2, set=SET, audit=False)
    assert list(found["estimator"].values) == ["pathwise", "differences"]


def test_a_sparse_graph_is_said_to_be_biased_and_left_to_differences(city, monkeypatch):
    model = SEIRM(city.population, [Layer(graph(4), 8.0)])
    ask = {"days": DAYS, "draws": 2, "set": SET, "audit": False}
    with pytest.warns(UserWarning, match="meet no hazard at site 'infection' any more"):
        found = lpm.sensitivity(model, "infections", "beta", estimator="pathwise", **ask)
    assert float(found["plateau"].sel(site="infection")) > 0.3
    monkeypatch.setattr(module, "_WORK", 0)
    assert set(lpm.sensitivity(model, "infections", "beta", **ask)["estimator"].values) == {"differences"}


def test_a_model_that_acts_in_whole_steps_is_refused_and_so_is_a_count_without_times():
    model = lpm.nyc.sir(lpm.nyc.population(N))
    ask = {"wrt": "beta", "days": 10, "estimator": "pathwise", "draws": 2, "set": SET}
    with pytest.raises(InputError, match="the model sir isn't one whose events act by their times"):
        lpm.sensitivity(model, "infectious", **ask)
    model.timed = True
    with pytest.raises(LpmError, match="'infectious' counts what has no time of its own"):
        lpm.sensitivity(model, "infectious", **ask)


def test_the_numbers_of_a_run_are_the_same_with_and_without_its_tape(city):
    asked = question(city)
    with torch.no_grad(), asked.playing(0) as record:
        asked.days_from(asked.values(), city.initial(asked.values()), 0, DAYS)
    assert math.isclose(along_paths(asked, 0).base[0], asked.read(asked.series(record))[0], rel_tol=0)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_who_has_switched_derivatives_off_gets_them_all_the_same(city, around):
    asked = question(city, names=["beta"], days=10)
    with around():
        found = along_paths(asked, 0)
    assert found.value[0, 0] == along_paths(asked, 0).value[0, 0] != 0.0


def test_a_clock_that_runs_out_is_an_event_in_its_step():
    people = lpm.nyc.population(1_000)
    clock = torch.full((1_000,), math.inf)
    clock[[3, 7]] = torch.tensor([4.25, 5.0])
    assert people.due(clock, 4.0).agent.tolist() == [3]
    shift = torch.zeros((), requires_grad=True)
    with taping():
        everybody = people.cohort(clock < math.inf)
        due = people.due(everybody.write(clock, everybody.read(clock) + shift), 4.0)
        assert due.left.tolist() == [0.75]
        assert torch.autograd.grad(due.left.sum(), shift)[0] == -1.0


@pytest.mark.parametrize("make", [torch.as_tensor, torch.asarray])
def test_conversions_of_what_is_on_the_tape_keep_its_derivative(make):
    x = torch.tensor([5.0], requires_grad=True)
    with taping():
        clock = Cohort(torch.tensor([1]), torch.Size([3])).write(torch.tensor([1.0, 2.0, 3.0]), x)
        assert isinstance(clock, Taped)
        for found in (make(clock, dtype=torch.float64), make(clock), torch.as_tensor(data=clock, dtype=torch.float64)):
            (slope,) = torch.autograd.grad((found * torch.tensor([1.0, 2.0, 4.0])).sum(), x)
            assert slope.tolist() == [2.0]
