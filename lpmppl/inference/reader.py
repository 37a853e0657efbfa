"""The network of CalibNN: it reads series of counts, and gives a posterior of parameters by their names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from lpmppl.errors import InputError, nearest
from lpmppl.inference.ensemble import Ensemble
from lpmppl.inference.head import WIDTH, Head, Posterior
from lpmppl.inference.observed import Observed
from lpmppl.inference.scales import Scale
from lpmppl.models.model import Model

__all__ = ["Encoder", "Reader", "Task", "blank", "laid", "legible", "named", "wanted"]

_NAMED, _FEATURES = 8, 6
"""How many numbers stand for the name of a series, and for what it has on a day."""


@dataclass(frozen=True)
class Task:
    """One society that is to be calibrated, with what is observed of it."""

    model: Model
    scale: Scale
    rest: Mapping[str, float]
    ensemble: Ensemble
    context: Tensor

    @property
    def streams(self) -> list[str]:
        """The name of every series, with the labels of its stratum."""
        return named(self.ensemble.observed)

    def input(self, counts: Tensor) -> Tensor:
        """Counts of shape (B, D), NaN where they weren't seen, as numbers to read: shape (B, series, T, F)."""
        return legible(self.ensemble.observed, counts, self.model.population.everybody)


class Encoder(nn.Module):
    """From series of counts to numbers that say what was read in each."""

    def __init__(self, streams: Collection[str]) -> None:
        super().__init__()
        self.names = nn.ParameterDict({n: torch.randn(_NAMED) for n in streams})
        self.read = nn.GRU(_FEATURES + _NAMED, WIDTH, batch_first=True)

    def forward(self, x: Tensor, streams: Sequence[str]) -> Tensor:
        """Read series of shape (B, S, T, F), by their S names: shape (B, S, 2W)."""
        names = torch.stack([self.names[n] for n in streams])
        named = names[None, :, None].expand(*x.shape[:3], _NAMED)
        states, _ = self.read(torch.cat([x, named], -1).flatten(0, 1))
        return torch.cat([states[:, -1], states.mean(1)], -1).unflatten(0, x.shape[:2])


class Reader(nn.Module):
    """From the series of a task to the posterior of its parameters.

    Args:
        streams: the names of series that an encoder reads, by the name of the encoder.
        parameters: the names of the parameters of each society.
        context: how many numbers tell a society from others.
        rank: how many loadings each parameter has.
        guide: the form of posteriors.
    """

    def __init__(
        self,
        streams: Mapping[str, Collection[str]],
        parameters: Collection[Sequence[str]],
        context: int,
        rank: int,
        guide: str,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList([Encoder(each) for each in streams.values()])
        self.head = Head(parameters, context, rank, guide)

    def forward(self, task: Task, counts: Tensor) -> Posterior:
        x, names, read = task.input(counts), task.streams, []
        for encoder in self.encoders:
            assert isinstance(encoder, Encoder)
            mine = [k for k, n in enumerate(names) if n in encoder.names]
            read.append(encoder(x[:, mine], [names[k] for k in mine]))
        found: Posterior = self.head(task, torch.cat(read, 1))
        return found


def named(observed: Observed) -> list[str]:
    """The name of every series of what is observed, with the labels of its stratum."""
    each = ((s.name, labels) for s in observed.streams for labels in itertools.product(*s.kept.values()))
    return ["/".join([name, *labels]).replace(".", " ") for name, labels in each]


def legible(observed: Observed, counts: Tensor, people: int) -> Tensor:
    """Counts of shape (B, D) in the order of what is observed, as numbers to read: shape (B, series, T, F).

    They are there as numbers, and as shares of the people, by which a society of another size is read alike.
    """
    series = torch.from_numpy(np.concatenate(observed.split(counts.numpy()), -1)).swapaxes(-1, -2)
    known, day = series.nan_to_num(), torch.linspace(0.0, 1.0, series.shape[-1]).expand(series.shape)
    so_far = known.cumsum(-1)
    logs = [torch.log1p(x) / 3.0 for x in (known, so_far)]
    shares = [(torch.log1p(known) - math.log(people)) / 3.0 + 1.5, so_far / people]
    return torch.stack([*logs, *shares, ~torch.isnan(series), day], -1).float()


def wanted(streams: str | Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The strata that each stream keeps, by its name."""
    if not isinstance(streams, str | Mapping | Sequence):
        raise InputError(f"streams={streams!r} was given; give the names of tallies")
    if isinstance(streams, Mapping):
        if strange := [kept for kept in streams.values() if not isinstance(kept, str | Sequence)]:
            raise InputError(f"streams= has {strange[0]!r} for strata; give names, such as ['age'], or [] for none")
        found = {str(n): [kept] if isinstance(kept, str) else list(kept) for n, kept in streams.items()}
    else:
        found = {str(n): [] for n in ([streams] if isinstance(streams, str) else streams)}
    if not found:
        raise InputError("streams= names nothing; give the name of one tally or more")
    return found


def blank(model: Any, streams: Mapping[str, Sequence[str]], days: int) -> xr.Dataset:
    """Counts of nothing, of the form that is to be observed."""
    strata = {} if model.by is None else {d: list(labels) for d, labels in model.by.dims.items()}
    found = {}
    for name, kept in streams.items():
        for dim in kept:
            if dim not in strata:
                raise InputError(nearest(f"stratum of {name}", dim, strata))
        shape = [days, *(len(strata[dim]) for dim in kept)]
        coords = {"day": np.arange(days), **{dim: strata[dim] for dim in kept}}
        found[name] = xr.DataArray(np.zeros(shape), dims=("day", *kept), coords=coords)
    return xr.Dataset(found)


def laid(form: Observed, given: Observed) -> np.ndarray:
    """What was observed in the order in which the network reads it, shape (D,), NaN where it wasn't seen."""
    mine = {s.name: s for s in given.streams}
    for name in mine:
        if name not in {s.name for s in form.streams}:
            raise InputError(nearest("stream that the network reads", name, [s.name for s in form.streams]))
    parts = []
    for stream in form.streams:
        counts = np.full_like(stream.counts, np.nan)
        if stream.name in mine:
            other = mine[stream.name]
            if dict(other.kept) != dict(stream.kept):
                raise InputError(
                    f"'{stream.name}' is by {', '.join(other.kept) or 'nothing'}, and the network reads it by "
                    f"{', '.join(stream.kept) or 'nothing'}"
                )
            counts[: len(other.counts)] = other.counts
        parts.append(counts.reshape(-1))
    return np.concatenate(parts)
