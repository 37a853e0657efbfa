# %% [markdown]
# # What is a day of isolation worth?
#
# ## Question
#
# Whoever is ill and stays at home loses wages, and spares others an infection. Too few do. What should a city pay for
# a day of isolation, if it knows totals alone: how many isolate, and how many are infected? It is open problem 6 of the
# Large Population Models paper.
#
# `python examples/question_subsidy.py` answers it for 30,000 people in some minutes on two cores. With
# `LPMPPL_EXAMPLE_AGENTS=20000` it takes fewer people, days and draws. Every number below says what it was made with.

# %%
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lpmppl as lpm
from lpmppl.inference.incentive import price
from lpmppl.models.isolation import Isolation
from lpmppl.models.population import Population

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "30000"))
QUICK = AGENTS < 30_000
PLAYERS, PERIODS = (3_000, 8) if QUICK else (6_000, 20)
DAYS, DRAWS, ROUNDS = (40, 2, 3) if QUICK else (90, 5, 4)
START = 5

# %% [markdown]
# ## A game with a known answer
#
# First where the answer is known: [the isolation game](../orchestration.md). Each period everybody is infectious with
# probability 0.05, and isolates or goes out. An infection costs whom it strikes \$300, and others \$200. People weigh
# what isolating costs them, which differs, against the risk; they don't weigh whom they may infect.

# %%
LOSS, PUBLIC = 300.0, 200.0
model = Isolation(Population.of({"household": np.arange(PLAYERS) // 4}), loss=LOSS)
game = model.game(public=PUBLIC)
left_alone, best, pigou = game.equilibrium(), game.optimum(), game.subsidy()
print(
    f"Left alone {left_alone:.1%} isolate; best for all were {best:.1%}; the subsidy that brings them is ${pigou:.2f}."
)


def harm(t):
    """Dollars that infections cost those whom they strike, and others."""
    return (LOSS + PUBLIC) * t["infections"]


def own(t):
    """Dollars of its own that one who isolates spares itself."""
    return LOSS * t["infections"] / (PLAYERS * PERIODS - t["isolators"])


# %% [markdown]
# Now it is learnt, by a planner who sees sums that three parties add up in secret, and nobody's choice or cost.

# %%
options = {"own": own, "draws": 4 if QUICK else 8, "rounds": 4 if QUICK else 8, "precision": 0.01}
with lpm.SecretShared(parties=3, quiet=True) as secret:
    learnt = price(model, "subsidy", harm, "isolators", (0.0, 60.0), PERIODS, **options)
found, error = float(learnt["price"]), float(learnt["root_se"])


def closed(subsidy):
    """How much of the gap between what people do left alone and what is best a subsidy closes, exactly."""
    cost = [game.social_cost(game.equilibrium(s)) for s in (0.0, subsidy, pigou)]
    return (cost[0] - cost[1]) / (cost[0] - cost[2])


print(f"Learnt from {secret.opened:,} sums of {PLAYERS:,} people: ${found:.2f} ± {error:.2f}; exact is ${pigou:.2f}.")
print(f"It closes {closed(found):.1%} of the gap; the planner's own estimate is {float(learnt['gap_closed']):.1%}.")
assert abs(found - pigou) < 4 * error and closed(found) > 0.8

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
shares = np.linspace(0.02, 0.7, 60)
left.plot(shares, [game.externality(p) for p in shares], label="externality")
left.plot(shares, [game.costs.ppf(p) - game.benefit - game.loss * game.risk(p) for p in shares], label="what it takes")
left.plot([best], [pigou], "k.")
left.set(xlabel="share who isolate", ylabel="dollars", ylim=(-20, 80))
left.legend(frameon=False)
rounds = np.arange(1, learnt.sizes["round"] + 1)
right.errorbar(rounds, learnt["measured"], 2 * learnt["measured_se"], fmt="o", capsize=3, label="externality measured")
right.plot(rounds, learnt["tried"], "s", label="price tried", mfc="none")
right.axhline(pigou, color="0.6", lw=0.8)
right.set(xlabel="round", ylabel="dollars", xticks=rounds)
right.legend(frameon=False)


def shown(figure, name):
    """The figure, for a notebook to show; a script writes it to the folder LPMPPL_FIGURES, where that is set."""
    if folder := os.environ.get("LPMPPL_FIGURES"):
        figure.savefig(Path(folder) / f"{name}.png", dpi=150)
    plt.close(figure)
    return figure


shown(figure, "question_subsidy_game")

# %% [markdown]
# Left, the game: the optimum is where what one more person at home spares others is what it takes to have them stay.
# Right, how the price was learnt; bars are two standard errors.
#
# ## In the pandemic
#
# [The pandemic](../pandemic.md) from 1 March 2020, day 0. From day 5 on the city pays `isolation_pay`, so many dollars
# a day to whoever isolates ([Behaviour](../behaviour.md)). A day's median wage, \$200, adds 1.15 to the log-odds with
# which somebody ill who has a job isolates. That is half of what a survey finds of compensation for lost wages, and
# nothing is known beyond: pay of up to two days' wages is looked at.
#
# The planner's books come in two kinds.
#
# - *The payer's*: an infection costs \$2,500 of care, as much as \$163.4 billion for a fifth of Americans (Bartsch et
#   al., Health Affairs 39, 2020), and raising a dollar costs 25 cents beyond it (OMB Circular A-94).
# - *Society's*: on top, lives. An infection is taken to kill 0.68 % (Meyerowitz-Katz and Merone, International Journal
#   of Infectious Diseases 101, 2020), and a statistical life is worth \$11.6 million (US Department of Transportation,
#   for 2020).
#
# Pay also makes the epidemic smaller, and then fewer have anything to decide; `occasions=` counts isolation per
# infection, so that only people's decisions count as such.

# %%
CARE, LIFE, FATAL, BURDEN, MOST = 2_500.0, 11.6e6, 0.0068, 0.25, 400.0
people = lpm.nyc.population(AGENTS)
city = lpm.nyc.pandemic(people, without=["vaccination", "observation", "claims"])


def care(t):
    """Dollars that the care of all infections costs."""
    return CARE * t["infections"]


options = {"occasions": "infections", "burden": BURDEN, "draws": DRAWS, "rounds": ROUNDS, "step": 0.25}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # where the audit disagrees is said below
    paid = price(city, "isolation_pay", care, "isolating", (0.0, MOST), DAYS, at=START, **options)

# %% [markdown]
# ## Answer

# %%
x = {key: float(paid[key]) for key in paid if paid[key].ndim == 0}
per, lives = 1 / AGENTS, 1 + FATAL * LIFE / CARE
print(f"{AGENTS:,} people, {DAYS} days, pay from day {START}, {DRAWS} draws a round; ± standard errors\n")
for k in range(paid.sizes["round"]):
    at, value, error = (float(paid[key][k]) for key in ("tried", "measured", "measured_se"))
    print(f"round {k + 1}: beside ${at:.0f} a day, a day should be paid ${value:.0f} ± {error:.0f}")
print(f"{paid.attrs['ended']}: by the payer's books pay ${x['root']:.0f} ± {x['root_se']:.0f} a day.")
print(f"At ${x['price']:.0f} a day of isolation spares others ${x['externality']:,.0f}", end=" ")
print(f"± {x['externality_se']:,.0f} of care;")
print(f"it costs ${per * x['spending']:.2f} ± {per * x['spending_se']:.2f} a head", end=" ")
print(f"and gains ${per * x['gain']:.2f} ± {per * x['gain_se']:.2f}.")
print(f"By society's books a day spares ${lives * x['externality']:,.0f}: {lives:.0f} times as much, beyond the range.")

# %% [markdown]
# What the pay does to the epidemic, among the same people with the same chance:

# %%
plans = {"isolation_pay": [100.0, 200.0, MOST]}
tree = lpm.counterfactual(city, plans, at=START, days=DAYS, replicates=DRAWS)
effect = lpm.contrast(tree)
usual = tree["prior_predictive"].to_dataset().sel(policy="as it was").sum(["day", "borough", "age"])
per = 1e5 / AGENTS
for name in effect["policy"].values:
    row = [f"{name.split('@')[0].replace('isolation_pay=', 'pay of $'):>12}"]
    for tally in ("infections", "deaths"):
        mean, sd = (per * float(effect[tally].sel(policy=name, estimate=e)) for e in ("mean", "sd"))
        base = per * float(usual[tally].mean())
        row.append(f"{tally} {mean:+7.0f} ± {sd / DRAWS**0.5:.0f} of {base:,.0f} per 100,000")
    print(", ".join(row))

# %% [markdown]
# **In words.** With 30,000 people, 90 days and five draws a round (`python examples/question_subsidy.py`), a payer who
# counts care alone should pay \$97 ± 14 a day of isolation, half a day's wage. At that pay a day of isolation spares
# others \$587 ± 57 of care; but most of what is paid goes to people who would isolate anyway, and raising it costs. It
# comes to \$68 a head, and gains \$9.1 ± 1.8 a head: it helps, and not much. At \$100 a day there are 4 % fewer
# infections, at \$400 14 %. By society's books a day is worth \$19,000, far beyond what is known of how people respond:
# there any pay looked at is too little.
#
# ## What it does not show
#
# - How people respond to pay is a number that is chosen from a survey of intentions, in another country. The price
#   follows from it, and from how much of an infection isolating prevents.
# - People who isolate for nothing are paid too: that is most of what it costs. Who would not isolate unpaid can't be
#   told from who would.
# - Nobody feigns an illness here, and nobody seeks a test for the money.
# - The payer's books leave out lost work and lives, society's leave out long illness.
# - Deaths are counted by infections, which is less noise than deaths themselves and supposes that those averted are
#   like others.
