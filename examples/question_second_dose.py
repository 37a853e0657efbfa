# %% [markdown]
# # Delay the second dose?
#
# ## Question
#
# It is December 2020. There are few doses, and each person should have two, three weeks apart. If the second comes
# after twelve weeks instead, twice as many people have a first dose meanwhile. Do fewer die?
#
# Romero-Brufau et al., BMJ 373 (2021), n1087, asked it of an agent-based model: where a dose for 0.3 % of people was
# given every day, deaths per 100,000 in 180 days fell from 226 to 179 if the first dose had 90 % efficacy, from 233 to
# 207 at 80 %, and didn't at 70 % (235 and 236).
#
# `python examples/question_second_dose.py` answers it for 200,000 people in about ten minutes on two cores. With
# `LPMPPL_EXAMPLE_AGENTS=20000` it takes fewer people, days and draws. Every number below says what it was made with.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr

import lpmppl as lpm
from lpmppl.models.pandemic import PARTS

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))
QUICK = AGENTS < 100_000
DAYS, DRAWS = (90, 1) if QUICK else (180, 4)
EFFICACIES = (0.6, 0.9) if QUICK else (0.6, 0.7, 0.8, 0.9)
BMJ = {0.9: (226, 179), 0.8: (233, 207), 0.7: (235, 236)}
MIDDLE = 0.9 if QUICK else 0.8

# %% [markdown]
# ## Model
#
# Of [the pandemic](../pandemic.md) only immunity, the course of the disease, [vaccination](../vaccination.md) and
# transmission, from 15 December 2020, day 0. The 0.3 % of people a day are the oldest first. Second doses that are due
# come before first ones; after 24 days as usual, after 84 if delayed, or delayed only for those under 65.
#
# As in the published model, the vaccine does all it does against infection, and doesn't wane: two doses have 95 %
# efficacy. The wave is a slow one, in which an index case infects 1.1 people at the start (`transmission` 0.38, chosen;
# [Evidence](../evidence.md) has others).

# %%
people = lpm.nyc.population(AGENTS)
KEPT = ("immunity", "progression", "vaccination", "transmission")
model = lpm.nyc.pandemic(people, start="2020-12-15", without=[part.name for part in PARTS if part.name not in KEPT])
STERILISING = {"efficacy_two": 0.95, "efficacy_severe": 0.0, "breakthrough_symptoms": 1.0, "waning_days": 1e6}
PLANS = {
    "delayed": [("second_dose", "delayed", 0)],
    "delayed under 65": [("second_dose", "delayed_under_65", 0)],
    "as usual": [("second_dose", "standard", 0)],
}


def worlds(wave=0.38, rate=0.003, replicates=DRAWS, **values):
    """The worlds of the schedules, in a wave, with so many doses a day and person."""
    always = [("transmission", wave, 0), ("doses_per_day", rate, 0)]
    values = {**STERILISING, "initial_infected": 0.002, **values}
    return lpm.counterfactual(model, PLANS, days=DAYS, replicates=replicates, set=values, interventions=always)


by_efficacy = {efficacy: worlds(efficacy_one=efficacy) for efficacy in EFFICACIES}

# %% [markdown]
# Deaths are few, and chance has much to do with them. So deaths are counted as those that are to be expected of the
# ages of the infected, by the fatality from which the model draws them too (Levin et al., European Journal of
# Epidemiology 35, 2020, 1123). That is right here because this vaccine changes nobody's risk once infected.

# %%
age, band = people["age"].double().numpy(), people["age_band"].long().numpy()
fatality = np.bincount(band, np.minimum(10 ** (-3.27 + 0.0524 * age) / 100, 0.65)) / np.bincount(band)
fatality = xr.DataArray(fatality, {"age": people.labels("age_band")})
per = 1e5 / AGENTS


def infections(tree):
    """Infections per 100,000 people in all: (draw, policy, age)."""
    return per * tree["prior_predictive"]["infections"].isel(chain=0).sum(["day", "borough"])


def deaths(tree):
    """Deaths per 100,000 people to be expected of the infected: (draw, policy, age)."""
    return infections(tree) * fatality


def more(x, policy):
    """What a schedule has more of than the usual one, in every draw."""
    return x.sel(policy=policy) - x.sel(policy="as it was")


def interval(x):
    """The mean over draws, and the ends between which nine of ten draws lie."""
    return np.array([x.mean("draw"), *(x.quantile(q, "draw") for q in (0.05, 0.95))])


def said(x, digits=1):
    """A mean and its interval, in words; of one draw there is none."""
    # Adding 0 makes −0 plain.
    mean, low, high = (round(float(v), digits) + 0.0 for v in x)
    return f"{mean:+.{digits}f}" + (f" ({low:+.{digits}f} to {high:+.{digits}f})" if low < high else "")


# %% [markdown]
# ## Check
#
# A policy that sets the usual schedule changes nothing, exactly, in any tally and stratum; and a world is the run of
# its policy alone, bit for bit.

# %%
tree = by_efficacy[MIDDLE]
for name, tally in tree["prior_predictive"].data_vars.items():
    assert np.array_equal(tally.sel(policy="as usual"), tally.sel(policy="as it was")), name

acts = [("transmission", 0.38, 0), ("doses_per_day", 0.003, 0), *PLANS["delayed"]]
values = {**STERILISING, "initial_infected": 0.002, "efficacy_one": MIDDLE}
alone = lpm.run(model, days=40, seed=0, set=values, interventions=acts)["prior_predictive"]
for name, tally in alone.data_vars.items():
    world = tree["prior_predictive"][name].sel(policy="delayed").isel(chain=0, draw=0, day=slice(40))
    assert np.array_equal(world.to_numpy(), tally.isel(chain=0, draw=0).to_numpy()), name

# %% [markdown]
# Every schedule gives the same doses, and none a second one before it is due.

# %%
given = tree["prior_predictive"]["doses"].sum(["borough", "age"])
seconds = tree["prior_predictive"]["second_doses"].sum(["borough", "age"])
assert (given == given.sel(policy="as it was")).all() and int(given.isel(draw=0, policy=0).sum()) == round(
    0.003 * AGENTS * DAYS
)
assert int(seconds.sel(policy="delayed").isel(day=slice(84)).sum()) == 0 < int(seconds.sel(policy="as it was").sum())

# %% [markdown]
# The published direction: the better the first dose, the more the delay saves.

# %%
change = {efficacy: more(deaths(found).sum("age"), "delayed") for efficacy, found in by_efficacy.items()}
means = [float(change[efficacy].mean()) for efficacy in EFFICACIES]
assert means == sorted(means, reverse=True)

# %% [markdown]
# ## Answer

# %%
print(f"{AGENTS:,} people, {DAYS} days, draws: {DRAWS} (in brackets nine of ten), doses: 0.3 % of people a day")
print("deaths per 100,000, and what a delay changes\n")
print(f"{'first dose':>10} {'as usual':>9} {'delayed':>25} {'under 65 alone':>25} {'published':>10}")
for efficacy, found in by_efficacy.items():
    usual = float(deaths(found).sum("age").sel(policy="as it was").mean())
    each = [said(interval(more(deaths(found).sum("age"), policy))) for policy in ("delayed", "delayed under 65")]
    published = f"{BMJ[efficacy][1] - BMJ[efficacy][0]:+d}" if efficacy in BMJ else "–"
    print(f"{efficacy:>10.0%} {usual:>9.1f} {each[0]:>25} {each[1]:>25} {published:>10}")
if means[0] > 0 > means[-1]:
    print(f"\nThe delay saves lives from a first dose of about {np.interp(0, means[::-1], EFFICACIES[::-1]):.0%} on.")
else:
    print(
        f"\nFrom {EFFICACIES[0]:.0%} to {EFFICACIES[-1]:.0%} the delay {'saves' if means[-1] < 0 else 'costs'} lives."
    )

# %%
fewer = more(infections(tree), "delayed")
lives = more(deaths(tree), "delayed")
print(f"By age, at {MIDDLE:.0%}: what the delay changes per 100,000 people of all ages")
for label in lives["age"].values:
    infected, dead = interval(fewer.sel(age=label)), interval(lives.sel(age=label))
    print(f"{label:>6}: infections {said(infected, 0):>24}, deaths {said(dead, 2):>24}")
died = lpm.fates(tree, "died", by="age").sel(policy="delayed", estimate="mean")
print("As drawn, of the same people in both worlds:")
for label in died["age"].values[-3:]:
    spared, doomed = (per * float(died[name].sel(age=label)) for name in ("averted", "caused"))
    print(f"{label:>6}: {spared:.1f} per 100,000 who died would have lived, {doomed:.1f} who lived would have died")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for k, policy in enumerate(("delayed", "delayed under 65")):
    found = [interval(more(deaths(x).sum("age"), policy)) for x in by_efficacy.values()]
    mean, low, high = np.transpose(found)
    bars = np.maximum([mean - low, high - mean], 0)
    left.errorbar(100 * np.array(EFFICACIES), mean, bars, color=f"C{k}", marker="o", capsize=3, label=policy)
left.plot([100 * e for e in BMJ], [after - before for before, after in BMJ.values()], "k.", label="delayed, published")
left.axhline(0, color="0.7", lw=0.8)
left.set(xlabel="efficacy of the first dose, %", ylabel="deaths more per 100,000")
left.legend(frameon=False, fontsize=8)
mean, low, high = interval(lives)
colours = np.where(mean < 0, "C2", "C3")
right.bar(lives["age"].values, mean, yerr=np.maximum([mean - low, high - mean], 0), color=colours, capsize=3)
right.axhline(0, color="0.7", lw=0.8)
right.set(xlabel=f"age; the first dose has {MIDDLE:.0%}, all wait", ylabel="deaths more per 100,000 of all")
right.tick_params(axis="x", labelsize=8)


def shown(figure, name):
    """The figure, for a notebook to show; a script writes it to the folder LPMPPL_FIGURES, where that is set."""
    if folder := os.environ.get("LPMPPL_FIGURES"):
        figure.savefig(Path(folder) / f"{name}.png", dpi=150)
    plt.close(figure)
    return figure


shown(figure, "question_second_dose_answer")

# %% [markdown]
# Left, what a delay changes in deaths, by the efficacy of the first dose; right, at whose age. Bars hold nine of ten
# draws.
#
# **In words.** With 200,000 people, 180 days and four draws (`python examples/question_second_dose.py`), a delay
# changes deaths per 100,000 by −26.7, −6.9, +12.3 and +31.8 where the first dose has an efficacy of 90, 80, 70 and 60
# %, of 137 to 151: it saves lives from about 76 % on. Those of 60 to 79 gain, who get their first dose sooner; those of
# 80 and over lose, who wait longer for their second. Delaying it under 65 alone changes next to nothing.
#
# ## What would change the answer
#
# **The wave and the doses.** A delay takes time to help, and helps where doses are scarce:

# %%
others = {
    "a faster wave": {"wave": 0.5},
    "a slower wave": {"wave": 0.34},
    "0.1 % a day": {"rate": 0.001},
    "1 % a day": {"rate": 0.01},
}
base = said(interval(more(deaths(tree).sum("age"), "delayed")))
print(f"The first dose has {MIDDLE:.0%}; deaths per 100,000 that the delay changes: {base}")
for name, values in list(others.items())[: 1 if QUICK else None]:
    found = worlds(efficacy_one=MIDDLE, replicates=max(1, DRAWS // 2), **values)
    x, usual = more(deaths(found).sum("age"), "delayed"), float(deaths(found).sum("age").sel(policy="as it was").mean())
    print(f"{name:>14}: {said(interval(x))} of {usual:.0f}")

# %% [markdown]
# **A vaccine that keeps people from severe disease with the first dose already**, as the model's own has it
# (`efficacy_severe` 90 %, and symptoms of a third of the infected; [Immunity](../immunity.md)), whatever it does
# against infection. Its deaths are as drawn.

# %%
usual = {name: model.parameters[name].default for name in STERILISING}
mild = worlds(efficacy_one=0.7, **usual)
drawn = lpm.contrast(mild)["deaths"].sel(policy="delayed")
x = [per * float(drawn.sel(estimate=e)) for e in ("mean", "low", "high")]
before = per * float(
    mild["prior_predictive"]["deaths"].sel(policy="as it was").sum(["day", "borough", "age"]).mean(...)
)
print(f"70 % against infection, 90 % against severe disease: {said(x)} deaths per 100,000 of {before:.1f}")

# %% [markdown]
# ## What it does not show
#
# - **The wave is chosen**, and decides the sign at some efficacies. Nothing here was fitted to the winter of 2020.
# - It doesn't say what the first dose's efficacy was. Of what was known in December 2020 it says what would have to be
#   true for the delay to help.
# - Protection after one dose lasts here as long as after two; whether a late second dose protects better isn't here
#   either. Nor are variants, which met a half-protected population in 2021.
# - The oldest come first, by decades, and everybody accepts. Occupations, conditions, and who would not come for a late
#   second dose are left out, as are behaviour, tests and masks.
# - Deaths by age follow one published line, that rises tenfold in nineteen years; the steeper it is, the less a first
#   dose for someone younger weighs against a second one for someone older.
# - Intervals are of chance alone.
