"""Mobility: how much the city goes out, by a small neural network of stringency, admissions and the calendar."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lpmppl.data.recorded import ACTIVITIES, Recorded, shipped
from lpmppl.errors import InputError
from lpmppl.models.part import Part, Setting
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = [
    "ADAPTATION", "PART", "Network", "begin", "calendar_of", "mobility", "part", "policy", "since_2020", "train",
    "trained",
]  # fmt: skip

ADAPTATION = 8.0
"""Weeks over which people adapt to living with an epidemic: chosen."""

HIDDEN = 16

_PEAK = 20.0  # admissions a day per 100,000 residents at the peak of April 2020: one, as a full stringency is


@dataclass(frozen=True, eq=False)
class Network:
    r"""A network with one hidden layer that never lets activity rise with stringency or with admissions.

    .. math::
        \log a_k = -\sum_h |w_{kh}| \big[\varphi(z_h + |u_h| s + |v_h| q) - \varphi(z_h)\big], \qquad
        z_h = b_h + \sum_j c_{hj} x_j, \qquad \varphi(x) = x / \sqrt{1 + x^2}

    with s the stringency index over 100, q = log(1 + a) / log(21) of a admissions a day per 100,000, x the calendar
    (sine and cosine of the year, adaptation) and bars the softplus, which keeps a weight positive. φ grows, so activity
    falls in s and in q at every date, whatever the weights; without either it is 1. Monotone networks by positive
    weights: Sill, Advances in Neural Information Processing Systems 10 (1998).

    Args:
        stringency: u before the softplus, shape (H,).
        admissions: v before the softplus, shape (H,).
        calendar: c, shape (H, 3).
        bias: b, shape (H,).
        out: w before the softplus, shape (3, H), in the order of `ACTIVITIES`.
    Raises:
        InputError: for weights whose shapes don't fit.
    """

    stringency: Tensor
    admissions: Tensor
    calendar: Tensor
    bias: Tensor
    out: Tensor

    def __post_init__(self) -> None:
        h = self.bias.shape[-1] if self.bias.ndim else 0
        want = {"stringency": (h,), "admissions": (h,), "calendar": (h, 3), "bias": (h,), "out": (len(ACTIVITIES), h)}
        for name, shape in want.items():
            if tuple(getattr(self, name).shape) != shape:
                raise InputError(
                    f"the network's weights '{name}' have shape {tuple(getattr(self, name).shape)}; with {h} hidden "
                    f"units it must be {shape}"
                )

    def rest(self, calendar: Tensor) -> Tensor:
        """The hidden layer's input at stringency 0 and no admissions, shape (…, H), of a calendar, shape (…, 3)."""
        return self.bias + (calendar.unsqueeze(-2) * self.calendar).sum(-1)

    def log_activity(self, stringency: Tensor, admissions: Tensor, rest: Tensor) -> Tensor:
        """The logarithm of the activity of each place, relative to before the epidemic.

        Args:
            stringency: the index, 0 to 100, shape (…, 1).
            admissions: admissions a day per 100,000 residents, shape (…, 1).
            rest: what `rest` gives for the day, shape (…, H).

        Returns:
            Natural logarithms, shape (…, 3), in the order of `ACTIVITIES`.
        """
        s = stringency.to(self.bias.dtype).clamp(0.0, 100.0) / 100.0
        q = admissions.to(self.bias.dtype).log1p() / math.log1p(_PEAK)
        push = softplus(self.stringency) * s + softplus(self.admissions) * q
        rise = _squash(rest + push) - _squash(rest)
        # Sums over products rather than matrix products: a world gets the same bits alone and beside others.
        return -(rise.unsqueeze(-2) * softplus(self.out)).sum(-1)

    def on(self, recorded: Recorded, stringency: float = 1.0, admissions: float = 1.0) -> Tensor:
        """The logarithm of the activity that the network expects on each recorded day.

        Args:
            recorded: what was recorded.
            stringency: a factor on the stringency recorded.
            admissions: a factor on the admissions recorded.

        Returns:
            Natural logarithms, shape (T, 3), in the order of `ACTIVITIES`.
        """
        s, a, calendar = _inputs(recorded, self.bias)
        return self.log_activity(s * stringency, a * admissions, self.rest(calendar))

    def to(self, device: torch.device | str) -> Network:
        """The same network with its weights on a device."""
        return Network(**{name: weights.to(device) for name, weights in self.weights().items()})

    def weights(self) -> dict[str, Tensor]:
        """The weights by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def save(self, path: str | Path) -> None:
        """Write the weights as JSON, to seven digits."""
        lists = {name: torch.round(w.detach().cpu(), decimals=7).tolist() for name, w in self.weights().items()}
        lines = ",\n".join(f'"{name}": {json.dumps(values)}' for name, values in lists.items())
        Path(path).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")

    @classmethod
    def open(cls, path: str | Path) -> Network:
        """Read weights that `save` wrote; InputError for a file that isn't there or holds something else."""
        if not Path(path).is_file():
            raise InputError(f"network '{path}' is not there; give the path of a JSON file of weights")
        try:
            return cls.of(Path(path).read_text(encoding="utf-8"))
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"'{path}' holds no weights of a mobility network ({error})") from error

    @classmethod
    def of(cls, text: str) -> Network:
        """The network of a JSON text of weights."""
        return cls(**{name: torch.tensor(w, dtype=torch.float64) for name, w in json.loads(text).items()})


@lru_cache(maxsize=1)
def trained() -> Network:
    """The network that the package ships: New York in 2020, made by examples/train_mobility.py."""
    return Network.of(files("lpmppl.data").joinpath("tables", "mobility_network.json").read_text(encoding="utf-8"))


def _squash(x: Tensor) -> Tensor:
    return x / torch.sqrt(1.0 + x * x)


def calendar_of(day: np.ndarray, outset: float) -> np.ndarray:
    """Sine and cosine of the year, and adaptation since the outset, shape (…, 3); days count from 1 January 2020."""
    year = 2.0 * np.pi * day / 365.25
    weeks = np.maximum(day - outset, 0.0) / 7.0
    return np.stack([np.sin(year), np.cos(year), -np.expm1(-weeks / ADAPTATION)], axis=-1)


def since_2020(date: np.ndarray | np.datetime64) -> np.ndarray:
    """The days from 1 January 2020 to a date."""
    return (date - np.datetime64("2020-01-01")).astype(float)


def _inputs(recorded: Recorded, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    calendar = calendar_of(since_2020(recorded.days), float(since_2020(recorded.outset)))
    columns = recorded.stringency[:, None], recorded.smoothed()[:, None], calendar
    stringency, admissions, when = (torch.as_tensor(c, dtype=like.dtype, device=like.device) for c in columns)
    return stringency, admissions, when


def _row(setting: Setting, recorded: Recorded, day: int) -> int:
    """Where a day is in a table of the recorded days with one row before and one after them."""
    return min(max(day - setting.day(str(recorded.days[0])) + 1, 0), len(recorded.days) + 1)


def _day(s: State) -> int:
    return math.floor(float(s["t"]) + 1e-6)


def policy(setting: Setting, recorded: Recorded) -> Callable[[State], Tensor]:
    """What gives the stringency in force, 0 to 100, float64 of shape (…, 1): as set, or else as recorded.

    Outside the recorded days it is the last recorded before, or 0.
    """
    # One row before the record and one after it: the nearest stringency before.
    table = np.concatenate(([0.0], recorded.stringency, recorded.stringency[-1:]))
    as_recorded = torch.as_tensor(table, dtype=torch.float64, device=setting.people.device).unsqueeze(-1)

    def of(s: State) -> Tensor:
        own = s["stringency"].double()
        return torch.where(own >= 0, own.clamp(max=100.0), as_recorded[_row(setting, recorded, _day(s))])

    return of


def mobility(
    setting: Setting,
    theta: Theta,
    recorded: Recorded | None = None,
    network: Network | None = None,
    decided: Collection[str] = (),
) -> Substep:
    r"""The substep in which the city's activity follows stringency, admissions and the calendar.

    .. math:: a_k(t) = f_k(s, q, t)\, e^{r_k(t)}, \qquad r_k(t) = \log \hat a_k(t) - \log f_k(\hat s(t), \hat q(t), t)

    with f the network, s the stringency, q the simulated admissions and hats on what was recorded: under the recorded
    inputs the record comes back, and another policy or another course of the epidemic moves it by what the network
    expects. Outside the recorded days r is 0 and "as recorded" is the last stringency before, or 0.

    The state key `stringency` is −1 for "as recorded", as is anything else below 0; more than 100 counts as 100.

    Args:
        setting: where and when the model plays.
        theta: nothing of it is used.
        recorded: what was recorded; New York in 2020 by default.
        network: what activity is expected; the one trained on New York in 2020 by default.
        decided: the places that are left to people's own decisions.
    """
    recorded = shipped() if recorded is None else recorded
    network = (trained() if network is None else network).to(setting.people.device)
    outset, origin = float(since_2020(recorded.outset)), float(since_2020(np.datetime64(setting.start)))
    like, in_force = network.bias, policy(setting, recorded)
    # One row before the record and one after it: no residual.
    off = torch.as_tensor(recorded.table, dtype=like.dtype, device=like.device).log() - network.on(recorded)
    residual = torch.cat((torch.zeros_like(off[:1]), off, torch.zeros_like(off[:1])))

    def go_out(s: State) -> Tensor:
        day = _day(s)
        calendar = calendar_of(np.asarray(origin + day), outset)
        rest = network.rest(torch.as_tensor(calendar, dtype=like.dtype, device=like.device))
        expected = network.log_activity(in_force(s), s["admissions/week"], rest)
        return (expected + residual[_row(setting, recorded, day)]).exp()

    def change(_: State, activity: Tensor) -> State:
        return {
            f"mobility/{name}": activity[..., k : k + 1].float()
            for k, name in enumerate(ACTIVITIES)
            if name not in decided
        }

    return Substep(
        "mobility",
        reads=("admissions/week", "stringency"),
        writes=tuple(f"mobility/{name}" for name in ACTIVITIES if name not in decided),
        policy=go_out,
        transition=change,
        scale="city",
    )


def begin(
    setting: Setting, theta: Theta, t0: float, recorded: Recorded | None = None, decided: Collection[str] = ()
) -> State:
    """The activity recorded on day `t0`, or 1 outside the record; each of shape (1,)."""
    recorded = shipped() if recorded is None else recorded
    row = math.floor(t0) - setting.day(str(recorded.days[0]))
    inside = 0 <= row < len(recorded.days)
    return {
        f"mobility/{name}": torch.full((1,), float(series[row]) if inside else 1.0, device=setting.people.device)
        for name, series in recorded.activity.items()
        if name not in decided
    }


def part(recorded: Recorded | None = None, network: Network | None = None, decided: Collection[str] = ()) -> Part:
    """The part of a model in which mobility follows a record and a network; New York's by default.

    Args:
        recorded: what was recorded.
        network: what activity is expected.
        decided: the places, of `ACTIVITIES`, that are left to people's own decisions.
    """
    return Part(
        "mobility",
        partial(mobility, recorded=recorded, network=network, decided=decided),
        partial(begin, recorded=recorded, decided=decided),
        environment={"stringency": -1.0},
        limits={"stringency": (0.0, 100.0)},
    )


PART = part()


def train(
    recorded: Recorded,
    seed: int = 0,
    epochs: int = 3000,
    only: np.ndarray | None = None,
    decay: float = 3e-3,
) -> Network:
    """Fit a network to a record by least squares on the logarithm of activity, with Adam and a penalty on the weights.

    Args:
        recorded: what was recorded.
        seed: the seed of the initial weights.
        epochs: passes over the record.
        only: which days to learn from, Boolean, shape (T,); all by default.
        decay: the penalty on the mean square of the weights: chosen.

    Returns:
        The network, in double precision.
    """
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape: int, around: float = 0.0, spread: float = 0.5) -> Tensor:
        return (around + spread * torch.randn(shape, generator=chance, dtype=torch.float64)).requires_grad_()

    h = HIDDEN
    network = Network(normal(h), normal(h), normal(h, 3), normal(h, spread=1.0), normal(3, h, around=-2.0))
    stringency, admissions, calendar = _inputs(recorded, network.bias)
    target = torch.as_tensor(recorded.table).log()
    days = torch.as_tensor(np.arange(len(recorded.days)) if only is None else np.flatnonzero(only))
    weights = list(network.weights().values())
    optimiser = torch.optim.Adam(weights, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        optimiser.zero_grad()
        guess = network.log_activity(stringency[days], admissions[days], network.rest(calendar[days]))
        size = network.calendar.square().sum() + sum(
            softplus(w).square().sum() for w in (network.stringency, network.admissions, network.out)
        )
        loss = (guess - target[days]).square().mean() + decay * size / h
        loss.backward()
        optimiser.step()
        schedule.step()
    return Network(**{name: w.detach() for name, w in network.weights().items()})
