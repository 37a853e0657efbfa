"""A calibrating network in a file: what it learnt, and the runs it learnt from, so that it can go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lpmppl.effects.internals import checkpoints
from lpmppl.errors import InputError
from lpmppl.inference.training import Trained, TrainingRuns

__all__ = ["restored", "saved"]


def saved(path: Path, parts: Sequence[Trained], runs: Mapping[str, TrainingRuns], losses: list[float]) -> None:
    """Write the parts of a network, with their optimiser, and the runs of each society.

    Raises:
        InputError: for a path that can't be written.
    """
    arrays: dict[str, Tensor] = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for n, part in enumerate(parts):
        arrays |= {f"weights/{n}/{k}": x for k, x in part.network.state_dict().items()}
        arrays |= {f"averages/{n}/{k}": x for k, x in part.averaged.state_dict().items()}
        steps = part.optimizer.state_dict()["state"]
        arrays |= {f"steps/{n}/{k}/{what}": torch.as_tensor(x) for k, s in steps.items() for what, x in s.items()}
    for n, of in enumerate(runs.values()):
        arrays |= {f"runs/{n}/{k}": x for k, x in of.kept().items()}
    made = [of.task.ensemble.runs for of in runs.values()]
    try:
        checkpoints.save(path, arrays, {"network": _tag(parts, runs), "made": made})
    except OSError as e:
        raise InputError(f"{path} can't be written ({e.strerror}): give another path") from e


def restored(path: Path, parts: Sequence[Trained], runs: Mapping[str, TrainingRuns]) -> list[float]:
    """Put back what `saved` wrote, and give the losses.

    Raises:
        InputError: for a file that isn't there, is damaged, or is of another network.
    """
    if not path.is_file():
        raise InputError(f"there is no network at {path}: give what .save(path) wrote")
    try:
        arrays, meta = checkpoints.load(path, ("network", "made"))
    except InputError as e:
        raise InputError(f"{path} is damaged or no network: give what .save(path) wrote, or learn anew") from e
    if meta["network"] != _tag(parts, runs):
        raise InputError(f"{path} is of another network: make this one in the same way")

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): x for k, x in arrays.items() if k.startswith(prefix)}

    for n, part in enumerate(parts):
        part.network.load_state_dict(under(f"weights/{n}/"))
        part.averaged.load_state_dict(under(f"averages/{n}/"))
        steps: dict[int, dict[str, Tensor]] = {}
        for key, x in under(f"steps/{n}/").items():
            number, what = key.split("/")
            steps.setdefault(int(number), {})[what] = x
        part.optimizer.load_state_dict({**part.optimizer.state_dict(), "state": steps})
    for n, (of, made) in enumerate(zip(runs.values(), meta["made"], strict=True)):
        of.put_back(under(f"runs/{n}/"))
        of.task.ensemble.runs = made
    losses: list[float] = arrays["losses"].tolist()
    return losses


def _tag(parts: Sequence[Trained], runs: Mapping[str, TrainingRuns]) -> str:
    """What a file must agree with: the weights' names and shapes, and whose runs, of which days, they learn from."""
    shapes = [[n, k, list(x.shape)] for n, part in enumerate(parts) for k, x in part.network.state_dict().items()]
    whose = [
        [
            n, of.seed, of.days, of.task.model.name, of.task.model.population.checksum, of.task.streams,
            dict(of.task.rest), of.task.context.tolist(), [list(act) for act in of.task.ensemble.acts],
            str(getattr(of.task.model, "start", "")),
            {n: repr(of.task.model.parameters[n].prior) for n in of.task.scale.names},
        ]
        for n, of in runs.items()
    ]  # fmt: skip
    return hashlib.sha256(json.dumps([shapes, whose]).encode()).hexdigest()
