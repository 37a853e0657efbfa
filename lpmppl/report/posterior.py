"""A posterior beside its prior: intervals on one scale, which parameters go together, and whether chains agree."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import xarray as xr
from scipy import stats

from lpmppl.report.axes import percent, signed_ticks, text_width, tick, value_ticks
from lpmppl.report.blocks import fold, join, prose, table
from lpmppl.report.charts import HALF, NARROW, WIDE, colour, dash, figure
from lpmppl.report.figures import Box, Frame, day_axis, svg, text, value_axis
from lpmppl.report.signed import minus, short

__all__ = ["against_prior", "both", "convergence", "group", "overlap", "pairs", "parameters", "together"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_TOGETHER, MOST_PAIRS, MOST_DOTS = 5, 15, 200
GRID = 512
"""Points at which two densities are compared."""

BEGUN, SMOOTH = 0.1, 10
"""The share of a fit's steps that its figure leaves out, since losses fall from so high; and what it averages over."""

SAME = 0.9
"""From this overlap on, a posterior is called as wide as its prior."""


@dataclass(frozen=True)
class Row:
    """A parameter on the scale of its prior: the prior's 90 % interval, the posterior's `QUANTILES`, and a note."""

    name: str
    prior: tuple[float, float] | None
    posterior: Sequence[float]
    note: str = ""


def group(tree: xr.DataTree, name: str) -> xr.Dataset:
    """Give a group of a result; an empty one where it has none of that name."""
    return tree[name].to_dataset() if name in tree.children else xr.Dataset()


def both(wide: str, narrow: str) -> str:
    """Set a drawing for wide pages and one for narrow pages, of which one is shown."""
    return f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'


def draws(tree: xr.DataTree, name: str) -> dict[str, np.ndarray]:
    """Give the draws of each parameter of a group, all chains in one, by name."""
    return {str(n): x.to_numpy().reshape(-1).astype(float) for n, x in group(tree, name).data_vars.items()}


def level(*values: np.ndarray) -> list[np.ndarray]:
    """Bring draws to the scale on which they are compared: logarithms where all are above zero."""
    return [np.log(v) for v in values] if all((v > 0).all() for v in values) else list(values)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Give the area that the densities of two sets of draws have in common: 1 where they are the same, 0 where apart.

    >>> rng = np.random.default_rng(0)
    >>> bool(overlap(rng.normal(size=900), rng.normal(size=900)) > 0.9), overlap(np.ones(9), np.ones(9))
    (True, nan)
    """
    if min(len(a), len(b)) < 3 or min(np.ptp(a), np.ptp(b)) <= 0:
        return float("nan")
    one, other = level(a, b)
    low, high = min(one.min(), other.min()), max(one.max(), other.max())
    room = (high - low) / 10
    at = np.linspace(low - room, high + room, GRID)
    heights = [stats.gaussian_kde(x)(at) for x in (one, other)]
    return float(np.minimum(*(h / h.sum() for h in heights)).sum())


def title(values: xr.DataArray) -> str:
    """Name a parameter for readers: what it is, with its own name where that says more.

    >>> title(xr.DataArray(0.0, name="beta", attrs={"long_name": "transmission"}))
    'Transmission (beta)'
    """
    name = str(values.name)
    about = str(values.attrs.get("long_name") or name).replace("_", " ")
    text = about if about == name.replace("_", " ") else f"{about} ({name})"
    return text[:1].upper() + text[1:]


def titled(values: xr.DataArray) -> str:
    """Write the cell that names a row of a table by its parameter."""
    return f'<th scope="row">{escape(title(values))}</th>'


def interval(values: np.ndarray) -> str:
    """Write the median of draws with their 90 % interval; one number where they are all the same.

    >>> interval(np.arange(101.0)), interval(np.ones(5))
    ('50 (5 to 95)', '1')
    """
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})" if high > low else f"{middle:.4g}"


def standard(name: str, posterior: np.ndarray, prior: np.ndarray | None) -> Row:
    """Put a parameter on the scale on which its prior has mean 0 and standard deviation 1."""
    known = [posterior] if prior is None else [posterior, prior]
    scaled = level(*known)
    by = scaled[-1]
    centre, spread = float(by.mean()), float(by.std()) or float(scaled[0].std()) or 1.0
    of_posterior = (np.quantile(scaled[0], QUANTILES) - centre) / spread
    ends = None
    if prior is not None:
        low, high = ((np.quantile(by, (0.05, 0.95)) - centre) / spread).tolist()
        ends = (low, high)
    return Row(name.replace("_", " "), ends, of_posterior.tolist(), interval(posterior))


def forest(rows: Sequence[Row], width: float, describe: str, noted: bool = True) -> str:
    """Draw each parameter's posterior interval on its prior's, all on the scale of the priors."""
    room = max(width * 0.3, 150.0)
    left = min(max(text_width(r.name) for r in rows), room) + 12
    right = width - 10 - (max(text_width(r.note) for r in rows) + 8 if noted else 0.0)
    ends = [v for r in rows for v in (*(r.prior or ()), *r.posterior)]
    ticks = signed_ticks(min(ends), max(ends), 6)

    def x(value: float) -> float:
        return left + (right - left) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    tall, top = 21.0, 20.0
    bottom = top + tall * len(rows)
    parts = [text(left, 12, "standard deviations of the prior", "unit")]
    for value in ticks:
        kind = "grid" if value else "axis"
        parts.append(f'<line class="{kind}" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>')
        parts.append(text(x(value), bottom + 14, minus(value), "tick", "middle"))
    for i, row in enumerate(rows):
        at = top + tall * (i + 0.5)
        parts.append(text(left - 8, at + 4, short(row.name, room), "label", "end"))
        if row.prior:
            parts.append(_bar(x(row.prior[0]), x(row.prior[1]), at, 14, "band", "var(--ink)"))
        low, lower, middle, upper, high = (x(v) for v in row.posterior)
        parts.append(_bar(low, high, at, 3, "posterior", "var(--c0)"))
        parts.append(_bar(lower, upper, at, 7, "posterior", "var(--c0)"))
        parts.append(f'<circle cx="{middle:.1f}" cy="{at:.1f}" r="2.6" style="fill:var(--paper);stroke:var(--c0)"/>')
        if noted:
            parts.append(text(width, at + 4, row.note, "value", "end"))
    return svg(width, bottom + 20, "".join(parts), describe)


def _bar(start: float, end: float, at: float, thick: float, kind: str, colour: str) -> str:
    return (
        f'<rect class="{kind}" x="{start:.1f}" y="{at - thick / 2:.1f}" width="{max(end - start, 0.8):.1f}"'
        f' height="{thick:g}" rx="1" style="fill:{colour}"/>'
    )


def against_prior(tree: xr.DataTree) -> str:
    """Draw every fitted parameter's posterior against its prior, and name those that the data say most and least of."""
    found, priors = draws(tree, "posterior"), draws(tree, "prior")
    rows = [standard(name, values, priors.get(name)) for name, values in found.items()]
    if not rows:
        return ""
    shared = {name: overlap(values, priors[name]) for name, values in found.items() if name in priors}
    known = {name: share for name, share in shared.items() if np.isfinite(share)}
    same = [name.replace("_", " ") for name, share in known.items() if share >= SAME]
    told = ""
    if known:
        least = min(known, key=lambda name: known[name])
        told = f"The data say most of {least.replace('_', ' ')}, whose posterior shares {percent(known[least])} of its "
        told += f"area with its prior{f', and next to nothing of {join(same)}' if same else ''}."
    caption = (
        "Pale and wide: the prior's 90 % interval; bar: the posterior's, thicker its middle half; ring: its median. "
        "Each is on the scale of its prior, of logarithms where it is above zero. The numbers are under Parameters."
    )
    said = "Posterior and prior of each parameter"
    drawing = both(forest(rows, WIDE, said), forest(rows, NARROW, said, noted=False))
    return (f"<p>{prose(told)}</p>" if told else "") + figure("", drawing, caption)


def pairs(values: Mapping[str, np.ndarray]) -> list[tuple[str, str, float]]:
    """Correlate draws of every two parameters, on the scale on which they are compared: the strongest pair first."""
    known = {name: level(x)[0] for name, x in values.items() if len(x) > 2 and np.ptp(x) > 0}
    if len(known) < 2:
        return []
    names, r = list(known), np.corrcoef(np.stack(list(known.values())))
    found = [(names[i], names[j], float(r[i, j])) for i in range(len(names)) for j in range(i)]
    return sorted(found, key=lambda pair: -abs(pair[2]))


def together(tree: xr.DataTree) -> str:
    """Draw the most correlated parameters against each other, and tabulate the strongest correlations."""
    values = draws(tree, "posterior")
    ranked = pairs(values)
    if not ranked:
        return ""
    # The strongest pairs, as long as there is room for both of theirs.
    chosen: list[str] = []
    for a, b, _ in ranked:
        more = [n for n in (a, b) if n not in chosen]
        if len(chosen) + len(more) <= MOST_TOGETHER:
            chosen += more
    chosen = [name for name in values if name in chosen]
    a, b, r = ranked[0]
    both = f"{a.replace('_', ' ')} and {b.replace('_', ' ')}"
    told = f"Most correlated in the posterior are {both} ({minus(round(r, 2))})."
    if abs(r) > 0.7:
        told += " The data tell them together better than each by itself."
    caption = (
        f"Dots: {min(MOST_DOTS, len(values[a]))} draws of the posterior, each parameter from its least to its greatest,"
        " logarithms where it is above zero; above the diagonal the correlations."
    )
    body = [
        f'<tr><th scope="row">{escape(a)}</th><td class="text">{escape(b)}</td><td>{minus(round(r, 2))}</td></tr>'
        for a, b, r in ranked[:MOST_PAIRS]
    ]
    said = "Correlations of draws of the posterior, the strongest first."
    numbers = table(["Parameter", "With", "Correlation"], body, said)
    drawing = matrix({name: values[name] for name in chosen}, HALF, "Draws of the most correlated parameters")
    return f"<p>{escape(told)}</p>" + figure("", drawing, caption) + fold("The strongest correlations", numbers)


def matrix(values: Mapping[str, np.ndarray], width: float, describe: str) -> str:
    """Draw draws of every two parameters: dots below the diagonal, correlations above, names on it."""
    r = {frozenset((a, b)): x for a, b, x in pairs(values)}
    scaled = {name: level(x)[0][:: max(1, -(-len(x) // MOST_DOTS))] for name, x in values.items()}
    names, gap = list(scaled), 4.0
    side = (width - gap * (len(names) - 1)) / len(names)
    unit = {name: (x - x.min()) / (np.ptp(x) or 1.0) for name, x in scaled.items()}
    parts = []
    for i, down in enumerate(names):
        for j, across in enumerate(names):
            left, top = j * (side + gap), i * (side + gap)
            if i == j:
                words = [short(word, side + 16) for word in down.split("_")]
                first = top + side / 2 + 4 - 6.5 * (len(words) - 1)
                parts += [text(left + side / 2, first + 13 * k, w, "panel", "middle") for k, w in enumerate(words)]
                continue
            parts.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{side:.1f}" height="{side:.1f}" class="axis"'
                ' style="fill:none;stroke:var(--line)"/>'
            )
            if i < j:
                parts.append(
                    text(
                        left + side / 2, top + side / 2 + 4, minus(round(r[frozenset((down, across))], 2)), "", "middle"
                    )
                )
                continue
            x, y = left + 4 + (side - 8) * unit[across], top + side - 4 - (side - 8) * unit[down]
            dots = "".join(f"M{a:.1f},{b:.1f}h.01" for a, b in zip(x, y, strict=True))
            parts.append(f'<path class="line draws" d="{dots}" style="stroke:var(--c0);stroke-opacity:.45"/>')
    return svg(width, width, "".join(parts), describe)


def parameters(tree: xr.DataTree) -> str:
    """Tabulate the posterior beside the prior, with what the two have in common; what was fixed is folded away."""
    priors, body = draws(tree, "prior"), []
    for key, values in group(tree, "posterior").data_vars.items():
        found, prior = values.to_numpy().reshape(-1).astype(float), priors.get(str(key))
        unit = str(values.attrs.get("units") or "")
        share = float("nan") if prior is None else overlap(found, prior)
        body.append(
            f"<tr>{titled(values)}<td>{interval(found)}</td><td>{'–' if prior is None else interval(prior)}</td>"
            f"<td>{percent(share) if np.isfinite(share) else '–'}</td>"
            f'<td class="text">{escape(unit)}</td>'
            f'<td class="prose text">{escape(str(values.attrs.get("source") or ""))}</td></tr>'
        )
    caption = (
        "Medians with 90 % intervals; the overlap is the area that both densities have in common: 100 % where the data "
        "say nothing."
    )
    fitted = table(["Parameter", "Posterior", "Prior", "Overlap", "Unit", "Source"], body, caption, "effects")
    fixed = json.loads(str(tree.attrs.get("set") or "{}"))
    rows = [
        f'<tr><th scope="row">{escape(n.replace("_", " "))}</th><td>{float(v):.4g}</td></tr>' for n, v in fixed.items()
    ]
    title = f"{len(rows)} {'parameter that was' if len(rows) == 1 else 'parameters that were'} held"
    held = fold(title, table(["Parameter", "Value"], rows, "Not fitted."))
    return (fitted if body else "") + (held if rows else "")


def convergence(tree: xr.DataTree) -> str:
    """Draw the losses of each chain after their beginning, and say whether chains agree and the guide is near."""
    found = group(tree, "fit")
    losses = found["loss"].to_numpy() if "loss" in found else np.zeros((0, 0))
    told = []
    if "centre" in found and found.sizes["round"] > 1:
        moved = abs(found["centre"].diff("round").isel(round=-1))
        most = str(moved["parameter"].values[int(moved.to_numpy().argmax())]).replace("_", " ")
        told.append(
            f"In the last of {found.sizes['round']} rounds {most} moved most, by {float(moved.max()):.2f} standard "
            "deviations of its prior."
        )
    khat, rhat = (float(tree.attrs.get(n, "nan")) for n in ("khat", "rhat"))
    if np.isfinite(khat):
        told.append(f"Pareto k-hat of the guide's weights: {khat:.2f} (good up to 0.7).")
    if np.isfinite(rhat):
        told.append(f"R-hat of the chains: {rhat:.2f} at most (good up to 1.05).")
    else:
        told.append("There is one chain alone, so that nothing says whether another would end at the same place.")
    drawing = curves(losses)
    what = found["loss"].attrs.get("long_name", "the negative evidence bound") if drawing else ""
    caption = (
        f"Loss of each chain, {what}, above the least of all, averaged over {SMOOTH} steps; the "
        f"first {percent(BEGUN)} of the steps are left out. One colour and dash each chain."
    )
    return (
        f"<p>{prose(' '.join(told))}</p>"
        + (figure("", drawing, caption) if drawing else "")
        + fold("By chain", by_chain(tree))
    )


def curves(losses: np.ndarray) -> str:
    """Draw losses by chain and step, smoothed and without their beginning; nothing where there are too few."""
    begun = int(BEGUN * losses.shape[-1])
    kept = [c[np.isfinite(c)][begun:] for c in losses]
    smooth = [np.convolve(c, np.ones(SMOOTH) / SMOOTH, "valid") for c in kept if len(c) > SMOOTH]
    if not smooth:
        return ""
    least = min(float(c.min()) for c in smooth)
    ticks = value_ticks(max(float(c.max()) for c in smooth) - least, 4, whole=False)
    frame = Frame(HALF, 190, losses.shape[-1])
    box = Box(max(text_width(tick(t)) for t in ticks) + 10, 22, HALF - 14, 166, frame.days, ticks[-1])
    parts = [text(2, 12, "nats", "unit"), value_axis(box, ticks), day_axis(box, frame)]
    for k, chain in enumerate(smooth):
        path = "L".join(f"{box.x(begun + SMOOTH - 1 + i):.1f},{box.y(v - least):.1f}" for i, v in enumerate(chain))
        style = f'stroke-dasharray="{dash(k)}" style="stroke:{colour(k)};stroke-width:1.3"'
        parts.append(f'<path class="line loss" d="M{path}" {style}/>')
    return svg(frame.width, frame.height, "".join(parts), f"Losses of {len(smooth)} chains by step")


def by_chain(tree: xr.DataTree) -> str:
    """Tabulate each parameter's intervals by chain, with their R-hat; nothing where there is one chain alone."""
    found = group(tree, "posterior")
    if found.sizes.get("chain", 1) < 2 or found.sizes.get("draw", 0) < 4:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Slow to import, and pages of other results don't need it.
        import arviz as az

        rhat = az.rhat(found)
    body = []
    for name, values in found.data_vars.items():
        each = "".join(f"<td>{interval(values.isel(chain=k).to_numpy())}</td>" for k in range(values.sizes["chain"]))
        body.append(f"<tr>{titled(values)}{each}<td>{float(rhat[name]):.3f}</td></tr>")
    head = ["Parameter", *(f"Chain {k}" for k in found["chain"].values), "R-hat"]
    return table(head, body, "Medians with 90 % intervals of each chain, and whether they agree (1 where they do).")
