"""`lpmppl forecast`: what a calibrated society says of the weeks after the data, and how good that was."""

from __future__ import annotations

import csv
import io
import json
import os
from datetime import date, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli.counts import counted, known_of
from lpmppl.cli.options import AsJson
from lpmppl.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["forecast"]

MEASURES = ("wis", "covered", "covered_half")
_TARGETS = {"admissions": "inc hosp", "deaths": "inc death", "cases": "inc case"}


def forecast(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR …", help="The folders of calibrations made with --ahead, one or several."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What was counted later, to score by: the Health Department's trends/data-by-day.csv; of "
            "calibrations with --vintage versions of it, of which the first with all these days is taken.",
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the 23 quantiles in the hubs' format here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast weekly counts after the days that calibrations were fitted to.

    With the data of later they are scored by the weighted interval score, counts a week, less being better, beside the
    hybrid, which takes into account what the model lately missed by; persistence, the last week going on; and ARIMA,
    where statsmodels is installed. Several folders are several origins.

    [bold]Examples[/]

    [cyan]lpmppl calibrate nyc --data data-by-day.csv --until 2020-05-31 --ahead 28 --out runs/fit[/]

    [cyan]lpmppl forecast runs/fit --data data-by-day.csv --csv forecast.csv[/]

    Rolling origins, each with what was known then:

    [cyan]for day in 2020-05-01 2020-06-01; do
    lpmppl calibrate nyc --data vintages.csv --vintage $day --ahead 28 --out runs/$day; done[/]

    [cyan]lpmppl forecast runs/2020-05-01 runs/2020-06-01 --data vintages.csv[/]
    """
    from lpmppl.inference import forecast as asked
    from lpmppl.report import datatree

    # A loop of links has no place, which resolve() would raise for.
    places = [os.path.realpath(folder) for folder in folders]
    if again := [folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1]:
        raise InputError(f"{again[-1]} was given twice; name each calibration once, so that it counts once")
    fits = [datatree.load(folder / "results.nc") for folder in folders]
    origins = []
    for folder, fit in zip(folders, fits, strict=True):
        said: dict[str, Any] = {
            "folder": str(folder),
            "forecast": {str(n): _city(x) for n, x in asked.forecast(fit, summed=True).items()},
            "from": _date(fit, 0) or int(fit.attrs["fitted_days"]),
        }
        if data is not None:
            scores = asked.scored(fit, _counted_later(data, fit), forecasters=_forecasters())
            for measure in MEASURES:
                said[measure] = {str(n): _scores(scores[f"{n}_{measure}"]) for n in fit["observed_data"].data_vars}
        origins.append(said)
    outcome = {"from": origins[-1]["from"], "forecast": origins[-1]["forecast"], "origins": origins}
    if data is not None:
        outcome |= {measure: _pooled([each[measure] for each in origins]) for measure in MEASURES}
    if table is not None:
        from lpmppl.report.atomic import replacing

        with replacing(table) as part:
            part.write_text(_hub(fits), encoding="utf-8")
        outcome["csv"] = str(table)
    if as_json:
        print(json.dumps(outcome))
    else:
        _show(outcome)


def _forecasters() -> list[str]:
    """All that can be made here."""
    from lpmppl.inference.forecast import FORECASTERS

    return [name for name in FORECASTERS if name != "arima" or find_spec("statsmodels") is not None]


def _date(fit: xr.DataTree, days: int) -> str:
    """The date so many days after the last that was fitted and one, "" without dates."""
    if not fit.attrs.get("start"):
        return ""
    return str(date.fromisoformat(str(fit.attrs["start"])) + timedelta(days=int(fit.attrs["fitted_days"]) + days))


def _counted_later(path: Path, fit: xr.DataTree) -> xr.Dataset:
    """What was counted after a fit, of the streams that were fitted and by what they were fitted by."""
    streams = [str(n) for n in fit["observed_data"].data_vars]
    if "borough" in fit["observed_data"].dims:
        return counted(path, streams)
    end = _date(fit, int(fit.attrs["days"]) - int(fit.attrs["fitted_days"]) - 1)
    return known_of(path, streams, end)


def _pooled(each: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """The mean over origins, by stream and forecaster."""
    streams = dict.fromkeys(n for scores in each for n in scores)
    found = {}
    for stream in streams:
        here = [scores[stream] for scores in each if stream in scores]
        found[stream] = {f: round(sum(x[f] for x in here) / len(here), 4) for f in here[0]}
    return found


def _city(quantiles: xr.DataArray) -> list[dict[str, float]]:
    """Median and 90 % interval by week."""
    three = {"low": 0.05, "median": 0.5, "high": 0.95}
    weeks = quantiles["horizon"].values
    return [{n: float(quantiles.sel(quantile=q, horizon=w)) for n, q in three.items()} for w in weeks]


def _scores(scores: xr.DataArray) -> dict[str, float]:
    """The mean over weeks and boroughs, by forecaster."""
    return {str(f): round(float(scores.sel(forecaster=f).mean()), 4) for f in scores["forecaster"].values}


def _hub(fits: list[xr.DataTree]) -> str:
    """The quantiles as the hubs' table, a row for each."""
    from lpmppl.inference.forecast import forecast as asked

    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["forecast_date", "target", "target_end_date", "location", "type", "quantile", "value"])
    for fit in fits:
        if not fit.attrs.get("start"):
            raise InputError("this calibration has no dates, which the hubs' format needs; fit a model with a start")
        for name, values in asked(fit).data_vars.items():
            kept = [d for d in values.dims if d not in ("quantile", "horizon")]
            flat = values.stack(place=kept) if kept else values.expand_dims(place=[str(fit.attrs["population"])])
            for place in flat["place"].values:
                where = " ".join(map(str, place)) if isinstance(place, tuple) else str(place)
                for week in flat["horizon"].values:
                    target = f"{week} wk ahead {_TARGETS.get(str(name), f'inc {name}')}"
                    end = _date(fit, 7 * int(week) - 1)
                    for q in flat["quantile"].values:
                        value = float(flat.sel(place=place, horizon=week, quantile=q))
                        rows.writerow([_date(fit, -1), target, end, where, "quantile", f"{q:.3f}", f"{value:.1f}"])
    return out.getvalue()


def _show(outcome: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for name, weeks in outcome["forecast"].items():
        shown = Table(title=f"{name} in the city, weeks from {outcome['from']}", title_justify="left")
        for head in ("week", "median", "90 %"):
            shown.add_column(head, justify="right")
        for k, x in enumerate(weeks, 1):
            shown.add_row(str(k), f"{x['median']:,.0f}", f"{x['low']:,.0f} to {x['high']:,.0f}")
        console.print(shown)
    for name, scores in outcome.get("wis", {}).items():
        origins = len(outcome["origins"])
        shown = Table(title=f"{name}, {origins} origin{'s' if origins > 1 else ''}", title_justify="left")
        shown.add_column("forecaster")
        for head in ("weighted interval score", "90 % held", "50 % held"):
            shown.add_column(head, justify="right")
        for forecaster, score in scores.items():
            held, half = (outcome[m][name][forecaster] for m in ("covered", "covered_half"))
            shown.add_row(forecaster, f"{score:,.1f}", f"{held:.0%}", f"{half:.0%}")
        console.print(shown)
    if "csv" in outcome:
        console.print(f"quantiles: {outcome['csv']}", highlight=False, soft_wrap=True, markup=False)
