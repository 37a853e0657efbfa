# %% [markdown]
# # A city that keeps its secrets
#
# ## Question
#
# May a city learn how its epidemic goes, and what a policy would change, if nobody may see whether anybody is ill? Here
# every household keeps what its members have, and all sums over people are made under secret sharing (§6 of the Large
# Population Models paper). Three things are asked: are the answers the same, what do they cost, and what do they give
# away?
#
# `python examples/question_private.py` answers for 200,000 people; with `LPMPPL_EXAMPLE_AGENTS=20000` for fewer. Needs
# `pip install 'lpmppl[parties]'`.

# %%
import os
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import SecretShared
from lpmppl.effects.internals.shares import opened, shared
from lpmppl.parties.trial import Trial

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))
DAYS = 60 if AGENTS > 100_000 else 30
PARTIES = 3

people = lpm.nyc.population(AGENTS)
model = lpm.nyc.seirm(people, by={"borough": "borough"})

# %% [markdown]
# ## How a sum is made that nobody sees
#
# Ten people, four of whom are ill, split what they have in three: two shares are random numbers, the third is what is
# missing, modulo 2⁶⁴. Each helper gets one share of everybody and adds up; only the three sums together are the sum.

# %%
ill = torch.tensor([0, 1, 0, 0, 1, 1, 0, 0, 0, 1])
split = shared(ill, PARTIES)
helpers = [split.of(k) for k in range(PARTIES)]
for k, share in enumerate(helpers):
    print(f"helper {k} has", " ".join(f"{x % 2**64:016x}"[:8] for x in share.tolist()), "…")
sums = [share.sum() for share in helpers]
print("their sums:", [f"{int(s) % 2**64:016x}" for s in sums], "together:", int(opened(sums)))

# %% [markdown]
# ## Are the answers the same?
#
# The model is the same program under another handler. Nothing of it changes, and neither do its numbers.

# %%
began = time.perf_counter()
plain = lpm.run(model, days=DAYS, seed=1)["prior_predictive"].to_dataset()
in_clear = time.perf_counter() - began
began = time.perf_counter()
with SecretShared(PARTIES, ledger=True) as secret:
    private = lpm.run(model, days=DAYS, seed=1)["prior_predictive"].to_dataset()
in_secret = time.perf_counter() - began
same = all(bool((private[name] == plain[name]).all()) for name in plain.data_vars)
print(f"{secret.opened} sums were opened, {secret.kept} stayed in households, workplaces and schools")
print("the same numbers, bit for bit:", same)

# %% [markdown]
# Nor does a question change: what if contacts halved on day 15? Both worlds run side by side, in secret.

# %%
with SecretShared(PARTIES, quiet=True):
    what_if = lpm.counterfactual(model, do={"transmission": 0.5}, at=15, days=DAYS, seed=1, by={"borough": "borough"})
total = what_if["prior_predictive"].to_dataset()["infections"].sum(["borough", "day"]).isel(chain=0, draw=0)
print({str(world): int(total.sel(policy=world)) for world in total["policy"].values})

# %% [markdown]
# ## What does it give away?
#
# Helpers have random numbers. Everybody has the sums that were opened, and these tell something: how much at most, and
# of whom. A sum of 0 says that nobody in the group has it.

# %%
assert secret.ledger is not None
for row in secret.ledger.rows:
    if "bits" in row:
        print(
            f"{row['network']}: {row['sums']} sums over {row['groups']} groups, the smallest of {row['smallest']}: "
            f"{row['identified']} people identified, {row['cleared']:.0%} told apart as not having it"
        )
    else:
        print(f"{row['network']}: {row['sums']} sums, which only custodians have, of their own")

# %% [markdown]
# Where that is too much, sums are opened with noise: less is told, and less is known. The band is where a few noisy
# runs of SIR lie; the more noise, the lower ε, the differential privacy of everything that one person ever sent. What
# noise makes negative is opened as 0, so that noise also adds: where it is large beside the counts, it makes an
# epidemic. Small cities can't have both.

# %%
spread = lpm.nyc.sir(people, by={"borough": "borough"})
figure, axes = plt.subplots(1, 2, figsize=(10, 3.5), sharey=True, layout="constrained")
daily = lpm.run(spread, days=DAYS, seed=1)["prior_predictive"].to_dataset()["infections"].sum("borough").values[0, 0]
RUNS = 5 if AGENTS > 100_000 else 2
for ax, sigma in zip(axes, (2.0, 20.0), strict=True):
    noisy, opening = [], lpm.Noised(sigma=sigma)
    for _ in range(RUNS):
        with SecretShared(PARTIES, opening=opening, quiet=True) as noised:
            run = lpm.run(spread, days=DAYS, seed=1)["prior_predictive"].to_dataset()
        noisy.append(run["infections"].sum("borough").values[0, 0])
    epsilon = opening.epsilon(noised.opened, 1e-6)
    ax.fill_between(range(DAYS), np.min(noisy, 0), np.max(noisy, 0), alpha=0.3, label=f"noised, {RUNS} runs")
    ax.plot(daily, color="black", label="in the clear")
    ax.set(title=f"σ = {sigma:g} messages, ε = {epsilon:.1f}", xlabel="day")
    ax.legend(frameon=False)
    off = np.mean(noisy, 0).sum() / daily.sum() - 1
    print(f"σ = {sigma:g}: ε = {epsilon:.1f} at δ = 1e-6, infections {off:+.0%}")
axes[0].set_ylabel("infections a day")
plt.show()

# %% [markdown]
# ## What does it cost?

# %%
print(f"in the clear {in_clear:.1f} s, in secret {in_secret:.1f} s (with the ledger): {in_secret / in_clear:.1f} times")

# %% [markdown]
# ## And among real parties
#
# Three helpers, a coordinator and two clients, each a process that talks over TLS. Every day one in ten people dies in
# mid-upload, half way one helper is killed. What the parties know at the end must be what one place would know that
# lacks the same people.

# %%
with tempfile.TemporaryDirectory() as folder:
    few = lpm.nyc.population(1_000)
    trial = Trial(few, Path(folder) / "parties", days=4 if AGENTS <= 100_000 else 14, dropout=0.1)
    found = trial.run()
print({name: found[name] for name in ("agents_included", "equal_to_central", "bytes_per_agent", "sums")})

# %% [markdown]
# ## What this doesn't say
#
# - The people here are synthetic. With real ones each household's hub, school and employer would run its part.
# - Sums over ten or more people hide individuals in a group, and no more; [the threat model](../threat-model.md) says
#   what isn't protected.
# - Noise of real helpers, and infection tests whose sums are never opened, aren't built.
