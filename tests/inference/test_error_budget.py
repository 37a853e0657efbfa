"""The error budget is the error of sampled answers by archetype, and a survey's estimate of it is without bias."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from lpmppl.effects.handlers import LanguageModel
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError
from lpmppl.inference.error_budget import Budget, error_budget, surveyed_budget
from lpmppl.inference.omitted import omitted
from tests.effects.language.sources import Sampled

chances = st.floats(0.0, 1.0)


def logistic(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def society(n: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Five traits in 0 … 7 of everybody, shape (N, 5), and everybody's probability, which depends on them all."""
    rng = np.random.default_rng(seed)
    traits = rng.integers(0, 8, (n, 5))
    slopes = np.array([0.35, -0.2, 0.15, 0.1, 0.25])
    return traits, logistic(0.3 + (traits - 3.5) @ slopes + rng.normal(0.0, 0.3, n))


def kinds(traits: np.ndarray, levels: Sequence[int]) -> np.ndarray:
    """Archetypes of the first traits, each made coarser: to 2, 3, … levels."""
    code = np.zeros(len(traits), dtype=np.int64)
    for column, many in zip(traits.T, levels, strict=False):
        code = code * many + column * many // 8
    return code


LEVELS = {8: (2, 2, 2), 27: (3, 3, 3), 125: (5, 5, 5), 512: (8, 8, 8)}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(chances, st.integers(0, 2), st.integers(1, 5)), min_size=1, max_size=6), st.data())
def test_the_budget_is_the_expected_error_over_all_answers(rows: list[tuple[float, int, int]], data: Any) -> None:
    """By enumeration: every number of answers out of M_k, with its binomial probability."""
    p, code, w = (np.array(x) for x in zip(*rows, strict=True))
    samples = data.draw(st.lists(st.integers(1, 6), min_size=3, max_size=3))
    share = w / w.sum()
    expected = 0.0
    for k in set(code.tolist()):
        mine = code == k
        mean = float(np.average(p[mine], weights=w[mine]))
        for x in range(samples[k] + 1):
            error = float(share[mine] @ (x / samples[k] - p[mine]) ** 2)
            ways = math.comb(samples[k], x)
            expected += ways * mean**x * (1 - min(mean, 1.0)) ** (samples[k] - x) * error
    found = error_budget(p, code, samples, w)
    assert found.total == pytest.approx(expected, abs=1e-9)
    assert found.between + found.within == pytest.approx(float(np.cov(p, aweights=share, ddof=0)), abs=1e-9)


def test_an_answer_varies_as_the_archetypes_mean_does_and_not_as_individuals_do() -> None:
    found = error_budget([0.0, 1.0], [0, 0], samples=1)
    assert (found.within, found.sampling, found.spread, found.total) == (0.25, 0.25, 0.25, 0.5)


@pytest.mark.parametrize("many", [8, 27, 125])
@pytest.mark.parametrize("samples", [2, 5, 10, 50])
def test_the_budget_predicts_the_measured_error_within_ten_per_cent(many: int, samples: int) -> None:
    """Two hundred repetitions; the measured mean is then off by under 2 %, so a failure is a defect."""
    traits, p = society()
    code = kinds(traits, LEVELS[many])
    mean = np.bincount(code, p) / np.bincount(code)
    assert len(mean) == many
    rng = np.random.default_rng(many * 100 + samples)
    measured = np.mean([((rng.binomial(samples, mean) / samples)[code] - p) ** 2 for _ in range(200)])
    found = error_budget(p, code, samples)
    assert found.total == pytest.approx(measured, rel=0.1)
    # Neither part alone is within ten per cent, where samples are few, and where they aren't.
    assert found.within < 0.9 * measured or samples == 50
    assert found.sampling < 0.9 * measured


def test_of_few_samples_more_archetypes_gain_little_and_of_many_they_do() -> None:
    """A language model that has every trait right, asked the same number of questions in all, or as many of each."""
    traits, p = society()
    few, many = (error_budget(p, kinds(traits, LEVELS[k]), 5) for k in (27, 512))
    assert few.sampling > 1.5 * (few.within - many.within)
    assert many.total > 0.8 * few.total
    assert many.explained > few.explained
    same = error_budget(p, kinds(traits, LEVELS[512]), 27 * 100 / 512)
    assert same.total > error_budget(p, kinds(traits, LEVELS[27]), 100).total


PROMPTS = {"mask": "Day {{ again }}: {{ age }}, {{ work }}, {{ home }}. {{ options | join('/') }}?"}
OPTIONS = ("mask", "no mask")


def asked_through(samples: int, at_once: bool, times: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The handler's shares (repetition, K) and how many answers each is of; everybody's probability and archetype."""
    traits, p = society(4000, seed=1)
    code = kinds(traits, (3, 3, 3))
    mean, people = np.bincount(code, p) / np.bincount(code), np.bincount(code)
    labels = {name: tuple(f"{name}{level}" for level in range(3)) for name in ("age", "work", "home")}
    table = torch.cartesian_prod(*[torch.arange(3)] * 3)

    def place(prompt: str) -> tuple[int, int]:
        day, *levels = map(int, re.findall(r"(\d+)(?:\.0)?[:,.]", prompt))
        return day, levels[0] * 9 + levels[1] * 3 + levels[2]

    source = Sampled(lambda prompt, _: [float(mean[place(prompt)[1]]), 1.0 - float(mean[place(prompt)[1]])])
    again = torch.arange(float(times)).unsqueeze(-1)
    with LanguageModel(source, PROMPTS, samples=samples):
        if at_once:
            due = torch.from_numpy(people).expand(times, 27)
            found = decide("mask", table, OPTIONS, {"attributes": labels, "again": again, "due": due})[..., 0]
        else:
            found = torch.empty(times, 27)
            for day, k in itertools.product(range(times), range(27)):
                context = {"attributes": labels, "again": float(day)}
                found[day, k] = decide("mask", table[k : k + 1], OPTIONS, context)[0, 0]
    many = np.zeros((times, 27))
    for prompt, _ in source.asked:
        many[place(prompt)] += 1
    return found.double().numpy(), many, p, code


@pytest.mark.parametrize("samples", [2, 5, 10])
def test_the_budget_predicts_the_error_of_a_language_model_asked_alone(samples: int) -> None:
    """One archetype a decision has all of its M answers; a source gives the same ones each time."""
    found, many, p, code = asked_through(samples, at_once=False, times=50)
    assert (many == samples).all()
    assert error_budget(p, code, samples).total == pytest.approx(((found[:, code] - p) ** 2).mean(), rel=0.1)


@pytest.mark.parametrize("samples", [5, 10])
def test_the_budget_predicts_the_error_of_a_language_model_that_allots_its_samples(samples: int) -> None:
    found, many, p, code = asked_through(samples, at_once=True, times=150)
    assert many.sum() == samples * 27 * 150 and many.std() > 0.5
    budget = error_budget(p, code, many)
    assert np.mean(budget.total) == pytest.approx(((found[:, code] - p) ** 2).mean(), rel=0.1)


def test_a_surveys_estimates_are_without_bias() -> None:
    """By enumeration: every possible survey of four cells, with its probability."""
    p, n, code = np.array([0.2, 0.7, 0.5, 0.9]), np.array([2, 3, 4, 2]), np.array([0, 0, 1, 1])
    weight = np.array([1.0, 2.0, 1.0, 4.0])
    inside = between = spread = 0.0
    for x in itertools.product(*(range(m + 1) for m in n)):
        chance = float(np.prod(binom.pmf(x, n, p)))
        found = surveyed_budget(x, n, code, weight=weight, resamples=2)
        inside, between = inside + chance * found.within, between + chance * found.between
        spread += chance * found.spread
    true = error_budget(p, code, weight=weight)
    assert (inside, between, spread) == pytest.approx((true.within, true.between, true.spread), abs=1e-10)


def test_without_the_noise_taken_off_a_survey_shows_variance_where_there_is_none() -> None:
    """Failure rate below 1e-4: four standard errors of a mean of 200 surveys."""
    rng = np.random.default_rng(0)
    n, code = rng.integers(10, 40, 60), np.arange(60) // 10
    each = [surveyed_budget(rng.binomial(n, 0.8), n, code, resamples=2).within for _ in range(200)]
    assert abs(np.mean(each)) < 4 * np.std(each) / math.sqrt(200)
    assert np.min(each) < 0
    naive = [error_budget(rng.binomial(n, 0.8) / n, code, weight=n).within for _ in range(20)]
    assert np.mean(naive) > 10 * abs(np.mean(each))


def test_the_bootstraps_standard_error_is_how_far_surveys_scatter() -> None:
    """Failure rate below 1e-4: the scatter of 400 surveys is known to 4 %, and the bootstrap is a little large."""
    rng = np.random.default_rng(2)
    p, n, code = logistic(rng.normal(0.5, 0.7, 40)), rng.integers(30, 90, 40), np.arange(40) // 8
    found = [surveyed_budget(rng.binomial(n, p), n, code, resamples=200, seed=k) for k in range(400)]
    scatter = np.std([f.within for f in found], ddof=1)
    assert 0.9 < np.mean([f.standard_error for f in found]) / scatter < 1.35
    again = surveyed_budget(n // 2, n, code, seed=3)
    assert again == surveyed_budget(n // 2, n, code, seed=3)
    assert again.standard_error != surveyed_budget(n // 2, n, code, seed=4).standard_error


@given(st.floats(1e-4, 0.1), st.floats(1e-3, 0.25), st.floats(0.01, 0.9))
def test_enough_is_the_fewest_samples_beyond_which_little_is_gained(inside: float, spread: float, gain: float) -> None:
    enough = Budget(0.0, inside, spread).enough(gain)
    assert spread / enough <= gain * (inside + spread / enough) * (1 + 1e-9)
    if enough > 1:
        assert spread / (enough - 1) > gain * (inside + spread / (enough - 1)) * (1 - 1e-9)


def test_where_nothing_varies_within_archetypes_samples_always_gain() -> None:
    assert error_budget([0.3, 0.6], [0, 1]).enough() == math.inf
    assert error_budget([0.0, 1.0], [0, 1]).enough() == 1


def test_draws_and_tensors_have_a_budget_each() -> None:
    p = torch.tensor([[0.1, 0.3, 0.6], [0.5, 0.5, 0.5]], dtype=torch.float64)
    found = error_budget(p, torch.tensor([0, 0, 1]), torch.tensor([[2, 4], [5, 5]]))
    for draw in range(2):
        one = error_budget(p[draw], [0, 0, 1], [[2, 4], [5, 5]][draw])
        for part in ("between", "within", "spread", "sampling", "total"):
            assert getattr(found, part)[draw] == pytest.approx(getattr(one, part), abs=1e-15)
    assert found.explained[0] == pytest.approx(one_explained(p[0]))
    assert math.isnan(found.explained[1])


def one_explained(p: torch.Tensor) -> float:
    mean = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    return float(mean.var(correction=0) / p.var(correction=0))


@pytest.mark.parametrize("many", [8, 125, 512])
def test_an_attribute_missing_from_the_prompt_leaves_a_bias_at_any_number_of_archetypes(many: int) -> None:
    """Everything else but the fifth trait may be told as finely as one likes, by exact probabilities."""
    traits, p = society()
    code = kinds(traits, LEVELS[many])
    mean = (np.bincount(code, p) / np.bincount(code))[code]
    left = np.where(traits[:, 4] < 4, "low", "high")
    found = omitted(mean, p, left, code)
    bias = found["bias"].sel(label=["low", "high"]).values
    assert bias[0] > 0.09 and bias[1] < -0.09
    assert (abs(found["bias"] / found["standard_error"]) > 50).all()
    for label, value in zip(("low", "high"), bias, strict=True):
        assert value == pytest.approx((mean - p)[left == label].mean())
    inside = error_budget(p, code).within
    told = error_budget(p, code * 2 + (left == "low"))
    assert float(found["explained"]) == pytest.approx(inside - told.within)
    assert float(found["share"]) == pytest.approx(1 - told.within / inside)
    assert 0.3 < float(found["share"]) < 0.6


def test_an_attribute_that_is_told_leaves_none() -> None:
    traits, p = society()
    code = kinds(traits, LEVELS[512])
    mean = (np.bincount(code, p) / np.bincount(code))[code]
    found = omitted(mean, p, traits[:, 0], code)
    assert abs(found["bias"]).max() < 1e-12
    assert abs(float(found["explained"])) < 1e-12


def test_of_a_survey_what_an_omitted_attribute_makes_is_without_bias_and_its_errors_are_right() -> None:
    """Failure rate below 1e-3: four standard errors of a mean of 300 surveys; z² of each label has the mean 1."""
    rng = np.random.default_rng(5)
    code, label = np.arange(48) // 8, np.arange(48) % 2
    p, n = logistic(0.5 + 0.5 * (label - 0.5) + rng.normal(0, 0.4, 48)), rng.integers(40, 120, 48)
    exact = omitted(np.full(48, 0.6), p, label, code, weight=n)
    every = [omitted(np.full(48, 0.6), rng.binomial(n, p) / n, label, code, respondents=n) for _ in range(300)]
    made = np.array([float(f["explained"]) for f in every])
    assert abs(made.mean() - float(exact["explained"])) < 4 * made.std() / math.sqrt(300)
    z = np.array([((f["bias"] - exact["bias"]) / f["standard_error"]).values for f in every])
    assert abs((z**2).mean() - 1) < 4 * math.sqrt(2 / z.size)


def test_rows_of_nobody_and_draws_leave_the_rest_as_it_is() -> None:
    p, label, code = [0.2, 0.4, 0.9], ["a", "b", "b"], [0, 0, 1]
    draws = omitted([[0.3, 0.3, 0.9], [0.5, 0.5, 0.5]], p, label, code, weight=[1, 2, 0])
    assert draws["bias"].dims == ("draw", "label")
    assert draws["bias"].values == pytest.approx(np.array([[0.1, -0.1], [0.3, 0.1]]))
    assert draws["share_of_people"].values == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: error_budget([0.2, 1.2], [0, 0]), "1.2"),
        (lambda: error_budget([0.2, math.nan], [0, 0]), "nan"),
        (lambda: error_budget(["x"], [0]), "numbers from 0 to 1"),
        (lambda: error_budget([0.2, 0.3], [0, [1]]), "code of each of 2"),
        (lambda: error_budget([0.2, 0.3], [0, 1], weight="all"), "number of each of 2"),
        (lambda: omitted([0.5], [0.5], [["a"], ["b", "c"]], [0]), "label of each"),
        (lambda: error_budget(0.2, [0]), "shape ()"),
        (lambda: error_budget([0.2, 0.3], [0, -1]), "0 or more"),
        (lambda: error_budget([0.2, 0.3], [0.0, 1.0]), "float64"),
        (lambda: error_budget([0.2, 0.3], [0, 1], samples=0), "1 or more"),
        (lambda: error_budget([0.2, 0.3], [0, 1], samples=[3]), "each of 2"),
        (lambda: error_budget([0.2, 0.3], [0, 1], samples="many"), "numbers"),
        (lambda: error_budget([0.2, 0.3], [0, 1], weight=[0, 0]), "not all of them 0"),
        (lambda: error_budget([0.2, 0.3], [0, 1]).enough(1.0), "0.1"),
        (lambda: surveyed_budget([1, 1], [1, 4], [0, 0]), "two respondents"),
        (lambda: surveyed_budget([5, 1], [4, 4], [0, 0]), "no more chose"),
        (lambda: surveyed_budget([1.5, 1], [4, 4], [0, 0]), "whole numbers"),
        (lambda: surveyed_budget([-1, 1], [4, 4], [0, 0]), "below 0"),
        (lambda: surveyed_budget([1, 1], [4, 4], [0, 0], resamples=1), "resamples=1"),
        (lambda: omitted([0.5], [0.5], ["a", "b"], [0]), "label of each"),
        (lambda: omitted([0.5], [[0.5]], ["a"], [0]), "truth"),
        (lambda: omitted([0.5], [0.5], ["a"], [0], respondents=[1]), "two or more"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as error:
        call()
    assert "\n" not in str(error.value)


def test_the_global_random_state_is_left_alone() -> None:
    before, kept = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    surveyed_budget([5, 9], [10, 10], [0, 0])
    assert torch.equal(before, torch.get_rng_state())
    assert (kept == np.random.get_state()[1]).all()  # noqa: NPY002
