"""What the parameters and the equation of SEIRM mean: each said a second time, of what a step left in the state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lpmppl.effects.cohorts import dense
from lpmppl.effects.ops import aggregate
from lpmppl.models.contacts import SUSCEPTIBILITY, Layer
from lpmppl.models.model import Meant
from lpmppl.models.periods import lognormal
from lpmppl.models.population import Population
from lpmppl.models.seen import Counted, among, drawn, with_total
from lpmppl.typing import State, Theta

__all__ = ["deaths", "delay", "force", "period", "shedding", "unread"]


def shedding(before: State, after: State, stage: int) -> Tensor:
    """The fraction of the step in which everybody is in a stage that one enters and leaves when one is due."""
    was, now = before["stage"] == stage, after["stage"] == stage
    t, dt, at = before["t"], before["dt"], before["due"]
    share = torch.where(was & now, 1.0, torch.where(was, (at - t) / dt, (t + dt - at) / dt))
    return torch.where(was | now, share.clamp(0.0, 1.0), 0.0)


def unread(before: State, after: State, stage: int) -> Tensor:
    """Who came into a stage in the step after the infection: when in the step, the state no longer says."""
    return (after["stage"] == stage) & (before["stage"] != stage) & before["due"].isinf()


def force(
    people: Population, layers: Sequence[Layer], stage: int, theta: Theta, b: State, a: State, _: Counted
) -> Meant:
    """Equation 8 summed over the layers, of everybody at risk: the hazard that accrued, per day."""
    sheds, unknown = shedding(b, a, stage), unread(b, a, stage)
    met = torch.zeros(people.size)
    for layer in layers:
        contacts = torch.as_tensor(layer.contacts, dtype=torch.float32)
        each = contacts if contacts.numel() == 1 else contacts[layer.network.index.long()]  # type: ignore[attr-defined]
        met = met + torch.as_tensor(dense(aggregate(sheds, layer.network))) * each
        met = torch.where(torch.as_tensor(dense(aggregate(unknown, layer.network))) > 0, torch.nan, met)
    hazard = met * theta["beta"] * a["transmission"] * torch.tensor(SUSCEPTIBILITY)[people["age_band"].long()]
    # Where it isn't known who sheds nothing is expected.
    risk = b["susceptible"] & ~hazard.isnan()
    return Meant(*with_total((a["exposure"] - b["exposure"])[risk] / b["dt"], hazard[risk]), near=2e-4)


def _and_moments(chance: Meant, counted: Counted, site: str, law: torch.distributions.Distribution) -> Meant:
    """What is meant by chance, and what the site is drawn from, which must be so: of everybody's first infection."""
    meant = {"mean": law.mean, "variance": law.variance, "episode": torch.zeros(())}
    meant = {m: x for m, x in meant.items() if f"{site}: {m}" in counted}
    moments = [counted[f"{site}: {m}"].double().flatten() for m in meant]
    exactly = [x.double().expand_as(y) for x, y in zip(meant.values(), moments, strict=True)]
    variance = torch.as_tensor(chance.variance).double().expand_as(chance.seen)
    return Meant(
        torch.cat((chance.seen.double(), *moments)),
        torch.cat((chance.expected.double(), *exactly)),
        torch.cat((variance, *(torch.zeros_like(x) for x in moments))),
    )


def period(name: str, was: int, now: int, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    """A stage's length where it lies in its log-normal: uniform, but for those that last one step at least."""
    site = f"{name}_period"
    law = lognormal(theta[f"{name}_mean"], theta[f"{name}_spread"])
    if was == 0:
        # Who is in the next stage already waited for less than two steps: half wait for longer than the median.
        new = b["infected"]
        longer = (a["stage"] == now) & (a["due"] - b["infected_at"] > law.icdf(torch.tensor(0.5).double()))
        half = torch.where(law.cdf(2 * b["dt"].double()) > 0.5, torch.nan, 0.5)
        return _and_moments(Meant(longer[new].double(), half.expand(int(new.sum())), 0.25), counted, site, law)
    who = (b["stage"] == was) & (a["stage"] == now)
    u = law.cdf((a["due"] - b["due"])[who].double().clamp(min=1e-6))
    return _and_moments(Meant(u, (0.5 + law.cdf(b["dt"].double()) ** 2 / 2).expand_as(u), 1 / 12), counted, site, law)


def deaths(
    people: Population,
    risks: Sequence[float],
    stages: tuple[int, int],
    theta: Theta,
    b: State,
    a: State,
    counted: Counted,
) -> Meant:
    """Of those whose infection ends, and of nobody else, it is drawn whether they will die of it, by age."""
    infectious, dying = stages
    ends = (b["stage"] == infectious) & (a["stage"] != infectious)
    p = (torch.tensor(risks)[people["age_band"].long()] * theta["fatality"]).clamp(max=1.0).double()
    places, mean = drawn(people, counted, "fatal")
    there = among(people, places)
    episode = drawn(people, counted, "fatal", "episode")[1]
    seen = torch.cat(((a["stage"][ends] == dying).double(), there, mean, episode))
    variance = torch.cat(((p * (1 - p) + 1e-9)[ends], torch.zeros(len(there) + 2 * len(mean))))
    return Meant(seen, torch.cat((p[ends], ends.double(), p[places], episode * 0)), variance, near=1e-7)


def delay(law: Sequence[float], stages: tuple[int, int], _: Theta, b: State, a: State, counted: Counted) -> Meant:
    """The time from the end of the infection to death, where it lies in its log-normal."""
    infectious, dying = stages
    who = (b["stage"] == infectious) & (a["stage"] == dying)
    published = lognormal(*torch.tensor(law))
    u = published.cdf((a["due"] - b["due"])[who].double().clamp(min=1e-6))
    return _and_moments(Meant(u, torch.full_like(u, 0.5), 1 / 12), counted, "death_delay", published)
