"""Random utility: its probabilities against a plain loop, its neighbours on the stack, and what it refuses."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lpmppl.effects.handlers import Tabulated, Utility
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError

LABELS = {"age": ("young", "old"), "savings": ("enough", "low", "none")}
TABLE = torch.tensor(list(itertools.product(range(2), range(3))))
OPTIONS = ("walk", "ride", "stay")
BETA = {
    "walk": {"intercept": 0.4, "risk": -0.7, "age=old": -1.1, "age=old × savings=low": 0.9},
    "ride": {"risk": -0.2, "savings=none": -2.0, "savings=low × risk": 0.3},
}


def loop(risk: float) -> list[list[float]]:
    """The probabilities by archetype and option, written out."""
    rows = []
    for old, saved in itertools.product((0, 1), range(3)):
        walk = 0.4 - 0.7 * risk - 1.1 * old + 0.9 * (old == 1 and saved == 1)
        ride = -0.2 * risk - 2.0 * (saved == 2) + 0.3 * (saved == 1) * risk
        weights = [math.exp(walk), math.exp(ride), 1.0]
        rows.append([w / sum(weights) for w in weights])
    return rows


def go(context: dict, coefficients: dict | None = None, options: tuple[str, ...] = OPTIONS) -> torch.Tensor:
    with Utility({"go": BETA if coefficients is None else coefficients}):
        return decide("go", TABLE, options, {"attributes": LABELS, **context})


def test_it_is_the_multinomial_logit():
    chance = go({"risk": torch.tensor([1.3])})
    assert chance.shape == (6, 3)
    assert chance.dtype == torch.float32
    assert chance.tolist() == [pytest.approx(row, abs=1e-6) for row in loop(1.3)]
    assert chance.sum(-1).tolist() == pytest.approx([1.0] * 6, abs=1e-6)


def test_what_is_observed_may_differ_between_worlds_and_archetypes():
    risk = torch.tensor([0.0, 2.5]).reshape(2, 1, 1)
    chance = go({"risk": risk})
    assert chance.shape == (2, 1, 6, 3)
    for k in (0, 1):
        assert torch.equal(chance[k, 0], go({"risk": risk[k, 0]}))
    each = torch.arange(6.0)
    mixed = go({"risk": each})
    assert all(mixed[k].tolist() == pytest.approx(loop(float(each[k]))[k], abs=1e-6) for k in range(6))


def test_more_of_a_liked_feature_makes_an_option_likelier():
    low, high = (go({"risk": risk}) for risk in (0.5, 1.5))
    assert bool((high[:, 2] > low[:, 2]).all())
    assert bool((high[:, 0] < low[:, 0]).all())


def test_intercepts_alone_are_a_table():
    shares = torch.tensor([0.2, 0.3, 0.5])
    table = {"go": shares.expand(6, 3)}
    same = {o: {"intercept": math.log(float(s / shares[2]))} for o, s in zip(OPTIONS[:2], shares, strict=False)}
    with Tabulated(table):
        tabulated = decide("go", TABLE, OPTIONS)
    with Utility({"go": same}):
        assert torch.allclose(decide("go", TABLE, OPTIONS), tabulated, atol=1e-6)


def test_the_inner_behaviour_decides():
    table = {"go": torch.tensor([1.0, 0.0, 0.0])}
    context = {"risk": 1.0, "attributes": LABELS}
    with Utility({"go": BETA}), Tabulated(table):
        assert decide("go", TABLE, OPTIONS, context)[0].tolist() == [1.0, 0.0, 0.0]
    with Tabulated(table), Utility({"go": BETA}):
        assert decide("go", TABLE, OPTIONS, context)[0].tolist() == pytest.approx(loop(1.0)[0], abs=1e-6)


def test_it_is_differentiable_in_coefficients_and_context():
    beta = torch.tensor(-0.7, requires_grad=True)
    risk = torch.tensor([1.3], requires_grad=True)
    chance = go({"risk": risk}, {**BETA, "walk": {**BETA["walk"], "risk": beta}})
    chance[0, 0].backward()
    p, v = loop(1.3)[0], 1e-6
    assert float(beta.grad) == pytest.approx(p[0] * (1 - p[0]) * 1.3, abs=1e-6)
    slope = (loop(1.3 + v)[0][0] - loop(1.3 - v)[0][0]) / (2 * v)
    assert float(risk.grad) == pytest.approx(slope, abs=1e-6)


def test_utilities_far_apart_stay_probabilities():
    chance = go({"risk": 1.0}, {"walk": {"intercept": 5000.0}})
    assert chance[0].tolist() == [1.0, 0.0, 0.0]


class TestRefusals:
    def test_an_unknown_decision(self):
        with (
            Utility({"isolate": {}}),
            pytest.raises(InputError, match="unknown decision 'isolat': did you mean 'isola"),
        ):
            decide("isolat", TABLE, OPTIONS)

    def test_an_option_that_the_decision_lacks(self):
        with pytest.raises(InputError, match="unknown option of decision 'go' 'wlak': did you mean 'walk'"):
            go({}, {"wlak": {"intercept": 1.0}})

    def test_a_feature_that_nobody_observes(self):
        with pytest.raises(InputError, match="unknown feature of decision 'go' 'rsik': did you mean 'risk'"):
            go({"risk": 1.0}, {"walk": {"rsik": 1.0}})
        with pytest.raises(InputError, match="unknown feature of decision 'go' 'wage'"):
            go({}, {"walk": {"age=old × wage=high": 1.0}})

    def test_a_label_that_no_archetype_has(self):
        with pytest.raises(InputError, match="unknown savings in decision 'go' 'lwo': did you mean 'low'"):
            go({}, {"walk": {"savings=lwo": 1.0}})

    def test_labels_that_do_not_fit_the_archetypes(self):
        with pytest.raises(InputError, match="its archetypes have 2 attributes, but labels of 1"):
            go({"attributes": {"age": ("young", "old")}})

    def test_a_context_of_another_shape_or_not_finite(self):
        with pytest.raises(InputError, match=r"'risk' of its context has shape \(4,\); .* 1 or the 6 archetypes"):
            go({"risk": torch.zeros(4)})
        with pytest.raises(InputError, match="'risk' of its context isn't finite"):
            go({"risk": torch.tensor([math.nan])})

    def test_a_coefficient_that_is_not_finite(self):
        with pytest.raises(InputError, match="decision 'go', option 'walk': the coefficient of 'risk' is inf"):
            Utility({"go": {"walk": {"risk": math.inf}}})


@pytest.mark.parametrize("table", [[[0.2, 0.8]], 1.0, torch.tensor(1.0)])
def test_a_table_that_is_no_tensor_of_rows_is_refused(table):
    with pytest.raises(InputError, match=r"decision 'mask': a table of .* was given; give a tensor"):
        Tabulated({"mask": table})
