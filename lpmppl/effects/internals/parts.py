"""A simulation that many ranks keep, a file each, and take up again on any number of ranks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lpmppl.effects.internals import checkpoints
from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError, LpmError

__all__ = ["Part", "load", "save"]

_STATE = "state/"


class Part(NamedTuple):
    """What of a population is one rank's.

    Args:
        ranks: those that share it.
        ids: its agents' ids, int64 of shape (N,).
        homes: its households' ids, int64 of shape (H,).
        everybody: how many agents there are in all.
        households: how many households there are in all.
    """

    ranks: Ranks
    ids: Tensor
    homes: Tensor
    everybody: int
    households: int


def _kind(x: Tensor, agents: int, homes: int) -> str:
    """Whether something of the state is agents', households', or of all ranks."""
    last = x.shape[-1] if x.dim() else 0
    return "agent" if last == agents else "home" if last == homes else "all"


def save(path: Path, part: Part, arrays: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Keep this rank's part beside `path`, which says which files there are once all ranks have written theirs.

    A run that is killed at any moment leaves the files of its last step or of the one before, all of them.
    """
    ranks, step = part.ranks, int(meta["step"])
    here = len(part.ids), len(part.homes)
    kinds = {name: _kind(x, *here) for name, x in arrays.items() if name.startswith(_STATE)}
    own, well = path.with_name(_name(path, step, ranks.rank, ranks.count)), 1
    try:
        checkpoints.save(own, {**arrays, "ids": part.ids, "homes": part.homes}, {**meta, "kinds": kinds})
    except OSError as e:
        well, why = 0, e.strerror
    if not all(ranks.agree("a checkpoint", step, well)):
        # A full disk shouldn't cost the run itself.
        said = "" if well else f" ({why})"
        warnings.warn(f"the checkpoint {path} can't be written by all ranks{said}; going on", stacklevel=2)
        own.unlink(missing_ok=True)
        return
    if ranks.rank == 0:
        checkpoints.save(path, {}, {**meta, "parts": ranks.count})
    ranks.agree("the checkpoint's files", step)
    if ranks.rank == 0:
        for old in path.parent.glob(f"{path.name}.*-of-*"):
            if not old.name.startswith(f"{path.name}.{step}."):
                old.unlink(missing_ok=True)


def load(path: Path, part: Part | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what one process or any number of ranks have kept: all of it, or what of it is one rank's.

    Raises:
        InputError: for a file that is missing, damaged or no checkpoint.
        LpmError: for what ranks can't have kept of one run.
    """
    arrays, meta = checkpoints.load(path)
    if "parts" in meta:
        arrays = _whole(path, int(meta["step"]), int(meta["parts"]))
    if part is None:
        return arrays, meta
    for name, x in arrays.items():
        if name.startswith(_STATE):
            kind = _kind(x, part.everybody, part.households)
            mine = {"agent": part.ids, "home": part.homes}.get(kind)
            arrays[name] = x if mine is None else x.index_select(-1, mine.cpu().long())
    return arrays, meta


def _whole(path: Path, step: int, count: int) -> dict[str, Tensor]:
    """What one process would have kept."""
    files = [path.with_name(_name(path, step, rank, count)) for rank in range(count)]
    if missing := [file.name for file in files if not file.exists()]:
        raise InputError(f"{path} needs {', '.join(missing)} beside it, which isn't there; restore it or start anew")
    found = [checkpoints.load(file) for file in files]
    first, meta = found[0]
    places = {
        "agent": torch.cat([arrays["ids"] for arrays, _ in found]).long(),
        "home": torch.cat([arrays["homes"] for arrays, _ in found]).long(),
    }
    whole: dict[str, Tensor] = {}
    for name, x in first.items():
        each = [arrays[name] for arrays, _ in found]
        kind = meta["kinds"].get(name, "all")
        if name in ("ids", "homes"):
            continue
        if kind == "all":
            whole[name] = _alike(name, each)
            continue
        at = places[kind]
        out = x.new_zeros((*x.shape[:-1], int(at.max()) + 1))
        out[..., at] = torch.cat(each, -1)
        whole[name] = out
    return whole


def _alike(name: str, each: list[Tensor]) -> Tensor:
    """What is the same on all ranks, but for sums over groups that only one of them has: others have 0 of these."""
    first = each[0]
    if all(torch.equal(first, x) for x in each[1:]):
        return first
    if any(x.shape != first.shape for x in each):
        raise LpmError(f"'{name}' has different shapes on ranks, and can't be kept; start anew")
    stacked = torch.stack(each)
    same, some = (stacked == stacked[0]).all(0), (stacked != 0).sum(0)
    if bool((~same & (some > 1)).any()):
        raise LpmError(f"'{name}' differs between ranks, and can't be taken up again; start anew")
    return torch.where(same, first, stacked.sum(0).to(first.dtype))


def _name(path: Path, step: int, rank: int, count: int) -> str:
    return f"{path.name}.{step}.{rank}-of-{count}"
