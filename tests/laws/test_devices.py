"""Law: on another device every agent fares as on the CPU, and nothing of the CPU's gets in.

Without a GPU the device is one of the tests', as strict as CUDA, whose numbers are the CPU's (`tests.elsewhere`). A GPU
rounds logarithms and exponentials otherwise in the last place, by which an event may fall on the other side of
midnight: there one agent in a thousand may fare differently.
"""

import functools

import numpy as np
import pytest
import torch

import lpmppl as lpm
from tests.elsewhere import elsewhere, waits
from tests.laws.test_sharded import ACTS, last

AGENTS = 1500
SOME = {"initial_infected": 0.03}
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]
)


@pytest.fixture(params=["elsewhere", CUDA])
def device(request):
    """The device, and how many in a thousand may fare differently on it."""
    if request.param == "cuda":
        yield torch.device("cuda"), 1.0
        return
    with elsewhere() as found:
        yield found, 0.0


def off(there, here):
    """How many in a thousand of the numbers differ."""
    there, here = np.asarray(there), np.asarray(here)
    assert there.shape == here.shape
    same = (there == here) | ((there != there) & (here != here))
    return 1000.0 * (1.0 - same.mean())


@functools.cache
def on_the_cpu(name):
    return last(getattr(lpm.nyc, name)(lpm.nyc.population(AGENTS)), 22, ACTS[name])


@pytest.mark.parametrize("name", ["sir", "seirm", "pandemic"])
def test_every_agent_fares_as_on_the_cpu(name, device):
    state, tallies = on_the_cpu(name)
    where, most = device
    waits.clear()
    there, counted = last(getattr(lpm.nyc, name)(lpm.nyc.population(AGENTS, device=str(where))), 22, ACTS[name])
    assert {*there} == {*state}
    # The cumulative hazard is a sum whose last place may be another.
    agents = [key for key, x in state.items() if x.shape[-1:] == (AGENTS,) and not (most and x.dtype.kind == "f")]
    assert all(off(there[key], state[key]) <= most for key in agents)
    for key, x in tallies.items():
        np.testing.assert_allclose(counted[key], x, atol=most * AGENTS / 1000, err_msg=key)
    assert where.type == "cuda" or sum(waits.values()) > 0  # it was there


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(
            lambda people: lpm.counterfactual(
                lpm.nyc.pandemic(people),
                do={"cheque": [("stimulus", 500.0, 4)], "less": [("transmission", 0.5, 3)]},
                days=9,
                draws=2,
                set=SOME,
            ),
            id="worlds of the pandemic",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda people: lpm.counterfactual(
                lpm.nyc.seirm(people), do={"less": [("transmission", 0.5, 3)]}, days=9, draws=2, set=SOME
            ),
            id="worlds",
        ),
        pytest.param(
            lambda people: lpm.run(lpm.nyc.seirm(people), days=9, set=SOME, sources={"of": "age_band"}), id="sources"
        ),
        pytest.param(
            lambda people: lpm.run(
                lpm.nyc.pandemic(people, going_out=True, negotiated=True),
                days=9,
                set=SOME,
                interventions=[("stimulus", 1200.0, 2)],
            ),
            id="households decide",
            marks=pytest.mark.slow,
        ),
        *(
            pytest.param(
                functools.partial(
                    lambda estimator, people: lpm.sensitivity(
                        lpm.nyc.seirm(people), of="infections", wrt=["beta"], days=8, set=SOME, estimator=estimator
                    ),
                    estimator,
                ),
                id=estimator,
                marks=pytest.mark.slow,
            )
            for estimator in ("flips", "differences")
        ),
    ],
)
def test_what_is_asked_has_the_same_answer(ask, device):
    where, most = device
    there, here = ask(lpm.nyc.population(AGENTS, device=str(where))), ask(lpm.nyc.population(AGENTS))
    groups = [node.path for node in getattr(here, "subtree", ())] or [None]
    compared = 0
    for path in groups:
        mine, known = (x if path is None else x[path].to_dataset() for x in (there, here))
        for name, variable in known.data_vars.items():
            if variable.dtype.kind in "biuf":
                compared += 1
                np.testing.assert_allclose(mine[name], variable, rtol=0.05 if most else 0, atol=most * 2, err_msg=name)
    assert compared
