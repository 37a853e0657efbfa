"""What can happen in a society: the ops that models are written in, each a signature with a default meaning.

`simulate` is ChiRho's and `pyro.sample` is Pyro's; the rest is here. Handlers in `lpmppl.effects.handlers` give them
other meanings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, cast

import pyro
import torch
from chirho.dynamical.handlers.solver import TorchDiffEq
from chirho.dynamical.handlers.trajectory import LogTrajectory
from chirho.dynamical.ops import simulate
from torch import Tensor

from lpmppl._compat import Messenger, Solver, effectful, repair_chirho
from lpmppl.effects.cohorts import Cohort, Lazy, Sparse, dense
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.fields import Field, Network, summed
from lpmppl.effects.internals.ring import check_bound, quantise, width
from lpmppl.effects.internals.segments import differentiated
from lpmppl.effects.internals.walls import inner_wall, solver_wall
from lpmppl.effects.relaxed import Relaxed, opened
from lpmppl.effects.tape import Taped, note_left, on_tape, plain, timing
from lpmppl.errors import InputError, LpmError, nearest
from lpmppl.typing import Dynamics, State

__all__ = ["aggregate", "decide", "evolve", "happens", "ring_sum", "running", "simulate", "substep", "tally"]

REDUCTIONS = ("sum", "mean", "max", "any")
Message = Tensor | Sparse | Cohort


def _message(name: str, message: Message) -> Tensor | Sparse:
    """What is sent or counted, as it is added up."""
    found = message.carrying(1) if isinstance(message, Cohort) else opened(message)
    if not isinstance(found, Tensor | Lazy) or not found.shape:
        what = "one number" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"{name}: {what} was given; give a tensor with agents on the last dimension")
    return cast("Tensor | Sparse", found)


@effectful(type="ring_sum")
def ring_sum(integers: Tensor | Sparse, network: Network | None, onto: Tensor | None = None, most: int = 1) -> Tensor:
    """Add integer messages up over a network: the one op that sharding and secret sharing handle.

    Args:
        integers: int32 or int64 messages of shape (…, N), dense or sparse.
        network: where they add up; None for the whole population.
        onto: a running total of shape (…, G) to add to.
        most: the largest absolute message there can be.
    Returns:
        the totals, shape (…, G), with G = 1 for the whole population.
    Raises:
        LpmError: for groups with members on other ranks, where nobody adds up over ranks.
    """
    if getattr(network, "shared", False):
        assert network is not None
        raise LpmError(f"'{network.name}' has members on other ranks: run it within `with Sharded(ranks):`")
    return summed(integers, network, onto)


@effectful(type="ghost_sum")
def _ghost_sum(ghost: Tensor | Sparse, network: Network | None) -> Tensor:
    """Add up what is zero in value and carries a derivative, which secret sharing must not see either."""
    return summed(ghost, network)


def running(total: Tensor, network: Network, reduce: str = "mean", weight: Tensor | float = 1.0) -> Field:
    """Read a running integer total of the state back as a field of messages.

    Args:
        total: integers of shape (…, G), as `aggregate(…, onto=…).total` leaves them.
        network: the network it belongs to.
        reduce: "sum" or "mean".
        weight: a number, or a factor of each group of shape (G,).
    """
    return _running(total, network, reduce, weight)


@effectful(type="running")
def _running(total: Tensor, network: Network, reduce: str, weight: Tensor | float) -> Field:
    return _field(total, network, reduce, weight)


def _field(total: Tensor, network: Network, reduce: str, weight: Tensor | float = 1.0) -> Field:
    if isinstance(weight, Tensor) and weight.numel() == 1:
        return _field(total, network, reduce) * weight
    if isinstance(weight, Tensor):
        share, unit = network.share(reduce, weight), network.quantum
    else:
        share, unit = network.share(reduce), network.quantum * weight
    # A total that carries a tangent is read in the precision in which integers are.
    values = total.to(share.dtype) if total.is_floating_point() else total
    return (network.field(values, share) * unit).with_total(total)


def aggregate(message: Message, network: Network, onto: Tensor | None = None, reduce: str = "mean") -> Field:
    r"""What reaches each agent from its neighbours: :math:`\bigoplus_{j \in N(i)} m_{ij}`, eq. 1 of the LPM paper.

    Messages are added as fixed-point integers, so that the sum has no order: shards and worlds agree bit for bit, and
    a running total never drifts.

    Args:
        message: what each agent sends, shape (…, N): numbers or Booleans, a sparse value, or a cohort (one each).
        network: who reaches whom.
        onto: a running integer total in the state, to which a *change* of messages is added; the new one is the
            result's `.total`, in float64 where it carries a derivative.
        reduce: "sum", "mean" over the n neighbours (an empty neighbourhood gives 0), "max" or "any".
    Returns:
        a field over agents, read as a tensor of shape (…, N).
    Raises:
        InputError: for a message of another number of agents, beyond the network's bound, that isn't finite, or whose
            derivative is asked for where there is none, in a maximum.

    >>> from lpmppl.models.population import Population
    >>> homes = Population.of({"household": [0, 0, 1]}).network("household")
    >>> aggregate(torch.tensor([True, False, True]), homes).dense().tolist()
    [0.5, 0.5, 1.0]
    >>> aggregate(torch.tensor([True, False, True]), homes, reduce="sum").total.shape
    torch.Size([2])
    """
    if isinstance(network, str | Tensor):
        given, name = (repr(network), network) if isinstance(network, str) else ("a tensor", "NAME")
        raise InputError(f"aggregate over {given}: give the message, then a network: population.network({name!r})")
    return _aggregate(_message(f"network '{network.name}'", message), network, onto, reduce)


@effectful(type="aggregate")
def _aggregate(message: Tensor | Sparse, network: Network, onto: Tensor | None, reduce: str) -> Field:
    if reduce not in REDUCTIONS:
        raise InputError(nearest("reduction", reduce, REDUCTIONS))
    if message.shape[-1] != network.agents:
        raise InputError(
            f"network '{network.name}' has {network.agents} agents, but a message of shape {tuple(message.shape)} "
            "was given; "
            "agents are on the last dimension"
        )
    value = message.value if isinstance(message, Sparse) else message
    tangent = differentiated(value) or (onto is not None and differentiated(onto))
    if tangent and reduce in ("max", "any"):
        raise InputError(
            f"network '{network.name}': reduce='{reduce}' carries no derivative; detach the message, or send it with "
            "sum or mean"
        )
    if reduce == "any" and onto is None:
        value = value != 0
        message = Sparse(message.cohort, value) if isinstance(message, Sparse) else value
    dtype = width(network.name, network.quantum, network.bound, network.reach)
    before = onto
    if onto is not None:
        onto = onto.detach().round().to(dtype) if onto.is_floating_point() else plain(onto)
    if onto is not None and onto.dtype not in (dtype, torch.int64):
        raise InputError(
            f"network '{network.name}': a running total of {onto.dtype} can't hold its messages; start it from {dtype}"
        )
    dtype = onto.dtype if onto is not None else dtype
    integers = _integers(message, network, dtype)
    if reduce == "max":
        if onto is not None:
            raise InputError(
                f"network '{network.name}': a maximum has no running total; send the whole message without onto"
            )
        return network.field(network.largest(dense(integers)), network.share("sum")) * network.quantum
    most = 1 if reduce == "any" else math.ceil(network.bound / network.quantum)
    total = ring_sum(integers, network, onto, most)
    if reduce == "any":
        return network.field((total != 0).float(), network.share("sum")).with_total(total)
    if not tangent:
        return _field(total, network, reduce)
    if isinstance(message, Sparse) and on_tape() and not (before is not None and before.is_floating_point()):
        return _field(_taped(message, network, total, before), network, reduce)
    # Integers carry no tangent: a sum that is zero in value runs beside them and does.
    ghost = _ghost_sum(_ghost(message), network) / network.quantum
    if before is not None and differentiated(before):
        ghost = ghost + (before - before.detach())
    return _field(total + ghost.double(), network, reduce)


def _taped(message: Sparse, network: Network, total: Tensor, before: Tensor | None) -> Tensor:
    """An integer total with its derivative on the tape: that of the message, and of the total it was added to."""
    if isinstance(before, Taped):
        total = Taped.of(total, before.version, before.token)
    if not differentiated(message.value):
        return total
    return network.total(Sparse(message.cohort, message.value.double() / network.quantum), total)


def _ghost(message: Tensor | Sparse) -> Tensor | Sparse:
    """What is zero in value and carries a message's tangent."""
    if isinstance(message, Sparse):
        return Sparse(message.cohort, message.value.double() - message.value.detach().double())
    return message.double() - message.detach().double()


def _integers(message: Tensor | Sparse, network: Network, dtype: torch.dtype) -> Tensor | Sparse:
    """Bring a message into a network's fixed point; a sparse one that goes over several networks, once."""
    value = message.value if isinstance(message, Sparse) else message
    if not isinstance(message, Sparse):
        check_bound(network.name, value, network.bound)
        return quantise(value, network.quantum, dtype)
    point = network.quantum, network.bound, dtype
    if point not in message.integers:
        check_bound(network.name, value, network.bound)
        message.integers[point] = Sparse(message.cohort, quantise(value, network.quantum, dtype))
    return message.integers[point]


def tally(
    name: str,
    value: Message,
    by: Network | None = None,
    onto: Tensor | None = None,
    quantum: float | None = None,
    bound: float = 1.0,
    stock: bool = False,
) -> Tensor:
    """Count something over the population, for the world to see: :math:`x_t = h(s(t))`, eq. 3 of the LPM paper.

    Args:
        name: the tally's name in results.
        value: what each agent contributes, shape (…, N): Booleans, numbers, a sparse value, or a cohort (one each).
        by: the strata, such as `population.strata("borough", "age")`; None for one total.
        onto: a running integer total to which `value` is a change (numbers of people now in a state, rather than new
            ones today).
        quantum: the fixed-point unit; by default 1 for Booleans and integers and 2⁻¹⁶ otherwise.
        bound: the largest absolute contribution of one agent; of integers it isn't checked unless they are to be
            noised.
        stock: whether it counts who is in a state at the end of the step, rather than what happened in it, as a running
            total does.
    Returns:
        int64 totals of shape (…, G) in units of the quantum: what `onto` takes the next day; in float64 where they
        carry a derivative.
    Raises:
        InputError: for a value beyond the bound, that isn't finite, or of another number of agents than the strata.

    >>> from lpmppl.models.population import Population
    >>> people = Population.of({"borough": [0, 1, 1]})
    >>> tally("infections", torch.tensor([True, False, True])).tolist()
    [2]
    >>> tally("infections", torch.tensor([True, False, True]), by=people.strata(borough="borough")).tolist()
    [1, 1]
    """
    if isinstance(by, str):
        raise InputError(f"tally '{name}': by='{by}' is a name; give strata, such as population.strata({by}='{by}')")
    if "/" in name:
        raise InputError(f"tally '{name}': a name of a result can't have a slash in it")
    if isinstance(value, Relaxed) and not value.fraction and quantum is None:
        quantum = 1.0
    message = _message(f"tally '{name}'", value)
    x = message.value if isinstance(message, Sparse) else message
    exact = not x.is_floating_point()
    unit = quantum if quantum is not None else 1.0 if exact else 2.0**-16
    if by is not None and message.shape[-1] != by.agents:
        raise InputError(
            f"tally '{name}': {tuple(message.shape)} was given for strata of {by.agents} agents; agents are on the "
            "last dimension"
        )
    if not exact:
        width(name, unit, bound, by.reach if by is not None else message.shape[-1])
        check_bound(name, x, bound)
    if x.dtype == torch.bool and isinstance(message, Tensor):
        message, x = (few := Cohort.of(message)).carrying(1), few.where.new_ones(len(few))
    whole = quantise(x, unit, torch.int64)
    integers = Sparse(message.cohort, whole) if isinstance(message, Sparse) else whole
    ghost = _ghost_sum(_ghost(message), by) / unit if differentiated(x) else None
    if onto is not None and onto.is_floating_point():
        ghost = onto - onto.detach() if ghost is None else ghost + (onto - onto.detach())
        onto = onto.detach().round().to(torch.int64)
    timed = message if timing() and isinstance(message, Sparse) and message.cohort.left is not None else None
    crossing = None if timed is None else partial(_crossing, timed, by, unit)
    most = math.ceil(bound / unit)
    stock = stock or onto is not None
    return _tally(name, integers, by, onto, unit, stock, ghost=ghost, crossing=crossing, most=most)


def _crossing(message: Sparse, by: Network | None, unit: float) -> Tensor:
    """What is zero in value and carries how a count moves with the times of its events in the step."""
    left = message.cohort.left
    assert left is not None
    value = message.value.detach()
    # A count's numbers are exact in the precision of the times.
    counted = (value.double() if value.is_floating_point() else value.to(left.dtype)) * (left - left.detach())
    return _ghost_sum(Sparse(message.cohort, counted.double()), by) / unit


@effectful(type="tally")
def _tally(
    name: str,
    integers: Tensor | Sparse,
    by: Network | None,
    onto: Tensor | None,
    quantum: float,
    stock: bool,
    *,
    ghost: Tensor | None = None,
    crossing: Callable[[], Tensor] | None = None,
    most: int = 1,
) -> Tensor:
    total = ring_sum(integers, by, onto, most)
    return total if ghost is None else total + ghost


def happens(name: str, exposure: Exposure) -> tuple[Tensor, Tensor | Sparse]:
    """Let a hazard-driven event happen or not: two sites, the event and `name.left`, how much of the step is left.

    Nobody should act on others sooner than one step after their own event; then, with `left` as the first step's
    weight, the model converges at second order as steps are split.

    Args:
        name: the site's name.
        exposure: the hazard, with the agents at risk.
    Returns:
        the event, Boolean of shape (…, N), and the fraction left in [0, 1), zero where nothing happened, of the same
        shape.

    >>> from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise
    >>> from lpmppl.models.population import Population
    >>> people = Population.of({"age": [40, 8, 70]})
    >>> def day(s):
    ...     with people.plate():
    ...         ill, left = happens("illness", Exposure(s["hazard"], 10.0, at_risk=~s["ill"]))
    ...     return {**s, "ill": s["ill"] | ill}
    >>> state = {"ill": torch.zeros(3, dtype=torch.bool), "hazard": torch.zeros(3, dtype=torch.float64)}
    >>> with DiscreteTime(), ExogenousNoise(seed=0):
    ...     simulate(day, state, torch.tensor(0.0), torch.tensor(1.0))["ill"].tolist()
    [True, True, True]
    """
    if not isinstance(exposure, Exposure):
        raise InputError(
            f"site '{name}': {type(exposure).__name__} was given; give an Exposure(before, hazard, at_risk)"
        )
    exposure.check(name)
    return _happens(name, exposure)


@effectful(type="happens")
def _happens(name: str, exposure: Exposure) -> tuple[Tensor, Tensor | Sparse]:
    event = pyro.sample(name, exposure)
    left = pyro.sample(f"{name}.left", Left(exposure, event))
    note_left(event, left)
    return event, left


@effectful(type="substep")
def _substep(
    name: str, fn: Callable[[State], State], state: State, reads: Sequence[str] | None, writes: Sequence[str] | None
) -> State:
    return {**state, **fn(state)}


def substep(
    name: str,
    fn: Callable[[State], State],
    state: State,
    reads: Sequence[str] | None = None,
    writes: Sequence[str] | None = None,
) -> State:
    """Apply one substep Φ to the state: what `Verified`, attribution and switching-off handle.

    Args:
        name: the substep's name.
        fn: the state to the values it changes, by name.
        state: the state of the society.
        reads: the keys it declares to read, or None where it declares nothing.
        writes: the keys it declares to write, or None.
    Returns:
        the state with the changes in it.

    >>> from lpmppl.effects.handlers import Verified
    >>> from lpmppl.errors import LpmError
    >>> def ageing(s):
    ...     return {"age": s["age"] + s["birthday"]}
    >>> state = {"age": torch.tensor([40, 8]), "birthday": torch.tensor([1, 0])}
    >>> substep("ageing", ageing, state)["age"].tolist()
    [41, 8]
    >>> try:
    ...     with Verified():
    ...         _ = substep("ageing", ageing, state, reads=["age"], writes=["age"])
    ... except LpmError as e:
    ...     print("birthday" in str(e))
    True
    """
    return _substep(name, fn, state, reads, writes)


def decide(name: str, archetypes: Tensor, options: Sequence[str], context: Mapping[str, Any] | None = None) -> Tensor:
    """The probabilities with which each archetype chooses among the options: ℓ of eqs. 4–5 of the LPM paper.

    Args:
        name: the decision's name.
        archetypes: attribute codes of the archetypes, integers of shape (K, attributes), or (K,).
        options: what can be chosen, A names.
        context: what the archetypes observe, by name: numbers, or tensors of shape (…, 1), or (…, K) where archetypes
            observe different things; leading dimensions are worlds, draws and groups. Under `attributes`, the labels
            of each column of `archetypes` in words, by the attribute's name. Under `due`, how many agents of each
            archetype decide now, shape (…, K), or a function that gives it: behaviours may leave the others out. Under
            `groups`, how many dimensions before the last are groups, such as boroughs, and no worlds or draws.
    Returns:
        probabilities of shape (K, A), or (…, K, A) where what is observed has leading dimensions; agents choose with
        their archetype's row (eq. 6).
    Raises:
        LpmError: where no behaviour is in force.

    >>> from lpmppl.effects.handlers import Tabulated
    >>> with Tabulated({"mask": torch.tensor([[0.2, 0.8], [0.6, 0.4]])}):
    ...     decide("mask", torch.arange(2), ["mask", "no mask"])[:, 0]
    tensor([0.2000, 0.6000])
    """
    return _decide(name, archetypes, tuple(options), context or {})


@effectful(type="decide")
def _decide(name: str, archetypes: Tensor, options: Sequence[str], context: Mapping[str, Any]) -> Tensor:
    raise LpmError(
        f"decision '{name}' among {', '.join(options)}: no behaviour is in force; wrap the run in one, such as "
        f"Tabulated({{'{name}': …}})"
    )


def evolve(
    name: str,
    ode: Dynamics,
    state: State,
    times: Tensor,
    solver: Solver[Tensor] | None = None,
    interruptions: Sequence[Messenger] = (),
) -> State:
    """Run an ODE inside a step: ChiRho's `simulate` under `TorchDiffEq`, walled off from the society's own solver.

    Args:
        name: the site's name.
        ode: the state to its time derivatives, by name.
        state: the start, tensors of any one batch shape (…, K), such as one entry per archetype.
        times: strictly increasing times to report, shape (T,), in the ODE's unit; the first is the start.
        solver: the ODE solver; `TorchDiffEq()` by default (dopri5; `method="rk4"` has a forward mode).
        interruptions: ChiRho handlers that act inside the ODE, such as `StaticIntervention` for a treatment.
    Returns:
        the trajectory by name, shape (…, K, T).
    Raises:
        InputError: where times aren't strictly increasing, or fewer than two.
    """
    if times.dim() != 1 or times.shape[0] < 2 or not bool((times[1:] > times[:-1]).all()):
        raise InputError(
            f"evolve '{name}': times must be two or more strictly increasing numbers, but {times.tolist()} was given"
        )
    return _evolve(name, ode, state, times, solver, tuple(interruptions))


@effectful(type="evolve")
def _evolve(
    name: str,
    ode: Dynamics,
    state: State,
    times: Tensor,
    solver: Solver[Tensor] | None,
    interruptions: Sequence[Messenger],
) -> State:
    repair_chirho()
    times = times.cpu()
    with solver_wall(), solver or TorchDiffEq(), inner_wall(), ExitStack() as inside:
        for handler in interruptions:
            inside.enter_context(handler)
        with LogTrajectory(times) as log:
            simulate(ode, dict(state), times[0], times[-1])
    return dict(log.trajectory)
