"""Agents' chance as exogenous noise: a function of seed, draw, site, step, agent and episode, alike in all worlds."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution, TorchDistributionMixin
from torch import Tensor

from lpmppl._compat import Message, Messenger, handler_stack
from lpmppl.effects.adjoints import accrued, left_on_tape
from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.internals.segments import BLOCK, bare, blocked, differentiated, differing, empty
from lpmppl.effects.internals.streams import exponential, stream, uniform
from lpmppl.effects.tape import on_tape, plain
from lpmppl.errors import InputError

__all__ = ["ExogenousNoise", "base_of", "quantile"]


class _Present(NamedTuple):
    """The resistances of a population's present episodes at one site."""

    ids: Tensor
    episode: Tensor
    version: int
    resistance: Tensor


class ExogenousNoise(Messenger):
    """Give agents' sites their values by exogenous noise: worlds, shards and parties share every person's chance.

    Each agent has one Exp(1) resistance per hazard site and episode, and meets every world with it; other sites are
    the inverse CDF of a counter-based uniform. Sites outside an agents' plate, structural parameters, are left alone.

    Args:
        seed: the seed of the noise.
        draw: which draw of the noise this is, a number, or integers of shape (D, 1) with draws on dimension −2.
        hide: keep agents' sites from the handlers outside, so that traces hold no agent-level noise.
    Raises:
        InputError: at a site whose distribution has no inverse CDF, or a hazard site outside the agents' plate.
    """

    def __init__(self, seed: int, draw: int | Tensor = 0, hide: bool = True) -> None:
        super().__init__()
        self.seed, self.draw, self.hide = seed, draw, hide
        self._first: dict[str, tuple[Tensor, Tensor]] = {}
        self._present: dict[str, _Present] = {}

    def resistance(self, site: str, ids: Tensor, episode: Tensor | int = 0, draw: Tensor | int | None = None) -> Tensor:
        """The agents' Exp(1) resistance to a hazard site, float32 of shape (n,), (D, n) or that of `episode`.

        `draw` is the handler's own by default; integers of shape (n,) give each agent one.
        """
        key, draw = stream(self.seed, site), self.draw if draw is None else draw
        if not isinstance(episode, Tensor):
            return exponential(ids, key, draw, episode)
        return self._later(self.resistance(site, ids, 0, draw), key, ids, episode, draw)

    def _later(self, first: Tensor, key: int, ids: Tensor, episode: Tensor, draw: Tensor | int) -> Tensor:
        """The resistances of everybody's present episode, from those of the first: only later ones are drawn."""
        again = Cohort.of(episode, ids, above=0)
        if not len(again):
            return first
        if isinstance(draw, Tensor):
            return torch.where(episode > 0, exponential(ids, key, draw, episode), first)
        return again.write(first, exponential(ids[again.agent], key, draw, again.read(episode)))

    def _met(self, site: str, ids: Tensor, episode: Tensor | int, infer: Message) -> Tensor:
        """The resistance that a site's exposure meets.

        The population's first is kept, since every step asks for it, and that of a step's episodes, for the time left.
        """
        if infer.get("rows") is not None:
            return self.resistance(site, ids, episode, self._draw(infer))
        if isinstance(episode, Tensor):
            return self._now(site, ids, episode)
        if episode:
            return self.resistance(site, ids, episode)
        kept = self._first.get(site)
        if kept is None or kept[0] is not ids:
            kept = self._first[site] = ids, self.resistance(site, ids)
        return kept[1]

    def _now(self, site: str, ids: Tensor, episode: Tensor) -> Tensor:
        """Everybody's present resistance, from the last one asked for: few begin an episode in a step."""
        if differentiated(episode):
            raise InputError(
                f"site '{site}': its episodes carry a derivative, which an estimator gave that takes events for "
                "fractions; ask for estimator='differences' or 'flips'"
            )
        last = self._present.get(site)
        if last is None or last.ids is not ids or last.version != last.episode._version:
            begun = None
        elif last.episode is episode:
            return last.resistance
        else:
            begun = differing(last.episode, episode) if last.resistance.shape == episode.shape else None
        if last is None or begun is None:
            now = self.resistance(site, ids, episode)
        else:
            new = Cohort(begun, episode.shape, ids)
            draw = new.read(self.draw) if isinstance(self.draw, Tensor) else self.draw
            now = exponential(ids[new.agent], stream(self.seed, site), draw, new.read(episode))
            now = new.write(last.resistance, now)
        self._present[site] = _Present(ids, episode, episode._version, now)
        return now

    def _draw(self, infer: Message) -> Tensor | int:
        """The draw of a site's agents: where they are some of several draws, each has its own."""
        rows = infer.get("rows")
        return rows(self.draw) if rows is not None and isinstance(self.draw, Tensor) else self.draw

    def _pyro_sample(self, msg: Message) -> None:
        fn, infer = msg["fn"], msg["infer"] or {}
        ids = infer.get("agents")
        if msg["done"] or msg["value"] is not None:
            return
        if isinstance(fn, torch.distributions.Distribution) and not isinstance(fn, TorchDistributionMixin):
            kind = type(fn).__name__
            raise InputError(
                f"site '{msg['name']}': {kind} is torch's own, which is no law of a site; take dist.{kind} of "
                "pyro.distributions"
            )
        if ids is None:
            if isinstance(fn, Exposure | Left):
                raise InputError(
                    f"site '{msg['name']}' is driven by a hazard but stands outside the agents' plate; sample it in "
                    "`with population.plate():`"
                )
            if "step" in infer and isinstance(fn, TorchDistributionMixin):
                # Chance of the environment: as much a function of its key as the agents' is, but nobody's secret.
                ids = torch.arange(fn.batch_shape[-1] if fn.batch_shape else 1, device=_device(base_of(fn)))
                u = self._uniform(f"{infer['site']}/environment", ids, infer)
                msg["value"] = quantile(msg["name"], fn, u if fn.batch_shape else u.reshape(u.shape[:-1]))
                msg["done"] = True
            return
        site = str(infer.get("site", msg["name"]))
        if isinstance(fn, Exposure):
            msg["value"] = fn.meet(self._met(site, ids, fn.episode, infer))
        elif isinstance(fn, Left):
            msg["value"] = self._left(site, ids, fn, infer)
        elif isinstance(fn, dist.Delta):
            return
        else:
            msg["value"] = self._in_blocks(fn, site, ids, infer)
            if msg["value"] is None:
                msg["value"] = _drawn(msg["name"], fn, self._uniform(site, ids, infer))
        msg["done"] = True
        msg["stop"] = self.hide

    def _in_blocks(self, fn: dist.TorchDistribution, site: str, ids: Tensor, infer: Message) -> Tensor | None:
        """A whole population's uniform or yes-or-no site, without an array of everybody's uniforms; None for others."""
        fn, episode = base_of(fn), infer.get("episode")
        if (
            not isinstance(fn, dist.Uniform | dist.Bernoulli)
            or isinstance(self.draw, Tensor)
            or isinstance(episode, Tensor)
        ):
            return None
        parts = (fn.probs,) if isinstance(fn, dist.Bernoulli) else (fn.low, fn.high)
        n = ids.shape[0]
        if n <= BLOCK or any(p.dim() > 1 or differentiated(p) or not bare(p) for p in parts):
            return None
        key, more = self._key(site, infer)
        out = empty(ids.shape, parts[0].dtype, ids.device)
        each = [p.expand(n) if p.dim() else p for p in parts]

        def draw(block: slice) -> None:
            u = uniform(ids[block], key, *more)
            here = [p[block] if p.dim() else p for p in each]
            if len(here) == 1:
                out[block].copy_(u < here[0])
            else:
                out[block].copy_(u * (here[1] - here[0]) + here[0])

        blocked(n, lambda: draw, device=ids.device)
        return out

    def _uniform(self, site: str, ids: Tensor, infer: Message) -> Tensor:
        key, more = self._key(site, infer)
        return uniform(ids, key, *more)

    def _key(self, site: str, infer: Message) -> tuple[int, tuple[Tensor | int, Tensor | int]]:
        """What a site's chance is keyed by, besides the agents: its stream, and draw with step or episode."""
        episode = infer.get("episode")
        if episode is None:
            return stream(self.seed, site), (self._draw(infer), infer.get("step", 0))
        return stream(self.seed, f"{site}/episode"), (self._draw(infer), episode)

    def _left(self, site: str, ids: Tensor, fn: Left, infer: Message) -> Tensor:
        happened, episode = Cohort.of(fn.event, ids), fn.exposure.episode
        resistance = self._met(site.removesuffix(".left"), ids, episode, infer)
        tape = accrued(fn.after, happened)
        before, after = (happened.read(plain(x) if tape else x) for x in (fn.before, fn.after))
        r, h = happened.read(resistance), after - before
        met = torch.where(h > 0, h, 1.0)
        left = (after - r) / met
        if tape:
            left = left_on_tape(fn.after, happened, left, met)
        # An event that data forced has no resistance in this step: its time within the step is drawn.
        forced = ~((after > r) & (before <= r))
        if bool(forced.any()):
            draw = self._draw(infer)
            keys = (happened.read(k) if isinstance(k, Tensor) else k for k in (draw, infer.get("step", 0), episode))
            chance = uniform(ids[happened.agent], stream(self.seed, site), *keys)
            left = torch.where(forced, Left.quantile(h.detach(), chance), left)
        sparse = happened.carrying(left.float())
        return sparse if self.hide and not self._watched() else sparse.dense()  # type: ignore[return-value]

    def _watched(self) -> bool:
        """Say whether a handler inside looks at sampled values, and so needs them to be tensors."""
        stack = handler_stack()
        inside = stack[stack.index(self) + 1 :]
        return any(hasattr(h, "_pyro_post_sample") and not getattr(h, "reads_sparse", False) for h in inside)


def _drawn(name: str, fn: dist.TorchDistribution, u: Tensor) -> Tensor:
    """Do as `quantile`; a log-normal's derivative on the tape is worked out again on the way back, not kept."""
    law = base_of(fn)
    if isinstance(law, dist.LogNormal) and on_tape(law.loc, law.scale):
        return _LogNormal.apply(law.loc, law.scale, u, name)
    return quantile(name, fn, u)


class _LogNormal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loc: Tensor, scale: Tensor, u: Tensor, name: str) -> Tensor:
        value = quantile(name, dist.LogNormal(loc, scale), u)
        ctx.save_for_backward(loc, scale, value)
        return value

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Any:
        loc, scale, value = ctx.saved_tensors
        # Of exp(loc + scale z), whose z is found again from the value, which others keep as well.
        by_loc = adjoint * value
        by_scale = by_loc * ((value.log() - loc) / scale)
        return by_loc.sum_to_size(loc.shape), by_scale.sum_to_size(scale.shape), None, None


def base_of(fn: dist.TorchDistribution) -> dist.TorchDistribution:
    """The distribution that a site's has been masked or expanded from."""
    while isinstance(fn, MaskedDistribution | ExpandedDistribution):
        fn = fn.base_dist
    return fn


def quantile(name: str, fn: dist.TorchDistribution, u: Tensor) -> Tensor:
    """The value of a distribution at the quantile `u`, expanded to its batch shape; InputError where it has none."""
    fn = base_of(fn)
    if fn.event_shape:
        raise InputError(
            f"site '{name}': {type(fn).__name__} has event shape {tuple(fn.event_shape)}; under ExogenousNoise give "
            "each part a site"
        )
    if isinstance(fn, dist.Bernoulli):
        return (u < fn.probs).to(fn.probs.dtype)
    if isinstance(fn, dist.Categorical):
        below = fn.probs.cumsum(-1)[..., :-1]
        return (u.unsqueeze(-1) >= below).sum(-1)
    try:
        value = fn.icdf(u)
    except NotImplementedError as e:
        raise InputError(
            f"site '{name}': {type(fn).__name__} has no inverse CDF in torch, which ExogenousNoise needs; use one "
            "that has, such as LogNormal or Weibull"
        ) from e
    return value.to(torch.get_default_dtype() if not value.is_floating_point() else _dtype(fn, value))


def _parameters(fn: dist.TorchDistribution) -> list[Tensor]:
    found = [getattr(fn, name, None) for name in fn.arg_constraints]
    return [p for p in found if isinstance(p, Tensor)]


def _device(fn: dist.TorchDistribution) -> torch.device:
    """Where the distribution itself would sample."""
    return next((p.device for p in _parameters(fn)), torch.device("cpu"))


def _dtype(fn: dist.TorchDistribution, value: Tensor) -> torch.dtype:
    """The dtype in which the distribution itself would sample: that of its parameters."""
    kinds = {p.dtype for p in _parameters(fn) if p.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 else value.dtype
