# %% [markdown]
# # What does it cost to begin?
#
# ## Question
#
# An exposure-notification app tells users of contacts who test positive. It is worth little to the first: only contacts
# that both have it are detected. It reached a fifth of the United States and stayed there, the cold start of §7 of
# *Large Population Models*. How many installs must be given away, to whom, and for how much, until the rest follow by
# themselves? And does it change the answer if the app is worth something to its user alone, because it says privately
# how great one's own risk is?
#
# `python examples/question_cold_start.py` answers it for 50,000 people in some minutes on two cores. With
# `LPMPPL_EXAMPLE_AGENTS=20000` it takes fewer people, days and steps.

# %%
import os
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import pyro.distributions as dist
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import Utility
from lpmppl.models import adoption, progression
from lpmppl.models.behaviour import UTILITY
from lpmppl.models.model import Parameter
from lpmppl.models.pandemic import Pandemic
from lpmppl.models.part import Part
from lpmppl.models.substep import Substep

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "50000"))
QUICK = AGENTS < 50_000
DAYS, HALVINGS = (90, 4) if QUICK else (120, 7)
RISKS = (0.0, 0.001) if QUICK else (0.0, 0.0003, 0.001)

# %% [markdown]
# ## Model
#
# [The app](../cold-start.md): whoever has a smartphone and would ever use it looks at it every ten days on average, and
# then has it with the probability of a logit. Its value is that of the app alone, of the share of contacts who have it,
# and of private answers about one's own risk. All coefficients are chosen, so that there are two levels of adoption
# where all meet all: this asks what follows from them, not what they are.
#
# First without an epidemic that moves: everybody meets the same risk every week. A part of one's own says so.


# %%
def steady(setting, theta):
    """Everybody's cumulative hazard grows by the same every day."""
    return Substep(
        "steady",
        reads=("exposure",),
        writes=("exposure",),
        policy=lambda s: s,
        transition=lambda s, _: {"exposure": s["exposure"] + s["dt"] * theta["weekly_hazard"] / 7.0},
    )


def begin(setting, theta, t):
    """Nobody has met anything."""
    n = setting.people.size
    return {"exposure": torch.zeros(n, dtype=torch.float64), "stage": torch.zeros(n, dtype=torch.uint8)}


hazard = Parameter(dist.LogNormal(-6.0, 1.0), 1e-9, "hazard of a week", "per week", "given")
risk = Part("steady", steady, begin, parameters={"weekly_hazard": hazard}, keeps=("stage",))
people = lpm.nyc.population(AGENTS)
town = Pandemic(people, parts=(risk, adoption.PART))


def course(seeds, scheme="people", weekly_risk=0.0, days=DAYS, **fixed):
    """A run in which so many installs are given on day 0: users by day, and dollars."""
    fixed = {"weekly_hazard": max(-np.log1p(-weekly_risk), 1e-9), **fixed}
    acts = [("app_seeds", float(seeds), 0), ("app_seeding", scheme, 0), ("app_answers", float(weekly_risk > 0), 0)]
    run = lpm.run(town, days=days, seed=0, set=fixed, interventions=acts)["prior_predictive"]
    users, dollars = run["app"].to_numpy().ravel(), float(run["app_dollars"].sum())
    return users / AGENTS, dollars


# %% [markdown]
# ## Check
#
# Where everybody meets everybody, adoption has a mean field, $\dot y = \kappa (\sigma(\alpha + \nu y) - y)$, whose
# fixed points are known. Here contacts are at work, in the area and in the city, so the levels differ; but from nobody
# and from everybody adoption must go to two levels that are far apart.

# %%
value = {name: p.default for name, p in adoption.PART.parameters.items()}
phones = np.array(adoption.PHONES)[people["age_band"].numpy()].mean() * value["would_use"]
levels = phones * np.array(adoption.levels(value["standalone"], value["network_value"] * phones))
bottom, top = (course(p)[0][-1] for p in (0.0, 1.0))
print(f"well mixed: {100 * levels[0]:.1f} % and {100 * levels[-1]:.1f} % have it; between them {100 * levels[1]:.1f} %")
print(f"in the city: {100 * bottom:.1f} % from nobody, {100 * top:.1f} % from everybody who would use it")
assert len(levels) == 3 and bottom < 0.3 * top

# %% [markdown]
# ## Answer
#
# A campaign crosses the critical mass if more than half of the upper level have the app at the end. The number of seeds
# that do is found by halving an interval, with everybody's chance the same in all runs. Installs cost ten dollars each,
# whoever gets them.


# %%
def cheapest(scheme, weekly_risk=0.0):
    """The fewest seeds that cross it, as a share of people given the app, and dollars; none where nothing is needed."""
    crosses = lambda p: course(p, scheme, weekly_risk)[0][-1] > top / 2  # noqa: E731
    if crosses(0.0):
        return 0.0, 0.0
    low, high = 0.0, 1.0
    if not crosses(high):
        return np.nan, np.nan
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if crosses(middle) else (middle, high)
    dollars = course(high, scheme, weekly_risk, days=1)[1]
    return dollars / value["install_cost"] / AGENTS, dollars * 8.48e6 / AGENTS


found = {(scheme, r): cheapest(scheme, r) for scheme in adoption.SCHEMES for r in RISKS}
print(f"{AGENTS:,} people, {DAYS} days; seeds in % of people, and the cost for a city of 8.48 million\n")
print(f"{'given to':>12}" + "".join(f"{'no answers' if r == 0 else f'risk {100 * r:g} % a week':>24}" for r in RISKS))
for scheme in adoption.SCHEMES:
    cells = [found[scheme, r] for r in RISKS]
    row = [f"{100 * share:.1f} %, ${dollars / 1e6:.1f} m" if share == share else "never" for share, dollars in cells]
    print(f"{scheme:>12}" + "".join(f"{cell:>24}" for cell in row))
assert found["workplaces", 0.0][0] < found["people", 0.0][0]
for scheme in adoption.SCHEMES:
    assert found[scheme, RISKS[-1]][0] <= found[scheme, 0.0][0]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for k, share in enumerate((0.2, 0.3, 0.4, 0.5)):
    left.plot(100 * course(share)[0], color=f"C{k}", label=f"{100 * share:.0f} % of those who would use it")
left.axhline(100 * levels[1], color="0.4", ls=":", label="critical, if well mixed")
left.set(xlabel="day", ylabel="people with the app, %", ylim=(0, 45))
left.legend(frameon=False, fontsize=8, title="given on day 0 to", title_fontsize=8)
values = np.linspace(0.001, 0.999, 400)
alone = np.log(values / (1 - values)) - value["network_value"] * phones * values
right.plot(alone, 100 * phones * values, color="C0")
right.axvline(value["standalone"], color="0.4", ls=":")
for r in RISKS[1:]:
    worth = value["standalone"] + value["answers_value"] * np.log1p(1000 * r)
    right.axvline(worth, color="C1", ls=":")
    right.annotate(f" {100 * r:g} %", (worth, 1.0), fontsize=7, color="C1")
right.set(xlabel="value of the app alone", ylabel="levels of adoption, %", ylim=0, xlim=(-5, -1))


def shown(figure, name):
    """The figure, for a notebook to show; a script writes it to the folder LPMPPL_FIGURES, where that is set."""
    if folder := os.environ.get("LPMPPL_FIGURES"):
        figure.savefig(Path(folder) / f"{name}.png", dpi=150)
    plt.close(figure)
    return figure


shown(figure, "question_cold_start_answer")

# %% [markdown]
# Left, adoption by day after installs were given to people by lot. Right, where everybody meets everybody, the levels
# at which adoption stays by what the app is worth alone: the fold at the right is where the low level ends. The dotted
# lines are that value without private answers (grey) and with them, by the risk of a week.
#
# **In words.** With 50,000 people and 120 days (`python examples/question_cold_start.py`) installs must be given to
# 15.0 % of people by lot until the rest follow, $12.7 million for the city at ten dollars each. Whole workplaces and
# schools need 10.4 %, $8.8 million, and those with the most people at home and at work 7.7 %, $6.6 million. Areas given
# whole are hardly cheaper than people by lot (14.2 %): most contacts are at work. Where the app also answers how great
# one's own risk is, and that is 0.1 % a week, 10.1 % by lot or 4.5 % of the most connected are enough. At a risk of 1 %
# a week nothing needs to be given (with 20,000 people and 90 days): the low level is gone, as the fold says it must be.
#
# ## What would change the answer
#
# **An epidemic that moves.** Risk isn't steady: answers are worth most when there is a wave. In the whole pandemic,
# what do answers do by themselves, and what do they add to a tenth of those who would use it?

# %%
OUT = ["vaccination", "observation", "claims", "labour", "stimulus", "masking"]
city = lpm.nyc.pandemic(people, start="2020-10-01", without=OUT, app=True)
tenth = ("app_seeds", 0.1, 0)
plans = {"answers": [("app_answers", 1, 0)], "seeds": [tenth], "both": [("app_answers", 1, 0), tenth]}
length = 35 if QUICK else 120
wave = lpm.counterfactual(city, plans, days=length, replicates=1)["prior_predictive"]
users = 100 * wave["app"].isel(chain=0, draw=0, day=-1).sum(["borough", "age"]) / AGENTS
for name in users["policy"].values:
    print(f"{name:>12}: {float(users.sel(policy=name)):5.1f} % have it after {length} days")
assert float(users.sel(policy="both")) > float(users.sel(policy="seeds"))

# %% [markdown]
# With 50,000 people, from 1 October 2020 on, 4.0 % have it after 120 days without answers and 32.6 % with them, whether
# a tenth are given it or not (32.8 %): the wave of that winter is beginning enough.

# %% [markdown]
# **What adoption is worth to all.** Abueg et al. (npj Digital Medicine 4, 2021, 49) found that with 15 % of people in
# three counties of Washington the app averted about 8 % of infections and 6 % of deaths. Here the app is given to a
# share of people who keep it, from 1 July 2020 on, under assumptions near theirs: whoever has symptoms is tested and
# four in five isolate at once, results come a day after the test, 92 % of contacts are detected, nine in ten comply,
# and a quarantine is given up at 2 % a day. In their model, OpenABM-Covid19, two in three of the infected have
# symptoms, here two in five; who has none is seldom tested and tells nobody. So both are tried. [The
# app](../cold-start.md) says which numbers are whose, and has the figures of 200,000 people.

# %%
OPENABM = (0.544, 0.588, 0.63, 0.668, 0.704, 0.735, 0.762, 0.786, 0.808)
ill = {
    "test": {"seek a test": {"intercept": 3.9}},
    "isolate": {"isolate": {"intercept": 1.4, "health=tested positive": 0.8}},
}
kept = {"would_use": 0.999, "reconsider": 1e-9, "pcr_delay": 1.0, "initial_infected": 0.001}
kept |= {"detected": 0.92, "dropout": 0.02}
everybody = phones / value["would_use"]
shares = {f"{100 * a:.0f} %": [("app_seeds", a / everybody, 0)] for a in ((0.6,) if QUICK else (0.15, 0.6))}
# Transmission is such that about an eighth are infected in half a year without the app.
for with_symptoms, level in ((progression.CLINICAL, 1.25), (OPENABM, 1.36)):
    around = [("transmission", level, 0), ("capacity", 1.0, 0), ("mask_mandate", 1.0, 0)]
    with patch.object(progression, "CLINICAL", with_symptoms), Utility({**UTILITY, **ill}):
        summer = lpm.nyc.pandemic(people, start="2020-07-01", without=OUT[:-1], app=True)
        draws = 1 if QUICK else 2 if AGENTS < 200_000 else 4
        epidemic = lpm.counterfactual(
            summer, shares, days=20 if QUICK else 180, replicates=draws, set=kept, interventions=around
        )["prior_predictive"]
    infected = epidemic["infections"].isel(chain=0).sum(["day", "borough", "age"])
    told = epidemic["notified"].isel(chain=0).sum(["day", "borough", "age"])
    share = np.mean(np.array(with_symptoms)[people["age_band"].numpy()])
    for name in shares:
        averted = 100 * (1 - infected.sel(policy=name) / infected.sel(policy="as it was"))
        print(
            f"{100 * share:.0f} % have symptoms, {name:>4} the app: {float(averted.mean()):5.1f} % of infections "
            f"averted, {float(told.sel(policy=name).mean()):,.0f} people told"
        )

# %% [markdown]
# **What people are like.** No coefficient of adoption is measured. By which per cent does the number of users, added up
# over 30 days, move for one per cent of each, where a fourth of those who would use it are given it?

# %%
names = ["standalone", "network_value", "would_use", "reconsider"]
given = [("app_seeds", 0.25, 0)]
slopes = lpm.sensitivity(town, of="app", wrt=names, days=30, draws=2 if QUICK else 8, interventions=given, audit=False)
for name in names:
    row = slopes.sel(parameter=name)
    print(f"{name:>14}: {float(row['elasticity']):6.2f} ± {float(row['elasticity_se']):.2f}")
assert float(slopes["elasticity"].sel(parameter="network_value")) > 0

# %% [markdown]
# ## What it does not show
#
# - **No coefficient of adoption comes from data.** How many would use an app, how often they look at it and what
#   colleagues' use is worth to them are chosen. The order of campaigns follows from who meets whom; the dollars don't.
# - **The low level doesn't stay for good in the city.** Small workplaces take the app up by chance and pass it on: with
#   20,000 people nobody become 14 % in a year and 30 % in two. A campaign buys time; its price is for the days asked.
# - An install costs the same whoever gets it. Reaching a workplace at once may be cheaper, or need its employer.
# - Who is given the app gives it up as others do. Nobody is paid for keeping it.
# - Risk is one number a week for all in the first part, so that answers are worth the same to everybody. In the whole
#   pandemic each person's own risk counts, as [a private society](../private.md) tells it.
# - Everybody knows how many of their contacts have it.
