"""What a tally hangs on: the tornado figure of its elasticities, and the table of its derivatives."""

from __future__ import annotations

import math
from html import escape

import numpy as np
import xarray as xr

from lpmppl.report import signed
from lpmppl.report.axes import signed as write
from lpmppl.report.blocks import fold, table
from lpmppl.report.charts import figure
from lpmppl.report.figures import Bar

__all__ = ["sensitivity", "tornado"]

_MOST, _WIDTH = 12, 640.0


def tornado(found: xr.Dataset, most: int = _MOST) -> str:
    """Draw the greatest elasticities of what `lpmppl.sensitivity` found, as an SVG: the greatest above.

    Args:
        found: derivatives in all, without days and strata.
        most: the most parameters.
    """
    size = np.nan_to_num(np.abs(found["elasticity"].to_numpy()))
    order = [k for k in np.argsort(-size)[:most] if size[k] > 0]
    reach = (found["high"] - found["value"]) / found["se"].where(found["se"] > 0)
    bars = []
    for k in order:
        row = found.isel(parameter=int(k))
        value = float(row["elasticity"])
        wide = float(row["elasticity_se"] * np.nan_to_num(reach.isel(parameter=int(k))))
        bars.append(Bar(str(row["parameter"].item()).replace("_", " "), value, value - wide, value + wide))
    if not bars:
        return ""
    said = f"Change of {found.attrs['of']} in percent per percent of each parameter"
    return signed.bars(bars, _WIDTH, "% per % of the parameter", said, lambda x: write(round(x, 2)))


def sensitivity(tree: xr.DataTree) -> str:
    """Give the figure and the table of a result's group `sensitivity`; nothing where it has none."""
    if "sensitivity" not in tree.children:
        return ""
    found = tree["sensitivity"].to_dataset()
    of = str(found.attrs["of"])
    drawing = tornado(found)
    caption = (
        f"By how many percent {of} in {found.attrs['days']} days change where a parameter is one percent greater, with "
        f"90 % intervals over {found.attrs['draws']} draws of everybody's chance."
    )
    if "within_agents" in found.attrs:
        ratio, error = (float(found.attrs[n]) for n in ("ratio_to_whole", "ratio_to_whole_se"))
        beside = f", times {ratio:.2f} ± {error:.2f}, which makes them the whole society's where they are steepest"
        caption += f" They and their audit are of {found.attrs['within_agents']:,} people"
        caption += f"{beside if math.isfinite(ratio) else ''}."
    nothing = f"<p>No parameter moves {escape(of)}.</p>"
    body = [
        f'<tr><th scope="row">{escape(str(n))}</th><td>{_amount(r["at"])}</td><td>{_amount(r["value"])}</td>'
        f"<td>{_amount(r['se'])}</td><td>{_amount(r['difference'])}</td><td>{_amount(r['difference_se'])}</td>"
        f'<td class="text">{escape(str(r["estimator"].item()))}</td></tr>'
        for n in found["parameter"].values
        for r in [found.sel(parameter=n)]
    ]
    head = ["Parameter", "At", "Derivative", "Standard error", "Audit", "Standard error", "By"]
    said = f"Derivatives of {of}, per unit of the parameter; the audit is by differences of other draws."
    return (figure(of, drawing, caption) if drawing else nothing) + fold("Every parameter", table(head, body, said))


def _amount(x: xr.DataArray) -> str:
    value = float(x)
    return "" if math.isnan(value) else f"{value:.4g}".replace("-", "−")
