"""`lpmppl forecast`: what a calibrated society says of the weeks after the data, and how good that was."""

from __future__ import annotations

import csv
import io
import json
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli.calibrate import counted
from lpmppl.cli.options import AsJson
from lpmppl.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["forecast"]

_TARGETS = {"admissions": "inc hosp", "deaths": "inc death", "cases": "inc case"}


def forecast(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a calibration made with --ahead.")],
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The Health Department's trends/data-by-day.csv of later, to score by."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the 23 quantiles in the hubs' format here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Forecast weekly counts after the days that a calibration was fitted to.

    With the data of later it is scored by the weighted interval score, counts a week, less being better, beside
    persistence: the last week going on.

    [bold]Example[/]

    [cyan]lpmppl calibrate nyc --data data-by-day.csv --until 2020-05-31 --ahead 28 --out runs/fit[/]

    [cyan]lpmppl forecast runs/fit --data data-by-day.csv --csv forecast.csv[/]
    """
    from lpmppl.inference import forecast as asked
    from lpmppl.report import datatree

    fit = datatree.load(folder / "results.nc")
    quantiles = asked.forecast(fit)
    first = int(fit.attrs["fitted_days"])
    outcome: dict[str, Any] = {
        "from": str(date.fromisoformat(str(fit.attrs["start"])) + timedelta(days=first))
        if fit.attrs["start"]
        else first,
        "forecast": {str(n): _city(x) for n, x in asked.forecast(fit, summed=True).items()},
    }
    if data is not None:
        scores = asked.scored(fit, counted(data, [str(n) for n in quantiles]))
        outcome["wis"] = {str(n): _scores(scores[f"{n}_wis"]) for n in quantiles}
        outcome["covered"] = {str(n): _scores(scores[f"{n}_covered"]) for n in quantiles}
    if table is not None:
        from lpmppl.report.atomic import replacing

        with replacing(table) as part:
            part.write_text(_hub(fit, quantiles), encoding="utf-8")
        outcome["csv"] = str(table)
    if as_json:
        print(json.dumps(outcome))
    else:
        _show(outcome)


def _city(quantiles: xr.DataArray) -> list[dict[str, float]]:
    """Median and 90 % interval by week."""
    three = {"low": 0.05, "median": 0.5, "high": 0.95}
    weeks = quantiles["horizon"].values
    return [{n: float(quantiles.sel(quantile=q, horizon=w)) for n, q in three.items()} for w in weeks]


def _scores(scores: xr.DataArray) -> dict[str, float]:
    """The mean over weeks and boroughs, by forecaster."""
    return {str(f): round(float(scores.sel(forecaster=f).mean()), 4) for f in scores["forecaster"].values}


def _hub(fit: xr.DataTree, quantiles: xr.Dataset) -> str:
    """The quantiles as the hubs' table, a row for each."""
    if not fit.attrs.get("start"):
        raise InputError("this calibration has no dates, which the hubs' format needs; fit a model with a start")
    last = date.fromisoformat(str(fit.attrs["start"])) + timedelta(days=int(fit.attrs["fitted_days"]) - 1)
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["forecast_date", "target", "target_end_date", "location", "type", "quantile", "value"])
    for name, values in quantiles.data_vars.items():
        kept = [d for d in values.dims if d not in ("quantile", "horizon")]
        flat = values.stack(place=kept) if kept else values.expand_dims(place=[("all",)])
        for place in flat["place"].values:
            for week in flat["horizon"].values:
                target = f"{week} wk ahead {_TARGETS.get(str(name), f'inc {name}')}"
                end = last + timedelta(days=7 * int(week))
                for q in flat["quantile"].values:
                    value = float(flat.sel(place=place, horizon=week, quantile=q))
                    where = " ".join(map(str, place)) if isinstance(place, tuple) else str(place)
                    rows.writerow([last, target, end, where, "quantile", f"{q:.3f}", f"{value:.1f}"])
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
        held = outcome["covered"][name]["model"]
        console.print(
            f"{name}: weighted interval score {scores['model']:,.1f}, of persistence {scores['persistence']:,.1f}; the "
            f"90 % intervals held {held:.0%}",
            highlight=False,
        )
    if "csv" in outcome:
        console.print(f"quantiles: {outcome['csv']}", highlight=False, soft_wrap=True, markup=False)
