"""The same people in another order, and twice as many of them: what a model of them must say then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import xarray as xr

from lpmppl.inference.findings import Finding
from lpmppl.inference.trials import Trials, apart
from lpmppl.models.population import Population

__all__ = ["doubled", "relabelled"]

NO_MAKER = "it isn't known what makes the model of another population: give make="
_FAR = 5.0
_SLACK = 0.1
"""Standard errors, and share of the total, by which twice the people may miss twice the counts."""


def relabelled(trials: Trials) -> Iterator[Finding]:
    """Whether the same people in another order, with their ids, have the same counts and fates, bit for bit."""
    if trials.make is None:
        yield Finding("relabelled", "doesn't apply", "", NO_MAKER)
        return
    people = trials.model.population
    order = np.random.default_rng(trials.seed).permutation(people.size)
    ids = people.ids.cpu().numpy()[order]
    again = trials.make(Population(people.dataset.isel(agent=order).assign_coords(agent=("agent", ids)), people.device))
    plain, other = trials.plain, trials.play(model=again)
    off = apart(plain, other, state=False)
    place = torch.from_numpy(order).to(people.device)
    for key, x in plain.state.items():
        y = other.state.get(key)
        if x.shape[-1] == people.size and (y is None or not _equal(x[..., place], y)):
            off.append(f"state '{key}'")
    if off:
        words = f"the same people in another order have others in {', '.join(off[:3])}: it depends on their order"
        yield Finding("relabelled", "broken", "", words)
    else:
        yield Finding(
            "relabelled", "kept", "", "the same people in another order have the same counts and fates, bit for bit"
        )


def _equal(x: torch.Tensor, y: torch.Tensor) -> bool:
    if x.is_floating_point():
        return torch.equal(x.nan_to_num(), y.nan_to_num())
    return torch.equal(x, y)


def doubled(trials: Trials) -> Iterator[Finding]:
    r"""Whether two copies of the people, each with its own groups, have twice the counts on average.

    Over R draws of chance each, :math:`|\bar x_2 - 2 \bar x_1|` must be within 5 standard errors plus a tenth of
    :math:`2 \bar x_1`.
    """
    if trials.make is None:
        yield Finding("doubled", "doesn't apply", "", NO_MAKER)
        return
    seen, model = trials.base.witness, trials.model
    assert seen is not None
    groups = {n: getattr(net, "nowhere", None) for n, net in seen.networks.items() if n in model.population.dataset}
    twice = trials.make(_twice(model.population, groups))
    many = max(trials.replicates, 3)
    ones, twos = ([trials.play(model=m, chance=r) for r in range(many)] for m in (model, twice))
    found, asked = 0, 0
    for name in model.tallies:
        if name in model.units or any(name not in run.series for run in (*ones, *twos)):
            continue
        asked += 1
        one, two = (np.array([run.total(name) for run in runs]) for runs in (ones, twos))
        error = np.sqrt((4 * one.var(ddof=1) + two.var(ddof=1) + 4 * one.mean() + two.mean()) / many)
        miss = abs(two.mean() - 2 * one.mean())
        if miss > _FAR * error + _SLACK * 2 * one.mean():
            found += 1
            words = f"twice the people have {two.mean():g} rather than {2 * one.mean():g}, on average of {many} runs"
            yield Finding("doubled", "broken", f"tally '{name}'", words, {"one": one.mean(), "two": two.mean()})
    if not asked:
        yield Finding("doubled", "doesn't apply", "", "no tally counts people")
    elif not found:
        words = (
            f"two copies of the people have twice the counts of {asked} tallies, within 5 standard errors and a tenth"
        )
        yield Finding("doubled", "kept", "", words)


def _twice(people: Population, groups: dict[str, int | None]) -> Population:
    """Two copies of everybody, with ids of their own and groups of their own where messages go over them."""
    data = people.dataset
    own = {str(n): None for n in data.dims if n in data and data[n].dims == ("agent",)}
    copies = []
    for copy in range(2):
        one = data.copy()
        for name, nowhere in {**own, **groups}.items():
            codes = data[name].to_numpy().astype(np.int64)
            many = int(data.sizes.get(name, codes.max() + 1))
            if name in data.dims:
                one[name] = ("agent", (codes + copy * many).astype(np.int32), data[name].attrs)
            else:
                moved = (
                    np.where(codes == nowhere, codes, codes + copy * many)
                    if nowhere is not None
                    else codes + copy * many
                )
                one[name] = (
                    "agent",
                    moved.astype(np.int32),
                    {k: v for k, v in data[name].attrs.items() if k != "labels"},
                )
        ids = people.ids.cpu().numpy().astype(np.int64)
        copies.append(one.assign_coords(agent=("agent", ids + copy * (ids.max() + 1))))
    both: dict[str, Any] = {}
    for key, x in data.data_vars.items():
        name = str(key)
        dim = x.dims[0] if x.dims else None
        if dim == "agent" or dim in own:
            both[name] = (x.dims, np.concatenate([c[name].to_numpy() for c in copies]), copies[1][name].attrs)
        else:
            both[name] = (x.dims, x.to_numpy(), x.attrs)
    coords = {"agent": ("agent", np.concatenate([c["agent"].to_numpy() for c in copies]))}
    for name in own:
        if name in data.coords:
            both[name] = (("agent",), np.concatenate([c[name].to_numpy() for c in copies]), data[name].attrs)
    return Population(xr.Dataset(both, coords, data.attrs), people.device)
