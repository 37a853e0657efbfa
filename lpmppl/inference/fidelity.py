"""Fidelity: how far what a behaviour has groups of people do lies from what a survey has them say."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import chi2

from lpmppl.errors import InputError, nearest
from lpmppl.inference.error_budget import Budget, array
from lpmppl.models.archetypes import Bins, Lookup
from lpmppl.models.population import Population

__all__ = ["fidelity", "fidelity_text"]

EVERYBODY = "everybody"

_TAKEN = (
    *("group", "draw", "model", "survey", "standard_error", "difference", "z", "agents", "respondents"),
    *("mean_squared", "noise", "beyond", "chi_square", "degrees", "p"),
)
"""The names of the result's own variables and dimensions."""


def fidelity(
    people: Population,
    chance: object,
    survey: pd.DataFrame,
    attributes: Mapping[str, Bins | Lookup],
    where: object = None,
) -> xr.Dataset:
    r"""Hold the probabilities of a choice against the shares of a survey, group by group.

    The standard error of a share p of n respondents is half of Wilson's interval at one standard error, which is
    :math:`\sqrt{p (1 - p) / n}` but for small n, and isn't 0 where all answer alike:

    .. math:: s = \frac{\sqrt{n\,p\,(1 - p) + 1/4}}{n + 1}, \quad z_g = \frac{m_g - p_g}{s_g}, \quad
        \chi^2 = \sum_g z_g^2, \quad \text{beyond} = \sqrt{\max\Big(0, \frac 1 G \sum_g (m_g - p_g)^2 - s_g^2\Big)}

    Args:
        people: the population.
        chance: every agent's probability of the choice that was surveyed, shape (…, N), leading dimensions being draws.
            Choices, 0 or 1, have the agents' own chance in them, which isn't taken off.
        survey: a row for each group. Under the name of an attribute, the label that the group is restricted to, or
            nothing (NaN) for any; `share` of those who chose so; and `n`, how many were asked, divided by the design
            effect of a weighted survey.
        attributes: what each attribute of the survey is made of in the population, by name.
        where: whom the survey is of, such as adults, Booleans of shape (N,); everybody by default.
    Returns:
        over `group`: `model`, with leading dimensions together as `draw`, and `survey`, shares; `standard_error`;
        `difference`, the model's share less the survey's; `z`; `agents` and `respondents`; the attributes' labels as
        coordinates. Of all groups, each alike: `mean_squared` difference, `noise`, what of it the survey's sampling
        makes on average, `beyond`, the root mean squared error that is left; `chi_square` with `degrees` of freedom, of
        a model none of whose numbers was fitted to these groups, and its `p`, NaN where groups share agents and so
        aren't independent. A group without agents is NaN, left out of the sums and named in the attr `empty`.
    Raises:
        InputError: for columns, labels, shares or shapes that can't be used.

    >>> people = Population.of({"age": [20, 30, 70, 80]})
    >>> survey = pd.DataFrame({"age": ["young", "old"], "share": [0.6, 0.8], "n": [100, 100]})
    >>> found = fidelity(people, [0.5, 0.6, 0.8, 0.9], survey, {"age": Bins("age", (65,), ("young", "old"))})
    >>> found["difference"].values.round(3).tolist(), round(float(found["p"]), 3)
    ([-0.05, 0.05], 0.27)
    """
    p = _of_agents(people, chance)
    asked = _where(people, where)
    share, n = _surveyed(survey, attributes)
    codes, labels = _groups(people, survey, attributes)
    names = _names(labels, len(survey))
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"the survey has the group '{twice[0]}' twice; give each group one row")
    agents, often = np.zeros(len(names), dtype=np.int64), np.zeros(people.size, dtype=np.int32)
    model = np.full((*p.shape[:-1], len(names)), np.nan)
    for g, name in enumerate(names):
        mask = asked.copy()
        for place, wanted in codes:
            if wanted[g] is not None:
                mask &= place == wanted[g]
        often += mask
        if not (count := int(mask.sum())):
            continue
        agents[g], own = count, p[..., mask]
        if missing := int((~((own >= 0) & (own <= 1))).sum()):
            raise InputError(
                f"chance has {missing} values that are no probabilities in the group '{name}'; give those of "
                "everybody there, or leave agents out with where="
            )
        model[..., g] = own.mean(-1)
    if not agents.any():
        raise InputError(f"none of the survey's {len(names)} groups has agents; look at its attributes and where=")
    error = np.sqrt(n * share * (1.0 - share) + 0.25) / (n + 1.0)
    some = agents > 0
    difference = model - share
    squared, noise = (difference[..., some] ** 2).mean(-1), float((error[some] ** 2).mean())
    chi_square = ((difference / error)[..., some] ** 2).sum(-1)
    apart = int(often.max()) < 2
    draw: tuple[str, ...] = ("draw",) if p.ndim > 1 else ()
    found = xr.Dataset(
        {
            "model": ((*draw, "group"), model),
            "survey": ("group", share),
            "standard_error": ("group", error),
            "difference": ((*draw, "group"), difference),
            "z": ((*draw, "group"), difference / error),
            "agents": ("group", agents),
            "respondents": ("group", n),
            "mean_squared": (draw, squared),
            "noise": noise,
            "beyond": (draw, np.sqrt(np.maximum(squared - noise, 0.0))),
            "chi_square": (draw, chi_square),
            "degrees": int(some.sum()),
            "p": (draw, chi2.sf(chi_square, some.sum()) if apart else np.full(chi_square.shape, np.nan)),
        },
        {"group": names, **{name: ("group", values) for name, values in labels.items()}},
        {"empty": [name for name, has in zip(names, some, strict=True) if not has], "apart": apart},
    )
    for name in ("model", "survey", "standard_error", "difference", "beyond"):
        found[name].attrs["units"] = "per person"
    return found


def _of_agents(people: Population, chance: object) -> np.ndarray:
    """Probabilities as float64 of shape (N,), or (draw, N)."""
    p = array("chance", chance, f"a probability of each of {people.size} agents")
    if not p.ndim or p.shape[-1] != people.size or not p.size:
        raise InputError(
            f"chance has shape {p.shape}; its last dimension must be the {people.size} agents, as `Archetypes.read` "
            "gives them"
        )
    return p.reshape(-1, people.size) if p.ndim > 1 else p


def _where(people: Population, where: object) -> np.ndarray:
    if where is None:
        return np.ones(people.size, dtype=bool)
    found = array("where", where, "true or false for each agent", None)
    if found.shape != (people.size,) or found.dtype != bool:
        raise InputError(
            f"where has shape {found.shape} and {found.dtype}; give true or false for each of {people.size} agents"
        )
    return found


def _surveyed(survey: pd.DataFrame, attributes: Mapping[str, Bins | Lookup]) -> tuple[np.ndarray, np.ndarray]:
    """The shares and numbers of respondents, each of shape (G,)."""
    if not isinstance(survey, pd.DataFrame) or not len(survey):
        raise InputError(f"survey is {type(survey).__name__} without rows; give a DataFrame with a row for each group")
    columns = [str(c) for c in survey.columns]
    for name in attributes:
        if name in _TAKEN:
            raise InputError(f"an attribute can't be called '{name}', which the result has besides; call it otherwise")
    if len(set(columns)) < len(columns):
        raise InputError(f"survey has columns of the same name: {', '.join(columns)}; give each another")
    for name in ("share", "n"):
        if name not in columns:
            raise InputError(f"survey has no column '{name}', but {', '.join(columns)}; give share and n of each group")
        if name in attributes:
            raise InputError(f"an attribute can't be called '{name}', which is a column of the survey's numbers")
    for name in columns:
        # A misspelt attribute would make its groups everybody.
        if name not in ("share", "n") and name not in attributes:
            raise InputError(nearest("attribute in the survey's columns", name, attributes))
    try:
        share, n = (survey[name].to_numpy(dtype=np.float64) for name in ("share", "n"))
    except (TypeError, ValueError) as e:
        raise InputError(
            "the survey's share and n aren't numbers; give a share from 0 to 1 and how many answered"
        ) from e
    for row, (s, many) in enumerate(zip(share, n, strict=True)):
        if not 0 <= s <= 1 or not 1 <= many < np.inf:
            raise InputError(f"row {row} of the survey has share={s} and n={many}; give 0 to 1, and 1 or more")
    return share, n


def _groups(
    people: Population, survey: pd.DataFrame, attributes: Mapping[str, Bins | Lookup]
) -> tuple[list[tuple[np.ndarray, list[int | None]]], dict[str, list[str]]]:
    """By attribute of the survey, everybody's code and that of each group; the groups' labels, "" where any will do."""
    codes, labels = [], {}
    for name, source in attributes.items():
        if name not in survey.columns:
            continue
        if not isinstance(source, (Bins, Lookup)):
            raise InputError(f"attribute '{name}' is {source!r}; give Bins or Lookup")
        code, known = source.code(name, people)
        wanted = ["" if pd.isna(label) else str(label) for label in survey[name]]
        for label in wanted:
            if label and label not in known:
                raise InputError(nearest(f"label of '{name}' in the survey", label, known))
        codes.append((code.cpu().numpy(), [known.index(label) if label else None for label in wanted]))
        labels[name] = wanted
    return codes, labels


def _names(labels: Mapping[str, list[str]], groups: int) -> list[str]:
    each = [[f"{name}={values[g]}" for name, values in labels.items() if values[g]] for g in range(groups)]
    return [", ".join(parts) or EVERYBODY for parts in each]


def fidelity_text(
    found: xr.Dataset,
    budget: Budget | None = None,
    left_out: Mapping[str, xr.Dataset] | None = None,
    rephrasing: xr.Dataset | None = None,
) -> str:
    r"""Write a report in Markdown: a table of the groups, and what follows in a sentence each.

    Args:
        found: what `fidelity` gave; the mean of its draws is shown.
        budget: what `error_budget` or `surveyed_budget` gave.
        left_out: what `omitted` gave, by the name of the attribute.
        rephrasing: what `rephrased` gave.

    >>> people = Population.of({"age": [20, 30, 70, 80]})
    >>> survey = pd.DataFrame({"age": ["young", "old"], "share": [0.6, 0.8], "n": [100, 100]})
    >>> found = fidelity(people, [0.5, 0.6, 0.8, 0.9], survey, {"age": Bins("age", (65,), ("young", "old"))})
    >>> print(fidelity_text(found).partition("\n\n")[0])
    | group | model | survey (n) | difference | z |
    |---|---|---|---|---|
    | age=young | 55.0 % | 60.0 ± 4.9 % (100) | -5.0 | -1.0 |
    | age=old | 85.0 % | 80.0 ± 4.0 % (100) | +5.0 | +1.3 |
    """
    mean = found.mean("draw", skipna=False) if "draw" in found.dims else found
    lines = ["| group | model | survey (n) | difference | z |", "|---|---|---|---|---|"]
    for name in found["group"].values:
        row = {str(k): float(v) for k, v in mean.sel(group=name).items()}
        many = f"{100 * row['survey']:.1f} ± {100 * row['standard_error']:.1f} % ({row['respondents']:,.0f})"
        own = (
            ["no agents", many, "", ""]
            if np.isnan(row["model"])
            else [f"{100 * row['model']:.1f} %", many, f"{100 * row['difference']:+.1f}", f"{row['z']:+.1f}"]
        )
        lines.append("| " + " | ".join([str(name), *own]) + " |")
    root, noise, beyond = (100 * float(x) for x in (mean["mean_squared"] ** 0.5, mean["noise"] ** 0.5, mean["beyond"]))
    test = f"p = {float(mean['p']):.2g}" if found.attrs["apart"] else "no p, since groups share people"
    lines += [
        "",
        f"Root mean squared difference {root:.1f} points, of which the survey's sampling makes {noise:.1f}; beyond it "
        f"{beyond:.1f}. Chi-square {float(mean['chi_square']):.1f} of {int(mean['degrees'])} groups, {test}.",
    ]
    if budget is not None:
        inside, sampled = float(np.mean(budget.within)), float(np.mean(budget.sampling))
        lines.append(
            f"Individuals: mean squared error {inside + sampled:.4f}, of which within archetypes {inside:.4f} "
            f"± {budget.standard_error:.4f} and from sampling {sampled:.4f}; beyond "
            f"{np.max(budget.enough()):.0f} samples, all further ones take off less than a tenth."
        )
    for attribute, out in (left_out or {}).items():
        bias = out["bias"].mean("draw") if "draw" in out["bias"].dims else out["bias"]
        worst = str(out["label"].values[int(np.argmax(abs(bias.values)))])
        lines.append(
            f"Left out, {attribute}: bias up to {100 * float(bias.sel(label=worst)):+.1f} points ({worst}), "
            f"{100 * float(out['share']):.0f} % of the variance within archetypes."
        )
    if rephrasing is not None:
        at = rephrasing["largest"].attrs
        lines.append(
            f"In other words: {100 * float(rephrasing['mean']):.1f} points from their mean, "
            f"{100 * float(rephrasing['beyond']):.1f} beyond sampling; at most "
            f"{100 * float(rephrasing['largest']):.1f}: template {at['template']}, archetype {at['archetype']}, "
            f"option {at['option']}."
        )
    return "\n".join(lines)
