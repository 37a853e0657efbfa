"""People whose outcome would have been another: probabilities of necessity and of sufficiency, in plain words."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from html import escape

import numpy as np
import xarray as xr

from lpmppl.report import tables
from lpmppl.report.acts import drawn, named, policies, several
from lpmppl.report.axes import amount, percent
from lpmppl.report.blocks import fold, join, listed, subhead, table
from lpmppl.report.charts import NARROW, colour, figure
from lpmppl.report.streams import Stream, streams

__all__ = ["Fate", "fates", "outcomes", "people_between"]

LEAST = 1e-4
"""The least share that is written as it is."""

MOST_ROWS = 40
UNCOUNTED = (*tables.SAMPLES, "policy", "was", "would")


@dataclass(frozen=True)
class Fate:
    """How many people, on the mean of draws, have an outcome as it was and under a policy, and the shares that differ.

    `necessity` is the share of those with the outcome who wouldn't have it under the policy, `sufficiency` that of the
    others who would: (mean, low, high) over the draws in which there is anybody, NaN where there is in none.
    """

    both: float
    averted: float
    caused: float
    neither: float
    necessity: tuple[float, float, float]
    sufficiency: tuple[float, float, float]


def fates(counts: xr.DataArray) -> list[Fate]:
    """Read people by outcome as it was and as it would have been, dims (chain, draw, rows, was, would), row by row."""
    values = counts.astype(float)
    both, averted = values.sel(was="yes", would="yes", drop=True), values.sel(was="yes", would="no", drop=True)
    caused, neither = values.sel(was="no", would="yes", drop=True), values.sel(was="no", would="no", drop=True)
    had, others = both + averted, caused + neither
    means = [np.atleast_1d(tables.mean(x)) for x in (both, averted, caused, neither)]
    shares = [share(averted / had.where(had > 0)), share(caused / others.where(others > 0))]
    return [
        Fate(float(b), float(a), float(c), float(n), *both_shares)
        for b, a, c, n, *both_shares in zip(*means, *shares, strict=True)
    ]


def share(values: xr.DataArray) -> list[tuple[float, float, float]]:
    """Give mean, low and high of a share over the draws in which it is one, row by row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nobody in every draw
        low, _, high = tables.over(values)
        mean = tables.mean(values)
    rows = zip(*map(np.atleast_1d, (mean, low, high)), strict=True)
    return [(float(m), float(a), float(b)) for m, a, b in rows]


def outcomes(tree: xr.DataTree) -> dict[str, list[Fate]]:
    """Give the fates by outcome and policy, those first that most people would have had otherwise."""
    if "flows" not in tree.children:
        return {}
    found = {}
    for name, counts in tree["flows"].to_dataset().data_vars.items():
        found[str(name)] = fates(counts.sum([d for d in counts.dims if d not in UNCOUNTED]))
    return dict(sorted(found.items(), key=lambda item: -max(f.averted + f.caused for f in item[1])))


def people_between(tree: xr.DataTree, shown: xr.DataTree) -> str:
    """Say and draw who would have had another outcome; `shown` is the tree of the policies that figures show."""
    found = outcomes(tree)
    changed = {n: x for n, x in found.items() if any(f.averted or f.caused for f in x)}
    if not found:
        return ""
    same = [n for n in found if n not in changed]
    still = f"<p>Nobody's outcome would have been another, exactly: {escape(join(same))}.</p>" if same else ""
    if not changed:
        return still
    about = (
        "<p>The worlds share everybody's chance, so that each person can be followed from one to the other. Of those "
        "with an outcome as it was, the share who wouldn't have it under the policy is the probability of "
        "<em>necessity</em>: for them it took that the policy wasn't done. Of the others, the share who would have it "
        "is the probability of <em>sufficiency</em>: for them the policy would have brought it about.</p>"
    )
    told = listed([said for n in changed for said in sentences(shown, n, outcomes(shown)[n])])
    figures = "".join(drawing(shown, name) for name in changed)
    counts = counted(tree, changed)
    if len(changed) * len(policies(tree)) > MOST_ROWS:
        counts = fold("Every policy in figures", counts)
    by = fold("The same by group", by_group(tree, list(changed)))
    return f'{about}{told}<div class="figures three">{figures}</div>{counts}{still}{by}'


def sentences(tree: xr.DataTree, outcome: str, found: list[Fate]) -> list[str]:
    """Say what every policy would have changed about an outcome; nothing for those that wouldn't."""
    given = []
    for policy, f in zip(policies(tree), found, strict=True):
        if not f.averted and not f.caused:
            continue
        had, others = f.both + f.averted, f.caused + f.neither
        given.append(
            f"{outcome.capitalize()}: {amount(had)} people as it was. Under {named(tree, policy)}, "
            f"{amount(f.averted)} of them would not{of(f.necessity, 'necessity')}, and {amount(f.caused)} of the "
            f"{amount(others)} others would{of(f.sufficiency, 'sufficiency')}."
        )
    return given


def of(shares: tuple[float, float, float], name: str) -> str:
    """Write a share within a sentence; nothing where it is of nobody."""
    return f" ({name}: {portion(shares[0])})" if np.isfinite(shares[0]) else ""


def portion(value: float) -> str:
    """Write a share of people, without digits that nobody needs.

    >>> portion(0.384), portion(0.0000089), portion(0), portion(float("nan"))
    ('38 %', 'under 0.01 %', '0 %', '–')
    """
    if not np.isfinite(value):
        return "–"
    return percent(value) if value == 0 or value >= LEAST else "under 0.01 %"


def drawing(tree: xr.DataTree, outcome: str) -> str:
    """Draw the people between an outcome as it was and under every policy."""
    names = policies(tree)
    rows = [
        Stream(name, f.both, f.averted, f.caused, colour(k + 1))
        for k, (name, f) in enumerate(zip(names, outcomes(tree)[outcome], strict=True))
        if f.averted or f.caused
    ]
    if not rows:
        return ""
    title = f"{outcome.capitalize()}?"
    draws = several(tree)
    mean = f" Means of {drawn(tree)}." if draws > 1 else ""
    caption = f"People with the outcome in either world; in grey, in both.{mean}"
    return figure(title, streams(rows, NARROW, "as it was", f"{title} People as it was and under policies"), caption)


def counted(tree: xr.DataTree, found: dict[str, list[Fate]]) -> str:
    """Tabulate people by outcome as it was and under each policy."""
    draws = several(tree)
    head = ["", "Both", "Only as it was", "Only with it", "Neither", "Necessity", "Sufficiency"]
    body = []
    for outcome, of_policies in found.items():
        body.append(subhead(outcome.capitalize(), len(head)))
        for policy, f in zip(policies(tree), of_policies, strict=True):
            numbers = "".join(f"<td>{amount(v)}</td>" for v in (f.both, f.averted, f.caused, f.neither))
            shares = "".join(f"<td>{ranged(s, draws)}</td>" for s in (f.necessity, f.sufficiency))
            body.append(f'<tr><th scope="row">{escape(policy)}</th>{numbers}{shares}</tr>')
    mean = f" Means of {drawn(tree)}, of shares too, so that these needn't be quotients of the counts"
    spread = f"{mean}; in brackets, 90 % of draws." if draws > 1 else ""
    caption = (
        f"People who have the outcome in both worlds, as it was alone, with the policy alone, and in neither.{spread}"
    )
    return table(head, body, caption, "counted")


def ranged(shares: tuple[float, float, float], draws: int) -> str:
    """Write a share with its interval, for a cell of a table."""
    mean, low, high = shares
    shown = draws > 1 and high > low and high >= LEAST
    return portion(mean) + (f" ({amount(100 * low)} to {amount(100 * high)})" if shown else "")


def by_group(tree: xr.DataTree, names: list[str]) -> str:
    """Tabulate necessity and sufficiency by every group of the population that outcomes are counted by."""
    flows = tree["flows"].to_dataset()
    strata = [str(d) for d in flows.dims if d not in UNCOUNTED]
    head = ["", "Policy", *(f"{n.capitalize()}: {word}" for n in names for word in ("as it was", "wouldn't", "would"))]
    body = []
    for stratum in strata:
        body.append(subhead(f"By {stratum.replace('_', ' ')}", len(head)))
        others = [d for d in strata if d != stratum]
        found = {
            n: fates(flows[n].sum(others).stack(row=[stratum, "policy"], create_index=False).transpose(..., "row"))
            for n in names
        }
        titles = [(str(group), policy) for group in flows[stratum].values for policy in policies(tree)]
        for row, (group, policy) in enumerate(titles):
            cells = []
            for name in names:
                f = found[name][row]
                cells += [amount(f.both + f.averted), portion(f.necessity[0]), portion(f.sufficiency[0])]
            line = "".join(f"<td>{cell}</td>" for cell in cells)
            body.append(f'<tr><th scope="row">{escape(group)}</th><td class="text">{escape(policy)}</td>{line}</tr>')
    caption = (
        "People with the outcome as it was; of them, the share who wouldn't have it under the policy (necessity); of "
        "the others, the share who would (sufficiency)."
    )
    return table(head, body, caption) if body else ""
