"""Archetypes: every agent is of the one that its attributes say, in words, and of another once they change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.models.archetypes import Archetypes, Bins, Lookup
from lpmppl.models.population import Population

AGES = Bins("age", (18, 40, 65), ("0–17", "18–39", "40–64", "65 and over"))
INCOMES = Bins("income", (40e3, 80e3), ("low", "middle", "high"), unknown="unknown")
JOBS = ["none", "service", "sales", "building"]
STATUS = ("well", "symptomatic", "tested positive")


def people(n: int = 500) -> Population:
    rng = np.random.default_rng(0)
    homes = n // 2
    income = np.where(rng.random(homes) < 0.1, np.nan, rng.lognormal(11.0, 0.8, homes))
    return Population(
        xr.Dataset(
            {
                "age": ("agent", rng.integers(0, 90, n).astype(np.uint8)),
                "household": ("agent", rng.integers(0, homes, n).astype(np.int32)),
                "occupation": ("agent", rng.integers(0, 4, n).astype(np.uint8), {"labels": JOBS}),
                "income": ("household", income.astype(np.float32)),
            }
        )
    )


def everybody() -> tuple[Population, Archetypes]:
    p = people()
    static = {"age": AGES, "income": INCOMES, "occupation": Lookup("occupation")}
    return p, Archetypes(p, static, {"employment": ("no job", "employed"), "status": STATUS})


def test_there_is_an_archetype_for_every_combination():
    _, kinds = everybody()
    assert kinds.size == 4 * 4 * 4 * 2 * 3
    assert kinds.table.shape == (kinds.size, 5)
    assert len({tuple(row) for row in kinds.table.tolist()}) == kinds.size
    assert kinds.table.amax(0).tolist() == [3, 3, 3, 1, 2]
    assert list(kinds.labels) == ["age", "income", "occupation", "employment", "status"]


def test_an_agents_archetype_is_what_it_is_in_words():
    p, kinds = everybody()
    rng = np.random.default_rng(1)
    employed, status = rng.random(p.size) < 0.5, rng.integers(0, 3, p.size)
    codes = kinds.code(employment=torch.from_numpy(employed), status=torch.from_numpy(status)).tolist()
    home = p["household"].tolist()
    for i, code in enumerate(codes):
        age, income = int(p["age"][i]), float(p["income"][home[i]])
        assert kinds.words(code) == {
            "age": "0–17" if age < 18 else "18–39" if age < 40 else "40–64" if age < 65 else "65 and over",
            "income": "unknown"
            if math.isnan(income)
            else "low"
            if income < 40e3
            else "middle"
            if income < 80e3
            else "high",
            "occupation": JOBS[int(p["occupation"][i])],
            "employment": "employed" if employed[i] else "no job",
            "status": STATUS[status[i]],
        }


def test_a_cohort_and_a_block_are_of_the_archetypes_they_are_among_all():
    p, kinds = everybody()
    employed = (p["age"] > 30).expand(2, 1, -1).clone()
    employed[1, 0, :100] ^= True
    status = torch.zeros(p.size, dtype=torch.uint8)
    whole = kinds.code(employment=employed, status=status)
    assert whole.shape == (2, 1, p.size)
    some = p.cohort((p["age"] % 7 == 0).expand(2, 1, -1))
    few = kinds.code(some, employment=some.read(employed), status=some.read(status))
    assert torch.equal(few, some.read(whole))
    block = slice(40, 200)
    assert torch.equal(kinds.code(block, employment=employed[..., block], status=status[block]), whole[..., block])


def test_an_agent_that_changes_is_of_another_archetype_and_the_others_are_not():
    p, kinds = everybody()
    employed, well = torch.ones(p.size, dtype=torch.bool), torch.zeros(p.size, dtype=torch.uint8)
    before = kinds.code(employment=employed, status=well)
    employed[7] = False
    after = kinds.code(employment=employed, status=well)
    assert (before != after).nonzero().squeeze(-1).tolist() == [7]
    assert kinds.words(int(after[7])) == {**kinds.words(int(before[7])), "employment": "no job"}


@pytest.mark.parametrize("lead", [(), (2, 1)])
def test_what_belongs_to_archetypes_is_read_by_their_agents(lead):
    p, kinds = everybody()
    values = torch.rand((*lead, kinds.size), generator=torch.Generator().manual_seed(0))
    code = kinds.code(employment=p["age"] > 20, status=torch.zeros(p.size, dtype=torch.uint8))
    read = kinds.read(values, code)
    assert read.shape == (*lead, p.size)
    flat, rows = values.reshape(-1, kinds.size), read.reshape(-1, p.size)
    assert all(torch.equal(rows[k], flat[k][code.long()]) for k in range(flat.shape[0]))
    some = p.cohort((p["age"] < 30).expand(*lead, p.size))
    assert torch.equal(kinds.read(values, some.read(code), some), some.read(read))


def test_many_archetypes_have_wider_codes():
    p = people()
    each = Bins("age", tuple(range(1, 90)), tuple(str(a) for a in range(90)))
    kinds = Archetypes(p, {"a": each, "b": each}, {"c": tuple("abcde")})
    code = kinds.code(c=torch.full((p.size,), 4))
    age = p["age"].long()
    assert torch.equal(code.long(), (age * 90 + age) * 5 + 4)


def test_labels_can_be_gathered_under_fewer():
    p = people()
    few = Lookup("occupation", {"works with others": ["service", "sales"], "other": ["none", "building"]})
    kinds = Archetypes(p, {"work": few})
    expected = ["works with others" if int(o) in (1, 2) else "other" for o in p["occupation"]]
    assert [kinds.words(k)["work"] for k in kinds.code().tolist()] == expected


class TestRefusals:
    def test_an_unknown_variable(self):
        with pytest.raises(InputError, match="variable of the population in attribute 'age' 'aeg': did you mean 'age'"):
            Archetypes(people(), {"age": Bins("aeg", (18,), ("child", "adult"))})

    def test_labels_that_do_not_fit_the_edges(self):
        with pytest.raises(InputError, match=r"attribute 'age': 1 edges .* and 3 labels"):
            Archetypes(people(), {"age": Bins("age", (18,), ("child", "adult", "old"))})
        with pytest.raises(InputError, match=r"attribute 'age': 2 edges .* must increase"):
            Archetypes(people(), {"age": Bins("age", (65, 18), ("child", "adult", "old"))})

    def test_an_unknown_number_without_a_name(self):
        with pytest.raises(InputError, match=r"attribute 'income': .* agents have no 'income'; say what"):
            Archetypes(people(), {"income": Bins("income", (40e3,), ("low", "high"))})

    def test_labels_unknown_missing_or_twice(self):
        def gather(**groups: list[str]) -> None:
            Archetypes(people(), {"work": Lookup("occupation", groups)})

        with pytest.raises(
            InputError, match="label of 'occupation' in attribute 'work' 'builder': did you mean 'building'"
        ):
            gather(a=["builder"])
        with pytest.raises(InputError, match="attribute 'work' gathers no 'building' of the variable 'occupation'"):
            gather(a=["none", "service", "sales"])
        with pytest.raises(InputError, match="attribute 'work' gathers the label 'sales' twice"):
            gather(a=["sales", "none"], b=["sales"])

    def test_a_name_given_twice(self):
        with pytest.raises(InputError, match="attribute 'age' is given as static and as dynamic"):
            Archetypes(people(), {"age": AGES}, {"age": ("a", "b")})

    def test_dynamic_attributes_unknown_missing_or_beyond_their_labels(self):
        p, kinds = everybody()
        well, jobs = torch.zeros(p.size, dtype=torch.uint8), torch.ones(p.size, dtype=torch.bool)
        with pytest.raises(InputError, match="unknown dynamic attribute 'employed': did you mean 'employment'"):
            kinds.code(employed=jobs, status=well)
        with pytest.raises(InputError, match=r"dynamic attribute 'status' is missing; give its codes: 0 … 2"):
            kinds.code(employment=jobs)
        with pytest.raises(InputError, match="dynamic attribute 'status' has codes 3 … 3, but its labels are well, "):
            kinds.code(employment=jobs, status=well + 3)
