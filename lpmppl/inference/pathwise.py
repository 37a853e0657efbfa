"""The derivative of tallies along agents' paths: one run and one pass backwards, whatever the number of parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch.autograd import forward_ad

from lpmppl._compat import handler_stack
from lpmppl.effects.handlers.pathwise import Pathwise
from lpmppl.effects.handlers.sharded import Sharded
from lpmppl.effects.internals.freed import trim
from lpmppl.effects.internals.segments import at_work, differentiated, give_back
from lpmppl.errors import LpmError
from lpmppl.inference.flipping import Question

__all__ = ["Along", "along_paths", "carried"]

_PASSES = 8
"""How many passes backwards a run in forward mode costs."""


@dataclass(frozen=True)
class Along:
    """What one draw says.

    Attributes:
        value: derivatives, shape (M, P).
        base: what was asked for, shape (M,).
        unseen: the parameters that it isn't right for, with where they enter.
        plateau: by hazard site, the share of time at risk without hazard.
    """

    value: np.ndarray
    base: np.ndarray
    unseen: dict[str, str]
    plateau: dict[str, float]


def along_paths(question: Question, chance: int, look: bool = True) -> Along:
    """Take derivatives by one run with its tape, and a pass backwards for each of the M things asked for.

    Where these are many times the parameters, a run in forward mode for each parameter takes the place of the passes.
    Where ranks share the people, all of them have the whole derivative.

    Args:
        question: what is asked.
        chance: which draw of the agents' chance.
        look: whether to look for parameters that it isn't right for, which takes time.
    Raises:
        LpmError: where the tally carries no derivative: it counts what has no time.
    """
    with torch.inference_mode(False), torch.enable_grad():
        found = _along_paths(question, chance, look)
    trim()
    return found


def _along_paths(question: Question, chance: int, look: bool) -> Along:
    theta = question.values(differentiated=True)
    wrt = [theta[name] for name in question.names]
    sharded = next((h for h in handler_stack() if isinstance(h, Sharded)), None)
    # On ranks sums hang on each other, so that what depends on what is seen in a run of its own.
    apart = look and sharded is not None
    looked = Pathwise({name: theta[name] for name in question.names}, []) if apart else None
    paths = Pathwise({name: theta[name] for name in question.names if look and not apart}, [question.of])
    with at_work():
        if looked is not None and sharded is not None:
            with sharded.looking():
                question.run(theta, chance, looked)
        with nullcontext(theta) if sharded is None else sharded.backwards(theta) as given:
            base = question.series(question.run(given, chance, paths))
            asked = carried(question, paths, base)
            give_back()
            value = np.zeros((len(asked), len(wrt)))
            some = [m for m, one in enumerate(asked) if one.requires_grad]
            if len(some) <= _PASSES * len(wrt):
                for m in some:
                    found = torch.autograd.grad(asked[m], wrt, retain_graph=m != some[-1], allow_unused=True)
                    value[m] = [0.0 if x is None else float(x) for x in found]
        if len(some) > _PASSES * len(wrt):
            paths.crossing, paths.direct, asked = {}, {}, torch.empty(0)  # and with them the tape
            value = np.stack([_forward(question, chance, name) for name in question.names], -1)
    unseen, plateau = (looked or paths).unseen, paths.plateau
    if sharded is not None:
        unseen, plateau = _of_all(sharded, unseen, paths)
    return Along(value, question.read(base), unseen, plateau)


def _of_all(sharded: Sharded, unseen: Mapping[str, str], paths: Pathwise) -> tuple[dict[str, str], dict[str, float]]:
    """What derivatives don't see on any rank, and the share of everybody's time at risk without hazard."""
    said = torch.tensor(list(json.dumps(unseen).encode()), dtype=torch.int64)
    told = [json.loads(bytes(words.tolist())) for words in sharded.ranks.gathered(said)]
    counts = torch.tensor([list(counts) for counts in paths.risk.values()], dtype=torch.int64).reshape(-1, 2)
    everybody = sharded.ranks.total("the time at risk without hazard", counts).tolist()
    paths.risk = dict(zip(paths.risk, everybody, strict=True))
    return {name: where for of_rank in reversed(told) for name, where in of_rank.items()}, paths.plateau


def _forward(question: Question, chance: int, name: str) -> np.ndarray:
    """The derivatives of everything asked for by one parameter, by a run that carries its tangent: shape (M,)."""
    paths = Pathwise(tallies=[question.of], forward=True)
    with forward_ad.dual_level():
        theta = question.values()
        theta[name] = forward_ad.make_dual(theta[name], torch.ones_like(theta[name]))
        base = question.series(question.run(theta, chance, paths))
        asked = _carried(question, paths, base)
        tangent = forward_ad.unpack_dual(asked).tangent
        return np.zeros(len(asked)) if tangent is None else tangent.numpy().copy()


def carried(question: Question, paths: Pathwise, base: np.ndarray) -> torch.Tensor:
    """M numbers whose derivatives are those of what is asked for, shape (M,); their values are not.

    Args:
        question: what is asked.
        paths: the handler of the run.
        base: the tally's series in it, shape (T, …, G).
    Raises:
        LpmError: where the tally carries no derivative: it counts what has no time.
    """
    crossing, direct = paths.crossing.get(question.of, {}), paths.direct.get(question.of, {})
    if not crossing and not any(map(differentiated, direct.values())) and base.any():
        raise LpmError(
            f"tally '{question.of}' counts what has no time of its own, such as a mask, and carries no derivative "
            "along agents' paths; ask for estimator='differences'"
        )
    return _carried(question, paths, base)


def _carried(question: Question, paths: Pathwise, base: np.ndarray) -> torch.Tensor:
    crossing, direct = paths.crossing.get(question.of, {}), paths.direct.get(question.of, {})
    weight = question.weights(base.shape)
    ends = _by_end_of_day(base.shape[0], paths.stock.get(question.of, False))
    by_event = np.einsum("te,mtg->meg", ends, weight)
    total = torch.zeros(len(weight), dtype=torch.float64)
    for each, weights in ((crossing, by_event), (direct, weight)):
        if kept := {day: x for day, x in each.items() if differentiated(x)}:
            entries = torch.stack([x.reshape(-1).double() for x in kept.values()]).cpu()
            total = total + (torch.from_numpy(weights[:, list(kept)]) * entries).sum((1, 2))
    return total


def _by_end_of_day(days: int, stock: bool) -> np.ndarray:
    """How the derivative of each day's tally is made of the days' crossings: a matrix of shape (days, days).

    A day's crossings are the derivative of a count averaged over the day, that of its middle. What has happened by the
    end of a day is half way to the next one's, and on the last day as far beyond it as the day before was short of it.

    >>> _by_end_of_day(3, stock=True)
    array([[ 0.5,  0.5,  0. ],
           [ 0. ,  0.5,  0.5],
           [ 0. , -0.5,  1.5]])
    """
    ends = np.zeros((days, days))
    for day in range(days - 1):
        ends[day, day] = ends[day, day + 1] = 0.5
    ends[-1, -1] = 1.5 if days > 1 else 1.0
    if days > 1:
        ends[-1, -2] = -0.5
    return ends if stock else np.diff(ends, axis=0, prepend=0.0)
