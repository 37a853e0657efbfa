"""Random utility fitted to choices: against what made them, and against statsmodels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lpmppl as lpm
from lpmppl.effects.choices import Choices
from lpmppl.effects.handlers import Decided, Utility
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError, LpmError

LABELS = {"age": ("young", "old"), "savings": ("enough", "low", "none")}
TABLE = torch.tensor(list(itertools.product(range(2), range(3))))
OPTIONS = ("walk", "ride", "stay")
BETA = {
    "walk": {"intercept": 0.4, "risk": -0.7, "age=old": -1.1, "age=old × savings=low": 0.9},
    "ride": {"risk": -0.2, "savings=none": -2.0},
}


def chosen(beta=BETA, options=OPTIONS, due=None) -> Choices:
    """What utilities choose at three levels of risk."""
    risk = torch.tensor([0.0, 0.5, 3.0]).reshape(3, 1)
    context = {"attributes": LABELS, "risk": risk} | ({} if due is None else {"due": due})
    with Decided() as kept, Utility({"go": beta}):
        decide("go", TABLE, options, context)
    return kept["go"]


def respondents(n: int, seed: int) -> pd.DataFrame:
    """Answers of n people to whether they go, by a logit of their age and income."""
    rng = np.random.default_rng(seed)
    old, income = rng.random(n) < 0.4, rng.normal(size=n).round(1)
    goes = rng.random(n) < 1 / (1 + np.exp(-(0.5 - 1.0 * old + 0.8 * income)))
    return pd.DataFrame({"age": np.where(old, "old", "young"), "income": income, "go": 1.0 * goes, "stay": 1.0 - goes})


def test_utilities_are_found_again_from_what_they_choose():
    choices = chosen()
    found = lpm.fit_utility(choices, {option: list(features) for option, features in BETA.items()})
    for option, features in BETA.items():
        assert found.coefficients[option] == pytest.approx(features, abs=1e-4)
    # The probabilities that were kept are float32.
    assert abs(found.divergence) < 1e-12
    with Utility({"go": found.coefficients}):
        again = decide("go", choices.codes, OPTIONS, choices.context)
    assert torch.allclose(again.double(), choices.chance, atol=1e-6)


def test_what_features_do_not_tell_is_said():
    choices = chosen()
    whole = {option: list(features) for option, features in BETA.items()}
    less = {**whole, "walk": ["intercept", "risk", "age=old"]}
    first, second, third = (
        lpm.fit_utility(choices, f) for f in (whole, less, {"walk": ["intercept"], "ride": ["intercept"]})
    )
    assert 1e-3 < second.divergence < third.divergence
    assert first.log_likelihood > second.log_likelihood > third.log_likelihood
    assert third.log_likelihood == pytest.approx(third.null)
    nats = float(choices.weight.sum())
    assert (first.log_likelihood - second.log_likelihood) / nats == pytest.approx(second.divergence - first.divergence)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_estimates_and_standard_errors_are_those_of_statsmodels(seed: int):
    table = respondents(300, seed)
    survey = Choices.of("go", ("go", "stay"), table, ["age"], ["income"])
    found = lpm.fit_utility(survey, ["intercept", "age=old", "income"])
    x = np.stack([np.ones(300), table["age"] == "old", table["income"]], axis=1).astype(float)
    fit = sm.Logit(table["go"].to_numpy(), x).fit(disp=0)
    assert list(found.coefficients["go"].values()) == pytest.approx(fit.params, abs=1e-5)
    assert list(found.standard_errors["go"].values()) == pytest.approx(np.sqrt(np.diag(fit.cov_params())), rel=1e-4)
    assert found.log_likelihood == pytest.approx(fit.llf)
    assert found.null == pytest.approx(fit.llnull)


def test_three_options_are_those_of_statsmodels():
    rng = np.random.default_rng(0)
    income = rng.normal(size=500).round(2)
    answer = rng.integers(0, 3, 500)
    table = pd.DataFrame({"income": income, **{o: 1.0 * (answer == k) for k, o in enumerate(OPTIONS)}})
    found = lpm.fit_utility(Choices.of("go", OPTIONS, table, [], ["income"]), ["intercept", "income"])
    # statsmodels has the first option for reference, this package the last.
    fit = sm.MNLogit((answer + 1) % 3, sm.add_constant(income)).fit(disp=0)
    errors = np.sqrt(np.diag(fit.cov_params())).reshape(2, 2).T
    for k, option in enumerate(OPTIONS[:2]):
        assert list(found.coefficients[option].values()) == pytest.approx(fit.params[:, k], abs=1e-5)
        assert list(found.standard_errors[option].values()) == pytest.approx(errors[:, k], rel=1e-4)


def test_respondents_one_by_one_are_a_table_of_their_numbers():
    each = respondents(400, 1)
    each["income"] = each["income"].round()
    together = each.groupby(["age", "income"], as_index=False)[["go", "stay"]].sum()
    one, other = (
        lpm.fit_utility(Choices.of("go", ("go", "stay"), t, ["age"], ["income"]), ["intercept", "age=old", "income"])
        for t in (each, together)
    )
    assert one.coefficients["go"] == pytest.approx(other.coefficients["go"])
    assert one.standard_errors["go"] == pytest.approx(other.standard_errors["go"])


def test_the_order_of_options_changes_signs_alone():
    table = respondents(200, 2)
    one = lpm.fit_utility(Choices.of("go", ("go", "stay"), table, ["age"], ["income"]), ["intercept", "income"])
    other = lpm.fit_utility(Choices.of("go", ("stay", "go"), table, ["age"], ["income"]), ["intercept", "income"])
    assert one.coefficients["go"] == pytest.approx({f: -b for f, b in other.coefficients["stay"].items()})


def test_intervals_hold_the_truth_as_often_as_they_say():
    # 200 surveys: an interval of 90 % holds in 163 to 195 of them but for one time in a thousand.
    held = 0
    for seed in range(200):
        survey = Choices.of("go", ("go", "stay"), respondents(400, seed), ["age"], ["income"])
        found = lpm.fit_utility(survey, ["intercept", "age=old", "income"])
        off = found.coefficients["go"]["age=old"] + 1.0
        held += abs(off) < 1.6449 * found.standard_errors["go"]["age=old"]
    assert 163 <= held <= 195


def test_agents_who_decide_stand_for_as_many_answers_as_is_said():
    choices = chosen(due=torch.full((6,), 1e6))
    features = {option: list(features) for option, features in BETA.items()}
    million, some = lpm.fit_utility(choices, features), lpm.fit_utility(choices, features, answers=180.0)
    assert million.coefficients["walk"] == pytest.approx(some.coefficients["walk"], abs=1e-6)
    ratio = some.standard_errors["walk"]["risk"] / million.standard_errors["walk"]["risk"]
    assert ratio == pytest.approx(math.sqrt(18e6 / 180.0))


def test_choices_that_a_feature_tells_with_certainty_have_no_maximum_but_with_a_prior():
    table = pd.DataFrame({"age": ["old", "young"], "go": [0, 30], "stay": [20, 10]})
    survey = Choices.of("go", ("go", "stay"), table, ["age"])
    with pytest.raises(LpmError, match=r"no maximum, as 'age=old' of option 'go'.*prior_sd="):
        lpm.fit_utility(survey, ["intercept", "age=old"])
    loose, tight = (lpm.fit_utility(survey, ["intercept", "age=old"], prior_sd=sd) for sd in (2.0, 0.5))
    assert loose.coefficients["go"]["age=old"] < tight.coefficients["go"]["age=old"] < 0


@pytest.mark.parametrize(
    ("features", "more", "words"),
    [
        (["intercept", "age=old", "age=young"], {}, "'age=young' of option 'go' tells nothing apart"),
        (["income", "intercept", "intercept"], {}, "each once"),
        ([], {}, "one or more"),
        ("intercept", {}, "a list of names"),
        (["age=older"], {}, "unknown age in decision 'go' 'older'"),
        (["incom"], {}, "did you mean 'income'"),
        ({"stay": ["intercept"]}, {}, "unknown option of decision 'go' with features 'stay'"),
        (["intercept"], {"prior_sd": 0.0}, "prior_sd=0.0"),
        (["intercept"], {"answers": -1.0}, "answers=-1.0"),
    ],
)
def test_what_can_not_be_fitted_is_refused(features, more, words):
    survey = Choices.of("go", ("go", "stay"), respondents(50, 3), ["age"], ["income"])
    with pytest.raises(InputError, match=words):
        lpm.fit_utility(survey, features, **more)


def test_numbers_far_from_zero_have_a_maximum():
    rng = np.random.default_rng(0)
    year = rng.integers(2000, 2021, 2_000)
    goes = rng.random(2_000) < 1 / (1 + np.exp(-0.1 * (year - 2010)))
    table = pd.DataFrame({"year": year, "since": year - 2010, "go": 1.0 * goes, "stay": 1.0 - goes})
    surveys = {name: Choices.of("go", ("go", "stay"), table, [], [name]) for name in ("year", "since")}
    far, near = (lpm.fit_utility(c, ["intercept", name]).coefficients["go"][name] for name, c in surveys.items())
    assert far == pytest.approx(near, rel=1e-6)
    assert near == pytest.approx(0.1, abs=0.03)


def test_an_option_that_nobody_chooses_is_said():
    table = pd.DataFrame({"age": ["old", "young"], "go": [20, 30], "stay": [0, 0]})
    survey = Choices.of("go", ("go", "stay"), table, ["age"])
    with pytest.raises(LpmError, match=r"option 'go' is always or never chosen"):
        lpm.fit_utility(survey, ["intercept"], prior_sd=2.0)
