"""The course of an infection inside a person: an ODE of cells, virus and immune response, and its archetypes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pyro.distributions as dist
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention
from chirho.dynamical.handlers.solver import TorchDiffEq
from torch import Tensor

from lpmppl._compat import Solver, inside_transform
from lpmppl.effects.internals.segments import broadcast
from lpmppl.effects.ops import evolve
from lpmppl.models.model import Parameter
from lpmppl.models.periods import around
from lpmppl.typing import Dynamics, State, Theta

__all__ = [
    "ARCHETYPES",
    "DAYS",
    "INCUBATION",
    "ONSETS",
    "PARAMETERS",
    "PRIORS",
    "VARIATIONS",
    "archetypes",
    "courses",
    "log_load",
    "milestones",
    "ode",
    "solver",
]

AGES, VARIATIONS = 9, 5
"""Age bands 0–9 … 80+, and classes of individual variation: the quintiles of the incubation period."""

PRIORS = ("none", "infected", "one dose", "two doses")
"""What the immune system has met before."""

ARCHETYPES = AGES * len(PRIORS) * VARIATIONS
"""The number K of immune archetypes; their code is (age · 4 + prior) · 5 + variation."""

DAYS = 31
"""The number T of days since infection, 0 … 30, on which the load is reported."""

INCUBATION = (5.1, 0.418)
"""Median in days and log-sd of the incubation period: Lauer et al., Annals of Internal Medicine 172 (2020), 577."""

_SLOW = tuple(
    math.exp(INCUBATION[1] * float(torch.special.ndtri(torch.tensor((k + 0.5) / VARIATIONS, dtype=torch.float64))))
    for k in range(VARIATIONS)
)
"""How many times as long as the median each class's incubation period is, in the middle of its quintile."""

ONSETS = tuple(INCUBATION[0] * slow for slow in _SLOW)
"""Days from infection to symptoms, if there are any, in each class of variation."""

ECLIPSE, VIRUS_CLEARANCE = 4.0, 10.0
"""Ends of the eclipse phase, and losses of virus, per day: Ke et al., PNAS 118 (2021), e2111477118."""

RESPONSE, KILLING, STIMULUS = 2.0, 0.5, 1e-4
"""The immune response: its growth per day, the loss of infected cells that a full one adds as a multiple of the natural
one, and the share of cells infected at which it grows at half its pace (chosen, with the memory)."""

MEMORY = (1e-8, 0.015, 0.01, 0.02)
"""The response at the time of infection, as a share of a full one, by what the immune system has met before.

Chosen: a first response comes after the second week. Two doses shorten the fall of the load from 7.4 to 5.2 days and
leave a third of infectiousness, one dose leaves half, an infection is between: Kissler et al., NEJM 385 (2021), 2489,
have 7.5 and 5.5 days, Eyre et al., NEJM 386 (2022), 744, and Harris et al., NEJM 385 (2021), 759, the transmissions.
"""

AGEING = 0.02
"""How much slower the response and the loss of infected cells are with each decade of age after the forties.

Chosen; older people had higher loads in To et al., Lancet Infectious Diseases 20 (2020), 565.
"""

STEP = 0.1
"""The longest step of the solver, in days."""

_FINEST = 100
"""How many times faster than usual target cells may fall; beyond it no step is fine enough."""

FLOOR = 1e-6
"""Copies/ml that stand for none."""

_FIT = "fitted to 46 acute infections: examples/within_host_fit.py, docs/immunity.md"

PARAMETERS = {
    "infectivity": Parameter(around(6.38e-7, 0.3), 6.38e-7, "infection of target cells", "ml per copy and day", _FIT),
    "production": Parameter(
        around(2.31e8, 0.5), 2.31e8, "virus from infected cells, were all infected", "copies/ml per day", _FIT
    ),
    "cell_loss": Parameter(around(1.26), 1.26, "loss of infected cells", "per day", _FIT),
    "inoculum": Parameter(around(2.19e-7, 0.5), 2.19e-7, "cells infected at first", "share of target cells", _FIT),
    "antiviral": Parameter(
        dist.Beta(9.0, 1.0),
        0.9,
        "what an antiviral takes from the production of virus",
        "share",
        "chosen: tenfold less virus after 5 days, Hammond et al., NEJM 386 (2022), 1397, have 0.87 log10",
    ),
}
"""The structural parameters of the ODE."""


def archetypes(device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Age band, prior immunity and class of variation of every archetype: int64 of shape (K,) each.

    >>> [int(code[99]) for code in archetypes()], ARCHETYPES
    ([4, 3, 4], 180)
    """
    k = torch.arange(ARCHETYPES, device=device)
    return k // (VARIATIONS * len(PRIORS)), k // VARIATIONS % len(PRIORS), k % VARIATIONS


def ode(theta: Theta, age: Tensor, prior: Tensor, variation: Tensor) -> Dynamics:
    r"""The dynamics of target cells T, cells in eclipse E, infected cells I, virus V and immune response A.

    .. math::
        \dot T &= -u\,\beta (1 - A) T V, \qquad
        \dot E = u\,\beta (1 - A) T V - u\,k E, \qquad
        \dot I = u\,k E - w\,\delta (1 + \kappa A) I \\
        \dot V &= \epsilon\,p I - c V, \qquad
        \dot A = w\,\omega A (1 - A) \frac{I}{I + h}

    Cells are shares of all target cells, V copies/ml, A a share of a full response, ε the output of virus that a
    treatment leaves. A class whose incubation period is m times the median one has :math:`u = 1/m`, and
    :math:`w = m^{-1/2}`, less with age.

    Args:
        theta: `infectivity` β, `production` p and `cell_loss` δ, of shapes that broadcast with (…, n).
        age: age bands, shape (n,).
        prior: indices into `PRIORS`, shape (n,); where the response starts, `courses` says.
        variation: classes of variation, shape (n,).
    Returns:
        the state (`target`, `eclipse`, `infected`, `virus`, `response`, `output`) to its derivatives per day.
    """
    pace = 1.0 / _of(_SLOW, variation, theta)
    host = torch.sqrt(pace) * (1.0 - AGEING * (age - 4).to(pace.dtype))
    infection, emergence = pace * theta["infectivity"], pace * ECLIPSE
    loss, growth = host * theta["cell_loss"], host * RESPONSE
    steady = torch.zeros((), dtype=pace.dtype, device=pace.device)

    def change(s: State) -> State:
        infected, free = s["infected"], 1.0 - s["response"]
        hit, emerging = infection * free * s["target"] * s["virus"], emergence * s["eclipse"]
        return {
            "target": -hit,
            "eclipse": hit - emerging,
            "infected": emerging - loss * (1.0 + KILLING * s["response"]) * infected,
            "virus": theta["production"] * s["output"] * infected - VIRUS_CLEARANCE * s["virus"],
            "response": growth * s["response"] * free * (infected / (infected + STIMULUS)),
            "output": steady.expand_as(s["output"]),
        }

    return change


def courses(
    theta: Theta,
    treatment: Tensor,
    age: Tensor,
    prior: Tensor,
    variation: Tensor,
    times: Tensor | None = None,
    solve: Solver[Tensor] | None = None,
) -> State:
    """Solve the ODE of every archetype, or agent, at once, for every row of parameters in steps as fine as it needs.

    An antiviral is an intervention inside the ODE: from the day on which symptoms begin in a row's class of variation,
    it takes `antiviral` times `treatment` from the output of virus.

    Args:
        theta: the values of `PARAMETERS`, of shapes that broadcast with (…, n).
        treatment: how much of an antiviral's efficacy the treated have, 0 … 1, of shape (…, 1).
        age: age bands, shape (n,).
        prior: indices into `PRIORS`, shape (n,).
        variation: classes of variation, shape (n,).
        times: days since infection to report, from 0; every day to day 30 by default.
        solve: the solver; by default `solver` with steps as fine as the parameters need.
    Returns:
        the trajectory by name, shape (…, n, T).
    """
    if solve is None:
        fine = fineness(theta)
        finest = int(fine.max())
        if finest > int(fine.min()):
            return _by_fineness(fine, theta, treatment, age, prior, variation, times)
        solve = solver(STEP / finest)
    memory = _of(MEMORY, prior, theta)
    none = memory.new_zeros(broadcast(age.shape, treatment.shape, *(theta[name].shape for name in PARAMETERS)))
    start = {
        "target": none + 1.0,
        "eclipse": none + theta["inoculum"],
        "infected": none,
        "virus": none,
        "response": none + memory,
        "output": none + 1.0,
    }
    left = (1.0 - theta["antiviral"] * treatment).to(memory.dtype)
    times = torch.arange(DAYS, dtype=memory.dtype) if times is None else times

    def antiviral(k: int) -> StaticIntervention:
        onset = torch.tensor(ONSETS[k], dtype=times.dtype)
        return StaticIntervention(onset, {"output": lambda before: torch.where(variation == k, left, before)})

    given = [antiviral(k) for k in range(VARIATIONS) if float(times[0]) < ONSETS[k] < float(times[-1])]
    rates = ode(theta, age, prior, variation)
    return evolve("within_host", rates, start, times, solve, given)


def _by_fineness(
    fine: Tensor,
    theta: Theta,
    treatment: Tensor,
    age: Tensor,
    prior: Tensor,
    variation: Tensor,
    times: Tensor | None,
) -> State:
    """As `courses`, where rows of parameters need different steps: what a row comes to doesn't hang on the others."""
    lead = broadcast(treatment.shape[:-1], *(theta[name].shape[:-1] for name in PARAMETERS))
    fine = fine.expand(lead).reshape(-1)
    given = {"treatment": treatment, **{name: theta[name] for name in PARAMETERS}}
    rows = {n: x.expand(*lead, *(x.shape[-1:] or (1,))).reshape(fine.shape[0], -1) for n, x in given.items()}
    whole: dict[str, Tensor] = {}
    for finer in fine.unique().tolist():
        keep = (fine == finer).nonzero().squeeze(-1)
        mine = {n: x[keep] for n, x in rows.items()}
        part = courses(mine, mine["treatment"], age, prior, variation, times, solver(STEP / finer))
        for name, x in part.items():
            whole[name] = whole.get(name, x.new_zeros(fine.shape[0], *x.shape[1:])).index_copy(0, keep, x)
    return {name: x.reshape(*lead, *x.shape[1:]) for name, x in whole.items()}


def log_load(path: State) -> Tensor:
    """The viral load of a trajectory in log10 copies/ml, −6 where there is none: shape (…, n, T)."""
    return torch.log10(path["virus"].clamp(min=FLOOR))


def fineness(theta: Theta) -> Tensor:
    r"""How many times finer than `STEP` the solver's steps must be: target cells fall at up to :math:`u \beta p / c`.

    At the defaults the fastest class falls by 2.5 in a step, near the 2.8 at which Runge–Kutta steps turn unstable.

    Args:
        theta: `infectivity` β and `production` p, of shapes that broadcast with (…, n).
    Returns:
        whole numbers of shape (…), for every row of parameters.
    """
    fall, usual = theta["infectivity"] * theta["production"], 1.0
    for name in ("infectivity", "production"):
        usual *= PARAMETERS[name].default
    if inside_transform(fall):
        return torch.ones((), dtype=torch.int64)
    greatest = (fall.detach() if fall.dim() == 0 else fall.detach().amax(-1)) / usual
    known = torch.isfinite(greatest) & (greatest < _FINEST)
    return torch.where(known, torch.ceil(greatest / 1.1).clamp(min=1), 1.0).long()


def solver(step: float = STEP) -> TorchDiffEq:
    """The fixed-step fourth-order Runge–Kutta solver on a grid that holds every time asked for; it has a forward mode.

    Against an adaptive solver at tight tolerance it is off by less than 0.005 log10 copies/ml.

    Args:
        step: the greatest step, days.
    """

    def grid(_: object, __: object, t: Tensor) -> Tensor:
        out = [t[:1]]
        for k, (a, b) in enumerate(pairwise(t.tolist())):
            parts = max(1, math.ceil((b - a) / step - 1e-6))
            inner = torch.arange(1, parts, dtype=t.dtype, device=t.device) / parts
            out += [a + (b - a) * inner, t[k + 1 : k + 2]]
        return torch.cat(out)

    return TorchDiffEq(method="rk4", options={"grid_constructor": grid})


def milestones(load: Tensor, times: Tensor, level: float = 3.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The peak of a course, and how long it takes to and from there; differentiable.

    Args:
        load: log10 copies/ml of shape (…, T), with one peak.
        times: days since infection, evenly spaced, shape (T,).
        level: the load in log10 copies/ml between which and the peak durations are measured.
    Returns:
        the peak in log10 copies/ml (of the parabola through the three highest values), its day, the days from the
        level up to it, and from it down to the level, each of shape (…); nan where the level isn't crossed.

    >>> days = torch.arange(31.0)
    >>> [round(float(x), 2) for x in milestones(8.0 - (days - 5.0).abs() ** 1.5, days)]
    [8.0, 5.0, 2.92, 2.92]
    """
    step = times[1] - times[0]
    here = load.argmax(-1, keepdim=True).clamp(1, len(times) - 2)
    low, top, high = (load.gather(-1, here + k).squeeze(-1) for k in (-1, 0, 1))
    bend = low - 2.0 * top + high
    aside = (0.5 * (low - high) / torch.where(bend < 0, bend, -1.0)).clamp(-1.0, 1.0)
    day = times[here.squeeze(-1)] + aside * step
    above = load >= level
    first = above.to(torch.int8).argmax(-1, keepdim=True)
    last = len(times) - 1 - above.flip(-1).to(torch.int8).argmax(-1, keepdim=True)

    def crossing(before: Tensor, beyond: Tensor) -> Tensor:
        at = before.clamp(0, len(times) - 2)
        a, b = (load.gather(-1, at + k).squeeze(-1) for k in (0, 1))
        share = (level - a) / torch.where(a == b, 1.0, b - a)
        return torch.where(above.any(-1) & ~beyond, times[at.squeeze(-1)] + share * step, torch.nan)

    up, down = crossing(first - 1, above[..., 0]), crossing(last, above[..., -1])
    return top - 0.25 * (low - high) * aside, day, day - up, down - day


def _of(values: Sequence[float], code: Tensor, theta: Theta) -> Tensor:
    """The constant of each row's code, in the parameters' precision."""
    return torch.tensor(values, dtype=theta["production"].dtype, device=code.device)[code]
