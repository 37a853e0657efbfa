"""The page of a calibration: whether it is to be believed, what was seen beside what is predicted, and the checks."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from html import escape

import numpy as np
import xarray as xr
from scipy import stats

from lpmppl.report import posterior
from lpmppl.report.axes import day_label, day_ticks, number, percent, text_width, tick, value_ticks
from lpmppl.report.blocks import facts, fold, join, prose, section, table
from lpmppl.report.charts import MOST_PANELS, NARROW, WIDE, colour, figure, keep_largest
from lpmppl.report.figures import Box, Curve, Frame, Mark, mark_lines, plot_data, svg, text, value_axis
from lpmppl.report.posterior import both, group
from lpmppl.report.signed import minus

__all__ = ["ask", "is_one", "pit", "pit_verdict", "sections", "warns"]

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
SAMPLES = ("chain", "draw")
BINS = 10
SURE = 0.95
"""How often a histogram of uniform values lies wholly in its band."""

FEW = 50
"""Below so many draws nothing is said of leaving counts out."""


@dataclass(frozen=True)
class Seen:
    """Counts that were observed, NaN where they weren't, on the quantiles `LEVELS` of what is predicted, by day."""

    name: str
    band: np.ndarray
    counts: np.ndarray


def is_one(tree: xr.DataTree) -> bool:
    """Say whether a result is a calibration's."""
    return {"posterior", "posterior_predictive", "observed_data"} <= set(tree.children)


def ask(tree: xr.DataTree, where: str) -> str:
    """Put the question that a calibration answers; `where` is " of" its place, or empty."""
    days, start = int(tree.attrs.get("fitted_days", tree.attrs["days"])), str(tree.attrs.get("start", ""))
    if not start:
        return f"Which parameters agree with what was seen{where} in {days} {'day' if days == 1 else 'days'}?"
    first = date.fromisoformat(start)
    last = first + timedelta(days=days - 1)
    begins = f"{first.day} {first:%B}" + (f" {first:%Y}" if first.year != last.year else "")
    return f"Which parameters agree with what was seen{where} from {begins} to {last.day} {last:%B %Y}?"


def sections(tree: xr.DataTree) -> list[str]:
    """Give the sections of a calibration, the verdict first."""
    return [
        section("Is it to be believed?", verdict(tree)),
        section("What was seen", "".join(stream(tree, str(n)) for n in group(tree, "observed_data").data_vars)),
        section("What was learnt", posterior.against_prior(tree)),
        section("Which parameters go together", posterior.together(tree)),
        section("Whether the fit has ended", posterior.convergence(tree)),
        section("Whether the counts are as likely as they should be", calibrated(tree)),
        section("What it took", effort(tree)),
    ]


def warns(sentence: str) -> bool:
    """Say whether a sentence of the verdict is a warning: one that has a remedy, or says that something is wrong.

    >>> warns("the guide converged"), warns("restarts disagree (R-hat 1.20): there is more than one posterior mode")
    (False, True)
    >>> warns("the whole society departs from the coarse one by 3.1% a day, which is made up for")
    False
    """
    if sentence.endswith("which is made up for"):
        return False
    begins = ("too confident", "far from", "the guide still improved")
    return sentence.startswith(begins) or any(sign in sentence for sign in (":", "diverged", "departs"))


def verdict(tree: xr.DataTree) -> str:
    """Set what the checks said, each sentence marked in a word and a sign."""
    said = [str(s) for s in json.loads(str(tree.attrs.get("verdict") or "[]"))]
    if not said:
        return ""
    wrong = sum(map(warns, said))
    lead = f"{wrong} of {len(said)} checks {'warns' if wrong == 1 else 'warn'}." if wrong else "No check warns."
    items = "".join(
        f'<li class="{kind}"><b>{sign}:</b> {prose(s)}</li>'
        for s in said
        for kind, sign in [("warning", "⚠ Warning") if warns(s) else ("fine", "✓ Fine")]
    )
    return f'<p>{lead}</p><ul class="told">{items}</ul>'


def comparable(seen: xr.DataArray, made: xr.DataArray, keep: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Add counts up over strata but `keep`: those seen, shape (days[, groups]), and quantiles of those predicted.

    Strata of which nothing was ever seen are in neither, and a day on which one of the others wasn't seen has no sum.
    """
    over = [d for d in seen.dims if d not in ("day", keep)]
    unseen = seen.isnull().all("day")
    # A group that was never seen is still predicted.
    left_out = unseen & ~unseen.all(over)
    counts = seen.where(~left_out, 0.0).sum(over, skipna=False).transpose("day", ...)
    whole = made.where(~left_out, 0.0).sum(over).transpose(*SAMPLES, "day", ...)
    return counts.to_numpy(), np.quantile(whole.to_numpy(), LEVELS, (0, 1))


def predicted(tree: xr.DataTree, name: str) -> xr.DataArray:
    """Give what is predicted of a stream over the fitted days and, where a fit goes on, those after them."""
    parts = [group(tree, part)[name] for part in ("posterior_predictive", "forecast") if part in tree.children]
    return xr.concat(parts, "day", coords="minimal", compat="override", join="override")


def stream(tree: xr.DataTree, name: str) -> str:
    """Draw a stream's observed counts on what is predicted: of the whole city, and by stratum."""
    seen, made = group(tree, "observed_data")[name], predicted(tree, name)
    counts, band = comparable(seen, made)
    title, start = name.replace("_", " "), str(tree.attrs.get("start", ""))
    title = title[:1].upper() + title[1:]
    paint = colour(list(group(tree, "observed_data").data_vars).index(name))
    city = [Seen("", band, counts)]
    marks = [Mark(len(counts) - 1, "last day fitted")] if band.shape[1] > len(counts) else []
    draws = made.sizes["chain"] * made.sizes["draw"]
    caption = f"Dots: what was counted each day. Bands: 50 % and 90 % of {draws} draws of what would be reported, were"
    caption += " the posterior right; line: their median."
    missing = int(np.isnan(counts).sum())
    if missing:
        caption += f" {missing} {'day was' if missing == 1 else 'days were'} not seen whole, and has no dot."
    if bool(seen.isnull().all("day").any()):
        caption += " Groups of which nothing was seen are in neither."
    known = ~np.isnan(counts)
    inside = (counts >= band[0, : len(counts)]) & (counts <= band[-1, : len(counts)])
    said = f"{title} each day: {int(inside.sum())} of {int(known.sum())} observed days lie within the 90 % band"

    def draw(panels: Sequence[Seen], describe: str, wide: float, narrow: float) -> str:
        sizes = ((WIDE, wide), (NARROW, narrow))
        return both(*(dotted(panels, Frame(w, h, band.shape[1], start), paint, describe, marks) for w, h in sizes))

    drawn = [
        figure(title, draw(city, said, 270, 190), f"{said.partition(': ')[2].capitalize()}. {caption}", "", "span")
    ]
    for stratum in [str(d) for d in seen.dims if d != "day"]:
        counts_by, band_by = comparable(seen, made, stratum)
        groups = [Seen(str(g), band_by[..., k], counts_by[:, k]) for k, g in enumerate(seen[stratum].values)]
        kept = keep_largest([float(g.band[2].sum()) for g in groups], MOST_PANELS)
        about = f"{title} by {stratum.replace('_', ' ')}"
        note = f"The {len(kept)} largest of {len(groups)} groups. " if len(kept) < len(groups) else ""
        note += "One plot per group on one scale; dots: what was counted; bands: 50 % and 90 %."
        drawn.append(figure(about, draw([groups[k] for k in kept], about, 130, 92), note, "", "span"))
    return f'<div class="figures">{"".join(drawn)}</div>' + fold(f"{title}, day by day", by_day(city[0], start))


def by_day(seen: Seen, start: str) -> str:
    """Tabulate what was seen and what is predicted by day."""
    body = []
    for day, (low, _, middle, _, high) in enumerate(seen.band.T):
        count = seen.counts[day] if day < len(seen.counts) else np.nan
        body.append(
            f'<tr><th scope="row">{escape(day_label(day, start).capitalize())}</th><td>{number(count)}</td>'
            f"<td>{number(middle)}</td><td>{number(low)} to {number(high)}</td></tr>"
        )
    return table(["", "Seen", "Median", "90 % band"], body, "Counts of each day, of all groups together.")


def dotted(panels: Sequence[Seen], frame: Frame, paint: str, describe: str, marks: Sequence[Mark]) -> str:
    """Draw observed counts as dots on the bands of what is predicted, one plot per panel on one scale.

    `frame.height` is the height of one row of panels.
    """
    alone = len(panels) == 1
    highest = max(max(float(p.band.max()), float(np.nanmax(p.counts, initial=0.0))) for p in panels)
    ticks = value_ticks(highest, 4 if alone else 3)
    columns = 1 if alone else min(3, len(panels))
    left, gap, head = max(text_width(tick(t)) for t in ticks) + 10, 12.0, 18.0
    width = (frame.width - 10 - left - gap * (columns - 1)) / columns
    parts, plots = [text(2, 12, "a day", "unit")], []
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        x, y = left + column * (width + gap), head + row * frame.height
        box = Box(x, y + 20, x + width, y + frame.height - 8, frame.days, ticks[-1])
        low, lower, middle, upper, high = panel.band
        parts.append(text(x, y + 13, panel.name, "panel") if panel.name else "")
        parts.append(value_axis(box, ticks) if column == 0 else "".join(_grid(box, t) for t in ticks))
        parts += [
            f'<path class="band" d="{box.area(a, b)}" style="fill:{paint}"/>' for a, b in ((low, high), (lower, upper))
        ]
        parts.append(f'<path class="line" d="{box.path(middle)}" style="stroke:{paint};stroke-width:1.5"/>')
        dots = [f"M{box.x(d):.1f},{box.y(v):.1f}h.01" for d, v in enumerate(panel.counts) if np.isfinite(v)]
        thick = 4.2 if alone else 2.8 if width > 150 else 2.0
        parts.append(f'<path class="line seen" d="{"".join(dots)}" style="stroke:var(--ink);stroke-width:{thick}"/>')
        parts.append(mark_lines(box, marks) if alone else "")
        parts.append(
            f'<line class="axis" x1="{x:.1f}" x2="{box.right:.1f}" y1="{box.bottom:.1f}" y2="{box.bottom:.1f}"/>'
        )
        if i + columns >= len(panels):
            for day, label in day_ticks(frame.days, width, frame.start):
                if box.x(day) + text_width(label) / 2 <= box.right + 8:
                    parts.append(text(box.x(day), box.bottom + 14, label, "tick", "middle" if day else "start"))
        shown = [Curve("median", middle, low, high, paint)]
        if len(panel.counts) == len(middle) and np.isfinite(panel.counts).all():
            # The script reads numbers of every day.
            shown.append(Curve("seen", panel.counts, panel.counts, panel.counts, "var(--ink)"))
        plots.append(plot_data(box, shown, panel.name))
    rows = -(-len(panels) // columns)
    return svg(frame.width, head + rows * frame.height + 10, "".join(parts), describe, plots, frame.start)


def _grid(box: Box, value: float) -> str:
    y = box.y(value)
    return f'<line class="grid" x1="{box.left:.1f}" x2="{box.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'


def cells(tree: xr.DataTree, of: str, name: str) -> np.ndarray:
    """Give a stream's values of a group with all chains and draws in one, shape (draws, days x strata)."""
    seen, values = group(tree, "observed_data")[name], group(tree, of)[name]
    return values.transpose(*SAMPLES, *seen.dims).to_numpy().reshape(-1, seen.size)


def pit(seen: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Give each count's place among draws of its prediction as its share in each of `BINS` bins, shape (counts, BINS).

    A count that ties with draws is spread over the places that it may have, so that nothing is drawn by chance; counts
    that weren't seen are left out (Czado, Gneiting & Held, Biometrics 65, 2009).

    >>> pit(np.array([5.0]), np.arange(99.0)[:, None]).round(1).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """
    known = np.isfinite(seen)
    y, x = seen[known], made[:, known]
    low, high = (x < y).sum(0) / (len(x) + 1), ((x <= y).sum(0) + 1) / (len(x) + 1)
    edges = np.linspace(0.0, 1.0, BINS + 1)[:, None]
    return np.asarray(np.diff(((edges - low) / (high - low)).clip(0.0, 1.0), axis=0).T)


def pit_verdict(places: np.ndarray) -> tuple[str, np.ndarray, tuple[float, float]]:
    """Judge whether places are uniform: in words, by their share in each bin and the band of a uniform one."""
    count, shares = len(places), places.mean(0)
    tail = (1 - SURE) / 2 / BINS
    low, high = (float(stats.binom.ppf(p, count, 1 / BINS)) / count for p in (tail, 1 - tail))
    middles = (np.arange(BINS) + 0.5) / BINS
    mean = float(shares @ middles)
    wide = float(shares @ (middles - 0.5) ** 2) > 1 / 12
    if bool(((shares >= low - 1e-9) & (shares <= high + 1e-9)).all()):
        said = f"as uniform as {count} counts can tell"
    elif abs(mean - 0.5) * np.sqrt(12 * count) > 3 and abs(mean - 0.5) > 0.03:
        said = f"off: counts lie {'above' if mean > 0.5 else 'below'} what is predicted more often than they should"
    else:
        said = f"off: the bands are {'too narrow' if wide else 'wider than they need be'}"
    return said, shares, (low, high)


def histogram(shares: np.ndarray, band: tuple[float, float], width: float, describe: str) -> str:
    """Draw the shares of bins between 0 and 1 on the band that uniformity would give."""
    ticks = value_ticks(max(float(shares.max()), band[1]), 3, whole=False)
    box = Box(max(text_width(tick(t)) for t in ticks) + 10, 20, width - 10, 170, 2, ticks[-1])
    parts = [text(2, 12, "share of counts", "unit"), value_axis(box, ticks)]
    for k, share in enumerate(shares):
        x, y = box.x(k / BINS) + 1, box.y(share)
        wide = (box.right - box.left) / BINS - 2
        parts.append(
            f'<rect class="stream" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{box.bottom - y:.1f}"'
            ' style="fill:var(--c0)"/>'
        )
    ends = [box.y(v) for v in (band[1], band[0])]
    size = f'x="{box.left:.1f}" y="{ends[0]:.1f}" width="{box.right - box.left:.1f}" height="{ends[1] - ends[0]:.1f}"'
    parts.append(f'<rect class="band" {size} style="fill:var(--ink)"/>')
    parts.append(f'<path class="mark" d="M{box.left:.1f},{box.y(1 / BINS):.1f}H{box.right:.1f}"/>')
    parts += [text(box.x(v), box.bottom + 16, tick(v), "tick", "middle") for v in (0, 0.5, 1)]
    return svg(width, 194, "".join(parts), describe)


def calibrated(tree: xr.DataTree) -> str:
    """Draw where observed counts lie among those predicted, by stream, and say what leaving one out says."""
    drawn, body = [], []
    for key, seen in group(tree, "observed_data").data_vars.items():
        places = pit(seen.to_numpy().reshape(-1).astype(float), cells(tree, "posterior_predictive", str(key)))
        if not len(places):
            continue
        said, shares, band = pit_verdict(places)
        title = str(key).replace("_", " ").capitalize()
        caption = (
            f"Where {len(places)} observed counts lie among those predicted, 0 below all and 1 above all: {said}. "
        )
        caption += "Shaded: the band of a uniform one, were counts independent."
        drawn.append(figure(title, histogram(shares, band, NARROW, f"{title}: places are {said}"), caption))
        line = "".join(f"<td>{percent(share)}</td>" for share in shares)
        body.append(f'<tr><th scope="row">{escape(title)}</th>{line}</tr>')
    if not drawn:
        return ""
    head = ["", *(f"{k / BINS:g}–{(k + 1) / BINS:g}" for k in range(BINS))]
    numbers = table(head, body, "Share of observed counts by their place among those predicted.")
    lead = "<p>These counts were fitted too, so that a flat histogram is needed but isn't proof.</p>"
    return lead + f'<div class="figures">{"".join(drawn)}</div>' + fold("Places in figures", numbers) + left_out(tree)


def left_out(tree: xr.DataTree) -> str:
    """Say how likely each count would be were it left out, and whether that can be told (PSIS-LOO)."""
    likely = group(tree, "log_likelihood")
    if not likely.data_vars:
        return ""
    names = [str(n) for n in likely.data_vars]
    values = [cells(tree, "log_likelihood", n).reshape(likely.sizes["chain"], likely.sizes["draw"], -1) for n in names]
    labels = [(n, k) for n, x in zip(names, values, strict=True) for k in range(x.shape[-1])]
    each = np.concatenate(values, -1)
    known = np.isfinite(each).all((0, 1))
    if not known.any() or each.shape[0] * each.shape[1] < FEW:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Slow to import, and no other page needs it.
        import arviz as az

        parameters = {str(n): x.to_numpy() for n, x in group(tree, "posterior").data_vars.items()}
        found = az.loo(az.from_dict(posterior=parameters, log_likelihood={"counts": each[..., known]}), pointwise=True)
    # A count that every draw finds as likely has no tail to be fitted, and none that could do harm.
    swayed = np.ptp(each[..., known], (0, 1)) > 0
    khats = np.where(swayed, np.nan_to_num(found.pareto_k.to_numpy(), nan=np.inf, posinf=np.inf), 0.0)
    bound = float(found.good_k)
    bad, most = int((khats > bound).sum()), float(khats.max())
    said = (
        f"Left out one by one, {len(khats)} counts have an expected log predictive density of "
        f"{minus(float(found.elpd_loo))} ± {number(float(found.se))} together, greater in the better of two fits "
        f"of the same counts; the fit is as free as one of {number(float(found.p_loo))} parameters, with its chance. "
    )
    if not bad:
        return f"<p>{said}All Pareto k-hats are at most {bound:.2f}, so that this can be relied on.</p>"
    name, at = [label for label, good in zip(labels, known, strict=True) if good][int(khats.argmax())]
    seen, start = group(tree, "observed_data")[name], str(tree.attrs.get("start", ""))
    where = np.unravel_index(at, seen.shape)
    place = [
        day_label(int(i), start) if d == "day" else str(seen[d].values[i])
        for d, i in zip(seen.dims, where, strict=True)
    ]
    said += f"{bad} of their Pareto k-hats {'is' if bad == 1 else 'are'} above {bound:.2f}, the largest "
    said += f"{f'{most:.2f}' if np.isfinite(most) else 'without bound'}, of "
    return f"<p>{escape(said)}{escape(', '.join([name.replace('_', ' '), *place]))}: take it as rough.</p>"


def effort(tree: xr.DataTree) -> str:
    """Say what runs the posterior was learnt from, how the whole society differs, and where the time went."""
    attrs, told = tree.attrs, []
    agents, coarse = int(attrs["agents"]), int(attrs.get("coarse_agents", attrs["agents"]))
    if "runs" in attrs:
        told.append(f"The posterior was learnt from {number(int(attrs['runs']))} runs of {number(coarse)} people.")
    gaps = {
        str(n).removeprefix("gap_"): x for n, x in group(tree, "fit").data_vars.items() if str(n).startswith("gap_")
    }
    away = {n.replace("_", " "): np.expm1(x.to_numpy()[np.isfinite(x.to_numpy())]) for n, x in gaps.items() if x.any()}
    if away:
        each = [
            f"{n} {_percents(x.mean())} on average ({_percents(x.min())} to {_percents(x.max())})"
            for n, x in away.items()
        ]
        told.append(f"Beside them the whole society of {number(agents)} has: {join(each)}. That is made up for.")
    elif coarse == agents:
        told.append("They are of the whole society, so that there is no coarse one to make up for.")
    parts = json.loads(str(attrs.get("seconds_by_part") or "{}"))
    words = {"rounds": "Runs of the rounds", "whole": "Runs of the whole", "guide": "Fits of the guide"}
    seconds = {words.get(n, n.capitalize()): f"{float(v):,.1f} s" for n, v in parts.items() if float(v) > 0}
    return (f"<p>{escape(' '.join(told))}</p>" if told else "") + (facts(seconds) if seconds else "")


def _percents(x: float) -> str:
    return f"{'+' if x > 0 else ''}{100 * x:.1f} %".replace("-", "−")
