"""Attributes from a survey: what explains decisions is found, what doesn't is left out, and what it costs is said."""

from __future__ import annotations

import math
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

from lpmppl.errors import InputError, LpmError
from lpmppl.inference import attributes
from lpmppl.inference.attributes import choose_attributes
from lpmppl.models.archetypes import Archetypes, Bins, Lookup
from lpmppl.models.population import Population

WORK = ["building", "none", "sales", "service"]
NOISE = ("height", "shoe", "letter")


def entropy(p: np.ndarray) -> float:
    """What a decision loses that is known as well as it can be, in nats."""
    return float(-(p * np.log(p) + (1 - p) * np.log1p(-p)).mean())


def town(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 90, n),
            "work": np.array(WORK)[rng.integers(0, 4, n)],
            "height": rng.normal(1.7, 0.1, n),
            "shoe": rng.integers(36, 46, n),
            "letter": np.array(list("abcdef"))[rng.integers(0, 6, n)],
        }
    )


def masks(frame: pd.DataFrame) -> np.ndarray:
    """The probability of a mask: of age in three bins, and of work with others or not."""
    age, work = frame["age"].to_numpy(), frame["work"].isin(["sales", "service"]).to_numpy()
    return 1 / (1 + np.exp(-(-1.0 + 1.5 * (age >= 40) + 1.0 * (age >= 65) - 1.3 * work)))


def asked(frame: pd.DataFrame, p: np.ndarray, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng([seed, 1])
    return frame.assign(wears=np.where(rng.random(len(frame)) < p, "mask", "no mask"))


@pytest.fixture(scope="module")
def large():
    frame = town(8_000, 0)
    return frame, choose_attributes(asked(frame, masks(frame), 0), "wears")


class TestTruth:
    def test_what_matters_is_found_and_noise_is_left_out(self, large):
        _, found = large
        assert set(found.static) == {"age", "work"}
        assert [found.importance[name] for name in NOISE] == [0.0] * 3
        assert found.importance["age"] > found.importance["work"] > 0
        assert list(found.static) == list(found.importance)[:2]

    def test_edges_and_groups_are_the_true_ones(self, large):
        _, found = large
        edges = found.static["age"].edges
        assert len(edges) == 2 and all(isinstance(edge, int) for edge in edges)
        assert abs(edges[0] - 40) <= 1 and abs(edges[1] - 65) <= 2
        assert found.static["age"].labels[0] == f"under {edges[0]}"
        assert found.static["work"].groups == {
            "building or none": ("building", "none"),
            "sales or service": ("sales", "service"),
        }
        assert found.size == 6

    def test_the_less_is_known_the_more_is_lost(self, large):
        frame, found = large
        p = masks(frame)
        assert found.loss_of_one > found.loss >= found.loss_of_reference
        assert found.explained == pytest.approx(
            (found.loss_of_one - found.loss) / (found.loss_of_one - found.loss_of_reference)
        )
        assert found.explained > 0.9
        # What respondents lose scatters by about 0.4 nats: five standard errors of 8,000.
        assert abs(found.loss - entropy(p)) < 5 * 0.4 / math.sqrt(8_000)
        assert abs(found.loss_of_one - entropy(np.array([p.mean()]))) < 5 * 0.4 / math.sqrt(8_000)

    def test_the_loss_that_is_said_is_that_of_other_people(self, large):
        _, found = large
        others = town(50_000, 99)
        people = population(others)
        code = Archetypes(people, found.static).code().long().numpy()
        p = masks(others)
        said = found.shares[code, found.options.index("mask")]
        lost = float(-(p * np.log(said) + (1 - p) * np.log1p(-said)).mean())
        assert abs(lost - found.loss) < 5 * 0.4 / math.sqrt(8_000)

    def test_shares_by_archetype_are_the_truth(self, large):
        frame, found = large
        kinds = Archetypes(population(frame), found.static)
        assert kinds.size == found.size == len(found.shares)
        assert {name: len(labels) for name, labels in kinds.labels.items()} == {"age": 3, "work": 2}
        code, p = kinds.code().long().numpy(), masks(frame)
        for k in range(kinds.size):
            n, true = int((code == k).sum()), p[code == k].mean()
            # Five standard errors, and what the overall share adds.
            assert abs(found.shares[k, found.options.index("mask")] - true) < 5 * math.sqrt(0.25 / n) + 2 / n
        assert np.allclose(found.shares.sum(1), 1.0)

    def test_two_attributes_that_matter_only_together_are_found_among_noise(self):
        frame = town(2_000, 3)
        together = (frame["age"] >= 50).to_numpy() ^ frame["work"].isin(["none", "service"]).to_numpy()
        found = choose_attributes(asked(frame, np.where(together, 0.8, 0.2), 3), "wears")
        assert set(found.static) == {"age", "work"}
        assert all(abs(found.importance[name] - found.importance["age"]) < 0.02 for name in ("age", "work"))
        assert min(abs(edge - 50) for edge in found.static["age"].edges) <= 1
        assert {frozenset(group) for group in found.static["work"].groups.values()} == {
            frozenset({"building", "sales"}),
            frozenset({"none", "service"}),
        }

    def test_a_pair_is_found_that_a_tree_of_all_attributes_misses(self):
        rng = np.random.default_rng(2)
        frame = pd.DataFrame({name: rng.normal(size=600) for name in "abcdefgh"})
        p = np.where((frame["a"] > 0) ^ (frame["b"] > 0), 0.75, 0.25)
        frame["wears"] = rng.random(600) < p
        found = choose_attributes(frame, "wears", seed=2)
        assert set(found.static) == {"a", "b"} and found.size == 4
        assert all(abs(bins.edges[0]) < 0.2 for bins in found.static.values())

    @pytest.mark.slow
    def test_noise_alone_makes_one_archetype(self):
        """None of 40 such surveys had an attribute when measured; at 1 in 20, this fails 3 times in 1,000."""
        sizes = []
        for seed in range(12):
            frame = town(800, seed)
            found = choose_attributes(asked(frame, np.full(800, 0.4), seed), "wears")
            sizes.append(found.size)
            assert found.size > 1 or (found.static == {} and found.loss == found.loss_of_one)
        assert sum(size > 1 for size in sizes) < 4

    def test_who_has_no_number_is_told_apart(self):
        rng = np.random.default_rng(5)
        income = np.where(rng.random(3_000) < 0.2, np.nan, rng.lognormal(11.0, 0.5, 3_000))
        p = np.where(np.isnan(income), 0.9, np.where(income < 60_000, 0.2, 0.6))
        found = choose_attributes(asked(pd.DataFrame({"income": income}), p, 5), "wears")
        bins = found.static["income"]
        assert bins.unknown == "unknown" and len(bins.edges) == 1
        # The edges that are looked for hold 1/128 of the people each.
        assert abs(bins.edges[0] / 60_000 - 1) < 0.03
        kinds = Archetypes(Population.of({"income": income}), found.static)
        assert kinds.size == found.size == 3
        assert np.allclose(found.shares[:, found.options.index("mask")], [0.2, 0.6, 0.9], atol=0.06)
        assert np.isnan(income[kinds.code().numpy() == 2]).all()

    def test_only_whether_a_number_is_known_may_matter(self):
        rng = np.random.default_rng(6)
        income = np.where(rng.random(3_000) < 0.4, np.nan, rng.lognormal(11.0, 0.5, 3_000))
        frame = asked(pd.DataFrame({"income": income}), np.where(np.isnan(income), 0.8, 0.3), 6)
        found = choose_attributes(frame, "wears")
        assert found.static["income"] == Bins("income", (), ("known",), "unknown")
        kinds = Archetypes(Population.of({"income": income}), found.static)
        assert kinds.size == found.size == 2

    def test_three_options_booleans_and_an_order_of_labels(self):
        rng = np.random.default_rng(7)
        ages = pd.Categorical.from_codes(rng.integers(0, 4, 4_000), ["young", "middle", "old", "oldest"], ordered=True)
        frame = pd.DataFrame({"age": ages, "ill": rng.random(4_000) < 0.5})
        p = np.where(frame["ill"].to_numpy()[:, None], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6])
        p = np.where((ages.codes >= 3)[:, None], [0.2, 0.7, 0.1], p)
        chosen = np.array(["home", "work", "party"])[(rng.random((4_000, 1)) > p.cumsum(1)).sum(1)]
        found = choose_attributes(frame.assign(goes=chosen), "goes")
        assert found.static["age"] == Lookup("age", {"young to old": ("young", "middle", "old"), "oldest": ("oldest",)})
        assert found.static["ill"] == Lookup("ill", {"no": ("0",), "yes": ("1",)})
        people = Population(
            xr.Dataset(
                {
                    "age": ("agent", ages.codes.astype(np.uint8), {"labels": list(ages.categories)}),
                    "ill": ("agent", frame["ill"].to_numpy()),
                }
            )
        )
        code = Archetypes(people, found.static).code().long()
        said = found.shares[code][:, [found.options.index(o) for o in ("home", "work", "party")]]
        assert np.abs(said - p).max() < 0.08


def population(frame: pd.DataFrame) -> Population:
    """The people of a survey, with its words as codes and labels."""
    work = pd.Categorical(frame["work"], WORK).codes
    return Population(
        xr.Dataset(
            {
                "age": ("agent", frame["age"].to_numpy().astype(np.uint8)),
                "work": ("agent", work.astype(np.uint8), {"labels": WORK}),
            }
        )
    )


@pytest.fixture(scope="module")
def small():
    frame = town(600, 11)
    return asked(frame, masks(frame), 11)


def same(a: attributes.Attributes, b: attributes.Attributes) -> None:
    assert a.static == b.static and list(a.static) == list(b.static)
    assert a.loss == pytest.approx(b.loss, abs=1e-12)
    assert a.loss_of_one == pytest.approx(b.loss_of_one, abs=1e-12)
    assert a.loss_of_reference == pytest.approx(b.loss_of_reference, abs=1e-9)
    assert np.allclose(a.shares, b.shares)


class TestInvariance:
    def test_the_order_of_rows_and_columns(self, small):
        found = choose_attributes(small, "wears")
        assert found.static
        same(found, choose_attributes(small.sample(frac=1, random_state=1), "wears"))
        same(found, choose_attributes(small[small.columns[::-1]], "wears"))

    def test_what_labels_are_called(self, small):
        found = choose_attributes(small, "wears", ["age", "work"])
        new = dict(zip(WORK, ("zoo", "yard", "xylophone", "well"), strict=True))
        other = small.assign(work=small["work"].map(new), wears=small["wears"].map({"mask": "z", "no mask": "a"}))
        renamed = choose_attributes(other, "wears", ["age", "work"])
        assert renamed.loss == pytest.approx(found.loss, abs=1e-12)
        assert renamed.static["age"] == found.static["age"]
        gathered = {frozenset(new[label] for label in group) for group in found.static["work"].groups.values()}
        assert {frozenset(group) for group in renamed.static["work"].groups.values()} == gathered
        assert renamed.options == ("a", "z")

    def test_a_row_that_counts_two_is_two_rows(self, small):
        twice = pd.concat([small, small.iloc[:300]], ignore_index=True)
        counted = small.assign(n=np.where(np.arange(600) < 300, 2, 1))
        same(choose_attributes(twice, "wears"), choose_attributes(counted, "wears", weight="n"))

    def test_rows_of_no_weight_are_not_there(self, small):
        counted = small.assign(n=np.where(np.arange(600) < 400, 1, 0))
        same(choose_attributes(small.iloc[:400], "wears"), choose_attributes(counted, "wears", weight="n"))

    def test_only_ratios_of_survey_weights_matter(self, small):
        weights = np.random.default_rng(12).uniform(0.5, 2.0, 600)
        a = choose_attributes(small.assign(w=weights), "wears", weight="w")
        b = choose_attributes(small.assign(w=4.0 * weights), "wears", weight="w")
        same(a, b)

    def test_weights_undo_a_sample_that_is_off(self):
        frame = town(4_000, 13)
        p = masks(frame)
        answered = asked(frame, p, 13)
        rng = np.random.default_rng([13, 2])
        chance = np.where(frame["age"] < 40, 0.95, 0.35)
        kept = answered[rng.random(4_000) < chance].assign(w=lambda f: np.where(f["age"] < 40, 1 / 0.95, 1 / 0.35))
        raw = choose_attributes(kept, "wears", ["work"], most=1)
        weighted = choose_attributes(kept, "wears", ["work"], most=1, weight="w")
        mask = weighted.options.index("mask")
        assert abs(weighted.shares[0, mask] - p.mean()) < 0.04 < abs(raw.shares[0, mask] - p.mean())

    def test_the_same_seed_is_the_same_choice_and_no_other_randomness_is_touched(self, small):
        before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        same(choose_attributes(small, "wears", seed=5), choose_attributes(small, "wears", seed=5))
        assert (np.random.get_state()[1] == before[0]).all()  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), before[1])
        assert choose_attributes(small, "wears", seed=6).loss != choose_attributes(small, "wears", seed=5).loss


@settings(max_examples=8, deadline=None)
@given(
    n=st.integers(4, 150),
    most=st.integers(1, 9),
    seed=st.integers(0, 1_000),
    counted=st.booleans(),
    options=st.integers(2, 3),
)
def test_there_are_never_more_archetypes_than_most(n, most, seed, counted, options):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 9, n)),
            "b": np.array(list("pqr"))[np.r_[0, 1, rng.integers(0, 3, n)][:n]],
            "d": np.r_[[0.5, 1.5], rng.normal(size=n)][:n],
            "y": np.r_[[0, 1], rng.integers(0, options, n)][:n],
            "n": rng.integers(1, 40, n) if counted else rng.uniform(0.1, 3.0, n),
        }
    )
    frame["y"] = np.where(rng.random(n) < 0.6, frame["d"] > 0, frame["y"]).astype(int)
    frame.loc[[0, 1], ["a", "y", "n"]] = [[1, 0, 5], [2, 1, 5]]
    found = choose_attributes(frame, "y", ["a", "b", "d"], most=most, weight="n", folds=2, seed=seed)
    sizes = [
        len(s.labels) + (s.unknown is not None) if isinstance(s, Bins) else len(s.groups) for s in found.static.values()
    ]
    assert found.size == math.prod(sizes) <= most
    assert found.loss_of_reference <= found.loss < math.inf
    assert found.size > 1 or found.loss == found.loss_of_one
    assert np.isfinite(found.shares).all() and (found.shares > 0).all()
    people = Population(
        xr.Dataset(
            {
                "a": ("agent", frame["a"].to_numpy()),
                "b": ("agent", pd.Categorical(frame["b"]).codes.copy(), {"labels": sorted(set(frame["b"]))}),
                "d": ("agent", frame["d"].to_numpy()),
            }
        )
    )
    assert Archetypes(people, found.static).size == found.size


def test_fewer_archetypes_lose_more(large):
    frame, found = large
    few = choose_attributes(asked(frame, masks(frame), 0), "wears", most=2)
    assert few.size == 2 and found.loss < few.loss < few.loss_of_one
    assert few.explained < found.explained


def test_the_weakest_splits_are_pruned_as_scikit_learn_prunes_them(small):
    rng = np.random.default_rng(0)
    X, y, w = rng.normal(size=(300, 3)), rng.integers(0, 3, 300), rng.integers(1, 4, 300)
    tree = DecisionTreeClassifier(criterion="entropy", random_state=0, min_samples_leaf=5)
    path = tree.cost_complexity_pruning_path(X, y, w).ccp_alphas
    worth = attributes._worth(tree.fit(X, y, w).tree_)
    assert sorted({round(a, 9) for a in worth} | {0.0}) == sorted({round(a, 9) for a in path})
    for low, high in pairwise(path[::10]):
        alpha = (low + high) / 2
        pruned = DecisionTreeClassifier(criterion="entropy", random_state=0, min_samples_leaf=5, ccp_alpha=alpha)
        assert pruned.fit(X, y, w).get_n_leaves() == 1 + (worth > alpha).sum()


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "given_", "says"),
        [
            (lambda f: f.iloc[:0], {}, r"no rows of a weight above 0 \(of 0\)"),
            (lambda f: f, {"choice": "waers"}, "unknown column of respondents 'waers': did you mean 'wears'"),
            (lambda f: f, {"attributes": ["agee"]}, "unknown column of respondents 'agee': did you mean 'age'"),
            (lambda f: f, {"attributes": "age"}, r"attributes='age' was given; give a list"),
            (lambda f: f, {"attributes": ["age", "age"]}, "name each column once"),
            (lambda f: f, {"attributes": []}, "one attribute or more"),
            (lambda f: f, {"attributes": ["wears"]}, "name each column once"),
            (lambda f: f, {"weight": "wears"}, "name each column once"),
            (lambda f: f, {"weight": "count"}, "unknown column of respondents 'count'"),
            (lambda f: f, {"weight": "work"}, "weight column 'work' holds .*; give numbers"),
            (lambda f: f.assign(n=-1.0), {"weight": "n"}, "weight column 'n' has -1 in row 0"),
            (lambda f: f.assign(n=math.nan), {"weight": "n"}, "weight column 'n' has nan in row 0"),
            (lambda f: f.assign(n=0), {"weight": "n"}, r"no rows of a weight above 0 \(of 600\)"),
            (lambda f: f.assign(wears="mask"), {}, "everybody chose 'mask' in column 'wears'"),
            (lambda f: f.assign(wears=f["wears"].where(f.index > 3)), {}, "choice 'wears' is missing in 4 rows"),
            (lambda f: f.assign(wears=f.index), {}, "choice 'wears' has 600 labels for 600 respondents"),
            (lambda f: f.assign(age=40), {}, "attribute 'age' is 40 in every row: leave it out"),
            (lambda f: f.assign(age=math.nan), {}, "attribute 'age' is missing in every row: leave it out"),
            (lambda f: f.assign(work="none"), {}, "attribute 'work' is 'none' in every row: leave it out"),
            (lambda f: f.assign(work=f["work"].where(f.index > 3)), {}, "attribute 'work' is missing in 4 rows"),
            (lambda f: f.assign(height=math.inf), {}, "attribute 'height' has infinite numbers"),
            (lambda f: f.assign(work=[f"said {i}" for i in f.index]), {}, "attribute 'work' has 600 labels for 600"),
            (lambda f: f.assign(age=pd.Timestamp("2020-03-01")), {}, "attribute 'age' holds datetime64 values"),
            (lambda f: f.assign(age=[1, "one"] * 300), {}, "attribute 'age' holds mixed-integer values as object"),
            (lambda f: f.set_axis(["age", "age", *f.columns[2:]], axis=1), {}, "two columns 'age': rename one"),
            (lambda f: f.to_numpy(), {}, "respondents must be a DataFrame of pandas, but ndarray was given"),
            (lambda f: f, {"most": 0}, "most=0 was given; give a whole number, 1 or more"),
            (lambda f: f, {"folds": 1}, "folds=1 was given; give a whole number, 2 or more"),
            (lambda f: f, {"folds": 601}, "folds=601 was given for 600 respondents"),
            (lambda f: f, {"seed": -1}, "seed=-1 was given"),
        ],
    )
    def test_what_cannot_be_used(self, small, change, given_, says):
        with pytest.raises(InputError, match=says):
            choose_attributes(change(small), **{"choice": "wears", **given_})

    def test_without_scikit_learn(self, small, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.tree", None)
        with pytest.raises(LpmError, match=r"pip install 'lpmppl\[survey\]'"):
            choose_attributes(small, "wears")


@pytest.mark.parametrize(("wave", "attributes_"), [(3, set()), (5, {"age"})])
def test_masks_in_shops_of_americans(wave, attributes_):
    """Cells of a published survey count respondents; in November 2020 age, income and work tell next to nothing."""
    path = Path(os.environ.get("LPMPPL_DATA", "data")) / "us_mask_survey_by_group.csv"
    if not path.is_file():
        pytest.skip(f"the published file {path.name} is not here; set LPMPPL_DATA to the folder of such files")
    cells = pd.read_csv(path).query("wave == @wave and question == 'q8' and by == 'age+income+work'")
    n, share = cells["n"].to_numpy(), cells["share_every_time"].to_numpy()
    always = (n * share).round().astype(int)
    both = pd.concat([cells.assign(wears="always", count=always), cells.assign(wears="not always", count=n - always)])
    found = choose_attributes(both, "wears", ["age", "income", "work"], weight="count")
    assert set(found.static) == attributes_
    overall = always.sum() / n.sum()
    assert abs(found.loss_of_one - entropy(np.array([overall]))) < 0.002
    assert found.loss_of_reference <= found.loss <= found.loss_of_one < found.loss + 0.02
    # Nobody who is held out is known better than by the cells in which they were counted themselves.
    inside = np.where((share > 0) & (share < 1), share, 0.5)
    known = np.where(inside == share, -(share * np.log(inside) + (1 - share) * np.log1p(-inside)), 0.0)
    assert found.loss > (n * known).sum() / n.sum()
    if attributes_:
        groups = found.static["age"].groups
        assert sorted(age for group in groups.values() for age in group) == sorted(set(cells["age"]))
        for k, group in enumerate(groups.values()):
            here = cells["age"].isin(group).to_numpy()
            # The smoothing is by two respondents.
            raw = always[here].sum() / n[here].sum()
            assert abs(found.shares[k, found.options.index("always")] - raw) < 2 / n[here].sum()
