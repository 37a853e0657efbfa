"""The day-by-day series of every tally, per world and per draw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lpmppl._compat import Message, Messenger
from lpmppl.effects.internals.segments import broadcast
from lpmppl.errors import LpmError

__all__ = ["Record", "Series"]


class Series:
    """One tally day by day.

    Attributes:
        days: the time of each entry, in days.
        values: float64 or int64 of shape (T, …, G), leading dimensions those of worlds and draws.
        dims: the labels of the strata, by dimension; their product is G.
        stock: whether it counts who is in a state at the end of a step rather than what happened in it.
    """

    def __init__(self) -> None:
        self.days: list[float] = []
        self.entries: list[torch.Tensor] = []
        self.dims: Mapping[str, Sequence[str]] = {}
        self.stock = False
        self.quantum: float | None = None

    @property
    def values(self) -> np.ndarray:
        shape = broadcast(*(e.shape for e in self.entries))
        whole = torch.stack([e.expand(shape) for e in self.entries]).cpu().numpy()
        return whole if self.quantum in (None, 1.0) else whole * self.quantum


class Record(Messenger):
    """Keep what `tally` counts: `series[name]`, in the order of days; worlds that part later share the days before."""

    def __init__(self) -> None:
        super().__init__()
        self.series: dict[str, Series] = {}

    def _pyro_post_tally(self, msg: Message) -> None:
        name, _, by, _, quantum, stock = msg["args"]
        time, _, site = name.partition("/") if name.startswith("t=") else ("t=0", "", name)
        entry = self.series.setdefault(site, Series())
        if entry.entries and entry.quantum is not None and entry.quantum != quantum:
            raise LpmError(
                f"tally '{site}' counts in units of {quantum:g} on day {time[2:]} and in {entry.quantum:g} before; "
                "give it values of one kind"
            )
        entry.dims, entry.stock, entry.quantum = getattr(by, "dims", {}), stock, quantum
        entry.days.append(float(time[2:]))
        value = msg["value"].detach()
        entry.entries.append(value.round().to(torch.int64) if value.is_floating_point() else value)

    def _pyro_post_snapshot(self, msg: Message) -> None:
        """Put the series so far into a checkpoint."""
        for name, entry in self.series.items():
            shape = broadcast(*(e.shape for e in entry.entries))
            msg["value"][f"record/{name}/entries"] = torch.stack([e.expand(shape) for e in entry.entries])
            msg["value"][f"record/{name}/days"] = torch.tensor(entry.days, dtype=torch.float64)
            kind = json.dumps([{d: list(labels) for d, labels in entry.dims.items()}, entry.stock, entry.quantum])
            msg["value"][f"record/{name}/kind"] = torch.tensor(list(kind.encode()), dtype=torch.uint8)

    def _pyro_restore(self, msg: Message) -> None:
        """Take the series up again from a checkpoint."""
        (saved,) = msg["args"]
        for key, entries in saved.items():
            if key.startswith("record/") and key.endswith("/entries"):
                name = key.split("/")[1]
                series = self.series[name] = Series()
                series.entries, series.days = list(entries), saved[f"record/{name}/days"].tolist()
                # A tally that isn't taken again, as a weekly one may not be, has its strata and unit from here.
                kind = bytes(saved[f"record/{name}/kind"].tolist())
                series.dims, series.stock, series.quantum = json.loads(kind)
