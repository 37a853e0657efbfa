"""Abduction: the resistances that a conditioned run's events imply, to replay it in other worlds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger, handler_stack
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.handlers.held import place_of
from lpmppl.effects.handlers.noise import ExogenousNoise
from lpmppl.effects.internals.streams import stream, uniform
from lpmppl.errors import InputError, LpmError

__all__ = ["Abduct", "Abducted"]

_OWN = "by noise"
"""The key of a message that says whether the noise itself answered it."""


@dataclass
class _Known:
    """What is known of a site's resistances, by episode, float64 of shape (n,).

    `exact` is that of those to whom the event happened and NaN for the others, who withstood `beyond` without it.
    """

    ids: Tensor
    exact: dict[int, Tensor] = field(default_factory=dict)
    beyond: dict[int, Tensor] = field(default_factory=dict)

    def of(self, episode: int) -> tuple[Tensor, Tensor]:
        if episode not in self.exact:
            nothing = torch.zeros(self.ids.shape, dtype=torch.float64, device=self.ids.device)
            self.exact[episode], self.beyond[episode] = nothing / 0, nothing
        return self.exact[episode], self.beyond[episode]

    def given(self, fresh: Tensor, episode: Tensor | int) -> Tensor:
        """Everybody's resistance given what is known, from fresh ones of any shape (…, n)."""
        now = fresh.double()
        for number in self.exact:
            exact, beyond = self.of(number)
            known = torch.where(exact.isnan(), fresh + beyond, exact)
            if isinstance(episode, Tensor):
                now = torch.where(episode == number, known, now)
            elif episode == number:
                now = known
        return now


class Abducted(ExogenousNoise):
    r"""Exogenous noise as it must have been in a run that was conditioned, told by `Abduct` in the first of two passes.

    At the sites that were conditioned the resistance of whoever had the event lies in the step that it had it in,
    :math:`R \in (\Lambda, \Lambda']` with density :math:`\propto e^{-R}`, and that of the others is what they had
    withstood and a fresh one, :math:`R = \Lambda(T) + \mathrm{Exp}(1)`, in each of their episodes. Everything else is
    the noise of the same seed and draw, which the conditioned run had too. So a replay without a policy is that run, to
    the bit, and goes on after it; worlds with one share its chance.

    Args:
        seed: the seed of the noise, as in the run that was conditioned.
        draw: which draw of the noise, a number.
    Raises:
        InputError: for several draws.
        LpmError: where a site that was conditioned is asked about other agents.

    >>> import lpmppl as lpm
    >>> from lpmppl.effects.handlers import Abduct, Abducted, DiscreteTime, Guided, Record
    >>> from lpmppl.effects.ops import simulate
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> theta = {name: torch.tensor(p.default) for name, p in model.parameters.items()}
    >>> theta["initial_infected"] = torch.tensor(0.05)
    >>> noise, record = Abducted(seed=0), Record()
    >>> def spring():
    ...     return simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(3.0))
    >>> with DiscreteTime(), noise, Guided({"infection": [2, 0, 5]}), Abduct(noise):
    ...     end = spring()
    >>> with record, DiscreteTime(), noise:
    ...     again = spring()
    >>> record.series["infections"].values.reshape(3, -1).sum(-1).tolist()
    [2, 0, 5]
    >>> torch.equal(end["susceptible"], again["susceptible"])
    True
    """

    def __init__(self, seed: int, draw: int | Tensor = 0, hide: bool = True) -> None:
        if not isinstance(draw, int):
            raise InputError(f"the draw {draw!r} was given; give one number: one run at a time is abducted")
        super().__init__(seed, draw, hide)
        self.known: dict[str, _Known] = {}

    def _pyro_sample(self, msg: Message) -> None:
        given = msg["done"] or msg["value"] is not None
        super()._pyro_sample(msg)
        msg[_OWN] = not given

    def _met(self, site: str, ids: Tensor, episode: Tensor | int, infer: Message) -> Tensor:
        fresh = super()._met(site, ids, episode, infer)
        known = self.known.get(site)
        if known is None:
            return fresh
        if infer.get("rows") is not None or not (known.ids is ids or torch.equal(known.ids, ids)):
            raise LpmError(
                f"site '{site}' was abducted for {len(known.ids)} agents, and is asked about others: replay the model "
                "that was conditioned"
            )
        return known.given(fresh, episode)


class Abduct(Messenger):
    """Watch a run that is conditioned, and tell `noise` what the resistances behind its events must have been.

    Every hazard event that doesn't come from the noise is watched. It goes inside what conditions the run, `Guided` or
    Pyro's `condition` on agents, which goes inside `noise`.

    Args:
        noise: the noise that the run is under, one for each run.
    Raises:
        InputError: for another noise.
        LpmError: where the run isn't under `noise`, nothing was conditioned inside it, a site has several worlds or
            draws, or is conditioned again after steps that were left to the noise; where a hazard is too small beside
            what came before for the precision that the state keeps it in.
    """

    reads_sparse = True

    def __init__(self, noise: Abducted) -> None:
        super().__init__()
        if not isinstance(noise, Abducted):
            raise InputError(f"{type(noise).__name__} was given; run under Abducted(seed, draw), and give that")
        self.noise, self._left = noise, set[str]()

    def __enter__(self) -> Abduct:
        if self.noise.known:
            raise LpmError("this noise knows another run already: make a new Abducted for each")
        return super().__enter__()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Any:
        done = super().__exit__(kind, error, trace)
        if kind is None and not self.noise.known:
            raise LpmError(
                "Abduct saw no hazard event that was conditioned: put what conditions them, such as Guided, inside "
                "Abducted, and Abduct inside that"
            )
        return done

    def _pyro_sample(self, msg: Message) -> None:
        if isinstance(msg["fn"], Exposure):
            if self.noise not in handler_stack():
                raise LpmError("Abduct was given a noise that the run isn't under: put the run inside it")
            # Worked out as the replay does, before anyone takes another way to it: an event is by a hair's breadth.
            _ = msg["fn"].after

    def _pyro_post_sample(self, msg: Message) -> None:
        exposure, infer = msg["fn"], msg["infer"] or {}
        if not isinstance(exposure, Exposure):
            return
        site, step = place_of(infer, msg["name"])
        if msg.get(_OWN):
            self._left.add(site)
            return
        if site in self._left:
            raise LpmError(f"site '{site}' is conditioned in step {step}, after steps that weren't: give those first")
        ids, event = infer["agents"], msg["value"]
        if event.numel() != len(ids) or infer.get("rows") is not None:
            raise LpmError(
                f"site '{site}' has shape {tuple(event.shape)} for {len(ids)} agents: one world of one draw is abducted"
            )
        known = self.noise.known.setdefault(site, _Known(ids))
        before, after = (x.expand(event.shape).reshape(-1) for x in (exposure.before, exposure.after))
        who = event.reshape(-1).bool().nonzero().reshape(-1)
        if not bool((after[who] > before[who]).all()):
            raise LpmError(
                f"site '{site}' in step {step}: an event happened by a hazard that is lost beside {before.max():g} in "
                f"{before.dtype}, or by none; keep the cumulative hazard in float64"
            )
        chance = uniform(ids[who], stream(self.noise.seed, f"{site}/abducted"), self.noise.draw, step)
        resistance = _within(before[who], after[who], chance)
        for number, here in _episodes(exposure.episode, len(ids)):
            exact, beyond = known.of(number)
            beyond[here] = after[here].double()
            at = here[who]
            exact[who[at]] = torch.where(exact[who[at]].isnan(), resistance[at], exact[who[at]])


def _within(before: Tensor, after: Tensor, u: Tensor) -> Tensor:
    """A resistance in (before, after], as an exponential's is given that it lies there."""
    h = (after - before).double()
    found = after.double() - Left.quantile(h, u) * h
    return torch.minimum(torch.maximum(found, before.double()), torch.nextafter(after, before).double())


def _episodes(episode: Tensor | int, n: int) -> list[tuple[int, Tensor]]:
    """Each episode's number, and a mask of who is in it."""
    each = torch.as_tensor(episode)
    each = each.expand(*each.shape[:-1], n).reshape(-1)
    return [(int(number), each == number) for number in each.unique().tolist()]
