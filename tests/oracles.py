"""Exact answers that simulations are held to, and the tests that hold them to it at a declared failure rate."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from scipy import optimize, stats

from lpmppl.effects.handlers import DiscreteTime, Record
from lpmppl.effects.ops import simulate
from lpmppl.models.model import Model
from lpmppl.typing import Dynamics, State

RATE = 1e-6
"""How likely a test would be to fail by chance if its seeds were drawn anew; its comparisons share the rate."""


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Torch's global random state from a seed, and as it was afterwards: the chance of plain Pyro."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def play(
    model: Model,
    days: float,
    *handlers: Any,
    dt: float = 1.0,
    begin: float = 0.0,
    watch: Callable[[State], None] | None = None,
    **theta: float,
) -> tuple[State, dict[str, np.ndarray]]:
    """Simulate a model, at its defaults but for `theta`, as `go` does."""
    values = {**model.defaults(), **{k: torch.tensor(v) for k, v in theta.items()}}
    return go(model.day(values), lambda: model.initial(values, begin), days, *handlers, dt=dt, begin=begin, watch=watch)


def go(
    day: Dynamics,
    initial: Callable[[], State],
    days: float,
    *handlers: Any,
    dt: float = 1.0,
    begin: float = 0.0,
    watch: Callable[[State], None] | None = None,
) -> tuple[State, dict[str, np.ndarray]]:
    """Simulate dynamics: the last state and every tally's series; `watch` sees every state, the first included."""

    def watched(s: State) -> State:
        after = day(s)
        if watch is not None:
            watch(after)
        return after

    with torch.no_grad(), ExitStack() as stack:
        record = stack.enter_context(Record())
        for handler in (DiscreteTime(dt), *handlers):
            stack.enter_context(handler)
        start = initial()
        if watch is not None:
            watch(start)
        state = simulate(watched, start, torch.tensor(float(begin)), torch.tensor(float(begin + days)))
    return state, {k: s.values for k, s in record.series.items()}


def chi_square(counts: Mapping[Any, int], law: Mapping[Any, float]) -> float:
    """The p-value of counts under an exact law; cells that expect fewer than ten are pooled, what can't be gives 0."""
    assert abs(sum(law.values()) - 1) < 1e-9
    if any(law.get(outcome, 0.0) <= 0 for outcome in counts):
        return 0.0
    n = sum(counts.values())
    cells = [(counts.get(outcome, 0), n * p) for outcome, p in law.items()]
    large = [c for c in cells if c[1] >= 10]
    small = [c for c in cells if c[1] < 10]
    pooled = [*large, tuple(map(sum, zip(*small, strict=True)))] if small else large
    if len(pooled) > 2 and pooled[-1][1] < 10:
        # What is rare even together joins the last of the large cells.
        pooled[-2:] = [tuple(map(sum, zip(*pooled[-2:], strict=True)))]
    observed, expected = np.array(pooled, dtype=float).T
    return float(stats.chi2.sf(((observed - expected) ** 2 / expected).sum(), len(pooled) - 1))


def two_sided(z: float | np.ndarray) -> Any:
    """The p-value of a standard normal deviate."""
    return 2 * stats.norm.sf(np.abs(z))


def far(comparisons: int = 1, rate: float = RATE) -> float:
    """How many standard errors are too many, where `comparisons` share the failure rate."""
    return float(stats.norm.isf(rate / comparisons / 2))


def final_size(r0: float, initial: float, r0_of_initial: float | None = None) -> float:
    r"""The share ever infected, the first included: :math:`z = 1 - (1 - z_0) e^{-R_0 (z - z_0) - R_0' z_0}`."""
    other = r0 if r0_of_initial is None else r0_of_initial
    gap = lambda z: 1 - (1 - initial) * np.exp(-r0 * (z - initial) - other * initial) - z  # noqa: E731
    return float(optimize.brentq(gap, initial + 1e-12, 1.0))


Agent = str | tuple[str, float]
Outcome = tuple[tuple[int, ...], tuple[int, ...]]
_CODES = {"S": 0, "I": 1, "F": 1, "R": 2}


def sir_law(
    weights: np.ndarray, beta: float, gamma: float, initial: float, steps: int, dt: float = 1.0, left: bool = True
) -> dict[Outcome, float]:
    r"""The exact law of the discrete-time SIR chain.

    Args:
        weights: how much a message of j counts for i, shape (n, n) with n up to 3.
        beta, gamma: hazards per unit of time.
        initial: the probability of being infectious at the start.
        steps, dt: the number of steps and their length.
        left: whether the message of the step after an infection is the fraction left of the step of infection, of
            truncated exponential density; otherwise 1.
    Returns:
        the probability of everyone's last stage (0, 1, 2 for S, I, R) with every step's number of infections.
    """
    n = len(weights)
    start: dict[tuple[tuple[Agent, ...], tuple[int, ...]], float] = {}
    for who in itertools.product("SI", repeat=n):
        k = who.count("I")
        start[(who, ())] = initial**k * (1 - initial) ** (n - k)
    for _ in range(steps):
        after: dict[tuple[tuple[Agent, ...], tuple[int, ...]], float] = defaultdict(float)
        for (agents, history), p in start.items():
            for new, infected, q in _step(agents, weights * beta * dt, gamma * dt, left):
                after[(new, (*history, infected))] += p * q
        start = after
    law: dict[Outcome, float] = defaultdict(float)
    for (agents, history), p in start.items():
        law[(tuple(_CODES[a[0]] for a in agents), history)] += p
    return dict(law)


def _step(
    agents: tuple[Agent, ...], pull: np.ndarray, recovery: float, left: bool
) -> Iterator[tuple[tuple[Agent, ...], int, float]]:
    susceptible = [i for i, a in enumerate(agents) if a == "S"]
    full = np.array([float(a == "I") for a in agents])
    fresh = {j: a[1] for j, a in enumerate(agents) if isinstance(a, tuple)}
    # With one susceptible at most beside somebody fresh, nobody is left for whom an escape is news about the fraction.
    assert not fresh or len(susceptible) <= 1
    sick = [i for i, a in enumerate(agents) if a != "S" and a != "R"]
    for hit in itertools.product((False, True), repeat=len(susceptible)):
        p, new = 1.0, list(agents)
        for i, infected in zip(susceptible, hit, strict=True):
            hazard = float(pull[i] @ full)
            escape = np.exp(-hazard) * np.prod([escape_from_fresh(pull[i, j], h) for j, h in fresh.items()])
            p *= 1 - escape if infected else escape
            if infected:
                new[i] = ("F", hazard) if left else "I"
        if p <= 0:
            continue
        for over in itertools.product((False, True), repeat=len(sick)):
            q = p * np.prod([-np.expm1(-recovery) if o else np.exp(-recovery) for o in over])
            for i, o in zip(sick, over, strict=True):
                new[i] = "R" if o else "I"
            yield tuple(new), sum(hit), float(q)


def escape_from_fresh(pull: float, h: float) -> float:
    r"""Escape from a new case: :math:`E e^{-\kappa x}` for x of density :math:`h e^{-h(1-x)} / (1 - e^{-h})`."""
    if h == 0:
        return 1.0
    if abs(h - pull) < 1e-9:
        return float(h * np.exp(-h) / -np.expm1(-h))
    return float(h * (np.exp(-pull) - np.exp(-h)) / ((h - pull) * -np.expm1(-h)))


def mean_field(beta: float, gamma: float, dt: float) -> Callable[[torch.Tensor], torch.Tensor]:
    r"""One step of the well-mixed SIR at infinite size, on the shares (susceptible, infectious, sent).

    Who is infected in a step of hazard h sends in the next the fraction left: together :math:`s (1 - (1 - e^{-h})/h)`.
    """
    stay = float(np.exp(-gamma * dt))

    def step(x: torch.Tensor) -> torch.Tensor:
        s, i, w = x.unbind(-1)
        h = beta * dt * w
        new = s * -torch.expm1(-h)
        sent = s * (1 + torch.expm1(-h) / torch.where(h > 0, h, torch.ones_like(h)))
        return torch.stack((s - new, stay * i + new, stay * i + torch.where(h > 0, sent, 0.0)), -1)

    return step


def smallest_fixed_point(f: Callable[[float], float]) -> float:
    """The probability that a branching process with the offspring generating function f dies out."""
    q = 0.0
    for _ in range(100_000):
        q, before = f(q), q
        if abs(q - before) < 1e-14:
            break
    return q


def same_law(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """The p-value that two samples come from one law: Bonferroni over Kolmogorov–Smirnov and the means."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    se = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    return min(1.0, 2 * min(stats.ks_2samp(a, b, method="asymp").pvalue, two_sided((a.mean() - b.mean()) / se)))
