"""A table of industries and the firms made of it: what can't be meant is refused, by the name of what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.data.industries import UNITED_STATES, Industries
from lpmppl.errors import InputError
from lpmppl.models.firms import firms, usual_output
from lpmppl.models.population import Population
from lpmppl.models.supply_chain import SupplyChain

NAN, INF = float("nan"), float("inf")


def two(**changed):
    """A table of two industries, with something changed."""
    given = {
        "labels": ["a", "b"], "requirements": [[0.1, 0.2], [0.3, 0.1]], "output": [100.0, 100.0],
        "imported": [0.1, 0.0], "essential": [True, False], "stocked": [True, True], "delay": [2, 1],
        "firms": [0.5, 0.5],
    }  # fmt: skip
    return Industries(**{**given, **changed})


def many(number, imported=0.0, first=None):
    """So many industries that each use a tenth of their own; the first has a share of firms of its own."""
    share = np.full(number, 1 / number) if first is None else np.full(number, (1 - first) / (number - 1))
    share[0] = first or share[0]
    yes = np.ones(number, bool)
    labels, alike = [f"i{k}" for k in range(number)], np.full(number, 100.0)
    return Industries(labels, np.eye(number) * 0.1, alike, alike * 0 + imported, yes, yes, alike * 0 + 2, share)


BAD = [
    ({"labels": ["a", "a"]}, "two industries are called 'a'"),
    ({"labels": ["a", ""]}, "names of one industry or more"),
    ({"labels": {"a", "b"}}, "in a list"),
    ({"labels": 2}, "in a list"),
    ({"labels": []}, "one industry or more"),
    ({"labels": ["a", None]}, "one industry or more"),
    ({"name": object()}, "what the table is of"),
    ({"requirements": "x"}, "requirements of shape"),
    ({"requirements": [[0.1], [0.2, 0.3]]}, "requirements"),
    ({"requirements": [[0.1j, 0.2], [0.3, 0.1]]}, "kind complex128"),
    ({"requirements": [[-0.1, 0.2], [0.3, 0.1]]}, "requirements of 'a' in 'a' is -0.1"),
    ({"requirements": [[0.1, NAN], [0.3, 0.1]]}, "requirements of 'a' in 'b' is nan"),
    ({"requirements": [[0.5, 0.0], [0.6, 0.0]]}, "'a' uses 1.1 dollars"),
    ({"requirements": [[0.999999, 0.0], [0.0, 0.1]]}, "sum to 0.99 or less"),
    ({"requirements": [[0.0, 0.9], [0.0, 0.0]], "output": [50.0, 100.0]}, "more of 'a' is used"),
    ({"output": [NAN, 1.0]}, "output of 'a' is nan"),
    ({"output": [-100.0, 1.0]}, "output of 'a' is -100"),
    ({"output": [1e15, 1e15]}, "output of 'a' is 1e"),
    ({"output": 1.0}, "output of shape"),
    ({"imported": ["a", "b"]}, "give shares"),
    ({"imported": [0.1, 1.0]}, "imported of 'b' is 1"),
    ({"essential": ["yes", "no"]}, "give True or False"),
    ({"essential": [NAN, 0.2]}, "essential of 'a' is nan"),
    ({"stocked": [0.5, 0.0]}, "stocked of 'a' is 0.5"),
    ({"stocked": [-1, 2]}, "stocked of 'a' is -1"),
    ({"delay": [1.5, 1.0]}, "delay of 'a' is 1.5"),
    ({"delay": [INF, 1]}, "delay of 'a' is inf"),
    ({"delay": [0, 1]}, "delay of 'a' is 0"),
    ({"delay": [10**6, 1]}, "1 to 365"),
    ({"firms": [0.5, 0.1]}, "adds up to 0.6"),
    ({"firms": [-0.5, 1.5]}, "firms of 'a' is -0.5"),
    ({"firms": [NAN, 0.1]}, "firms of 'a' is nan"),
]


@pytest.mark.parametrize(("changed", "said"), BAD)
def test_a_table_that_can_t_be_is_refused_by_what_is_wrong(changed, said):
    with pytest.raises(InputError, match=said):
        two(**changed)


def test_lists_tensors_and_whole_numbers_will_do_and_nobody_changes_the_table_afterwards():
    requirements = np.array([[0.1, 0.2], [0.3, 0.1]])
    table = two(requirements=requirements, output=torch.tensor([100, 100]), stocked=[1, 0], essential=[0, 1])
    requirements[0, 0] = 5.0
    assert table.requirements[0, 0] == 0.1
    assert table.stocked.tolist() == [True, False]
    with pytest.raises(ValueError, match="read-only"):
        table.output *= 2
    assert lpm.run(SupplyChain(firms(1_000, industries=table), table), days=2)["prior_predictive"].sizes["day"] == 2


def test_a_product_may_be_used_up_to_the_last_dollar():
    for k in range(1, 100):
        used = k / 100
        table = two(requirements=[[0.0, used], [0.0, 0.0]], output=[used * 30 * 0.9, 30.0])
        assert table.final[0] == pytest.approx(0.0, abs=1e-9)


def test_there_may_be_more_than_256_industries():
    people = firms(10_000, industries=many(300))
    assert people["sector"].unique().numel() == 300
    SupplyChain(people, many(300))


@pytest.mark.parametrize("table", [many(400), many(197, imported=0.1, first=0.5), many(196, imported=0.1, first=0.5)])
def test_too_few_firms_for_so_many_industries_are_refused_with_a_number_that_is_enough(table):
    with pytest.raises(InputError, match="too few") as said:
        firms(1_000, industries=table)
    enough = int(str(said.value).split("give ")[1].split()[0].replace(",", ""))
    people = firms(enough, industries=table)
    home = people["sector"][people["foreign"] == 0]
    assert torch.bincount(home.int()).min() >= 3


def test_firms_of_another_table_are_refused():
    with pytest.raises(InputError, match="industry 0 is 'a' for the firms and 'farms'"):
        SupplyChain(firms(1_000, industries=two()))
    data = firms(1_000).dataset.copy(deep=True)
    data["sector"].attrs["labels"] = data["sector"].attrs["labels"][::-1]
    with pytest.raises(InputError, match="industry 0 is 'other' for the firms"):
        SupplyChain(Population(data))
    u = UNITED_STATES
    half = Industries(
        u.labels, u.requirements / 2, u.output, u.imported, u.essential, u.stocked, u.delay, u.firms, "half"
    )
    with pytest.raises(InputError, match="reckon 'usual' anew"):
        SupplyChain(firms(1_000, industries=half))


def test_firms_without_trade_of_their_own_or_of_a_small_economy_are_refused():
    data = firms(1_000).dataset
    with pytest.raises(InputError, match="is asked for"):
        SupplyChain(Population(data.isel(trade=slice(0, 0))))
    with pytest.raises(InputError, match="supplier of its own"):
        SupplyChain(Population(data.assign(seller=data.buyer)))
    u = UNITED_STATES
    small = Industries(u.labels, u.requirements, u.output / 1_000, u.imported, u.essential, u.stocked, u.delay, u.firms)
    with pytest.raises(InputError, match="smaller currency"):
        SupplyChain(firms(1_000, industries=small), small)


def test_a_port_needs_a_region_and_inputs_somebody_who_uses_them():
    data = firms(1_000).dataset.drop_vars("region")
    with pytest.raises(InputError, match="port=None"):
        SupplyChain(Population(data), port="Nowhere")
    assert torch.equal(SupplyChain(Population(data), port=None).foreign, firms(1_000)["foreign"] > 0)
    with pytest.raises(InputError, match="nobody would use anything"):
        firms(1_000, least=0.5)


def test_what_has_no_end_is_refused():
    one, other = (
        np.array([0, 0]),
        np.array([0]),
    )
    with pytest.raises(InputError, match="no end"):
        usual_output(one, one > 0, np.array([NAN, 1.0]), other, other + 1, np.array([[0.1]]))
    with pytest.raises(InputError, match="no end"):
        usual_output(one, one > 0, np.ones(2), np.array([0, 1]), np.array([1, 0]), np.array([[1.0]]))


def test_outcomes_of_firms_are_counted_in_firms_and_acts_on_all_may_be_written_as_acts():
    model = SupplyChain(firms(1_000))
    shut = [lpm.Act("port", 0.0, 2)]
    fates = lpm.fates(lpm.counterfactual(model, {"shut": shut}, days=25), "ran_out")
    assert fates["caused"].attrs["units"] == "firms"
    as_act, as_tuple = (
        lpm.run(model, days=25, interventions=acts)["prior_predictive"].to_dataset()
        for acts in (shut, [("port", 0.0, 2)])
    )
    assert as_act.equals(as_tuple)
    assert float(as_act["lost_output"].sum()) > 0
    with pytest.raises(InputError, match=r"lpm\.counterfactual"):
        lpm.run(model, days=5, interventions=[lpm.Act("demand", 0.5, 1, to={"region": "South"})])
