"""`lpmppl calibrate --guide calibnn`: a network that learns to read counts, kept in a file, and what it reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpmppl.errors import InputError

if TYPE_CHECKING:
    from xarray import Dataset, DataTree

    from lpmppl.cli.settings import Settings
    from lpmppl.models.model import Model

__all__ = ["CALIBNN", "LEARN", "check", "read"]

CALIBNN, LEARN = "calibnn", 1024
"""The guide's name, and how many runs a network learns from in all unless another number is asked for."""

_ONLY_WITH, _NOT_WITH = ("learn", "network"), ("rounds", "misfit", "before")
_EACH = 64


def check(question: dict[str, Any], explicit: Collection[str]) -> None:
    """Refuse options that don't go with the guide.

    Raises:
        InputError: naming the option.
    """
    network = question["guide"] == CALIBNN
    for option in _NOT_WITH if network else _ONLY_WITH:
        if option in explicit:
            remedy = "a network has none: leave it out" if network else f"only a network has it: give --guide {CALIBNN}"
            raise InputError(f"--{option}: {remedy}")
    if network and question["learn"] < 1:
        raise InputError(f"--learn {question['learn']}: give 1 run or more, in all")


def read(
    question: dict[str, Any],
    asked: Settings,
    models: tuple[Model, Model | None],
    data: Dataset,
    parameters: Sequence[str],
    tell: Callable[[str], None],
    file: Path | None,
) -> DataTree:
    """Have a network learn from runs, and read the data.

    Args:
        question: what is asked, as the command has it.
        asked: the society's settings.
        models: the society that is calibrated, and the smaller one that the network learns from, where there is one.
        data: the counts.
        parameters: those that are looked for.
        tell: is told how far it is.
        file: where what was learnt is kept after every few runs, and gone on from; nowhere by default.
    Raises:
        InputError: for a file of another network, or one that can't be.
    """
    from lpmppl.inference.answer import held_in_runs
    from lpmppl.inference.calibnn import CalibNN

    if file is not None and (not file.parent.is_dir() or file.is_dir()):
        raise InputError(f"--network {file} can't be written: give a file in a folder that is there")
    model, small = models
    network = CalibNN(
        small or model,
        {name: [d for d in x.dims if d != "day"] for name, x in data.data_vars.items()},  # type: ignore[misc]
        question["fitted"],
        parameters=parameters,
        set=dict(asked.set),
        interventions=list(asked.intervene),
        seed=asked.seed,
    )
    if file is not None and file.is_file():
        network.resume(file)
    of = network.tasks[""].ensemble
    while (left := question["learn"] - of.runs) > 0:
        network.learn(min(_EACH, left))
        if file is not None:
            network.save(file)
        tell(f"{of.runs} of {question['learn']} runs: loss {network.losses[-1]:.2f}")
    tree = network.posterior(
        data.sel(day=slice(None, question["until"])),
        model,
        simulations=question["simulations"],
        ahead=question["ahead"],
        seed=asked.seed,
    )
    if small is not None:
        whose = f" of {small.population.everybody:,} people"
        tree.attrs["runs_coverage"], said = held_in_runs(network.calibration(), whose)
        tree.attrs["verdict"] = json.dumps([*json.loads(tree.attrs["verdict"]), said], ensure_ascii=False)
    return tree
