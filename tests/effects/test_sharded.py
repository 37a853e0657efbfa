"""What ranks tell each other: sums, queues and order statistics are those of one process, whoever has whom."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.data import store
from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, SecretShared, Sharded, sharded
from lpmppl.effects.handlers.time import _own_sums
from lpmppl.effects.ops import aggregate, ring_sum, simulate, tally
from lpmppl.effects.ranking import foremost
from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError, LpmError
from lpmppl.models import partition
from lpmppl.models.archetypes import counts
from lpmppl.models.networks import Edges, Groups
from lpmppl.models.partition import parted
from lpmppl.models.population import Population
from tests.ranks import attempted, on_ranks


def town(seed, agents=60):
    """Agents of random groups, in random worlds, on random ranks."""
    random = np.random.default_rng(seed)
    groups = int(random.integers(1, 40))
    return random, groups, random.integers(0, groups, agents), random.integers(0, 3, agents)


def sums(ranks, cases):
    """All sums of each case, with those of one process over the same agents."""
    found = []
    for seed in range(cases):
        random, groups, of, rank = town(seed)
        lead = (2, 1) if seed % 3 == 0 else (3,) if seed % 3 == 1 else ()
        x = random.integers(-9, 9, (*lead, 60)) * (random.random((*lead, 60)) < random.choice([0.02, 0.3, 1.0]))
        onto = torch.from_numpy(random.integers(0, 99, (*lead, groups)))
        mine = rank == ranks.rank
        handler = Sharded(ranks)
        for part, with_ranks in ((np.ones(60, bool), False), (mine, True)):
            network = Groups("town", torch.from_numpy(of[part]), groups)
            dense = torch.from_numpy(x[..., part])
            sparse = Cohort.of(dense != 0, None)
            sparse = sparse.carrying(sparse.read(dense))
            calls = [(dense, network), (sparse, network), (dense, None), (sparse, None)]
            for few in (0, 10**9):
                for integers, place in calls:
                    for before in (None, onto if place is network else onto[..., :1]):
                        if not with_ranks:
                            found.append([ring_sum(integers, place, before)])
                            continue
                        with patch.object(sharded, "_FEW", few), handler:
                            total = ring_sum(integers, place, before)
                        here = np.unique(of[mine]) if place is network and not few else slice(None)
                        found.append((seed, few, total[..., here], here))
    return found


def test_sums_are_those_of_one_process_over_the_groups_that_a_rank_has(tmp_path):
    cases = 24
    for found in on_ranks(tmp_path, 3, sums, cases):
        each = len(found) // cases
        for case in range(cases):
            plain, spread = np.array_split(np.array(found[case * each : (case + 1) * each], dtype=object), 2)
            for (whole,), (seed, few, total, here) in zip(plain, spread, strict=True):
                assert torch.equal(whole[..., here], total), (seed, few)


def volume(ranks):
    """Bytes for messages of few agents and of many, over groups of which all cross ranks."""
    of = torch.arange(6000) % 3000
    network, told = Groups("town", of, 3000), []
    with patch.object(sharded, "_FEW", 0), Sharded(ranks):
        for some in (0, 0, 0, 0, 0, 0, 3, 200, 200, 190, 0, 5000, 5000):
            who = torch.arange(6000) < some - ranks.rank
            cohort = Cohort.of(who, None).carrying(torch.ones(int(who.sum()), dtype=torch.int32))
            before = ranks.sent
            ring_sum(cohort, network, torch.zeros(3000, dtype=torch.int32)).tolist()
            told.append(ranks.sent - before)
        home = Groups("household", of, 3000, here=True)
        before = ranks.sent
        ring_sum(torch.ones(6000, dtype=torch.int64), home)
        told.append(ranks.sent - before)
    return told[5:]


def test_only_what_changed_is_told_or_all_whichever_is_less(tmp_path):
    """Also where more was told than there was room for; from then on there is, until less is told."""
    for nothing, few, *some, none, too_many, many, at_home in on_ranks(tmp_path, 2, volume):
        assert nothing == few == 1024
        assert some == [1024 + 8 * 200, 2496, 2496]  # half as many again, in steps of 64 bytes
        assert none == 2368
        assert too_many == many == 1024 + 4 * 3000
        assert at_home == 0


def together(ranks):
    """Sums that aren't looked at are told with the first one that is; ranks may look at different ones first."""
    network, said = Groups("town", torch.arange(60) % 7, 7), []
    with Sharded(ranks), patch.object(Ranks, "rows", autospec=True, side_effect=Ranks.rows) as rows:
        mine = torch.arange(60) * (ranks.rank + 1)
        first, second, third = (ring_sum(mine + k, network) for k in range(3))
        assert first.shape == (7,) and first.dtype == torch.int64 and not first.requires_grad and rows.call_count == 0
        if ranks.rank:
            said.append(first.tolist())
        fourth = ring_sum(mine + 3, network, first)
        # What takes no notice of a tensor's kind has all that is in it, too.
        said.append(torch.as_tensor(third, dtype=torch.float64).tolist())
        said += [x.tolist() for x in ((first,) if not ranks.rank else ()) + (second, fourth)]
        if ranks.rank:
            ranks.settle()
        many = [ring_sum(mine, network) for _ in range(40)]
        before = rows.call_count
        assert all(torch.equal(x, many[0]) for x in many) and before < rows.call_count < 12
    return said


@pytest.mark.parametrize("count", [2, 3])
def test_sums_that_nobody_looks_at_are_told_together(tmp_path, count):
    whole = torch.arange(60) * sum(range(1, count + 1))
    sums = [torch.zeros(7, dtype=torch.int64).index_add_(0, torch.arange(60) % 7, whole + count * k) for k in range(4)]
    zero, *others = on_ranks(tmp_path, count, together)
    for rank, (one, two, three, four) in enumerate((zero, *others)):
        first, third = (one, two) if rank else (two, one)
        expected = sums[0], sums[2], sums[1], sums[0] + sums[3]
        assert [first, third, three, four] == [x.tolist() for x in expected]


def ahead(ranks):
    """One rank asks for a sum of few groups, and of many before another does so."""
    with Sharded(ranks):
        few = ring_sum(torch.arange(60), Groups("few", torch.arange(60) % 7, 7))
        if ranks.rank:
            few.sum()
        many = ring_sum(torch.arange(4000), Groups("many", torch.arange(4000), 4000))
        if not ranks.rank:
            few.sum()
        return few.tolist(), many.tolist()


def test_a_rank_may_have_more_to_say_than_another(tmp_path):
    for few, many in on_ranks(tmp_path, 2, ahead):
        assert (
            few == (2 * torch.zeros(7, dtype=torch.int64).index_add(0, torch.arange(60) % 7, torch.arange(60))).tolist()
        )
        assert many == (2 * torch.arange(4000)).tolist()


def queues(ranks, cases):
    found = []
    for seed in range(cases):
        random, _, _, rank = town(seed)
        lead = (3,) if seed % 2 else ()
        wants, places = random.random((*lead, 60)) < 0.6, int(random.choice([1, 4, 1000]))
        place = torch.from_numpy(random.integers(0, places, 60))
        number = torch.from_numpy(random.integers(-1, 40, (*lead, 1))).double()
        ids = torch.from_numpy(random.permutation(60))
        order, mine = np.argsort(ids.numpy()), rank == ranks.rank
        whole = foremost(Cohort.of(torch.from_numpy(wants[..., order]), ids[order]), place[order], number, places)
        with Sharded(ranks):
            here = Cohort.of(torch.from_numpy(wants[..., mine]), ids[mine])
            part = foremost(here, place[torch.from_numpy(mine)], number, places)
        one = whole.mask()[..., ids[mine]]
        found.append((part.mask(), one, part.mask().numpy().sum(), whole.mask().numpy().sum()))
    return found


def test_whose_turn_it_is_is_that_of_one_process(tmp_path):
    """Of one place, those with the first ids: in one process agents stand in their order."""
    ranks = on_ranks(tmp_path, 3, queues, 40)
    for part, one, *_ in (each for rank in ranks for each in rank):
        assert torch.equal(part, one)
    assert all(sum(rank[k][2] for rank in ranks) == ranks[0][k][3] for k in range(40))


def statistics(ranks, values):
    mine = torch.from_numpy(values[ranks.rank :: ranks.count][: len(values) // (ranks.rank + 1)])
    everything = torch.cat([x.view(torch.float32) for x in ranks.gathered(mine.view(torch.int32))]).sort().values
    places = list(range(len(everything)))
    return torch.equal(ranks.ordered(mine, places), everything), ranks.ordered(mine, [])


def test_order_statistics_are_those_of_all_values(tmp_path):
    random = np.random.default_rng(0)
    wild = np.concatenate(
        [random.normal(size=90) * 10.0 ** random.integers(-30, 30, 90), [0, np.inf, -np.inf, 1, 1, 1]]
    )
    for same, none in on_ranks(tmp_path, 3, statistics, wild.astype(np.float32)):
        assert same
        assert none.shape == (0,)


def out_of_step(ranks, how):
    with Sharded(ranks):
        tally("ill", torch.ones(5, dtype=torch.bool))
        if how == "room":
            # There is room for many, whoever comes next.
            for _ in range(6):
                ring_sum(torch.ones(500, dtype=torch.int64), Groups("c", torch.arange(500), 500))
        if how in ("name", "room"):
            ring_sum(torch.ones(5, dtype=torch.int64), Groups("a" if ranks.rank else "b", torch.arange(5) % 2, 2))
        elif how == "worlds":
            ring_sum(torch.ones(1 + ranks.rank, 5, dtype=torch.int64), None)
        elif how == "died" and ranks.rank:
            raise KeyboardInterrupt
        tally("ill", torch.ones(5, dtype=torch.bool))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("name", "sum 2, over 'b': rank 1 does something else"),
        ("room", "sum 8, over 'b': rank 1 does something else"),
        ("worlds", "sum 2, over 'everybody': rank 1 does 2 of it, and rank 0 1"),
        ("died", "rank 0 of 2 lost another"),
    ],
)
def test_ranks_out_of_step_end_all_of_them_by_name(tmp_path, how, says):
    found = attempted(tmp_path, 2, out_of_step, how)
    assert not any(well for well, _ in found)
    assert says in found[0][1]
    assert "LpmError" in found[0][1]
    assert ("KeyboardInterrupt" if how == "died" else "run the same program") in found[1][1]


def refusals(ranks):
    said = []
    people = Population.of({"household": torch.arange(8) // 2})
    graph = Edges("graph", torch.arange(8), torch.arange(8).flip(0), 8)
    town = Groups("town", torch.arange(8) % 2, 2)
    calls = [
        lambda: aggregate(torch.ones(8), graph),
        lambda: aggregate(torch.ones(8), town, reduce="max"),
        lambda: counts(torch.arange(8) % 2, 2),
        lambda: aggregate(torch.ones(8, requires_grad=True), town),
        lambda: people.shard(ranks) and parted({"household": np.arange(8) // 2}.get, 5),
        lambda: ranks.sum(torch.ones(2)),
    ]
    for call in calls:
        try:
            with patch.object(sharded, "_FEW", 0), Sharded(ranks):
                call()
        except LpmError as e:
            said.append(str(e))
    return said


def test_what_can_not_be_spread_is_refused_by_name(tmp_path):
    (said, _) = on_ranks(tmp_path, 2, refusals)
    assert [words for words in said if "edge list isn't parted" in words]
    assert len(said) == 6
    for words, found in zip(
        (
            "'graph'",
            "a maximum isn't taken",
            "each archetype",
            "'town': derivatives",
            "5 parts can't share 4",
            "float32",
        ),
        said,
        strict=True,
    ):
        assert words in found


def test_without_a_group_it_is_said_how_to_start():
    with pytest.raises(LpmError, match="start with torchrun"):
        Ranks()
    with pytest.raises(LpmError, match="RANK, WORLD_SIZE"):
        Sharded()


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_households_stay_whole_and_parts_are_as_large(parts):
    people = lpm.nyc.population(20_000)
    part = parted(lambda name: people[name].numpy(), parts)
    size = np.bincount(part, minlength=parts)
    assert size.min() > 20_000 / parts - 60
    assert size.max() < 20_000 / parts + 60
    home = people["household"].numpy()
    assert len(np.unique(home * parts + part)) == len(np.unique(home))
    # Fewer colleagues are apart than if each household were on any rank.
    place = people["workplace"].numpy()
    random = np.random.default_rng(0).integers(0, parts, home.max() + 1)[home]
    apart = [len(np.unique(place[place > 0] * parts + x[place > 0])) for x in (part, random)]
    assert parts == 1 or apart[0] < 0.97 * apart[1]


def test_people_without_households_are_not_parted():
    with pytest.raises(InputError, match="lack 'household'"):
        parted({"age": np.array([1, 2])}.get, 2)
    assert parted({"household": np.array([0, 1, 1])}.get, 2).tolist() == [0, 1, 1]


def mixed(ranks):
    said, people = [], lpm.nyc.population(1000).shard(ranks)
    model = lpm.nyc.seirm(people)
    for handlers in ([Sharded(ranks), SecretShared(quiet=True)], [SecretShared(quiet=True), Sharded(ranks)]):
        with pytest.raises(LpmError) as caught, handlers[0], handlers[1]:
            lpm.run(model, days=2)
        said.append(str(caught.value))
    with pytest.raises(LpmError) as caught, Sharded(ranks):
        lpm.run(model, days=2, sources={"borough": "borough"})
    sources = str(caught.value)
    with pytest.raises(InputError, match="already: part the whole once"):
        people.shard(ranks)
    theta, span = model.defaults(), (torch.tensor(0.0), torch.tensor(2.0))
    with pytest.raises(LpmError, match="has members on other ranks: run it"), DiscreteTime(), ExogenousNoise(0):
        simulate(model.day(theta), model.initial(theta), *span)
    with pytest.raises(LpmError, match="each rank would draw chance of its own"), Sharded(ranks), DiscreteTime():
        simulate(model.day(theta), model.initial(theta), *span)
    for given, within in ((people, False), (lpm.nyc.population(1000), True)):
        with pytest.raises(InputError) as caught, Sharded(ranks) if within else nullcontext():
            lpm.run(lpm.nyc.sir(given), days=2)
        said.append(str(caught.value))
    with Sharded(ranks):
        assert lpm.run(model, days=2).attrs["agents"] == 1000
    return [*said, sources, ranks.rank]


def apart(ranks, how):
    other = ranks.rank == 1
    people = lpm.nyc.population(1000, seed=int(other and how == "people")).shard(ranks)
    act = [("transmission", 0.5, 1)] if other and how == "acts" else []
    with Sharded(ranks):
        lpm.run(
            lpm.nyc.sir(people),
            days=2 + (other and how == "days"),
            seed=int(other and how == "seed"),
            set={"beta": 0.5} if other and how == "set" else {},
            interventions=act,
        )


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("seed", "the run's model, chance and interventions: rank 1 does"),
        ("acts", "the run's model, chance and interventions: rank 1 does"),
        ("set", "the run's days and parameters: rank 1 does"),
        ("days", "the run's days and parameters: rank 1 does"),
        ("people", "the people: rank 1 does"),
    ],
)
def test_ranks_that_were_asked_different_things_end_by_name(tmp_path, how, says):
    for well, said in attempted(tmp_path, 2, apart, how):
        assert not well
        assert says in said


def strata(ranks):
    """Strata of odd variables, by everybody and by parts."""
    random = np.random.default_rng(0)
    home = np.sort(random.integers(0, 500, 1500))
    people = Population.of(
        {
            "household": home,
            "far": random.integers(0, 9, 1500) * 250,
            "some": np.where(home < 20, -1, home % 4),
            "edge": np.where(home == 3, 1500, 0),
        }
    )
    found = []
    for name in ("far", "some", "edge", "household"):
        whole, own = people.strata(x=name), people.shard(ranks).strata(x=name)
        with Sharded(ranks):
            counts = ring_sum(torch.ones(own.agents, dtype=torch.int64), own)
        found.append(dict(own.dims) == dict(whole.dims) and torch.equal(counts, whole.size))
        found.append(torch.equal(own.size, whole.size))
    return found


def test_strata_are_those_of_everybody(tmp_path):
    """Also where codes are of households, lie far apart, or are below 0 or largest on one rank alone."""
    assert all(all(found) for found in on_ranks(tmp_path, 2, strata))


def test_nothing_is_shared_in_secret_or_read_one_by_one_on_ranks(tmp_path):
    for one, other, alone, everybody, sources, rank in on_ranks(tmp_path, 2, mixed):
        assert alone == f"the model's people are those of rank {rank} of 2: run it within `with Sharded(ranks):`"
        assert "every rank has all of the people" in everybody
        assert one == other == "ranks add up in the clear: share in secret on one rank, or among lpmppl.parties"
        assert sources == "Sources reads agents one by one, and has only some of them on a rank: run it on one rank"


def own_groups(ranks):
    """What a rank has of a network of which it has some groups alone, beside that of everybody."""
    whole, checks = lpm.nyc.population(3000), {}
    with patch.object(partition, "_FEW", 100):
        own = whole.shard(ranks)
    of, mine, all_of = own["workplace"].long(), own.ids.long(), whole.network("workplace", nowhere=0)
    ids, one = own.ids_of("workplace"), own.network("workplace", nowhere=0)
    checks["numbers"] = torch.equal(ids[of], whole["workplace"][mine].long())
    checks["fewer"] = len(ids) == one.count < all_of.count
    checks["sizes"] = torch.equal(one.size, all_of.size[ids]) and one.reach == all_of.reach
    checks["kinds"] = torch.equal(own["workplace_kind"], whole["workplace_kind"][ids])
    checks["nowhere"] = ids[one.nowhere] == 0 and own.network("workplace", nowhere=int(ids[-1])).nowhere == len(ids) - 1
    elsewhere = min({*range(all_of.count)} - {*ids.tolist()})
    checks["elsewhere"] = own.network("workplace", nowhere=elsewhere).nowhere is None
    strata, everybodys = own.strata(place="workplace"), whole.strata(place="workplace")
    checks["strata"] = torch.equal(strata.index, everybodys.index[mine]) and torch.equal(strata.size, everybodys.size)
    x = torch.arange(3000) % 7
    sums = all_of.total(x)
    with Sharded(ranks) as handler:
        few = Cohort.of(x[mine] == 3, own.ids).carrying(3)
        checks["few"] = torch.equal(
            ring_sum(few, own.network("workplace")), whole.network("workplace").total(3 * (x == 3).long())[ids]
        )
        dense = ring_sum(x[mine], one)
        there = torch.arange(one.count) != one.nowhere
        checks["dense"] = torch.equal(dense[there], sums[ids][there])
        checks["kept"] = (
            torch.equal(_own_sums({"workplace/x": dense})["workplace/x"], dense) and dense[one.nowhere] == 0
        )
        together = own.network("workplace", together=True)
        checks["together"] = torch.equal(ring_sum(x[mine], together), sums) and torch.equal(
            together.size, whole.network("workplace").size
        )
        told = len(handler._known[id(one)].groups)
    checks["crossing"] = 0 < told < len(ids) - 1
    checks["home"] = _said(lambda: own.network("household", together=True)) == (
        "network 'household': each rank has groups of its own, whose sums can't be read together"
    )
    checks["outside"] = "nowhere=99999 is no group of 0" in _said(lambda: own.network("workplace", nowhere=99999))
    with Sharded(ranks):
        words = _said(lambda: ring_sum(x[mine], replace(one, together=True)))
    checks["refused"] = "ask for it as people.network('workplace', together=True)" in words
    return [name for name, well in checks.items() if not well]


def _said(call):
    with pytest.raises(LpmError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("count", [2, 3])
def test_a_rank_has_the_groups_of_its_people_and_sums_are_those_of_everybody(tmp_path, count):
    for wrong in on_ranks(tmp_path, count, own_groups):
        assert not wrong


def opened(ranks, path):
    with patch.object(partition, "_FEW", 100):
        shard, own = Population.open(path).shard(ranks), Population.open(path, ranks=ranks)
    same = [own.dataset.identical(shard.dataset), own.checksum == shard.checksum, own.everybody == 3000]
    same += [torch.equal(a, b) for a, b in zip(own.part[1:3], shard.part[1:3], strict=True)]
    same += [list(own.part.groups) == list(shard.part.groups) == ["workplace"]]
    return [*same, own.part[3:5] == shard.part[3:5], own.size < 1700]


def test_a_part_that_is_read_by_itself_is_that_of_the_whole(tmp_path):
    path = tmp_path / "people.zarr"
    # In pieces of a few hundred agents, so that a part is gathered from many.
    with patch.object(store, "_CHUNK", 700):
        lpm.nyc.population(3000).save(path)
    (tmp_path / "ranks").mkdir()
    assert all(all(same) for same in on_ranks(tmp_path / "ranks", 2, opened, path))


@pytest.mark.parametrize("chunk", [1 << 22, 37])
def test_what_is_read_in_part_is_checked_whole(tmp_path, chunk):
    path = tmp_path / "people.zarr"
    people = lpm.nyc.population(1000)
    people.save(path)
    with patch.object(store, "_CHUNK", chunk):
        found, homes, whole = store.part(path, lambda column: np.flatnonzero(column("borough") == 2), "household")
    assert found["agent"].to_numpy().tolist() == np.flatnonzero(people["borough"].numpy() == 2).tolist()
    assert found["age"].to_numpy().tolist() == people["age"].numpy()[found["agent"]].tolist()
    assert homes.tolist() == sorted(set(people["household"].numpy()[found["agent"]].tolist()))
    assert np.array_equal(found["income"], people["income"].numpy()[homes], equal_nan=True)
    assert whole == (people.checksum, people.network("household").count)
    victim = next(f for f in sorted((path / "age").rglob("*")) if f.is_file() and f.name != "zarr.json")
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x00")
    with pytest.raises(InputError, match=r"damaged|does not match"):
        store.part(path, lambda column: np.arange(3), "household")
