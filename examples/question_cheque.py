# %% [markdown]
# # What if we send a \$500 cheque?
#
# ## Question
#
# It is March 2020, and New York could send every adult \$500. What would that do to infections, to unemployment and to
# spending, and for whom? Would more money do more, or the same money on another day? It is the policy question of §3.2
# of the Large Population Models paper.
#
# `python examples/question_cheque.py` answers it for 200,000 people in about ten minutes on two cores. With
# `LPMPPL_EXAMPLE_AGENTS=20000` it takes fewer people, days and draws. Every number below says what it was made with.

# %%
import os
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lpmppl as lpm
from lpmppl.effects.handlers import Utility
from lpmppl.models.behaviour import UTILITY

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))
QUICK = AGENTS < 100_000
DAYS, DRAWS, REPLICATES, WINDOW = (21, 2, 1, 14) if QUICK else (84, 6, 2, 28)
AMOUNTS = [0.0, 500.0, 2000.0] if QUICK else [0.0, 250.0, 500.0, 1000.0, 2000.0]
DATES = [0, 7] if QUICK else [7, 21, 35]
FIRST, SOON = DATES[0], DATES[0] + WINDOW
CHEQUE = f"stimulus=500@{FIRST}"

# %% [markdown]
# ## Model
#
# [The pandemic](../pandemic.md) from 1 March 2020, day 0, with the recorded activity and the cheques of 15 April that
# were really sent. Reports and vaccines are left out: nothing here depends on them. A policy's cheque comes on top. A
# child gets 5/12 of an adult's amount, and incomes over \$75,000 less ([Stimulus](../stimulus.md)).
#
# What a cheque can do here:
#
# - A household spends part of it, more if it has little saved.
# - Who has a job and less than \$2,000 saved isolates less often when ill. A cheque may lift a household over \$2,000,
#   and so keep an infection at home ([Behaviour](../behaviour.md)).
# - Fewer infections mean fewer admissions, to which activity responds, and jobs follow activity
#   ([Labour](../labour.md)).
#
# Every amount on every day is a world of one run. All worlds have the same people with the same chance. How people
# spend is the least known, so the five parameters of spending are drawn from their priors, and the others stay at what
# describes spring 2020 ([Evidence](../evidence.md)).

# %%
people = lpm.nyc.population(AGENTS)
model = lpm.nyc.pandemic(people, without=["vaccination", "observation", "claims"])
SPENDING = ("payment_spent", "payment_time", "liquidity", "income_spent", "income_spent_poor")
OTHERS = {name: p.default for name, p in model.parameters.items() if name not in SPENDING}
UNCERTAIN = {"draws": DRAWS, "replicates": REPLICATES, "set": OTHERS}
tree = lpm.counterfactual(model, {"stimulus": AMOUNTS}, at=DATES, days=DAYS, **UNCERTAIN)
effect = lpm.contrast(tree)
cheque = effect.sel(policy=CHEQUE)

# %% [markdown]
# `extra` is what a world has more of than the world as it was, in every draw. An interval holds nine of ten draws: it
# says how different chance and those parameters could make the answer, not how well the mean is known.

# %%
tallies = tree["prior_predictive"].to_dataset().isel(chain=0)


def extra(name):
    """What every policy adds to a tally, in every draw: (draw, policy, day, …)."""
    return tallies[name].isel(policy=slice(1, None)) - tallies[name].isel(policy=0)


def interval(x):
    """The mean over draws, and the ends between which nine of ten draws lie."""
    return np.array([x.mean("draw"), *(x.quantile(q, "draw") for q in (0.05, 0.95))])


def said(x, scale=1.0, digits=1):
    """A mean and its interval, in words."""
    # Adding 0 makes −0 plain.
    mean, low, high = (round(scale * float(v), digits) + 0.0 for v in x)
    return f"{mean:+,.{digits}f} ({low:+,.{digits}f} to {high:+,.{digits}f})"


def three(estimates):
    """The mean, low and high of a contrast."""
    return [float(estimates.sel(estimate=e)) for e in ("mean", "low", "high")]


def cents(policy, day, over="quartile"):
    """Cents spent more per dollar paid, in the weeks after a payment: (draw, …)."""
    spent, paid = (extra(name).sel(policy=policy).sum(over) for name in ("spending", "payments"))
    return 100 * spent.isel(day=slice(day, day + WINDOW)).sum("day") / paid.sum("day")


# %% [markdown]
# ## Check
#
# A cheque of \$0 changes nothing, exactly: every tally is the same in every draw, on every day, in every stratum.

# %%
for day, (name, tally) in product(DATES, tallies.data_vars.items()):
    assert np.array_equal(tally.sel(policy=f"stimulus=0@{day}"), tally.isel(policy=0)), name

# %% [markdown]
# A world is the run of its policy alone, bit for bit.

# %%
theta = {name: float(values.isel(chain=0, draw=0)) for name, values in tree["prior"].data_vars.items()}
alone = lpm.run(model, days=SOON, seed=0, set=theta, interventions=[("stimulus", 500.0, FIRST)])
for name, tally in alone["prior_predictive"].data_vars.items():
    world = tallies[name].sel(policy=CHEQUE).isel(draw=0, day=slice(SOON))
    assert np.array_equal(world.to_numpy(), tally.isel(chain=0, draw=0).to_numpy()), name

# %% [markdown]
# The money adds up: nobody gets more than the whole amount. And the poorest quarter of households spends more of a
# dollar than the richest, as it did in 2020 (Baker et al., Review of Finance 27, 2023: the less liquidity, the more is
# spent).

# %%
adults, children = (int(x.sum()) for x in (people["age"] >= 18, people["age"] < 17))
paid = three(cheque["payments"])
assert 0 < paid[0] <= 500 * adults + 500 * 5 / 12 * children and paid[1] == paid[2]
quartiles = {str(q): cents(CHEQUE, FIRST, over=()).sel(quartile=q) for q in tallies["quartile"].values}
assert float(quartiles["bottom"].mean()) > float(quartiles["top"].mean()) > -5

# %% [markdown]
# Isolation is the only way from a cheque to the virus. Where savings don't matter to whoever is ill, infections and
# jobs stay exactly as they were, and only money moves.

# %%
NEED = "savings=under $2,000 × employment=employed"
ISOLATE = UTILITY["isolate"]["isolate"]


def needing(factor):
    """The behaviour in which need matters that many times as much."""
    return Utility({**UTILITY, "isolate": {"isolate": {**ISOLATE, NEED: factor * ISOLATE[NEED]}}})


with needing(0.0):
    unmoved = lpm.contrast(lpm.counterfactual(model, {"stimulus": 500.0}, at=FIRST, days=SOON)).sel(policy=CHEQUE)
assert all(float(unmoved[name].sel(estimate="mean")) == 0 for name in ("infections", "deaths", "unemployed"))
assert float(unmoved["spending"].sel(estimate="mean")) > 0

# %% [markdown]
# ## Answer
#
# Infections are all that there were, unemployment is that of the last day, and spending is that of all days.

# %%
per = 1e5 / AGENTS


def tendency(x, less, more):
    """Which way it goes, if it goes the same way in nine of ten draws."""
    _, low, high = x
    if DRAWS * REPLICATES < 5:
        return "too few draws to say more"
    return less if high < 0 else more if low > 0 else "no clear change"


print(f"{AGENTS:,} people, {DAYS} days, {DRAWS * REPLICATES} draws, nine of ten of them in brackets")
print(f"$500 on day {FIRST}:\n")
for name, less, more in (
    ("infections", "fewer", "more"),
    ("unemployed", "fewer", "more"),
    ("spending", "less", "more"),
):
    x, unit = three(cheque[name]), ("dollars a head" if name == "spending" else "per 100,000")
    scale = 1 / AGENTS if name == "spending" else per
    print(f"{name:>11}: {said(x, scale)} {unit}: {tendency(x, less, more)}")
isolated = interval(extra("isolating").sel(policy=CHEQUE).sum(["day", "borough", "age"]))
print(f"  isolation: {said(isolated, per)} days per 100,000 people")
share = float(
    effect["infections"].sel(policy=CHEQUE, estimate="mean")
    / tallies["infections"].isel(policy=0).sum(["day", "borough", "age"]).mean()
)
print(f"{paid[0] / AGENTS:.0f} dollars a head are paid, and infections change by {share:+.2%} of what they were.")

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for k, day in enumerate(DATES):
    worlds = [f"stimulus={amount:g}@{day}" for amount in AMOUNTS]
    fewer = [interval(-per * extra("infections").sel(policy=w).sum(["day", "borough", "age"])) for w in worlds]
    mean, low, high = np.transpose(fewer)
    bars = np.maximum([mean - low, high - mean], 0)
    left.errorbar(np.array(AMOUNTS) + 25 * (k - 1), mean, bars, marker="o", capsize=3, label=f"day {day}")
    spent = [interval(cents(w, day)) for w in worlds[1:]]
    mean, low, high = np.transpose(spent)
    bars = np.maximum([mean - low, high - mean], 0)
    middle.errorbar(np.array(AMOUNTS[1:]) + 25 * (k - 1), mean, bars, marker="o", capsize=3, label=f"day {day}")
left.axhline(0, color="0.7", lw=0.8)
left.set(xlabel="dollars per adult", ylabel="infections averted per 100,000")
left.legend(frameon=False, title="sent on")
middle.set(xlabel="dollars per adult", ylabel=f"cents of a dollar spent in {WINDOW} days")
middle.set_ylim(0, 1.1 * middle.get_ylim()[1])
found = [interval(x) for x in quartiles.values()]
mean, low, high = np.transpose(found)
right.bar(list(quartiles), mean, yerr=np.maximum([mean - low, high - mean], 0), color="C0", alpha=0.6, capsize=3)
right.set(xlabel="quartile of household income", ylabel=f"cents of a dollar, $500 on day {FIRST}")


def shown(figure, name):
    """The figure, for a notebook to show; a script writes it to the folder LPMPPL_FIGURES, where that is set."""
    if folder := os.environ.get("LPMPPL_FIGURES"):
        figure.savefig(Path(folder) / f"{name}.png", dpi=150)
    plt.close(figure)
    return figure


shown(figure, "question_cheque_answer")

# %% [markdown]
# Left, infections averted by amount and day; middle, what of a dollar is spent in the weeks after; right, by whom. Bars
# hold nine of ten draws.
#
# By income, from the same people in both worlds: whom it spares an infection, and whom it gives one, since who infects
# whom changes.

# %%
spared = lpm.fates(tree, "infected", by="income").sel(policy=CHEQUE, estimate="mean")
jobless = lpm.fates(tree, "out of work", by="income").sel(policy=CHEQUE, estimate="mean")
size = tree["flows"]["infected"].isel(chain=0, draw=0, policy=0).sum(["borough", "age", "was", "would"])
print("per 100,000 of each band:    infections averted, caused, on balance; out of work on balance")
for band in size["income"].values:
    n = 1e5 / max(int(size.sel(income=band)), 1)
    averted, caused = (n * float(spared[name].sel(income=band)) for name in ("averted", "caused"))
    work = n * float((jobless["caused"] - jobless["averted"]).sel(income=band))
    name = "group quarters" if str(band).startswith("none") else str(band).split(" (")[0]
    print(f"{name:>21} {averted:8.1f} {caused:8.1f} {caused - averted:+8.1f} {work:+8.1f}")

# %%
price = lpm.cost_per(tree, "infections")["cost"].sel(policy=CHEQUE)
mean, low, high = (float(price.sel(estimate=e)) for e in ("mean", "low", "high"))
if np.isnan(mean):
    print("The cheques avert no infection on average, so none has a price.")
else:
    print(f"One averted infection costs ${mean:,.0f} in cheques (bootstrap of the mean: {low:,.0f} to {high:,.0f}).")

# %% [markdown]
# **In words.** With 200,000 people, 84 days and twelve draws (`python examples/question_cheque.py`), \$500 on day 7
# pays \$329 a head, of which \$32 (17 to 66) are spent by then. It averts 22 infections per 100,000 (2 to 48), a
# thousandth of all, at \$1.5 million each, and does nothing clear to unemployment. A cheque is first of all money: what
# is spent of it follows from who gets it. For the same money infections fall three times as much where \$1,500 go to
# those up to 30 % of the median income alone, because their savings are those that a cheque lifts over the threshold.
#
# ## What would change the answer
#
# **Luck, or how people spend?** The standard deviations of the effects, told apart:

# %%
if REPLICATES > 1:
    for name, unit, scale in (("infections", "per 100,000", per), ("spending", "dollars a head", 1 / AGENTS)):
        chance, parameters = (scale * float(cheque[name].sel(estimate=f"sd_{of}")) for of in ("chance", "parameters"))
        print(f"{name}: {chance:.1f} {unit} by chance, {parameters:.1f} by the parameters of spending")
else:
    print("It takes several draws of chance for each of the parameters, as there are at full size.")

# %% [markdown]
# **How much need keeps the ill at work.** The coefficient is half of what a survey's answers imply
# ([Behaviour](../behaviour.md)); twice as much is all of it.

# %%
LATER = SOON if QUICK else DAYS
with needing(2.0):
    needy = lpm.counterfactual(model, {"stimulus": 500.0}, at=FIRST, days=LATER, **UNCERTAIN)
once = interval(extra("infections").sel(policy=CHEQUE, day=slice(LATER - 1)).sum(["day", "borough", "age"]))
twice = three(lpm.contrast(needy)["infections"].sel(policy=CHEQUE))
print(
    f"infections per 100,000 in {LATER} days: {said(once, per)} where need counts once, {said(twice, per)} where twice"
)

# %% [markdown]
# **Who gets it.** What is the best plan, by infections, that costs no more than \$500 for everyone? `lpm.search`
# compares them among the same people with the same chance, and says what a wrong choice is expected to lose.

# %%
poorest = people.labels("income_band")[1:3]
plans = {
    "everyone, $500": [("stimulus", 500.0, FIRST)],
    "up to 30 % AMI, $1,500": [lpm.Act("stimulus", 1500.0, FIRST, to={"income_band": poorest[0]})],
    "up to 50 % AMI, $1,000": [lpm.Act("stimulus", 1000.0, FIRST, to={"income_band": poorest})],
    "up to 50 % AMI, $2,000": [lpm.Act("stimulus", 2000.0, FIRST, to={"income_band": poorest})],
}
rounds = {"days": SOON, "first": 2, "keep": 0.2} if QUICK else {"days": DAYS, "first": 4, "keep": 0.5}
ranked = lpm.search(model, plans, "infections", budget=paid[0] + 0.01, **rounds)
for name in ranked["policy"].values:
    row = ranked.sel(policy=name)
    behind, error = (per * float(row[key]) for key in ("behind", "behind_se"))
    note = f"{behind:+.1f} ± {error:.1f} infections per 100,000 behind the best" if row["affordable"] else "too dear"
    print(f"{name:>23}: ${float(row['cost']) / AGENTS:4.0f} a head, {int(row['draws'])} draws, {note}")
loss = per * ranked.attrs["regret"]
print(f"Best is '{ranked.attrs['best']}', then '{ranked.attrs['runner_up']}'; regret {loss:.2f} per 100,000.")

# %% [markdown]
# ## What it does not show
#
# - **Spending gives nobody a job.** Unemployment moves only by way of the epidemic, so that this can't say what the
#   money would have done for work; nor what money does to the wish to work, which the paper names as an unintended
#   effect.
# - **Nobody shops their cheque in a crowd.** Spending brings no contacts; if it did, a cheque could also cost
#   infections.
# - Need is one threshold at \$2,000, the same balance for all households of one income, and a coefficient that is
#   chosen. How many infections a cheque averts is that choice's as much as the city's; its sign follows from it.
# - The recorded activity of 2020 already has in it what the real cheques did to it.
# - Prices, rents and debts aren't there, and neither is what the money would have done elsewhere.
# - Intervals are of chance and of how people spend; all other parameters stand still. Nothing was fitted to the
#   response of New Yorkers to cheques.
