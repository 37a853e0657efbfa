"""Chance held as it came out, so that what depends on the parameters is each site's law given the past."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.cohorts import Sparse, dense
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.handlers.noise import base_of

__all__ = ["BEFORE", "Held", "is_chance", "log_probability", "place_of", "slopes"]

BEFORE = -1
"""The step of sites that come before the first one, such as who begins."""


def place_of(infer: Mapping[str, Any], name: str) -> tuple[str, int]:
    """A site's own name and the number of its step."""
    return str(infer.get("site", name)), int(infer.get("step", BEFORE))


def is_chance(msg: Message) -> bool:
    """Whether a site is the chance of a run: an agent's, or the environment's in a step, and not given."""
    infer = msg["infer"] or {}
    if msg["is_observed"] or isinstance(msg["fn"], Left) or isinstance(base_of(msg["fn"]), dist.Delta):
        return False
    return infer.get("agents") is not None or "step" in infer


def log_probability(msg: Message) -> Tensor | None:
    """How probable what chance decided at a site is, given the past: its logarithm, of any shape; None for no chance.

    An event counts by its step's hazard, and its time by its density given that it came.
    """
    fn = msg["fn"]
    if isinstance(fn, Left):
        h, event = _hazard(fn.exposure), dense(fn.event)
        safe = torch.where(event & (h > 0), h, 1.0)
        density = torch.log(safe) - safe * (1 - dense(msg["value"]).double()) - torch.log(-torch.expm1(-safe))
        return torch.where(event & (h > 0), density, 0.0)
    if not is_chance(msg):
        return None
    base = base_of(fn)
    if not isinstance(base, Exposure):
        found: Tensor = base.log_prob(msg["value"]).double()
        return found
    h = _hazard(base)
    safe = torch.where(msg["value"] & (h > 0), h, 1.0)
    log = torch.where(msg["value"], torch.log(-torch.expm1(-safe)), -h)
    impossible = msg["value"] & ~(base.at_risk & (h > 0))
    return torch.where(impossible, -torch.inf, torch.where(base.at_risk, log, 0.0))


def _hazard(exposure: Exposure) -> Tensor:
    """The step's hazard; 1 where nothing can happen, lest a derivative be infinite."""
    return torch.where(exposure.at_risk, exposure.met, 1.0)


def slopes(x: Tensor, parameters: Mapping[str, Tensor], each: Tensor | None = None) -> Tensor:
    """Derivatives of a number with respect to parameters, zero for those on which it doesn't depend.

    Args:
        x: the number, or several of shape (k,), which are derived in one pass.
        parameters: the parameters, with `requires_grad`.
        each: with several, weights of shape (m, k) of which each row is derived.
    Returns:
        float64 of shape (parameters,) or (m, parameters).
    """
    found = torch.autograd.grad(
        x, list(parameters.values()), each, retain_graph=True, allow_unused=True, is_grads_batched=each is not None
    )
    none = torch.zeros(() if each is None else each.shape[:1], dtype=torch.float64)
    return torch.stack([none if g is None else g.double().reshape(none.shape) for g in found], -1)


class Held(Messenger):
    """Hold everything that chance decides as it came out: its values carry no derivative, by whatever way they came.

    It goes inside `ExogenousNoise`. What inherits from it says in `_met` what it does at a site.
    """

    reads_sparse = True

    def _pyro_sample(self, msg: Message) -> None:
        fn = msg["fn"]
        if isinstance(fn, Exposure):
            # The law of the event is that of the step's hazard alone; what came before is as it came out.
            fn.held(fn.at_risk)

    def _pyro_post_sample(self, msg: Message) -> None:
        value = msg["value"]
        if isinstance(value, Sparse):
            msg["value"] = Sparse(value.cohort, value.value.detach())
        elif isinstance(value, Tensor) and value.requires_grad:
            msg["value"] = value.detach()
        self._met(msg)

    def _met(self, msg: Message) -> None:
        """Do what is to be done once a site has its value."""
