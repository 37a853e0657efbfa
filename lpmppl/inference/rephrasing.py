"""Rephrasing: how far probabilities move when the same archetypes are asked in other words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.inference.error_budget import array, weights

__all__ = ["rephrased"]

_ROUNDING = 1e-3
"""By how much probabilities may miss 1."""


def rephrased(
    chances: object, weight: object = None, samples: object = None, options: Sequence[str] = ()
) -> xr.Dataset:
    r"""How far the answers to several templates lie from their mean, archetype by archetype.

    .. math:: d_{tk} = \tfrac 1 2 \sum_a |p_{tka} - \bar p_{ka}|, \qquad
        V = \sum_k w_k \sum_a \Big( \frac{1}{T - 1} \sum_t (p_{tka} - \bar p_{ka})^2
        - \frac 1 T \sum_t \frac{p_{tka} (1 - p_{tka})}{M_{tk} - 1} \Big)

    the total-variation distance, and the variance between templates less what sampling adds, which is without bias.

    Args:
        chances: probabilities of the same options under each template, shape (T, K, A); NaN under all of them for
            archetypes by which nobody decides.
        weight: how many people there are of each archetype, shape (K,); alike by default.
        samples: how many answers each is the share of, two or more, of a shape that goes with (T, K); None where
            probabilities are exact.
        options: what the options are called.
    Returns:
        `distance` over (template, archetype); `mean` of it; `largest`, with the template, archetype and option where it
        is in attrs; `variance`, V; and `beyond`, the mean distance less sampling's part, were that of the same shape.
    Raises:
        InputError: for fewer than two templates, and what are no probabilities.

    >>> templates = [[[0.5, 0.5], [0.9, 0.1]], [[0.5, 0.5], [0.6, 0.4]], [[0.5, 0.5], [0.9, 0.1]]]
    >>> found = rephrased(templates, options=("mask", "no mask"))
    >>> round(float(found["mean"]), 3), round(float(found["largest"]), 3), found["largest"].attrs
    (0.067, 0.2, {'template': 1, 'archetype': 1, 'option': 'mask'})
    """
    p = array("chances", chances, "probabilities of shape (T, K, A)")
    if p.ndim != 3 or p.shape[0] < 2 or not p.shape[1] or p.shape[2] < 2:
        raise InputError(f"chances has shape {p.shape}; give (T, K, A), of two or more templates and options")
    if options and len(options) != p.shape[2]:
        raise InputError(f"{len(options)} options are named, but chances has {p.shape[2]}: {', '.join(options)}")
    w = weights(weight, p.shape[1])
    asked = ~np.isnan(p).all((0, 2))
    some = p[:, asked]
    if not some.size or not ((some >= 0) & (some <= 1)).all() or (abs(some.sum(-1) - 1.0) > _ROUNDING).any():
        raise InputError(
            "chances are no probabilities that add up to 1 under every template; ask all of the same people"
        )
    if not w[asked].sum() > 0:
        raise InputError("weight is 0 for all archetypes that have probabilities; give how many people they are")
    w = w[asked] / w[asked].sum()
    shift = some - some.mean(0)
    found = abs(shift).sum(-1) / 2.0
    distance = np.full(p.shape[:2], np.nan)
    distance[:, asked] = found
    raw = (shift**2).sum((0, 2)) / (len(p) - 1.0)
    noise = np.zeros_like(raw)
    if samples is not None:
        noise = ((some * (1.0 - some)).sum(-1) / (_samples(samples, p.shape[:2])[:, asked] - 1.0)).mean(0)
    variance, scatter, mean = float(w @ (raw - noise)), float(w @ raw), float(w @ found.mean(0))
    template, place = np.unravel_index(int(np.where(w > 0, found, -1.0).round(12).argmax()), found.shape)
    # Options that move alike differ by rounding alone: the first of them is named.
    most = int(abs(shift[template, place]).round(12).argmax())
    where = {
        "template": int(template),
        "archetype": int(np.flatnonzero(asked)[place]),
        "option": options[most] if options else most,
    }
    return xr.Dataset(
        {
            "distance": (("template", "archetype"), distance),
            "mean": mean,
            "largest": ((), float(found[template, place]), where),
            "variance": variance,
            "beyond": mean * float(np.sqrt(max(variance, 0.0) / scatter)) if scatter > 0 else 0.0,
        }
    )


def _samples(samples: object, shape: tuple[int, ...]) -> np.ndarray:
    what = f"one number, or a number for each of {shape}"
    given = array("samples", samples, what)
    try:
        found = np.broadcast_to(given, shape)
    except ValueError as e:
        raise InputError(f"samples has shape {given.shape}: give {what}") from e
    if not (found >= 2).all():
        raise InputError(f"samples has {found.min():g}; the noise of a share shows with two answers or more")
    return found
