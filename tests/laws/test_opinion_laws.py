"""The laws for a society that changes its mind: the same ops under the same handlers, with nothing of its own."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from functools import partial

import numpy as np
import pyro
import pytest
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention

import lpmppl as lpm
from lpmppl.effects.handlers import (
    DiscreteTime,
    ExogenousNoise,
    SecretShared,
    Tabulated,
    Utility,
    Verified,
    bounded,
    conserved,
    never_falls,
)
from lpmppl.effects.opening import Custodian
from lpmppl.effects.ops import simulate
from lpmppl.inference.policies import Act
from lpmppl.models.archetypes import Lookup
from lpmppl.models.networks import Edges
from lpmppl.models.opinion import Opinion
from lpmppl.models.population import Population
from lpmppl.models.town import town
from tests.laws.conftest import noise, play, worlds
from tests.randomness import states
from tests.ranks import on_ranks

AGENTS, DAYS = 600, 14
LIVELY = {"deliberation": 0.1, "herding": 0.5, "conformity": 1.5, "initial": 0.3}
"""Some hundred switches in a run, and agents who switch again and again."""


def society(order=None, edges=True):
    """A town in households, neighbourhoods and ties; in another order where one is given."""
    people, ties = town(AGENTS)
    if order is not None:
        people = Population(people.dataset.isel(agent=order).assign_coords(agent=("agent", order)))
        place = torch.from_numpy(np.argsort(order))
        ties = Edges("ties", place[ties.source], place[ties.target], AGENTS)
    networks = [people.network("household"), people.network("neighbourhood"), *([ties] if edges else [])]
    return Opinion(people, networks, by={"price": "price"}, attributes={"price": Lookup("price")})


@pytest.fixture(scope="module")
def model():
    return society()


def lived(model, *handlers, days=DAYS, begin=0):
    theta = {name: torch.tensor(x) for name, x in LIVELY.items()}
    return play(model, Utility(model.behaviour), *handlers, days=days, theta=theta, begin=begin)


def pays(day, dollars):
    return StaticIntervention(torch.tensor(float(day)), {"incentive": torch.tensor([dollars])})


def test_a_null_intervention_changes_nothing(model):
    base = lived(model, noise())
    assert base.series["adoptions"].sum() > 300
    assert int(base.state["episode"].max()) > 2
    both = lived(model, worlds(), noise(), pays(4, 0.0))
    assert list(both.worlds) == ["t=4"]
    for k in (0, 1):
        assert both.world(**{"t=4": k}).differences(base) == []


def test_every_world_is_its_single_run(model):
    both = lived(model, worlds(), noise(), pays(5, 5.0), pays(9, 0.2))
    ends = set()
    for i, j in itertools.product((0, 1), repeat=2):
        single = lived(model, noise(), *([pays(5, 5.0)] * i), *([pays(9, 0.2)] * j))
        assert both.world(**{"t=5": i, "t=9": j}).differences(single) == [], (i, j)
        ends.add(single.series["adopters"][-1].sum())
    assert len(ends) == 4


def test_a_world_in_which_some_are_paid_is_its_single_run(model):
    """Beside a world in which everybody's incentive is one number, it is of each agent here."""
    whom = {"connected": "most"}
    plans = {
        "some": [Act("offered", "no", 3), Act("offered", "yes", 3, whom), Act("incentive", 5.0, 3)],
        "all": [Act("incentive", 5.0, 3)],
        "nobody": [Act("offered", "no", 3), Act("incentive", 5.0, 3)],
    }
    tree = lpm.counterfactual(model, plans, days=8, set=LIVELY)["prior_predictive"].to_dataset()
    for name, acts in plans.items():
        alone = lpm.counterfactual(model, {name: acts}, days=8, set=LIVELY)["prior_predictive"].to_dataset()
        assert tree.sel(policy=name).equals(alone.sel(policy=name)), name
    single = lpm.run(model, 8, set=LIVELY, interventions=[("incentive", 5.0, 3)])["prior_predictive"]
    for name, tally in tree.data_vars.items():
        np.testing.assert_array_equal(tally.sel(policy="all"), single[name])
    assert float(tree["payments"].sel(policy="nobody").sum()) == 0.0
    np.testing.assert_array_equal(tree["adopters"].sel(policy="nobody"), tree["adopters"].sel(policy="as it was"))
    assert not tree["adopters"].sel(policy="some").equals(tree["adopters"].sel(policy="all"))


def test_renaming_agents_permutes_the_results(model):
    order = np.random.default_rng(2).permutation(AGENTS)
    plain, renamed = lived(model, noise(), pays(4, 4.0)), lived(society(order), noise(), pays(4, 4.0))
    for key in ("opinion", "attraction", "doubt", "episode"):
        torch.testing.assert_close(renamed.state[key], plain.state[key][order], rtol=0, atol=0)
    for name, series in plain.series.items():
        np.testing.assert_array_equal(renamed.series[name], series)


@pytest.mark.parametrize("day", [1, 5])
def test_a_resumed_run_equals_the_uninterrupted_one(model, tmp_path, day):
    acts = partial(pays, 4, 4.0)
    whole = lived(model, worlds(), noise(), acts())

    class KilledError(Exception):
        pass

    def stop(done, _):
        if done == day:
            raise KilledError

    path = tmp_path / "kept.npz"
    with pytest.raises(KilledError):
        lived(model, DiscreteTime(progress=stop, checkpoint=path, every=1), worlds(), noise(), acts())
    again = lived(model, DiscreteTime(checkpoint=path, resume=True), worlds(), noise(), acts())
    assert again.worlds == whole.worlds
    assert again.differences(whole) == []


def test_a_step_is_a_function_of_the_state(model):
    whole, state = lived(model, noise()), None
    theta = {name: torch.tensor(x) for name, x in LIVELY.items()}
    for day in range(DAYS):
        with torch.no_grad(), DiscreteTime(), ExogenousNoise(1), Utility(model.behaviour):
            start = model.initial(theta) if state is None else state
            state = simulate(model.day(theta), start, torch.tensor(float(day)), torch.tensor(float(day + 1)))
    assert [k for k in whole.state if not torch.equal(whole.state[k], state[k])] == []


@pytest.mark.parametrize("parties", [2, 3])
def test_secret_shares_give_the_plain_run(model, parties):
    base = lived(model, worlds(), noise(), pays(4, 4.0))
    opening = Custodian(("household", "ties"), least=2)
    handler = SecretShared(parties, opening=opening, quiet=True)
    assert lived(model, worlds(), noise(), handler, pays(4, 4.0)).differences(base) == []
    assert handler.opened > 4 * DAYS
    assert handler.kept > 0


def test_what_substeps_declare_and_what_never_breaks_is_verified(model):
    rules = [
        bounded("known", -1, 1),
        never_falls("episode"),
        bounded("attraction", 0.0, torch.inf),
        conserved("neighbours", lambda s: _told(s, model)),
    ]
    assert lived(model, Verified(*rules), noise(), pays(4, 4.0)).differences(lived(model, noise(), pays(4, 4.0))) == []


def _told(s, model):
    """How many messages are in the running totals beyond what is known of the agents: none."""
    off = torch.zeros((), dtype=torch.int64)
    for network in model.networks:
        for side, code in (("for", 1), ("against", 0)):
            sent = network.total((s["known"] == code).to(torch.int64))
            off = off + (s[f"{network.name}/{side}"].long() - sent * round(1 / network.quantum)).abs().sum()
    return off


def test_everybody_is_of_one_opinion_and_counts_add_up(model):
    run = lived(model, noise(), pays(5, 3.0))
    s = run.series
    assert (s["adopters"] + s["holdouts"] == np.bincount(model.population["price"].numpy())).all()
    change = np.diff(s["adopters"], axis=0)
    np.testing.assert_array_equal(change, (s["adoptions"] - s["lapses"])[1:])
    np.testing.assert_array_equal(s["payments"][:5], 0)
    np.testing.assert_allclose(s["payments"][5:], 3.0 * s["adopters"][5:], rtol=1e-6)
    assert s["adopters"][-1].sum() == int(run.state["opinion"].sum())


def test_handlers_leave_the_global_random_state_untouched(model):
    before = states()
    lived(model, worlds(), noise(), pays(4, 4.0))
    lpm.run(model, 5, set=LIVELY, draws=2)
    assert states() == before


def test_agents_stay_out_of_the_trace_unless_asked(model):
    def program(hide):
        with DiscreteTime(), ExogenousNoise(1, hide=hide), Utility(model.behaviour):
            model(5)

    with torch.random.fork_rng(devices=[]):
        trace = pyro.poutine.trace(program).get_trace(True)
        shown = pyro.poutine.trace(program).get_trace(False)
    assert set(trace.stochastic_nodes) == set(model.parameters)
    shown.compute_log_prob()
    for site in ("t=0/adoption", "t=4/lapse"):
        assert torch.isfinite(shown.nodes[site]["log_prob"]).all()


def test_a_table_decides_as_utilities_with_its_probabilities_do(model):
    chance = torch.tensor([0.7, 0.3])
    flat = Utility({"adopt": {"adopt": {"intercept": float(torch.logit(chance[0]))}}})
    theta = {name: torch.tensor(x) for name, x in LIVELY.items()}
    runs = [play(model, handler, noise(), days=DAYS, theta=theta) for handler in (Tabulated({"adopt": chance}), flat)]
    np.testing.assert_array_equal(runs[0].series["adopters"], runs[1].series["adopters"])


def in_parts(ranks):
    """What a rank finds of everybody, in worlds with and without pay and in a run."""
    people = town(AGENTS)[0]
    with ExitStack() as stack:
        if ranks is not None:
            people = people.shard(ranks)
            stack.enter_context(lpm.Sharded(ranks))
        networks = [people.network("household"), people.network("neighbourhood"), people.everyone()]
        model = Opinion(people, networks, by={"price": "price"}, attributes={"price": Lookup("price")})
        plan = {
            "paid": [Act("offered", "no", 3), Act("offered", "yes", 3, {"quarter": "chosen"}), Act("incentive", 5.0, 3)]
        }
        tree = lpm.counterfactual(model, plan, days=8, set=LIVELY)
        single = lpm.run(model, 8, set=LIVELY)
    return [group.to_dataset(inherit=False).load() for group in (*tree.subtree, *single.subtree) if group.data_vars]


@pytest.mark.slow
def test_two_ranks_give_what_one_process_does(tmp_path):
    one = in_parts(None)
    assert max(float(each["adoptions"].sum()) for each in one if "adoptions" in each) > 100
    for other in on_ranks(tmp_path, 2, in_parts):
        assert len(other) == len(one)
        for mine, theirs in zip(one, other, strict=True):
            assert mine.equals(theirs)
