"""A simulation that many ranks keep, a file each, and take up again on any number of ranks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lpmppl.effects.internals import checkpoints
from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError, LpmError

__all__ = ["Part", "load", "save"]

_STATE, _IDS = "state/", "ids/"


class Part(NamedTuple):
    """What of a population is one rank's.

    Args:
        ranks: those that share it.
        ids: its agents' ids, int64 of shape (N,).
        homes: its households' ids, int64 of shape (H,).
        everybody: how many agents there are in all.
        many_homes: how many households there are in all.
        groups: of networks of which it has some groups alone, by name: their numbers among all, int64 of shape (G,),
            and how many there are in all.
    """

    ranks: Ranks
    ids: Tensor
    homes: Tensor
    everybody: int
    many_homes: int
    groups: Mapping[str, tuple[Tensor, int]] = MappingProxyType({})

    @property
    def ids_of(self) -> dict[str, Tensor]:
        """The numbers among all that its agents, households and groups have, by kind."""
        return {
            "agent": self.ids,
            "home": self.homes,
            **{f"group {name}": ids for name, (ids, _) in self.groups.items()},
        }

    @property
    def many(self) -> dict[str, int]:
        """How many there are in all, by kind."""
        many = {f"group {name}": count for name, (_, count) in self.groups.items()}
        return {"agent": self.everybody, "home": self.many_homes, **many}


def _kinds(x: Tensor, many: Mapping[str, int]) -> list[str]:
    """Whose something of the state may be, by how many of each kind there are; nobody's where it is of all ranks."""
    return [kind for kind, count in many.items() if x.dim() and x.shape[-1] == count]


def save(path: Path, part: Part, arrays: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Keep this rank's part beside `path`, which says which files there are once all ranks have written theirs.

    A run that is killed at any moment leaves the files of its last step or of the one before, all of them.
    """
    ranks, step = part.ranks, int(meta["step"])
    ids = part.ids_of
    here = {kind: len(x) for kind, x in ids.items()}
    kinds = {name: _kinds(x, here) for name, x in arrays.items() if name.startswith(_STATE)}
    own, well = path.with_name(_name(path, step, ranks.rank, ranks.count)), 1
    try:
        places = {f"{_IDS}{kind}": x for kind, x in ids.items()}
        checkpoints.save(own, {**arrays, **places}, {**meta, "kinds": kinds, "many": part.many})
    except OSError as e:
        well, why = 0, e.strerror
    written = all(ranks.agree("a checkpoint", step, well))
    if written and ranks.rank == 0:
        try:
            checkpoints.save(path, {}, {**meta, "parts": ranks.count})
        except OSError as e:
            well, why = 0, e.strerror
    if not (written and all(ranks.agree("the checkpoint's files", step, well))):
        # A full disk shouldn't cost the run itself.
        said = "" if well else f" ({why})"
        warnings.warn(f"the checkpoint {path} can't be written by all ranks{said}; going on", stacklevel=2)
        own.unlink(missing_ok=True)
        return
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
    known: dict[str, str] = {}
    if "parts" in meta:
        arrays, known = _whole(path, int(meta["step"]), int(meta["parts"]))
    if part is None:
        return arrays, meta
    ids, many = part.ids_of, part.many
    for name, x in arrays.items():
        if name.startswith(_STATE):
            kind = known.get(name) or next(iter(_kinds(x, many)), None)
            arrays[name] = x if kind not in ids else x.index_select(-1, ids[kind].cpu().long())
    return arrays, meta


def _whole(path: Path, step: int, count: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What one process would have kept, and what of it is whose."""
    files = [path.with_name(_name(path, step, rank, count)) for rank in range(count)]
    if missing := [file.name for file in files if not file.exists()]:
        raise InputError(f"{path} needs {', '.join(missing)} beside it, which isn't there; restore it or start anew")
    found = [checkpoints.load(file) for file in files]
    first, meta = found[0]
    whole: dict[str, Tensor] = {}
    known: dict[str, str] = {}
    for name in first:
        if name.startswith(_IDS):
            continue
        each = [arrays[name] for arrays, _ in found]
        # By chance a rank has as many of two kinds; all ranks hardly do.
        of = [kind for kind in meta["kinds"].get(name, ()) if all(kind in m["kinds"][name] for _, m in found)]
        if not of:
            whole[name] = _alike(name, each)
            continue
        known[name] = of[0]
        places = [arrays[f"{_IDS}{of[0]}"].long() for arrays, _ in found]
        whole[name] = _together(name, each, places, meta["many"][of[0]])
    return whole, known


def _together(name: str, each: Sequence[Tensor], places: Sequence[Tensor], count: int) -> Tensor:
    """What belongs to agents or groups, where ranks that have the same ones agree on them."""
    whole, had = each[0].new_zeros((*each[0].shape[:-1], count)), torch.zeros(count, dtype=torch.bool)
    for at, x in zip(places, each, strict=True):
        again = had[at]
        was, now = whole[..., at[again]], x[..., again]
        if not bool(((was == now) | ((was != was) & (now != now))).all()):
            raise LpmError(f"'{name}' differs between ranks, and can't be taken up again; start anew")
        whole[..., at] = x
        had[at] = True
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
