"""Derivatives by differences among the same chance, where they are known and where they aren't."""

import math
import warnings

import numpy as np
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.ops import happens, tally
from lpmppl.errors import InputError, LpmError
from lpmppl.inference import differences, estimation
from lpmppl.inference.audit import Audit
from lpmppl.inference.differences import _together, slope
from lpmppl.inference.flipping import Question
from lpmppl.inference.readings import reading_of
from lpmppl.inference.smaller import against_whole
from lpmppl.models.model import Model, Parameter
from lpmppl.models.population import Population
from tests.laws.conftest import MODELS, sir_in_households

AGENTS, RATE = 20_000, 0.05


class Decay(Model):
    """Everybody leaves at one rate, each by themselves: all expectations are known."""

    name = "decay"

    def __init__(self, agents=AGENTS):
        self.population = Population.of({"half": np.arange(agents) % 2})
        self.by = self.population.strata(half="half")
        self.parameters = {
            "rate": Parameter(dist.LogNormal(math.log(RATE), 0.3), RATE, "rate", "per day", "chosen"),
            "idle": Parameter(dist.Beta(2.0, 2.0), 0.5, "nothing", "share", "chosen"),
            "whole": Parameter(dist.Poisson(3.0), 3.0, "a count", "people", "chosen"),
        }
        self.environment = {}
        self.tallies = {"left": "people who leave", "staying": "people who stay"}

    def initial(self, theta, start=0.0):
        n = self.population.size
        return {"hazard": torch.zeros(n, dtype=torch.float64), "here": torch.ones(n, dtype=torch.bool)}

    def day(self, theta):
        def step(s):
            leaving = Exposure(s["hazard"], theta["rate"].double(), at_risk=s["here"], dt=s["dt"])
            with self.population.plate():
                left, _ = happens("leaving", leaving)
            here = s["here"] & ~left
            tally("left", left, by=self.by)
            tally("staying", here, by=self.by, stock=True)
            return {"hazard": leaving.after, "here": here}

        return step


def test_derivatives_that_are_known_are_found():
    """Failure rate 1e-4 or less: within 4.5 of its own standard errors, in all and day by day and by half."""
    model, days = Decay(), 20
    found = lpm.sensitivity(model, "left", ["rate", "idle"], days, draws=12, step=0.3, audit=False)
    exact = AGENTS * days * math.exp(-RATE * days)
    rate = found.sel(parameter="rate")
    assert abs(float(rate["value"]) - exact) < 4.5 * float(rate["se"]) and float(rate["se"]) < 0.1 * exact
    assert float(rate["low"]) < float(rate["value"]) < float(rate["high"])
    share = 1 - math.exp(-RATE * days)
    assert float(rate["elasticity"]) == pytest.approx(float(rate["value"]) * RATE / (AGENTS * share), rel=0.02)
    assert found.attrs["without_effect"] == ["idle"] and float(abs(found["value"].sel(parameter="idle"))) == 0
    assert found["value"].attrs["units"] == "people per unit of the parameter"
    stock = lpm.sensitivity(model, "staying", "rate", days, draws=12, step=0.3, audit=False)
    assert stock["value"].values == pytest.approx(-rate["value"].values.reshape(1))
    daily = lpm.sensitivity(model, "left", "rate", days, draws=12, step=0.3, daily=True, by="half", audit=False)
    assert daily["value"].dims == ("parameter", "day", "half")
    assert float(daily["value"].sum()) == pytest.approx(float(rate["value"]))
    day = np.arange(days)[:, None]
    curve = AGENTS / 2 * ((day + 1) * np.exp(-RATE * (day + 1)) - day * np.exp(-RATE * day))
    off = (daily["value"][0] - curve) / daily["se"][0]
    assert float(abs(off).max()) < 12 and float((off**2).mean()) < 2.5  # t of 11 degrees of freedom, 40 of them


def test_the_same_chance_makes_them_sharper_than_seeds_of_their_own():
    model = MODELS["seirm_in_layers"]()
    options = {"days": 30, "set": {"initial_infected": 0.03, "beta": 0.05}}
    found = lpm.sensitivity(model, "infections", "beta", draws=12, audit=False, **options).isel(parameter=0)
    width = 0.002
    apart = [
        float(
            lpm.run(model, seed=s, days=30, set={"initial_infected": 0.03, "beta": b})["prior_predictive"][
                "infections"
            ].sum()
        )
        for s, b in enumerate([0.05 + width, 0.05 - width] * 12)
    ]
    each = (np.array(apart[::2]) - np.array(apart[1::2])) / (2 * width)
    assert float(found["se"]) < 0.5 * each.std(ddof=1) / math.sqrt(12)
    assert abs(float(found["value"]) - each.mean()) < 4.5 * math.hypot(float(found["se"]), each.std(ddof=1) / 12**0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": "lef"}, "did you mean 'left'"),
        ({"estimator": "flip"}, "did you mean 'flips'"),
        ({"flips": 0}, "flips=0"),
        ({"wrt": ["rat"]}, "did you mean 'rate'"),
        ({"wrt": []}, "names no parameter"),
        ({"wrt": ["whole"]}, "is a whole number"),
        ({"draws": 1}, "draws=1"),
        ({"step": 0.0}, "step=0"),
        ({"step": math.nan}, "step=nan"),
        ({"level": 1.0}, "level=1"),
        ({"by": "hal"}, "did you mean 'half'"),
        ({"set": {"idle": 1.0}, "wrt": ["idle"]}, "no room for a step"),
        ({"days": 0}, "days=0"),
    ],
)
def test_what_cant_be_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        lpm.sensitivity(Decay(), **{"of": "left", "wrt": "rate", "days": 2, "draws": 2, **options})


def test_the_audit_stands_beside_it_and_warns_where_they_are_apart():
    """Over steps of half a standard deviation the curve isn't straight: the half step says so."""
    model = Decay()
    model.parameters = {**model.parameters, "rate": Parameter(dist.LogNormal(math.log(RATE), 1.5), RATE, "", "", "")}
    with pytest.warns(UserWarning, match="the derivative .* by differences of other draws over half the step"):
        found = lpm.sensitivity(model, "left", ["rate", "idle"], 20, draws=8, step=1.0)
    assert found.attrs["audited"] == ["rate"] and math.isnan(float(found["difference"].sel(parameter="idle")))
    exact = AGENTS * 20 * math.exp(-RATE * 20)
    rate = found.sel(parameter="rate")
    assert abs(float(rate["difference"]) - exact) < abs(float(rate["value"]) - exact)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = lpm.sensitivity(Decay(), "left", ["rate", "idle"], 20, draws=8)
    assert fine["along"].dims == ("direction",) and float(abs(fine["along"] - fine["along_difference"]).max()) < 300
    days = lpm.sensitivity(Decay(), "left", "rate", 3, draws=2, daily=True, by="half")
    assert days["difference"].shape == (1, 3, 2) and days["along"].shape == (3, 3, 2)


def test_the_audit_says_how_far_apart_they_are_where_nothing_scatters():
    question = Question(Decay(), {"rate": RATE}, ["rate"], "left", lambda x: x, 2, 0)
    one = xr.Dataset({"value": ("parameter", [2.0]), "se": ("parameter", [0.0])}, {"parameter": ["rate"]})
    both = one.assign(difference=("parameter", [1.0]), difference_se=("parameter", [0.0]))
    nothing = {n: ("direction", np.zeros(3)) for n in ("along", "along_se", "along_difference", "along_difference_se")}
    with pytest.warns(UserWarning, match="is 2, but 1 .* inf standard errors apart"):
        Audit(question, np.zeros((2, 1, 1)), 0.1, 2, ())._warn(both.assign(nothing), ["rate"])


def test_rows_are_tried_no_more_at_once_than_they_are_run(monkeypatch):
    model, seen = Decay(), []
    monkeypatch.setattr(differences, "ROWS", 2 * AGENTS)
    initial = model.initial
    model.initial = lambda theta, start=0.0: seen.append(theta["rate"].numel()) or initial(theta, start)
    lpm.sensitivity(model, "left", ["rate", "idle"], 3, draws=2, audit=False)
    assert max(seen) == 2


class Idle(Decay):
    """With five parameters of which nothing comes."""

    def __init__(self, agents=AGENTS):
        super().__init__(agents)
        self.parameters |= {f"idle{k}": self.parameters["idle"] for k in range(4)}


def test_what_moves_nothing_in_a_draw_is_moved_together_in_others(monkeypatch):
    """And by itself in draws in which something comes of that, so that derivatives are those of each by itself."""
    asked, ours = [], estimation.differences

    def noted(question, chances, ways):
        asked.append((list(chances), [sorted(above) for above, _, _ in ways]))
        found, base = ours(question, chances, ways)
        for d, chance in enumerate(chances):
            for k, (above, _, width) in enumerate(ways):
                # In these draws one of them moves what is counted by one, and another a day alone.
                found[d, k, [0, -1]] += 1 / width if chance == 2 and "idle1" in above else 0
                found[d, k, -1] += 1 / width if chance == 5 and "idle3" in above else 0
        return found, base

    names, idle = ["rate", "idle", *(f"idle{k}" for k in range(4))], [["idle"], *([f"idle{k}"] for k in range(4))]
    expected = lpm.sensitivity(Idle(), "left", "rate", 5, draws=7, audit=False)
    monkeypatch.setattr(estimation, "differences", noted)
    found = lpm.sensitivity(Idle(), "left", names, 5, draws=7, audit=False)
    assert asked == [
        ([0], [["rate"], *idle]),
        ([1, 2, 3, 4, 5, 6], [["rate"], sorted(names[1:])]),
        ([2, 5], idle),
    ]
    rate = float(found["value"].sel(parameter="rate"))
    assert rate == pytest.approx(float(expected["value"].sel(parameter="rate")), rel=1e-6)
    assert float(found["value"].sel(parameter="idle1")) > 0 == float(found["value"].sel(parameter="idle3"))
    assert found.attrs["without_effect"] == ["idle", "idle0", "idle2", "idle3"] and found.attrs["draws"] == 7


def test_who_was_moved_once_is_moved_alone_when_draws_go_on(monkeypatch):
    asked, ours = [], estimation.differences
    monkeypatch.setattr(
        estimation,
        "differences",
        lambda q, c, ways: (asked.append([len(above) for above, _, _ in ways]), ours(q, c, ways))[1],
    )
    lpm.sensitivity(Idle(200), "left", "all", 3, draws=3, audit=False, precision=0.2)
    assert asked[:2] == [[1] * 6, [1, 5]] and all(ways == [1, 5] for ways in asked[2:]) and len(asked) > 2


def test_what_moves_a_day_alone_is_drawn_on():
    """Who leaves later leaves all the same: it comes to nothing in all, and isn't nothing."""

    class Late(Decay):
        def day(self, theta):
            before = super().day

            def step(s):
                late = float(s["t"]) < 2.0
                return before({"rate": theta["rate"] * 0 + (theta["idle"] if late else 40.0)})(s)

            return step

    found = lpm.sensitivity(Late(), "left", ["idle"], 4, draws=6, audit=False)
    daily = lpm.sensitivity(Late(), "left", ["idle"], 4, draws=6, audit=False, daily=True)
    assert float(found["value"][0]) == 0.0 and float(daily["value"][0, 0]) > 0
    assert (daily["se"][0] > 0).any()


def test_the_audit_alone():
    found = lpm.audit(Decay(), "left", ["rate", "idle"], 10, draws=6, estimator="flips", flips=40)
    assert list(found["parameter"].values) == ["rate"] and list(found["estimator"].values) == ["flips"]
    assert abs(float(found["ratio"][0]) - 1) < 5 * float(found["ratio_se"][0]) < 1
    assert "at" not in found and found.sizes["direction"] == 3


class Stubborn(Decay):
    """A program that reads its parameter as one number: it can't be run with several at once."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def day(self, theta):
        return super().day({**theta, "rate": torch.tensor(self.how(theta["rate"]))})


@pytest.mark.parametrize("how", [float, lambda x: float(x.max())])
def test_a_program_that_takes_no_rows_of_parameters_has_the_same_derivatives(how):
    options = {"days": 6, "draws": 3, "audit": False}
    plain = lpm.sensitivity(Decay(), "left", ["rate", "idle"], **options)
    found = lpm.sensitivity(Stubborn(how), "left", ["rate", "idle"], **options)
    assert found["value"].values == pytest.approx(plain["value"].values)


@pytest.mark.parametrize("name", MODELS)
def test_a_row_of_parameters_is_the_run_of_these_parameters(name):
    model = MODELS[name]()
    theta = {n: p.default for n, p in model.parameters.items()} | {"initial_infected": 0.03}
    sides = [{"beta": theta["beta"] * 1.3}, {"initial_infected": 0.05}, {}]
    # A course of infection that needs finer steps than the others' is solved in its own.
    sides += [{"production": theta["production"] * 1.5}] if "production" in theta else []
    read = lambda series: series.reshape(-1).astype(float)  # noqa: E731
    question = Question(model, theta, list(theta), "infections", read, 15, 0)
    (together,) = _together([question], 0, sides)
    for row, side in enumerate(sides):
        assert (together[row] == _together([question], 0, [side])[0][0]).all()
    assert (together[0] != together[2]).any() and (together[1] != together[2]).any()


def test_the_global_random_state_stays_as_it_was():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    lpm.sensitivity(Decay(), "left", "rate", 2, draws=2)
    assert torch.equal(before, torch.get_rng_state())


def test_draws_go_on_until_a_wanted_standard_error():
    """Those of the wanted share are on top of the first ones, which stay as they were."""
    model = sir_in_households()
    ask = {"wrt": ["beta", "gamma"], "days": 20, "audit": False, "set": {"initial_infected": 0.05}}
    few = lpm.sensitivity(model, "infections", draws=4, **ask)
    sharp = lpm.sensitivity(model, "infections", draws=4, precision=0.05, **ask)
    same = lpm.sensitivity(model, "infections", draws=sharp.attrs["draws"], **ask)
    assert sharp.attrs["draws"] > few.attrs["draws"] == 4
    assert sharp["value"].equals(same["value"])
    by_deviation = np.array([slope(model, {n: p.default for n, p in model.parameters.items()}, n) for n in ask["wrt"]])
    effect, error = sharp["value"] * by_deviation, sharp["se"] * np.abs(by_deviation)
    assert float(error.max()) <= 0.05 * float(abs(effect).max())


@pytest.mark.parametrize(("estimator", "precision"), [("flips", 0.03), ("score", 0.25)])
def test_flips_and_scores_draw_on_too(estimator, precision):
    model = sir_in_households()
    ask = {"days": 6, "audit": False, "set": {"initial_infected": 0.05, "beta": 0.4}, "estimator": estimator}
    wide = lpm.sensitivity(model, "infections", "beta", draws=4, flips=4, precision=precision, **ask)
    assert float(wide["se"][0]) <= precision * abs(float(wide["value"][0]))
    assert wide.attrs["draws"] > 4


def test_a_precision_out_of_reach_is_said(monkeypatch):
    monkeypatch.setattr(estimation, "_MOST", 8)
    with pytest.warns(UserWarning, match=r"after 8 draws the standard error is .* of the largest derivative"):
        found = lpm.sensitivity(
            sir_in_households(),
            "infections",
            "beta",
            6,
            draws=2,
            precision=1e-4,
            audit=False,
            set={"initial_infected": 0.05},
        )
    assert found.attrs["draws"] == 8


@pytest.mark.parametrize("precision", [0.0, 1.0, -0.1, float("nan")])
def test_a_precision_that_is_no_share_is_refused(precision):
    with pytest.raises(InputError, match="precision="):
        lpm.sensitivity(sir_in_households(), "infections", "beta", 6, precision=precision)


def test_a_large_society_is_audited_in_a_smaller_one(monkeypatch):
    from lpmppl.inference import sensitivity as module

    monkeypatch.setattr(module, "AUDITED", 5_000)
    small, large = Decay(4_000), Decay()
    ask = {"of": "left", "wrt": ["rate", "idle"], "days": 10, "draws": 8}
    alone = lpm.sensitivity(large, **ask)
    found = lpm.sensitivity(large, audit=small, **ask)
    assert alone.attrs["audited"] == [] and "audit_seconds" not in alone.attrs
    assert found["value"].equals(alone["value"])
    assert found.attrs["audited"] == ["rate"] and found.attrs["audited_agents"] == 4_000
    assert found.attrs["audit_seconds"] > 0
    rate = found.sel(parameter="rate")
    exact = AGENTS * 10 * math.exp(-RATE * 10)
    for name, error in (("difference", "difference_se"), ("audited_value", "audited_se")):
        assert abs(float(rate[name]) - exact) < 0.02 * exact + 4 * float(rate[error])
    assert float(rate["audited_se"]) > float(rate["se"])  # fewer agents, more scatter


class Crowded(Decay):
    """People leave the faster, the more there are: a smaller society says other things per head."""

    def day(self, theta):
        return super().day(theta | {"rate": theta["rate"] * (self.population.size / AGENTS) ** 0.2})


EXACT = AGENTS * 10 * math.exp(-RATE * 10)


@pytest.mark.parametrize("of", [Decay, Crowded])
def test_derivatives_in_a_smaller_society_are_made_those_of_the_whole(of):
    ask = {"of": "left", "wrt": ["rate", "idle"], "days": 10, "draws": 8, "within": of(4_000)}
    with warnings.catch_warnings():
        warnings.simplefilter("error" if of is Decay else "ignore")
        found = lpm.sensitivity(of(), **ask)
    rate, attrs = found.sel(parameter="rate"), found.attrs
    assert attrs["within_agents"] == 4_000 and attrs["audited"] == ["rate"]
    # The whole's own derivative has its chance too, which the ratio takes over: 2 % here.
    assert abs(float(rate["value"]) - EXACT) < 0.08 * EXACT
    assert abs(float(rate["difference"]) - float(rate["value"])) < 0.05 * EXACT
    # In a fifth of the agents people leave more slowly, and the share who do is the more elastic.
    slower = 10 * RATE * (0.2**0.2 if of is Crowded else 1.0)
    elasticity = lambda x: x / math.expm1(x)  # noqa: E731
    assert abs(attrs["ratio_to_whole"] - elasticity(10 * RATE) / elasticity(slower)) < 0.08
    assert float(rate["se"]) >= abs(attrs["ratio_to_whole"] - 1) * float(rate["value"])
    base = AGENTS * (1 - math.exp(-RATE * 10))
    assert float(rate["elasticity"]) == pytest.approx(EXACT * RATE / base, rel=0.04)
    by_half = lpm.sensitivity(of(), **ask | {"by": "half", "audit": False})
    assert by_half["value"].sum("half").values == pytest.approx(found["value"].values)


def test_a_whole_that_is_unlike_the_smaller_society_is_said():
    with pytest.warns(UserWarning, match="times that of 1,000 agents"):
        lpm.sensitivity(Crowded(), "left", "rate", 40, draws=16, within=Crowded(1_000), audit=False)


def test_derivatives_that_are_lost_in_noise_are_not_held_against_the_whole():
    with pytest.warns(UserWarning, match="lost in their noise"):
        each = np.array([3.0, -2.0, -3.0, 2.5]).reshape(-1, 1, 1)
        model = Decay()
        theta = {n: p.default for n, p in model.parameters.items()}
        asked = Question(model, theta, ["rate"], "left", reading_of(model, "left", theta, 5), 5, 0)
        whole = against_whole(asked, each, np.full((4, 1), 40.0), 1_000, 0.25)
    assert whole.factor == whole.base.sum() / 40 and math.isnan(whole.ratio) and whole.gap == 0.0


def test_what_never_happens_in_a_smaller_society_is_not_zero_in_the_whole():
    from tests.inference.test_predicted import society

    few, many = society(20), society(2_000)
    with pytest.raises(LpmError, match=r"none of infections in 2 draws of 20 agents, and .* in the whole society"):
        lpm.sensitivity(
            many, "infections", "beta", 5, draws=2, within=few, audit=False, set={"initial_infected": 0.005}
        )


@pytest.mark.filterwarnings("ignore:derivatives in 1,000 agents are lost")
def test_a_day_of_which_nothing_is_counted_in_a_smaller_society_is_unknown():
    ask = {"days": 12, "draws": 2, "audit": False, "daily": True, "set": {"rate": 0.0005}}
    found = lpm.sensitivity(Decay(), "left", ["rate", "idle"], within=Decay(1_000), **ask)
    # The same two draws of the smaller society, of which half a person leaves a day.
    few = lpm.sensitivity(Decay(1_000), "left", ["rate", "idle"], **ask)
    nobody = ~np.isfinite(few["elasticity"].sel(parameter="rate"))
    assert 0 < int(nobody.sum()) < 12
    assert found.attrs["unseen_cells"] == int(nobody.sum())
    for name in ("value", "se", "low", "high", "elasticity"):
        assert np.array_equal(np.isnan(found[name].sel(parameter="rate")), nobody), name
    assert (found["value"].sel(parameter="idle") == 0).all()


def test_a_society_in_which_nothing_matters_has_no_ratio():
    found = lpm.sensitivity(Decay(), "left", "idle", 5, draws=2, within=Decay(1_000), audit=False)
    assert float(found["value"].sum()) == 0.0 and math.isnan(found.attrs["ratio_to_whole"])


def test_a_smaller_society_that_is_another_or_not_small_is_refused(monkeypatch):
    other = Decay()
    other.by = None
    with pytest.raises(InputError, match="audit= was given the model decay with other parameters or strata"):
        lpm.sensitivity(Decay(), "left", "rate", 2, audit=other)
    other = Decay(1_000)
    other.by = None
    with pytest.raises(InputError, match="within= was given the model decay with other parameters or strata"):
        lpm.sensitivity(Decay(), "left", "rate", 2, within=other)
    with pytest.raises(InputError, match="both given a society"):
        lpm.sensitivity(Decay(), "left", "rate", 2, audit=Decay(), within=Decay(1_000))
    for within, said in ((Decay(), "within=20,000 agents"), (1_000, "within=1000")):
        with pytest.raises(InputError, match=said):
            lpm.sensitivity(Decay(), "left", "rate", 2, within=within)
    from lpmppl.inference import sensitivity as module

    monkeypatch.setattr(module, "AUDITED", 5_000)
    with pytest.raises(InputError, match="society of 20,000 agents"):
        lpm.sensitivity(Decay(), "left", "rate", 2, audit=Decay())
