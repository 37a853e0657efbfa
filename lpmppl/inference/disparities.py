"""Disparities: how unequally an outcome falls on groups of people, and through what."""

from __future__ import annotations

import xarray as xr

from lpmppl.errors import InputError, nearest
from lpmppl.inference.results import in_all

__all__ = ["disparity"]


def disparity(tree: xr.DataTree, outcome: str, between: str, through: str | None = None) -> xr.Dataset:
    r"""How far each group's rate of an outcome lies from everybody's, and what of it comes through a third variable.

    With the share :math:`p_{gm}` of group g's people who are of kind m, and their rate :math:`r_{gm}`, the gap is
    composition, who a group's people are, plus rates, what happens to people of one kind in it (Kitagawa, Journal of
    the American Statistical Association 50, 1955, 1168):

    .. math:: r_g - r = \sum_m (p_{gm} - p_m) \frac{r_{gm} + r_m}{2} + \sum_m (r_{gm} - r_m) \frac{p_{gm} + p_m}{2}

    It is arithmetic on what happened. What would happen without a mechanism, such as the layer of work,
    `attribute_layers` and `attribute_substeps` say of any gap that is given to them as the outcome.

    Args:
        tree: what `run` or `counterfactual` gave, of a model with tallies by these strata.
        outcome: the tally, summed over days, or on the last day where it counts who is in a state.
        between: the stratum whose groups are compared, such as `income`.
        through: the stratum of the third variable, such as `size`; None for gaps alone.
    Returns:
        dims (chain, draw, worlds, `between`) of `rate`, per person; `gap`, the rate less everybody's; and, with
        `through`, its parts `composition` and `rates`. NaN for a group without people.
    Raises:
        InputError: for an outcome or stratum that there isn't.

    >>> import lpmppl as lpm
    >>> people = lpm.nyc.population(2_000)
    >>> model = lpm.nyc.seirm(people, by={"income": "income_band", "size": "household_size"})
    >>> found = disparity(lpm.run(model, days=20), "infections", between="income", through="size")
    >>> bool(abs(found["gap"] - found["composition"] - found["rates"]).max() < 1e-12)
    True
    """
    if "prior_predictive" not in getattr(tree, "children", ()) or "constant_data" not in tree.children:
        raise InputError("this result has no tallies by strata; run a model with strata, which by= gives it")
    tallies, people = tree["prior_predictive"].to_dataset(), tree["constant_data"].to_dataset()["people"]
    if not isinstance(outcome, str) or outcome not in tallies.data_vars:
        raise InputError(nearest("tally", str(outcome), [str(n) for n in tallies.data_vars]))
    tally = tallies[outcome]
    strata = [str(d) for d in people.dims if d in tally.dims]
    wanted = [between] if through is None else [between, through]
    for name in wanted:
        if name not in strata:
            raise InputError(nearest(f"stratum of {outcome}", str(name), strata))
    if between == through:
        raise InputError(f"a gap between groups of {between} can't come through {through} itself; give another stratum")
    rest = [d for d in strata if d not in wanted]
    whole = in_all(tally)
    happened, size = whole.sum(rest), people.sum([d for d in people.dims if d not in wanted])
    group, kind = ([] if through is None else [through]), [between]
    rate = _rate(happened.sum(group), size.sum(group))
    found = {"rate": rate, "gap": rate - _rate(happened.sum(wanted), size.sum(wanted))}
    if through is not None:
        share, overall = _rate(size, size.sum(group)), size.sum(kind) / size.sum()
        general = _rate(happened.sum(kind), size.sum(kind)).fillna(0.0)
        # Where a group has nobody of a kind, its rate is anybody's: there is no one for whom it differs.
        own = _rate(happened, size).fillna(general)
        found["composition"] = ((share - overall) * (own + general) / 2).sum(through, skipna=False)
        found["rates"] = ((own - general) * (share + overall) / 2).sum(through, skipna=False)
    result = xr.Dataset(found)
    for what in result.data_vars.values():
        what.attrs = {"units": f"{whole.attrs['units']} per person", "long_name": outcome}
    return result


def _rate(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    return part / whole.where(whole > 0)
