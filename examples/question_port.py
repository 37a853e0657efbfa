# %% [markdown]
# # A port closes: who runs out, and what is a buffer worth?
#
# ## Question
#
# The ports of the West close for two weeks, or for four. Which industries run out of inputs, when, and what isn't made?
# And how many days of inputs should firms hold, if holding them costs money every day and ports close once in ten
# years?
#
# `python examples/question_port.py` answers it for 50,000 firms in some minutes on two cores. With
# `LPMPPL_EXAMPLE_AGENTS=20000` it takes fewer firms, days and draws. Every number below says what it was made with.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime
from lpmppl.effects.ops import simulate
from lpmppl.inference.run import playing
from lpmppl.models.firms import firms
from lpmppl.models.supply_chain import SupplyChain

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "50000"))
QUICK = AGENTS < 50_000
FIRMS, DAYS, DRAWS = (AGENTS // 10, 44, 2) if QUICK else (AGENTS, 90, 3)
CLOSED = 5
WEEKS = {"two weeks": 14, "four weeks": 28}
YEARS = 10.0
"""Years between closures of four weeks: chosen."""

# %% [markdown]
# ## Model
#
# [Firms that supply each other](../supply-chain.md): fourteen industries, with what they use of each other's products
# after the input–output accounts of the United States; firms of Zipf's sizes; each with a supplier of everything it
# uses, or several. A firm makes what is asked for, if its plants and its stocks of inputs allow, and without one
# essential input it makes nothing. Importers are firms without inputs, and of theirs 40 % are behind the ports of the
# West. Plants fail and are repaired, by chance, which is the same in all worlds.
#
# It is run, compared and differentiated by the same verbs as an epidemic.

# %%
people = firms(FIRMS)
model = SupplyChain(people)
industry = np.array(people.labels("sector"))
plans = {name: [("port", 0.0, CLOSED), ("port", 1.0, CLOSED + days)] for name, days in WEEKS.items()}
nothing = {"the same": [("port", 1.0, CLOSED)]}
tree = lpm.counterfactual(model, {**plans, **nothing}, days=DAYS, replicates=DRAWS, by={"industry": "sector"})
tallies = tree["prior_predictive"].to_dataset().isel(chain=0)

# %% [markdown]
# ## Check
#
# A port that is left open changes nothing, exactly; and with nothing but some plants failing, firms make what
# Leontief's inverse says. Here the equation is solved firm by firm, since imports and suppliers differ between firms of
# an industry; `tests/models/test_supply_chain.py` holds the industries against the inverse itself.

# %%
for name, tally in tallies.data_vars.items():
    assert np.array_equal(tally.sel(policy="the same"), tally.sel(policy="as it was")), name
assert float(tallies["unserved"].sel(policy="as it was").sum()) < 0.02 * float(
    tallies["output"].sel(policy="as it was").sum()
)
calm = lpm.run(model, days=6, set={"failure": 1e-9})["prior_predictive"]["output"].isel(day=-1).to_numpy().ravel()
home = people["foreign"].numpy() == 0
usual = np.bincount(people["sector"].numpy(), people["usual"].numpy() * home)
print(f"largest difference from the usual output of an industry: {abs(calm / usual - 1).max():.1e}")
assert abs(calm / usual - 1).max() < 1e-3

# %% [markdown]
# ## Answer
#
# **Who runs out, and when.** A firm counts as stopped on a day on which it could make twice as much, had it all inputs.

# %%
many = np.bincount(people["sector"].numpy()[home], minlength=len(industry))
stopped = 100 * tallies["stopped"].mean("draw") / many
lost = tallies["lost_output"].mean("draw")
print(f"{FIRMS:,} firms, {DAYS} days, {DRAWS} draws; the port is closed from day {CLOSED}\n")
print(f"{'':>13} {'firms':>6} {'tenth stopped':>14} {'at the peak':>12} {'output lost, days of usual':>28}")
print(f"{'':>13} {'':>6} {'after, days':>14} {'%':>12} {'two weeks':>18} {'four':>9}")
for j in np.argsort(-lost.sel(policy="four weeks").sum("day").to_numpy() / usual):
    share = stopped.sel(policy="four weeks").isel(sector=j).to_numpy()
    first = np.flatnonzero(share >= 10)
    after = f"{first[0] - CLOSED}" if len(first) else "never"
    days = [float(lost.sel(policy=p).isel(sector=j).sum() / usual[j]) for p in WEEKS]
    print(f"{industry[j]:>13} {many[j]:>6} {after:>14} {share.max():>12.0f} {days[0]:>18.2f} {days[1]:>9.2f}")

effect = lpm.contrast(tree)
whole = usual.sum()
for name in WEEKS:
    loss = effect.sel(policy=name)
    mean, low, high = (float(loss["lost_output"].sel(estimate=e)) / whole for e in ("mean", "low", "high"))
    short = float(loss["unserved"].sel(estimate="mean")) / float(people["final"].sum())
    print(
        f"Closed for {name}: {mean:.2f} days of all output lost ({low:.2f} to {high:.2f}), and {short:.2f} days of "
        "final demand not met."
    )
ran_out = lpm.fates(tree, "ran_out")["sufficiency"].sel(estimate="mean")
for name in WEEKS:
    print(f"Of the firms that don't run out otherwise, {100 * float(ran_out.sel(policy=name)):.0f} % do ({name}).")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
made = 100 * tallies["output"].sum("sector").mean("draw") / whole
for k, name in enumerate(WEEKS):
    left.plot(made.sel(policy=name), color=f"C{k}", label=f"closed for {name}")
    left.axvspan(CLOSED, CLOSED + WEEKS[name], color=f"C{k}", alpha=0.07, lw=0)
left.plot(made.sel(policy="as it was"), color="0.4", label="open")
left.set(xlabel="day", ylabel="output, % of the usual", ylim=0)
left.legend(frameon=False, fontsize=8)
worst = np.argsort(-stopped.sel(policy="four weeks").max("day").to_numpy())[:6]
for j in worst:
    right.plot(stopped.sel(policy="four weeks").isel(sector=j), label=industry[j])
right.set(xlabel="day", ylabel="firms stopped, % (four weeks)", ylim=0)
right.legend(frameon=False, fontsize=8)


def shown(figure, name):
    """The figure, for a notebook to show; a script writes it to the folder LPMPPL_FIGURES, where that is set."""
    if folder := os.environ.get("LPMPPL_FIGURES"):
        figure.savefig(Path(folder) / f"{name}.png", dpi=150)
    plt.close(figure)
    return figure


shown(figure, "question_port_answer")

# %% [markdown]
# Left, output by day; right, how many firms of the industries that suffer most are stopped, if it is four weeks.
#
# **In words.** With 50,000 firms, 90 days and three draws (`python examples/question_port.py`), a closure of two weeks
# costs 0.71 days of all output (0.71 to 0.72) and one of four weeks 5.16 (5.09 to 5.23): twice as long is seven times
# as bad, because stocks of ten days hide the first of it. A tenth of the firms of most industries has stopped after 9
# to 13 days, of those of health, education and leisure after 16, of transport after 21. Trade and business services
# never have, since they use nothing essential. Of the firms that would not run out otherwise, 11 and 40 % do.
#
# **Who is first.** Of the firms themselves, the state at the end of a run knows the day on which each ran out.

# %%
theta = model.defaults()
with torch.no_grad(), playing(model, 0, 0, plans["four weeks"], DiscreteTime()):
    end = simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(DAYS)))
day = end["ran_out_at"].numpy()
size = people["size_class"].numpy()
for k, label in enumerate(people.labels("size_class")):
    own = day[home & (size == k)]
    out = own[np.isfinite(own)] - CLOSED
    soon = f", half of these within {np.median(out):.0f} days" if len(out) else ""
    print(f"{label:>14} thousand dollars a day: {len(own):>6} firms, {len(out):>6} of them run out{soon}")

# %% [markdown]
# **What a buffer is worth.** A day of inputs more costs its storage every day, and spares final demand what it would
# not get when the port is closed for four weeks, once in ten years. A dollar of final demand that isn't met counts as a
# dollar. Over a year, with b days held,
#
# $$C(b) = 365\, h(b) + \tfrac{1}{10} L(b), \qquad C'(b^*) = 0,$$
#
# where h is what holding costs a day and L what a closure loses. Both are found for a sweep of b, with the same chance.

# %%
GRID = (5.0, 10.0, 15.0, 20.0) if QUICK else (5.0, 8.0, 11.0, 14.0, 18.0, 24.0)
ACTS = plans["four weeks"]


def of_buffer(days):
    """What holding costs a day, and what a closure loses, with so many days of inputs."""
    found = lpm.counterfactual(model, {"closed": ACTS}, days=DAYS, set={"buffer": days})
    loss = float(lpm.contrast(found)["unserved"].sel(policy="closed", estimate="mean"))
    # What it costs before the port closes is what it costs in all other years.
    held = found["prior_predictive"]["holding"].isel(chain=0, draw=0, day=slice(CLOSED)).sum("sector")
    return float(held.sel(policy="as it was").mean()), loss


found = {b: of_buffer(b) for b in GRID}
for _ in range(2):
    # Once more on either side of the best so far.
    tried = sorted(found)
    k = int(np.clip(np.argmin([365 * found[b][0] + found[b][1] / YEARS for b in tried]), 1, len(tried) - 2))
    found |= {b: of_buffer(b) for b in ((tried[k - 1] + tried[k]) / 2, (tried[k] + tried[k + 1]) / 2)}
tried = sorted(found)
held, loss = np.transpose([found[b] for b in tried])
both = 365 * held + loss / YEARS
for b, h, x, c in zip(tried, held, loss, both, strict=True):
    print(f"{b:5.2f} days: holding {365 * h:9.0f} a year, lost in a closure {x:10.0f}, together {c:9.0f} a year")
k = int(np.clip(np.argmin(both), 1, len(tried) - 2))
low, best, high = tried[k - 1 : k + 2]
print(f"By the sweep the best buffer is {best:.2f} days, between {low:.2f} and {high:.2f} (thousand dollars).")

# %% [markdown]
# The derivative says the same without a sweep. `lpm.sensitivity` gives $L'(b)$ on either side of the sweep's best, and
# holds it against differences of other draws over half the step; $h'$ is the price itself. On the one side another day
# should be worth more than it costs, on the other less.

# %%
few = {"days": DAYS, "draws": 2, "step": 0.1}


def slopes(days):
    """What another day costs a year, what it spares, and the standard error of that."""
    here = {"set": {"buffer": days}, **few}
    shut = lpm.sensitivity(model, "unserved", "buffer", interventions=ACTS, audit=not QUICK, **here)
    # What a buffer is worth in days on which the port is open isn't the closure's.
    opened = lpm.sensitivity(model, "unserved", "buffer", audit=False, **here)
    rent = lpm.sensitivity(model, "holding", "buffer", audit=False, **{**here, "days": CLOSED})
    spared = float((opened["value"] - shut["value"]).sum()) / YEARS
    return 365 / CLOSED * float(rent["value"].sum()), spared, float(np.hypot(opened["se"], shut["se"]).sum()) / YEARS


sides = {b: slopes(b) for b in (low, high)}
for b, (rent, spared, error) in sides.items():
    print(
        f"At {b:5.2f} days another costs {rent:6.0f} a year and spares {spared:6.0f} ± {error:.0f} (thousand dollars)."
    )
(first, second) = (rent - spared for rent, spared, _ in sides.values())
assert first < 0 < second
by_slope = low - first * (high - low) / (second - first)
print(f"By the derivative the best buffer is {by_slope:.1f} days, by the sweep {best:.1f}.")

# %% [markdown]
# **In words.** With 50,000 firms, 90 days and closures of four weeks, the best buffer is 13.25 days by the sweep and
# 13.6 by the derivative: together 450 million dollars a year, against 549 with 8 days and 554 with 24. With 2,000
# firms, 44 days and two draws (`LPMPPL_EXAMPLE_AGENTS=20000`) it is 13.75 and 13.7: holding it costs 11 million dollars
# a year, and a closure then loses 64 million, where it loses 104 with ten days. It isn't a law of nature: where a few
# large firms have one importer each, the best buffer is what keeps these going.
#
# **A reserve that is announced.** `lpm.search` compares plans: so many days more than the usual ten, bought from day 0
# on, with the port closed for four weeks a month later. It counts what the buying itself disturbs.

# %%
late = [("port", 0.0, 20 if QUICK else 40), ("port", 1.0, 48 if QUICK else 68)]
extra = [3.0, 8.0] if QUICK else [2.0, 4.0, 8.0, 16.0]
span = 56 if QUICK else 90


def yearly(found):
    """What holding costs in a year at this rate, and a tenth of what isn't met."""
    return 365 / span * found["holding"] + found["unserved"] / YEARS


ranked = lpm.search(model, {"reserve": extra}, yearly, at=0, days=span, interventions=late, first=2, keep=0.4)
for name in ranked["policy"].values:
    row = ranked.sel(policy=name)
    print(f"{name:>14}: {float(row['behind']):8.0f} ± {float(row['behind_se']):.0f} behind the best a year")
print(f"Best is '{ranked.attrs['best']}'; a wrong choice is expected to lose {ranked.attrs['regret']:.0f}.")

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(tried, both / 1e3, "o-", color="C0", label="holding and a tenth of a closure")
axes.plot(tried, 365 * held / 1e3, color="0.5", ls="--", label="holding")
axes.axvline(best, color="C1", label=f"best by the sweep, {best:.1f}")
axes.axvline(by_slope, color="C2", ls=":", label=f"by the derivative, {by_slope:.1f}")
axes.set(xlabel="days of inputs held", ylabel="million dollars a year", ylim=0)
axes.legend(frameon=False, fontsize=8)
shown(figure, "question_port_buffer")

# %% [markdown]
# ## What would change the answer
#
# **How often the port closes.** Halve the years between closures, and a closure counts twice. The best buffer by the
# sweep's own points:

# %%
for years in (2.0, 5.0, 10.0, 20.0, 50.0):
    yearly_cost = 365 * held + loss / years
    print(f"once in {years:2.0f} years: {tried[int(np.argmin(yearly_cost))]:5.2f} days")

# %% [markdown]
# **Spare capacity** makes up for little while the port is closed, and for more after it:

# %%
asked = {"days": DAYS, "interventions": ACTS, "draws": 2, "audit": False}
swift = lpm.sensitivity(model, "unserved", ["buffer", "slack", "restock", "failure"], **asked)
for name in swift["parameter"].values:
    row = swift.sel(parameter=name)
    print(
        f"1 % more {name:>8}: {float(row['elasticity']):6.2f} ± {float(row['elasticity_se']):.2f} % of what isn't met"
    )

# %% [markdown]
# ## What it does not show
#
# - **Nobody finds another supplier**, and nobody makes do without an essential input. This is a model of the first
#   weeks; losses of the fourth are too high, and with them the worth of a buffer.
# - **Prices don't move**: what is scarce goes to everybody in proportion, not to who would pay most.
# - A dollar not served counts as a dollar, whatever it was for; and a firm that holds stocks is not the one that gains
#   most by them. Who would pay for the buffer isn't here.
# - **The table is coarse**: fourteen industries, to 0.01. What is essential, that closures come once in ten years, and
#   that 40 % of imports come through the West, are chosen.
# - Ships don't wait outside: what was ordered in the closure isn't delivered after it, but ordered again.
