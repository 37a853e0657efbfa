# %% [markdown]
# # What does it cost to change minds for good?
#
# ## Question
#
# A town recycles little, and people do as others do. It can pay whoever recycles, for a while. What payment, to whom
# and for how long, brings more than half of the town to recycle and keeps them there once it stops? What does each
# person who still does so months later cost?
#
# `python examples/question_incentive.py` answers it for 30,000 people. With `LPMPPL_EXAMPLE_AGENTS=20000` it takes
# fewer people, days, plans and draws. Every number below says what it was made with.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import lpmppl as lpm
from lpmppl.inference.policies import Act
from lpmppl.models.archetypes import Lookup
from lpmppl.models.opinion import Opinion
from lpmppl.models.population import Population
from lpmppl.models.town import town

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "30000"))
QUICK = AGENTS < 30_000
DAYS, DRAWS = (130, 1) if QUICK else (300, 2)
BEGIN, PAID = 10, 80
DOLLARS = (0.1, 3.0, 5.0) if QUICK else (0.1, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0)

# %% [markdown]
# ## Model
#
# [Opinions](../opinion.md): on its own account a person thinks it over about every 17 days, and then recycles with a
# probability that follows from random utility. And people follow the others of their neighbourhood of 150 and the
# people they know, each at 0.18 a day where all of those think otherwise; two who agree persuade more than twice as
# well as one (conformity 2: the hazard goes with the square of the share). A third each is keen on money, moderate, or
# proud. To be paid at all puts people off, the proud twice as much; beyond that it goes with the logarithm of the
# dollars. The signs are those of Gneezy and Rustichini (Quarterly Journal of Economics 115, 2000). **All sizes are
# chosen**, here and in the town.

# %%
VALUES = {
    "adopt": {
        "adopt": {
            "intercept": -0.3,
            "offer=offered × paid": -0.5,
            "offer=offered × reward": 1.3,
            "price=keen × offer=offered × reward": 0.7,
            "price=proud × offer=offered × paid": -0.5,
            "price=proud × offer=offered × reward": -0.4,
        }
    }
}
PACE = {"deliberation": 0.06, "herding": 0.18, "conformity": 2.0, "initial": 0.1}
people, ties = town(AGENTS)


def society(behaviour):
    networks = [people.network("neighbourhood"), ties]
    attributes = {"price": Lookup("price")}
    return Opinion(people, networks, by={"price": "price"}, attributes=attributes, behaviour=behaviour)


def paying(dollars, days=PAID, to=None):
    """From day 10 on, for so many days, dollars a day to everybody who recycles, or to some of them."""
    some = [Act("offered", "no", BEGIN), Act("offered", "yes", BEGIN, to)] if to else []
    return [*some, Act("incentive", dollars, BEGIN), Act("incentive", 0.0, BEGIN + days)]


model = society(VALUES)
# As dear as four dollars to all, or nearly: so many dollars to a fifth of the people.
FIFTHS = {
    "by lot": (40.0, {"lottery": "won"}),
    "the best connected": (40.0, {"connected": "most"}),
    "whole quarters": (12.0, {"quarter": "chosen"}),
}
plans = {f"${c:g} to all": paying(c) for c in DOLLARS}
plans |= {f"${c:g} to a fifth, {who}": paying(c, to=to) for who, (c, to) in FIFTHS.items()}
plans["nothing, said twice"] = [Act("incentive", 0.0, BEGIN)]
tree = lpm.counterfactual(model, plans, days=DAYS, set=PACE, replicates=DRAWS)


def town_of(tree, name):
    """A tally of the whole town: (draw, policy, day)."""
    return tree["prior_predictive"][name].isel(chain=0).sum("price")


# %% [markdown]
# ## Check
#
# A payment of nothing changes nothing, bit for bit; and a world is the run of its policy alone.

# %%
for name, tally in tree["prior_predictive"].data_vars.items():
    assert np.array_equal(tally.sel(policy="nothing, said twice"), tally.sel(policy="as it was")), name
alone = lpm.run(model, days=40, seed=0, set=PACE, interventions=[("incentive", 3.0, BEGIN)])["prior_predictive"]
world = tree["prior_predictive"]["adopters"].sel(policy="$3 to all").isel(draw=0, day=slice(40))
assert np.array_equal(world, alone["adopters"].isel(draw=0))

# %% [markdown]
# Without conformity it is Kirman's model of 1993, whose stationary law is known: in a village of n who all see each
# other the number of one opinion is beta-binomial, and where people follow much more than they think it has two humps.
# Villages of eight, who follow slowly so that a day is a short step, against that law:

# %%
villages = 600 if QUICK else 1_000
hamlets = Population.of({"village": np.arange(8 * villages) // 8})
evenly = {"adopt": {"adopt": {"intercept": 0.0}}}
kirman = Opinion(hamlets, [hamlets.network("village")], by={"village": "village"}, behaviour=evenly)
slowly = {"deliberation": 0.0016, "herding": 0.02, "conformity": 1.0, "initial": 0.5}
village = lpm.run(kirman, days=600, seed=1, set=slowly)["prior_predictive"]["adopters"].isel(chain=0, draw=0, day=-1)
law = stats.betabinom(8, 0.0008 * 8 / 0.02, 0.0008 * 8 / 0.02)
agree, expected = float(((village == 0) | (village == 8)).mean()), law.pmf(0) + law.pmf(8)
print(f"villages that agree: {agree:.1%}; by Kirman's law {expected:.1%}, by tosses of a coin {2 * 0.5**8:.1%}")
# Within five standard errors, and 2 % for steps of a day: fails once in a million by chance.
assert abs(agree - expected) < 5 * (expected * (1 - expected) / villages) ** 0.5 + 0.02

# %% [markdown]
# ## Answer

# %%
share = town_of(tree, "adopters") / AGENTS
payments = town_of(tree, "payments").sum("day")
price = lpm.cost_per(tree, "holdouts")["cost"].sel(estimate="mean")
effect = lpm.contrast(tree)["holdouts"]
print(f"{AGENTS:,} people, {DAYS} days, {DRAWS} draws, paid from day {BEGIN} to {BEGIN + PAID}\n")
print(f"{'':>36} {'recycle':>8} {'then':>6} {'at last':>8} {'dollars a head':>15} {'each lasting convert':>21}")
for name in share["policy"].values[:-1]:
    now = [float(share.sel(policy=name, day=day).mean()) for day in (BEGIN + PAID - 1, BEGIN + PAID + 20, DAYS - 1)]
    head = float(payments.sel(policy=name).mean()) / AGENTS
    lasting = 0.0 if name == "as it was" else -float(effect.sel(policy=name, estimate="mean"))
    # Fewer than one in fifty are within what chance makes of them.
    each = f"{float(price.sel(policy=name)):>19,.0f} $" if lasting > AGENTS / 50 else f"{'none':>21}"
    print(f"{name:>36} {now[0]:>8.1%} {now[1]:>6.1%} {now[2]:>8.1%} {head:>13.2f} $ {each}")


# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
chosen = ["as it was", "$0.1 to all", "$3 to all", "$5 to all", "$12 to a fifth, whole quarters"]
for k, name in enumerate(chosen):
    mean = share.sel(policy=name).mean("draw")
    left.plot(mean["day"], 100 * mean, label=name, color="0.4" if k == 0 else f"C{k - 1}")
left.axvspan(BEGIN, BEGIN + PAID, color="0.9", lw=0)
left.set(xlabel="day", ylabel="who recycle, %", ylim=(0, 100))
left.legend(frameon=False, fontsize=8)


def shown(figure, name):
    """The figure, for a notebook to show; a script writes it to the folder LPMPPL_FIGURES, where that is set."""
    if folder := os.environ.get("LPMPPL_FIGURES"):
        figure.savefig(Path(folder) / f"{name}.png", dpi=150)
    plt.close(figure)
    return figure


# %% [markdown]
# **Up one way, down another.** Right in the figure, the payment rises from nothing in steps and falls again, each step
# long enough for the town to settle. Where two who agree persuade more than twice as well as one, the town that has
# been paid enough stays when the money is gone: hysteresis. In Kirman's own model (conformity 1) it doesn't: in a large
# society following others cancels out, since as many are led one way as the other, and what is left is what people
# think on their own account. Then no payment, however large, lasts longer than people take to think again.

# %%
rungs = (0.0, 3.0, 6.0, 9.0) if QUICK else (0.0, 2.0, 4.0, 6.0, 8.0)
ladder = [*rungs, *rungs[-2::-1]]
PERIOD = 30 if QUICK else 50
acts = [("incentive", c, k * PERIOD) for k, c in enumerate(ladder)]
for conformity, style in ((2.0, "-"), (1.0, ":")):
    loop = lpm.run(model, days=len(ladder) * PERIOD, set={**PACE, "conformity": conformity}, interventions=acts)
    level = loop["prior_predictive"]["adopters"].isel(chain=0, draw=0).sum("price") / AGENTS
    ends = level.isel(day=slice(PERIOD - 1, None, PERIOD)).to_numpy()
    up, down = ends[: len(rungs)], ends[len(rungs) - 1 :]
    right.plot(rungs, 100 * up, f"C0{style}", marker="^", label=f"rising, conformity {conformity:g}")
    right.plot(rungs[::-1], 100 * down, f"C1{style}", marker="v", label=f"falling, conformity {conformity:g}")
    print(f"conformity {conformity:g}: {up[0]:.1%} before, {up[-1]:.1%} at ${rungs[-1]:g}, {down[-1]:.1%} after")
    assert (down[-1] > 0.5) == (conformity > 1)
right.set(xlabel="dollars a day", ylabel="who recycle, %", ylim=(0, 100))
right.legend(frameon=False, fontsize=8)
shown(figure, "question_incentive_answer")

# %% [markdown]
# Left, who recycles by day, grey while it is paid; right, where the town stands at the end of each step of the payment.
#
# **In words.** With 30,000 people, 300 days and two draws (`python examples/question_incentive.py`), 11 % recycle where
# nothing is paid. Ten cents a day make it 7 %: they crowd out more than they draw. Three dollars for 80 days bring half
# of the town to it, and when they end it slides back: 18 % on the last day. Four dollars tip it: 78 % at the end of the
# payment, 71 % three weeks and 67 % seven months later, for 133 dollars a head and 239 for each lasting convert. Five
# hold without falling (81 % after three weeks, 80 % at last) at 287 dollars each; eight buy hardly anybody more, at
# 552. So the price of a lasting convert isn't monotone: it is least just above the point at which the town tips in the
# time there is, and beyond all measure just below.
#
# To whom, for the same money? Forty dollars a day to a fifth by lot, or to the best connected, cost as much as four
# to all (142 dollars a head), and nothing is left of it: whoever is paid stays alone among neighbours who aren't. Whole
# neighbourhoods, at twelve dollars (120 a head), hold together for some months, 25 % three weeks later, but are worn
# away from their borders, to 13 % in the end: 4,855 dollars for each who is left.
#
# ## What would change the answer
#
# **How long it is paid.** What counts is whether the town has passed the middle when the money stops. `lpm.search`
# compares amounts and durations among the same people with the same chance, within a budget of 250 dollars a head.
# Five dollars for 80 days are best: for 40 days they leave 12 %, and 120 days cost twice as much for 83 %. Three
# dollars, in vain for 80 days, tip the town in 120: 67 % at last for 150 dollars a head.

# %%
lengths = (40, 80) if QUICK else (40, 80, 120)
amounts = (5.0,) if QUICK else (3.0, 5.0)
candidates = {f"${c:g} for {n} days": paying(c, n) for c in amounts for n in lengths}
budget = 250.0 * AGENTS
ranked = lpm.search(model, candidates, "holdouts", days=DAYS, set=PACE, budget=budget, keep=0.3)
for name in ranked["policy"].values:
    row = ranked.sel(policy=name)
    left_over, head = float(row["objective"]) / AGENTS, float(row["cost"]) / AGENTS
    note = "" if row["affordable"] else ", over the budget"
    print(f"{name:>18}: {1 - left_over:5.1%} recycle at last, {head:6.2f} $ a head{note}")
print(f"Best within the budget is '{ranked.attrs['best']}'.")

# %% [markdown]
# **What they think on their own account.** Of those who think it over unpaid, 43 % would recycle. If 38 % would, five
# dollars still bring 78 % of the town to it; but then, where neighbourhoods of either mind meet, the old one wins
# ground, and on day 299 39 % are left and falling, where otherwise 80 % stay. What looks like for good after three
# weeks needn't be.

# %%
conviction = {"adopt": {"adopt": {**VALUES["adopt"]["adopt"], "intercept": -0.5}}}
less = lpm.counterfactual(society(conviction), {"$5 to all": paying(5.0)}, days=DAYS, set=PACE)
later = town_of(less, "adopters").sel(policy="$5 to all").isel(draw=0) / AGENTS
same = share.sel(policy="$5 to all").isel(draw=0)
for what, x in (("43 %", same), ("38 %", later)):
    print(f"{what} convinced: {float(x[BEGIN + PAID - 1]):.1%} when it ends, {float(x[-1]):.1%} on day {DAYS - 1}")
assert float(later[-1]) < float(same[-1])

# %% [markdown]
# **How people are.** How many more recycle after 30 days of three dollars, in percent of people for a tenth more of
# each parameter, with the audit against differences of other draws. A smaller town of the same make is asked.

# %%
smaller, its_ties = town(2_000)
little = Opinion(
    smaller,
    [smaller.network("neighbourhood"), its_ties],
    by={"price": "price"},
    attributes={"price": Lookup("price")},
    behaviour=VALUES,
)
three = [("incentive", 3.0, BEGIN)]
slope = lpm.sensitivity(little, "adopters", "all", days=40, set=PACE, interventions=three, draws=3 if QUICK else 12)
for name in slope["parameter"].values:
    row = slope.sel(parameter=name)
    tenth = 10 * float(row["at"]) / 2_000
    print(
        f"{name:>13}: {tenth * float(row['value']):+6.2f} ± {tenth * float(row['se']):.2f}, "
        f"audit {tenth * float(row['difference']):+6.2f} ± {tenth * float(row['difference_se']):.2f}"
    )

# %% [markdown]
# More thought of one's own brings more people to recycle, and more following, or more conformity, fewer: below the
# middle the herd holds them back.
#
# ## What it does not show
#
# - **Sizes are chosen**: what a dollar is worth, how much of it crowds out, how much people follow whom. What is shown
#   is the shape of the answer, not an amount. `lpm.calibrate` finds the rates from a record of adoptions and lapses.
# - **The town is made up**, and small worlds are a guess at who sees whose bins. Where everybody sees everybody, money
#   has to go further before it tips, and what tips lasts.
# - The best connected are paid here for what they do. Whether they would speak for it, and are listened to more, isn't
#   in the model: a tie is a tie.
# - Neighbourhoods are paid all at once. Paying one after another, next to those that have tipped, wasn't tried.
# - Nobody moves, and nobody recycles a little.
