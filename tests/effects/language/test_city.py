"""A city that decides as a language model says: with the pandemic's own prompts, in every world, and on replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import ExogenousNoise, LanguageModel, Tabulated
from lpmppl.effects.language.local import Local
from lpmppl.models.behaviour import archetypes
from lpmppl.models.prompts import PROMPTS
from tests.effects.language.sources import Exactly, chances
from tests.effects.language.tiny import tiny

SPREADING = {"initial_infected": 0.02}
ASKS = {"mask": "wear a mask", "isolate": "Do you isolate", "test": "seek a test?", "vaccinate": "vaccine"}


@pytest.fixture(scope="module")
def model():
    return lpm.nyc.pandemic(lpm.nyc.population(2_000))


def ran(model, **options):
    return lpm.run(model, days=15, seed=1, set=SPREADING, **options)["prior_predictive"].to_dataset()


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        assert np.array_equal(a[name].values, b[name].values), name


def test_a_language_model_that_always_says_the_same_is_a_table(model):
    shares = {"mask": 0.3, "isolate": 0.6, "test": 0.5, "vaccinate": 0.7}

    def said(prompt, options):
        share = next(s for n, s in shares.items() if ASKS[n] in prompt)
        return [share, 1 - share]

    with LanguageModel(Exactly(said), model.prompts) as handler:
        asked = ran(model)
    with Tabulated({name: torch.tensor([share, 1 - share]) for name, share in shares.items()}):
        same(asked, ran(model))
    assert set(handler.asked.archetypes) == set(shares)
    assert asked["isolating"].max() > 0


def test_prompts_say_who_is_asked_and_what_is_observed(model):
    with LanguageModel(source := Exactly(), model.prompts) as handler:
        lpm.run(model, days=30, seed=1, set=SPREADING)
    assert set(model.prompts) == set(ASKS) == set(handler.versions)
    for name, words in ASKS.items():
        mine = [prompt for prompt in source.asked if words in prompt]
        assert len(mine) > 3, name
        assert all("Your age: " in prompt and prompt.endswith("\nAnswer:") for prompt in mine)
        assert not any("\n\n" in prompt or "{" in prompt for prompt in mine)
    assert any("You have just tested positive" in prompt for prompt in source.asked)
    assert any("You have no job" in prompt for prompt in source.asked)
    assert len(set(source.asked)) == len(source.asked) == handler.asked.queries
    assert max(handler.asked.archetypes["mask"]) < archetypes(model.population).size


def test_worlds_are_those_of_single_runs(model):
    with LanguageModel(Exactly(), model.prompts):
        both = lpm.counterfactual(model, {"mask_mandate": 1.0}, at=7, days=15, seed=1, set=SPREADING)
    found = both["prior_predictive"].to_dataset()
    for world, acts in enumerate([[], [("mask_mandate", 1.0, 7)]]):
        with LanguageModel(Exactly(), model.prompts):
            alone = ran(model, interventions=acts)
        for name in ("masked", "infections", "isolating"):
            assert np.array_equal(found[name].isel(policy=world).values, alone[name].values), (world, name)
    masked = found["masked"].sum(["borough", "age"]).isel(day=-1).values.reshape(-1)
    assert masked[0] != masked[1]


def test_agents_choose_with_the_probabilities_of_their_archetype():
    """Eq. 6: who would be vaccinated, in four age groups within four standard errors each: fails below 1e-3."""
    model = lpm.nyc.pandemic(lpm.nyc.population(20_000))
    people, kinds = model.population, archetypes(model.population)
    with ExogenousNoise(3), LanguageModel(Exactly(), {"vaccinate": "{{ age }}/{{ income }}"}):
        state = model.initial({n: torch.tensor(p.default) for n, p in model.parameters.items()})
    employed = people["employment"] == people.labels("employment").index("employed")
    nobody = torch.zeros(people.size, dtype=torch.uint8)
    code = kinds.code(employment=employed, savings=nobody, health=nobody).long()
    words = [kinds.words(k) for k in range(kinds.size)]
    by_kind = [chances(f"{w['age']}/{w['income']}", ("accept", "refuse"))[0] for w in words]
    chance = torch.tensor(by_kind)[code]
    apart = state["willing"].double() - chance
    for age in range(4):
        mine = kinds.table[code, 0] == age
        error = (chance * (1 - chance))[mine].sum().sqrt()
        assert abs(float(apart[mine].sum())) < 4 * float(error)
    assert chance.std() > 0.05


def test_a_real_model_in_this_process_decides(model, tmp_path: Path):
    texts = [*PROMPTS.values(), "mask no mask isolate go on seek a test seek none accept refuse"]
    file = tmp_path / "kept.sqlite"
    with LanguageModel(Local(tiny(texts, sharp=3.0)), model.prompts, answers=file) as handler:
        found = ran(model)
    with LanguageModel(None, model.prompts, answers=file) as again:
        same(found, ran(model))
    assert again.asked.queries == 0 < handler.asked.queries
    masked = float(found["masked"].isel(day=-1).sum()) / model.population.size
    assert 0.02 < masked < 0.98
