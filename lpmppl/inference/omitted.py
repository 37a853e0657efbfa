"""Omitted attributes: what people are given wrongly since archetypes don't know something of them."""

from __future__ import annotations

import numpy as np
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.inference.error_budget import array, codes, probabilities, summed, weights, within

__all__ = ["omitted"]


def omitted(
    chance: object,
    truth: object,
    attribute: object,
    archetypes: object,
    weight: object = None,
    respondents: object = None,
) -> xr.Dataset:
    r"""The bias of each label of an attribute that archetypes leave out, and what of the variance within them it makes.

    .. math:: b_l = \frac{1}{W_l} \sum_{i \in l} w_i (\hat p_{k_i} - p_i), \qquad
        \frac{\sum_{kl} W_{kl} (\bar p_{kl} - \bar p_k)^2}{\sum_i w_i (p_i - \bar p_{k_i})^2}

    However many archetypes and samples there are, the bias stays as long as none of the attributes goes with this one.

    Args:
        chance: the model's probability of the choice for each row, an individual or a fine cell, shape (…, R).
        truth: their true probabilities, or the shares of a survey's cells, shape (R,).
        attribute: the label of each row, strings or integers of shape (R,).
        archetypes: the archetype of each row, integers of shape (R,).
        weight: how many people each row is, shape (R,); alike by default, or as many as were asked.
        respondents: how many were asked in each cell, two or more, where truth is a survey's.
    Returns:
        over `label`: `bias`, shape (…, label), leading dimensions together as `draw`; its `standard_error`, of the
        survey's noise, or of rows as a sample of people where truth is known; `share_of_people`. And `explained`, the
        variance within archetypes that the attribute makes, and `share`, what that is of it all, both less a survey's
        noise.
    Raises:
        InputError: for shapes that don't go together.

    >>> found = omitted([0.5] * 4, [0.4, 0.4, 0.6, 0.6], ["left", "left", "right", "right"], [0, 1, 0, 1])
    >>> found["bias"].values.round(3).tolist(), round(float(found["share"]), 3)
    ([0.1, -0.1], 1.0)
    """
    p = probabilities("truth", truth)
    if p.ndim != 1:
        raise InputError(f"truth has shape {p.shape}; give one probability of each row")
    many = len(p)
    model, code = probabilities("chance", chance, many), codes(archetypes, many)
    labels = array("attribute", attribute, f"the label of each of {many} rows", None)
    if labels.shape != (many,):
        raise InputError(f"attribute has shape {labels.shape}; give the label of each of {many} rows")
    known, label = np.unique(labels.astype(str), return_inverse=True)
    w = weights(respondents if weight is None else weight, many)
    if (w == 0).any():
        model, p, code, label = model[..., w > 0], p[w > 0], code[w > 0], label[w > 0]
    noise = _noise(p, respondents, w)
    w = w[w > 0]
    total = np.bincount(label, w, minlength=len(known))
    lead = model.reshape(-1, len(p)) if model.ndim > 1 else model
    with np.errstate(invalid="ignore"):
        bias = summed((lead - p) * w, label, len(known)) / total
        if respondents is None:
            residual = (lead - p - bias[..., label]) ** 2 * w**2
            variance = summed(residual, label, len(known)) / total**2
        else:
            variance = np.bincount(label, w**2 * noise, minlength=len(known)) / total**2
    cell, place = np.unique(code * len(known) + label, return_inverse=True)
    size = np.bincount(place, w)
    mean = np.bincount(place, w * p) / size
    explained = float(within(mean, np.bincount(place, w**2 * noise) / size**2, size, cell // len(known)))
    inside = float(within(p, noise, w, code))
    dims = ("draw", "label") if lead.ndim > 1 else ("label",)
    return xr.Dataset(
        {
            "bias": (dims, bias),
            "standard_error": (dims if variance.ndim > 1 else ("label",), np.sqrt(variance)),
            "share_of_people": ("label", total),
            "explained": explained,
            "within": inside,
            "share": explained / inside if inside > 0 else np.nan,
        },
        {"label": known},
    )


def _noise(p: np.ndarray, respondents: object, weight: np.ndarray) -> np.ndarray:
    """The variance of a survey's shares of rows that count; 0 of what is known."""
    if respondents is None:
        return np.zeros_like(p)
    n = array("respondents", respondents, "numbers")
    if n.shape != weight.shape or not (n[weight > 0] >= 2).all():
        raise InputError(f"respondents has shape {n.shape}; give two or more of each of {len(weight)} cells")
    return p * (1.0 - p) / (n[weight > 0] - 1.0)
