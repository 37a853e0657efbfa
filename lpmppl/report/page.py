"""A result as one self-contained page: no network, readable on a phone, on paper and without a script."""

from __future__ import annotations

import json
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.report import acts, calibration, charts, policies, posterior, tables, tornado
from lpmppl.report.atomic import replacing
from lpmppl.report.axes import day_label, number, rate, share, whole
from lpmppl.report.blocks import facts, fold, join, plain, section, subhead, table

__all__ = ["render", "write"]

FIRST = 6
"""How many tallies over time are unfolded on the page of a calibration, which has figures enough before them."""


def write(tree: xr.DataTree, path: str | Path, map_: str = "") -> Path:
    """Write the report of a result to `path`, and give the file's path.

    A path that doesn't end in `.html` is a folder, made if need be, for `report.html`. The file appears whole or not at
    all. `map_` is the address of the result's map, for a link to it. Raises InputError where `tree` holds no tallies or
    the file can't be written.
    """
    page = render(tree, map_)
    target = Path(path)
    if target.suffix != ".html":
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {target} can't be made ({error.strerror}): choose another") from error
        target = target / "report.html"
    with replacing(target) as part:
        part.write_text(page, encoding="utf-8")
    return target


def render(tree: xr.DataTree, map_: str = "") -> str:
    """Give the report of a result as HTML, with a link to its map where that has an address.

    Raises InputError where `tree` isn't a result or holds no tallies.
    """
    if not tables.held(tree) or "agents" not in tree.attrs or not tables.tallies(tree):
        raise InputError(
            f"nothing to report: the result has no daily tallies under /{' or /'.join(tables.HELD)}; a network's "
            "posterior has them where simulations= are asked for"
        )
    summary = tables.summary(tree)
    question = ask(tree)
    asked, fitted = bool(acts.policies(tree)), calibration.is_one(tree)
    totals = summary_table(tree, summary)
    link = f'<p><a href="{escape(map_, quote=True)}">The map, day by day</a></p>' if map_ else ""
    parts = [
        f'<header><p class="over">{escape(overline(tree))}</p><h1>{escape(question)}</h1>{link}</header>',
        *(calibration.sections(tree) if fitted else []),
        section("What the fitted society does", headline(tree)) if fitted else "",
        policies.headline(tree) + policies.answer(tree) if asked else "" if fitted else headline(tree),
        *(policies.worlds(tree) if asked else figures(tree, summary)),
        section("What it hangs on", tornado.sensitivity(tree)),
        section("Summary", fold("Every world in figures", totals) if asked else totals),
        section("Parameters", posterior.parameters(tree) if fitted else parameters(tree)),
        section("Where this comes from", provenance(tree)),
    ]
    css, js = (
        files("lpmppl.report").joinpath("templates", f"page.{kind}").read_text("utf-8") for kind in ("css", "js")
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(question)}</title>\n<style>\n{css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + f"\n</main>\n<script>\n{js}</script>\n</body>\n</html>\n"
    )


def figures(tree: xr.DataTree, summary: pd.DataFrame) -> list[str]:
    """Give the sections of figures: over time, and by each stratum."""
    strata = [s for s in summary["stratum"].unique() if s]
    return [
        section("Over time", charts.over_time(tree, FIRST if calibration.is_one(tree) else None)),
        *(section(f"By {s.replace('_', ' ')}", charts.stratum(tree, s, summary)) for s in strata),
    ]


def short(name: str) -> str:
    """Write an abbreviation in capitals.

    >>> short("nyc"), short("pandemic")
    ('NYC', 'pandemic')
    """
    return name.upper() if len(name) <= 5 else name


def place(tree: xr.DataTree) -> str:
    """Name the place that the population stands for."""
    return short(str(tree.attrs.get("population", "")).removeprefix("Synthetic population of "))


def overline(tree: xr.DataTree) -> str:
    """Say what kind of run the report is about."""
    how = "fitted" if calibration.is_one(tree) else "simulated"
    return f"{short(str(tree.attrs['model']))} model · {how} by {product(tree)}"


def product(tree: xr.DataTree) -> str:
    """Name the program with its version, where it is known."""
    version = str(tree.attrs.get("lpmppl_version", ""))
    return f"lpmppl {version}" if version[:1].isdigit() else "lpmppl"


def ask(tree: xr.DataTree) -> str:
    """Put the question that the run answers."""
    attrs = tree.attrs
    days = int(attrs["days"])
    where = f" of {place(tree)}" if attrs.get("population") else ""
    question = f"What happens among {tables.agents(tree)}{where} in {days} {'day' if days == 1 else 'days'}"
    start = str(attrs.get("start", ""))
    done = [
        f"{n} is set to {v:g} {'on' if start else 'from'} {day_label(d, start)}"
        for n, v, d in charts.interventions(tree)
    ]
    if calibration.is_one(tree):
        return calibration.ask(tree, where)
    if acts.policies(tree):
        return acts.ask(tree, where, done)
    return f"{question} if {join(done)}?" if done else f"{question}?"


def headline(tree: xr.DataTree) -> str:
    """Give the run's main numbers, a card per tally."""
    cards = []
    start = str(tree.attrs.get("start", ""))
    agents = float(tree.attrs["agents"])
    for tally in tables.tallies(tree).values():
        stock = tally.attrs.get("kind", "flow") == "stock"
        card = [f"<dt>{escape(tables.label(tally))} {'at the peak' if stock else 'in all'}</dt>"]
        for i, world in enumerate(tables.worlds(tally)):
            low, middle, high = tables.over(tables.amount(tables.city(tally, i), "stock" if stock else "flow"))
            days = tables.daily(tally, i)[1]
            when = day_label(int(days.argmax()), start)
            asides = [share(middle, agents) if tables.of_people(tally) else tables.unit(tally)]
            if high > low:
                asides.append(f"90 %: {whole(low)} to {whole(high)}")
            if days.max() > 0:
                asides.append(f"on {when}" if stock else f"most on {when}")
            card += [f'<dd class="world">{escape(world)}</dd>'] if world else []
            card.append(f'<dd class="figure">{whole(middle)}</dd>')
            card += [f'<dd class="aside">{escape(a)}</dd>' for a in asides if a]
        cards.append(f"<div>{''.join(card)}</div>")
    return f'<dl class="headline">{"".join(cards)}</dl>'


def summary_table(tree: xr.DataTree, summary: pd.DataFrame) -> str:
    """Tabulate totals and rates for everyone and for each group."""
    named = tables.tallies(tree)
    several = summary["world"].nunique() > 1
    head = ["", *(["World"] if several else []), "People"]
    for tally in named.values():
        head += [tables.label(tally) + (", peak" if tally.attrs.get("kind") == "stock" else ""), "per 100,000"]
    body = []
    for stratum, of_stratum in summary.groupby("stratum", sort=False):
        if stratum:
            body.append(subhead(f"By {str(stratum).replace('_', ' ')}", len(head)))
        for (group, world), cells in of_stratum.groupby(["group", "world"], sort=False):
            values = {row.tally: row for row in cells.itertuples()}
            residents = cells["people"].iloc[0]
            line = [f'<td class="text">{escape(str(world))}</td>'] if several else []
            line.append(f"<td>{whole(residents)}</td>")
            for name in named:
                amount, per_head = (values[name].value, values[name].per_100000) if name in values else (np.nan, np.nan)
                line.append(f"<td>{whole(amount)}</td><td>{rate(per_head)}</td>")
            title = "Everyone" if not stratum else str(group)
            body.append(
                f'<tr class="{"" if stratum else "all"}"><th scope="row">{escape(title)}</th>{"".join(line)}</tr>'
            )
    draws = " Medians over draws." if (summary["high"] > summary["low"]).any() else ""
    caption = f"Flows add up over {tree.attrs['days']} days; for stocks, the largest number on any one day.{draws}"
    return table(head, body, caption) + daily_table(tree)


def daily_table(tree: xr.DataTree) -> str:
    """Tabulate the daily series, folded away, for readers who can't see the curves."""
    named = tables.tallies(tree)
    columns = {}
    for tally in named.values():
        for i, world in enumerate(tables.worlds(tally)):
            columns[tables.label(tally) + (f", {world}" if world else "")] = tables.daily(tally, i)[1]
    start = str(tree.attrs.get("start", ""))
    body = [
        f'<tr><th scope="row">{escape(day_label(d, start).capitalize())}</th>'
        f"{''.join(f'<td>{number(v)}</td>' for v in row)}</tr>"
        for d, row in enumerate(zip(*columns.values(), strict=True))
    ]
    return fold("Every day in figures", table(["", *columns], body, "Everyone, day by day."))


def parameters(tree: xr.DataTree) -> str:
    """Tabulate the model's parameters with their values, units and sources."""
    if "prior" not in tree.children:
        return ""
    body = []
    for key, values in tree["prior"].to_dataset().data_vars.items():
        name = str(key)
        low, middle, high = tables.over(values).reshape(3, -1)[:, 0]
        words = name.replace("_", " ")
        about = str(values.attrs.get("long_name") or name).replace("_", " ")
        title = words if about == words else f"{about} ({name})"
        unit = str(values.attrs.get("units") or "")
        band = f" ({low:.3g} to {high:.3g})" if high > low else ""
        body.append(
            f'<tr><th scope="row">{escape(title[:1].upper() + title[1:])}</th>'
            f"<td>{middle:.4g}{band} {escape(unit)}</td>"
            f'<td class="prose text">{escape(str(values.attrs.get("source") or ""))}</td></tr>'
        )
    drawn = any(v.size > 1 for v in tree["prior"].to_dataset().data_vars.values())
    caption = "Medians of the draws with 90 % intervals." if drawn else "The values that this run used."
    return table(["Parameter", "Value", "Source"], body, caption, "parameters") if body else ""


def moment(text: str) -> str:
    """Write an ISO moment for readers; other text stays as it is.

    >>> moment("2026-01-05T10:11:12+00:00")
    '5 January 2026, 10:11 UTC'
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".rstrip()


def read_json(text: object) -> dict[str, object]:
    """Read an attribute that holds JSON; text that isn't a JSON object is kept as it is."""
    try:
        value = json.loads(str(text or "{}"))
    except json.JSONDecodeError:
        value = str(text)
    return value if isinstance(value, dict) else {"provenance": value}


def provenance(tree: xr.DataTree) -> str:
    """Say how the run was made, with what versions, and on which data its population stands."""
    attrs = tree.attrs
    words = [f"<span>{escape(word)}</span>" for word in str(attrs.get("command", "")).split()]
    command = f"<code>{' '.join(words)}</code>" if words else ""
    done = join([f"{n} = {v:g} from day {d}" for n, v, d in charts.interventions(tree)] or ["none"])
    stack = [f"{k} {v}" for k, v in read_json(attrs.get("versions")).items() if k != "lpmppl"]
    seconds = f"{float(attrs['seconds']):,.1f} s on {attrs.get('device', 'cpu')}" if "seconds" in attrs else ""
    run = facts(
        {
            "Command": command,
            "Model": escape(str(attrs["model"])),
            "Population": escape(f"{place(tree)}, {tables.agents(tree)}".lstrip(", ")),
            "Days": escape(
                f"{attrs['days']}" + (f" from {day_label(0, str(attrs['start']))}" if attrs.get("start") else "")
            ),
            "Seed": escape(str(attrs["seed"])),
            "Interventions": escape(done),
            **(policies.origin(tree) if acts.policies(tree) else {}),
            "Simulated in": escape(seconds),
            "Made": escape(moment(str(attrs.get("created", "")))),
            "Versions": escape(", ".join([product(tree), *stack])),
        }
    )
    origin = {
        str(k).replace("_", " ").capitalize(): plain(v)
        for k, v in read_json(attrs.get("population_provenance")).items()
    }
    return run + (f"<h3>The population</h3>{facts(origin)}" if origin else "")
