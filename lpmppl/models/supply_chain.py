"""Firms that supply each other: production, inventories and orders, day by day."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lpmppl.data.industries import UNITED_STATES, Industries
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.ops import aggregate, happens, tally
from lpmppl.errors import InputError, nearest
from lpmppl.models.firms import asked_for, uses
from lpmppl.models.given import shown
from lpmppl.models.model import Model, Parameter
from lpmppl.models.networks import Edges
from lpmppl.models.people import needed
from lpmppl.models.periods import around
from lpmppl.models.population import Population, named
from lpmppl.models.substep import Substep, compose
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["SERVICE_DAYS", "Input", "SupplyChain"]

SERVICE_DAYS = 3.0
"""Days' use that a firm has of what can't be stocked, so that a late delivery does no harm (chosen)."""

_UNIT = 2.0**-16
"""What orders are whole multiples of, in thousand dollars, and fill rates in shares: what is shipped is then exact."""

_STOPPED = 0.5
"""The share of what it is asked for and could make below which a firm without inputs counts as stopped."""


_SMALLEST, _NEAR = 2.0**10 * _UNIT, 1e-6
"""What half of the firms make at least, so that orders aren't rounded away, and how near usual output is to what is
asked for."""

_MEANT = {"buffer": (0.0, 365.0), "restock": (0.5, 365.0), "storage": (0.0, 0.1)}
"""The least and the greatest value of parameters that can be meant: orders and what stocks cost stay in bounds."""

_CODES, _TRADE = ("sector", "region", "seller", "buyer"), ("seller", "buyer")

_LEAST = dict.fromkeys((*_CODES, "usual", "final", "foreign", "caution"), 0.0) | {"plants": 1.0}
"""The least value of each variable of firms."""


@dataclass(frozen=True)
class Input:
    """A product that firms use, with who sells it to whom.

    Args:
        name: the product.
        need: what each firm uses of it for one of output, shape (N,), 0 where it doesn't.
        suppliers: how many suppliers of it each firm has, 1 or more, shape (N,).
        sellers: the network from suppliers to customers, for fill rates.
        buyers: the network from customers to suppliers, for orders.
        essential: whether nothing can be made without it.
        stocked: whether a stock of it can be held for as long as one likes.
        delay: days from shipment to arrival.
    """

    name: str
    need: Tensor
    suppliers: Tensor
    sellers: Edges
    buyers: Edges
    essential: bool
    stocked: bool
    delay: int


class SupplyChain(Model):
    r"""Firms that make to order from stocks of inputs, ration their customers and restock: input–output, day by day.

    Each day a firm f makes the least of what its plants can, what is asked for, and what its essential inputs j allow,

    .. math:: y_f = \min\Big(c_f,\; d_f + \sum_c o_{cf},\; \min_j S_{fj} / a_{jf}\Big), \qquad
        o_{fj} = a_{jf} y_f + (T_{fj} - S_{fj}) / \tau

    and ships to all customers the same share of what they ordered. They order what they used and a part of what their
    stock lacks, evenly from their suppliers of a product. The target T is a number of days of usual use. What was
    ordered and not shipped is not kept: it comes back as the customer's stock falls. Amounts are in thousand dollars at
    usual prices; orders and fill rates are whole multiples of 2⁻¹⁶, so that exactly what is shipped arrives.

    Args:
        firms: the firms, as `lpmppl.models.firms.firms` makes them: `sector`, `usual` and `final`, and over `trade`
            `seller` and `buyer`; where they have them `foreign`, `region`, `plants` and `caution`.
        industries: what industries use of each other's products; what a firm has no supplier of, it doesn't use.
        by: the dimensions of the tallies and the variables they come from, `{"sector": "sector"}` by default.
        port: the region whose importers of goods, which can be stocked, the environment's `port` opens and closes;
            None for those of all regions.
    Raises:
        InputError: for firms without industries or trade, or with others than the table's; whose usual output isn't
            what they are asked for; a region there isn't.
    Source: Hallegatte, Risk Analysis 34 (2014), 152 (inventories); Henriet, Hallegatte and Tabourier, Journal of
        Economic Dynamics and Control 36 (2012), 150 (firms); Inoue and Todo, Nature Sustainability 2 (2019), 841
        (orders by usual use).
    """

    name = "supply_chain"

    def __init__(
        self,
        firms: Population,
        industries: Industries = UNITED_STATES,
        by: Mapping[str, str] | None = None,
        port: str | None = "West",
    ) -> None:
        if not isinstance(industries, Industries):
            raise InputError(f"industries={shown(industries)} was given; give Industries, such as UNITED_STATES")
        if port is not None and not isinstance(port, str):
            raise InputError(f"port={shown(port)} was given; give the name of a region, or None for all regions")
        for name in ("sector", "usual", "final", "seller", "buyer"):
            if name not in needed(firms).dataset:
                raise InputError(f"the firms lack '{name}'; make them with lpmppl.models.firms.firms")
        for name, least in _LEAST.items():
            if name in firms.dataset:
                _check(firms, name, least)
        _check_labels(firms, industries)
        if firms.ranks is not None:
            raise InputError(
                "firms trade along edges, whose sums no rank adds up for the others: run a supply chain on one rank"
            )
        self.population, self.industries, self.variant = firms, industries, industries.name
        self.by = firms.strata(**named(by, {"sector": "sector"}))
        usual, sector = firms["usual"].double(), firms["sector"].long()
        self.foreign = self._of("foreign", 0.0) > 0
        # Services that are bought abroad don't come by ship.
        self.at_port = self.foreign & torch.tensor(industries.stocked, device=sector.device)[sector]
        if port is not None:
            if "region" not in firms.dataset:
                raise InputError(
                    f"port='{port}' was given for firms without a 'region'; say port=None for all importers"
                )
            regions = firms.labels("region")
            if port not in regions:
                raise InputError(nearest("region", port, regions))
            self.at_port &= firms["region"] == regions.index(port)
        self.usual, self.final = usual, firms["final"].double()
        self.plants, self.caution = self._of("plants", 1.0), self._of("caution", 1.0)
        # Who has been short for long orders far more than is usual.
        self.bound = 2.0 ** math.ceil(math.log2(128.0 * max(float(usual.max()), 1.0)))
        self.inputs = self._inputs(sector)
        used = sum((x.need for x in self.inputs), torch.zeros_like(usual))
        self.value_added = torch.where(self.foreign, 0.0, 1.0 - used)
        self.parameters = {
            "buffer": Parameter(around(10.0, 0.4), 10.0, "stock of inputs", "days of usual use", "chosen"),
            "restock": Parameter(
                around(6.0, 0.3), 6.0, "time in which a stock is restored", "days", "after Inoue and Todo (2019)"
            ),
            "slack": Parameter(around(0.15, 0.4), 0.15, "spare capacity", "share of usual output", "chosen"),
            "failure": Parameter(around(0.0005, 0.5), 0.0005, "failures of a plant", "per plant and day", "chosen"),
            "repair": Parameter(around(0.1, 0.3), 0.1, "repairs of a plant", "per day", "chosen: 10 days"),
            "storage": Parameter(
                around(0.0006, 0.3), 0.0006, "price of storage", "share of a stock's value per day",
                "chosen: 22 % a year; 15 to 30 % is usual in textbooks",
            ),
        }  # fmt: skip
        self.environment = {"port": 1.0, "demand": 1.0, "reserve": 0.0}
        self.limits = {"port": (0.0, 1.0), "demand": (0.0, 10.0), "reserve": (0.0, 365.0)}
        self.targets = dict.fromkeys(self.environment, "agent")
        self.outcomes = {"ran_out": lambda s: s["ran_out_at"] < math.inf}
        self.tallies = {
            "lost_output": "output below the usual, of firms at home",
            "lost_value": "value added of output below the usual",
            "output": "output, of firms at home",
            "unserved": "final demand that wasn't met",
            "holding": "what stocks of inputs cost",
            "stopped": "firms that lack an input for half of what they could make, or more",
            "failures": "plants that fail",
            "repairs": "plants that are repaired",
            "down": "firms with a plant that is down",
        }
        amounts = ("lost_output", "lost_value", "output", "unserved", "holding")
        self.units = {n: "thousand dollars" if n in amounts else "firms" for n in self.tallies}
        self.units |= {"failures": "plants", "repairs": "plants"}

    def _of(self, name: str, default: float) -> Tensor:
        """A variable of firms, or the same number for all where they don't have it; float64 of shape (N,)."""
        if name in self.population.dataset:
            return self.population[name].double()
        return torch.full_like(self.population["usual"].double(), default)

    def _inputs(self, sector: Tensor) -> tuple[Input, ...]:
        """What firms use, as far as they have suppliers of it."""
        firms, table = self.population, self.industries
        order = firms.ids.long().argsort()
        sorted_ids = firms.ids.long()[order]
        ends = torch.stack([firms["seller"].long(), firms["buyer"].long()])
        place = torch.searchsorted(sorted_ids, ends).clamp(max=firms.size - 1)
        if not torch.equal(sorted_ids[place], ends):
            raise InputError("trade is with firms that aren't there: seller and buyer must be ids of firms")
        seller, buyer = order[place]
        if bool((seller == buyer).any()):
            raise InputError("a firm is a supplier of its own; leave what it makes for itself out of the trade")
        usual, final, *trade = (x.cpu().numpy() for x in (self.usual, self.final, sector, self.foreign, seller, buyer))
        _check_usual(usual, asked_for(usual, final, uses(table.requirements, *trade), *trade[2:]))
        requirements = torch.tensor(table.requirements, device=firms.device)
        found = []
        for j, label in enumerate(table.labels):
            sold = (sector[seller] == j) & ~self.foreign[buyer] & (requirements[j][sector[buyer]] > 0)
            if not bool(sold.any()):
                continue
            source, target = seller[sold], buyer[sold]
            suppliers = torch.bincount(target, minlength=firms.size)
            found.append(
                Input(
                    label,
                    torch.where(suppliers > 0, requirements[j][sector], 0.0),
                    suppliers.clamp(min=1).double(),
                    Edges(f"from {label}", source, target, firms.size),
                    Edges(f"to {label}", target, source, firms.size, _UNIT, self.bound),
                    bool(table.essential[j]),
                    bool(table.stocked[j]),
                    int(table.delay[j]),
                )
            )  # fmt: skip
        return tuple(found)

    def target(self, x: Input, theta: Theta, reserve: Tensor) -> Tensor:
        """The stock of an input that firms aim for, thousand dollars, shape (…, N)."""
        days = theta["buffer"] * self.caution + reserve if x.stocked else SERVICE_DAYS
        return x.need * self.usual * days

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        for name, (least, most) in _MEANT.items():
            value = theta[name].detach()
            if bool(((value < least) | (value > most)).any()):
                units = self.parameters[name].units
                raise InputError(
                    f"{name}={float(value.reshape(-1)[0]):g} {units} was given; give {least:g} to {most:g}"
                )
        firms = self.population
        zero, one = torch.zeros_like(self.usual), torch.ones(1, device=firms.device)
        state = {
            "down": zero > 0,
            "wear": zero,
            "mending": zero,
            "episode": torch.zeros(firms.size, dtype=torch.int32, device=firms.device),
            "output": self.usual,
            "sold": zero,
            "fill": torch.ones_like(self.usual),
            "ran_out_at": torch.full_like(self.usual, math.inf),
            "port": one,
            "demand": one,
            "reserve": 0.0 * one,
        }
        for x in self.inputs:
            used = x.need * self.usual
            state[f"order/{x.name}"] = _whole(used / x.suppliers)
            state[f"stock/{x.name}"] = self.target(x, theta, state["reserve"]) + zero
            for k in range(x.delay):
                state[f"moving/{x.name}/{k}"] = state[f"order/{x.name}"] * x.suppliers
        return state

    def substeps(self, theta: Theta) -> tuple[Substep, ...]:
        """The parts of a day: plants fail and are repaired; firms make what they can; they ship and order."""
        stocks = tuple(f"stock/{x.name}" for x in self.inputs)
        orders = tuple(f"order/{x.name}" for x in self.inputs)
        moving = tuple(f"moving/{x.name}/{k}" for x in self.inputs for k in range(x.delay))
        first = tuple(f"moving/{x.name}/0" for x in self.inputs)
        plants, made = ("down", "wear", "mending", "episode"), ("output", "sold", "fill", "ran_out_at", *stocks)
        asked = ("down", "port", "demand", "ran_out_at", *stocks, *orders, *first)
        return (
            _substep("facilities", plants, plants, partial(self._facilities, theta)),
            _substep("production", asked, made, partial(self._production, theta)),
            _substep("trade", ("output", "fill", "reserve", *stocks, *orders, *moving), (*orders, *moving),
                     partial(self._trade, theta)),
        )  # fmt: skip

    def day(self, theta: Theta) -> Dynamics:
        step = compose(*self.substeps(theta))

        def day(s: State) -> State:
            if float(s["dt"]) != 1.0:
                raise InputError(f"a supply chain goes by whole days, but steps of {float(s['dt']):g} were asked for")
            return step(s)

        return day

    def _facilities(self, theta: Theta, s: State) -> State:
        """One plant of a firm may be down at a time; the more it has, the sooner one of them fails."""
        failing = Exposure(s["wear"], theta["failure"] * self.plants, ~s["down"], s["episode"], s["dt"])
        mending = Exposure(s["mending"], theta["repair"].double(), s["down"], s["episode"], s["dt"])
        with self.population.plate():
            failed, _ = happens("failure", failing)
            repaired, _ = happens("repair", mending)
        down = (s["down"] | failed) & ~repaired
        tally("failures", failed, by=self.by)
        tally("repairs", repaired, by=self.by)
        tally("down", down, by=self.by, stock=True)
        return {
            "down": down,
            "wear": torch.where(repaired, 0.0, failing.after),
            "mending": torch.where(repaired, 0.0, mending.after),
            "episode": s["episode"] + repaired.int(),
        }

    def _production(self, theta: Theta, s: State) -> State:
        """What was shipped arrives, and firms make the least of what they can, what is asked for and what they have."""
        stock = {x.name: s[f"stock/{x.name}"] + s[f"moving/{x.name}/0"] for x in self.inputs}
        ordered = sum((_received(s[f"order/{x.name}"], x.buyers) for x in self.inputs), torch.zeros_like(self.usual))
        final = self.final * s["demand"].double()
        wanted = ordered + final
        up = torch.where(self.at_port, s["port"].double(), 1.0) * torch.where(s["down"], 1.0 - 1.0 / self.plants, 1.0)
        able = torch.minimum(self.usual * (1.0 + theta["slack"].double()) * up, wanted)
        allowed = torch.full_like(self.usual, math.inf)
        for x in self.inputs:
            if x.essential:
                enough = stock[x.name] / x.need.clamp(min=1e-9)
                allowed = torch.minimum(allowed, torch.where(x.need > 0, enough, math.inf))
        output = torch.minimum(able, allowed)
        # Rounded down, so that nobody ships what it hasn't made; final demand gets the rest.
        share = (output / wanted.clamp(min=1e-30)).clamp(max=1.0)
        fill = share + (torch.floor(share.detach() / _UNIT) * _UNIT - share.detach())
        sold = fill * ordered
        short = (allowed < _STOPPED * able) & (able > 0)
        self._count(theta, output, (final - (output - sold)).clamp(min=0.0), stock)
        tally("stopped", short, by=self.by, stock=True)
        after = {}
        for x in self.inputs:
            have = stock[x.name]
            after[f"stock/{x.name}"] = have - torch.minimum(x.need * output, have)
        first = short & (s["ran_out_at"] == math.inf)
        ran_out_at = torch.where(first, s["t"].double(), s["ran_out_at"])
        return {"output": output, "fill": fill, "sold": sold, "ran_out_at": ran_out_at, **after}

    def _count(self, theta: Theta, output: Tensor, unserved: Tensor, stock: Mapping[str, Tensor]) -> None:
        """The day's amounts, for the world to see."""
        count = partial(tally, by=self.by, quantum=2.0**-10, bound=self.bound)
        less = torch.where(self.foreign, 0.0, (self.usual - output).clamp(min=0.0))
        held = sum((stock[x.name] for x in self.inputs if x.stocked), torch.zeros_like(output))
        count("output", torch.where(self.foreign, 0.0, output))
        count("lost_output", less)
        count("lost_value", self.value_added * less)
        count("unserved", unserved)
        count("holding", theta["storage"].double() * held)

    def _trade(self, theta: Theta, s: State) -> State:
        """Customers get the share of their orders that their suppliers can fill, on average, and order anew."""
        after: dict[str, Tensor] = {}
        for x in self.inputs:
            order, stock = s[f"order/{x.name}"], s[f"stock/{x.name}"]
            for k in range(1, x.delay):
                after[f"moving/{x.name}/{k - 1}"] = s[f"moving/{x.name}/{k}"]
            after[f"moving/{x.name}/{x.delay - 1}"] = order * _received(s["fill"], x.sellers)
            lacking = self.target(x, theta, s["reserve"]) - stock
            wanted = (x.need * s["output"] + lacking / theta["restock"].double()).clamp(min=0.0)
            after[f"order/{x.name}"] = _whole(wanted / x.suppliers)
        return after


def _substep(name: str, reads: tuple[str, ...], writes: tuple[str, ...], change: Callable[[State], State]) -> Substep:
    """A substep of one piece: what it does is its policy."""
    return Substep(name, reads, writes, policy=change, transition=lambda _, changes: changes)


def _whole(x: Tensor) -> Tensor:
    """The nearest multiple of the unit, with the derivative of the value."""
    return x + (torch.round(x.detach() / _UNIT) * _UNIT - x.detach())


def _received(message: Tensor, network: Edges) -> Tensor:
    """The sum of messages that reach each agent, exact: its integers, rather than the field in single precision."""
    total = aggregate(message, network, reduce="sum").total
    assert total is not None
    return total.double() * network.quantum


def _check(firms: Population, name: str, least: float) -> None:
    """Refuse a variable that isn't of each firm, or of each trade, or holds what can't be."""
    values, of = firms[name], "trade" if name in _TRADE else "agent"
    if firms.dataset[name].dims != (of,) or (name in _CODES and values.is_floating_point()):
        raise InputError(
            f"'{name}' of the firms is {values.dtype} over {firms.dataset[name].dims}; give "
            f"{'whole numbers' if name in _CODES else 'a number'} over '{of}'"
        )
    if values.numel() and not bool(((values >= least) & values.isfinite()).all()):
        wrong = values[~((values >= least) & values.isfinite())]
        raise InputError(f"'{name}' of a firm is {float(wrong[0]):g}; give finite numbers, {least:g} or more")


def _check_labels(firms: Population, table: Industries) -> None:
    """Refuse firms of other industries than the table's."""
    codes = firms["sector"]
    if int(codes.max()) >= len(table.labels):
        raise InputError(f"a firm's sector is {int(codes.max())}, but there are {len(table.labels)} industries")
    labels = firms.labels("sector") if "labels" in firms.dataset["sector"].attrs else table.labels
    if list(labels) != list(table.labels):
        other = next(k for k, (a, b) in enumerate(itertools.zip_longest(labels, table.labels)) if a != b)
        mine, its = (f"'{x[other]}'" if other < len(x) else "no such" for x in (labels, table.labels))
        raise InputError(
            f"industry {other} is {mine} for the firms and {its} in {table.name}; give the industries that the firms "
            "were made with"
        )


def _check_usual(usual: np.ndarray, asked: np.ndarray) -> None:
    """Refuse firms whose usual output isn't what they are asked for, or is so small that orders are rounded away."""
    off = np.abs(asked - usual) > _NEAR * np.maximum(usual, asked)
    if off.any():
        k = int(off.argmax())
        raise InputError(
            f"firm {k} usually makes {usual[k]:.4g} thousand dollars a day, and is asked for {asked[k]:.4g} by its "
            "customers and final demand; give the industries and the trade that the firms were made with, or reckon "
            "'usual' anew with lpmppl.models.firms.usual_output"
        )
    middle = float(np.median(usual))
    if 0 < middle < _SMALLEST:
        raise InputError(
            f"half of the firms make {1000 * middle:.2g} dollars a day or less, and orders are multiples of "
            f"{1000 * _UNIT:.2g} dollars; give larger firms, or count in a smaller currency"
        )
