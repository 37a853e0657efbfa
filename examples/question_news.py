# %% [markdown]
# # A city that reads the news
#
# ## Question
#
# People act on what they read. In March 2020, how much of New York's spring would have gone another way if its
# newspapers had warned two weeks earlier, or hadn't warned at all? It takes people whose decisions follow from words: a
# language model that is told who somebody is and what is in the paper, and asked what they do (§4.2 of the Large
# Population Models paper).
#
# `python examples/question_news.py` answers it for 200,000 people. With `LPMPPL_EXAMPLE_AGENTS=20000` it takes fewer
# people and days; in a much smaller city nobody may fall ill. Needs `pip install 'lpmppl[llm]'`; nothing is downloaded.

# %%
import math
import os
import random
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import outlines
import pyro.distributions as dist
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import lpmppl as lpm
from lpmppl.effects.handlers import Decided, LanguageModel, Neural, Utility
from lpmppl.effects.language.answers import Answers
from lpmppl.effects.language.local import Local
from lpmppl.effects.language.prompts import Prompt
from lpmppl.models.behaving import Behaving
from lpmppl.models.behaviour import ISOLATE, MASK, TEST, VACCINATE, archetypes
from lpmppl.models.model import Parameter

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))
QUICK = AGENTS < 100_000
DAYS, STEPS = (36, 600) if QUICK else (64, 2500)
OPTIONS = {"mask": MASK, "isolate": ISOLATE, "test": TEST, "vaccinate": VACCINATE}


# %% [markdown]
# ## Newspapers
#
# One headline a week, from 1 March 2020 on. Those *as printed* are what the week was about; the *calm* paper never
# warns; the *early* one is two weeks ahead. What each one does to a reader isn't known from any survey. Here it is
# assumed, in the numbers beside them: that is the science to be argued about, and it is in one place.

# %%
ALARM = {
    "Mayor: go on with your lives": -0.4,
    "First case of the new virus in Manhattan": 0.0,
    "Virus is a pandemic, says WHO": 0.4,
    "Schools and restaurants close": 0.8,
    "Stay at home, governor orders": 1.2,
    "Hospitals are full": 1.6,
    "Lorries for the dead outside hospitals": 1.9,
    "Fewer people fall ill": 0.9,
    "City begins to plan its reopening": 0.3,
}
CALM, FIRST, PANDEMIC, CLOSE, STAY, FULL, LORRIES, FEWER, REOPEN = ALARM
PRINTED = [FIRST, PANDEMIC, CLOSE, STAY, FULL, LORRIES, LORRIES, FEWER, FEWER, REOPEN]
PAPERS = {
    "as printed": PRINTED,
    "calm": [FIRST] + [CALM] * 9,
    "early": [*PRINTED[2:], REOPEN, REOPEN],
}
city = lpm.nyc.pandemic(lpm.nyc.population(AGENTS))


PERSONA = """\
Age {{ age }}, income {{ income }}, {{ employment }}, savings {{ savings }}, {{ health }}.
{% if again %}
Last time, {{ "few" if before < 0.25 else "some" if before < 0.5 else "many" if before < 0.75 else "most" }} of us did.
{% endif %}
"""
RULES = """\
{% if mandate %}
Masks are mandatory.
{% elif advice %}
Masks are advised.
{% endif %}
"""


def prompts(paper):
    """What is asked in every decision, with this week's headline."""
    headline = "Today's newspaper: {{ " + repr(paper) + "[weeks | int] }}.\n"
    return {
        "mask": PERSONA + headline + RULES + "Do you wear a mask?\n",
        "isolate": PERSONA + headline + "Do you isolate or go on as usual?\n",
        "test": PERSONA + headline + "You are ill. Do you seek a test?\n",
        "vaccinate": PERSONA.partition("{% if")[0] + "Would you accept a vaccine?\n",
    }


# %% [markdown]
# ## A reader
#
# Which language model? Any that can follow a format: `Server("http://127.0.0.1:8000/v1", "…")` asks one that vLLM,
# llama.cpp or Ollama serve, and `Local("…")` one in a folder ([Behaviour](../behaviour.md)). So that this page needs
# neither weights nor a server, it makes a small one: a transformer of two layers which is *taught*, from nothing, to
# answer these prompts as people of such age, means and health would whom the news alarms so much. From then on it has
# words only, and is used as any other.


# %%
def leaning(decision, words, observed, alarm):
    """The log-odds of the first option: what the reader is taught."""
    old = {"0–17": -0.3, "18–39": 0.0, "40–64": 0.4, "65 and over": 0.7}[words["age"]]
    hard = words["savings"] == "under $2,000" and words["employment"] == "employed"
    if decision == "mask":
        return -2.8 + 1.3 * alarm + old + 1.8 * observed["advice"] + 1.2 * observed["mandate"]
    if decision == "isolate":
        return -0.3 + 0.7 * alarm + old - 1.2 * hard + 1.9 * (words["health"] == "tested positive")
    if decision == "test":
        return -0.8 + 0.5 * alarm + 0.3 * (words["income"] == "over $80,000")
    return 0.75 + old


def lessons(number, seed):
    """Prompts as a run would have them, and the probability of the first option."""
    chance = random.Random(seed)
    labels, known = archetypes(city.population).labels, {}
    out = []
    for _ in range(number):
        decision = chance.choices(list(OPTIONS), [5, 5, 2, 1])[0]
        text = chance.choice(list(ALARM))
        if (decision, text) not in known:
            known[decision, text] = Prompt(decision, prompts([text])[decision])
        words = {name: chance.choice(values) for name, values in labels.items()}
        observed = {
            "risk": chance.uniform(0.0, 3.5),
            "fatigue": chance.choice([0.0, 0.1, 0.2]),
            "weeks": 0.0,
            "again": float(chance.random() < 0.7),
            "before": chance.random(),
            "neighbours": chance.random(),
            "advice": float(chance.random() < 0.5),
            "mandate": float(chance.random() < 0.3),
        }
        score = leaning(decision, words, observed, ALARM[text])
        out.append(
            (known[decision, text].text(words, observed, OPTIONS[decision]), decision, 1 / (1 + math.exp(-score)))
        )
    return out


def taught(examples, steps, seed=0):
    """A transformer of two layers that answers as the examples do, with a tokenizer of their words."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    answers = [option for options in OPTIONS.values() for option in options]
    texts = [text for text, *_ in examples] + 500 * answers
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=1000,
            special_tokens=["<end>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", bos_token="<end>", pad_token="<end>")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"vocab_size": len(tokenizer), "n_positions": 512, "n_embd": 32, "n_layer": 2, "n_head": 4}
        whole = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = GPT2Config(**sizes, **whole, bos_token_id=0, eos_token_id=0)
        reader = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(reader.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=steps)
    asked = [tokenizer(text)["input_ids"] for text, *_ in examples]
    written = {option: [*tokenizer(option)["input_ids"], 0] for option in answers}
    chance = random.Random(seed)
    for _ in range(steps):
        rows, weights, starts = [], [], []
        for k in chance.sample(range(len(examples)), 48):
            _, decision, p = examples[k]
            for option, weight in zip(OPTIONS[decision], (p, 1 - p), strict=True):
                rows.append(torch.tensor(asked[k] + written[option]))
                weights.append(weight)
                starts.append(len(asked[k]))
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        place = torch.arange(ids.shape[1])
        answers_at = (place >= torch.tensor(starts)[:, None]) & (place < torch.tensor([len(r) for r in rows])[:, None])
        states = reader.transformer(ids).last_hidden_state[:, :-1][answers_at[:, 1:]]
        nats = torch.nn.functional.cross_entropy(reader.lm_head(states), ids[answers_at], reduction="none")
        loss = (torch.tensor(weights).repeat_interleave(answers_at.sum(-1)) * nats).sum() / 48
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    reader.generation_config.pad_token_id = 0
    tokenizer.padding_side = "left"
    return Local(outlines.from_transformers(reader.eval(), tokenizer), batch=64)


torch.set_num_threads(1)  # so small a network is slower on several
reader = taught(lessons(4000, seed=1), STEPS)

# %% [markdown]
# Did it learn to read? Here are people and weeks that it wasn't taught: what it says, and what it should.

# %%
unseen = lessons(200, seed=2)
read = np.array([reader.chances([text], OPTIONS[decision])[0][0] for text, decision, _ in unseen])
meant = np.array([p for *_, p in unseen])
print(f"{np.abs(read - meant).mean():.3f} from what was meant, where a reader without eyes is", end=" ")
print(f"{np.abs(meant - meant.mean()).mean():.3f}; correlation {np.corrcoef(read, meant)[0, 1]:.2f}")
assert np.corrcoef(read, meant)[0, 1] > 0.85

# %% [markdown]
# ## What it is asked
#
# Everything that would be asked can be seen, and counted, before anything is. An archetype is asked once for all of its
# members, when one of them decides: of each archetype, whoever decides then chooses by its own chance.

# %%
with LanguageModel(reader, prompts(PRINTED), fallback=Utility(city.behaviour), dry=True) as would:
    lpm.run(city, days=15)
print(would.questions["mask"][-1], "\n")
print(f"{would.asked.queries:,} queries in 15 days; to ask everybody about masks alone would be {3 * AGENTS:,}")

# %% [markdown]
# ## Three papers
#
# Three runs of the same people with the same chance. Answers are kept, so that what was asked for one paper isn't asked
# again for another.

# %%
kept, runs, decided = Answers(), {}, {}
for paper, headlines in PAPERS.items():
    with Decided() as log, LanguageModel(reader, prompts(headlines), answers=kept) as asks:
        runs[paper] = lpm.run(city, days=DAYS, seed=0)["prior_predictive"].isel(chain=0, draw=0)
    decided[paper] = log
    print(f"{paper}: {asks.asked.queries:,} queries, {asks.asked.kept:,} answers known, {asks.asked.most} archetypes")


def shown(figure, name):
    """The figure, for a notebook to show; a script writes it to the folder LPMPPL_FIGURES, where that is set."""
    if folder := os.environ.get("LPMPPL_FIGURES"):
        figure.savefig(Path(folder) / f"{name}.png", dpi=150)
    plt.close(figure)
    return figure


def daily(paper, tally):
    """A tally of the whole city, by day."""
    return runs[paper][tally].sum(["borough", "age"]).to_numpy()


for paper in PAPERS:
    masked, ill, away = (daily(paper, name) for name in ("masked", "infections", "isolating"))
    masks, attack = 100 * masked[-1] / AGENTS, 100 * ill.sum() / AGENTS
    print(f"{paper:>10}: {masks:.0f} % wear masks on day {DAYS}, {attack:.1f} % were infected, ", end="")
    print(f"{away.sum() / AGENTS:.3f} days of isolation a head")

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
for axis, tally in zip(axes, ("masked", "isolating", "infections"), strict=True):
    for paper in PAPERS:
        axis.plot(1000 * daily(paper, tally) / AGENTS, label=paper)
    axis.set(title=f"{tally}, per 1,000", xlabel="day", ylim=0)
axes[0].legend(frameon=False)
shown(figure, "question_news")

# %% [markdown]
# A replay needs no language model: the answers that were kept are the same run, bit for bit.

# %%
with LanguageModel(None, prompts(PRINTED), answers=kept) as replay:
    again = lpm.run(city, days=DAYS, seed=0)["prior_predictive"].isel(chain=0, draw=0)
assert replay.asked.queries == 0
assert all(np.array_equal(again[name], runs["as printed"][name]) for name in again.data_vars)

# %% [markdown]
# ## A network that decides alike
#
# What the reader says can be distilled into a network of labels and numbers. That decides without being asked, can be
# differentiated, and has a place for a parameter: how cautious people are besides. The derivative of infections by it
# is what a calibration would use.

# %%
networks = {name: lpm.distil(decided["as printed"][name]) for name in decided["as printed"].decisions}
for name, found in networks.items():
    print(f"{name}: {found.held_out:.4f} nats from answers that it wasn't shown")


def cautious(theta):
    """The distilled behaviour, with log-odds of isolating on top."""
    return Neural({name: found.network for name, found in networks.items()}, {"isolate": {"isolate": theta["caution"]}})


caution = Parameter(dist.Normal(0.0, 1.0), 0.0, "log-odds of isolating", "1", "a priori")
model = Behaving(city, cautious, {"caution": caution})
distilled = lpm.run(model, days=DAYS, seed=0)["prior_predictive"].isel(chain=0, draw=0)
for name in ("masked", "isolating", "infections"):
    total, asked = (float(x[name].sum()) for x in (distilled, runs["as printed"]))
    print(f"{name}: {total:,.0f} by the network, {asked:,.0f} by the reader, over all days")
slope = lpm.sensitivity(model, "infections", wrt=["caution"], days=DAYS, draws=4, audit=False).sel(parameter="caution")
print(f"{float(slope['value']):,.0f} ± {float(slope['se']):,.0f} infections for each unit of caution")

# %% [markdown]
# ## What it does not show
#
# - **What people make of a headline is assumed**, not measured; the reader was taught it. A large model would have its
#   own view, which nobody has held against a survey of these weeks either.
# - Everybody reads the same paper, and believes it alike.
# - The reader says what it was taught with an error of its own, printed above; it has no knowledge besides.
# - People read, but the papers don't: the headlines stay what they are, whatever happens in the city.
# - Activity is the recorded one and follows admissions; only masks, isolation and tests follow the news.
# - It is one run of each paper with shared chance; another seed is another epidemic.
