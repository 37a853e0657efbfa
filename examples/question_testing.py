# %% [markdown]
# # PCR or antigen?
#
# ## Question
#
# A city can test everybody every few days. PCR finds a hundredth of the virus that an antigen test needs, but its
# result comes from a laboratory two days later; an antigen result is there at once. Which stops more infections, with
# how many tests, and how much isolation?
#
# `python examples/question_testing.py` answers it for 200,000 people in about four minutes on two cores. With
# `LPMPPL_EXAMPLE_AGENTS=20000` it takes fewer people, days and draws. Every number below says what it was made with.

# %%
import os
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lpmppl as lpm

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))
QUICK = AGENTS < 100_000
DAYS, DRAWS = (24, 2) if QUICK else (60, 4)
EVERY = (3, 7) if QUICK else (3, 7, 14)
WAITS = {"at once": 0.01, "1 day": 1.0, "2 days": 2.0, "3 days": 3.0}
USUAL = "2 days"
KINDS = ("PCR", "antigen")

# %% [markdown]
# ## Model
#
# [The pandemic](../pandemic.md) from 1 March 2020, day 0, with the recorded activity. Reports and vaccines are left
# out: nothing here depends on them. From day 0 on everybody is tested every so many days, each at a turn of one's own
# ([Testing](../testing.md)):
#
# - A test finds an infection whose viral load reaches its limit of detection, 10³ copies/ml for PCR and 10⁵ for antigen
#   tests (Larremore et al., Science Advances 7, 2021, eabd5393).
# - Whoever learns of a positive test isolates or not, as [Behaviour](../behaviour.md) says; who isolates infects nobody
#   outside the home.
# - Laboratories have room for all, in every world: otherwise the ill would wait longer, and this is about screening.
#
# Every kind and frequency is a world of one run, beside the world in which only the ill seek a test, which is PCR. All
# worlds have the same people with the same chance.

# %%
people = lpm.nyc.population(AGENTS)
model = lpm.nyc.pandemic(people, without=["vaccination", "observation", "claims"])
plans = {
    f"{kind} every {every} days": [("test", kind.lower(), 0), ("screening", every, 0)]
    for every in EVERY
    for kind in KINDS
}
ROOM = [("capacity", 1.0, 0)]


def worlds(wait, do, days=DAYS, replicates=DRAWS, **fixed):
    """The worlds of some plans, where a PCR result takes so many days."""
    fixed = {"pcr_delay": wait, **fixed}
    return lpm.counterfactual(model, do, days=days, replicates=replicates, set=fixed, interventions=ROOM)


nothing = {"the same": [("test", "pcr", 0), ("screening", 0, 0)]}
ill = {"antigen for the ill alone": [("test", "antigen", 0)]}
tree = worlds(WAITS[USUAL], {**plans, **ill, **nothing})


def city(tree, name):
    """A tally of the whole city: (draw, policy, day)."""
    return tree["prior_predictive"][name].isel(chain=0).sum(["borough", "age"])


def interval(x):
    """The mean over draws, and the ends between which nine of ten draws lie."""
    return np.array([x.mean("draw"), *(x.quantile(q, "draw") for q in (0.05, 0.95))])


def said(x, digits=2):
    """A mean and its interval, in words."""
    mean, low, high = (float(v) for v in x)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


# %% [markdown]
# ## Check
#
# A policy that sets what is set already changes nothing, exactly, in any tally and stratum; and a world is the run of
# its policy alone, bit for bit.

# %%
for name, tally in tree["prior_predictive"].data_vars.items():
    assert np.array_equal(tally.sel(policy="the same"), tally.sel(policy="as it was")), name

first = f"antigen every {EVERY[0]} days"
alone = lpm.run(model, days=14, seed=0, set={"pcr_delay": WAITS[USUAL]}, interventions=[*ROOM, *plans[first]])
for name, tally in alone["prior_predictive"].data_vars.items():
    world = tree["prior_predictive"][name].sel(policy=first).isel(chain=0, draw=0, day=slice(14))
    assert np.array_equal(world.to_numpy(), tally.isel(chain=0, draw=0).to_numpy()), name

# %% [markdown]
# The published direction, from models of viral loads by Larremore et al.: how often people are tested and how fast they
# hear matters more than how little virus a test finds. So antigen tests stop more than PCR with two days' wait, of
# either kind more is better, and without a wait PCR, which finds all that an antigen test finds, must be the better.

# %%
share = 100 * city(tree, "infections").sum("day") / AGENTS
for every in EVERY:
    assert (share.sel(policy=f"antigen every {every} days") < share.sel(policy=f"PCR every {every} days")).all()
for kind in KINDS:
    for more, less in pairwise(EVERY):
        assert (share.sel(policy=f"{kind} every {more} days") < share.sel(policy=f"{kind} every {less} days")).all()

# %% [markdown]
# ## Answer

# %%
isolating, tests = (city(tree, name).sum("day") / AGENTS for name in ("isolating", "tests"))
price = lpm.cost_per(tree, "infections", cost="tests")["cost"]
necessity = lpm.fates(tree, "infected")["necessity"]
print(f"{AGENTS:,} people, {DAYS} days, {DRAWS} draws; PCR takes {USUAL}; in brackets nine of ten draws\n")
print(f"{'':>26} {'infected, %':>22} {'spared':>7} {'isolation':>10} {'tests':>6} {'each infection':>15}")
for name in share["policy"].values[:-1]:
    infected = said(interval(share.sel(policy=name)))
    days, each = (float(x.sel(policy=name).mean()) for x in (isolating, tests))
    row = f"{name:>26} {infected:>22}"
    if name == "as it was":
        print(f"{row} {'':>7} {days:>10.2f} {each:>6.1f}")
        continue
    spared = 100 * float(necessity.sel(policy=name, estimate="mean"))
    # Who is ill is tested in every world; only screening has a price worth saying.
    dear = float(price.sel(policy=name, estimate="mean")) if "every" in name else np.nan
    print(f"{row} {spared:>5.0f} % {days:>10.2f} {each:>6.1f}" + (f" {dear:>9.0f} tests" if dear > 0 else ""))
print("spared: of those infected where nobody is screened; isolation: days a head; tests: a head, and for each averted")

often = EVERY[0]
fast, slow = (share.sel(policy=f"{kind} every {often} days") for kind in ("antigen", "PCR"))
print(f"\nEvery {often} days, antigen tests instead of PCR: {said(interval(slow - fast))} % of people fewer infected.")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
infections = 1e5 / AGENTS * city(tree, "infections")
chosen = ["as it was", *(f"{kind} every {n} days" for n in EVERY[:2] for kind in KINDS)]
for k, name in enumerate(chosen):
    _, low, high = interval(infections.sel(policy=name))
    style = {"color": "0.4"} if k == 0 else {"color": f"C{(k - 1) % 2}", "ls": "-" if k < 3 else "--"}
    left.plot(infections.sel(policy=name).mean("draw"), label="nobody is screened" if k == 0 else name, **style)
    left.fill_between(infections["day"], low, high, color=style["color"], alpha=0.2, lw=0)
left.set(xlabel="day", ylabel="infections a day per 100,000", ylim=0)
left.legend(frameon=False, fontsize=8)
for k, kind in enumerate(KINDS):
    mean, low, high = np.transpose([interval(share.sel(policy=f"{kind} every {n} days")) for n in EVERY])
    right.errorbar(
        EVERY, mean, np.maximum([mean - low, high - mean], 0), color=f"C{k}", marker="o", capsize=3, label=kind
    )
right.axhline(float(share.sel(policy="as it was").mean()), color="0.4", label="nobody is screened")
right.set(xlabel="days from one test to the next", ylabel=f"infected in {DAYS} days, %", xticks=EVERY, ylim=0)
right.legend(frameon=False, fontsize=8)


def shown(figure, name):
    """The figure, for a notebook to show; a script writes it to the folder LPMPPL_FIGURES, where that is set."""
    if folder := os.environ.get("LPMPPL_FIGURES"):
        figure.savefig(Path(folder) / f"{name}.png", dpi=150)
    plt.close(figure)
    return figure


shown(figure, "question_testing_answer")

# %% [markdown]
# Left, infections by day; right, how many are infected in all, by how often everybody is tested. Bands and bars hold
# nine of ten draws.
#
# **In words.** With 200,000 people, 60 days and four draws (`python examples/question_testing.py`), 24.1 % are infected
# where nobody is screened, 7.7 % where everybody has a PCR test every three days, and 2.6 % with antigen tests. Antigen
# tests are better at every frequency: 11.5 % instead of 16.2 % every week, 17.3 % instead of 20.1 % every two weeks.
# They need fewer tests for each infection averted (93 against 122 every three days), and fewer days of isolation a head
# (0.60 against 1.08, and 0.80 where nobody is screened, because most infections never happen). If only the ill are
# tested, it hardly matters with what: 23.5 % are infected.
#
# ## What would change the answer
#
# **The wait.** Results come once a day, so that a wait counts in whole days. The antigen worlds are the same whatever
# PCR takes, bit for bit, which says that the comparison is fair. At full size, 0.7, 2.3, 7.7 and 15.5 % are infected
# with PCR at once and after one, two and three days, and 2.6 % with antigen tests: PCR from a laboratory that needs one
# day is as good as them, or a little better.

# %%
pair = {name: acts for name, acts in plans.items() if name.endswith(f"every {often} days")}
waits = ("at once", USUAL) if QUICK else tuple(WAITS)
by_wait = {}
for wait in waits:
    found = tree if wait == USUAL else worlds(WAITS[wait], pair, replicates=1 if QUICK else DRAWS)
    by_wait[wait] = 100 * city(found, "infections").sum("day") / AGENTS
    antigen, pcr = (by_wait[wait].sel(policy=f"{kind} every {often} days") for kind in ("antigen", "PCR"))
    assert np.array_equal(antigen.to_numpy(), fast.isel(draw=slice(antigen.sizes["draw"])).to_numpy())
    difference = interval(pcr - antigen)
    better = (
        "antigen is better"
        if difference[1] > 0
        else "PCR is better"
        if difference[2] < 0
        else "it's open which is better"
    )
    print(f"PCR {wait:>7}: {said(interval(pcr))} % infected, antigen {said(interval(antigen))} %: {better}")
assert float(by_wait["at once"].sel(policy=f"PCR every {often} days").mean()) < float(fast.mean())

# %%
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
mean, low, high = np.transpose([interval(by_wait[w].sel(policy=f"PCR every {often} days")) for w in waits])
axes.errorbar(waits, mean, np.maximum([mean - low, high - mean], 0), color="C0", marker="o", capsize=3, label="PCR")
mean, low, high = interval(fast)
axes.axhline(mean, color="C1", label="antigen")
axes.axhspan(low, high, color="C1", alpha=0.2, lw=0)
axes.set(xlabel="from PCR test to result", ylabel=f"infected in {DAYS} days, %", ylim=0)
axes.legend(frameon=False, title=f"everybody every {often} days")
shown(figure, "question_testing_wait")

# %% [markdown]
# **False alarms.** Here a test of the uninfected is positive twice in a thousand, whichever it is. Five times as many,
# for both:

# %%
alarmed = worlds(WAITS[USUAL], pair, replicates=1 if QUICK else DRAWS, false_positive=0.01)
for name in pair:
    usual, more = (float((city(x, "isolating").sum("day") / AGENTS).sel(policy=name).mean()) for x in (tree, alarmed))
    ill = 100 * float((city(alarmed, "infections").sum("day") / AGENTS).sel(policy=name).mean())
    print(f"{name}: {usual:.2f} days of isolation a head become {more:.2f}, and {ill:.2f} % are infected")

# %% [markdown]
# **How many tests there are.** What is the best plan with no more than a test a week for everybody? `lpm.search`
# compares them among the same people with the same chance, and says what a wrong choice is expected to lose. At full
# size it is antigen tests every week, 4.6 % of people ahead of PCR every week.

# %%
rounds = {"days": 12, "first": 2, "keep": 0.2} if QUICK else {"days": DAYS, "first": 2, "keep": 0.5}
budget = AGENTS * (rounds["days"] / 7 + 0.2)
ranked = lpm.search(model, plans, "infections", budget=budget, cost="tests", interventions=ROOM, **rounds)
for name in ranked["policy"].values:
    row = ranked.sel(policy=name)
    behind, error = (100 * float(row[key]) / AGENTS for key in ("behind", "behind_se"))
    note = f"{behind:.2f} ± {error:.2f} % of people behind the best" if row["affordable"] else "too many tests"
    print(f"{name:>22}: {float(row['cost']) / AGENTS:5.1f} tests a head, {int(row['draws'])} draws, {note}")
loss = 100 * ranked.attrs["regret"] / AGENTS
print(f"Best is '{ranked.attrs['best']}', then '{ranked.attrs['runner_up']}'; regret {loss:.3f} % of people.")

# %% [markdown]
# ## What it does not show
#
# - **A swab never misses**: a load above the limit is always found, and one below never. Real antigen tests miss some
#   high loads.
# - **Nobody misses a turn**, and nobody tires of it; no city had so many tests. Who pays for them, and what else the
#   money would do, isn't here.
# - False alarms are alike for both kinds, while antigen tests and PCR have specificities of their own. A confirming PCR
#   after a positive antigen test isn't here either.
# - People of one age and history have one course of viral load, in five paces ([Immunity](../immunity.md)), so that
#   limits of detection cut more sharply than in life.
# - PCR finds what is left of an infection for weeks, in life; here it is positive only while virus is above its limit.
#   It would isolate more people who infect nobody.
# - Contacts at home go on in isolation, and contacts aren't traced here.
# - It is one wave of one virus, slowed by the recorded activity of 2020. Activity answers to admissions but not to
#   tests.
