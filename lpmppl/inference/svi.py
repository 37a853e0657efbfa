"""Stochastic variational inference by Pyro's SVI: a fit that says whether it converged, and keeps its best."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoGuide
from pyro.optim import ClippedAdam
from torch import Tensor

from lpmppl.errors import LpmError

__all__ = ["Fit", "fitted", "weighed"]

_TAIL = 0.1
"""The share of the steps over which a loss is judged."""

_FALL = 0.05
"""By how much the learning rate falls over a fit."""


@dataclass
class Fit:
    """What became of a fit.

    Attributes:
        guide: the guide at its best.
        losses: the negative evidence bound at each step.
        converged: whether the last steps are no better than those before, by their spread.
        diverged: the step at which a loss was no number, or None.
    """

    guide: AutoGuide
    losses: np.ndarray
    converged: bool
    diverged: int | None


def fitted(
    program: Callable[[], Any], guide: AutoGuide, steps: int, seed: int, rate: float = 0.03, particles: int = 8
) -> Fit:
    """Fit a guide by Pyro's SVI with `Trace_ELBO`; the global random state and parameters stay as they were.

    A loss that is no number ends the fit, at the best that there was.

    Args:
        program: the program.
        guide: the guide, which is changed.
        steps: how many gradient steps.
        seed: the seed of the gradients' chance.
        rate: the learning rate at first, which falls to a twentieth.
        particles: how many draws each gradient is the mean of.
    Raises:
        LpmError: where the first steps already have no loss.
    """
    losses: list[float] = []
    best, kept, every, diverged = math.inf, None, max(1, steps // 50), None
    # Pyro's checks of every site's arguments take half of a step.
    unchecked = pyro.validation_enabled(False)
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(), unchecked:
        torch.manual_seed(seed)
        optimiser = ClippedAdam({"lr": rate, "lrd": _FALL ** (1 / max(1, steps)), "clip_norm": 10.0})
        bound = Trace_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=0)
        svi = SVI(program, guide, optimiser, bound)
        for step in range(steps):
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Encountered NaN", UserWarning)
                    loss = float(svi.step())
            except (ValueError, RuntimeError) as e:
                loss = math.nan
                if not losses:
                    raise LpmError(f"the fit has no loss at its start ({e}); give other starting values") from e
            if not math.isfinite(loss):
                diverged = step
                break
            losses.append(loss)
            recent = float(np.mean(losses[-every:]))
            if step % every == every - 1 and recent < best:
                best, kept = recent, {n: x.detach().clone() for n, x in guide.state_dict().items()}
        if diverged is not None and kept is None:
            raise LpmError(f"the fit diverged at step {diverged}, before it had anything to keep; give a lower rate=")
        if diverged is not None:
            assert kept is not None
            guide.load_state_dict(kept)
    return Fit(guide, np.array(losses), diverged is None and _settled(np.array(losses)), diverged)


def weighed(
    program: Callable[[], Any], guide: AutoGuide, draws: int, seed: int
) -> tuple[dict[str, Tensor], np.ndarray, np.ndarray]:
    r"""Draw from a guide, and say what each draw weighs.

    Returns:
        values by site, of shape (draws, …); :math:`\log p(\theta, y)` and :math:`\log p(\theta, y) - \log
        q(\theta)` of each, shape (draws,).
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        plate = pyro.plate("draws", draws, dim=-1)

        def each(of: Callable[[], Any]) -> Callable[[], Any]:
            def inside() -> None:
                with plate:
                    of()

            return inside

        ours = poutine.trace(each(guide)).get_trace()
        theirs = poutine.trace(poutine.replay(each(program), ours)).get_trace()
        values = {n: s["value"] for n, s in theirs.nodes.items() if s["type"] == "sample" and not s["is_observed"]}
        joint, own = _log_prob(theirs, draws), _log_prob(ours, draws)
    latent = {n: torch.as_tensor(x) for n, x in values.items() if n != "draws"}
    return latent, joint.numpy(), (joint - own).numpy()


def _log_prob(trace: Any, draws: int) -> Tensor:
    """The log-probability of each draw, shape (draws,)."""
    trace.compute_log_prob()
    total = torch.zeros(draws, dtype=torch.float64)
    for site in trace.nodes.values():
        if site["type"] == "sample" and site["log_prob"].shape[-1:] == (draws,):
            total = total + site["log_prob"].reshape(draws)
    return total


def _settled(losses: np.ndarray) -> bool:
    """Whether the mean loss of the last steps is within their spread of that of the steps before."""
    n = max(2, int(_TAIL * len(losses)))
    if len(losses) < 2 * n:
        return False
    late, before = losses[-n:], losses[-2 * n : -n]
    return bool(before.mean() - late.mean() < 0.1 * max(late.std(), 1e-9) + 0.5)
