"""A factor that walks over time and differs by place: nothing where it is 1, and what the environment would do."""

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError
from lpmppl.inference.run import playing
from lpmppl.models.varying import Varying
from tests.laws.conftest import MODELS

PEOPLE = lpm.nyc.population(2_000)
BOROUGHS = PEOPLE.labels("borough")


def tally(model, name="infections", days=12, **more):
    found = lpm.run(model, days=days, seed=3, **more)["prior_predictive"][name]
    return found.transpose("chain", "draw", "day", ...).to_numpy()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_factor_of_one_changes_nothing(name) -> None:
    model = MODELS[name]()
    if "transmission" not in model.environment:
        pytest.skip("it has no transmission to vary")
    first = next(iter(model.tallies))
    assert np.array_equal(tally(Varying(model, knots=(3, 7)), first, 6), tally(model, first, 6))


def test_a_place_is_scaled_as_its_people_would_be() -> None:
    model, start = lpm.nyc.seirm(PEOPLE), {"initial_infected": 0.05}
    placed = Varying(model, within="borough")
    every = {f"transmission_{b.replace(' ', '_')}": 0.25 for b in BOROUGHS}
    alike = tally(placed, set={**start, **every})
    assert np.array_equal(alike, tally(model, set=start, interventions=[("transmission", 0.25, 0)]))
    one = tally(placed, set={**start, f"transmission_{BOROUGHS[0].replace(' ', '_')}": 0.0001})
    plain = tally(model, set=start)
    where = model.by.dims["borough"].index(BOROUGHS[0])
    assert one.sum((0, 1, 2, 4))[where] < 0.3 * plain.sum((0, 1, 2, 4))[where]


def test_the_factor_walks_between_knots_and_rests_after_the_last() -> None:
    model = Varying(lpm.nyc.sir(PEOPLE), knots=(2, 4))
    theta = {**model.defaults(), "transmission_2": torch.tensor(4.0), "transmission_4": torch.tensor(0.25)}
    seen = []
    inner = model.model.day

    def watched(theta):
        step = inner(theta)

        def day(state):
            seen.append(float(state["transmission"]))
            return step(state)

        return day

    model.model.day = watched
    with playing(model, 0, 0, [], DiscreteTime()):
        last = simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(7.0))
    assert seen == pytest.approx([1.0, 2.0, 4.0, 2.0, 1.0, 1.0, 1.0])
    assert float(last["transmission"]) == 1.0
    assert model.steps(3, 9) == ["transmission_4"]


def test_policies_come_on_top() -> None:
    model, start = lpm.nyc.sir(PEOPLE), {"initial_infected": 0.05}
    walked = Varying(model, knots=(1,))
    both = tally(walked, set={**start, "transmission_1": 0.5}, interventions=[("transmission", 0.5, 1)])
    assert np.array_equal(both, tally(model, set=start, interventions=[("transmission", 0.25, 1)]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "transmision"}, "did you mean 'transmission'"),
        ({"knots": (0, 3)}, "days above 0"),
        ({"knots": (5, 3)}, "each later"),
        ({"knots": (2.5,)}, "days above 0"),
        ({"spread": 0.0}, "above 0"),
    ],
)
def test_what_cannot_vary_is_refused(given, said) -> None:
    with pytest.raises(InputError, match=said):
        Varying(lpm.nyc.sir(PEOPLE), **given)


def test_words_and_what_is_the_same_for_all_cannot_vary() -> None:
    model = lpm.nyc.pandemic(PEOPLE)
    with pytest.raises(InputError, match="can't be scaled"):
        Varying(model, "test")
    with pytest.raises(InputError, match="a model is needed"):
        Varying("sir")
