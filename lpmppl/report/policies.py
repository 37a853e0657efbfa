"""The page of a counterfactual run: what the policies did, to everyone and by group, on which days, and to whom."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from operator import attrgetter

import xarray as xr

from lpmppl.report import changes, charts, tables
from lpmppl.report.acts import does, drawn, policies, several, triggers
from lpmppl.report.axes import amount, number, percent, signed
from lpmppl.report.blocks import fold, join, listed, plain, prose, section, subhead, table
from lpmppl.report.effects import Effect, effects, idle, main, sentence, span
from lpmppl.report.fates import people_between

__all__ = ["answer", "fewer", "headline", "origin", "worlds"]

MOST_POLICIES = 5
MOST_SAID = 4
MOST_ROWS = 40
MOST_WORLDS = 5
"""How many figures of the worlds over time are unfolded."""

CHANCE, PARAMETERS = attrgetter("chance"), attrgetter("parameters")


def fewer(tree: xr.DataTree) -> xr.DataTree:
    """Keep the world as it was and the policies that figures have room for: those that do most to the first tally."""
    names = policies(tree)
    if len(names) <= MOST_POLICIES:
        return tree
    first = next(iter(tree["effects"].to_dataset().data_vars.values()))
    kept = charts.keep_largest(abs(first.sel(estimate="mean")).to_numpy().tolist(), MOST_POLICIES)
    worlds = {len(names): kept, len(names) + 1: [0, *(k + 1 for k in kept)]}
    groups = {"/": xr.Dataset(attrs=tree.attrs)}
    for name, node in tree.children.items():
        found = node.to_dataset()
        groups[f"/{name}"] = found.isel(policy=worlds[found.sizes["policy"]]) if "policy" in found.dims else found
    return xr.DataTree.from_dict(groups)


def headline(tree: xr.DataTree) -> str:
    """Give what the main tallies come to as it was, and under each policy."""
    shown, first, tallies = policies(fewer(tree)), main(tree), tables.tallies(tree)
    agents = float(tree.attrs["agents"])
    cards = []
    for found in effects(tree).values():
        one, tally = found[0][0], tallies[found[0][0].tally]
        if one.tally not in first or one.kind == "last":
            continue
        aside = "as it was"
        if tables.of_people(tally):
            aside += f", {percent(one.was / agents)} of people"
        elif tables.unit(tally) not in tables.label(tally).lower():
            aside = f"{tables.unit(tally)} {aside}"
        card = [
            f"<dt>{escape(tables.label(tally))} {'at the peak' if one.kind == 'peak' else 'in all'}</dt>",
            f'<dd class="figure">{amount(one.was)}</dd><dd class="aside">{escape(aside)}</dd>',
        ]
        for name, (effect,) in zip(policies(tree), found, strict=True):
            if name in shown:
                said = "the same" if effect.none else amount(one.was + effect.mean)
                card.append(f'<dd class="other"><span>{escape(name)}</span> <b>{said}</b></dd>')
        cards.append(f"<div>{''.join(card)}</div>")
    draws = several(tree)
    notes = [f"Means of {drawn(tree)}." if draws > 1 else "", told(tree)]
    note = f'<p class="caption">{" ".join(filter(None, notes))}</p>' if any(notes) else ""
    return f'<dl class="headline compared">{"".join(cards)}</dl>{note}'


def told(tree: xr.DataTree) -> str:
    """Say which policies the figures show, where they don't show all."""
    names = policies(tree)
    if len(names) <= MOST_POLICIES:
        return ""
    first = charts.said(next(iter(tables.tallies(tree).values())))
    return escape(
        f"Here and in figures: the {MOST_POLICIES} of {len(names)} policies that do most to {first}; tables have all."
    )


def answer(tree: xr.DataTree) -> str:
    """Give the sections on what the policies did: in words, as a table, over time, by group and to whom."""
    found, shown = {name: [e for (e,) in x] for name, x in effects(tree).items()}, fewer(tree)
    strata = [n.removeprefix("effects_by_") for n in tree.children if n.startswith("effects_by_")]
    first = section("What the policies did", said(tree, found) + tabulated(tree, found))
    if all(idle(tree)):
        return first
    return first + "".join(
        [
            section("The effect over time", changes.over_time(shown)),
            *(section(f"The effect by {s.replace('_', ' ')}", changes.grouped(shown, s)) for s in strata),
            section("Who would have fared otherwise", people_between(tree, shown)),
        ]
    )


def worlds(tree: xr.DataTree) -> list[str]:
    """Give the sections on the worlds themselves, most of their figures folded away."""
    shown = fewer(tree)
    summary = tables.summary(shown)
    by = [
        fold(f"By {s.replace('_', ' ')}", charts.stratum(shown, s, summary)) for s in summary["stratum"].unique() if s
    ]
    return [
        section("Every world over time", charts.over_time(shown, MOST_WORLDS)),
        section("Every world by group", "".join(by)),
    ]


def said(tree: xr.DataTree, found: dict[str, list[Effect]]) -> str:
    """Say in words what each policy did: to the first tally, and to the next few that it moves."""
    names, nothing, wanted = policies(tree), idle(tree), main(tree)
    unfolded = [e for e in found.values() if e[0].tally in wanted and e[0].kind != "last"]
    shown = policies(fewer(tree))
    blocks, others = [], []
    for k, name in enumerate(names):
        title = f'<h3>{escape(name)}</h3><p class="does">{escape(does(tree, name))}</p>'
        if nothing[k]:
            text = "No effect, exactly: every tally is what it was, on every day and in every group."
            text = f'{title}<p class="verdict">{text}</p>'
        else:
            told = listed([*triggers(tree, name), *prices(tree, name)])
            text = title + told + verdict([e[k] for e in unfolded], MOST_SAID if len(shown) == len(names) else 0)
        if name in shown:
            blocks.append(
                f'<div class="policy" style="border-color:{charts.colour(shown.index(name) + 1)}">{text}</div>'
            )
        else:
            others.append(f'<div class="policy">{text}</div>')
    about = (
        f"<p>The {tables.agents_are(tree)} and all of their chance are the same in every world, so that what differs "
        "between worlds is the "
        "policies' doing. An effect is what comes about with a policy, less what came about without it.</p>"
    )
    rest = f'<div class="policies">{"".join(others)}</div>' if others else ""
    more = f"{len(others)} other {'policy' if len(others) == 1 else 'policies'}"
    return f'{about}<div class="policies">{"".join(blocks)}</div>{fold(more, rest)}'


def verdict(found: Sequence[Effect], most: int) -> str:
    """Say what a policy did to the first tally, and to `most` of the others that it moves."""
    first, *others = map(sentence, [found[0], *(e for e in found[1:] if not e.none)])
    return f'<p class="verdict">{prose(first[:1].upper() + first[1:])}.</p>{listed(others[:most])}'


def prices(tree: xr.DataTree, policy: str) -> list[str]:
    """Say what an averted outcome costs under a policy, of the most frequent outcomes and those in which people die."""
    if "costs" not in tree.children or not tree["costs"].sizes.get("outcome"):
        return []
    found = tree["costs"].to_dataset()["cost"].sel(policy=policy)
    given = []
    for name in (str(n) for n in found["outcome"].values):
        mean, low, high = (float(found.sel(outcome=name, estimate=e)) for e in ("mean", "low", "high"))
        if name in main(tree) and math.isfinite(mean) and mean > 0:
            most = amount(high) if math.isfinite(high) else "no bound"
            draws = f" ({amount(low)} to {most})" if several(tree) > 1 else ""
            units = str(found.attrs.get("units", "")).partition(" per averted")[0]
            given.append(
                f"{amount(mean)}{draws} {units} for each averted of: {charts.said(tables.tallies(tree)[name])}"
            )
    return given


def tabulated(tree: xr.DataTree, found: dict[str, list[Effect]]) -> str:
    """Tabulate the effects on the main tallies, and folded away those on the others and on the last day alone."""
    first, room = main(tree), max(1, MOST_ROWS // len(policies(tree)))
    shown = [e for e in found.values() if e[0].tally in first and e[0].kind != "last"][:room]
    others = [e for e in found.values() if e not in shown]
    rest = fold("The effect on everything else", effects_table(tree, others) if others else "")
    return effects_table(tree, shown) + rest


def effects_table(tree: xr.DataTree, found: Sequence[list[Effect]]) -> str:
    """Tabulate effects by tally and policy."""
    draws, whose = several(tree), policies(tree)
    apart, both = (any(math.isfinite(sd(e)) for x in found for e in x) for sd in (CHANCE, PARAMETERS))
    alone = len(whose) == 1
    head = ["", *(["As it was"] if alone else []), "Effect", *(["90 % of draws"] if draws > 1 else []), "Relative"]
    head += [*(["sd by chance"] if apart else []), *(["sd by parameters"] if both else [])]
    body = []
    for given in found:
        one = given[0]
        unit = "" if one.units in ("people", "") else f" {one.units}"
        title = one.title[:1].upper() + one.title[1:]
        if not alone:
            body.append(subhead(f"{title}: {amount(one.was)}{unit} as it was", len(head)))
        for who, e in zip(whose, given, strict=True):
            cells = [*([amount(e.was)] if alone else []), cell(e)]
            cells += [*([span(e) or "–"] if draws > 1 else []), e.relative or "–"]
            cells += [*([amount(e.chance)] if apart else []), *([amount(e.parameters)] if both else [])]
            line = "".join(f"<td>{c}</td>" for c in cells)
            row = f"{title}{f',{unit}' if unit else ''}" if alone else who
            body.append(f'<tr><th scope="row">{escape(row)}</th>{line}</tr>')
    spread = f" Means of {drawn(tree)}." if draws > 1 else ""
    days = int(tree.attrs["days"])
    caption = (
        f"With a policy, less without it; relative to the mean as it was. What is counted each day adds up over {days} "
        f"{'day' if days == 1 else 'days'}.{spread}"
    )
    return table(head, body, caption, "effects")


def cell(effect: Effect) -> str:
    """Write an effect for a cell of a table; one of nought in all may still differ on single days."""
    if effect.none:
        return "exactly 0"
    return "0 in all" if effect.exact and effect.mean == 0 else signed(effect.mean)


def origin(tree: xr.DataTree) -> dict[str, object]:
    """Say where a counterfactual run comes from: what its policies do, its draws, and what its worlds share."""
    return {
        "Policies": plain([f"{name}: {does(tree, name) or 'nothing'}" for name in policies(tree)]),
        "Draws": escape(draws_from(tree)),
        "Worlds": f"Every world has the same {tables.agents_are(tree)} and the same chance for each of "
        "them, from the seed and draw; they "
        "are one until a policy acts.",
    }


def draws_from(tree: xr.DataTree) -> str:
    """Say how often parameters and chance were drawn, and from what.

    In a run of several draws of chance for each of the parameters, the coordinate `parameters` numbers the latter.
    """
    draws, source = several(tree), str(tree.attrs.get("draws_from", ""))
    whence = {"prior": "from their priors", "posterior": "from a posterior", "defaults": "at their defaults"}
    found = tree["prior_predictive"].to_dataset()
    of = len(set(found["parameters"].values.tolist())) if "parameters" in found.coords else draws
    if source == "defaults":
        taken = "the parameters at their defaults"
    else:
        taken = f"{number(of)} {'draw' if of == 1 else 'draws'} of the parameters {whence.get(source, source)}".strip()
    each = draws // max(of, 1)
    chance = f"{each} draws of chance" if each > 1 else "one draw of chance"
    fixed = json.loads(str(tree.attrs.get("parameters", "{}"))) if source != "defaults" else {}
    given = f"; given: {join([f'{k} = {v:g}' for k, v in fixed.items()])}" if fixed else ""
    observed = list(json.loads(str(tree.attrs.get("observed", "{}"))))
    worth = float(tree.attrs.get("effective_draws", draws))
    seen = f"; weighted by the {join(observed)} that were observed, so worth {number(worth)} draws" if observed else ""
    return f"{taken}, with {chance}{' for each' if of > 1 else ''}{given}{seen}"
