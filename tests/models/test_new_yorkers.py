"""Archetypes of one's own: any attributes of the population, and those of the state that there are."""

from __future__ import annotations

import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import Decided, LanguageModel, Tabulated
from lpmppl.errors import InputError
from lpmppl.models.archetypes import Archetypes, Bins, Lookup
from lpmppl.models.new_yorkers import DYNAMIC, Now, archetypes, at_first, present
from lpmppl.models.stimulus import balances
from tests.effects.language.sources import Exactly

PEOPLE = lpm.nyc.population(2_000)
AGES = Bins("age", (18, 65), ("0–17", "18–64", "65 and over"))
DYN = {name: DYNAMIC[name].labels for name in ("balance", "health")}
OWN = Archetypes(PEOPLE, {"age": AGES, "borough": Lookup("borough")}, DYN)
PROMPT = "{{ age }} of {{ borough }}, {{ balance }}, {{ health }}: {{ options | join('/') }}?"


def state(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    nobody = torch.zeros(PEOPLE.size, dtype=torch.bool)
    return {
        "employed": nobody,
        "savings": balances(PEOPLE),
        "symptomatic": nobody,
        "positive_at": torch.full((PEOPLE.size,), -torch.inf),
        "t": torch.tensor(20.0),
        **more,
    }


def test_savings_fall_into_bands():
    savings = torch.tensor([-1.0, 0.0, 1999.0, 2000.0, 9999.0, 10_000.0])
    homes = PEOPLE.network("household").count
    s = state(savings=savings.repeat(homes)[:homes])
    everybody = slice(None)
    band = DYNAMIC["balance"].code(Now(PEOPLE, s), everybody).long()
    saved = s["savings"][PEOPLE["household"].long()]
    expected = torch.bucketize(saved, torch.tensor([0.0, 2000.0, 10_000.0]), right=True)
    assert torch.equal(band, expected)
    # The first six households have one of these each.
    first = {h: DYNAMIC["balance"].labels[b] for h, b in zip(PEOPLE["household"].tolist(), band.tolist(), strict=True)}
    assert [first[h] for h in range(6)] == [
        "in debt", "under $2,000", "under $2,000", "$2,000–10,000", "$2,000–10,000", "over $10,000",
    ]  # fmt: skip


def test_a_cohort_is_what_it_is_among_everybody():
    ill = torch.arange(PEOPLE.size) % 3 == 0
    s = state(symptomatic=ill, positive_at=torch.where(torch.arange(PEOPLE.size) % 5 == 0, 15.0, 2.0))
    cohort = PEOPLE.cohort(ill)
    for kinds in (OWN, archetypes(PEOPLE)):
        everybody = present(PEOPLE, kinds, s)(slice(None))
        assert torch.equal(present(PEOPLE, kinds, s)(cohort), everybody[ill])
    words = [OWN.words(int(k)) for k in present(PEOPLE, OWN, s)(slice(None))[:6]]
    assert [w["health"] for w in words] == [
        "tested positive", "well", "well", "symptomatic", "well", "tested positive",
    ]  # fmt: skip


def test_how_many_are_ill_nearby_is_of_the_neighbourhood():
    kinds = Archetypes(PEOPLE, {"age": AGES}, {"nearby": DYNAMIC["nearby"].labels})
    place = PEOPLE["neighbourhood"].long()
    ill = (torch.arange(PEOPLE.size) % 40 == 0) & (place % 2 == 0)
    s = state(symptomatic=torch.stack([ill, torch.zeros_like(ill)]))
    share = torch.zeros(int(place.max()) + 1).index_add(0, place, ill.float()) / place.bincount()
    expected = ((share >= 0.005).long() + (share >= 0.02))[place]
    code = present(PEOPLE, kinds, s)(slice(None)) % 3
    assert torch.equal(code[0].long(), expected)
    assert set(expected.tolist()) == {0, 2} or set(expected.tolist()) == {0, 1, 2}
    # Each world has its own ill.
    assert not bool(code[1].any())
    cohort = PEOPLE.cohort(s["symptomatic"])
    assert torch.equal(present(PEOPLE, kinds, s)(cohort) % 3, code[0][ill])


def test_at_first_nobody_is_ill_and_who_has_a_job_is_known():
    for kinds in (OWN, archetypes(PEOPLE)):
        words = [kinds.words(int(k)) for k in at_first(PEOPLE, kinds)[:50]]
        assert {w["health"] for w in words} == {"well"}
        if "employment" in kinds.labels:
            employed = (PEOPLE["employment"][:50] == PEOPLE.labels("employment").index("employed")).tolist()
            assert [w["employment"] == "employed" for w in words] == employed


def test_people_decide_by_the_archetypes_that_were_given():
    city = lpm.nyc.pandemic(PEOPLE, archetypes=OWN)
    source = Exactly()
    with Decided() as kept, LanguageModel(source, dict.fromkeys(city.prompts, PROMPT)) as handler:
        lpm.run(city, days=10, set={"initial_infected": 0.1})
    assert max(handler.asked.most.values()) <= OWN.size == 3 * 5 * 4 * 3
    assert {
        "65 and over of Bronx, over $10,000, well: mask/no mask?",
        "18–64 of Queens, under $2,000, well: mask/no mask?",
    } <= {*source.asked}
    assert kept["mask"].attributes == OWN.labels
    half = torch.tensor([0.5, 0.5])
    with Tabulated(dict.fromkeys(city.prompts, half)):
        by_own = lpm.run(city, days=10)["prior_predictive"]
        by_usual = lpm.run(lpm.nyc.pandemic(PEOPLE), days=10)["prior_predictive"]
    # Where all decide alike it doesn't matter by which archetypes.
    assert all(by_own[name].equals(by_usual[name]) for name in by_own)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            lambda: Archetypes(PEOPLE, {"age": AGES}, {"healthy": ("well", "ill")}),
            "unknown dynamic attribute of archetypes 'healthy'",
        ),
        (
            lambda: Archetypes(PEOPLE, {"age": AGES}, {"health": ("well", "ill")}),
            "'health' of archetypes has the labels well, ill",
        ),
        (lambda: Archetypes(lpm.nyc.population(1_000), {"age": AGES}), "of another population"),
        (lambda: {"age": AGES}, "archetypes= is dict"),
    ],
)
def test_archetypes_that_can_not_be_used_are_refused(made, words: str):
    with pytest.raises(InputError, match=words):
        lpm.nyc.pandemic(PEOPLE, archetypes=made())


def test_the_model_s_own_behaviour_says_what_these_archetypes_lack():
    with pytest.raises(InputError, match=r"unknown age in decision 'vaccinate' '40–64': did you mean '18–64'"):
        lpm.run(lpm.nyc.pandemic(PEOPLE, archetypes=OWN), days=2)


def test_a_run_goes_on_by_the_archetypes_it_was_begun_by(tmp_path):
    begun, other = (
        lpm.nyc.pandemic(PEOPLE, archetypes=Archetypes(PEOPLE, {name: source}, DYN))
        for name, source in (("age", AGES), ("borough", Lookup("borough")))
    )
    half = dict.fromkeys(begun.prompts, torch.tensor([0.5, 0.5]))
    with Tabulated(half):
        lpm.run(begun, days=4, checkpoint=tmp_path / "c.pt", checkpoint_every=3)
        with pytest.raises(InputError):
            lpm.run(other, days=4, resume=tmp_path / "c.pt")
        lpm.run(begun, days=4, resume=tmp_path / "c.pt")


def test_a_run_goes_on_in_its_last_week_with_weekly_tallies(tmp_path):
    city = lpm.nyc.pandemic(PEOPLE)
    whole = lpm.run(city, days=20, checkpoint=tmp_path / "c.pt", checkpoint_every=6)["prior_predictive"]
    again = lpm.run(city, days=20, resume=tmp_path / "c.pt")["prior_predictive"]
    for name in whole:
        assert again[name].equals(whole[name]), name
        assert again[name].dims == whole[name].dims


def test_without_attributes_everybody_is_one_archetype():
    kinds = Archetypes(PEOPLE, {})
    assert kinds.size == 1
    assert kinds.words(0) == {"everybody": "everybody"}
    assert not bool(kinds.code().any())
    city = lpm.nyc.pandemic(PEOPLE, archetypes=kinds)
    source = Exactly()
    with LanguageModel(source, dict.fromkeys(city.prompts, "You are {{ everybody }}. {{ options[0] }}?")) as handler:
        lpm.run(city, days=9, set={"initial_infected": 0.1})
    assert set(handler.asked.most.values()) == {1}
    assert len(source.asked) == len(city.prompts)
