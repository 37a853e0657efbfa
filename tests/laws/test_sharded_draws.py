"""On a mesh each row runs some of the draws, and every rank has the results of all, as of one process."""

import os

import pytest
import torch.distributed as dist
import xarray as xr
from torch.distributed.device_mesh import init_device_mesh

import lpmppl as lpm
from lpmppl.effects.ranks import Ranks
from lpmppl.inference.worlds import UnderPolicies
from tests.ranks import attempted, on_ranks

AGENTS, DAYS, DRAWS = 1500, 12, 5
ACTS = [("transmission", 0.5, 6)]


def asked(people):
    """A run and a counterfactual of several draws."""
    model = lpm.nyc.seirm(people)
    run = lpm.run(model, days=DAYS, seed=3, draws=DRAWS, interventions=ACTS)
    do = {"closed": [("transmission", 0.2, 4)]}
    worlds = lpm.counterfactual(model, do=do, days=DAYS, seed=3, draws=2, replicates=2)
    return run, worlds


def many(s):
    return s["infectious"].sum(-1, keepdim=True) > 4


def worlds_asked(people, draws):
    """Worlds of few draws, two with triggers."""
    do = {
        "closed": [("transmission", 0.2, 4)],
        "careful": [("transmission", lpm.Trigger(0.5, when=many), 2)],
        "as before": [("transmission", 1.0, 3)],
        "late": [("transmission", lpm.Trigger(0.1, when=many), 5), ("transmission", 0.9, 9)],
        "open": [("transmission", 1.4, 2)],
    }
    model = lpm.nyc.seirm(people)
    return lpm.counterfactual(model, do=do, days=DAYS, seed=5, draws=draws)


def worlds_on_a_mesh(_, rows, draws):
    mesh = init_device_mesh("cpu", (rows, 1), mesh_dim_names=("draws", "agents"))
    with lpm.Sharded(mesh) as sharded:
        people = lpm.nyc.population(AGENTS).shard(sharded.ranks)
        run_here, begun = [], UnderPolicies.__init__

        def noted(self, model, chosen, *rest):
            run_here.append(len(chosen))
            begun(self, model, chosen, *rest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(UnderPolicies, "__init__", noted)
            found = worlds_asked(people, draws)
    return run_here[-1], found.to_dict()


@pytest.mark.parametrize(("rows", "draws"), [(2, 1), pytest.param(3, 2, marks=pytest.mark.slow), (3, None)])
def test_rows_share_the_worlds_of_few_draws(tmp_path, rows, draws):
    expected = worlds_asked(lpm.nyc.population(AGENTS), draws)
    found = on_ranks(tmp_path, rows, worlds_on_a_mesh, rows, draws)
    assert sum(count for count, _ in found) == 5 * (draws or 1)
    for _, tree in found:
        assert {*tree} == {node.path for node in expected.subtree}
        for path, group in tree.items():
            known = expected[path].to_dataset(inherit=False)
            xr.testing.assert_identical(group.drop_attrs(deep=True), known.drop_attrs(deep=True))


def on_a_mesh(_, rows):
    count = dist.get_world_size()
    mesh = init_device_mesh("cpu", (rows, count // rows), mesh_dim_names=("draws", "agents"))
    with lpm.Sharded(mesh) as sharded:
        people = lpm.nyc.population(AGENTS, ranks=sharded.ranks)
        found = asked(people)
        once = lpm.run(lpm.nyc.seirm(people), days=2, draws=rows)
    return sharded.ranks.rank, people.size, [tree.to_dict() for tree in found], once["prior_predictive"].sizes["draw"]


def one_rank_a_row_with_all_the_people(_):
    ranks = Ranks.of(init_device_mesh("cpu", (2, 1), mesh_dim_names=("draws", "agents")))
    with lpm.Sharded(ranks):
        lpm.run(lpm.nyc.seirm(lpm.nyc.population(AGENTS).shard(ranks)), days=2)


def rows_that_differ(_):
    ranks = Ranks.of(init_device_mesh("cpu", (2, 1), mesh_dim_names=("draws", "agents")))
    with lpm.Sharded(ranks):
        people = lpm.nyc.population(AGENTS).shard(ranks)
        lpm.run(lpm.nyc.seirm(people), days=2, seed=ranks.draws.rank, draws=2)


def of_other_dimensions(_):
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("people",))
    dist.barrier()  # whoever ends sooner would be missed by one who still connects
    Ranks.of(mesh)


def begun(ranks, **options):
    """Do as processes that torchrun has started."""
    os.environ |= {"RANK": str(ranks.rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    return Ranks.begin(**options)


def in_three_rows(ranks):
    dist.barrier()
    begun(ranks, draws=3)


def of_other_releases(ranks):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lpmppl.effects.ranks.version", lambda _: f"0.{ranks.rank}.0")
        begun(ranks)


def in_two_rows(ranks):
    found = begun(ranks, draws=2)
    return found.count, found.draws.count


@pytest.mark.parametrize(
    ("rows", "count"), [(2, 2), pytest.param(2, 4, marks=pytest.mark.slow), pytest.param(3, 3, marks=pytest.mark.slow)]
)
def test_all_ranks_have_the_results_of_all_draws(tmp_path, rows, count):
    alone = asked(lpm.nyc.population(AGENTS))
    found = on_ranks(tmp_path, count, on_a_mesh, rows)
    assert {rank for rank, *_ in found} == set(range(count // rows))
    assert sum(size for _, size, *_ in found) == rows * AGENTS
    for _, _, trees, once in found:
        assert once == rows
        for tree, expected in zip(trees, alone, strict=True):
            assert {*tree} == {node.path for node in expected.subtree}
            for path, group in tree.items():
                known = expected[path].to_dataset(inherit=False)
                xr.testing.assert_identical(group.drop_attrs(deep=True), known.drop_attrs(deep=True))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (one_rank_a_row_with_all_the_people, "1 draws on a mesh with 2 rows of draws: give draws=2"),
        (rows_that_differ, "rank 1 does"),
        (of_other_dimensions, "make it with mesh_dim_names=('agents',)"),
        (in_three_rows, "draws=3: 2 ranks can't be in so many rows"),
        (of_other_releases, ".0 on torch"),
    ],
)
def test_what_does_not_fit_is_said_on_all_ranks(tmp_path, what, words):
    for well, said in attempted(tmp_path, 2, what):
        assert not well
        assert words in said


def test_ranks_that_torchrun_started_make_a_mesh(tmp_path):
    assert on_ranks(tmp_path, 2, in_two_rows) == [(1, 2), (1, 2)]
