"""Institutions that calibrate together: the same updates as pooled ones, and nothing sent but what may be."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn.utils import parameters_to_vector

import lpmppl as lpm
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.federated import FederatedCalibNN
from lpmppl.inference.forecast import hybrid
from lpmppl.inference.reader import Reader
from lpmppl.inference.secure_sum import agreed, masked, opened
from lpmppl.inference.split import SplitCalibNN
from lpmppl.inference.training import Trained
from tests.inference.test_calibnn import counts_of, society

DAYS = 8


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small networks learn fastest on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(network) -> torch.Tensor:
    return parameters_to_vector(network.parameters()).detach()


def both(agents: int = 300):
    """A society with two series that different institutions may have."""
    model = society(agents, by=True)
    return model, {"hospitals": "infections", "registry": "recoveries"}


def seen(model, name: str, seed: int = 3) -> dict[str, np.ndarray]:
    made = lpm.run(model, DAYS, seed, set={"initial_infected": 0.05})["prior_predictive"][name]
    return {name: made.sum([d for d in made.dims if d != "day"]).to_numpy().astype(float)}


# --- sums under masks


def test_masks_cancel_in_the_sum_and_nothing_less_shows_the_parts() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=4096) for name in ("a", "b", "c")}
    keys = agreed(list(values))
    sent = {name: masked(x, name, keys[name], 5) for name, x in values.items()}
    np.testing.assert_allclose(opened(sent.values()), sum(values.values()), atol=3 * 2.0**-40)
    # A part, and a sum of two of the three, are uniform integers: declared failure rate 1e-6 each.
    for part in (sent["a"], sent["a"] + sent["b"]):
        assert stats.kstest(part / 2.0**64, "uniform").pvalue > 1e-6
        low = np.bincount((part & np.uint64(15)).astype(int), minlength=16)
        assert stats.chisquare(low).pvalue > 1e-6
    again = masked(values["a"], "a", keys["a"], 6)
    assert (again != sent["a"]).mean() > 0.99


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e7])
def test_what_cannot_be_summed_is_refused(bad: float) -> None:
    with pytest.raises(LpmError, match=r"'a' has .* to sum, which is too large or none"):
        masked(np.array([0.0, bad]), "a", {}, 0)


# --- institutions with societies


def test_federated_steps_are_the_pooled_ones() -> None:
    societies = {"few": society(200), "some": society(300), "many": society(500)}
    pooled = lpm.CalibNN(societies, "infections", DAYS, seed=2)
    apart = FederatedCalibNN(societies, "infections", DAYS, seed=2)
    begun = weights(pooled._trained.network)
    assert torch.equal(begun, weights(apart._trained.network))
    for network in (pooled, apart):
        for of in network._runs.values():
            of.more(64, network._network())
        network._steps(1)
    one, other = weights(pooled._trained.network), weights(apart._trained.network)
    assert float((one - begun).abs().max()) > 1e-3
    # Adam's first step is its rate, whatever the size of a gradient: where one is nothing but rounding there is no law.
    moments = pooled._trained.optimizer.state_dict()["state"]
    size = torch.cat([moments[k]["exp_avg"].reshape(-1).abs() * 10 for k in moments])
    assert float((one - other)[size > 1e-6].abs().max()) < 1e-6
    assert float((size > 1e-6).double().mean()) > 0.5


@pytest.mark.slow
def test_local_steps_learn_as_well_with_less_sent() -> None:
    societies = {"few": society(200), "some": society(300), "many": society(500)}
    losses, sent = [], []
    for local in (1, 10):
        network = FederatedCalibNN(societies, "infections", DAYS, local=local, set={"gamma": 0.1})
        losses.append(network.learn(128)["some"])
        sent.append(network.traffic["masked updates"])
        assert {*network.traffic} == {"weights", "masked updates"}
    u = network.tasks["some"].scale.drawn(2000, 1)
    prior = -float(torch.distributions.Normal(u.mean(0), u.std(0)).log_prob(u).sum(-1).mean())
    assert max(losses) < prior - 0.3 and sent[1] * 10 == sent[0]
    fit = network.posterior({"infections": counts_of(society(300))[:DAYS]}, "some", draws=50)
    assert fit["posterior"]["beta"].sizes == {"chain": 1, "draw": 50}


def test_what_an_institution_sends_is_masked() -> None:
    societies = {"few": society(200), "some": society(300), "many": society(500)}
    network = FederatedCalibNN(societies, "infections", DAYS)
    for of in network._runs.values():
        of.more(64, network._network())
    first = network._institutions[0]
    sent = first.update(weights(network._trained.network), 1, 0)
    assert sent.dtype == np.uint64 and len(sent) == len(weights(network._trained.network)) + 1
    assert stats.kstest(sent / 2.0**64, "uniform").pvalue > 1e-6


def test_one_institution_is_refused() -> None:
    with pytest.raises(InputError, match="give two or more"):
        FederatedCalibNN(society(), "infections", DAYS)
    with pytest.raises(InputError, match="local=0"):
        FederatedCalibNN({"a": society(), "b": society()}, "infections", DAYS, local=0)


# --- institutions with series


def test_split_steps_are_those_of_the_whole_network() -> None:
    model, institutions = both()
    split = SplitCalibNN(model, institutions, DAYS, seed=1)
    whole = Reader({n: i.series for n, i in split.institutions.items()}, split._named, 1, 3, "spline")
    for encoder, institution in zip(whole.encoders, split.institutions.values(), strict=True):
        encoder.load_state_dict(institution.part.network.state_dict())
    whole.head.load_state_dict(split._trained.network.state_dict())
    (runs,) = split._runs.values()
    runs.more(64, split._network())
    pooled, same = Trained(whole), copy.deepcopy(runs)
    begun = weights(pooled.network)
    for _ in range(5):
        split._steps(1)
        pooled.optimizer.zero_grad()
        same.loss(pooled.network, 64).backward()
        pooled.step(pooled.length())
    for encoder, institution in zip(whole.encoders, split.institutions.values(), strict=True):
        assert float((weights(encoder) - weights(institution.part.network)).abs().max()) < 1e-6
    assert float((weights(whole.head) - weights(split._trained.network)).abs().max()) < 1e-6
    assert float((weights(pooled.network) - begun).abs().max()) > 1e-3


def test_data_of_institutions_are_read_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, institutions = both()
    network = SplitCalibNN(model, institutions, DAYS, set={"gamma": 0.1})
    network.learn(128)
    assert {*network.traffic} == {"counts of runs", "readings", "derivatives"}
    assert network.traffic["derivatives"] < network.traffic["readings"]
    before = network.traffic["readings"], network.traffic["counts of runs"]
    own = {"hospitals": seen(model, "infections"), "registry": seen(model, "recoveries")}
    fit = network.posterior(own, draws=200)
    # 128 numbers in single precision for each of the two series, and no counts at all.
    assert network.traffic["readings"] - before[0] == 2 * 128 * 4 and network.traffic["counts of runs"] == before[1]
    ahead = network.posterior(own, draws=20, simulations=4, ahead=14)
    assert "observed_data" not in ahead.children and ahead["forecast"]["infections"].sizes["day"] == 14
    with pytest.raises(InputError, match="holds no observed data"):
        hybrid(ahead)
    assert "observed_data" not in fit.children and fit["posterior"]["beta"].sizes == {"chain": 1, "draw": 200}
    # As in the same network that isn't split.
    whole = network.given(
        torch.tensor(np.concatenate([own["hospitals"]["infections"], own["registry"]["recoveries"]])[None])
    )
    mine = network.tasks[""].scale.points(
        {n: torch.tensor(fit["posterior"][n].to_numpy()[0]) for n in network._named[0]}
    )
    assert float((mine.mean(0) - whole.mean[0]).abs().max()) < 6 * float(whole.stddev.max()) / 200**0.5
    # Whoever has nothing to say is heard as such.
    half = network.posterior({"hospitals": own["hospitals"]}, draws=200)
    assert (half["posterior"]["beta"] != fit["posterior"]["beta"]).any()
    with pytest.warns(UserWarning, match="infections: more or fewer were seen"):
        network.posterior({"hospitals": {"infections": [300.0] * DAYS}}, draws=2)


@pytest.mark.parametrize(
    ("institutions", "said"),
    [
        ({}, "no institution"),
        ("infections", "no institution"),
        ({"a": "infections", "b": ["recoveries", "infections"]}, "'infections' belongs to several"),
        ({"a": "infection"}, "did you mean 'infections'"),
        ({"a": []}, "names nothing"),
    ],
)
def test_series_that_cannot_be_divided_so_are_refused(institutions, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SplitCalibNN(society(), institutions, DAYS)


def test_data_of_nobody_are_refused() -> None:
    model, institutions = both()
    network = SplitCalibNN(model, institutions, DAYS)
    own = {"hospitals": seen(model, "infections")}
    with pytest.raises(InputError, match="hasn't learnt anything"):
        network.posterior(own)
    network.learn(2)
    with pytest.raises(InputError, match="unknown institution 'hospital'"):
        network.posterior({"hospital": own["hospitals"]})
    with pytest.raises(InputError, match="by institution: hospitals, registry"):
        network.posterior({})
    with pytest.raises(InputError, match="recoveries"):
        network.posterior({"hospitals": seen(model, "recoveries")})


def test_whatever_institutions_are_called_all_parts_learn() -> None:
    split = SplitCalibNN(both()[0], {"server": "infections", "St. Mary": "recoveries"}, DAYS)
    begun = [weights(part.network) for part in split._parts()]
    split.learn(2)
    assert len(begun) == 3
    assert not any(torch.equal(a, weights(p.network)) for a, p in zip(begun, split._parts(), strict=True))
    apart = FederatedCalibNN({"server": society(100), 1: society(200)}, "infections", DAYS)
    apart.learn(2)
    assert len(apart._parts()) == 3
    with pytest.raises(InputError, match="a name of its own"):
        SplitCalibNN(both()[0], {1: "infections", "1": "recoveries"}, DAYS)
    with pytest.raises(InputError, match="nothing was observed"):
        split.posterior({"server": None})


def test_as_many_parties_as_there_are_can_be_summed() -> None:
    keys = agreed(list("abc"))
    most = 2.0**22 / 3 - 1
    assert opened(masked(np.array([most]), n, keys[n], 0) for n in "abc")[0] == pytest.approx(3 * most)
    with pytest.raises(LpmError, match="too large"):
        masked(np.array([most + 2]), "a", keys["a"], 1)
