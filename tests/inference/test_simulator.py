"""A society as a function that autograd goes through: its Jacobian, its shapes, and what it refuses."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
from lpmppl.errors import InputError
from tests.laws.conftest import seirm_in_layers, sir_in_households

AT = {"initial_infected": 0.05}


def free(x):
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def test_what_comes_out_is_the_run():
    model = sir_in_households()
    simulator = lpm.Simulator(model, ["infections", "infectious"], 10, 3, by="borough", set=AT)
    assert simulator.shapes == {"infections": (10, 2), "infectious": (10, 2)}
    x = simulator({"beta": 0.4})
    run = lpm.run(model, 10, 3, set={**AT, "beta": 0.4})["prior_predictive"]
    for part, name in zip(x.reshape(2, 10, 2), ("infections", "infectious"), strict=True):
        assert part.tolist() == run[name].squeeze(("chain", "draw")).values.tolist()
    assert not torch.equal(x, simulator({"beta": 0.4}, draw=1))


def test_its_jacobian_is_that_of_sensitivity():
    model = sir_in_households()
    simulator = lpm.Simulator(model, "infections", 15, daily=False, set=AT)
    found = lpm.sensitivity(model, "infections", ["beta", "gamma"], 15, draws=3, set=AT, audit=False)
    beta, gamma = free(model.parameters["beta"].default), free(model.parameters["gamma"].default)
    x = sum(simulator({"beta": beta, "gamma": gamma}, draw=d) for d in range(3)) / 3
    x.sum().backward()
    assert float(beta.grad) == pytest.approx(float(found["value"].sel(parameter="beta")), rel=1e-6)
    assert float(gamma.grad) == pytest.approx(float(found["value"].sel(parameter="gamma")), rel=1e-6)


def test_paths_give_the_jacobian_of_sensitivity_too():
    model = seirm_in_layers()
    ask = {"set": {"initial_infected": 0.1}}
    found = lpm.sensitivity(model, "infections", "beta", 12, draws=2, estimator="pathwise", audit=False, **ask)
    simulator = lpm.Simulator(model, "infections", 12, estimator="pathwise", daily=False, **ask)
    beta = free(model.parameters["beta"].default)
    x = (simulator({"beta": beta}) + simulator({"beta": beta}, draw=1)) / 2
    x.sum().backward()
    assert float(x.sum().detach()) % 0.5 == 0
    assert float(beta.grad) == pytest.approx(float(found["value"][0]), rel=1e-6)


def test_reverse_through_a_guide_and_forward_through_the_society_is_all_in_reverse():
    """§5.1: the gradient of a loss by the weights of a network that gives the parameters, to 1e-6."""
    model = sir_in_households()
    grads = []
    for reverse in (False, True):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            guide = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
        simulator = lpm.Simulator(model, "infections", 15, estimator="mean-field", reverse=reverse, set=AT)
        beta, gamma = guide(torch.tensor([0.2, -0.4, 1.0], dtype=torch.float64)).sub(1.5).exp()
        loss = ((simulator({"beta": beta, "gamma": gamma}) - 5.0) ** 2).mean()
        loss.backward()
        grads.append(torch.cat([p.grad.reshape(-1) for p in guide.parameters()]))
    assert float((grads[0] - grads[1]).abs().max() / grads[1].abs().max()) < 1e-6
    assert float(grads[0].abs().min()) > 0


@pytest.mark.slow
def test_a_pyro_guide_is_fitted_through_it():
    """SVI with the transmission rate free brings it to where the counts come from."""
    model = sir_in_households()
    simulator = lpm.Simulator(model, "infections", 20, set=AT)
    with torch.no_grad():
        seen = sum(simulator({"beta": 0.5}, draw=100 + d) for d in range(8)) / 8

    def program():
        beta = pyro.sample("beta", dist.LogNormal(-1.5, 0.5))
        x = sum(simulator({"beta": beta}, draw=d) for d in range(4)) / 4
        pyro.sample("seen", dist.Normal(x.float(), 3.0).to_event(1), obs=seen.float())

    pyro.clear_param_store()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        guide = pyro.infer.autoguide.AutoNormal(program, init_scale=0.02)
        svi = pyro.infer.SVI(program, guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
        for _ in range(60):
            svi.step()
        found = float(guide.median()["beta"].detach())
    pyro.clear_param_store()
    assert found == pytest.approx(0.5, rel=0.12)


def test_no_derivative_is_worked_out_where_nobody_asks():
    simulator = lpm.Simulator(sir_in_households(), "infections", 5, set=AT)
    assert not simulator({"beta": torch.tensor(0.4)}).requires_grad
    with torch.no_grad():
        assert not simulator({"beta": free(0.4)}).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"of": "infection"}, "did you mean"),
        ({"of": []}, "names no tally"),
        ({"estimator": "difference"}, "did you mean"),
        ({"estimator": "pathwise"}, "isn't one whose events act by their times"),
        ({"step": 0.0}, "step=0.0"),
        ({"step": "a"}, "step='a'"),
        ({"of": 3}, "of=3"),
        ({"of": ["infections", "infections"]}, "each once"),
        ({"by": "boro"}, "stratum"),
        ({"days": 0}, "days=0"),
        ({"estimator": "gumbel-softmax", "tau": 0.0}, "tau=0.0"),
    ],
)
def test_what_it_cant_be_made_of_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        lpm.Simulator(sir_in_households(), **{"of": "infections", "days": 5, **change})


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ({"bta": 0.4}, "did you mean"),
        (["beta"], "given by name"),
        ({"beta": torch.ones(2)}, r"parameter beta of shape \(2,\)"),
        ({"beta": torch.tensor(-1.0)}, "parameter beta=-1.0 can't be"),
        ({"beta": torch.tensor(float("nan"))}, "beta"),
    ],
)
def test_parameters_that_cant_be_are_refused(theta, message):
    simulator = lpm.Simulator(sir_in_households(), "infections", 5, set=AT)
    with pytest.raises(InputError, match=message):
        simulator(theta)


def test_what_paths_dont_see_is_refused_and_their_bias_said():
    model, at = seirm_in_layers(), {"initial_infected": 0.1}
    simulator = lpm.Simulator(model, "deaths", 12, estimator="pathwise", set=at)
    with pytest.raises(InputError, match="parameter fatality enters a decision at site 'fatal'"):
        simulator({"beta": free(0.4), "fatality": free(0.01)})
    stopped = lpm.Simulator(
        model, "infections", 12, estimator="pathwise", set=at, interventions=[("transmission", 0.0, 5)]
    )
    with pytest.warns(UserWarning, match="of their time at risk agents meet no hazard at site 'infection'"):
        stopped({"beta": free(0.4)})


def test_forward_mode_from_outside_is_refused():
    simulator = lpm.Simulator(sir_in_households(), "infections", 3, set=AT)
    with pytest.raises(InputError, match="parameter beta was given in forward mode"):
        torch.func.jvp(lambda b: simulator({"beta": b}), (torch.tensor(0.3),), (torch.tensor(1.0),))
